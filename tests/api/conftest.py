"""Fixtures of the API's tests."""

from support.api import client

__all__ = ["client"]
