"""VDR: term weights over a model's own vocabulary, and bags of tokens."""
