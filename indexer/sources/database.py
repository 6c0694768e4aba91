"""The rows of a database query as a source, through SQLAlchemy: one document a row."""

from __future__ import annotations

import datetime as dt
import decimal
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hyblink.app.core.errors import InvalidInputError, SourceUnavailableError
from hyblink.indexer.readers.fields import IDS, plain
from hyblink.indexer.readers.files import FileSource
from hyblink.indexer.readers.format import Format, Options, Row
from hyblink.indexer.readers.isolated import IsolatedReader
from hyblink.indexer.readers.item import SourceItem
from hyblink.indexer.readers.walk import Found

_NAME = "query"
_BATCH = 1000
_EXPECTED = "such as sqlite:///shop.db or postgresql+psycopg://user@host/shop"


class DatabaseSource(FileSource):
    """Documents of the rows that a query returns. Nothing is ever committed.

    The columns are found by their names as those of files are. A column with an id is needed, so that a row is the same
    document when it is read again.
    """

    def __init__(self, url: str, query: str, **reading: Any) -> None:
        """`url` is SQLAlchemy's, such as `postgresql+psycopg://user@host/db`. `reading`: as for `FileSource`.

        Raises InvalidInputError for a URL that SQLAlchemy does not understand or a driver that is not installed.
        """
        from sqlalchemy import create_engine
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError

        try:
            told = make_url(url)
            shown = told.render_as_string(hide_password=True)
            self._engine = create_engine(told)
        except (ArgumentError, NoSuchModuleError) as error:
            raise InvalidInputError(f"no database address: {error}", expected=_EXPECTED) from error
        except ImportError as error:
            raise InvalidInputError(f"the database's driver is not installed: {error}", received=shown) from error
        self._query = query
        self._shown = shown
        super().__init__(Path(os.devnull), source_id=f"remote:{self.address_of(url, query)}", **reading)

    @staticmethod
    def address_of(url: str, query: str) -> str:
        """The address of a query, without a password. Raises InvalidInputError if it is none."""
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

        try:
            return f"{make_url(url).render_as_string(hide_password=True)}\n{query}"
        except ArgumentError as error:
            raise InvalidInputError(f"no database address: {error}", expected=_EXPECTED) from error

    @property
    def bytes_total(self) -> int:
        """Not known: 0."""
        return 0

    def _found(self) -> list[Found]:
        return [Found(_NAME, Path(_NAME))]

    def _outer(self, one: Found, reader: IsolatedReader) -> Iterator[SourceItem]:  # noqa: ARG002
        yield from self._rows(one.path, one.name, one.name, Format(_NAME, (), "rows of a query", rows=self._read))

    def _read(self, _path: Path, _options: Options) -> Iterator[Row]:
        from sqlalchemy import text
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self._engine.connect() as connection:
                options: dict[str, Any] = {"stream_results": True, "yield_per": _BATCH}
                if connection.dialect.name == "postgresql":
                    options["postgresql_readonly"] = True
                result = connection.execution_options(**options).execute(text(self._query))
                names = list(result.keys())
                self._check(names)
                for number, row in enumerate(result.mappings(), 1):
                    yield Row(number, number, {name: _plain(row[name]) for name in names})
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise SourceUnavailableError(f"the query fails: {reason}", received=self._shown) from error
        finally:
            self._engine.dispose()

    def _check(self, names: list[str]) -> None:
        wanted = self._options.columns.get("id")
        if wanted is None and not any(plain(name) in IDS for name in names):
            raise InvalidInputError(
                "the query has no column with an id", received=names, expected="a column named id, or --id-column"
            )


def _plain(value: Any) -> Any:
    """A value of a column as JSON has it; None for bytes and for nothing."""
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() and abs(value) < 2**53 else float(value)
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return None
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    return value
