"""The store of the embedded engine: one SQLite file."""
