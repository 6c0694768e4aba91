"""Mining of hard negatives: from searches, at random, or with the trained model itself (ANCE)."""
