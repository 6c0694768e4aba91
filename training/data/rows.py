"""Reads training rows from BEIR folders, JSONL, the two TSV formats of DuReader, and DPR's JSON.

A row is a query with its relevant passages (positives) and, optionally, negatives. Everything is checked before a run
starts. Errors name file and line, and many are reported at once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from hyblink.app.core.errors import InvalidInputError, NotFoundError
from hyblink.app.encoders.loading.prefixes import joined
from hyblink.app.evaluation.beir import read_beir
from hyblink.app.evaluation.json_lines import Problems, existing, full_lines, parsed
from hyblink.indexer.readers.rows import decode, read_bounded

_MAX_BYTES = 2**30

_NULL = "null"

_DUREADER_FORMS = "query, null, positive, null, negative, null or query, null, passage, 0|1"


@dataclass(frozen=True, slots=True)
class Text:
    """A passage of a training row. `id` may be empty. `source` names the origin of a negative ("given", "bm25", …)."""

    text: str
    title: str = ""
    id: str = ""
    source: str = "given"

    @property
    def joined(self) -> str:
        """Title and text as one string, as encoders read it."""
        return joined(self.title, self.text)


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """A query with its positive and negative passages.

    `positive_scores` and `negative_scores` are a teacher's, one per passage, or empty. `answers` are answer strings,
    used to detect false negatives.
    """

    query: str
    positives: tuple[Text, ...]
    negatives: tuple[Text, ...] = ()
    positive_scores: tuple[float, ...] = ()
    negative_scores: tuple[float, ...] = ()
    id: str = ""
    answers: tuple[str, ...] = ()
    collection: str = ""
    """The name of the source. Statistics such as idf are kept per source."""


def check(row: TrainingRow) -> list[str]:
    """Messages about the problems of a row; empty if it is valid."""
    problems = []
    if not row.query.strip():
        problems.append("the query is empty")
    if not row.positives:
        problems.append("no positive passage")
    if any(not item.joined.strip() for item in (*row.positives, *row.negatives)):
        problems.append("a passage is empty")
    positive = {item.joined.strip() for item in row.positives}
    problems += [
        f"a positive is among the negatives: {negative.joined[:60]!r}"
        for negative in row.negatives
        if negative.joined.strip() in positive
    ]
    for name, texts, scores in (
        ("positive", row.positives, row.positive_scores),
        ("negative", row.negatives, row.negative_scores),
    ):
        if scores and len(scores) != len(texts):
            problems.append(f"{len(scores)} {name} scores for {len(texts)} passages")
        if not all(math.isfinite(score) for score in scores):
            problems.append(f"a {name} score is not finite")
    return problems


def _checked(path: Path, numbered: Iterator[tuple[int, TrainingRow | str]]) -> list[TrainingRow]:
    problems = Problems(path.name)
    rows = []
    for number, row in numbered:
        if isinstance(row, str):
            problems.add(number, row)
            continue
        found = check(row)
        problems.extend(number, found)
        if not found:
            rows.append(row)
    problems.raise_if_any()
    if not rows:
        raise InvalidInputError("no training rows", received=str(path), expected="at least one")
    return rows


def read_rows(path: Path, split: str = "train") -> list[TrainingRow]:
    """Read training rows from a BEIR folder, `.jsonl[.gz]`, `.json` (DPR) or `.tsv` (DuReader).

    `split` is the qrels split of a BEIR folder. Raises NotFoundError if the path does not exist, InvalidInputError with
    line numbers for bad content.
    """
    if path.is_dir():
        return _beir(path, split)
    if not path.is_file():
        raise NotFoundError("no such training data", received=str(path))
    kinds: dict[str, Callable[[Path], Iterator[tuple[int, TrainingRow | str]]]] = {
        ".jsonl": _jsonl,
        ".jsonl.gz": _jsonl,
        ".json": _dpr,
        ".tsv": _dureader,
    }
    for suffix, reader in kinds.items():
        if path.name.endswith(suffix):
            return _checked(path, reader(path))
    raise InvalidInputError(
        "unknown form of training data", received=path.name, expected="a BEIR folder, .jsonl, .jsonl.gz, .json or .tsv"
    )


def fingerprint(rows: Sequence[TrainingRow]) -> str:
    """The SHA-256 (hex) over all queries, passages and teacher scores, in order."""
    digest = hashlib.sha256()
    for row in rows:
        content = (
            row.query,
            [positive.joined for positive in row.positives],
            [negative.joined for negative in row.negatives],
            row.positive_scores,
            row.negative_scores,
        )
        digest.update(orjson.dumps(content) + b"\n")
    return digest.hexdigest()


def read_corpus(folder: Path) -> dict[str, Text]:
    """The passages of a BEIR folder by id. Raises NotFoundError if it has no corpus."""
    path = existing(folder, "corpus.jsonl", "corpus.jsonl.gz")

    def text(row: Any) -> Text:
        return Text(str(row["text"]), str(row.get("title") or ""), str(row["_id"]))

    return {item.id: item for item in parsed(path, text, "passage", '{"_id": …, "title": …, "text": …}')}


def _beir(folder: Path, split: str) -> list[TrainingRow]:
    queries, qrels = read_beir(folder, split)
    corpus = read_corpus(folder)
    missing = sorted({doc for grades in qrels.values() for doc in grades} - set(corpus))
    if missing:
        raise InvalidInputError("judged documents that the corpus has not", received=missing[:5])
    problems = Problems(folder.name)
    rows = []
    for number, (query, text) in enumerate(queries.items(), 1):
        positives = tuple(corpus[doc] for doc, grade in qrels[query].items() if grade > 0)
        if not positives:
            continue  # judged, but no document is relevant
        row = TrainingRow(text, positives, id=query)
        for what in check(row):
            problems.add(number, what)
        rows.append(row)
    problems.raise_if_any()
    if not rows:
        raise InvalidInputError("no training rows", received=f"{folder} {split}", expected="at least one")
    return rows


def _texts(values: object) -> tuple[Text, ...]:
    if not isinstance(values, list):
        raise TypeError("not a list")
    made = []
    for value in values:
        if isinstance(value, str):
            made.append(Text(value))
        elif isinstance(value, Mapping) and isinstance(value.get("text"), str):
            title, known, source = (value.get(key) or "" for key in ("title", "id", "source"))
            made.append(Text(value["text"], str(title), str(known), str(source or "given")))
        else:
            raise TypeError(f"a passage is {value!r:.60}")
    return tuple(made)


def _jsonl(path: Path) -> Iterator[tuple[int, TrainingRow | str]]:
    """Yield (line number, row or error message). A row is `{query, pos[], neg[], pos_scores?, neg_scores?}`.

    A passage is a string or `{text, title?, id?}`.
    """
    for number, line in full_lines(path):
        try:
            row = orjson.loads(line)
            yield (
                number,
                TrainingRow(
                    str(row["query"]),
                    _texts(row["pos"]),
                    _texts(row.get("neg") or []),
                    tuple(float(s) for s in row.get("pos_scores") or ()),
                    tuple(float(s) for s in row.get("neg_scores") or ()),
                    str(row.get("id") or ""),
                    tuple(str(a) for a in row.get("answers") or ()),
                ),
            )
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            yield number, f"not a row ({error}); expected {{query, pos, neg, pos_scores?, neg_scores?}}"


def write_jsonl(path: Path, rows: Sequence[TrainingRow]) -> None:
    """Write rows as JSONL that `read_rows` can read. The collection name is not written."""

    def plain(text: Text) -> dict[str, str]:
        fields = {"text": text.text, "title": text.title, "id": text.id, "source": text.source}
        return {key: value for key, value in fields.items() if value and not (key == "source" and value == "given")}

    with path.open("wb") as file:
        for row in rows:
            value: dict[str, Any] = {
                "query": row.query,
                "pos": [plain(positive) for positive in row.positives],
                "neg": [plain(negative) for negative in row.negatives],
            }
            if row.positive_scores:
                value["pos_scores"] = row.positive_scores
            if row.negative_scores:
                value["neg_scores"] = row.negative_scores
            if row.id:
                value["id"] = row.id
            if row.answers:
                value["answers"] = row.answers
            file.write(orjson.dumps(value) + b"\n")


def _dpr(path: Path) -> Iterator[tuple[int, TrainingRow | str]]:
    """Yield (entry number from 1, row or error message) of DPR's JSON list.

    Fields: question, answers, positive_ctxs, negative_ctxs, hard_negative_ctxs. Hard negatives come first.
    """
    try:
        entries = orjson.loads(read_bounded(path, _MAX_BYTES))
    except orjson.JSONDecodeError as error:
        raise InvalidInputError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(entries, list):
        raise InvalidInputError("DPR's JSON is a list", received=type(entries).__name__)
    for number, entry in enumerate(entries, 1):
        try:
            negatives = _texts(entry.get("negative_ctxs") or [])
            hard = tuple(
                Text(text.text, text.title, text.id, "hard") for text in _texts(entry.get("hard_negative_ctxs") or [])
            )
            yield (
                number,
                TrainingRow(
                    str(entry["question"]),
                    _texts(entry["positive_ctxs"]),
                    hard + negatives,
                    answers=tuple(str(a) for a in entry.get("answers") or ()),
                ),
            )
        except (KeyError, TypeError, AttributeError) as error:
            yield number, f"not an entry ({error}); expected question, answers, positive_ctxs, negative_ctxs"


def _dureader(path: Path) -> Iterator[tuple[int, TrainingRow | str]]:
    """Yield (line number, row or error message) of the two TSV formats of DuReader-retrieval.

    Dual-encoder format: query, null, positive, null, negative, null. Cross-encoder format: query, null, passage, label;
    lines with the same query become one row.
    """
    grouped: dict[str, tuple[int, list[Text], list[Text]]] = {}
    for number, line in enumerate(decode(read_bounded(path, _MAX_BYTES)).splitlines(), 1):
        if not line.strip():
            continue
        fields = line.split("\t")
        if len(fields) == 6 and [fields[1], fields[3], fields[5]] == [_NULL] * 3:
            yield number, TrainingRow(fields[0], (Text(fields[2]),), (Text(fields[4]),))
        elif len(fields) == 4 and fields[1] == _NULL and fields[3] in {"0", "1"}:
            _, positives, negatives = grouped.setdefault(fields[0], (number, [], []))
            (positives if fields[3] == "1" else negatives).append(Text(fields[2]))
        else:
            yield number, f"{len(fields)} fields; expected {_DUREADER_FORMS}"
    for query, (number, positives, negatives) in grouped.items():
        yield number, TrainingRow(query, tuple(positives), tuple(negatives))
