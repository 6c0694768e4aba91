"""Files and folders: JSONL, BEIR folders, CSV, TSV, Markdown, plain text, HTML and PDF; each may be gzipped."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

import orjson

from hyblink.app.core.errors import InvalidInputError, NotFoundError, UserError
from hyblink.app.core.types.documents import Document
from hyblink.indexer.ingest.prepare import parse_document
from hyblink.indexer.readers.item import SourceItem
from hyblink.indexer.readers.rows import decode, lines, read_bounded
from hyblink.indexer.readers.texts import html_text, markdown_text, pdf_text

FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "text",
    ".rst": "text",
    ".html": "html",
    ".htm": "html",
    ".pdf": "pdf",
}
_RAW_SHOWN = 500
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,17})\.[0-9]{1,18}")


def detect_format(path: Path) -> str | None:
    """The format that a file's name says, or None."""
    name = path.name.removesuffix(".gz")
    return FORMATS.get(Path(name).suffix.lower())


class FileSource:
    """One file, or every known file below a folder in the order of their names."""

    def __init__(
        self,
        path: Path,
        *,
        format: str | None = None,  # noqa: A002
        columns: Mapping[str, str] | None = None,
        max_row_bytes: int = 16 * 2**20,
        max_chars: int = 8_000_000,
        source_id: str | None = None,
    ) -> None:
        if not path.exists():
            raise NotFoundError("no such file or folder", received=str(path))
        if format is not None and format not in {*FORMATS.values(), "beir"}:
            raise InvalidInputError(
                "unknown format",
                received=format,
                expected=f"one of {', '.join(sorted({*FORMATS.values(), 'beir'}))}",
            )
        self._path = path
        self._format = format
        self._columns = dict(columns or {})
        self._max_row_bytes = max_row_bytes
        self._max_chars = max_chars
        self._id = source_id or f"files:{path.resolve()}"
        self._before, self._open = 0, cast("IO[bytes] | None", None)
        self.is_beir = path.is_dir() and bool(self._beir_corpus()) and format in {None, "beir"}
        if format == "beir" and not self.is_beir:
            raise InvalidInputError(
                "not a BEIR folder", received=str(path), expected="corpus.jsonl or corpus.jsonl.gz in it"
            )

    @property
    def id(self) -> str:
        """Names the source for resuming."""
        return self._id

    @property
    def bytes_total(self) -> int:
        """Bytes of all files, as they lie there."""
        return sum(path.stat().st_size for path in self.files())

    @property
    def bytes_read(self) -> int:
        """How many of them `items` has read."""
        return self._before + (self._open.tell() if self._open is not None and not self._open.closed else 0)

    def _opened(self, file: IO[bytes]) -> None:
        self._open = file

    def _beir_corpus(self) -> list[Path]:
        return [p for name in ("corpus.jsonl", "corpus.jsonl.gz") if (p := self._path / name).is_file()][:1]

    def files(self) -> list[Path]:
        """What will be read, in order."""
        if self.is_beir:
            return self._beir_corpus()
        if self._path.is_file():
            return [self._path]
        found = [p for p in self._path.rglob("*") if p.is_file() and (self._format or detect_format(p))]
        shown = [p for p in found if not any(part.startswith(".") for part in p.relative_to(self._path).parts)]
        return sorted(shown, key=self._name)  # the order that resuming compares by

    def _name(self, path: Path) -> str:
        return path.name if self._path.is_file() else path.relative_to(self._path).as_posix()

    def items(self, after: str | None = None) -> Iterator[SourceItem]:
        """Every item, or those after a position that an earlier item named."""
        self._before = 0
        done_file, done_line = "", 0
        if after:
            done_file, _, line = after.rpartition(":")
            done_line = int(line)
        for path in self.files():
            name = self._name(path)
            if name >= done_file:
                yield from self._file(path, name, done_line if name == done_file else -1)
            self._before += path.stat().st_size
            self._open = None

    def _file(self, path: Path, name: str, skip: int) -> Iterator[SourceItem]:
        kind = self._format or detect_format(path) or "text"
        if kind in {"jsonl", "beir"}:
            yield from self._jsonl(path, name, skip)
        elif kind in {"csv", "tsv"}:
            yield from self._table(path, name, skip, "," if kind == "csv" else "\t")
        elif skip < 0:
            yield self._whole(path, name, kind)

    def _jsonl(self, path: Path, name: str, skip: int) -> Iterator[SourceItem]:
        for number, line in lines(path, self._max_row_bytes, self._opened):
            if number <= skip or (isinstance(line, bytes) and not line.strip()):
                continue
            yield self._item(name, number, line, self._json_row)

    def _item(self, name: str, number: int, row: Any, parse: Callable[[Any, str, int], Document]) -> SourceItem:
        position = f"{name}:{number}"
        try:
            if isinstance(row, UserError):
                raise row
            return SourceItem(name, number, position, document=parse(row, name, number))
        except UserError as error:
            raw = row[:_RAW_SHOWN] if isinstance(row, bytes) else str(row)[:_RAW_SHOWN].encode("utf-8", "replace")
            shown = "" if isinstance(row, UserError) else raw.decode("utf-8", "backslashreplace")
            return SourceItem(name, number, position, error=error, raw=shown)

    def _json_row(self, line: bytes, name: str, number: int) -> Document:
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InvalidInputError(
                f"not JSON: {error}", received=line[:80], expected="one JSON object a line"
            ) from error
        if not isinstance(row, dict):
            raise InvalidInputError("the row has the wrong type", received=row, expected="a JSON object")
        return self._document(row, name, number)

    def _document(self, row: dict[str, Any], name: str, number: int) -> Document:
        """A document from named fields; fields without a meaning of their own become metadata."""
        row = dict(row)
        for target, column in self._columns.items():
            if column in row:
                row[target] = row.pop(column)
        doc_id = row.pop("_id", None)
        doc_id = row.pop("id", None) if doc_id is None else doc_id
        if isinstance(doc_id, int) and not isinstance(doc_id, bool):
            doc_id = str(doc_id)
        text = row.pop("text", None)
        for other in ("contents", "body"):
            if text is None:
                text = row.pop(other, None)
        given = row.pop("metadata", None)
        known = {
            "id": f"{name}:{number}" if doc_id is None else doc_id,
            "text": "" if text is None else text,
            "title": row.pop("title", None) or "",
            "lang": row.pop("lang", None) or "",
        }
        if given is not None and not isinstance(given, dict):
            raise InvalidInputError("metadata has the wrong type", received=given, expected="an object")
        metadata = {**row, **(given or {})}
        return parse_document({**known, "metadata": metadata}, self._max_chars)

    def _table(self, path: Path, name: str, skip: int, delimiter: str) -> Iterator[SourceItem]:
        """CSV with a header row. A quoted field may hold line ends; rows are counted, not lines."""
        csv.field_size_limit(self._max_row_bytes)
        errors: list[tuple[int, UserError]] = []

        def text_lines() -> Iterator[str]:
            for number, line in lines(path, self._max_row_bytes, self._opened):
                if isinstance(line, bytes):
                    try:
                        yield decode(line) + "\n"
                        continue
                    except UserError as error:
                        errors.append((number, error))
                else:
                    errors.append((number, line))

        reader = csv.DictReader(text_lines(), delimiter=delimiter, strict=True)
        number = 0
        while True:
            number += 1
            try:
                row = next(reader, None)
            except csv.Error as error:
                failure = InvalidInputError(f"bad row: {error}", expected=f"fields separated by {delimiter!r}")
                yield SourceItem(name, number, f"{name}:{number}", error=failure)
                continue
            while errors:
                line, problem = errors.pop(0)
                yield SourceItem(name, line, f"{name}:{number}", error=problem)
            if row is None:
                return
            if number > skip:
                yield self._item(name, number, row, self._table_row)

    def _table_row(self, row: dict[str | None, Any], name: str, number: int) -> Document:
        if None in row or None in row.values():
            raise InvalidInputError(
                "the row has another number of fields than the header",
                received=list(row.values()),
                expected="as many",
            )
        clean = {str(key): value for key, value in row.items()}
        reserved = {"id", "_id", "title", "text", "contents", "body", "lang", *self._columns.values()}
        return self._document(
            {key: value if key in reserved else _number(value) for key, value in clean.items()}, name, number
        )

    def _whole(self, path: Path, name: str, kind: str) -> SourceItem:
        """A file that is one document: its id is its name, its title the first heading or the name."""
        position = f"{name}:0"
        try:
            data = read_bounded(path, self._max_row_bytes)
            metadata: dict[str, Any] = {"file": name, "format": kind}
            if kind == "pdf":
                title, text, metadata["pages"] = pdf_text(data)
            elif kind == "html":
                title, text = html_text(decode(data))
            elif kind == "markdown":
                title, text = markdown_text(decode(data))
            else:
                title, text = "", decode(data)
            row = {"id": name, "title": (title or path.stem)[:4096], "text": text, "metadata": metadata}
            return SourceItem(name, 0, position, document=parse_document(row, self._max_chars))
        except UserError as error:
            return SourceItem(name, 0, position, error=error)


def _number(value: str) -> str | int | float:
    """A cell as a number where it is plainly one.

    >>> _number("12"), _number("1.5"), _number("007"), _number("nan")
    (12, 1.5, '007', 'nan')
    """
    stripped = value.strip()
    if _INTEGER.fullmatch(stripped):
        return int(stripped)
    return float(stripped) if _DECIMAL.fullmatch(stripped) else value
