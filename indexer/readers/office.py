"""Reads Word documents (.docx, .docm) and PowerPoint presentations (.pptx, .pptm).

The parts are read as XML, not by a library's objects: so documents with macros, in strict form or with parts missing
are read too, and text boxes, content controls and notes keep their places.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hyblink.indexer.readers.blocks import Blocks, given_title, joined, reading
from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.packed import Package, attribute, local, relation_id

_HEADING = re.compile(r"heading ([1-9])")
_CONTENTS = re.compile(r"toc \d|table of figures")
_DELETED = frozenset(("del", "moveFrom", "Fallback", "instrText", "delText", "rPr", "pPr", "tblPr", "rt"))
"""Elements whose text is not in the document as it is shown."""
_SIGNS = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_NOT_SAID = frozenset(("dt", "ftr", "hdr", "sldNum", "sldImg"))
"""Kinds of placeholders on a slide that are the same on all."""
_TITLES = frozenset(("title", "ctrTitle"))
_BODY_LEVEL = 9


@dataclass(frozen=True, slots=True)
class _Style:
    level: int | None = None
    listed: bool = False
    contents: bool = False


@dataclass(slots=True)
class _Text:
    """The text of a paragraph, and what hangs on it: text boxes, and the ids of its notes."""

    said: list[str] = field(default_factory=list)
    boxes: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_docx(data: bytes) -> WholeFile:
    """The text of a Word document, its headings as sections. Raises InvalidInputError.

    Tables, lists, text boxes and notes stand where they are used. Headers, footers, comments, deleted text and the
    table of contents are left out.
    """
    with reading("Word"):
        package = Package(data, "Word")
        main = package.main()
        body = package.tree(main)
        blocks = Blocks()
        reader = _Word(package, main, blocks)
        for part in body:
            if local(part) == "body":
                reader.walk(part)
        reader.end_list()
        found = package.core()
        return blocks.done(given_title(found.pop("title", ""), reader.title), found)


class _Word:
    def __init__(self, package: Package, main: str, blocks: Blocks) -> None:
        self.title = ""
        self._blocks = blocks
        self._styles = _styles(package, main)
        self._notes: dict[str, Any] = {}
        self._items: list[str] = []
        for kind in ("footnotes", "endnotes"):
            for name in package.related(main, kind):
                self._notes |= {kind[:-1] + attribute(note, "id"): note for note in package.tree(name)}

    def walk(self, parent: Any) -> None:
        """Add the paragraphs and tables in an element."""
        for element in parent:
            name = local(element)
            if name == "p":
                self._paragraph(element)
            elif name == "tbl":
                self._table(element)
            elif name not in _DELETED:
                self.walk(element)

    def end_list(self) -> None:
        """Add the items of the list so far as one block."""
        self._blocks.add("\n".join(self._items))
        self._items.clear()

    def _paragraph(self, element: Any) -> None:
        style = _style_of(element, self._styles)
        if style.contents:
            return
        text = _Text()
        _collect(element, text)
        said = "".join(text.said).strip()
        if said and style.listed and style.level is None:
            self._items.append("- " + said)
        elif said:
            self.end_list()
            if style.level is None:
                self._blocks.add(said)
            else:
                self._blocks.heading(style.level, said)
                if style.level <= 1:
                    self.title = self.title or said
        self._hanging(text)

    def _hanging(self, text: _Text) -> None:
        if not text.boxes and not text.notes:
            return
        self.end_list()
        for box in text.boxes:
            self.walk(box)
        for name in text.notes:
            # Each note once, or two notes that refer to each other would never end.
            note = self._notes.pop(name, None)
            if note is not None:
                self.walk(note)
        self.end_list()

    def _table(self, table: Any) -> None:
        self.end_list()
        text = _Text()
        self._blocks.add("\n".join(row for row in _rows(table, text) if row))
        self._hanging(text)


def _rows(table: Any, text: _Text) -> Iterator[str]:
    """The rows of a table as lines. A table in a cell is part of the cell's text."""
    for row in _children(table, "tr"):
        cells = []
        for cell in _children(row, "tc"):
            within = _Text(boxes=text.boxes, notes=text.notes)
            for paragraph in cell.iter():
                # Only those of the cell itself: its text boxes are added after the table.
                if local(paragraph) == "p" and not _in_box(paragraph, cell):
                    _collect(paragraph, within)
                    within.said.append(" ")
            cells.append("".join(within.said))
        yield joined(cells)


def _in_box(element: Any, top: Any) -> bool:
    for parent in element.iterancestors():
        if parent is top:
            return False
        if local(parent) in ("txbxContent", "Fallback"):
            return True
    return False


def _children(parent: Any, wanted: str) -> Iterator[Any]:
    """The nearest elements under `parent` of this name: content controls may stand between."""
    for element in parent:
        if local(element) == wanted:
            yield element
        elif local(element) not in _DELETED:
            yield from _children(element, wanted)


def _collect(element: Any, text: _Text) -> None:
    for child in element:
        name = local(child)
        if name == "t":
            text.said.append(child.text or "")
        elif name in _SIGNS:
            text.said.append(_SIGNS[name])
        elif name == "txbxContent":
            text.boxes.append(child)
        elif name in ("footnoteReference", "endnoteReference"):
            text.notes.append(name.removesuffix("Reference") + attribute(child, "id"))
        elif name not in _DELETED:
            _collect(child, text)


def _styles(package: Package, main: str) -> dict[str, _Style]:
    """Style id to what it says of its paragraphs, with what it inherits. `""` is for paragraphs without a style."""
    raw: dict[str, tuple[_Style, str]] = {}
    for part in package.related(main, "styles"):
        for element in package.tree(part):
            if local(element) != "style" or attribute(element, "type") not in ("paragraph", ""):
                continue
            parts = {local(child): child for child in element}
            # The names of the styles that come with Word are English in every language; only their ids are not.
            name = attribute(parts["name"], "val").lower() if "name" in parts else ""
            heading = _HEADING.fullmatch(name)
            own = _own(parts["pPr"]) if "pPr" in parts else _Style()
            level = 0 if name == "title" else int(heading[1]) if heading else own.level
            base = attribute(parts["basedOn"], "val") if "basedOn" in parts else ""
            listed = own.listed or (name.startswith("list ") and name != "list paragraph")
            raw[attribute(element, "styleId")] = (_Style(level, listed, _CONTENTS.fullmatch(name) is not None), base)
    return {name: _inherited(name, raw) for name in raw}


def _inherited(name: str, raw: dict[str, tuple[_Style, str]]) -> _Style:
    style = _Style()
    for _ in range(10):  # styles may be based on each other in a circle
        if name not in raw:
            break
        own, name = raw[name]
        level = own.level if style.level is None else style.level
        style = _Style(level, style.listed or own.listed, style.contents or own.contents)
    return style if style.level != _BODY_LEVEL + 1 else _Style(None, style.listed, style.contents)


def _own(properties: Any) -> _Style:
    level, listed = None, False
    for child in properties:
        if local(child) == "outlineLvl":
            value = attribute(child, "val")
            level = int(value) + 1 if value.isdecimal() else None
        listed = listed or local(child) == "numPr"
    return _Style(level, listed)


def _style_of(paragraph: Any, styles: dict[str, _Style]) -> _Style:
    for properties in paragraph:
        if local(properties) == "pPr":
            named = next((attribute(child, "val") for child in properties if local(child) == "pStyle"), "")
            style, own = styles.get(named, _Style()), _own(properties)
            level = style.level if own.level is None else None if own.level > _BODY_LEVEL else own.level
            return _Style(level, own.listed or style.listed, style.contents)
    return _Style()


def read_pptx(data: bytes) -> WholeFile:
    """The text of a PowerPoint presentation, its slides as sections, with their notes. Raises InvalidInputError.

    Page numbers, dates and footers are left out, and so are charts and pictures.
    """
    with reading("PowerPoint"):
        package = Package(data, "PowerPoint")
        main = package.main()
        relations = package.relations(main)
        slides = [element for element in package.tree(main).iter() if local(element) == "sldId"]
        names = [relations.get(relation_id(slide), ("", ""))[1] for slide in slides]
        blocks = Blocks()
        title = ""
        seen: set[str] = set()
        for number, name in enumerate(names, 1):
            if name and name not in seen:
                seen.add(name)
                blocks.place(f"slide {number}")
                said = _slide(package, name, blocks)
                title = title or said
        found = package.core()
        return blocks.done(given_title(found.pop("title", ""), title), found)


def _slide(package: Package, name: str, blocks: Blocks) -> str:
    """Add a slide. Returns its title."""
    shapes = [(_placeholder(shape), shape) for shape in _shapes(package.tree(name))]
    title = " ".join(_said(shape) for kind, shape in shapes if kind in _TITLES)
    blocks.heading(1, title)
    for kind, shape in shapes:
        if kind not in _TITLES and kind not in _NOT_SAID:
            blocks.add(_said(shape))
    for data in package.related(name, "diagramData"):
        blocks.add(_said(package.tree(data)))
    for notes in package.related(name, "notesSlide"):
        for shape in _shapes(package.tree(notes)):
            if _placeholder(shape) not in _NOT_SAID:
                blocks.add(_said(shape))
    return title


def _shapes(parent: Any) -> Iterator[Any]:
    """The shapes and tables of a slide in their order, those in groups too."""
    for element in parent:
        if local(element) in ("sp", "graphicFrame"):
            yield element
        elif local(element) != "Fallback":
            yield from _shapes(element)


def _placeholder(shape: Any) -> str:
    for element in shape.iter():
        if local(element) == "ph":
            return attribute(element, "type") or "body"
        if local(element) in ("spPr", "txBody"):
            break
    return ""


def _said(shape: Any) -> str:
    """The paragraphs of a shape as lines, or the rows of its table."""
    rows = [element for element in shape.iter() if local(element) == "tr"]
    lines = [joined([" ".join(_paragraphs(cell)) for cell in row if local(cell) == "tc"]) for row in rows]
    return "\n".join(line for line in (lines if rows else _paragraphs(shape)) if line)


def _paragraphs(parent: Any) -> list[str]:
    found = []
    for paragraph in parent.iter():
        if local(paragraph) == "p":
            text = _Text()
            _collect(paragraph, text)
            found.append("".join(text.said).strip())
    return [line for line in found if line]
