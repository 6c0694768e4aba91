"""API keys: roles, rotation, rates, loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyblink.app.access.authorize import authorize, is_loopback
from hyblink.app.access.keys import KeyStore, Role
from hyblink.app.access.rate_limits import RateLimits
from hyblink.app.core.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    RateLimitedError,
    UnauthorizedError,
)
from hyblink.app.engines.embedded.records import SqliteRecords


def test_keys(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    keys = KeyStore(SqliteRecords(path))
    secret = keys.create("search", "2026-01-01", ["docs"])
    assert secret.encode() not in path.read_bytes()
    assert secret.rpartition("_")[2].encode() not in b"".join(one.read_bytes() for one in tmp_path.iterdir())
    header = f"Bearer {secret}"
    assert authorize(keys, header, Role.SEARCH, "docs", allow_anonymous=False) is not None
    for role, collection in [(Role.INGEST, "docs"), (Role.SEARCH, "other")]:
        with pytest.raises(ForbiddenError):
            authorize(keys, header, role, collection, allow_anonymous=False)
    for bad in [None, "Bearer nonsense", f"Basic {secret}", f"Bearer {secret}x", "Bearer hyb_", "Bearer hyb__"]:
        with pytest.raises(UnauthorizedError):
            authorize(keys, bad, Role.SEARCH, "docs", allow_anonymous=False)
    keys.revoke(keys.all()[0].id)
    with pytest.raises(UnauthorizedError):
        authorize(keys, header, Role.SEARCH, "docs", allow_anonymous=False)
    with pytest.raises(InvalidInputError, match="unknown role"):
        keys.create("root", "2026-01-01")


def test_a_rotated_key_has_a_new_secret_and_the_former_one_its_time(tmp_path: Path) -> None:
    keys = KeyStore(SqliteRecords(tmp_path / "records.sqlite"))
    first = keys.create("ingest", "2026-01-01")
    second = keys.rotate(first.split("_")[1], grace_s=60)
    assert keys.find(first) == keys.find(second)
    third = keys.rotate(first.split("_")[1])
    assert keys.find(third).role is Role.INGEST
    for gone in (first, second):
        with pytest.raises(UnauthorizedError):
            keys.find(gone)
    keys.revoke(first.split("_")[1])
    with pytest.raises(UnauthorizedError):
        keys.find(third)
    with pytest.raises(ConflictError, match="revoked"):
        keys.rotate(first.split("_")[1])
    with pytest.raises(NotFoundError):
        keys.rotate("00000000")


def test_a_key_has_so_many_requests_a_minute(tmp_path: Path) -> None:
    keys = KeyStore(SqliteRecords(tmp_path / "records.sqlite"))
    mine = keys.find(keys.create("search", "now", per_minute=6))
    other = keys.find(keys.create("search", "now"))
    now = [0.0]
    limits = RateLimits(0, clock=lambda: now[0])
    for number in range(6):
        limits.take(mine, f"r{number}")
        limits.take(mine, f"r{number}")
    with pytest.raises(RateLimitedError, match="6 a minute") as refused:
        limits.take(mine, "r6")
    assert refused.value.retry_after_s == pytest.approx(10)
    for number in range(1000):
        limits.take(other, str(number))
    now[0] += 10
    limits.take(mine, "r7")
    with pytest.raises(RateLimitedError):
        limits.take(mine, "r8")


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("example.org", False)],
)
def test_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) is local
