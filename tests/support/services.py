"""Which tests run: full counts or a share, with real servers or without."""

from __future__ import annotations

import os

import pytest

SOAK = os.environ.get("HYBLINK_SOAK") == "1"
REQUIRE_SERVICES = os.environ.get("REQUIRE_SERVICES") == "1"


def missing_service(what: str) -> None:
    """Skip the test because `what` is missing, or fail it if REQUIRE_SERVICES=1."""
    if REQUIRE_SERVICES:
        pytest.fail(f"{what} is missing, and REQUIRE_SERVICES=1")
    pytest.skip(f"{what} is missing")
