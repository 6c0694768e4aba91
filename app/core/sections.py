"""The sections of a document's passages: which headings stand over each, and where it is in the original."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import orjson

from hyblink.app.core.checks import check_text
from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.types.documents import Document, Section

LINE = "line "
"""The beginning of a place of plain text. Its passages say the line that they begin on."""
MAX_PATH, MAX_CHARS = 32, 512


def sections_of(document: Document, windows: Sequence[tuple[int, int]]) -> Iterator[Section]:
    """Yield the section of each passage, given their `windows` (start, end) in ascending order.

    A passage that begins with headings alone is in the section that follows them. Without sections, all are in one
    without path and place.
    """
    sections = document.sections or (Section(0),)
    at = 0
    counted = line = 0
    for start, end in windows:
        while at + 1 < len(sections) and sections[at + 1].start < max(end, start + 1):
            at += 1
            counted = line = 0
        own = sections[at]
        if own.place.startswith(LINE) and not own.path:
            line += document.text.count("\n", max(counted, own.start), start)
            counted = max(start, own.start)
            yield replace(own, place=f"{LINE}{int(own.place.removeprefix(LINE)) + line}")
        else:
            yield own


def parse_sections(value: object, chars: int) -> tuple[Section, ...]:
    """Check the `sections` of a document: a list of objects with `start`, `path` and `place`. `chars`: its text's size.

    Raises InvalidInputError that names what is wrong.
    """
    expected = "a list of objects with start (ascending, the first 0), path (a list of headings) and place"
    if not isinstance(value, list):
        raise InvalidInputError("sections have the wrong type", received=value, expected=expected)
    found: list[Section] = []
    for item in value:
        if not isinstance(item, dict) or not set(item) <= {"start", "path", "place"}:
            raise InvalidInputError("a section is not understood", received=item, expected=expected)
        start, path, place = item.get("start"), item.get("path") or [], item.get("place") or ""
        least = found[-1].start + 1 if found else 0
        if type(start) is not int or not (start == 0 if not found else least <= start <= chars):
            raise InvalidInputError("a section has a bad start", received=start, expected=expected)
        if not isinstance(path, list) or len(path) > MAX_PATH:
            raise InvalidInputError("a section has a bad path", received=path, expected=f"up to {MAX_PATH} headings")
        texts = [check_text(text, "a heading or place of a section") for text in (*path, place)]
        if any(len(text) > MAX_CHARS for text in texts):
            raise InvalidInputError(
                "a heading or place is too long",
                received=max(map(len, texts)),
                expected=f"up to {MAX_CHARS} characters",
            )
        if place.startswith(LINE) and not place.removeprefix(LINE).isdecimal():
            raise InvalidInputError("a section has a bad place", received=place, expected="`line ` and its number")
        found.append(Section(start, tuple(path), place))
    return tuple(found)


def encode_sections(sections: Sequence[Section]) -> str:
    """Sections as JSON lists of start, path and place; none as an empty text."""
    return orjson.dumps([(one.start, one.path, one.place) for one in sections]).decode() if sections else ""


def decode_sections(sections: str) -> tuple[Section, ...]:
    """The inverse of `encode_sections`."""
    if not sections:
        return ()
    return tuple(Section(start, tuple(path), place) for start, path, place in orjson.loads(sections))
