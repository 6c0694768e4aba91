"""A long document is read once, not once for each of its passages."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

from hyblink.app.application import App

CHARS = 2_000_000


def _peak(run: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_reading_its_passages_takes_no_more_memory_than_the_text_a_few_times(app: App) -> None:
    text = " ".join(f"word{at % 5000}" for at in range(CHARS // 8))[:CHARS]
    app.documents.bulk("default", [{"id": "long", "title": "t", "text": text}], encode=False)
    engine = app.catalog.engine("default")
    reader = engine.store.reader()
    rows = reader.live_rows()
    assert len(rows) > 1500

    def changed() -> None:
        for batch in reader.texts_since(0):
            assert all(len(change.content) < 2000 for change in batch)

    # Once for each passage it would be 4 GB.
    assert _peak(lambda: reader.passages(rows)) < 12 * CHARS
    assert _peak(changed) < 12 * CHARS
    assert _peak(lambda: [len(item.windows) for item in reader.export()]) < 30 * CHARS
    (exported,) = reader.export()
    assert exported.document.text == text
    passages = reader.passages(rows)
    assert [passages[row].text for row in rows.tolist()] == [text[start:end] for start, end in exported.windows]
    lengths = reader.passage_lengths(rows)
    assert lengths.tolist() == [end - start for start, end in exported.windows]
