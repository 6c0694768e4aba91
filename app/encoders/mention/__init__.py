"""Models that find mentions in texts and encode them."""
