"""Passages on an OpenSearch cluster."""
