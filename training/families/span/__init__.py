"""ELQ's span head."""
