"""The search use case."""
