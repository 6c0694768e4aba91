"""The signals: ways to score how a passage matches a query, one module each."""
