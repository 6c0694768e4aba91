"""The learned correction of a token's idf, which model and training share."""

from __future__ import annotations

SHARPEST = 2.0
"""The bound of learned corrections: a token's weight changes by a factor of at most exp(±2)."""
