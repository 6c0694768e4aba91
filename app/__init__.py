"""hyblink's application: core types and ports, encoders, indexes, use cases, and the doors (API, CLI)."""
