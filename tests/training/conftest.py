"""Fixtures of the trainings' tests: tiny models and made-up rows."""

from support.training_runs import base, data, still

__all__ = ["base", "data", "still"]
