"""The BM25 index on tantivy, derived from the store.

The project's own analyzer produces the terms. Tantivy receives them joined by spaces and splits at white space. It
scores ``(k1 + 1) * idf * tf / (tf + k1 * (1 - b + b * dl / avgdl))`` with k1 = 1.2, b = 0.75 and dl rounded to one
byte. Lucene dropped the constant factor k1 + 1 = 2.2 (LUCENE-8563). Scores are divided by it to equal OpenSearch's.

Deleted passages count in N, df and avgdl until their segment is merged, as in Lucene.
"""

from __future__ import annotations

import itertools
import json
import shutil
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import tantivy

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.core.errors import CorruptionError
from hyblink.app.core.manifest import read_json, write_json
from hyblink.app.core.ports.store import Selection, StoreReader
from hyblink.app.core.types.arrays import IdArray, ScoreArray
from hyblink.app.core.types.ranking import EMPTY, Scored, TokenContribution
from hyblink.app.engines.derived import AheadError, index_lock, top

K1 = 1.2
B = 0.75
_SAMPLE, _TERMS = 300, 12
"""`check` looks at about so many passages, and at so many terms of each."""
LUCENE_FACTOR = K1 + 1.0
FORMAT = 2
_STATE = "applied.json"
_HEAP_BYTES = 128_000_000
_BY_ID_BELOW = 2000
"""A filter that keeps at most this many rows becomes a query clause; a larger one filters a longer result list."""
_FOOTER_MAGIC = 1337
_MUST, _SHOULD = tantivy.Occur.Must, tantivy.Occur.Should
_Query = tantivy.Query


def _schema() -> Any:
    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("row", stored=False, indexed=True, fast=True)
    builder.add_text_field("terms", stored=False, tokenizer_name="whitespace", index_option="freq")
    return builder.build()


class Bm25View:
    """The `LexicalView` of tantivy: a snapshot of the BM25 index. Safe to share between threads."""

    def __init__(self, searcher: Any, schema: Any, live: int) -> None:
        self._searcher = searcher
        self._schema = schema
        self._live = live

    def _any_term(self, terms: Sequence[str]) -> Any:
        clauses = []
        for term, count in Counter(terms).items():
            query = _Query.term_query(self._schema, "terms", term, "freq")
            clauses.append((_SHOULD, _Query.boost_query(query, float(count)) if count > 1 else query))
        return _Query.boolean_query(clauses)

    def _within(self, rows: IdArray, terms: Sequence[str]) -> Any:
        ids = [(_SHOULD, _Query.term_query(self._schema, "row", row, "basic")) for row in rows.tolist()]
        return _Query.boolean_query(
            [
                (_MUST, _Query.const_score_query(_Query.boolean_query(ids), 0.0)),
                (_MUST, self._any_term(terms)),
            ]
        )

    def _run(self, query: Any, k: int) -> tuple[IdArray, ScoreArray]:
        try:
            hits = self._searcher.search(query, max(k, 1), count=False).hits
        except ValueError as error:
            raise CorruptionError(f"tantivy cannot read the bm25 index: {error}") from error
        scores, addresses = zip(*hits, strict=True) if hits else ((), ())
        rows = self._searcher.fast_field_values("row", list(addresses))
        return np.array(rows, dtype=np.int64), (np.array(scores) / LUCENE_FACTOR).astype(np.float32)

    def search(self, terms: Sequence[str], k: int, selection: Selection | None) -> Scored:
        allowed = selection.rows() if selection is not None else None
        if not terms or (allowed is not None and not len(allowed)):
            return EMPTY
        if allowed is None:
            return top(*self._run(self._any_term(terms), k), k)
        if len(allowed) <= _BY_ID_BELOW:
            return top(*self._run(self._within(allowed, terms), len(allowed)), k)
        # Fetch enough to leave k after filtering on average. Fetch four times as many until k are left or all are seen.
        want = int(k * self._live / len(allowed) * 1.5) + k
        query = self._any_term(terms)
        while True:
            rows, scores = self._run(query, want)
            keep = np.isin(rows, allowed, assume_unique=True)
            if int(keep.sum()) >= k or len(rows) < want:
                return top(rows[keep], scores[keep], k)
            want *= 4

    def score(self, terms: Sequence[str], rows: IdArray) -> ScoreArray:
        scores = np.zeros(len(rows), dtype=np.float32)
        if not terms or not len(rows):
            return scores
        found, values = self._run(self._within(rows, terms), len(rows))
        order = np.argsort(rows)
        scores[order[np.searchsorted(rows, found, sorter=order)]] = values
        return scores

    def contributions(self, terms: Sequence[str], rows: IdArray) -> list[list[TokenContribution]]:
        result: list[list[TokenContribution]] = [[] for _ in range(len(rows))]
        for term, count in Counter(terms).items():
            for at, value in enumerate(self.score([term], rows).tolist()):
                if value:
                    result[at].append(TokenContribution(term, value * count, float(count), value))
        return result

    def rank(self, terms: Sequence[str], row: int) -> int | None:
        """The row's exact rank among all matching rows, from 1; None if no term matches."""
        score = float(self.score(terms, np.array([row]))[0])
        if not score:
            return None
        rows, scores = self._run(self._any_term(terms), self._live)
        return int(((scores > score) | ((scores == score) & (rows < row))).sum()) + 1


class Bm25Index:
    """The tantivy index in `folder`. It is discarded and rebuilt if it was built with another analyzer version."""

    def __init__(self, folder: Path, analyzer: Analyzer) -> None:
        self._folder = folder
        self._analyzer = analyzer
        self._index: Any = None
        self._view: tuple[tuple[int, str], Bm25View] | None = None

    def _state(self) -> dict[str, Any] | None:
        path = self._folder / _STATE
        if not path.exists():
            return None
        state = read_json(path)
        if state.get("format") != FORMAT or state.get("analyzer") != self._analyzer.id:
            return None
        if not all(isinstance(state.get(name), int) for name in ("applied", "target", "dirty")):
            return None
        return state

    def _set_state(self, applied: int, moment: str, target: int, *, dirty: bool) -> None:
        """Record that the index includes all changes up to `applied`, where the store has this moment.

        If it is `dirty`, a write up to `target` has begun and may be incomplete.
        """
        write_json(
            self._folder / _STATE,
            {
                "format": FORMAT,
                "analyzer": self._analyzer.id,
                "applied": applied,
                "moment": moment,
                "target": target,
                "dirty": dirty,
            },
        )

    def _open(self) -> Any:
        if self._index is None:
            if not tantivy.Index.exists(str(self._folder)):
                raise CorruptionError("the bm25 index has no readable meta.json")
            for name, problem in damaged_files(self._folder):
                raise CorruptionError(f"bm25/{name}: {problem}")
            try:
                self._attach(tantivy.Index.open(str(self._folder)))
            except ValueError as error:
                raise CorruptionError(f"tantivy cannot open the bm25 index: {error}") from error
        return self._index

    def _attach(self, index: Any) -> None:
        index.register_tokenizer("whitespace", tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build())
        index.config_reader(reload_policy="Manual")
        self._index = index

    def catch_up(self, reader: StoreReader) -> Bm25View:
        """Apply the store's changes up to the reader's snapshot and return a view of exactly that snapshot.

        Raises AheadError if the index already includes newer writes.
        """
        if self._view and self._view[0] == (reader.change, reader.moment):
            return self._view[1]
        with index_lock(self._folder):
            state = self._readable_state()
            if state is None:
                self._build(reader)
            elif max(state["applied"], state["target"]) > reader.change:
                raise AheadError(max(state["applied"], state["target"]))
            elif not reader.continues(state["applied"], state.get("moment", "")) and state["applied"]:
                self._build(reader)  # the store was put back from a copy
            elif state["dirty"] and not state["applied"]:
                self._build(reader)
            elif state["dirty"] or state["applied"] < reader.change:
                self._apply(reader, state["applied"], replay=state["dirty"])
            # Reload while holding the lock, so that the searcher sees exactly the change that was applied.
            try:
                self._index.reload()
                searcher = self._index.searcher()
            except ValueError as error:
                self._index = None
                raise CorruptionError(f"tantivy cannot open the bm25 index: {error}") from error
            self._view = (reader.change, reader.moment), Bm25View(searcher, self._index.schema, searcher.num_docs)
            return self._view[1]

    def _readable_state(self) -> dict[str, Any] | None:
        """The recorded state if the index's files are intact, else None: the index must be rebuilt."""
        try:
            state = self._state()
            if state is not None:
                self._open()
        except (CorruptionError, OSError):
            self._index = None
            return None
        return state

    def forget(self) -> None:
        """Delete the index. It is made anew from the store when it is next asked for."""
        with index_lock(self._folder):
            self._index, self._view = None, None
            shutil.rmtree(self._folder, ignore_errors=True)

    def rebuild(self, reader: StoreReader) -> None:
        """Delete the index and rebuild it from the store."""
        with index_lock(self._folder):
            self._build(reader)

    def published_change(self) -> int:
        """The store's change counter that the index files include; 0 if there are none."""
        state = self._state()
        return int(state["applied"]) if state is not None else 0

    def compact(self, reader: StoreReader) -> None:
        """Rebuild the index if its statistics still count deleted passages.

        Tantivy would purge them only when it merges their segments, which cannot be relied on.
        """
        with suppress(AheadError):
            self.catch_up(reader)  # apply pending deletions first
        with index_lock(self._folder):
            state = self._readable_state()
            if state is None or self.outdated() > 0:
                self._build(reader)

    def outdated(self) -> float:
        """The share of deleted entries that the statistics still count, 0 to 1."""
        try:
            segments = read_json(self._folder / "meta.json")["segments"]
            deleted = sum((segment.get("deletes") or {}).get("num_deleted_docs", 0) for segment in segments)
            return float(deleted / max(1, sum(segment["max_doc"] for segment in segments)))
        except (OSError, CorruptionError, KeyError, TypeError, AttributeError):
            return 0.0  # there is no index yet, or one that will be made anew

    def _build(self, reader: StoreReader) -> None:
        self._index, self._view = None, None
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._attach(tantivy.Index(_schema(), str(self._folder)))
        self._set_state(0, "", reader.change, dirty=True)
        self._apply(reader, 0, replay=False)

    def _apply(self, reader: StoreReader, since: int, *, replay: bool) -> None:
        removed = reader.removed_since(since) if since else np.zeros(0, dtype=np.int64)
        if removed is None:
            self._build(reader)
            return
        state = self._state() or {}
        self._set_state(since, state.get("moment", "") if since else "", reader.change, dirty=True)
        writer = self._index.writer(_HEAP_BYTES, 1)
        try:
            for row in removed.tolist():
                self._delete(writer, row)
            for batch in reader.texts_since(since):
                joined = self._analyzer.joined_many([change.content for change in batch])
                for change, terms in zip(batch, joined, strict=True):
                    if replay:
                        self._delete(writer, change.row)
                    document = tantivy.Document()
                    document.add_unsigned("row", change.row)
                    document.add_text("terms", terms)
                    writer.add_document(document)
            writer.commit()
        finally:
            writer.wait_merging_threads()
        self._set_state(reader.change, reader.moment, reader.change, dirty=False)

    def _delete(self, writer: Any, row: int) -> None:
        # By query: `delete_documents_by_term` treats a Python integer as signed, which matches no unsigned field.
        writer.delete_documents_by_query(_Query.term_query(self._index.schema, "row", row, "basic"))

    def check(self, reader: StoreReader) -> list[str]:
        """The differences from the store and the defects of the files, as messages."""
        if not (self._folder / _STATE).exists():
            self.catch_up(reader)  # never built yet: build it
        problems = [f"bm25/{name}: {problem}" for name, problem in damaged_files(self._folder)]
        if problems:
            return problems
        view = self.catch_up(reader)
        expected = reader.live_rows()
        found = _all_rows(view)
        problems = [
            *(f"bm25 misses {n} passages" for n in [len(np.setdiff1d(expected, found))] if n),
            *(f"bm25 has {n} passages that the store has not" for n in [len(np.setdiff1d(found, expected))] if n),
            *(f"bm25 has {n} passages twice" for n in [len(found) - len(np.unique(found))] if n),
        ]
        if not problems and len(expected):
            wrong, looked_at = self._sampled(reader, view, len(expected))
            if wrong:
                problems.append(f"bm25 has other terms than the store for {wrong} of {looked_at} sampled passages")
        return problems

    def _sampled(self, reader: StoreReader, view: Bm25View, count: int) -> tuple[int, int]:
        """How many of about `_SAMPLE` passages have other terms than their text, and how many were looked at.

        A passage must have its own terms, and none of its neighbour in the sample that it has not.
        """
        step = max(1, count // _SAMPLE)
        wrong = looked_at = seen = 0
        before: list[str] = []
        for batch in reader.texts_since(-1):
            for change in batch[(-seen) % step :: step]:
                own = list(dict.fromkeys(self._analyzer.terms(change.content)))
                row = np.array([change.row])
                found = self._has(view, own[:_TERMS], row)
                others = [term for term in before[:_TERMS] if term not in set(own)]
                wrong += len(found) < len(own[:_TERMS]) or bool(self._has(view, others, row))
                looked_at += 1
                before = own
            seen += len(batch)
        return wrong, looked_at

    @staticmethod
    def _has(view: Bm25View, terms: Sequence[str], row: IdArray) -> set[str]:
        """Those of the terms that the row has in the index."""
        (found,) = view.contributions(terms, row) if terms else ([],)
        return {item.token for item in found}


def _all_rows(view: Bm25View) -> IdArray:
    rows, _ = view._run(_Query.all_query(), max(view._live, 1))  # noqa: SLF001
    return rows


def damaged_files(folder: Path) -> Iterator[tuple[str, str]]:
    """(file name, problem) of each index file that is missing or does not match the CRC in its footer.

    A tantivy file ends with a JSON footer, its length and a magic number (two little-endian 32-bit integers).
    """
    try:
        meta = json.loads((folder / "meta.json").read_bytes())
        segments = [segment["segment_id"].replace("-", "") for segment in meta["segments"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield "meta.json", f"unreadable ({type(error).__name__})"
        return
    for segment in segments:
        for suffix in ("idx", "pos", "term", "store", "fast", "fieldnorm"):
            if not (folder / f"{segment}.{suffix}").is_file():
                yield f"{segment}.{suffix}", "missing"
        for path in sorted(itertools.chain(folder.glob(f"{segment}.*"))):
            problem = _damage(path)
            if problem:
                yield path.name, problem


def _damage(path: Path) -> str:
    data = path.read_bytes()
    if len(data) < 8:
        return "truncated"
    length, magic = struct.unpack("<II", data[-8:])
    if magic != _FOOTER_MAGIC or length > len(data) - 8:
        return "no footer (truncated?)"
    body, footer = data[: -8 - length], data[-8 - length : -8]
    try:
        crc = json.loads(footer)["crc"]
    except (ValueError, KeyError, TypeError):
        return "unreadable footer"
    return "" if zlib.crc32(body) == crc else "content does not match its checksum"
