"""Reads electronic books (.epub)."""

from __future__ import annotations

import posixpath
from typing import Any

from hyblink.app.core.errors import InvalidInputError
from hyblink.indexer.readers.blocks import Blocks, flat, given_title, reading
from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.htmlblocks import add_page, page
from hyblink.indexer.readers.packed import Package, attribute, encrypted, local, within
from hyblink.indexer.readers.rows import decode

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PAGES = frozenset(("application/xhtml+xml", "text/html", "application/xml", "text/xml", ""))
_FIELDS = {"title": "title", "creator": "author", "language": "language", "date": "created", "publisher": "publisher",
           "subject": "keywords"}  # fmt: skip


def read_epub(data: bytes) -> WholeFile:
    """The text of a book in reading order, its headings as sections. Raises InvalidInputError, also if it is encrypted.

    Pages that are missing, or outside the archive, are passed over. Images are given by their descriptions.
    """
    with reading("EPUB"):
        package = Package(data, "EPUB")
        opf = _opf(package)
        tree = package.tree(opf)
        locked = _locked(package)
        blocks = Blocks()
        for name in _spine(package, opf, tree):
            if name in locked:
                raise encrypted("EPUB")
            root = page(_decoded(package.part(name)))
            if root is not None:
                blocks.place("", keep_headings=False)
                add_page(blocks, root)
        found = _metadata(tree)
        return blocks.done(given_title(found.pop("title", "")), found)


def _opf(package: Package) -> str:
    for element in package.tree(_CONTAINER).iter():
        name = within("", attribute(element, "full-path")) if local(element) == "rootfile" else ""
        if name and package.has(name):
            return name
    raise InvalidInputError("not an EPUB file: it names no package document", expected="a whole EPUB file")


def _locked(package: Package) -> frozenset[str]:
    """The entries that are encrypted. Fonts often are, by a method that is open."""
    if not package.has(_ENCRYPTION):
        return frozenset()
    parts = package.tree(_ENCRYPTION).iter()
    return frozenset(within("", attribute(part, "URI")) for part in parts if local(part) == "CipherReference")


def _spine(package: Package, opf: str, tree: Any) -> list[str]:
    """The names of the pages in reading order, each once."""
    items: dict[str, str] = {}
    order: dict[str, None] = {}
    folder = posixpath.dirname(opf)
    for element in tree.iter():
        if local(element) == "item" and attribute(element, "media-type") in _PAGES:
            items[attribute(element, "id")] = within(folder, attribute(element, "href"))
        elif local(element) == "itemref":
            order[attribute(element, "idref")] = None
    names = dict.fromkeys(items.get(key, "") for key in order)
    return [name for name in names if name and package.has(name)]


def _decoded(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return decode(data)
    except InvalidInputError:
        return data.decode("utf-8", "replace")


def _metadata(tree: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in tree:
        for element in part.iter() if local(part) == "metadata" else ():
            key, text = _FIELDS.get(local(element), ""), flat(element.text or "")
            if not key or not text:
                continue
            if key == "keywords":
                found.setdefault(key, []).append(text)
            elif key == "author" and key in found:
                found[key] += f", {text}"
            else:
                found.setdefault(key, text[:10] if key == "created" else text)
    return found
