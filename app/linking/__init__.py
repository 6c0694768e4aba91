"""Entity linking: find mentions in a text and link each to an entity of a knowledge base, or to NIL (no entity)."""
