"""Read and write TREC run files, and write measures by query."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.evaluation.json_lines import MAX_FILE_BYTES
from hyblink.indexer.readers.rows import decode, read_bounded

Run = dict[str, dict[str, float]]


def read_run(path: Path) -> Run:
    """Read a TREC run file (`query Q0 document rank score tag`) as query → document → score.

    Raises InvalidInputError.
    """
    run: Run = {}
    for number, line in enumerate(decode(read_bounded(path, MAX_FILE_BYTES)).splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        try:
            query, _, document, _, score, _ = fields
            run.setdefault(query, {})[document] = float(score)
        except ValueError as error:
            raise InvalidInputError(
                f"{path.name}:{number}: bad run row",
                received=line,
                expected="query Q0 document rank score tag",
            ) from error
    return run


def write_run(path: Path, run: Mapping[str, Mapping[str, float]], tag: str) -> None:
    """Write a TREC run file, best document first. Raises InvalidInputError for ids with white space."""
    rows = []
    for query, scores in run.items():
        ordered = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
        for rank, (document, score) in enumerate(ordered, 1):
            if len(document.split()) != 1 or len(query.split()) != 1:
                raise InvalidInputError("a TREC run cannot hold an id with white space", received=document)
            rows.append(f"{query} Q0 {document} {rank} {score!r} {tag}\n")
    path.write_text("".join(rows), encoding="utf-8")


def write_per_query(path: Path, table: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """Write every system's measures of every query as TSV, with the columns system, query, measure and value."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["system", "query", "measure", "value"])
        for system, queries in table.items():
            for query, values in queries.items():
                for measure, value in values.items():
                    writer.writerow([system, query, measure, f"{value:.6f}"])
