"""Reads Rich Text Format (.rtf)."""

from __future__ import annotations

import codecs
import re

from hyblink.app.core.errors import InvalidInputError
from hyblink.indexer.readers.blocks import Blocks, flat, given_title, joined, reading
from hyblink.indexer.readers.format import WholeFile

_BINARY = re.compile(rb"\\bin(\d{1,9}) ?")
_HIGH = re.compile(rb"[\x80-\xff]")
_FONT = re.compile(r"\\f(\d{1,5})(?!\d)|\\fcharset(\d{1,3})(?!\d)")
_OUTLINE = re.compile(r"\\outlinelevel(\d)(?!\d) ?")
_INFO = re.compile(r"\{\\(title|author|subject|keywords) ")
_NUMBERS = re.compile(r"\\u(-?\d+)")
_HEADING = 0xE7A0
"""A private character for the outline level 0. It stands for the control word, which the library drops."""
_LEVEL = re.compile(f"[{chr(_HEADING)}-{chr(_HEADING + 9)}]+")
_MOST_FONTS = 10_000


def read_rtf(data: bytes) -> WholeFile:
    """The text of an RTF file, with its headings (paragraphs with an outline level) as sections.

    Raises InvalidInputError. Pictures, headers, footers, comments and the targets of links are left out.
    """
    if not data.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{\\rtf"):
        raise InvalidInputError("not an RTF file", received=data[:8], expected="a file that begins with {\\rtf")
    with reading("RTF"):
        source = _plain(data)
        found = _info(source)
        text = _text(_marked(source))
    blocks = Blocks()
    lines: list[str] = []
    title = ""
    for line in text.split("\n"):
        level, said = _level(line)
        if "|" in said and said.rstrip().endswith("|"):  # a row of a table
            lines.append(joined(said.rstrip()[:-1].split("|")))
            continue
        blocks.add("\n".join(lines))
        lines.clear()
        if level is None:
            blocks.add(said)
        else:
            blocks.heading(level, said)
            title = title or flat(said)
    blocks.add("\n".join(lines))
    return blocks.done(given_title(found.pop("title", ""), title), dict(found))


def _level(line: str) -> tuple[int | None, str]:
    mark = _LEVEL.search(line)
    if mark is None:
        return None, line
    return ord(mark[0][-1]) - _HEADING + 1, _LEVEL.sub("", line)


def _plain(data: bytes) -> str:
    """The source in ASCII, without binary data: bytes over 127 are written as the escapes that mean the same."""
    kept: list[bytes] = []
    at = 0
    while (found := _BINARY.search(data, at)) is not None:
        kept.append(data[at : found.start()])
        at = found.end() + int(found[1])
    kept.append(data[at:])
    return _HIGH.sub(lambda byte: b"\\'%02x" % byte[0][0], b"".join(kept)).decode("ascii")


def _marked(source: str) -> str:
    """The source as the library reads it without stumbling, in time that is linear."""
    # Its pattern for links looks through the whole line from each; without it the text of links is kept just the same.
    source = re.sub(r"\\fldinst(?=\{)", r"\\fldinst ", source, flags=re.IGNORECASE)
    source = _NUMBERS.sub(_character, source)
    source = _OUTLINE.sub(lambda level: f"\\uc0\\u{_HEADING + int(level[1])} \\uc1 ", source)
    return _with_fonts(source)


def _character(found: re.Match[str]) -> str:
    # A number that is no character would be an error; the private ones are the marks of headings.
    code = int(found[1]) if len(found[1]) < 8 else 0xFFFD
    code += 0x10000 if code < 0 else 0
    private = _HEADING <= code < _HEADING + 10
    return f"\\u{code}" if 0 <= code <= 0x10FFFF and not private else "\\u65533"


def _with_fonts(source: str) -> str:
    """The source with a font table of the least that says the same, with the charsets that Python knows."""
    from striprtf.striprtf import charset_map

    start = source.find("\\fonttbl")
    if start < 0:
        return source
    begin = source.rfind("{", 0, start)
    end = _group_end(source, begin)
    if begin < 0 or end < 0:
        return source[:start] + "\\info" + source[start + len("\\fonttbl") :]
    fonts: list[str] = []
    font = ""
    for found in _FONT.finditer(source, start, end):
        if found[1]:
            font = found[1]
        elif font and len(fonts) < _MOST_FONTS:
            charset = int(found[2])
            if charset in charset_map and _known(charset_map[charset]):
                fonts.append(f"{{\\f{font}\\fcharset{charset} x;}}")
            font = ""
    return f"{source[:begin]}{{\\fonttbl{''.join(fonts)}}}{source[end:]}"


def _known(codec: str) -> bool:
    try:
        codecs.lookup(codec)
    except LookupError:
        return False
    return True


def _group_end(source: str, begin: int) -> int:
    """Where the group that begins there ends, or -1."""
    depth = 0
    for brace in re.compile(r"\\[\\{}]|[{}]").finditer(source, max(begin, 0)):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0 and brace[0] == "}":
            return brace.end()
    return -1


def _info(source: str) -> dict[str, str]:
    """Title, author, subject and keywords, where the file says them."""
    found: dict[str, str] = {}
    start = source.find("{\\info")
    end = _group_end(source, start) if start >= 0 else -1
    page = re.search(r"\\ansicpg\d{1,5}", source[:2000])
    for entry in _INFO.finditer(source, start, end) if end > 0 else ():
        if entry[1] in found:
            continue
        last = _group_end(source, entry.start())
        inner = _NUMBERS.sub(_character, source[entry.end() : last - 1]) if 0 < last <= end else ""
        found[entry[1]] = flat(_text(f"{{\\rtf1{page[0] if page else ''} {inner}}}"))
    return found


def _text(source: str) -> str:
    from striprtf.striprtf import rtf_to_text

    return str(rtf_to_text(source, errors="replace"))  # type: ignore[no-untyped-call]
