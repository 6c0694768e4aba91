"""Where a model computes: torch, or an exported graph."""
