"""Windows of a text."""

from __future__ import annotations

from hyblink.indexer.ingest.chunking import windows


def test_windows_cover_the_text_and_overlap() -> None:
    text = " ".join(f"Sentence number {n} says something." for n in range(200))
    spans = windows(text, 300, 60)
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    assert all(end - start <= 300 for start, end in spans)
    assert all(later[0] <= earlier[1] for earlier, later in zip(spans, spans[1:], strict=False))
    assert all(text[start : start + 8] == "Sentence" for start, _ in spans)
