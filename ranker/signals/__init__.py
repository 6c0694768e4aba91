"""Signals: the ways in which a passage can match a query, a file each."""
