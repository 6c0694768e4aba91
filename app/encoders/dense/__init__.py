"""Dense encoders, which are sentence-transformers models."""
