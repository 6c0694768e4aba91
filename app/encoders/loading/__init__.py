"""From a model's name to its files: where they are, whether they are safe to open, which adapter they are."""
