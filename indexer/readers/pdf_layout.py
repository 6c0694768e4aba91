"""Puts the characters of a PDF page into lines in the order in which they are read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

_LARGE_GAP = 0.9
"""A gap of so many line heights in a line may be one between columns."""
_GLUED = 0.12
"""Parts of a line with less than so many line heights between them are one word (a raised number, a change of font)."""
_BINS = 400
_MOST_COLUMNS_DEEP = 5


@dataclass(slots=True)
class Piece:
    """Text that was drawn in one go on one line, and its box. The page is turned so that the text is upright."""

    text: str
    left: float
    right: float
    bottom: float
    top: float
    order: int = 0
    """The position in which the page draws it."""

    @property
    def middle(self) -> float:
        """The height of its middle."""
        return (self.bottom + self.top) / 2

    @property
    def height(self) -> float:
        """Its height, at least a small one."""
        return max(self.top - self.bottom, 0.1)


@dataclass(slots=True)
class Line:
    """A line of a page. `top` and `bottom` are shares of the page's height, `height` is in points."""

    page: int
    text: str
    top: float
    bottom: float
    height: float
    apart: bool = False
    """True if there is more room above it than above other lines: a new paragraph."""


def page_lines(raw: Any, page: Any, number: int) -> list[Line]:
    """The lines of page `number`. `raw` is pypdfium2.raw, `page` a pypdfium2 page."""
    left, bottom, right, top = page.get_bbox()
    turned = _pieces(raw, page)
    if not turned:
        return []
    main = max(turned, key=lambda quarter: sum(len(piece.text) for piece in turned[quarter]))
    pieces = turned.pop(main)
    edges = _turn(left, bottom, main)[1], _turn(right, top, main)[1]
    low, tall = min(edges), max(max(edges) - min(edges), 1.0)
    single = sum(1 for piece in pieces if len(piece.text.strip()) < 2)
    if single > 20 and single > 0.6 * len(pieces):  # vertical writing: the order of drawing is the better one
        rows = [[Piece("".join(piece.text for piece in pieces), 0, 0, low + tall / 2, low + tall / 2)]]
    else:
        rows = _ordered(pieces, 0)
    for others in turned.values():  # a note along the edge
        rows += [[Piece(piece.text, 0, 0, low + tall / 2, low + tall / 2)] for piece in others]
    lines = []
    for row in rows:
        if text := _joined(row):
            upper, lower = max(piece.top for piece in row), min(piece.bottom for piece in row)
            height = max(piece.height for piece in row)
            lines.append(Line(number, text, (upper - low) / tall, (lower - low) / tall, height))
    _mark_paragraphs(lines, tall)
    return lines


def _turn(x: float, y: float, quarter: int) -> tuple[float, float]:
    """A point after a turn clockwise by `quarter` quarters."""
    return ((x, y), (y, -x), (-x, -y), (-y, x))[quarter]


def _pieces(raw: Any, page: Any) -> dict[int, list[Piece]]:
    """The pieces of a page in the order of drawing, by the quarter turns of their text."""
    textpage = page.get_textpage()
    try:
        found: dict[int, list[Piece]] = {}
        box = raw.FS_RECTF()
        current: Piece | None = None
        quarter = order = 0
        blank = False
        for index in range(textpage.count_chars()):
            code = raw.FPDFText_GetUnicode(textpage, index)
            if code in (10, 13):
                current = None
                continue
            if code in (0, 9, 32, 160, 0x3000):
                blank = True
                continue
            character = "-" if code == 2 else "\ufffd" if 0xD800 <= code < 0xE000 or code > 0x10FFFF else chr(code)
            if not raw.FPDFText_GetLooseCharBox(textpage, index, box):
                if current is not None:
                    current.text += character
                continue
            corners = (box.left, box.bottom, box.right, box.top)
            if current is not None:
                x0, y0, x1, y1 = _turned_box(corners, quarter)
                height = min(current.height, max(y1 - y0, 0.1))
                gap = max(x0 - current.right, current.left - x1)
                if abs((y0 + y1) / 2 - current.middle) < 0.6 * height and gap < _LARGE_GAP * height:
                    current.text += " " + character if blank else character
                    current.left, current.right = min(current.left, x0), max(current.right, x1)
                    blank = False
                    continue
            quarter = _quarter(raw.FPDFText_GetCharAngle(textpage, index))
            x0, y0, x1, y1 = _turned_box(corners, quarter)
            current = Piece(character, x0, x1, y0, y1, order)
            order += 1
            found.setdefault(quarter, []).append(current)
            blank = False
        return found
    finally:
        textpage.close()


def _quarter(angle: float) -> int:
    """The quarter turns to the left nearest to an angle in radians, which PDFium counts to the right."""
    return 0 if angle < 0 or math.isnan(angle) else -round(angle / (math.pi / 2)) % 4


def _turned_box(corners: tuple[float, float, float, float], quarter: int) -> tuple[float, float, float, float]:
    if not quarter:
        return corners
    (ax, ay), (bx, by) = _turn(corners[0], corners[1], quarter), _turn(corners[2], corners[3], quarter)
    return min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)


def _rows(pieces: list[Piece]) -> list[list[Piece]]:
    """The pieces by line, from the top."""
    rows: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda piece: -piece.middle):
        if rows:
            first = rows[-1][0]
            if abs(first.middle - piece.middle) < 0.5 * min(first.height, piece.height):
                rows[-1].append(piece)
                continue
        rows.append([piece])
    for row in rows:
        row.sort(key=lambda piece: piece.left)
    return rows


def _ordered(pieces: list[Piece], depth: int) -> list[list[Piece]]:
    """The lines in reading order: columns one after the other, between the lines that go across them."""
    rows = _rows(pieces)
    gutter = _gutter(pieces, rows) if depth < _MOST_COLUMNS_DEEP else None
    if gutter is None:
        return rows
    ordered: list[list[Piece]] = []
    sides: tuple[list[Piece], list[Piece]] = ([], [])

    def flush() -> None:
        for side in sides:
            ordered.extend(_ordered(side, depth + 1) if side else [])
            side.clear()

    for row in rows:
        if any(piece.left < gutter < piece.right for piece in row):
            flush()
            ordered.append(row)
        else:
            for piece in row:
                sides[piece.left >= gutter].append(piece)
    flush()
    return ordered


def _gutter(pieces: list[Piece], rows: list[list[Piece]]) -> float | None:
    """Where the room between two columns of text is, or None if the lines are read across."""
    left, right = min(piece.left for piece in pieces), max(piece.right for piece in pieces)
    step = (right - left) / _BINS
    if len(rows) < 3 or not 0 < step < math.inf:
        return None
    over, ends, starts = [0] * (_BINS + 2), [0] * (_BINS + 2), [0] * (_BINS + 2)
    for piece in pieces:
        first, last = int((piece.left - left) / step), int((piece.right - left) / step)
        over[first] += 1
        over[last + 1] -= 1
        ends[last + 1] += 1
        starts[first] += 1
    best, best_score, width, at = None, 0.0, 0, 0
    covered, before, behind = 0, 0, len(pieces)
    wanted = max(1.0, 0.6 * median(piece.height for piece in pieces) / step)
    state: tuple[int, int, int] | None = None
    for place in range(_BINS + 1):
        covered, before = covered + over[place], before + ends[place]
        behind -= starts[place]
        now = (covered, before, behind)
        if now != state:
            state, at = now, place
        width = place - at + 1
        score = min(before, behind) - 0.8 * covered + min(width, 40) / 1000
        if width >= wanted and min(before, behind) >= 3 and covered <= min(before, behind) and score > best_score:
            best, best_score = left + (at + width / 2) * step, score
    return best if best is not None and _are_columns(rows, best) else None


def _are_columns(rows: list[list[Piece]], gutter: float) -> bool:
    """True if both sides are running text, or if the page draws one side after the other. Tables are neither."""
    sides: tuple[list[list[Piece]], list[list[Piece]]] = ([], [])
    for row in rows:
        if any(piece.left < gutter < piece.right for piece in row):
            continue
        for side, is_right in zip(sides, (False, True), strict=True):
            if part := [piece for piece in row if (piece.left >= gutter) is is_right]:
                side.append(part)
    if min(len(side) for side in sides) < 3:
        return False
    drawn = sorted((part[0].order, which) for which, side in enumerate(sides) for part in side)
    changes = sum(1 for one, two in pairwise(drawn) if one[1] != two[1])
    if changes <= 0.2 * min(len(side) for side in sides) + 1:
        return True
    return all(_is_prose([_joined(part) for part in side], side) for side in sides)


def _is_prose(texts: list[str], parts: list[list[Piece]]) -> bool:
    """True if lines look like those of a paragraph: filled, of some words, most going on from the one before."""
    widths = [part[-1].right - part[0].left for part in parts]
    if median(widths) < 0.5 * max(widths):
        return False
    if sum(len(text) for text in texts) < 12 * len(texts):
        return False
    cased = [text[0] for text in texts if text[0].lower() != text[0].upper()]
    if len(cased) < 0.3 * len(texts):  # a script without capital letters
        return not any(character.isdigit() for text in texts for character in text[:1])
    if sum(text.count(" ") + 1 for text in texts) < 2.5 * len(texts):
        return False
    return sum(1 for character in cased if character.islower()) >= 0.25 * len(cased)


def _joined(row: list[Piece]) -> str:
    """The text of a line. Pieces are sorted from the left."""
    right_to_left = sum(_direction(piece.text) for piece in row) < 0
    text, before = "", None
    for piece in reversed(row) if right_to_left else row:
        if before is not None:
            gap = max(piece.left - before.right, before.left - piece.right)
            text += "" if gap < _GLUED * min(piece.height, before.height) else " "
        text, before = text + piece.text, piece
    return " ".join(text.split())


def _direction(text: str) -> int:
    """Below 0 if most of the letters are Hebrew or Arabic."""
    return sum(-1 if "\u0590" <= letter <= "\u08ff" or "\ufb1d" <= letter <= "\ufefc" else 1 for letter in text)


def _mark_paragraphs(lines: list[Line], tall: float) -> None:
    gaps = [(above.bottom - line.top) * tall for above, line in pairwise(lines)]
    usual = median([gap for gap in gaps if gap > -1e9] or [0.0])
    for gap, line in zip(gaps, lines[1:], strict=True):
        line.apart = gap > max(usual, 0.0) + 0.5 * line.height
