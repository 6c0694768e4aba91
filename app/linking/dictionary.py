"""The alias dictionary: which entities a name means, with which prior probability, and where names occur in a text.

It is derived from the store like every index: it reads the names of changed passages, and skips removed rows until its
parts are merged. Names are stored as 64-bit keys in sorted arrays, about 25 bytes each. A binary search looks up all
token n-grams of a text at once. An Aho-Corasick automaton would find the same spans, but needs about 100 bytes a name
and a rebuild at every change.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from hyblink.app.core.ports.store import PassageChange, StoreReader
from hyblink.app.core.ports.views import Snapshot
from hyblink.app.core.types.arrays import IdArray, ScoreArray
from hyblink.app.core.types.linking import Mention
from hyblink.app.core.types.ranking import EMPTY, Scored
from hyblink.app.linking.knowledge_base import names_of
from hyblink.app.linking.surface_forms import (
    FUNCTION_WORDS,
    MAX_TOKENS,
    Keys,
    Tokens,
    folded,
    keys_of,
    runs,
    tokens,
    unqualified,
)

_TITLE, _EXACT_CASE, _SHORT = 1, 2, 4
_ALIAS_WEIGHT = 0.5
"""The prior weight of an alias, relative to 1 for a title."""
_SHORT_WEIGHT = 0.25
"""The prior weight of a title without its qualifier: "Mercury" for "Mercury (planet)"."""
_FOLDED_WEIGHT = 0.5
"""The factor for a match that differs in case or in singular and plural."""
_PARTS = 6

Counts = Mapping[int, Mapping[str, float]]
"""How often a name (the key of its folded form) was judged to mean an entity (its id)."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Names sorted by key, each with its exact-form key, its entity's row and flags. `lengths`: token counts."""

    keys: Keys
    exact: Keys
    rows: IdArray
    flags: npt.NDArray[np.uint8]
    lengths: frozenset[int]

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, key: int) -> slice:
        """Return the slice of the names that have this key."""
        wanted = np.uint64(key)
        return slice(int(np.searchsorted(self.keys, wanted)), int(np.searchsorted(self.keys, wanted, "right")))


def _part(changes: Sequence[PassageChange]) -> _Part:
    """The names and ids of one batch of entities. Batches bound the memory that Python's number objects take."""
    entries = [entry for change in changes for entry in _entries(change)]
    keys, exact, rows, flags, lengths = zip(*entries, strict=True)
    made = _Part(
        np.array(keys, dtype=np.uint64),
        np.array(exact, dtype=np.uint64),
        np.array(rows, dtype=np.int64),
        np.array(flags, dtype=np.uint8),
        frozenset(lengths),
    )
    return _taken(made, np.argsort(made.keys, kind="stable"))


def _taken(part: _Part, places: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> _Part:
    return _Part(part.keys[places], part.exact[places], part.rows[places], part.flags[places], part.lengths)


def _merged(parts: Sequence[_Part]) -> _Part:
    if len(parts) == 1:
        return parts[0]
    whole = _Part(
        np.concatenate([part.keys for part in parts]),
        np.concatenate([part.exact for part in parts]),
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.flags for part in parts]),
        frozenset().union(*(part.lengths for part in parts)),
    )
    return _taken(whole, np.argsort(whole.keys, kind="stable"))


def _without(part: _Part, removed: IdArray) -> _Part:
    return _taken(part, ~np.isin(part.rows, removed)) if len(removed) else part


def _id_key(doc_id: str) -> int:
    """The key of an entity's id. Ids share the arrays with names, but no text hashes to their keys."""
    return int.from_bytes(blake2b(doc_id.encode(), digest_size=8, person=b"id").digest(), "little")


def _needs_its_case(name: str) -> bool:
    """Whether a name is so short that it must match with its exact case, such as "IT", "C" or "Go"."""
    letters = [item for item in name if item.isalpha()]
    upper = sum(letter.isupper() for letter in letters)
    return bool(upper) and (len(letters) <= 2 or (len(letters) == 3 and upper == 3))


class AliasDictionary:
    """The names of one generation's entities, updated incrementally by `at`. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts: tuple[_Part, ...] = ()
        self._removed: IdArray = np.zeros(0, dtype=np.int64)
        self._change = -1

    def at(self, reader: StoreReader) -> DictionaryView:
        """Return a view of the dictionary at the reader's snapshot, after reading the changes up to it."""
        with self._lock:
            if reader.change > self._change:
                self._catch_up(reader)
            return DictionaryView(self._parts, self._removed, reader, later=reader.change < self._change)

    def _catch_up(self, reader: StoreReader) -> None:
        removed = reader.removed_since(self._change) if self._change >= 0 else None
        if removed is None:  # the first time, or the store no longer has the removals since then
            self._parts, self._change, removed = (), 0, np.zeros(0, dtype=np.int64)
        added = [_part(batch) for batch in reader.texts_since(self._change) if batch]
        self._removed = np.union1d(self._removed, removed)
        parts = [*self._parts, _merged(added)] if added else list(self._parts)
        large = parts and len(self._removed) * 10 > len(parts[0])
        if len(parts) > _PARTS or large or (len(parts) > 1 and len(parts[-1]) * 4 > len(parts[0])):
            parts, self._removed = [_without(_merged(parts), self._removed)], np.zeros(0, dtype=np.int64)
        self._parts, self._change = tuple(parts), reader.change


def _entries(change: PassageChange) -> list[tuple[int, int, int, int, int]]:
    """(key, exact-form key, row, flags, tokens) of an entity's names and id; lower-case plurals also as singulars."""
    own = _id_key(change.doc_id)
    found: dict[tuple[int, int], tuple[int, int]] = {(own, own): (0, 0)}
    names = names_of(change.content)
    named = [(name, 0 if number else _TITLE) for number, name in enumerate(names)]
    short = unqualified(names[0])
    for name, flags in [*named, (short, _SHORT)] if short else named:
        made = keys_of(name)
        if made is None:
            continue
        beside = (flags | (_EXACT_CASE if _needs_its_case(name) else 0), made.tokens)
        found.setdefault((made.folded, made.exact), beside)
        if made.singular != made.folded and name == name.lower():  # "The Pythons" must not match "the Python"
            found.setdefault((made.singular, made.exact), beside)
    return [(key, exact, change.row, flags, tokens_) for (key, exact), (flags, tokens_) in found.items()]


class DictionaryView:
    """An immutable view of the dictionary at one snapshot of the store."""

    def __init__(self, parts: Sequence[_Part], removed: IdArray, reader: StoreReader, *, later: bool) -> None:
        """`later`: the dictionary is newer than the reader's snapshot, so rows are checked against the reader."""
        self._parts = parts
        self._removed = removed
        self._reader = reader
        self._later = later

    def _living(self, rows: IdArray) -> dict[int, int]:
        """The rows that exist in this snapshot, with their document keys."""
        rows = rows[~np.isin(rows, self._removed)]
        if self._later:
            rows = np.array(sorted(self._reader.passages(rows)), dtype=np.int64)
        keys = self._reader.document_keys(rows) if len(rows) else rows
        return {row: key for row, key in zip(rows.tolist(), keys.tolist(), strict=True) if key >= 0}

    def priors(
        self, names: Sequence[str], counts: Counts | None = None, counted: Sequence[str] | None = None
    ) -> list[Scored]:
        """Return the prior P(entity | name) of each name: entity rows, best first, with scores that sum to 1.

        A title weighs more than an alias, an exact match more than a folded one. `counts`, the judged meanings of
        names, add 1 for each judgement, also for entities without such a name. `counted` has an entity id for each
        name ("" for none) whose count is reduced by 1: leave-one-out for a mention that was itself counted.
        """
        once = counted or [""] * len(names)
        found = [self._weights(name, counts or {}, own) for name, own in zip(names, once, strict=True)]
        living = self._living(np.unique(np.array([row for own in found for row in own], dtype=np.int64)))
        return [_prior({row: weight for row, weight in own.items() if row in living}) for own in found]

    def known(self, ids: set[str]) -> set[str]:
        """Return those of the ids that are entities in this snapshot."""
        rows = {item: list(self._rows_of(item)) for item in ids}
        living = self._living(np.unique(np.array([row for own in rows.values() for row in own], dtype=np.int64)))
        return {item for item, own in rows.items() if any(row in living for row in own)}

    def _rows_of(self, doc_id: str) -> Iterator[int]:
        key = _id_key(doc_id)
        for part in self._parts:
            yield from part.rows[part.find(key)].tolist()

    def _weights(self, name: str, counts: Counts, counted: str) -> dict[int, float]:
        made = keys_of(name)
        weights: dict[int, float] = {}
        if made is None:
            return weights
        for part in self._parts:
            for key in {made.folded, made.singular}:
                span = part.find(key)
                own = _weights(part, span, made.exact).tolist()
                for row, weight in zip(part.rows[span].tolist(), own, strict=True):
                    weights[row] = max(weights.get(row, 0.0), weight)
        for doc_id, seen in (counts.get(made.folded) or counts.get(made.singular) or {}).items():
            times = seen - (doc_id == counted)
            for row in self._rows_of(doc_id) if times > 0 else ():
                weights[row] = weights.get(row, 0.0) + times
        return weights

    def names_in(self, text: str) -> list[tuple[int, int]]:
        """Return the (start, end) of every name in a text, overlapping ones included, ascending, in code points."""
        made = tokens(text)
        spans = {(start, start + length - 1) for start, length, _ in self._names(made)}
        return sorted((int(made.starts_T[a]), int(made.ends_T[b])) for a, b in spans)

    def detect(self, text: str) -> list[Mention]:
        """Return the mentions in a text by greedy longest match, left to right, without overlaps.

        `score` is the prior weight of the best entity. Function words, numbers and punctuation alone are never
        mentions, and short names must match in case.
        """
        made = tokens(text)
        best: dict[int, tuple[int, float]] = {}
        for start, length, weight in self._names(made):
            best[start] = max(best.get(start, (0, 0.0)), (length, weight))
        mentions: list[Mention] = []
        end = 0
        for start in sorted(best):
            length, weight = best[start]
            if start < end:
                continue
            a, b = int(made.starts_T[start]), int(made.ends_T[start + length - 1])
            mentions.append(Mention(a, b, text[a:b], "dictionary", weight))
            end = start + length
        return mentions

    def _names(self, made: Tokens) -> Iterator[tuple[int, int, float]]:
        """(first token, length, weight) of every name of an entity that exists in this snapshot."""
        lengths = sorted(frozenset().union(*(part.lengths for part in self._parts)))
        found = [match for length in lengths if 0 < length <= MAX_TOKENS for match in self._matches(made, length)]
        living = self._living(np.unique(np.array([row for *_, row in found], dtype=np.int64)))
        return ((start, length, weight) for start, length, weight, row in found if row in living)

    def _matches(self, made: Tokens, length: int) -> Iterator[tuple[int, int, float, int]]:
        """(first token, length, weight, row) of every name with `length` tokens."""
        plain = runs(made.folded_T, made.folded_T, length)
        single = runs(made.folded_T, made.singular_T, length)
        exact = runs(made.exact_T, made.exact_T, length)
        for part in self._parts:
            if length not in part.lengths:
                continue
            for wanted in (plain, single) if not np.array_equal(plain, single) else (plain,):
                at = np.searchsorted(part.keys, wanted)
                at[at == len(part)] = 0
                for start in np.flatnonzero(part.keys[at] == wanted).tolist():
                    if not _may_be_a_name(made.words[start : start + length]):
                        continue
                    span = part.find(int(wanted[start]))
                    own = _weights(part, span, int(exact[start]), strict=True)
                    for row, weight in zip(part.rows[span].tolist(), own.tolist(), strict=True):
                        if weight > 0:
                            yield start, length, weight, row


def _prior(weights: Mapping[int, float]) -> Scored:
    if not weights:
        return EMPTY
    rows = np.array(sorted(weights), dtype=np.int64)
    score = np.array([weights[row] for row in rows.tolist()])
    order = np.lexsort((rows, -score))
    return Scored(rows[order], (score[order] / score.sum()).astype(np.float32))


def _weights(part: _Part, span: slice, exact: int, *, strict: bool = False) -> npt.NDArray[np.float64]:
    same = part.exact[span] == np.uint64(exact)
    flags = part.flags[span]
    weight = np.where(flags & _TITLE, 1.0, np.where(flags & _SHORT, _SHORT_WEIGHT, _ALIAS_WEIGHT))
    weight = weight * np.where(same, 1.0, _FOLDED_WEIGHT)
    if strict:
        weight = np.where((flags & _EXACT_CASE).astype(bool) & ~same, 0.0, weight)
    return weight


def _may_be_a_name(words: Sequence[str]) -> bool:
    letters = [word for word in words if any(item.isalpha() for item in word)]
    if not letters:
        return False
    if len(words) == 1 and folded(words[0]) in FUNCTION_WORDS:
        return words[0].isupper() and len(words[0]) > 1
    return any(folded(word) not in FUNCTION_WORDS for word in letters) or len(words) > 2


def prior_scores(found: Scored, rows: IdArray) -> ScoreArray:
    """Return the prior of each of the given rows, 0 for rows that are not in `found`."""
    scores = np.zeros(len(rows), dtype=np.float32)
    order = np.argsort(found.rows)
    known, values = found.rows[order], found.scores[order]
    at = np.searchsorted(known, rows)
    there = at < len(known)
    there[there] = known[at[there]] == rows[there]
    scores[there] = values[at[there]]
    return scores


class Dictionaries:
    """A cache of alias dictionaries by generation, at most two for each collection."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[tuple[str, str], AliasDictionary] = {}

    def view(self, collection: str, generation: str, snapshot: Snapshot) -> DictionaryView:
        """Return a generation's dictionary at a snapshot."""
        with self._lock:
            found = self._made.get((collection, generation))
            if found is None:
                others = [key for key in self._made if key[0] == collection]
                for key in others[:-1]:
                    del self._made[key]
                found = self._made[collection, generation] = AliasDictionary()
        return found.at(snapshot.reader)
