"""Authentication and authorization: API keys, identity providers, rate limits, the audit log."""
