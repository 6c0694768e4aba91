"""What the page shows is escaped."""

from __future__ import annotations

from hyblink.ui import rendering
from hyblink.ui.signals import Signals


def test_rendering_escapes_everything() -> None:
    evil = "<script>alert('x')</script>"
    line = {"signal": evil, "raw": 1.0, "normalised": 1.0, "weight": 1.0, "contribution": 1.0, "leg_rank": 1, "note": evil,
            "tokens": [{"token": evil, "contribution": 1.0, "query_weight": 1.0, "passage_weight": 1.0}]}  # fmt: skip
    signals = Signals([{"name": evil, "label": evil, "colour": evil, "proposes": True}])
    shown = [
        rendering.highlighted(evil, [{"start": 2, "end": 9}]),
        signals.bar([line], 1.0),
        signals.ledger([line], 1.0),
        signals.tokens(line),
        signals.legend([evil]),
        rendering.entity_link(evil, evil, evil),
        rendering.entity_card({"kind": evil, "world": evil, "aliases": [evil], "description": evil}),
        rendering.mentioned(evil, {"documents": 1, "shown": [{"title": evil, "doc_id": evil}]}),
    ]
    assert all("<script" not in html and "alert('" not in html for html in shown)


def test_highlights_are_cut_around_the_first() -> None:
    text = "x " * 1000 + "needle" + " y" * 1000
    shown = rendering.highlighted(text, [{"start": 2000, "end": 2006}], limit=200)
    assert "<mark>needle</mark>" in shown
    assert len(shown) < 300


def test_where_a_passage_stands() -> None:
    passage = {"path": ["Guide", "Install <b>", "Linux"], "place": "page 3"}
    assert rendering.where(passage, "Guide") == "<div class='hb-where'>Install &lt;b&gt; › Linux (page 3)</div>"
    assert rendering.where({"path": [], "place": "line 4"}, "x") == "<div class='hb-where'>(line 4)</div>"
    assert rendering.where({"path": ["x"], "place": ""}, "x") == ""
