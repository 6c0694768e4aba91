"""Names of collections."""

from __future__ import annotations

import re

from hyblink.app.core.errors import InvalidInputError

COLLECTION_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
COLLECTION_PATTERN = f"^{COLLECTION_NAME.pattern}$"
"""As JSON schemas and query parameters have it."""


def check_name(name: str) -> str:
    """A collection name, or InvalidInputError."""
    if not isinstance(name, str) or not COLLECTION_NAME.fullmatch(name):
        raise InvalidInputError(
            "bad collection name",
            received=name,
            expected="1 to 63 of a-z, 0-9, _ and -, not starting with _ or -",
        )
    return name
