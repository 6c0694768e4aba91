"""Reads entities from files and installed Python packages, as rows that a knowledge base accepts.

Formats:

- JSONL or a JSON array with our own fields: `id, title, description, aliases, kind, world, lang, metadata`, or the
  names that usually stand for them. Other fields become metadata.
- BLINK's JSONL: `text, idx, title, entity`.
- Zeshel's documents: `document_id, title, text`. Each file is one world.
- CSV or TSV with a header and any separator. Aliases are joined by `|` or `;` in one column.
- A Wikipedia dump, Wikidata's JSON, and the files of DICT servers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from hyblink.app.core.errors import InvalidInputError, NotFoundError, TooLargeError, UserError
from hyblink.indexer.readers import delimited, jsonl
from hyblink.indexer.readers.entities.dictd import dict_entities
from hyblink.indexer.readers.entities.wikidata import wikidata_entities
from hyblink.indexer.readers.entities.wikipedia import page_props_beside, wikipedia_entities
from hyblink.indexer.readers.fields import metadata, plain
from hyblink.indexer.readers.format import Options, Row
from hyblink.indexer.readers.python_package import PythonSource
from hyblink.indexer.readers.rows import open_packed

_MAX_ROW = 16 * 2**20
_OURS = ("id", "title", "description", "aliases", "kind", "world", "lang", "metadata")
_NAMES = {
    "id": ("id", "_id", "idx", "document_id", "qid", "entity_id", "wikidata_id", "item", "uri", "iri"),
    "title": ("title", "label", "name", "entity", "pref_label", "preferred_label", "item_label"),
    "description": ("description", "text", "desc", "definition", "abstract", "summary", "gloss", "item_description"),
    "aliases": ("aliases", "alias", "alt_label", "alt_labels", "synonyms", "synonym", "also_known_as", "other_names"),
    "kind": ("kind",),
    "world": ("world",),
    "lang": ("lang",),
}
"""Our fields and the names that stand for them, in any case and with any separators, the plainest first."""
_EMPTY = (None, "")
_ITEM = re.compile(rb'"(?:labels|claims|sitelinks)"\s*:\s*[\[{]|"type"\s*:\s*"(?:item|property|lexeme)"')
_LOOKED_AT = 1 << 16
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
        return _zeshel(path) if _is_zeshel(path) else _wikidata(path, lang) if _is_wikidata(path) else _array(path)
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


def _is_wikidata(path: Path) -> bool:
    """Whether a JSON file is Wikidata's: by its name, or by the fields that its items have."""
    if "wikidata" in path.name or path.name.startswith("latest-") or path.suffix == ".bz2":
        return True
    with _whole(path), open_packed(path) as file:
        return bool(_ITEM.search(file.read(_LOOKED_AT)))


def _array(path: Path) -> Iterator[object]:
    return _normal(path, jsonl.array_rows(path, _options()))


def _zeshel(path: Path) -> Iterator[object]:
    world = path.name.partition(".")[0]
    for row in _jsonl(path):
        yield {**row, "world": world} if isinstance(row, Mapping) else row


def _options() -> Options:
    return Options(max_row_bytes=_MAX_ROW)


def _jsonl(path: Path) -> Iterator[object]:
    return _normal(path, jsonl.rows(path, _options()))


def _table(path: Path) -> Iterator[object]:
    """Yield the rows of a CSV or TSV file, with any usual separator and encoding, and a header."""
    tabs = path.name.removesuffix(".gz").endswith(".tsv")
    rows = (delimited.tab_rows if tabs else delimited.comma_rows)(path, _options())
    first = next(rows, None)
    if first is None:
        raise InvalidInputError("the file is empty", received=path.name, expected="a header with id and title")
    if first.fields is not None:
        names = {plain(name) for name in first.fields}
        if not names & {plain(name) for name in _NAMES["title"]}:
            raise InvalidInputError(
                "no column of titles", received=list(first.fields), expected=f"one of {', '.join(_NAMES['title'])}"
            )
    return _normal(path, chain([first], rows))


def _normal(path: Path, rows: Iterator[Row]) -> Iterator[object]:
    for row in rows:
        if row.fields is not None:
            try:
                yield normalised(row.fields)
            except InvalidInputError as error:
                yield _placed(path, row.line, error)
            continue
        assert row.error is not None
        if "gzip" in row.error.message:
            raise row.error  # the rest of the file cannot be read
        yield row.error if isinstance(row.error, TooLargeError) else _placed(path, row.line, row.error)


def _placed(path: Path, line: int, error: UserError) -> InvalidInputError:
    return InvalidInputError(f"{path.name}:{line}: {error.message}", received=error.received, expected=error.expected)


def normalised(row: Mapping[str, Any]) -> dict[str, Any]:
    """Map a row of any known format to our field names; the other fields become metadata.

    In BLINK's rows `idx` is the URL of a Wikipedia page. Its page number becomes the id. `kb_idx` is the Wikidata item.
    A row without an id has its title as the id. Raises InvalidInputError for metadata that is no object.

    >>> normalised({"text": "A language.", "idx": "https://x/wiki?curid=12", "title": "Lisp", "kb_idx": "Q132874"})
    {'id': '12', 'title': 'Lisp', 'description': 'A language.', 'metadata': {'page': 12, 'wikidata': 'Q132874'}}
    """
    found: dict[str, Any] = {}
    used: set[str] = set()
    by_plain = {plain(name): name for name in reversed(list(row))}
    for ours, names in _NAMES.items():
        name = next((by_plain[plain(one)] for one in names if row.get(by_plain.get(plain(one), "")) not in _EMPTY), "")
        if name:
            used.add(name)
            found[ours] = row[name]
    page = _CURID.search(str(found.get("id", "")))
    beside: dict[str, Any] = {}
    if page:
        found["id"] = page.group(1)
        beside["page"] = int(page.group(1))
    if isinstance(row.get("kb_idx"), str) and row["kb_idx"]:
        beside["wikidata"] = row["kb_idx"]
    for name in ("id", "title"):
        if isinstance(found.get(name), int | float) and not isinstance(found[name], bool):
            found[name] = str(found[name])
    if "id" not in found and isinstance(found.get("title"), str):
        found["id"] = found["title"]
    if isinstance(found.get("aliases"), str):
        found["aliases"] = _split(found["aliases"], commas=bool({"altLabel", "altLabels"} & used))
    elif isinstance(found.get("aliases"), list):
        found["aliases"] = [one for one in found["aliases"] if one is not None]
    given = row.get("metadata")
    if isinstance(given, str) and given.strip():
        try:
            given = jsonl.loads(given.encode())
        except ValueError:
            raise InvalidInputError("bad metadata", received=given, expected="a JSON object") from None
    if given is not None and given != "" and not isinstance(given, Mapping):
        raise InvalidInputError("bad metadata", received=given, expected="an object")
    others = {name: value for name, value in row.items() if name not in {*used, "metadata", "kb_idx"}}
    # Another name that says the same, such as BLINK's `entity` beside `title`, says nothing more.
    same = {
        name for ours in ("id", "title") for name in others
        if plain(name) in map(plain, _NAMES[ours]) and str(row[name]) in {str(found.get(ours)), ""}
    }  # fmt: skip
    others = {name: value for name, value in others.items() if name not in same}
    kept = metadata({**beside, **others, **(given or {})}, lambda _: None)
    if kept:
        found["metadata"] = kept
    return {name: found[name] for name in _OURS if name in found}


def _split(aliases: str, *, commas: bool) -> list[str]:
    """Several aliases in one text: apart at `|`, `;` or line ends, at commas only where Wikidata joined them so."""
    found = next((aliases.split(sign) for sign in ("|", "\n", ";") if sign in aliases), [aliases])
    if commas and len(found) == 1:
        found = aliases.split(", ")
    return [name.strip() for name in found if name.strip()]


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
