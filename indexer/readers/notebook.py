"""Reads Jupyter notebooks (.ipynb)."""

from __future__ import annotations

import json
import re
from typing import Any

from hyblink.app.core.errors import InvalidInputError
from hyblink.indexer.readers.blocks import Blocks, reading
from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.rows import decode

_LONGEST_OUTPUT = 10_000
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?")
_CLOSING = re.compile(r"(?<!#)(?<=[ \t])#+$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*")
_COLOUR = re.compile(r"\x1b\[[0-9;?]{0,20}[A-Za-z]")
_EMBEDDED = re.compile(r"data:[a-z]+/[a-z0-9.+-]+;base64,[A-Za-z0-9+/=]+")


def read_ipynb(data: bytes) -> WholeFile:
    """The cells of a notebook: its text, code and text outputs. Raises InvalidInputError.

    Each cell is a section, and so is each heading in one. Images and other outputs are left out.
    """
    with reading("notebook"):
        try:
            book = json.loads(decode(data))
        except (json.JSONDecodeError, RecursionError) as error:
            raise InvalidInputError(f"not a notebook: {error}", expected="JSON with cells") from error
        cells = _cells(book)
        blocks = Blocks()
        title = ""
        for count, cell in enumerate(cells, 1):
            if not isinstance(cell, dict):
                continue
            blocks.place(f"cell {count}", keep_headings=True)
            source = _joined(cell.get("source", cell.get("input")))
            kind = cell.get("cell_type")
            if kind == "heading":  # of version 3
                level = cell.get("level")
                blocks.heading(level if isinstance(level, int) else 1, source)
            elif kind == "markdown":
                top = add_markdown(blocks, source)
                title = title or top
            else:
                blocks.add(source)
                _outputs(blocks, cell.get("outputs"))
        return blocks.done(title, {"language": _language(book)})


def _cells(book: Any) -> list[Any]:
    if isinstance(book, dict):
        cells = book.get("cells")
        if isinstance(cells, list):
            return cells
        sheets = book.get("worksheets")
        if isinstance(sheets, list):
            inner = [sheet.get("cells") for sheet in sheets if isinstance(sheet, dict)]
            return [cell for part in inner if isinstance(part, list) for cell in part]
    raise InvalidInputError("not a notebook: it has no cells", expected="JSON with cells")


def _language(book: dict[str, Any]) -> str:
    metadata = book.get("metadata")
    if isinstance(metadata, dict):
        for part, key in (("kernelspec", "language"), ("language_info", "name")):
            found = metadata.get(part)
            if isinstance(found, dict) and isinstance(found.get(key), str):
                return str(found[key])
    return ""


def _joined(source: Any) -> str:
    """A text, which notebooks hold whole or as a list of lines."""
    if isinstance(source, list):
        return "".join(line for line in source if isinstance(line, str))
    return source if isinstance(source, str) else ""


def _outputs(blocks: Blocks, outputs: Any) -> None:
    for output in outputs if isinstance(outputs, list) else ():
        if not isinstance(output, dict):
            continue
        held = output.get("data", output)
        text = _joined(held.get("text/plain")) if isinstance(held, dict) else ""
        text = text or _joined(output.get("text"))
        if output.get("output_type") in ("error", "pyerr"):
            text = f"{output.get('ename', '')}: {output.get('evalue', '')}"
        if text.startswith("<") and text.rstrip().endswith(">") and "\n" not in text.strip():
            continue  # what stands for a picture or a table that is left out, such as <Figure size 640x480>
        blocks.add(_COLOUR.sub("", text[:_LONGEST_OUTPUT]))


def add_markdown(blocks: Blocks, source: str) -> str:
    """Add Markdown text, its headings as sections. Returns the first heading of level 1, or an empty string."""
    title, fence = "", ""
    held: list[str] = []

    def flush() -> None:
        blocks.add("\n".join(held))
        held.clear()

    for line in _EMBEDDED.sub("", source).replace("\r\n", "\n").split("\n"):
        marked = _FENCE.match(line)
        if marked and (not fence or marked[1].startswith(fence)):
            fence = "" if fence else marked[1]
        heading = None if fence or marked else _HEADING.fullmatch(line.rstrip())
        level, said = (len(heading[1]), _CLOSING.sub("", heading[2] or "").strip()) if heading else (0, "")
        underline = None if fence or marked or not held else _UNDERLINE.fullmatch(line)
        # A line under a paragraph of one line makes that a heading.
        if underline and held[-1].strip() and (len(held) == 1 or not held[-2].strip()):
            level, said = (1 if underline[1][0] == "=" else 2), held.pop().strip()
        if not level:
            held.append(line)
            continue
        flush()
        blocks.heading(level, said)
        title = title or (said if level == 1 else "")
    flush()
    return title
