"""Reads OpenDocument files: texts (.odt), presentations (.odp) and spreadsheets (.ods)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hyblink.indexer.readers.blocks import Blocks, flat, given_title, joined, reading
from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.packed import Package, attribute, described, encrypted, local, xml
from hyblink.indexer.readers.sheets import add_sheet, number

_MANIFEST = "META-INF/manifest.xml"
_LEFT_OUT = frozenset(
    (
        "annotation", "tracked-changes", "table-of-content", "illustration-index", "table-index", "alphabetical-index",
        "forms", "sequence-decls", "variable-decls", "user-field-decls", "desc", "event-listeners", "binary-data",
    )
)  # fmt: skip
_ASIDE = frozenset(("note", "frame", "custom-shape", "rect", "text-box"))
"""Elements in a paragraph whose text comes after it."""
_MOST_REPEATED = 16
"""A cell or row with text that is repeated is given so many times at most."""
_FARTHEST = 1 << 20
_MOST_SPACES = 80
_TEXT_TITLE = ("Title", "Titel", "Titre")


def read_odf(data: bytes) -> WholeFile:
    """The text of an OpenDocument text, presentation or spreadsheet. Raises InvalidInputError.

    Sections are headings, slides or sheets. Notes and text boxes follow the paragraph that they hang on. Comments,
    deleted text and tables of contents are left out.
    """
    with reading("OpenDocument"):
        if data.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<"):  # a flat file: all parts are one
            content = meta = xml(data, "OpenDocument")
        else:
            package = Package(data, "OpenDocument")
            if package.has(_MANIFEST) and any(
                local(part) == "encryption-data" for part in package.tree(_MANIFEST).iter()
            ):
                raise encrypted("OpenDocument")
            content = package.tree("content.xml")
            meta = package.tree("meta.xml") if package.has("meta.xml") else ()
        reader = _Reader(Blocks())
        for body in content:
            if local(body) == "body":
                for part in body:
                    reader.content(part)
        found = _metadata(meta)
        return reader.blocks.done(given_title(found.pop("title", ""), reader.title), found)


def _metadata(parts: Any) -> dict[str, Any]:
    names = {"title": "title", "creator": "author", "initial-creator": "author", "subject": "subject",
             "keyword": "keywords", "language": "language", "creation-date": "created"}  # fmt: skip
    found: dict[str, Any] = {}
    for part in parts:
        for element in part.iter() if local(part) == "meta" else ():
            name, text = names.get(local(element), ""), flat(element.text or "")
            if not name or not text:
                continue
            if name == "keywords":
                found.setdefault(name, []).append(text)
            elif local(element) == "initial-creator" or name not in found:
                found[name] = text
    return described(found)


class _Reader:
    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self.title = ""

    def content(self, content: Any) -> None:
        """Add the body of a file of any kind."""
        kind = local(content)
        if kind == "spreadsheet":
            for table in content:
                if local(table) == "table":
                    add_sheet(self.blocks, attribute(table, "name"), _sheet_rows(table))
        elif kind == "presentation":
            pages = [page for page in content if local(page) == "page"]
            for count, page in enumerate(pages, 1):
                self._slide(count, page)
        else:
            self._walk(content)

    def _slide(self, count: int, page: Any) -> None:
        self.blocks.place(f"slide {count}")
        shapes = list(page)
        for shape in shapes:
            if attribute(shape, "class") == "title":
                said = " ".join(flat(_said(part, [])) for part in shape.iter() if local(part) in ("p", "h"))
                self.blocks.heading(1, said)
                self.title = self.title or said
        for shape in shapes:
            if local(shape) == "notes":
                for part in shape:
                    if attribute(part, "class") == "notes":
                        self._walk(part)
            elif attribute(shape, "class") not in ("title", "footer", "date-time", "page-number"):
                self._walk(shape)

    def _walk(self, parent: Any) -> None:
        for element in parent:
            name = local(element)
            if name == "h":
                level = attribute(element, "outline-level")
                self._paragraph(element, int(level) if level.isdecimal() else 1)
            elif name == "p":
                # Programs keep the document's title in a paragraph of this style, not in a heading.
                titled = attribute(element, "style-name") in _TEXT_TITLE
                self._paragraph(element, 0 if titled else None)
            elif name == "list":
                self._list(element)
            elif name == "table":
                asides: list[Any] = []
                rows = (joined(_table_row(row, asides)) for row, _ in _rows(element))
                self.blocks.add("\n".join(row for row in rows if row))
                self._hanging(asides)
            elif name not in _LEFT_OUT:
                self._walk(element)

    def _paragraph(self, element: Any, level: int | None) -> None:
        asides: list[Any] = []
        said = _said(element, asides).strip()
        if level is None:
            self.blocks.add(said)
        else:
            self.blocks.heading(level, said)
            if level <= 1:
                self.title = self.title or said
        self._hanging(asides)

    def _hanging(self, asides: list[Any]) -> None:
        for aside in asides:
            self._walk(aside)

    def _list(self, element: Any) -> None:
        lines: list[str] = []
        asides: list[Any] = []
        for item in element.iter():
            name = local(item)
            if name == "h" and not lines:  # numbered headings may stand in lists
                self._walk(item.getparent())
                return
            if name in ("p", "h"):
                said = _said(item, asides).strip()
                if said and not _within(item, element, _ASIDE):
                    lines.append("- " + said)
        self.blocks.add("\n".join(lines))
        self._hanging(asides)


def _within(element: Any, top: Any, names: frozenset[str]) -> bool:
    for parent in element.iterancestors():
        if parent is top:
            return False
        if local(parent) in names:
            return True
    return False


def _said(element: Any, asides: list[Any]) -> str:
    """The text of a paragraph. What stands aside of it (notes, text boxes) is added to `asides`."""
    said: list[str] = []
    _collect(element, said, asides)
    return "".join(said)


def _collect(element: Any, said: list[str], asides: list[Any]) -> None:
    said.append(_spaced(element.text))
    for child in element:
        name = local(child)
        if name == "s":
            count = attribute(child, "c")
            said.append(" " * min(int(count) if count.isdecimal() else 1, _MOST_SPACES))
        elif name == "tab":
            said.append("\t")
        elif name == "line-break":
            said.append("\n")
        elif name in _ASIDE:
            # Of a note only its body: its sign is a number.
            asides.extend([part for part in child if local(part) == "note-body"] if name == "note" else [child])
        elif name and name not in _LEFT_OUT:
            _collect(child, said, asides)
        said.append(_spaced(child.tail))


def _spaced(text: str | None) -> str:
    """The text with line breaks as blanks: in this format they are no more than that."""
    return (text or "").replace("\n", " ").replace("\r", " ").replace("\t", " ")


def _rows(table: Any) -> Iterator[tuple[Any, int]]:
    """The rows of a table with how often each is repeated. Groups of rows may be nested."""
    for element in table:
        name = local(element)
        if name == "table-row":
            yield element, _repeated(element, "number-rows-repeated")
        elif name in ("table-rows", "table-header-rows", "table-row-group"):
            yield from _rows(element)


def _repeated(element: Any, name: str) -> int:
    count = attribute(element, name)
    return max(1, int(count)) if count.isdecimal() and len(count) < 10 else 1


def _table_row(row: Any, asides: list[Any]) -> list[str]:
    return [
        " ".join(_said(part, asides) for part in cell.iter() if local(part) in ("p", "h"))
        for cell in row
        if local(cell) in ("table-cell", "covered-table-cell")
    ]


def _sheet_rows(table: Any) -> Iterator[dict[int, str]]:
    for row, times in _rows(table):
        cells: dict[int, str] = {}
        column = 0
        for cell in row:
            if local(cell) not in ("table-cell", "covered-table-cell"):
                continue
            repeated = _repeated(cell, "number-columns-repeated")
            text = _cell(cell)
            if text:
                cells.update(dict.fromkeys(range(column, column + min(repeated, _MOST_REPEATED)), text))
            # However large the numbers in the file are, a column stays a small number.
            column = min(column + repeated, _FARTHEST)
        # A row without text may be repeated a million times, to the end of the sheet.
        for _ in range(min(times, _MOST_REPEATED) if cells else 0):
            yield cells


def _cell(cell: Any) -> str:
    """The text of a cell: values of numbers and dates, so that it is the same in every language."""
    kind = attribute(cell, "value-type")
    if kind in ("float", "currency", "percentage"):
        try:
            value = float(attribute(cell, "value"))
            return number(value * 100) + "%" if kind == "percentage" else number(value)
        except (ValueError, OverflowError):
            pass
    if kind == "date":
        return attribute(cell, "date-value").removesuffix("T00:00:00")
    if kind == "boolean":
        return attribute(cell, "boolean-value").upper()
    # Not those of a comment on the cell.
    parts = [part for part in cell if local(part) in ("p", "h")]
    return " ".join(_said(part, []) for part in parts)
