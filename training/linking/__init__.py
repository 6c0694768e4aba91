"""Training data and model fitting for entity linking."""
