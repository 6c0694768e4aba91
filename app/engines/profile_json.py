"""The stored JSON form of ranking profiles, link profiles and name counts. What is damaged is refused."""

from __future__ import annotations

import math
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, get_args

from hyblink.app.core.errors import CorruptionError
from hyblink.app.core.types.linking import LinkProfile, NameCounts, Utility
from hyblink.app.core.types.ranking import FusionName, NormalizationName, RankingProfile, Signal, VdrMode


def link_profile_from_json(value: dict[str, Any]) -> LinkProfile:
    """The link profile from its stored JSON form. Raises CorruptionError for any other value."""
    with as_corruption("link profile"):
        found = _link_profile(value)
        numbers = [found.fast_threshold, found.cross_threshold, *found.retrieval.values()]
        for utility in (found.fast, found.cross):
            numbers += [
                utility.nil,
                *utility.coefficients.values(),
                *(number for knot in utility.knots for number in knot),
            ]
        _check_finite(numbers)
    return found


def _check_finite(numbers: Sequence[Any]) -> None:
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        raise ValueError("a number is missing or not finite")


@contextmanager
def as_corruption(what: str) -> Iterator[None]:
    """Turn what a damaged JSON document causes into CorruptionError."""
    try:
        yield
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CorruptionError(f"a {what} is damaged: {type(error).__name__}: {error}") from error


def _link_profile(value: dict[str, Any]) -> LinkProfile:
    made = {
        name: Utility(
            value[name]["coefficients"], float(value[name]["nil"]), tuple((a, b) for a, b in value[name]["knots"])
        )
        for name in ("fast", "cross")
    }
    value = {**value, **made}
    if value.pop("counts", None):  # a profile of an earlier release; see `name_counts`
        value["counted"] = "earlier"
    return LinkProfile(**value)


def counts_to_json(counts: NameCounts) -> dict[str, Any]:
    """The name counts in their stored JSON form."""
    judged = b"".join(item.to_bytes(8, "little") for item in sorted(counts.judged))
    return {"names": {name: dict(own) for name, own in counts.names.items()}, "judged": b64encode(judged).decode()}


def digests(value: str) -> frozenset[int]:
    """The digests of judged mentions from their stored form."""
    raw = b64decode(value)
    return frozenset(int.from_bytes(raw[at : at + 8], "little") for at in range(0, len(raw), 8))


def profile_to_json(profile: RankingProfile) -> dict[str, Any]:
    """The ranking profile in its stored JSON form."""
    return {
        **asdict(profile),
        "weights": {signal.value: weight for signal, weight in profile.weights.items()},
    }


def profile_from_json(value: dict[str, Any]) -> RankingProfile:
    """The ranking profile from its stored JSON form; the inverse of `profile_to_json`.

    Raises CorruptionError for any other value.
    """
    with as_corruption("ranking profile"):
        weights = {Signal(name): float(weight) for name, weight in value["weights"].items()}
        found = RankingProfile(**{**value, "weights": weights})
        _check_finite([*weights.values(), found.rrf_k])
        if min(weights.values(), default=0.0) < 0 or found.rrf_k <= 0:
            raise ValueError("a weight or rrf_k is negative")
        choices = (found.fusion in get_args(FusionName), found.normalization in get_args(NormalizationName))
        if not (all(choices) and found.vdr in get_args(VdrMode)):
            raise ValueError(
                f"unknown fusion, normalization or vdr: {found.fusion}, {found.normalization}, {found.vdr}"
            )
    return found
