"""Ingestion: turns the rows of a source into stored passages."""
