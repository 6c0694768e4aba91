"""Entities from files and from installed Python packages, as rows that a knowledge base takes.

Forms: JSONL of ours (`id, title, description, aliases, kind, world, lang, metadata`; `text` for `description`), BLINK's
(`text, idx, title, entity`), CSV or TSV with a header (aliases in a column are joined by `|`), a Wikipedia dump,
Wikidata's JSON, and the files of DICT servers.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from app.core.errors import InvalidInputError, NotFoundError
from indexer.readers.python_package import PythonSource
from indexer.readers.rows import decode, lines, open_bytes, read_bounded
from indexer.readers.wikipedia import wikipedia_entities

_MAX_ROW = 16 * 2**20
_MAX_FILE = 2**30
_OURS = ("id", "title", "description", "aliases", "kind", "world", "lang", "metadata")


def read_entities(path: Path) -> Iterator[object]:
    """The rows of a file, by its name. What is no row is given as it is, for the knowledge base to reject in its place.

    Raises NotFoundError, or InvalidInputError for an unknown form.
    """
    if not path.is_file():
        raise NotFoundError("no such file of entities", received=str(path))
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return _jsonl(path)
    if path.suffix in {".csv", ".tsv"}:
        return _table(path)
    if path.name.endswith((".xml", ".xml.bz2", ".xml.gz")):
        props = sorted(path.parent.glob("*page_props.sql*"))
        return iter(wikipedia_entities(path, props[0] if props else None))
    if path.name.endswith((".json", ".json.gz", ".json.bz2")):
        return _wikidata(path)
    if path.suffix == ".index":
        return _dict(path)
    raise InvalidInputError(
        "unknown form of entities", received=path.name,
        expected=".jsonl[.gz], .csv, .tsv, .json[.gz] (Wikidata), .xml[.bz2] (Wikipedia) or .index (DICT)",
    )  # fmt: skip


def _wikidata(path: Path, lang: str = "en") -> Iterator[object]:
    """Wikidata's JSON dump: an array with an item on each line; those without a label in the language are left out."""
    with bz2.open(path) if path.suffix == ".bz2" else open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            item = line.strip().rstrip(b",")
            if item in {b"", b"[", b"]"}:
                continue
            try:
                row = orjson.loads(item)
                label = row["labels"].get(lang)
                if label is None:
                    continue
                yield {
                    "id": row["id"],
                    "title": label["value"],
                    "description": (row.get("descriptions") or {}).get(lang, {}).get("value", ""),
                    "aliases": [one["value"] for one in (row.get("aliases") or {}).get(lang, [])],
                    "lang": lang,
                }
            except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
                raise InvalidInputError(
                    f"{path.name}:{number} is not an item of Wikidata ({error!r})", received=item[:80]
                ) from None


_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def _number(digits: str) -> int:
    value = 0
    for one in digits:
        value = value * 64 + _BASE64.index(one)
    return value


def _dict(path: Path) -> Iterator[object]:
    """A dictionary in DICT's files (RFC 2229): `NAME.index` beside `NAME.dict` or `NAME.dict.dz`."""
    plain, packed = path.with_suffix(".dict"), path.with_suffix(".dict.dz")
    if plain.is_file():
        data = read_bounded(plain, _MAX_FILE)
    elif packed.is_file():
        with gzip.open(packed) as file:  # dictzip is gzip with an index of its own
            data = file.read(_MAX_FILE)
    else:
        raise NotFoundError("no such file", received=str(plain))
    entries: dict[tuple[int, int], list[str]] = {}
    for number, line in enumerate(decode(read_bounded(path, _MAX_FILE)).splitlines(), 1):
        try:
            word, offset, length = line.split("\t")[:3]
            place = (_number(offset), _number(length))
        except ValueError:
            raise InvalidInputError(
                f"{path.name}:{number} is not a row of an index", received=line[:80], expected="word, offset, length"
            ) from None
        if not word.startswith(("00-database", "00database")):
            entries.setdefault(place, []).append(word)
    for (start, size), words in entries.items():
        text = data[start : start + size].decode("utf-8", "replace")
        yield {
            "id": f"{path.stem}:{start}",
            "title": words[0],
            "aliases": words[1:],
            "description": re.sub(r"\s+", " ", text).strip(),
            "world": path.stem,
        }


def _jsonl(path: Path) -> Iterator[object]:
    for number, line in lines(path, _MAX_ROW):
        if not isinstance(line, bytes):
            raise line
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            raise InvalidInputError(
                f"{path.name}:{number} is not JSON", received=line[:80], expected="an object"
            ) from None
        yield normalised(row) if isinstance(row, Mapping) else row


def normalised(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of any known form as one of ours.

    >>> normalised({"text": "A language.", "idx": "url/wiki?curid=12", "title": "Lisp", "entity": "Lisp"})
    {'id': 'url/wiki?curid=12', 'title': 'Lisp', 'description': 'A language.'}
    """
    found = {name: row[name] for name in _OURS if name in row}
    if "id" not in found and "idx" in row:
        found = {"id": row["idx"], **found}
    if "description" not in found and "text" in row:
        found["description"] = row["text"]
    if not found.get("title") and row.get("entity"):
        found["title"] = row["entity"]
    if isinstance(found.get("id"), int):
        found["id"] = str(found["id"])
    return found


def _table(path: Path) -> Iterator[object]:
    text = decode(read_bounded(path, _MAX_FILE))
    reader = csv.DictReader(io.StringIO(text), delimiter="\t" if path.suffix == ".tsv" else ",")
    if not reader.fieldnames or "title" not in reader.fieldnames:
        raise InvalidInputError("no title column", received=reader.fieldnames, expected="a header with id and title")
    for row in reader:
        made = normalised({key: value for key, value in row.items() if key and value})
        aliases = made.get("aliases")
        if isinstance(aliases, str):
            made["aliases"] = [one.strip() for one in aliases.split("|") if one.strip()]
        made.pop("metadata", None)
        yield made


_IMPORTED_AS = {
    "datetime": ("dt",),
    "multiprocessing": ("mp",),
    "subprocess": ("sp",),
    "xml.etree.ElementTree": ("ET",),
    "collections": ("c",),
    "tkinter": ("tk",),
    "unittest.mock": ("mock",),
    "concurrent.futures": ("futures",),
}
_PUBLIC = {
    "posixpath": "os.path",
    "_pydatetime": "datetime",
    "_pydecimal": "decimal",
    "_pyio": "io",
    "genericpath": "os.path",
}
_CALLABLE = {"class", "function", "method"}


def python_entities(name: str) -> Iterator[object]:
    """The API of an installed package: modules, classes, functions, methods.

    Aliases are short names, dotted tails, names without inner modules (`asyncio.run` for `asyncio.runners.run`) and the
    names that modules are usually imported as.
    """
    for item in PythonSource(name, undocumented=True).items():
        document = item.document
        if document is None or document.metadata.get("kind") not in {*_CALLABLE, "module", "property"}:
            continue
        kind, module = str(document.metadata["kind"]), str(document.metadata["module"])
        if kind in {"method", "property"} and "\n\n" not in document.text:
            continue  # nothing but a signature: modules, classes and functions are worth a name, methods too many
        yield {
            "id": document.id,
            "title": document.title,
            "description": re.sub(r"\s+", " ", document.text).strip(),
            "aliases": _python_aliases(document.title, module, kind),
            "kind": kind,
            "world": str(document.metadata["package"]),
            "lang": "en",
            "metadata": {"module": module},
        }


def _python_aliases(title: str, module: str, kind: str) -> list[str]:
    parts = title.split(".")
    own = title.removeprefix(f"{module}.").split(".") if module != title else []
    found = [parts[-1]]
    found += [".".join(parts[at:]) for at in range(1, len(parts) - 1)]
    if own and module.count("."):
        found += [".".join([*module.split(".")[:depth], *own]) for depth in range(1, module.count(".") + 1)]
    public = _PUBLIC.get(module)
    if public:
        found.append(".".join([public, *own]))
    found += _IMPORTED_AS.get(title, ())
    if kind in {"function", "method"}:
        found.append(f"{parts[-1]}()")
    return [one for one in dict.fromkeys(found) if one != title]
