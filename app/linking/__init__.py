"""Entity linking: mentions in a text to entities of a knowledge base, or to NIL."""
