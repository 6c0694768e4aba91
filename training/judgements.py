"""Queries, qrels and runs: BEIR folders and TREC files."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import orjson

from app.core.errors import InvalidInputError, NotFoundError
from indexer.readers.rows import decode, lines, read_bounded

Qrels = dict[str, dict[str, int]]
Run = dict[str, dict[str, float]]
_MAX_BYTES = 2**30


def _existing(path: Path, *names: str) -> Path:
    for name in names:
        if (path / name).is_file():
            return path / name
    raise NotFoundError("no such file", received=str(path / names[0]))


def read_queries(folder: Path) -> dict[str, str]:
    """Query texts by id from `queries.jsonl[.gz]`, rows `{"_id", "text"}`."""
    path = _existing(folder, "queries.jsonl", "queries.jsonl.gz")
    queries: dict[str, str] = {}
    for number, line in lines(path, _MAX_BYTES):
        if not isinstance(line, bytes):
            raise line
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
            queries[str(row["_id"])] = str(row["text"])
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise InvalidInputError(
                f"{path.name}:{number}: bad query", received=line[:80], expected='{"_id": …, "text": …}'
            ) from error
    return queries


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
    qrels = read_qrels(_existing(folder / "qrels", f"{split}.tsv"))
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
