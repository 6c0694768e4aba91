"""Reads AsciiDoc (.adoc) and Org (.org), line by line."""

from __future__ import annotations

import re
from typing import Any

from hyblink.indexer.readers.blocks import Blocks, flat, joined
from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.rows import decode

_ADOC_HEADING = re.compile(r"(={1,6}|#{1,6})[ \t]+(\S.*)")
_ADOC_ATTRIBUTE = re.compile(r":!?([A-Za-z0-9_][\w-]{0,80})!?:(?:[ \t]+(.*))?")
_ADOC_FENCE = re.compile(r"(-{4,}|\.{4,}|={4,}|\*{4,}|_{4,}|\+{4,}|/{4,}|--|```\w*)[ \t]*")
_ADOC_VERBATIM = ("----", "....", "++++", "```")
_ADOC_LINE = re.compile(r"\[[^\]\n]*\][ \t]*")
_ADOC_MACRO = re.compile(r"(?:include|toc|ifdef|ifndef|ifeval|endif|video|audio)::\S{0,400}\[.*\][ \t]*")
_ADOC_LINK = re.compile(
    r"(?<![\w/:])(?:(?:link|xref|mailto):[^\s\[\]]{1,2000}|(?:https?|ftp)://[^\s\[\]<>]{1,2000})\[([^\]\n]*)\]"
)
_ADOC_CROSS = re.compile(r"<<([^<>,\n]{1,300})(?:,([^<>\n]{1,300}))?>>")
_ADOC_IMAGE = re.compile(r"image::?[^\s\[\]]{1,2000}\[([^\]\n]*)\]")
_ADOC_MARKS = re.compile(r"(?<![\w*_`#])(\*\*|__|``|##|\*|_|`|#)(?=\S)([^*_`#\n]{1,1000})(?<=\S)\1(?![\w*_`#])")
_AUTHOR = re.compile(r"\w[\w.' -]{1,100}(?:<[^<>\n]{1,200}>)?")

_ORG_HEADING = re.compile(r"(\*+)[ \t]+(\S.*)")
_ORG_STATE = re.compile(r"(?:(?:TODO|DONE|NEXT|WAITING|CANCELLED|CANCELED)[ \t]+)?(?:\[#[A-Z0-9]\][ \t]+)?")
_ORG_TAGS = re.compile(r"(?<=[ \t]):[\w@#%:]+:$")
_ORG_KEYWORD = re.compile(r"#\+([A-Za-z][\w-]*):[ \t]*(.*)")
_ORG_LINK = re.compile(r"\[\[([^\[\]\n]{1,2000})(?:\]\[([^\[\]\n]{1,2000}))?\]\]")
_ORG_DRAWER = re.compile(r"[ \t]*:([A-Za-z][\w-]*):[ \t]*")
_ORG_PLANNED = re.compile(r"[ \t]*(?:CLOSED|SCHEDULED|DEADLINE|CLOCK):[ \t]*[\[<].*")
_ORG_RULE = re.compile(r"[ \t]*\|[-+]+\|?[ \t]*")
_RULE = re.compile(r"(?:'{3,}|-{5,}|<<<)[ \t]*")


class _Lines:
    """The lines of the paragraph, list or table so far."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self.held: list[str] = []
        self.title = ""
        self.first = ""
        self.metadata: dict[str, Any] = {}

    def flush(self) -> None:
        """End the block."""
        self.blocks.add("\n".join(self.held))
        self.held.clear()

    def heading(self, level: int, text: str) -> None:
        """End the block and begin a section."""
        self.flush()
        self.blocks.heading(level, text)

    def done(self) -> WholeFile:
        """The document."""
        self.flush()
        return self.blocks.done(self.title, self.metadata)


def read_adoc(data: bytes) -> WholeFile:
    """An AsciiDoc document, its headings as sections. The title is its first heading.

    Links are given by their text, code blocks as they are. Attributes, comments and includes are left out.
    """
    lines = _Lines(Blocks())
    fence, commented, table = "", False, False
    cells: list[str] = []
    header = True  # up to the first blank line after the title
    for line in decode(data).replace("\r\n", "\n").split("\n"):
        marked = _ADOC_FENCE.fullmatch(line)
        mark = marked[1] if marked else ""
        if fence:
            if mark == fence or (fence.startswith("```") and mark == "```"):
                lines.flush()
                fence, commented = "", False
            elif not commented:
                lines.held.append(line)
        elif table:
            table = _adoc_row(line, lines, cells)
        elif line.startswith(("|===", ",===")):
            lines.flush()
            table = True
        elif mark.startswith((*_ADOC_VERBATIM, "////")):
            lines.flush()
            fence, commented = mark, mark.startswith("////")
        elif mark:
            lines.flush()  # a box, whose content is read like the rest
        elif (heading := _ADOC_HEADING.fullmatch(line.rstrip())) is not None:
            said = _adoc_inline(heading[2])
            lines.heading(len(heading[1]) - 1, said)
            header = not lines.title
            lines.title = lines.title or flat(said)
        else:
            header = _adoc_line(line, lines, header=header)
    _adoc_cells(lines, cells)
    return lines.done()


def _adoc_line(line: str, lines: _Lines, *, header: bool) -> bool:
    """Add a line. Returns True if the next may still belong to the header of the document."""
    attribute = _ADOC_ATTRIBUTE.fullmatch(line)
    if not line.strip():
        lines.flush()
        return header and not lines.title
    if attribute is not None:
        if header and attribute[1] in ("author", "date", "revdate", "keywords", "lang") and attribute[2]:
            name = {"revdate": "date"}.get(attribute[1], attribute[1])
            lines.metadata[name] = flat(attribute[2])
        return header
    if line.startswith("//") or _ADOC_LINE.fullmatch(line) or _ADOC_MACRO.fullmatch(line) or _RULE.fullmatch(line):
        return header
    if line.strip() == "+":
        return header
    if header and lines.title and "author" not in lines.metadata and "@" in line and _AUTHOR.fullmatch(line.strip()):
        lines.metadata["author"] = flat(line.partition("<")[0])
        return True
    if line.startswith(".") and len(line) > 1 and line[1] not in ". \t":
        line = line[1:]  # the title of a block
    lines.held.append(_adoc_inline(line))
    return False


def _adoc_row(line: str, lines: _Lines, cells: list[str]) -> bool:
    """Add a line of a table. Returns False if it ends there."""
    if line.startswith(("|===", ",===")):
        _adoc_cells(lines, cells)
        lines.flush()
        return False
    if not line.strip():
        _adoc_cells(lines, cells)
        return True
    before, bar, rest = line.partition("|")
    if bar and len(before) < 12:
        # A line with several cells is a row; cells on lines of their own are one up to the next blank line.
        found = [_adoc_inline(cell) for cell in rest.split("|")]
        if len(found) > 1:
            _adoc_cells(lines, cells)
            lines.held.append(joined(found))
        else:
            cells.extend(found)
    elif cells:
        cells[-1] += f" {_adoc_inline(line)}"
    else:
        lines.held.append(_adoc_inline(line))
    return True


def _adoc_cells(lines: _Lines, cells: list[str]) -> None:
    if cells:
        lines.held.append(joined(cells))
        cells.clear()


def _adoc_inline(text: str) -> str:
    text = _ADOC_IMAGE.sub(lambda image: image[1].partition(",")[0], text)
    text = _ADOC_LINK.sub(lambda link: link[1].removesuffix("^") or link[0].partition("[")[0], text)
    text = _ADOC_CROSS.sub(lambda cross: (cross[2] or cross[1]).strip(), text)
    return _ADOC_MARKS.sub(lambda marked: marked[2], text)


def read_org(data: bytes) -> WholeFile:
    """An Org document, its headings as sections. The title is that of `#+TITLE`, else its first heading.

    Links are given by their text, code blocks as they are. Drawers, settings, comments and plans are left out.
    """
    lines = _Lines(Blocks())
    block = ""
    drawer = False
    for line in decode(data).replace("\r\n", "\n").split("\n"):
        low = line.strip().lower()
        if block:
            if low == f"#+end_{block}":
                lines.flush()
                block = ""
            elif block != "comment":
                lines.held.append(line)
        elif drawer:
            drawer = low != ":end:" and not line.startswith("*")
            if not drawer and line.startswith("*"):  # it was never closed
                _org_heading(line, lines)
        elif low.startswith("#+begin_"):
            lines.flush()
            name = (low[8:].split() or [""])[0]
            # Quotes and the like are text.
            block = name if name in ("src", "example", "export", "comment", "verse") else ""
        elif _ORG_HEADING.fullmatch(line.rstrip()):
            _org_heading(line, lines)
        elif (keyword := _ORG_KEYWORD.fullmatch(line.strip())) is not None:
            _org_keyword(keyword[1].lower(), keyword[2], lines)
        elif _ORG_DRAWER.fullmatch(line):
            drawer = True
        else:
            _org_line(line, low, lines)
    lines.title = lines.title or lines.first
    return lines.done()


def _org_heading(line: str, lines: _Lines) -> None:
    found = _ORG_HEADING.fullmatch(line.rstrip())
    if found is None:
        return
    said = _org_inline(_ORG_TAGS.sub("", found[2][_length(_ORG_STATE.match(found[2])) :]))
    lines.heading(len(found[1]), said)
    lines.first = lines.first or flat(said)


def _length(found: re.Match[str] | None) -> int:
    return found.end() if found else 0


def _org_keyword(name: str, value: str, lines: _Lines) -> None:
    value = flat(value)
    if name == "title" and value:
        lines.heading(0, value)
        lines.title = lines.title or value
    elif name in ("author", "date", "language", "keywords") and value:
        lines.metadata[name] = value.strip("<>[]") if name == "date" else value
    elif name == "caption":
        lines.held.append(_org_inline(value))


def _org_line(line: str, low: str, lines: _Lines) -> None:
    if not low:
        lines.flush()
    elif low.startswith("|"):
        if not _ORG_RULE.fullmatch(line):
            lines.held.append(joined([_org_inline(cell) for cell in line.strip().strip("|").split("|")]))
    elif low.startswith(("#+", "# ")) or low == "#" or _ORG_PLANNED.fullmatch(line):
        return
    else:
        lines.held.append(_org_inline(line.removeprefix(": ")))


def _org_inline(text: str) -> str:
    return _ORG_LINK.sub(lambda link: link[2] or link[1], text)
