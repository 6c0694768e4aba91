"""Hybrid search: ranking, result pages, and explanations of why a document is missing."""
