"""Training rows and batches, and hidden states of a frozen backbone."""
