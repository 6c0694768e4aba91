"""Cross-encoders."""
