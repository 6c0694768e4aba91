"""Reads files whose text is their content: notes, logs, source code, configuration."""

from __future__ import annotations

from hyblink.indexer.readers.blocks import clean
from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.front_matter import split_front_matter
from hyblink.indexer.readers.rows import decode


def read(data: bytes) -> WholeFile:
    """The text of a file in any encoding, without a title. Raises InvalidInputError for broken UTF-8."""
    return WholeFile("", clean(decode(data)))


def read_code(data: bytes) -> WholeFile:
    """Source code or configuration, as it stands there, without a title."""
    return WholeFile("", decode(data).replace("\r\n", "\n").replace("\x00", "").strip("\n"))


def read_yaml(data: bytes) -> WholeFile:
    """A YAML or TOML file: its text; a `title` or `name` at its top as the title."""
    text = decode(data).replace("\r\n", "\n").strip("\n")
    fields, _ = split_front_matter(f"---\n{text}\n---\n" if not text.startswith("---") else f"{text}\n---\n")
    title = next((fields[key] for key in ("title", "name") if isinstance(fields.get(key), str)), "")
    return WholeFile(title, text)


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
    lines = [" ".join(text.split()) for text in root.itertext()]
    titles = (element.text for element in root.iter() if str(element.tag).rpartition("}")[2] == "title")
    return WholeFile((next(titles, "") or "").strip()[:4096], clean("\n".join(filter(None, lines))))
