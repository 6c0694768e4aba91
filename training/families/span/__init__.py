"""The span family: ELQ's mention detection and linking head."""
