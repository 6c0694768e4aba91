"""Where negatives come from: searches, random draws, the model itself (ANCE)."""
