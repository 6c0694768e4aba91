"""Read JSONL files, with error messages that name the file and line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import orjson

from hyblink.app.core.errors import InvalidInputError, NotFoundError
from hyblink.indexer.readers.rows import lines

_Row = TypeVar("_Row")

_SHOWN = 20


class Problems:
    """Collects the problems of a file, to raise them as one error."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._found: list[str] = []

    def add(self, line: int, what: str) -> None:
        """Add a problem of a line. Lines are counted from 1."""
        self._found.append(f"{self._name}:{line}: {what}")

    def extend(self, line: int, found: Sequence[str]) -> None:
        """Add several problems of a line."""
        self._found += [f"{self._name}:{line}: {what}" for what in found]

    def raise_if_any(self) -> None:
        """Raise InvalidInputError with the first 20 problems, if there are any."""
        if self._found:
            more = f" (and {len(self._found) - _SHOWN} more)" if len(self._found) > _SHOWN else ""
            raise InvalidInputError("bad training data: " + "; ".join(self._found[:_SHOWN]) + more)


def read_json_rows(path: Path, make: Callable[[int, Any], _Row], what: str, expected: str) -> list[_Row]:
    """Parse each line of a `.jsonl[.gz]` file with `make(line number, row)`; return the results.

    `make` raises KeyError, TypeError or ValueError for a bad row. Raises NotFoundError, and InvalidInputError with all
    bad lines, or for a file without rows.
    """
    if not path.is_file():
        raise NotFoundError(f"no such file of {what}", received=str(path))
    problems = Problems(path.name)
    rows = []
    for number, line in full_lines(path):
        try:
            rows.append(make(number, orjson.loads(line)))
        except (KeyError, TypeError, ValueError) as error:  # orjson's too
            problems.add(number, f"none of the {what} ({error}); expected {expected}")
    problems.raise_if_any()
    if not rows:
        raise InvalidInputError(f"no {what}", received=str(path), expected="at least one")
    return rows


_T = TypeVar("_T")

MAX_FILE_BYTES = 2**30


def existing(path: Path, *names: str) -> Path:
    """Return the path of the first of these files that exists in the folder. Raises NotFoundError."""
    for name in names:
        if (path / name).is_file():
            return path / name
    raise NotFoundError("no such file", received=str(path / names[0]))


def full_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number, line) for every line that is not blank. Raises an error for a line over the size limit."""
    for number, line in lines(path, MAX_FILE_BYTES):
        if not isinstance(line, bytes):
            raise line
        if line.strip():
            yield number, line


def parsed(path: Path, make: Callable[[Any], _T], what: str, expected: str) -> Iterator[_T]:
    """Yield `make(row)` for each row of a JSONL file. Raises InvalidInputError with the first bad line."""
    for number, line in full_lines(path):
        try:
            yield make(orjson.loads(line))
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise InvalidInputError(
                f"{path.name}:{number}: bad {what}", received=line[:80], expected=expected
            ) from error
