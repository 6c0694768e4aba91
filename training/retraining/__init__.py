"""Retraining: fine-tunes the encoder of a collection on its own text and clicks."""
