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

from hyblink.app.core.budget import check_budget
from hyblink.app.core.ports.store import PassageChange, StoreReader, is_of_another_history
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
_CHECKED = 4096
"""After so many matches the request's budget is asked whether to go on."""

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
        self._change, self._moment = -1, ""

    def at(self, reader: StoreReader) -> DictionaryView:
        """Return a view of the dictionary at the reader's snapshot, after reading the changes up to it."""
        with self._lock:
            if is_of_another_history(reader, self._change, self._moment):
                self._change = -1
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
        self._parts, self._change, self._moment = tuple(parts), reader.change, reader.moment


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

    def _alive(self, rows: IdArray) -> npt.NDArray[np.bool_]:
        """A mask of the rows that exist in this snapshot."""
        alive: npt.NDArray[np.bool_] = self._reader.document_keys(rows) >= 0
        if len(self._removed):
            alive &= ~np.isin(rows, self._removed)
        if self._later:
            there = np.array(list(self._reader.passages(rows[alive])), dtype=np.int64)
            alive &= np.isin(rows, there)
        return alive

    def priors(
        self, names: Sequence[str], counts: Counts | None = None, counted: Sequence[str] | None = None
    ) -> list[Scored]:
        """Return the prior P(entity | name) of each name: entity rows, best first, with scores that sum to 1.

        A title weighs more than an alias, an exact match more than a folded one. `counts`, the judged meanings of
        names, add 1 for each judgement, also for entities without such a name. `counted` has an entity id for each
        name ("" for none) whose count is reduced by 1: leave-one-out for a mention that was itself counted.
        """
        once = counted or [""] * len(names)
        made: dict[tuple[str, str], Scored] = {}
        for pair in zip(names, once, strict=True):
            if pair not in made:
                made[pair] = self._prior(pair[0], counts or {}, pair[1])
        return [made[pair] for pair in zip(names, once, strict=True)]

    def known(self, ids: set[str]) -> set[str]:
        """Return those of the ids that are entities in this snapshot."""
        return {item for item in ids if self._alive(self._rows_of(item)).any()}

    def _rows_of(self, doc_id: str) -> IdArray:
        key = _id_key(doc_id)
        return np.concatenate([part.rows[part.find(key)] for part in self._parts] or [np.zeros(0, dtype=np.int64)])

    def _prior(self, name: str, counts: Counts, counted: str) -> Scored:
        made = keys_of(name)
        if made is None:
            return EMPTY
        rows: list[IdArray] = [np.zeros(0, dtype=np.int64)]
        weights: list[npt.NDArray[np.float64]] = [np.zeros(0)]
        for part in self._parts:
            for key in {made.folded, made.singular}:
                span = part.find(key)
                rows.append(part.rows[span])
                weights.append(_weights(part, span, made.exact))
        found, at = np.unique(np.concatenate(rows), return_inverse=True)
        best: npt.NDArray[np.float64] = np.zeros(len(found))
        np.maximum.at(best, at, np.concatenate(weights))
        more: dict[int, float] = {}
        for doc_id, seen in (counts.get(made.folded) or counts.get(made.singular) or {}).items():
            times = seen - (doc_id == counted)
            for row in self._rows_of(doc_id).tolist() if times > 0 else ():
                more[row] = more.get(row, 0.0) + times
        if more:
            found, at = np.unique(np.concatenate([found, np.array(list(more), dtype=np.int64)]), return_inverse=True)
            best = np.bincount(at, np.concatenate([best, np.array(list(more.values()))])).astype(np.float64)
        alive = self._alive(found)
        found, best = found[alive], best[alive]
        if not len(found):
            return EMPTY
        order = np.lexsort((found, -best))
        return Scored(found[order], (best[order] / best.sum()).astype(np.float32))

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
        """(first token, length, weight of the best entity) of every name of an entity that exists in this snapshot."""
        lengths = sorted(frozenset().union(*(part.lengths for part in self._parts)))
        for length in lengths:
            if 0 < length <= MAX_TOKENS:
                check_budget()
                yield from self._matches(made, length)

    def _matches(self, made: Tokens, length: int) -> Iterator[tuple[int, int, float]]:
        """(first token, length, weight of the best entity) of every name with `length` tokens."""
        plain = runs(made.folded_T, made.folded_T, length)
        single = runs(made.folded_T, made.singular_T, length)
        exact = runs(made.exact_T, made.exact_T, length)
        for part in self._parts:
            if length not in part.lengths:
                continue
            for wanted in (plain, single) if not np.array_equal(plain, single) else (plain,):
                at = np.searchsorted(part.keys, wanted)
                at[at == len(part)] = 0
                meanings: dict[int, _Meanings] = {}  # many entities may share a name: they are looked at once
                for number, start in enumerate(np.flatnonzero(part.keys[at] == wanted).tolist()):
                    if not number % _CHECKED:
                        check_budget()
                    if not _may_be_a_name(made.words[start : start + length]):
                        continue
                    key = int(wanted[start])
                    if key not in meanings:
                        meanings[key] = self._meanings(part, part.find(key))
                    weight = meanings[key].weight(int(exact[start]))
                    if weight > 0:
                        yield start, length, weight

    def _meanings(self, part: _Part, span: slice) -> _Meanings:
        alive = self._alive(part.rows[span])
        flags, exact = part.flags[span][alive], part.exact[span][alive]
        base = _base_weights(flags)
        best: dict[int, float] = {}
        for key, weight in zip(exact.tolist(), base.tolist(), strict=True):
            best[key] = max(best.get(key, 0.0), weight)
        any_case = base[(flags & _EXACT_CASE) == 0]
        return _Meanings(best, _FOLDED_WEIGHT * float(any_case.max(initial=0.0)))


@dataclass(frozen=True, slots=True)
class _Meanings:
    """The best weight among the entities of a name: by exact form, and of those that another form may mean."""

    exact: Mapping[int, float]
    folded: float

    def weight(self, exact: int) -> float:
        """The weight of the best entity for a name in this exact form; 0 if none may be meant."""
        return max(self.exact.get(exact, 0.0), self.folded)


def _base_weights(flags: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    return np.where(flags & _TITLE, 1.0, np.where(flags & _SHORT, _SHORT_WEIGHT, _ALIAS_WEIGHT))


def _weights(part: _Part, span: slice, exact: int) -> npt.NDArray[np.float64]:
    same = part.exact[span] == np.uint64(exact)
    weight: npt.NDArray[np.float64] = _base_weights(part.flags[span]) * np.where(same, 1.0, _FOLDED_WEIGHT)
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
