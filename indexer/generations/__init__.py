"""Building, verifying and publishing generations."""
