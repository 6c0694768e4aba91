"""Dense vectors from a sentence-transformers model."""
