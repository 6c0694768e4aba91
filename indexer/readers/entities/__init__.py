"""Entities from files, dumps and installed packages."""
