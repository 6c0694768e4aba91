"""Judged mentions in, figures out: recall of candidates, accuracy, NIL, calibration."""
