"""Weights, filters, chunking, prefixes, keys, rendering, errors."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import hyblink
from hyblink.app.access.authorize import authorize, is_loopback
from hyblink.app.access.keys import KeyStore, Role
from hyblink.app.access.rate_limits import RateLimits
from hyblink.app.core import errors
from hyblink.app.core.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    RateLimitedError,
    UnauthorizedError,
)
from hyblink.app.core.filters import And, Exists, Not, Range, Terms, check_metadata, matches, parse_filter
from hyblink.app.core.settings import EncodeSettings, Settings
from hyblink.app.core.types.ranking import Signal
from hyblink.app.core.weights import RELATIVE_ERROR, idf_weights, round_weights
from hyblink.app.encoders.loading.prefixes import prefixes_for
from hyblink.app.encoders.reranker import Reranker
from hyblink.app.engines.embedded.records import SqliteRecords
from hyblink.app.search.request import check_weights
from hyblink.indexer.ingest.chunking import windows
from hyblink.ui import rendering
from hyblink.ui.signals import Signals

ROOT = Path(__file__).resolve().parents[2]


def modules() -> list[str]:
    found = []
    for module in pkgutil.walk_packages(hyblink.__path__, "hyblink."):
        if module.name not in {"hyblink.ui.streamlit_app", "hyblink.__main__"}:
            found.append(module.name)
    return found


@pytest.mark.parametrize("name", modules())
def test_doctests(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_every_public_error_is_listed_and_drawn() -> None:
    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert defined == set(errors.__all__)
    assert all(name in (errors.__doc__ or "") for name in errors.__all__)


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    for name, field in Settings.model_fields.items():
        section = field.annotation
        inner = getattr(section, "model_fields", None)
        names = [f"HYBLINK_{name.upper()}__{key.upper()}" for key in inner] if inner else [f"HYBLINK_{name.upper()}"]
        for variable in names:
            assert f"`{variable}`" in page, variable


def test_nine_significant_bits() -> None:
    values = np.random.default_rng(0).lognormal(0, 3, 10_000).astype(np.float32)
    rounded = round_weights(values)
    assert (np.abs(rounded - values) <= values * RELATIVE_ERROR).all()
    assert (round_weights(rounded) == rounded).all()
    order = np.argsort(values)
    assert (np.diff(rounded[order]) >= 0).all(), "rounding must keep the order"


def test_query_weights_are_the_idf_of_bm25() -> None:
    ids, frequency = np.array([3, 5, 7, 9], dtype=np.int32), np.array([1, 0, 2, 1])
    found = idf_weights(ids, frequency, passages=10, limit=10)
    assert found.ids.tolist() == [3, 7, 9]
    # ln(1 + 9.5 / 1.5) and ln(1 + 8.5 / 2.5), to nine bits
    assert found.weights.tolist() == pytest.approx([1.99243, 1.48160, 1.99243], rel=2**-9)
    assert idf_weights(ids, frequency, passages=10, limit=1).ids.tolist() == [3], "of equal ones the lower id stays"


META = {"kind": "function", "line": 12, "tags": ["a", "b"], "day": "2024-05-01", "ok": True, "none": []}


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"term": {"kind": "function"}}, True),
        ({"term": {"kind": "class"}}, False),
        ({"terms": {"tags": ["b", "z"]}}, True),
        ({"term": {"ok": True}}, True),
        ({"term": {"line": 12}}, True),
        ({"range": {"line": {"gt": 12}}}, False),
        ({"range": {"line": {"gte": 12, "lt": 13}}}, True),
        ({"range": {"day": {"gte": "2024-01-01", "lt": "2025-01-01"}}}, True),
        ({"range": {"kind": {"gte": 0}}}, False),
        ({"exists": "tags"}, True),
        ({"exists": "none"}, False),
        ({"not": {"exists": "line"}}, False),
        ({"and": [{"exists": "line"}, {"not": {"term": {"kind": "class"}}}]}, True),
        ({"or": [{"term": {"kind": "class"}}, {"range": {"line": {"lte": 12}}}]}, True),
    ],
)
def test_filters(tree: object, expected: bool) -> None:
    assert matches(parse_filter(tree), META) is expected


@pytest.mark.parametrize(
    "tree",
    [
        {}, [], "x", 3, {"term": {}}, {"term": {"a": None}}, {"term": {"a": float("nan")}}, {"terms": {"a": []}},
        {"range": {"a": {}}}, {"range": {"a": {"gt": 1, "gte": 2}}}, {"range": {"a": {"gte": "soon"}}},
        {"range": {"a": {"gte": float("inf")}}}, {"range": {"a": {"near": 1}}}, {"exists": ""}, {"and": []},
        {"and": {}}, {"like": {"a": "b"}}, {"term": {"a": "b"}, "exists": "c"}, {"term": {"a": "\x00"}},
    ],
)  # fmt: skip
def test_bad_filters_are_refused(tree: object) -> None:
    with pytest.raises(InvalidInputError, match="expected"):
        parse_filter(tree)


def test_a_filter_may_not_be_too_deep() -> None:
    tree: dict[str, object] = {"exists": "a"}
    for _ in range(40):
        tree = {"not": tree}
    with pytest.raises(InvalidInputError, match="too large"):
        parse_filter(tree)


def test_parsed_filters_are_trees() -> None:
    tree = parse_filter({"and": [{"term": {"a": 1}}, {"not": {"exists": "b"}}, {"range": {"c": {"lt": 2}}}]})
    assert tree == And((Terms("a", (1,)), Not(Exists("b")), Range("c", None, 2.0, True, False)))


@pytest.mark.parametrize(
    "value", [{"a": {"b": 1}}, {"a": [1]}, {"a": float("nan")}, {"": 1}, {"a": 2**70}, {"a": "\x00"}]
)
def test_bad_metadata_is_refused(value: object) -> None:
    with pytest.raises(InvalidInputError):
        check_metadata(value)


def test_windows_cover_the_text_and_overlap() -> None:
    text = " ".join(f"Sentence number {n} says something." for n in range(200))
    spans = windows(text, 300, 60)
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    assert all(end - start <= 300 for start, end in spans)
    assert all(later[0] <= earlier[1] for earlier, later in zip(spans, spans[1:], strict=False))
    assert all(text[start : start + 8] == "Sentence" for start, _ in spans)


def test_prefixes_are_by_family_never_by_guess() -> None:
    assert prefixes_for("intfloat/multilingual-e5-base").passage == "passage: "
    assert prefixes_for("BAAI/bge-m3").query == ""
    assert prefixes_for("BAAI/bge-small-en-v1.5").query.startswith("Represent this sentence")
    assert prefixes_for("somebody/elsewhere") == prefixes_for("")


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


@pytest.mark.parametrize(
    "weights", [{Signal.BM25: float("nan")}, {Signal.BM25: float("inf")}, {Signal.BM25: -1.0}, {Signal.BM25: 0.0}]
)
def test_bad_weights_are_refused(weights: dict[Signal, float]) -> None:
    with pytest.raises(InvalidInputError):
        check_weights(weights)


def test_rendering_escapes_everything() -> None:
    evil = "<script>alert('x')</script>"
    line = {"signal": evil, "raw": 1.0, "normalised": 1.0, "weight": 1.0, "contribution": 1.0, "leg_rank": 1, "note": evil,
            "tokens": [{"token": evil, "contribution": 1.0, "query_weight": 1.0, "passage_weight": 1.0}]}  # fmt: skip
    signals = Signals([{"name": evil, "label": evil, "colour": evil, "proposes": True}])
    shown = [
        rendering.highlighted(evil, [{"start": 2, "end": 9}]),
        signals.bar([line], 1.0),
        signals.ledger([line], 1.0),
        signals.tokens(line),
        signals.legend([evil]),
        rendering.entity_link(evil, evil, evil),
        rendering.entity_card({"kind": evil, "world": evil, "aliases": [evil], "description": evil}),
        rendering.mentioned(evil, {"documents": 1, "shown": [{"title": evil, "doc_id": evil}]}),
    ]
    assert all("<script" not in html and "alert('" not in html for html in shown)


def test_highlights_are_cut_around_the_first() -> None:
    text = "x " * 1000 + "needle" + " y" * 1000
    shown = rendering.highlighted(text, [{"start": 2000, "end": 2006}], limit=200)
    assert "<mark>needle</mark>" in shown
    assert len(shown) < 300


def test_waiting_for_a_busy_cross_encoder_ends_with_the_deadline() -> None:
    encoder = Reranker("any", EncodeSettings())
    encoder.__dict__["_loaded"] = SimpleNamespace(score=lambda pairs, idf: np.ones(len(pairs), dtype=np.float32))
    passages = [("", "a"), ("", "b")]
    with encoder._computing:  # another search is being re-ranked
        started = time.perf_counter()
        scores = encoder.score("q", passages, started + 0.05)
        assert np.isnan(scores).all()
        assert time.perf_counter() - started >= 0.05
    assert encoder.score("q", passages, time.perf_counter() + 60).tolist() == [1.0, 1.0]
