"""The engine that needs nothing but Python: SQLite is the truth, everything beside it is derived."""
