"""Readers that stream documents from files, folders and installed Python packages.

A bad row is yielded as an error. Reading goes on after it.
"""
