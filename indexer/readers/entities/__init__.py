"""Readers that yield knowledge-base entities from files, dumps and installed Python packages."""
