"""The embedded engine, which runs in the Python process. SQLite is the source of truth; all indexes derive from it."""
