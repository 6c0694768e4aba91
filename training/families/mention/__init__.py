"""The mention family: the mention tower of BLINK's bi-encoder."""
