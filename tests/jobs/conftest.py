"""Fixtures of the workers' tests."""

from support.workers import here, installation

__all__ = ["here", "installation"]
