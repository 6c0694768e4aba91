"""Candidate files: the retrieved candidates of each mention, as BLINK (Wu et al. 2020) stores them between its stages.

They are JSONL with a line for each mention: `id`, `label_id` (null for NIL), `world`, and `candidates` (entity ids,
best first). Files of several splits or several runs can be merged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.evaluation.json_lines import read_json_rows

CUTOFFS = (1, 4, 8, 16, 32, 64)
_K = 60


@dataclass(frozen=True, slots=True)
class Proposed:
    """A mention's candidates, best first. `entity_id` is the correct entity, empty for NIL."""

    id: str
    entity_id: str
    candidates: tuple[str, ...]
    world: str = ""


def write_candidates(path: Path, rows: Sequence[Proposed]) -> None:
    """Write a candidate file, which `read_candidates` reads."""
    with path.open("wb") as file:
        for row in rows:
            value = {"id": row.id, "label_id": row.entity_id or None, "world": row.world, "candidates": row.candidates}
            file.write(orjson.dumps(value) + b"\n")


def read_candidates(path: Path) -> list[Proposed]:
    """Read a candidate file, `.jsonl` or `.jsonl.gz`.

    Raises NotFoundError, and InvalidInputError for bad lines or a mention that occurs twice.
    """
    rows = read_json_rows(path, _proposed, "candidates", "id, label_id, candidates")
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
    if not isinstance(candidates, list) or not all(isinstance(candidate, str | int) for candidate in candidates):
        raise ValueError("candidates are no list of ids")
    label = row.get("label_id")
    return Proposed(
        str(row["id"]),
        "" if label is None else str(label),
        tuple(dict.fromkeys(map(str, candidates))),
        str(row.get("world") or ""),
    )


def merged(files: Sequence[Sequence[Proposed]], keep: int) -> list[Proposed]:
    """Merge candidate files. A mention in several files keeps the `keep` best candidates by reciprocal rank fusion.

    The fused score is Σ 1 / (60 + rank) (RRF, Cormack et al. 2009). Raises InvalidInputError if files differ in the
    correct entity of a mention.
    """
    by_id: dict[str, list[Proposed]] = defaultdict(list)
    for rows in files:
        for row in rows:
            by_id[row.id].append(row)
    made = []
    for name, own in by_id.items():
        meant = sorted({item.entity_id for item in own})
        if len(meant) > 1:
            raise InvalidInputError(f"the files differ in what the mention {name!r} means", received=meant)
        scores: dict[str, float] = defaultdict(float)
        for item in own:
            for rank, candidate in enumerate(item.candidates, 1):
                scores[candidate] += 1.0 / (_K + rank)
        best = sorted(scores, key=lambda candidate: -scores[candidate])[:keep]
        made.append(Proposed(name, own[0].entity_id, tuple(best), own[0].world))
    return made


def recalls(rows: Sequence[Proposed]) -> Mapping[str, Mapping[int, float]]:
    """Return the recall at `CUTOFFS` by world, with "" for all mentions together. NIL mentions are ignored."""
    groups: dict[str, list[Proposed]] = defaultdict(list)
    for row in rows:
        if row.entity_id:
            for group in {"", row.world}:
                groups[group].append(row)
    return {
        group: {k: sum(item.entity_id in item.candidates[:k] for item in own) / len(own) for k in CUTOFFS}
        for group, own in sorted(groups.items())
    }
