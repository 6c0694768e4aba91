"""The table of words: one number for each distinct word, however many there are."""

from __future__ import annotations

import numpy as np

from hyblink.app.analysis.word_table import LETTER, MAX_WORD, MID_LETTER, ODD, OTHER, Values, WordTable, join_values


def table(*, lower: bool = False) -> WordTable:
    classes = np.full(128, LETTER, dtype=np.uint8)
    classes[[ord(" "), ord("\n")]] = OTHER
    classes[ord(".")] = MID_LETTER
    classes[ord("!")] = ODD
    return WordTable(classes, LETTER, lower=lower)


def words(made: WordTable, texts: list[str]) -> list[list[str] | None]:
    found = made.cut(texts)
    starts = [0, *found.ends.tolist()]
    return [
        None if odd else [made.word(int(number)) for number in found.numbers[start:end]]
        for start, end, odd in zip(starts, starts[1:], found.odd.tolist(), strict=False)
    ]


def test_words_do_not_run_from_one_text_into_the_next() -> None:
    assert words(table(), ["ab", "cd e", "", " ", "e.f e. .e"]) == [["ab"], ["cd", "e"], [], [], ["e.f", "e", "e"]]


def test_lower_case_is_ascii_only() -> None:
    assert words(table(lower=True), ["Ab AB É"]) == [["ab", "ab", "É"]]
    assert words(table(), ["Ab AB"]) == [["Ab", "AB"]]


def test_odd_texts_and_long_words_are_left_to_the_caller() -> None:
    long = "x" * MAX_WORD
    assert words(table(), ["a b", "a !b", "a!", long, f"a {long}x", "b"]) == [
        ["a", "b"],
        None,
        None,
        [long],
        None,
        ["b"],
    ]


def test_half_a_million_words_keep_their_numbers_while_the_table_grows() -> None:
    made = table()
    texts = [" ".join(f"w{n * 500 + m}" for m in range(500)) for n in range(1000)]
    first = made.cut(texts)
    assert len(made) == 500_000
    assert (first.numbers == np.arange(500_000)).all()
    again = made.cut(texts[::-1])
    assert len(made) == 500_000
    assert (again.numbers.reshape(1000, 500)[::-1] == first.numbers.reshape(1000, 500)).all()
    assert made.word(123_456) == "w123456"


def test_values_are_joined_and_empty_ones_leave_no_trace() -> None:
    made, values = table(), Values(np.uint8)
    found = made.cut(["a b c", "b", "c a a"])
    values.extend([2, 0, 1], np.frombuffer(b"xyz", dtype=np.uint8))
    out = np.zeros(values.total(found) + len(found.numbers), dtype=np.uint8)
    ends = np.zeros(3, dtype=np.int64)
    join_values(found.numbers, found.ends, values.offsets, values.data, out, ends)
    assert [out[a:b].tobytes() for a, b in zip([0, *ends], ends, strict=False)] == [b"xy z", b"", b"z xy xy"]
