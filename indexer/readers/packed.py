"""Opens formats that are zip archives of XML parts, with guards against bombs, encryption and XML entities."""

from __future__ import annotations

import io
import posixpath
import zipfile
from typing import Any
from urllib.parse import unquote

from hyblink.app.core.errors import InvalidInputError
from hyblink.indexer.readers.blocks import flat

_MOST = 512 * 2**20
_SMALL = 64 * 2**20
_RATIO = 200
_PROGRAMS = ("python-docx", "openpyxl", "Unknown", "Apache POI")
_OLE = b"\xd0\xcf\x11\xe0"


def local(element: Any) -> str:
    """The name of an XML element without its namespace. Empty for comments and the like."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def attribute(element: Any, name: str) -> str:
    """The value of the attribute with this name in any namespace, or an empty string."""
    plain = element.get(name)
    if plain is not None:
        return str(plain)
    return next((str(value) for key, value in element.attrib.items() if key.rpartition("}")[2] == name), "")


def relation_id(element: Any) -> str:
    """The id of the relation that an element of an Office part refers to. It may have a plain `id` besides."""
    return next((str(value) for key, value in element.attrib.items() if key.endswith("}id")), "")


def encrypted(kind: str) -> InvalidInputError:
    """The error for a file that cannot be read without a password."""
    return InvalidInputError(f"the {kind} file is encrypted", expected="a file without a password")


def xml(data: bytes, kind: str) -> Any:
    """The root element (lxml) of an XML part. Raises InvalidInputError if it is broken or declares entities.

    Entities are not resolved and nothing is fetched.
    """
    from lxml import etree  # type: ignore[import-untyped]

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True)
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise InvalidInputError(f"the {kind} file has a broken XML part: {error}", expected="valid XML") from error
    dtd = root.getroottree().docinfo.internalDTD
    if dtd is not None and next(iter(dtd.iterentities()), None) is not None:
        raise InvalidInputError(f"the {kind} file declares XML entities", expected="XML without entities")
    return root


class Package:
    """A zip archive of parts. Raises InvalidInputError if it is broken, encrypted or a bomb."""

    def __init__(self, data: bytes, kind: str) -> None:
        self.kind = kind
        if data.startswith(_OLE):
            if "EncryptedPackage".encode("utf-16-le") in data:
                raise encrypted(kind)
            raise InvalidInputError(f"not a {kind} file but an older Office format", expected=f"a {kind} file")
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
            entries = self._zip.infolist()
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
            raise InvalidInputError(
                f"not a {kind} file: {error}", received=data[:8], expected=f"a whole {kind} file"
            ) from error
        # An entry yields no more than the size that the directory states for it.
        total = sum(entry.file_size for entry in entries)
        if total > _MOST or (total > _SMALL and total > _RATIO * len(data)):
            raise InvalidInputError(
                f"the {kind} file is a decompression bomb: {len(data)} bytes unpack to {total}",
                expected=f"at most {_MOST} bytes unpacked",
            )
        if any(entry.flag_bits & 1 for entry in entries):
            raise encrypted(kind)
        self._names = {entry.filename.lower(): entry.filename for entry in entries}

    def has(self, name: str) -> bool:
        """True if there is such a part."""
        return name.lower() in self._names

    def part(self, name: str) -> bytes:
        """The bytes of a part. Raises InvalidInputError if it is missing or broken."""
        try:
            return self._zip.read(self._names[name.lower()])
        except KeyError as error:
            raise InvalidInputError(f"the {self.kind} file has no part {name}", expected="all its parts") from error
        except Exception as error:  # zlib.error, EOFError, BadZipFile, NotImplementedError, …
            raise InvalidInputError(f"the {self.kind} file has a broken part {name}: {error}") from error

    def tree(self, name: str) -> Any:
        """The root element of an XML part. Raises InvalidInputError."""
        return xml(self.part(name), self.kind)

    def relations(self, name: str) -> dict[str, tuple[str, str]]:
        """Of an Office part (`""`: of the package): id to (kind, name of the part). Links to outside are left out."""
        folder, base = posixpath.split(name)
        rels = posixpath.join(folder, "_rels", f"{base}.rels")
        found: dict[str, tuple[str, str]] = {}
        if not self.has(rels):
            return found
        for relation in self.tree(rels):
            if attribute(relation, "TargetMode") == "External":
                continue
            target = within(folder, attribute(relation, "Target"))
            if target and self.has(target):
                found[attribute(relation, "Id")] = (attribute(relation, "Type").rpartition("/")[2], target)
        return found

    def related(self, name: str, kind: str) -> list[str]:
        """The names of the parts that stand in this relation to an Office part."""
        return [target for what, target in self.relations(name).values() if what == kind]

    def main(self) -> str:
        """The name of the main part of an Office file. Raises InvalidInputError if there is none."""
        found = self.related("", "officeDocument")
        if not found:
            raise InvalidInputError(f"not a {self.kind} file: it names no main part", expected=f"a {self.kind} file")
        return found[0]

    def core(self) -> dict[str, Any]:
        """What an Office file says about itself: title, author, subject, keywords, language and created, where said."""
        names = {"title": "title", "creator": "author", "subject": "subject", "keywords": "keywords",
                 "language": "language", "created": "created"}  # fmt: skip
        found: dict[str, Any] = {}
        for part in self.related("", "core-properties"):
            for element in self.tree(part):
                text = flat(element.text or "")
                if text and local(element) in names:
                    found[names[local(element)]] = text
        return described(found)


def described(found: dict[str, Any]) -> dict[str, Any]:
    """The metadata with its date as an ISO date and its keywords as a list. Programs are no authors."""
    if found.get("author") in _PROGRAMS:
        del found["author"]
    if "created" in found:
        found["created"] = found["created"][:10]
    if isinstance(found.get("keywords"), str):
        words = found["keywords"].replace(";", ",").split(",")
        found["keywords"] = [word.strip() for word in words if word.strip()]
    return found


def within(folder: str, link: str) -> str:
    """The name of the entry that `link` in `folder` leads to. Empty if it leads out of the archive."""
    path = unquote(link.partition("#")[0])
    if not path or "://" in path or "\\" in path:
        return ""
    # A path that climbs too high begins with `..` then; from `/` it would end at the root.
    name = posixpath.normpath(path.lstrip("/") if path.startswith("/") else posixpath.join(folder, path))
    return "" if name == ".." or name.startswith("../") else name
