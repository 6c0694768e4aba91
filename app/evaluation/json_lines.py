"""JSONL files of judged things: every problem is named by file and line."""

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
    """What is wrong with a file, gathered, then raised as one error."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._found: list[str] = []

    def add(self, line: int, what: str) -> None:
        """Something wrong in a line, counted from 1."""
        self._found.append(f"{self._name}:{line}: {what}")

    def extend(self, line: int, found: Sequence[str]) -> None:
        """Several things wrong in a line."""
        self._found += [f"{self._name}:{line}: {what}" for what in found]

    def raise_if_any(self) -> None:
        """Raises InvalidInputError naming the first of them."""
        if self._found:
            more = f" (and {len(self._found) - _SHOWN} more)" if len(self._found) > _SHOWN else ""
            raise InvalidInputError("bad training data: " + "; ".join(self._found[:_SHOWN]) + more)


def read_each(path: Path, make: Callable[[int, Any], _Row], what: str, expected: str) -> list[_Row]:
    """What `make` makes of each line's number and row of a `.jsonl[.gz]`; it raises KeyError, TypeError or ValueError.

    Raises NotFoundError where there is no such file, InvalidInputError naming every bad line, or where there is none.
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
    """The first of these files that the folder has. Raises NotFoundError where it has none."""
    for name in names:
        if (path / name).is_file():
            return path / name
    raise NotFoundError("no such file", received=str(path / names[0]))


def full_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number, line) of every line that is not blank. Raises InvalidInputError for one beyond the limits."""
    for number, line in lines(path, MAX_FILE_BYTES):
        if not isinstance(line, bytes):
            raise line
        if line.strip():
            yield number, line


def parsed(path: Path, make: Callable[[Any], _T], what: str, expected: str) -> Iterator[_T]:
    """What `make` makes of each row of a JSONL file. Raises InvalidInputError with the line's number."""
    for number, line in full_lines(path):
        try:
            yield make(orjson.loads(line))
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise InvalidInputError(
                f"{path.name}:{number}: bad {what}", received=line[:80], expected=expected
            ) from error
