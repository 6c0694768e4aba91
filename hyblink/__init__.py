"""Hybrid search and entity linking over your own documents."""
