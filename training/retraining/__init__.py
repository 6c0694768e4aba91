"""Training a collection's encoder anew from its own text and clicks."""
