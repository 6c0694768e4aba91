"""VDR heads and encoders."""
