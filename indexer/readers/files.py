"""Reads documents from files and folders of the formats in `formats.py`. Each file may be gzipped or in an archive."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, cast

from hyblink.app.core.errors import HyblinkError, InvalidInputError, NotFoundError, UserError
from hyblink.app.core.types.documents import Document
from hyblink.indexer.ingest.prepare import parse_document
from hyblink.indexer.readers import fields
from hyblink.indexer.readers.encodings import known
from hyblink.indexer.readers.format import Format, Options, Row
from hyblink.indexer.readers.formats import FORMATS, KEEP_BOILERPLATE, OCR, format_of
from hyblink.indexer.readers.isolated import IsolatedReader
from hyblink.indexer.readers.item import SourceItem
from hyblink.indexer.readers.language import language_of
from hyblink.indexer.readers.ocr import LANGUAGES, check_installed
from hyblink.indexer.readers.walk import Found, printable, walk

_RAW_SHOWN = 500
_DEEPEST_ARCHIVE = 4
_INNER = "\x1f"
"""Between the name of a file and the place in it, in positions."""
_MOST_NOTES = 100
_OCR_TIMES = 30
"""A file that is read by Tesseract may take so many times as long."""
_NO_LANGUAGE = ("code", "yaml")


class FileSource:
    """Documents of one file, or of every file below a folder, sorted by name.

    `is_beir` says whether the path is a BEIR folder. `notes` says what was guessed or read otherwise than it stands
    there, with the number of times.
    """

    def __init__(
        self,
        path: Path,
        *,
        format: str | None = None,  # noqa: A002
        columns: Mapping[str, str] | None = None,
        encoding: str | None = None,
        header: bool = True,
        max_row_bytes: int = 16 * 2**20,
        max_file_bytes: int = 512 * 2**20,
        max_chars: int = 8_000_000,
        file_seconds: float = 60,
        file_memory: int = 2 * 2**30,
        source_id: str | None = None,
        prefix: str = "",
        languages: bool = True,
        name: str = "",
        keep_boilerplate: bool = False,
        ocr: bool = False,
        ocr_languages: str = "",
        rows: bool = False,
        prefix_ids: bool = False,
        inside: Sequence[Path] | None = None,
    ) -> None:
        """`file_seconds` and `file_memory` (bytes) limit the reading of a file that is one document.

        Files whose links lead out of the folders `inside` are rejected (None: links are followed anywhere).

        `format` None detects the format of each file. `columns` maps id, title or text to a field name. `encoding` None
        finds out the encoding of each text file. `header` False: the first row of a table is data. `prefix` is put
        before the ids of files and rows that have none of their own. `languages`: the metadata of every document
        say its language as `lang`, the given one or else the one that its text is in. With a `name`, documents also
        say it as `source`; rows only where the path is a folder, with their file as `file`.

        `keep_boilerplate`: HTML with its navigation, banners and footers. `ocr`: pages and pictures without text are
        read by Tesseract, in `ocr_languages` such as `eng+deu`. `rows`: each row of a workbook is a document.
        `prefix_ids`: the name also stands before the ids that rows have of their own.

        Raises NotFoundError if the path does not exist, InvalidInputError for an unknown format or encoding, or a
        folder that is not of the named format.
        """
        if not path.exists():
            raise NotFoundError("no such file or folder", received=str(path))
        if format is not None:
            FORMATS.of(format)
        self._path = path
        self._format = format
        self._options = Options(
            max_row_bytes=max_row_bytes,
            opened=self._opened,
            encoding=known(encoding) if encoding else None,
            header=header,
            columns=dict(columns or {}),
        )
        self._max_chars = max_chars
        self._max_file_bytes = max_file_bytes
        self._file_seconds = file_seconds
        self._file_memory = file_memory
        self._inside = None if inside is None else [root.expanduser().resolve() for root in inside]
        self._id = source_id or f"files:{path.resolve()}"
        self._prefix = f"{prefix}/" if prefix else ""
        self._variants = [one for one, wanted in ((KEEP_BOILERPLATE, keep_boilerplate), (OCR, ocr)) if wanted]
        self._ocr_languages = ocr_languages
        self._as_rows = rows
        self._prefix_ids = prefix_ids
        if ocr:
            check_installed()
        self._languages = languages
        self._before, self._open = 0, cast("IO[bytes] | None", None)
        self._fields: dict[tuple[str, ...], fields.Fields] = {}
        self._noted: Counter[str] = Counter()
        self._corpus = self._folder_format()
        self.is_beir = self._corpus is not None
        self.name = "" if self.is_beir else name
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
    def notes(self) -> list[str]:
        """What was guessed or read otherwise than it stands there, so far."""
        return [text if times == 1 else f"{text} ({times} times)" for text, times in self._noted.items()]

    @property
    def bytes_total(self) -> int:
        """The size of all files in bytes, before decompression."""
        return sum(_size(one.path) for one in self._found())

    @property
    def bytes_read(self) -> int:
        """How many of the `bytes_total` bytes `items` has read so far."""
        return self._before + (self._open.tell() if self._open is not None and not self._open.closed else 0)

    def _opened(self, file: IO[bytes]) -> None:
        self._open = file

    def _note(self, text: str) -> None:
        if text in self._noted or len(self._noted) < _MOST_NOTES:
            self._noted[text] += 1

    def files(self) -> list[Path]:
        """The files to look at, in order."""
        return [one.path for one in self._found() if not one.why]

    def _found(self) -> list[Found]:
        if self._corpus is not None:
            return [Found(self._corpus.name, self._corpus)]
        if self._path.is_file():
            return [Found(printable(self._path.name.encode("utf-8", "surrogateescape")), self._path)]
        return walk(self._path)

    def items(self, after: str | None = None) -> Iterator[SourceItem]:
        """Yield all items, or only those after `after`, the `position` of an earlier item."""
        self._before = 0
        done_file, done_inner, done_number = "", "", -1
        if after:
            done_file, _, rest = after.rpartition(":")
            done_number = int(rest)
            done_file, _, done_inner = done_file.partition(_INNER)
        reader = IsolatedReader(
            seconds=self._file_seconds * (_OCR_TIMES if OCR in self._variants else 1),
            memory=self._file_memory,
            max_bytes=self._max_file_bytes,
            environment={LANGUAGES: self._ocr_languages} if self._ocr_languages else {},
        )
        with reader:
            for one in self._found():
                if one.name >= done_file:
                    resumed = one.name == done_file
                    for item in self._outer(one, reader):
                        if not resumed or _place(item) > (done_inner.split("/") if done_inner else [], done_number):
                            yield item
                self._before += _size(one.path)
                self._open = None

    def _outer(self, one: Found, reader: IsolatedReader) -> Iterator[SourceItem]:
        """The items of a file that was found, and of the files in it."""
        at = f"{one.name}:0"
        if one.why:
            if one.broken:
                yield SourceItem(one.name, 0, at, error=InvalidInputError(one.why), outcome="rejected")
            else:
                yield SourceItem(one.name, 0, at, outcome="skipped", why=one.why)
            return
        if self._inside is not None and not any(one.path.resolve().is_relative_to(root) for root in self._inside):
            error = InvalidInputError("a link that leads out of the folders that jobs may read", received=one.name)
            yield SourceItem(one.name, 0, at, error=error, outcome="rejected")
            return
        yield from self._file(one.path, one.name, at.removesuffix(":0"), reader, 0)

    def _file(self, path: Path, name: str, at: str, reader: IsolatedReader, depth: int) -> Iterator[SourceItem]:
        """The items of a file. `at` begins the positions of all of them."""
        try:
            found = self._format if depth == 0 and self._format else format_of(path)
            if not path.stat().st_size:
                yield SourceItem(name, 0, f"{at}:0", outcome="skipped", why="empty")
                return
            if found is None:
                suffix = Path(name).suffix
                yield SourceItem(
                    name, 0, f"{at}:0", outcome="skipped",
                    why=f"nothing reads {suffix or 'such'} files; --format names a format",
                )  # fmt: skip
                return
            kind = FORMATS.of(found)
            if kind.needs and not any(one in kind.variants for one in self._variants):
                yield SourceItem(name, 0, f"{at}:0", outcome="skipped", why=kind.needs)
                return
            if self._as_rows and kind.unpack_rows is not None:
                kind = replace(kind, whole=None, unpack=kind.unpack_rows)
            if kind.rows is not None:
                yield from self._rows(path, name, at, kind)
                return
            if kind.whole is not None:
                yield self._whole(path, name, at, kind, reader)
            if kind.unpack is not None:
                yield from self._unpacked(path, name, at, kind, reader, depth)
        except OSError as failure:
            error = InvalidInputError(f"cannot be read: {failure.strerror or failure}", received=name)
            yield SourceItem(name, 0, f"{at}:0", error=error, outcome="rejected")

    def _rows(self, path: Path, name: str, at: str, kind: Format) -> Iterator[SourceItem]:
        assert kind.rows is not None
        options = replace(self._options, noted=lambda text: self._note(f"{name}: {text}"))
        good = bad = 0
        last = 0
        rows = kind.rows(path, options)
        while True:
            try:
                row = next(rows, None)
            except (HyblinkError, OSError):
                raise
            except Exception as failure:  # noqa: BLE001  # a reader's fault: the file is rejected, the others are read
                said = f"{type(failure).__name__}: {failure}".encode("utf-8", "replace").decode()[:200]
                error = InvalidInputError(f"the file cannot be read: {said}", received=name)
                yield SourceItem(name, last, f"{at}:{last + 1}", error=error, outcome="rejected")
                return
            if row is None:
                break
            item = self._item(name, at, row)
            good, bad, last = good + (item.document is not None), bad + (item.error is not None), row.number
            yield item
        if good:
            yield SourceItem(name, last, f"{at}:{last}", outcome="read")
        elif bad:
            yield SourceItem(name, last, f"{at}:{last}", outcome="rejected", why="none of its rows could be read")
        else:
            yield SourceItem(name, 0, f"{at}:0", outcome="skipped", why="empty: no row")

    def _item(self, name: str, at: str, row: Row) -> SourceItem:
        position = f"{at}:{row.number}"
        try:
            if row.fields is None:
                assert row.error is not None
                raise row.error
            document = self._document(row, name)
            return SourceItem(name, row.line if row.number else 0, position, document=document)
        except UserError as error:
            return SourceItem(name, row.line, position, error=error, raw=_shown(row.raw))

    def _document(self, row: Row, name: str) -> Document:
        """Build a document from named fields. Fields other than id, title, text and lang become metadata."""
        assert row.fields is not None
        found = row.fields_are
        if found is None:
            keys = tuple(row.fields)
            found = self._fields.get(keys)
            if found is None:
                found = fields.choose(keys, self._options.columns)
                if len(self._fields) < 10_000:
                    self._fields[keys] = found
        default = f"{self._prefix}{name}:{row.number}" if row.number else f"{self._prefix}{name}"
        made = fields.document(row.fields, found, default, lambda text: self._note(f"{name}: {text}"))
        if self._prefix_ids and self.name and made["id"] != default:
            made["id"] = f"{self.name}/{made['id']}"
        if not row.number and not made["title"]:
            made["title"] = Path(name).stem
        self._say_language(made)
        if self.name and not self._path.is_file():
            made["metadata"] |= {"source": self.name, "file": name}
        return parse_document(made, self._max_chars)

    def _say_language(self, row: dict[str, Any]) -> None:
        if self._languages and "lang" not in row["metadata"]:
            found = row["lang"] or language_of(row["text"] or row["title"])
            if found:
                row["metadata"]["lang"] = found

    def _whole(self, path: Path, name: str, at: str, kind: Format, reader: IsolatedReader) -> SourceItem:
        """Read a file that is one document. The id is the file name; the title is the file's own, or its name."""
        position = f"{at}:0"
        assert kind.whole is not None
        try:
            whole = next((kind.variants[one] for one in self._variants if one in kind.variants), kind.whole)
            found, guesses = reader.read(path, whole, self._options.encoding)
            for guess in dict.fromkeys(guesses):
                self._note(f"{name}: read as {guess}, which was guessed; --encoding names another")
            if not found.text.strip():
                why = "empty" if "pages" not in found.metadata and kind.name != "picture" else "no text (a scan)"
                if "pages" in found.metadata and OCR not in self._variants:
                    why += "; --ocr reads it"
                return SourceItem(name, 0, position, outcome="skipped", why=why)
            kept = dict(found.metadata)
            lang = kept.pop("lang", "")
            row: dict[str, Any] = {
                "id": f"{self._prefix}{name}",
                "title": (found.title or Path(name).stem)[:4096],
                "text": found.text,
                "lang": lang if isinstance(lang, str) and len(lang) <= 35 else "",
                "metadata": {"file": name, "format": kind.name, **fields.metadata(kept, lambda _: None)},
            }
            if self.name:
                row["metadata"]["source"] = self.name
            if kind.name not in _NO_LANGUAGE:
                self._say_language(row)
            document = replace(parse_document(row, self._max_chars), sections=found.sections)
            return SourceItem(name, 0, position, document=document, outcome="read")
        except UserError as error:
            return SourceItem(name, 0, position, error=error, outcome="rejected")

    def _unpacked(
        self, path: Path, name: str, at: str, kind: Format, reader: IsolatedReader, depth: int
    ) -> Iterator[SourceItem]:
        """The items of the files in a file, each in the order of their names."""
        assert kind.unpack is not None
        if depth >= _DEEPEST_ARCHIVE:
            why = f"archives in archives are read {_DEEPEST_ARCHIVE} deep"
            yield SourceItem(name, 0, f"{at}:0", outcome="skipped", why=why)
            return
        with tempfile.TemporaryDirectory(prefix="hyblink-unpack-") as folder:
            try:
                members = reader.unpack(path, kind.unpack, Path(folder))
            except UserError as error:
                if kind.whole is None:
                    yield SourceItem(name, 0, f"{at}:0", error=error, outcome="rejected")
                return
            if not members and kind.whole is None:
                yield SourceItem(name, 0, f"{at}:0", outcome="skipped", why="empty: no file in it")
            for member in sorted(members, key=lambda one: one.name.split("/")):
                inner = f"{name}/{printable(member.name.encode('utf-8', 'surrogateescape'))}"
                place = f"{at}{'/' if _INNER in at else _INNER}{inner[len(name) + 1 :]}"
                if member.error:
                    failed = InvalidInputError(member.error, received=inner)
                    yield SourceItem(inner, 0, f"{place}:0", error=failed, outcome="rejected")
                elif any(part.startswith(".") for part in member.name.split("/")):
                    yield SourceItem(inner, 0, f"{place}:0", outcome="skipped", why="hidden")
                else:
                    yield from self._file(Path(folder) / member.file, inner, place, reader, depth + 1)


def _place(item: SourceItem) -> tuple[list[str], int]:
    """(the parts of the path inside the outer file, the number of the row) of an item, which order its items."""
    file, _, number = item.position.rpartition(":")
    inner = file.partition(_INNER)[2]
    return inner.split("/") if inner else [], int(number)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _shown(raw: object) -> str:
    """The first 500 characters of a raw row, as text."""
    text = raw[:_RAW_SHOWN] if isinstance(raw, bytes) else str(raw)[:_RAW_SHOWN].encode("utf-8", "replace")
    return text.decode("utf-8", "backslashreplace")
