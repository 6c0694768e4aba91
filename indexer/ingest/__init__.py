"""From a source's rows to stored passages."""
