"""The engine that stores and searches passages on an OpenSearch cluster."""
