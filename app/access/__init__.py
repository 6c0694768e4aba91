"""Who may do what: API keys, identity providers, rate limits, the audit log."""
