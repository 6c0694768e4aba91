"""Recipes, families of models, training data, losses, negatives, the loop, and models that were trained."""
