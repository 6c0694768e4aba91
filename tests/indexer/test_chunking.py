"""Windows of a text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyblink.app.core.types.documents import Section
from hyblink.indexer.ingest.chunking import windows


def test_windows_cover_the_text_and_overlap() -> None:
    text = " ".join(f"Sentence number {n} says something." for n in range(200))
    spans = windows(text, 300, 60)
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    assert all(end - start <= 300 for start, end in spans)
    assert all(later[0] <= earlier[1] for earlier, later in zip(spans, spans[1:], strict=False))
    assert all(text[start : start + 8] == "Sentence" for start, _ in spans)


def test_no_window_crosses_a_heading() -> None:
    text = "Top\n\nA\n\n" + "One sentence. " * 30 + "B\n\nShort.\n\nC\n\nD"
    starts = [0, 5, text.index("B\n"), text.index("C\n"), text.index("D")]
    paths = [("Top",), ("Top", "A"), ("Top", "B"), ("Top", "C"), ("Top", "C", "D")]
    sections = [Section(start, path) for start, path in zip(starts, paths, strict=True)]
    spans = windows(text, 200, 30, sections)
    assert [text[start:end].strip() for start, end in spans[-2:]] == ["B\n\nShort.", "C\n\nD"]
    assert text[spans[0][0] : spans[0][1]].startswith("Top\n\nA\n\nOne")  # a heading goes with what is below it
    assert all(not start < cut < end for start, end in spans for cut in starts[2:4])


ROWS = "".join(f"| a{n} | b{n} |\n" for n in range(12))
CODE = "def f(x):\n    return x + 1\n\n    # more\n" + "    y = 2\n" * 20


@pytest.mark.parametrize("block", [ROWS, CODE], ids=["table", "code"])
def test_tables_and_code_are_kept_whole_where_they_fit(block: str) -> None:
    for before in range(0, 400, 23):
        text = ("Some words here. " * 40)[:before] + "\n\n" + block + "\n" + "Words behind it. " * 40
        spans = windows(text, 600, 100)
        start = text.index(block)
        assert any(a <= start and start + len(block.rstrip()) <= b for a, b in spans), before
        assert all(b - a <= 600 for a, b in spans)
    # A larger one is cut as any text.
    assert all(b - a <= 100 for a, b in windows(block * 3, 100, 20))


@given(
    st.text(st.sampled_from("ab .\n|\t{"), max_size=400),
    st.lists(st.integers(1, 400), max_size=6, unique=True),
    st.integers(1, 80),
    st.integers(0, 79),
)
def test_all_text_is_in_a_window(text: str, starts: list[int], size: int, overlap: int) -> None:
    cuts = [0, *sorted(start for start in starts if start < len(text))]
    spans = windows(text, size, min(overlap, size - 1), [Section(start, (f"h{start}",)) for start in cuts])
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    assert all(end - start <= size for start, end in spans)
    assert all(before[0] < after[0] <= before[1] <= after[1] for before, after in zip(spans, spans[1:], strict=False))
    assert all(not start < cut < end for start, end in spans for cut in cuts)
