"""Validation of collection names."""

from __future__ import annotations

import re

from hyblink.app.core.errors import InvalidInputError

COLLECTION_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
COLLECTION_PATTERN = f"^{COLLECTION_NAME.pattern}$"
"""The anchored pattern, for JSON schemas and query parameters."""


def check_name(name: str) -> str:
    """`name` itself if it is a valid collection name. Raises InvalidInputError otherwise."""
    if not isinstance(name, str) or not COLLECTION_NAME.fullmatch(name):
        raise InvalidInputError(
            "bad collection name",
            received=name,
            expected="1 to 63 of a-z, 0-9, _ and -, not starting with _ or -",
        )
    return name
