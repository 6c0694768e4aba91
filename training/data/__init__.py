"""Training rows, batches, and the cache of a frozen backbone's hidden states."""
