"""Analysis of many texts at once, with a table of their distinct words."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from threading import Lock

import numpy as np

from hyblink.app.analysis.terms import UNCACHED_TERMS_OF_WORD
from hyblink.app.analysis.word_breaks import (
    LATIN,
    MIDDLE_OF_NUMBER,
    MIDDLE_OF_WORD,
    ODD,
    ODD_CHAR,
    ODD_FROM,
    latin_pieces,
)


class ManyTexts:
    """Analyzes many texts at once: each distinct word is analyzed only once. Safe to share between threads."""

    def __init__(self, analyzer: str, joined_one: Callable[[str], str]) -> None:
        """`joined_one` analyzes a text that the table cannot process, such as one with non-Latin letters."""
        from hyblink.app.analysis import word_table as words

        self._joined_one = joined_one
        self._words = words
        self._lock = Lock()
        self._terms_of = UNCACHED_TERMS_OF_WORD[analyzer]  # the table is itself a cache
        points = [chr(point) for point in range(ODD_FROM)]
        classes = np.zeros(ODD_FROM, dtype=np.uint8)
        for kind, members in (
            (words.LETTER, rf"[{LATIN}]"),
            (words.DIGIT, "[0-9]"),
            (words.JOIN, "_"),
            (words.MID_LETTER, rf"[{MIDDLE_OF_WORD}]"),
            (words.MID_NUMBER, rf"[{MIDDLE_OF_NUMBER}]"),
            (words.ODD, rf"[{ODD}]"),
        ):
            classes[[at for at, point in enumerate(points) if re.match(members, point)]] |= kind
        self._classes = classes
        self._start()

    def _start(self) -> None:
        self._table = self._words.WordTable(self._classes, self._words.ODD, lower=False)
        self._terms = self._words.Values(np.uint8)

    def joined(self, texts: Sequence[str]) -> list[str]:
        """Each text's terms joined by spaces. Latin pieces go through the table, others are analyzed one by one."""
        pieces: list[str] = []
        plan: list[list[int | str]] = []
        for text in texts:
            if not ODD_CHAR.search(text):
                plan.append([len(pieces)])
                pieces.append(text)
                continue
            parts: list[int | str] = []
            for piece, latin in latin_pieces(text):
                parts.append(len(pieces) if latin else self._joined_one(piece))
                if latin:
                    pieces.append(piece)
            plan.append(parts)
        done = self._joined(pieces)
        return [" ".join([done[part] if isinstance(part, int) else part for part in parts]) for parts in plan]

    def _joined(self, pieces: Sequence[str]) -> list[str]:
        with self._lock:
            if self._table.full:
                self._start()
            found = self._table.cut(pieces)
            terms_of, word = self._terms_of, self._table.word
            new = [" ".join(terms_of(word(n))).encode() for n in range(len(self._terms), len(self._table))]
            self._terms.extend([len(item) for item in new], np.frombuffer(b"".join(new), dtype=np.uint8))
            terms, offsets = self._terms.data, self._terms.offsets
            out = np.empty(self._terms.total(found) + len(found.numbers), dtype=np.uint8)
        ends = np.empty(len(pieces), dtype=np.int64)
        self._words.join_values(found.numbers, found.ends, offsets, terms, out, ends)
        joined, start, whole = [], 0, memoryview(out)  # type: ignore[arg-type]
        for piece, end, odd in zip(pieces, ends.tolist(), found.odd.tolist(), strict=True):
            joined.append(self._joined_one(piece) if odd else str(whole[start:end], "utf-8"))
            start = end
        return joined
