"""Request and answer bodies, one file a subject. Requests are strict: unknown fields are refused by name."""
