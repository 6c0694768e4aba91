"""Candidate files: what a run proposes for each mention, as BLINK (Wu et al. 2020) keeps it between its two stages.

JSONL, a line for each mention: `id`, `label_id` (null for NIL), `world`, `candidates` (ids of entities, best first).
Files of several splits or several runs are merged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.evaluation.json_lines import read_each

CUTOFFS = (1, 4, 8, 16, 32, 64)
_K = 60


@dataclass(frozen=True, slots=True)
class Proposed:
    """A mention's candidates, best first; `entity_id` is what it means, empty for NIL."""

    id: str
    entity_id: str
    candidates: tuple[str, ...]
    world: str = ""


def write_candidates(path: Path, rows: Sequence[Proposed]) -> None:
    """Write rows so that `read_candidates` gives them back."""
    with path.open("wb") as file:
        for row in rows:
            value = {"id": row.id, "label_id": row.entity_id or None, "world": row.world, "candidates": row.candidates}
            file.write(orjson.dumps(value) + b"\n")


def read_candidates(path: Path) -> list[Proposed]:
    """Rows of a `.jsonl[.gz]`. Raises NotFoundError, or InvalidInputError naming bad lines or a mention twice."""
    rows = read_each(path, _proposed, "candidates", "id, label_id, candidates")
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise InvalidInputError(
                f"{path.name} has a mention twice", received=row.id, expected="one line for each; merge several files"
            )
        seen.add(row.id)
    return rows


def _proposed(_number: int, row: Any) -> Proposed:
    candidates = row["candidates"]
    if not isinstance(candidates, list) or not all(isinstance(one, str | int) for one in candidates):
        raise ValueError("candidates are no list of ids")
    label = row.get("label_id")
    return Proposed(
        str(row["id"]),
        "" if label is None else str(label),
        tuple(dict.fromkeys(map(str, candidates))),
        str(row.get("world") or ""),
    )


def merged(files: Sequence[Sequence[Proposed]], keep: int) -> list[Proposed]:
    """All mentions of all files; those of several have the best `keep` of all their candidates by Σ 1 / (60 + rank).

    That is RRF (Cormack et al. 2009). Raises InvalidInputError where files differ in what a mention means.
    """
    by_id: dict[str, list[Proposed]] = defaultdict(list)
    for rows in files:
        for row in rows:
            by_id[row.id].append(row)
    made = []
    for name, own in by_id.items():
        meant = sorted({one.entity_id for one in own})
        if len(meant) > 1:
            raise InvalidInputError(f"the files differ in what the mention {name!r} means", received=meant)
        scores: dict[str, float] = defaultdict(float)
        for one in own:
            for rank, candidate in enumerate(one.candidates, 1):
                scores[candidate] += 1.0 / (_K + rank)
        best = sorted(scores, key=lambda candidate: -scores[candidate])[:keep]
        made.append(Proposed(name, own[0].entity_id, tuple(best), own[0].world))
    return made


def recalls(rows: Sequence[Proposed]) -> Mapping[str, Mapping[int, float]]:
    """Recall at `CUTOFFS` over all mentions that mean something, as "", and over those of each world."""
    groups: dict[str, list[Proposed]] = defaultdict(list)
    for row in rows:
        if row.entity_id:
            for group in {"", row.world}:
                groups[group].append(row)
    return {
        group: {k: sum(one.entity_id in one.candidates[:k] for one in own) / len(own) for k in CUTOFFS}
        for group, own in sorted(groups.items())
    }
