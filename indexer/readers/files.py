"""Reads documents from files and folders of the formats in `formats.py`. Each file may be gzipped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

from hyblink.app.core.errors import InvalidInputError, NotFoundError, UserError
from hyblink.app.core.types.documents import Document
from hyblink.indexer.ingest.prepare import parse_document
from hyblink.indexer.readers.format import Format, Row
from hyblink.indexer.readers.formats import FORMATS, detect_format
from hyblink.indexer.readers.isolated import IsolatedReader
from hyblink.indexer.readers.item import SourceItem

_RAW_SHOWN = 500
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,17})\.[0-9]{1,18}")


class FileSource:
    """Documents of one file, or of every file of a known format below a folder, sorted by path.

    `is_beir` says whether the path is a BEIR folder.
    """

    def __init__(
        self,
        path: Path,
        *,
        format: str | None = None,  # noqa: A002
        columns: Mapping[str, str] | None = None,
        max_row_bytes: int = 16 * 2**20,
        max_chars: int = 8_000_000,
        file_seconds: float = 60,
        file_memory: int = 2 * 2**30,
        source_id: str | None = None,
        inside: Sequence[Path] | None = None,
    ) -> None:
        """`file_seconds` and `file_memory` (bytes) limit the reading of a file that is one document.

        Files whose links lead out of the folders `inside` are rejected (None: links are followed anywhere).

        `format` None detects the format from each file name. `columns` maps id, title or text to a field name.

        Raises NotFoundError if the path does not exist, InvalidInputError for an unknown format or a folder that is not
        of the named format.
        """
        if not path.exists():
            raise NotFoundError("no such file or folder", received=str(path))
        if format is not None:
            FORMATS.of(format)
        self._path = path
        self._format = format
        self._columns = dict(columns or {})
        self._max_row_bytes = max_row_bytes
        self._max_chars = max_chars
        self._file_seconds = file_seconds
        self._file_memory = file_memory
        self._inside = None if inside is None else [root.expanduser().resolve() for root in inside]
        self._id = source_id or f"files:{path.resolve()}"
        self._before, self._open = 0, cast("IO[bytes] | None", None)
        self._corpus = self._folder_format()
        self.is_beir = self._corpus is not None
        if format is not None and FORMATS.of(format).folder is not None and self._corpus is None:
            raise InvalidInputError(
                "not a BEIR folder", received=str(path), expected="corpus.jsonl or corpus.jsonl.gz in it"
            )

    def _folder_format(self) -> Path | None:
        """The data file of a folder format such as BEIR, or None for any other path."""
        if not self._path.is_dir():
            return None
        for row in FORMATS.values():
            if row.folder is not None and self._format in {None, row.name}:
                found = row.folder(self._path)
                if found is not None:
                    return found
        return None

    @property
    def id(self) -> str:
        """The key under which the store keeps the read position, so that a later run resumes."""
        return self._id

    @property
    def bytes_total(self) -> int:
        """The size of all files in bytes, before decompression."""
        return sum(path.stat().st_size for path in self.files())

    @property
    def bytes_read(self) -> int:
        """How many of the `bytes_total` bytes `items` has read so far."""
        return self._before + (self._open.tell() if self._open is not None and not self._open.closed else 0)

    def _opened(self, file: IO[bytes]) -> None:
        self._open = file

    def files(self) -> list[Path]:
        """The files to read, in order. Hidden files and folders are skipped."""
        if self._corpus is not None:
            return [self._corpus]
        if self._path.is_file():
            return [self._path]
        found = [p for p in self._path.rglob("*") if p.is_file() and (self._format or detect_format(p))]
        shown = [p for p in found if not any(part.startswith(".") for part in p.relative_to(self._path).parts)]
        return sorted(shown, key=self._name)  # `items` compares names in this order to resume

    def _name(self, path: Path) -> str:
        return path.name if self._path.is_file() else path.relative_to(self._path).as_posix()

    def items(self, after: str | None = None) -> Iterator[SourceItem]:
        """Yield all items, or only those after `after`, the `position` of an earlier item."""
        self._before = 0
        done_file, done_line = "", 0
        if after:
            done_file, _, line = after.rpartition(":")
            done_line = int(line)
        reader = IsolatedReader(seconds=self._file_seconds, memory=self._file_memory, max_bytes=self._max_row_bytes)
        with reader:
            for path in self.files():
                name = self._name(path)
                if name >= done_file:
                    yield from self._file(path, name, done_line if name == done_file else -1, reader)
                self._before += path.stat().st_size
                self._open = None

    def _file(self, path: Path, name: str, skip: int, reader: IsolatedReader) -> Iterator[SourceItem]:
        if self._inside is not None and not any(path.resolve().is_relative_to(root) for root in self._inside):
            if skip < 0:
                error = InvalidInputError("a link that leads out of the folders that jobs may read", received=name)
                yield SourceItem(name, 0, f"{name}:0", error=error)
            return
        kind = FORMATS.of(self._format or detect_format(path) or "text")
        if kind.rows is not None:
            for row in kind.rows(path, self._max_row_bytes, self._opened):
                if row.number > skip:
                    yield self._item(name, row)
        elif skip < 0:
            yield self._whole(path, name, kind, reader)

    def _item(self, name: str, row: Row) -> SourceItem:
        position = f"{name}:{row.number}"
        try:
            if row.fields is None:
                assert row.error is not None
                raise row.error
            fields = row.fields if row.typed else self._typed(row.fields)
            return SourceItem(name, row.line, position, document=self._document(fields, name, row.number))
        except UserError as error:
            return SourceItem(name, row.line, position, error=error, raw=_shown(row.raw))

    def _typed(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Convert cells that are plainly numbers. Cells of ids, titles, texts and languages stay strings."""
        reserved = {"id", "_id", "title", "text", "contents", "body", "lang", *self._columns.values()}
        return {key: value if key in reserved else _number(value) for key, value in fields.items()}

    def _document(self, row: dict[str, Any], name: str, number: int) -> Document:
        """Build a document from named fields. Fields other than id, title, text and lang become metadata."""
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

    def _whole(self, path: Path, name: str, kind: Format, reader: IsolatedReader) -> SourceItem:
        """Read a file that is one document. The id is the file name; the title is the file's own, or its name."""
        position = f"{name}:0"
        assert kind.whole is not None
        try:
            found = reader.read(path, kind.whole)
            metadata = {"file": name, "format": kind.name, **found.metadata}
            row = {"id": name, "title": (found.title or path.stem)[:4096], "text": found.text, "metadata": metadata}
            return SourceItem(name, 0, position, document=parse_document(row, self._max_chars))
        except UserError as error:
            return SourceItem(name, 0, position, error=error)


def _shown(raw: object) -> str:
    """The first 500 characters of a raw row, as text."""
    text = raw[:_RAW_SHOWN] if isinstance(raw, bytes) else str(raw)[:_RAW_SHOWN].encode("utf-8", "replace")
    return text.decode("utf-8", "backslashreplace")


def _number(value: str) -> str | int | float:
    """Convert a cell to int or float if it is plainly a number; else return it unchanged.

    >>> _number("12"), _number("1.5"), _number("007"), _number("nan")
    (12, 1.5, '007', 'nan')
    """
    stripped = value.strip()
    if _INTEGER.fullmatch(stripped):
        return int(stripped)
    return float(stripped) if _DECIMAL.fullmatch(stripped) else value
