"""The cross-encoder family: re-rankers that read query and passage together."""
