"""Judgements, evaluation, and (later) training of encoders."""
