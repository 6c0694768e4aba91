"""Queries, qrels and runs: BEIR folders and TREC files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import orjson

from app.core.errors import InvalidInputError, NotFoundError
from indexer.readers.rows import decode, lines, read_bounded

_T = TypeVar("_T")
Qrels = dict[str, dict[str, int]]
Run = dict[str, dict[str, float]]
_MAX_BYTES = 2**30


def existing(path: Path, *names: str) -> Path:
    """The first of these files that the folder has. Raises NotFoundError where it has none."""
    for name in names:
        if (path / name).is_file():
            return path / name
    raise NotFoundError("no such file", received=str(path / names[0]))


def full_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number, line) of every line that is not blank. Raises InvalidInputError for one beyond the limits."""
    for number, line in lines(path, _MAX_BYTES):
        if not isinstance(line, bytes):
            raise line
        if line.strip():
            yield number, line


def parsed(path: Path, make: Callable[[Any], _T], what: str, expected: str) -> Iterator[_T]:
    """What `make` makes of each row of a JSONL file. Raises InvalidInputError with the line's number."""
    for number, line in full_lines(path):
        try:
            yield make(orjson.loads(line))
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise InvalidInputError(
                f"{path.name}:{number}: bad {what}", received=line[:80], expected=expected
            ) from error


def read_queries(folder: Path) -> dict[str, str]:
    """Query texts by id from `queries.jsonl[.gz]`, rows `{"_id", "text"}`."""
    path = existing(folder, "queries.jsonl", "queries.jsonl.gz")
    read = parsed(path, lambda row: (str(row["_id"]), str(row["text"])), "query", '{"_id": …, "text": …}')
    return dict(read)


def read_qrels(path: Path) -> Qrels:
    """Judgements from BEIR's three columns (with a header) or TREC's four (`query 0 document grade`)."""
    qrels: Qrels = {}
    text = decode(read_bounded(path, _MAX_BYTES))
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split("\t") if "\t" in line else line.split()
        if not fields or (number == 1 and fields[0] == "query-id"):
            continue
        if len(fields) not in {3, 4}:
            raise InvalidInputError(
                f"{path.name}:{number}: bad judgement", received=line, expected="query, document, grade"
            )
        try:
            qrels.setdefault(fields[0], {})[fields[-2]] = int(fields[-1])
        except ValueError as error:
            raise InvalidInputError(
                f"{path.name}:{number}: bad grade", received=fields[-1], expected="an integer"
            ) from error
    return qrels


def read_run(path: Path) -> Run:
    """A TREC run file: `query Q0 document rank score tag`."""
    run: Run = {}
    for number, line in enumerate(decode(read_bounded(path, _MAX_BYTES)).splitlines(), 1):
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
    """Write a TREC run file, best first. Ids with white space cannot stand in one and are refused."""
    rows = []
    for query, scores in run.items():
        ordered = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
        for rank, (document, score) in enumerate(ordered, 1):
            if len(document.split()) != 1 or len(query.split()) != 1:
                raise InvalidInputError("a TREC run cannot hold an id with white space", received=document)
            rows.append(f"{query} Q0 {document} {rank} {score!r} {tag}\n")
    path.write_text("".join(rows), encoding="utf-8")


def read_beir(folder: Path, split: str) -> tuple[dict[str, str], Qrels]:
    """The judged queries of a split, with their judgements."""
    qrels = read_qrels(existing(folder / "qrels", f"{split}.tsv"))
    queries = read_queries(folder)
    missing = [query for query in qrels if query not in queries]
    if missing:
        raise InvalidInputError(
            "judged queries without a text", received=missing[:5], expected="a row in queries.jsonl"
        )
    return {query: queries[query] for query in qrels}, qrels


def write_per_query(path: Path, table: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """A TSV of every system's measures for every query: system, query, measure, value."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["system", "query", "measure", "value"])
        for system, queries in table.items():
            for query, values in queries.items():
                for measure, value in values.items():
                    writer.writerow([system, query, measure, f"{value:.6f}"])
