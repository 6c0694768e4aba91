"""Late interaction: token states compared pair by pair (ColBERT)."""
