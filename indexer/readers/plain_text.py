"""Reads files whose text is their content: notes, logs, source code, configuration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hyblink.app.core.types.documents import Section
from hyblink.indexer.readers.blocks import clean
from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.front_matter import split_front_matter
from hyblink.indexer.readers.rows import decode


def read(data: bytes) -> WholeFile:
    """The text of a file in any encoding, without a title. Raises InvalidInputError for broken UTF-8."""
    text = decode(data)
    return WholeFile("", clean(text), {}, (Section(0, (), f"line {_first_line(text)}"),))


def _first_line(text: str) -> int:
    """The number of the first line that is not blank, from 1."""
    return 1 + text.count("\n", 0, len(text) - len(text.lstrip()))


def read_code(data: bytes) -> WholeFile:
    """Source code or configuration, as it stands there, without a title."""
    text = decode(data).replace("\r\n", "\n").replace("\x00", "")
    return WholeFile("", text.strip("\n"), {}, (Section(0, (), f"line {_first_line(text)}"),))


def read_yaml(data: bytes) -> WholeFile:
    """A YAML or TOML file: its text; a `title` or `name` at its top as the title."""
    text = decode(data).replace("\r\n", "\n").strip("\n")
    fields, _ = split_front_matter(f"---\n{text}\n---\n" if not text.startswith("---") else f"{text}\n---\n")
    title = next((fields[key] for key in ("title", "name") if isinstance(fields.get(key), str)), "")
    return WholeFile(title, text)


def _texts(root: Any) -> Iterator[str]:
    """Yield the texts of an element and of those in it, but not scripts, styles and the fonts in them."""
    stack: list[Any] = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            yield node
        elif isinstance(node.tag, str) and node.tag.rpartition("}")[2].lower() not in ("style", "script"):
            if node.text:
                yield node.text
            for child in reversed(node):
                stack += [child.tail, child] if child.tail else [child]


def read_xml(data: bytes) -> WholeFile:
    """The text of an XML file, a line for each element that has some; its first `title` as the title.

    Raises InvalidInputError if it is broken or defines entities.
    """
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    from hyblink.app.core.errors import InvalidInputError

    try:
        root = fromstring(data)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise InvalidInputError(
            f"the XML cannot be read: {error}", expected="well-formed XML without entities"
        ) from error
    lines = [" ".join(text.split()) for text in _texts(root)]
    titles = (element.text for element in root.iter() if str(element.tag).rpartition("}")[2] == "title")
    return WholeFile((next(titles, "") or "").strip()[:4096], clean("\n".join(filter(None, lines))))
