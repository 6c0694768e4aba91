"""BLINK's mention tower."""
