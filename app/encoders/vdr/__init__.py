"""VDR encoders (Zhou et al. 2024): sparse vectors over a model's own vocabulary, and bags of tokens."""
