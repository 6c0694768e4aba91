"""Cross-encoders: models that read a query and a passage together and score the pair."""
