"""Reads entities from files and installed Python packages, as rows that a knowledge base accepts.

Formats:

- JSONL with our own fields: `id, title, description, aliases, kind, world, lang, metadata`. `text` may stand for
  `description`.
- BLINK's JSONL: `text, idx, title, entity`.
- Zeshel's documents: `document_id, title, text`. Each file is one world.
- CSV or TSV with a header. Aliases are joined by `|` in one column. Unknown columns become metadata.
- A Wikipedia dump, Wikidata's JSON, and the files of DICT servers.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from hyblink.app.core.errors import InvalidInputError, NotFoundError, TooLargeError, UserError
from hyblink.indexer.readers.entities.dictd import dict_entities
from hyblink.indexer.readers.entities.wikidata import wikidata_entities
from hyblink.indexer.readers.entities.wikipedia import page_props_beside, wikipedia_entities
from hyblink.indexer.readers.python_package import PythonSource
from hyblink.indexer.readers.rows import decode, lines, open_packed

_MAX_ROW = 16 * 2**20
_OURS = ("id", "title", "description", "aliases", "kind", "world", "lang", "metadata")
_CURID = re.compile(r"[?&]curid=(\d+)\b")


def read_entities(path: Path, lang: str = "en") -> Iterator[object]:
    """Yield the entity rows of a file or of a Zeshel folder. The file name decides the format.

    Good rows are dicts. A JSON value that is not an object is yielded unchanged, and a row that cannot be parsed is
    yielded as the error, so that the knowledge base can reject it and report its place. None is yielded for items that
    are not entities, such as Wikidata lexemes.

    `lang` is the language of Wikidata labels. Raises NotFoundError if there is no such file, InvalidInputError for an
    unknown format or a broken file.
    """
    if (path / "documents").is_dir():
        return (row for file in sorted((path / "documents").glob("*.json")) for row in _zeshel(file))
    if not path.is_file():
        raise NotFoundError("no such file of entities", received=str(path))
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return _jsonl(path)
    if path.name.endswith((".csv", ".tsv", ".csv.gz", ".tsv.gz")):
        return _table(path)
    if path.name.endswith((".xml", ".xml.bz2", ".xml.gz")):
        return iter(wikipedia_entities(path, page_props_beside(path)))
    if path.name.endswith((".json", ".json.gz", ".json.bz2")):
        return _zeshel(path) if _is_zeshel(path) else _wikidata(path, lang)
    if path.suffix == ".index":
        return dict_entities(path)
    raise InvalidInputError(
        "unknown form of entities", received=path.name,
        expected=".jsonl, .csv, .tsv (each .gz too), .json[.gz|.bz2] (Wikidata, Zeshel), .xml[.bz2] (Wikipedia) or "
        ".index (DICT)",
    )  # fmt: skip


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Raise InvalidInputError instead of the errors of a broken compressed file."""
    try:
        yield
    except (EOFError, OSError) as error:
        raise InvalidInputError(f"{path.name} is broken: {error}", expected="a whole file") from error


def _wikidata(path: Path, lang: str) -> Iterator[object]:
    with _whole(path):
        yield from wikidata_entities(path, lang)


def _is_zeshel(path: Path) -> bool:
    with _whole(path), open_packed(path) as file:
        return b'"document_id"' in file.readline(_MAX_ROW)


def _zeshel(path: Path) -> Iterator[object]:
    world = path.name.partition(".")[0]
    for row in _jsonl(path):
        yield {**row, "world": world} if isinstance(row, Mapping) else row


def _jsonl(path: Path) -> Iterator[object]:
    for number, line in lines(path, _MAX_ROW):
        if not isinstance(line, bytes):
            if not isinstance(line, TooLargeError):
                raise line  # broken gzip: the rest of the file cannot be read
            yield line
            continue
        bare = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if not bare.strip():
            continue
        try:
            row = orjson.loads(bare)
        except orjson.JSONDecodeError as error:
            yield InvalidInputError(
                f"{path.name}:{number} is not JSON ({error})", received=line[:80], expected="an object"
            )
            continue
        yield normalised(row) if isinstance(row, Mapping) else row


def normalised(row: Mapping[str, Any]) -> dict[str, Any]:
    """Map a row of any known format to our field names.

    In BLINK's rows `idx` is the URL of a Wikipedia page. Its page number becomes the id. `kb_idx` is the Wikidata item.

    >>> normalised({"text": "A language.", "idx": "https://x/wiki?curid=12", "title": "Lisp", "kb_idx": "Q132874"})
    {'id': '12', 'title': 'Lisp', 'description': 'A language.', 'metadata': {'page': 12, 'wikidata': 'Q132874'}}
    """
    found = {name: row[name] for name in _OURS if name in row}
    if "id" not in found:
        given = row.get("idx", row.get("document_id"))
        page = _CURID.search(str(given))
        if given is not None:
            found = {"id": page.group(1) if page else given, **found}
        beside = {"page": int(page.group(1))} if page else {}
        beside |= {"wikidata": row["kb_idx"]} if isinstance(row.get("kb_idx"), str) and row["kb_idx"] else {}
        if beside and "metadata" not in found:
            found["metadata"] = beside
    if "description" not in found and "text" in row:
        found["description"] = row["text"]
    if not found.get("title") and row.get("entity"):
        found["title"] = row["entity"]
    if isinstance(found.get("id"), int) and not isinstance(found["id"], bool):
        found["id"] = str(found["id"])
    return {name: found[name] for name in _OURS if name in found}


def _table(path: Path) -> Iterator[object]:
    """Yield the rows of a CSV file (RFC 4180) or a TSV file. In TSV a quotation mark has no special meaning."""
    csv.field_size_limit(_MAX_ROW)
    tabs = path.name.removesuffix(".gz").endswith(".tsv")

    def text() -> Iterator[str]:
        for number, line in lines(path, _MAX_ROW):
            if not isinstance(line, bytes):
                raise line
            try:
                yield decode(line) + "\n"
            except UserError as error:
                raise InvalidInputError(f"{path.name}:{number}: {error}") from None

    reader = csv.reader(text(), delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(text(), strict=True)
    header: list[str] | None = None
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            yield InvalidInputError(
                f"{path.name}:{reader.line_num}: bad row: {error}", expected="fields as in RFC 4180"
            )
            continue
        if fields is None:
            break
        if header is None:
            header = [field.strip().lower() for field in fields]
            if not {"id", "title"} <= set(header):
                raise InvalidInputError(
                    "no column of ids or of titles", received=header, expected="a header with id and title"
                )
        elif any(fields):
            yield _of_columns(header, fields, f"{path.name}:{reader.line_num}")
    if header is None:
        raise InvalidInputError("the file is empty", received=path.name, expected="a header with id and title")


def _of_columns(header: list[str], fields: list[str], place: str) -> object:
    if len(fields) != len(header):
        return InvalidInputError(
            f"{place}: the row has another number of fields than the header", received=fields[:8],
            expected=f"{len(header)} fields",
        )  # fmt: skip
    row = {name: value for name, value in zip(header, fields, strict=True) if name and value}
    others = {name: row[name] for name in row if name not in {*_OURS, "text"}}
    made = normalised({name: value for name, value in row.items() if name != "metadata"})
    if "aliases" in made:
        made["aliases"] = [part.strip() for part in made["aliases"].split("|") if part.strip()]
    try:
        given = orjson.loads(row["metadata"]) if "metadata" in row else {}
    except orjson.JSONDecodeError:
        given = None
    if not isinstance(given, Mapping):
        return InvalidInputError(f"{place}: bad metadata", received=row["metadata"], expected="a JSON object")
    return {**made, "metadata": {**others, **given}} if others or given else made


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
    """Yield an entity for each module, class, function, method and property of an installed Python package.

    `name` is the import name, or `python` for the standard library. Aliases are the last part of the qualified name,
    its dotted suffixes, the name without inner modules (`asyncio.run` for `asyncio.runners.run`) and the usual import
    names (`dt` for `datetime`). Methods and properties without a docstring are left out.

    Raises InvalidInputError for a bad name, NotFoundError if the package is not installed.
    """
    for item in PythonSource(name, undocumented=True).items():
        document = item.document
        if document is None or document.metadata.get("kind") not in {*_CALLABLE, "module", "property"}:
            continue
        kind, module = str(document.metadata["kind"]), str(document.metadata["module"])
        if kind in {"method", "property"} and "\n\n" not in document.text:
            continue  # a method or property without a docstring: there are too many of them
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
    return [name for name in dict.fromkeys(found) if name != title]
