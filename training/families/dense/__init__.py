"""The dense family: bi-encoders."""
