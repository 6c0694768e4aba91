"""A compiled table of distinct words, for tokenising many texts at once.

A `WordTable` splits texts into words by the class of each code point and gives every distinct word a number. The caller
processes each distinct word once, in Python, and stores its values (terms or tokens) in `Values`. Compiled loops then
assemble each text's result from the values of its words. They release the GIL.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hyblink.app.analysis.compiled import compiled

OTHER, LETTER, DIGIT, JOIN, ODD = 0, 1, 2, 4, 128
MID_LETTER, MID_NUMBER = 16, 32
"""Classes of code points, as bit flags. A word is `JOIN* (LETTER | DIGIT) (LETTER | DIGIT | JOIN)*`. It also includes a
MID_LETTER between two LETTERs and a MID_NUMBER between two DIGITs. The table does not process texts with an ODD code
point: the caller must."""

MAX_WORD = 255
"""The longest word. The table does not process texts with a longer one: the caller must."""

_WORDS = 1_000_000
_MAX_POINTS = 32_000_000


_Bytes = npt.NDArray[np.uint8]
_Points = npt.NDArray[np.uint32]
_Ints = npt.NDArray[np.int32]
_Longs = npt.NDArray[np.int64]


@compiled()
def _scan(  # type: ignore[no-untyped-def]
    points, ends, first, classes, beyond, fold, seed, slots, hashes, offsets, arena, count, words, used, word_ends, odd
):
    """Split texts into words, from text `first` on. Returns (number of texts done, number of words in the table).

    It stops early if the table is full and must grow. Text n has the word numbers `words[word_ends[n - 1]:
    word_ends[n]]`. `used` is the number of words of the texts before `first`.
    """
    mask = len(slots) - 1
    room = min(len(hashes), len(slots) // 2)
    table = len(classes)
    at = ends[first - 1] if first else 0
    for text in range(first, len(ends)):
        end = ends[text]
        begun = used
        strange = False
        while at < end and not strange:
            start = at
            kind = classes[points[at]] if points[at] < table else beyond
            if kind & ODD:
                strange = True
                break
            if kind == JOIN:
                while at < end and points[at] < table and classes[points[at]] == JOIN:
                    at += 1
                if at == end:
                    break
                kind = classes[points[at]] if points[at] < table else beyond
            if not kind & (LETTER | DIGIT):
                strange = kind & ODD != 0
                at += 1
                continue
            value = seed
            while at < end:
                point = points[at]
                kind = classes[point] if point < table else beyond
                if not kind & (LETTER | DIGIT | JOIN):
                    if kind & ODD:
                        strange = True
                        break
                    if at + 1 == end or not kind:
                        break
                    before = classes[points[at - 1]] if points[at - 1] < table else beyond
                    after = classes[points[at + 1]] if points[at + 1] < table else beyond
                    letters = kind & MID_LETTER and before & LETTER and after & LETTER
                    numbers = kind & MID_NUMBER and before & DIGIT and after & DIGIT
                    if not letters and not numbers:
                        break
                at += 1
            length = at - start
            if strange or length > MAX_WORD:
                strange = True
                break
            for place in range(start, at):
                point = points[place]
                if point < 128:
                    point = fold[point]
                value = (value ^ np.uint64(point)) * np.uint64(1099511628211)
            value ^= value >> np.uint64(29)
            slot = np.int64(value & np.uint64(mask))
            word = -1
            while slots[slot] >= 0:
                other = slots[slot]
                if hashes[other] == value and offsets[other + 1] - offsets[other] == length:
                    same = True
                    base = offsets[other]
                    for place in range(length):
                        point = points[start + place]
                        if point < 128:
                            point = fold[point]
                        if arena[base + place] != point:
                            same = False
                            break
                    if same:
                        word = other
                        break
                slot = (slot + 1) & mask
            if word < 0:
                base = offsets[count]
                if count == room or base + length > len(arena):
                    return text, count
                for place in range(length):
                    point = points[start + place]
                    arena[base + place] = fold[point] if point < 128 else point
                word = count
                hashes[word] = value
                slots[slot] = word
                count += 1
                offsets[count] = base + length
            words[used] = word
            used += 1
        if strange:
            used = begun
        odd[text] = strange
        word_ends[text] = used
        at = end
    return len(ends), count


@compiled()
def _refill(hashes, slots, count):  # type: ignore[no-untyped-def]
    mask = len(slots) - 1
    for word in range(count):
        slot = np.int64(hashes[word] & np.uint64(mask))
        while slots[slot] >= 0:
            slot = (slot + 1) & mask
        slots[slot] = word


@compiled()
def join_values(words, word_ends, offsets, values, out, out_ends):  # type: ignore[no-untyped-def]
    """For each text, write the values of its words to `out`, separated by spaces (32). Empty values are skipped.

    Text n ends at `out_ends[n]`.
    """
    at, word = 0, 0
    for text in range(len(word_ends)):
        begun = at
        while word < word_ends[text]:
            low, high = offsets[words[word]], offsets[words[word] + 1]
            if high > low:
                if at > begun:
                    out[at] = 32
                    at += 1
                for place in range(low, high):
                    out[at] = values[place]
                    at += 1
            word += 1
        out_ends[text] = at


@compiled()
def union_values(words, word_ends, offsets, values, seen, out, out_ends):  # type: ignore[no-untyped-def]
    """For each text, write the distinct values of its words to `out`, ascending. Text n ends at `out_ends[n]`.

    `seen` is a work array with an entry of -1 for each possible value.
    """
    at, word = 0, 0
    for text in range(len(word_ends)):
        begun = at
        while word < word_ends[text]:
            for place in range(offsets[words[word]], offsets[words[word] + 1]):
                value = values[place]
                if seen[value] != text:
                    seen[value] = text
                    out[at] = value
                    at += 1
            word += 1
        gap = 1
        while gap < (at - begun) // 3:
            gap = 3 * gap + 1
        while gap:  # Shell sort: fast enough, since a text has few distinct tokens
            for right in range(begun + gap, at):
                value = out[right]
                left = right
                while left >= begun + gap and out[left - gap] > value:
                    out[left] = out[left - gap]
                    left -= gap
                out[left] = value
            gap //= 3
        out_ends[text] = at


@dataclass(frozen=True, slots=True)
class Words:
    """The words of some texts: text n has the word numbers `numbers[ends[n - 1]:ends[n]]`.

    A text marked `odd` was not processed and has none: the caller must process it itself.
    """

    numbers: _Ints
    ends: _Longs
    odd: npt.NDArray[np.bool_]


class WordTable:
    """A hash table of distinct words, numbered from 0. `cut` must not be called by several threads at once.

    `classes[c]` is the class of code point c, and `beyond` that of all code points past its end. With `lower`, ASCII
    letters are lower-cased.
    """

    def __init__(self, classes: _Bytes, beyond: int, *, lower: bool) -> None:
        self._classes = classes
        self._beyond = np.uint8(beyond)
        self._fold: _Points = np.arange(128, dtype=np.uint32)
        if lower:
            self._fold[65:91] += 32
        self._seed = np.uint64(secrets.randbits(64))
        self._count = 0
        self._slots: _Ints = np.full(1 << 16, -1, dtype=np.int32)
        self._hashes = np.zeros(1 << 15, dtype=np.uint64)
        self._offsets: _Longs = np.zeros((1 << 15) + 1, dtype=np.int64)
        self._arena: _Points = np.zeros(1 << 18, dtype=np.uint32)

    def __len__(self) -> int:
        return self._count

    @property
    def full(self) -> bool:
        """Whether the table has reached its size limit and should be replaced by a new one."""
        return self._count > _WORDS or self._offsets[self._count] > _MAX_POINTS

    def word(self, number: int) -> str:
        """The word with this number."""
        start, end = self._offsets[number], self._offsets[number + 1]
        return self._arena[start:end].tobytes().decode("utf-32-le")

    def cut(self, texts: Sequence[str]) -> Words:
        """Split texts into words. New words are added to the table. The texts must not contain lone surrogates."""
        points: _Points = np.frombuffer("".join(texts).encode("utf-32-le"), dtype=np.uint32)
        ends: _Longs = np.cumsum(np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)))
        numbers: _Ints = np.empty(len(points) // 2 + len(texts) + 1, dtype=np.int32)
        word_ends: _Longs = np.zeros(len(texts), dtype=np.int64)
        odd = np.zeros(len(texts), dtype=np.bool_)
        done = 0
        while True:
            used = int(word_ends[done - 1]) if done else 0
            done, self._count = _scan(
                points, ends, done, self._classes, self._beyond, self._fold, self._seed, self._slots, self._hashes,
                self._offsets, self._arena, self._count, numbers, used, word_ends, odd,
            )  # fmt: skip
            if done == len(texts):
                return Words(numbers[: word_ends[-1] if len(texts) else 0], word_ends, odd)
            self._grow()

    def _grow(self) -> None:
        self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
        self._offsets = np.concatenate([self._offsets, np.zeros(len(self._offsets) - 1, dtype=np.int64)])
        self._arena = np.concatenate([self._arena, np.zeros_like(self._arena)])
        self._slots = np.full(2 * len(self._slots), -1, dtype=np.int32)
        _refill(self._hashes, self._slots, self._count)


class Values:
    """A variable-length list of values for each word number of a table, stored in one growing array."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._data = np.zeros(1 << 16, dtype=dtype)
        self._offsets: _Longs = np.zeros(1 << 12, dtype=np.int64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def data(self) -> npt.NDArray[Any]:
        """The values of all words, concatenated. The array may be longer than what is used."""
        return self._data

    @property
    def offsets(self) -> _Longs:
        """Word number n has the values `data[offsets[n]:offsets[n + 1]]`."""
        return self._offsets[: self._count + 1]

    def extend(self, lengths: npt.ArrayLike, values: npt.NDArray[Any]) -> None:
        """Append the values of the next word numbers: `lengths` counts each word's, `values` holds all concatenated."""
        lengths = np.asarray(lengths, dtype=np.int64)
        used = int(self._offsets[self._count])
        self._data = _room(self._data, used + len(values))
        self._offsets = _room(self._offsets, self._count + len(lengths) + 1)
        self._data[used : used + len(values)] = values
        self._offsets[self._count + 1 : self._count + 1 + len(lengths)] = used + np.cumsum(lengths)
        self._count += len(lengths)

    def total(self, words: Words) -> int:
        """The total number of values of all given words, repetitions included."""
        return int(np.diff(self.offsets)[words.numbers].sum())


def _room(array: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    if size <= len(array):
        return array
    grown = np.zeros(max(size, 2 * len(array)), dtype=array.dtype)
    grown[: len(array)] = array
    return grown
