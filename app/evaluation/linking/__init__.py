"""Evaluation of entity linking on judged mentions: candidate recall, accuracy, NIL, calibration."""
