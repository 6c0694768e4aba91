"""Where each architecture keeps its tensors: one file an architecture, and the registry of them."""
