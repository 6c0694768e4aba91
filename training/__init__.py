"""Model training: recipes, model families, training data, losses, negatives, the training loop, trained models."""
