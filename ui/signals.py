"""Renders signals as HTML. Their labels and colours come from the service (`GET /v1/signals`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hyblink.ui.rendering import escape

_UNKNOWN = "#888888"
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


class Signals:
    """The signals of the service. An unknown signal is shown with its name, in grey."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._rows = {str(row["name"]): row for row in rows}

    @property
    def proposing(self) -> tuple[str, ...]:
        """The signals that generate candidates and can be requested in a search."""
        return tuple(name for name, row in self._rows.items() if row["proposes"])

    def label(self, name: object) -> str:
        """The display name of a signal, not escaped."""
        row = self._rows.get(str(name))
        return str(name) if row is None else str(row["label"])

    def colour(self, name: object) -> str:
        """The colour of a signal as `#rrggbb`."""
        colour = str(self._rows.get(str(name), {}).get("colour", ""))
        return colour if _COLOUR.fullmatch(colour) else _UNKNOWN

    def bar(self, signals: Sequence[Mapping[str, Any]], best: float) -> str:
        """A stacked bar of the signals' contributions, relative to the score `best` of the best hit."""
        whole = max(best, 1e-9)
        parts = []
        for line in signals:
            share = max(0.0, float(line["contribution"])) / whole * 100
            name = str(line["signal"])
            title = escape(f"{self.label(name)}: {line['contribution']:.4f}")
            colour = self.colour(name)
            parts.append(f'<span title="{title}" style="width:{min(share, 100):.2f}%;background:{colour}"></span>')
        return f'<div class="hb-bar">{"".join(parts)}</div>'

    def legend(self, signals: Sequence[str]) -> str:
        """A legend of the colours of signals."""
        dots = [
            f'<span class="hb-dot" style="background:{self.colour(s)}"></span>{escape(self.label(s))}' for s in signals
        ]
        return f'<div class="hb-legend">{"".join(dots)}</div>'

    def ledger(self, signals: Sequence[Mapping[str, Any]], score: float) -> str:
        """The score breakdown as a table, one row per signal. The last column sums to the score."""
        rows = []
        for line in signals:
            raw = "–" if line["raw"] is None else f"{line['raw']:.4f}"
            rank = line["leg_rank"] or "–"
            note = f" <em>{escape(line['note'])}</em>" if line.get("note") else ""
            rows.append(
                f"<tr><td>{escape(self.label(line['signal']))}{note}</td><td>{raw}</td>"
                f"<td>{line['normalised']:.4f}</td><td>{line['weight']:.2f}</td><td>{rank}</td>"
                f"<td><b>{line['contribution']:.4f}</b></td></tr>"
            )
        head = "<tr><th>signal</th><th>raw</th><th>normalised</th><th>weight</th><th>rank in leg</th><th>adds</th></tr>"
        total = f'<tr><td>score</td><td colspan="4"></td><td><b>{score:.4f}</b></td></tr>'
        return f'<table class="hb-ledger">{head}{"".join(rows)}{total}</table>'

    def tokens(self, line: Mapping[str, Any], most: int = 24) -> str:
        """The contributions of a signal's first `most` tokens; larger ones are more opaque. Empty if it has none."""
        found = list(line.get("tokens") or [])[:most]
        if not found:
            return ""
        top = max(float(token["contribution"]) for token in found) or 1.0
        colour = self.colour(line["signal"])
        shown = [
            f'<span class="hb-token" style="background:{colour}{int(20 + 120 * token["contribution"] / top):02x}" '
            f'title="{token["query_weight"]:.3f} × {token["passage_weight"]:.3f}">{escape(token["token"])} '
            f"{token['contribution']:.2f}</span>"
            for token in found
        ]
        return f"<div>{escape(self.label(line['signal']))}: {''.join(shown)}</div>"
