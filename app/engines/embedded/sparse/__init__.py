"""Exact dot products over stored term weights."""
