"""A registry of named items that extensions can add to: signals, file formats, model families, recipes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, TypeVar

from hyblink.app.core.errors import ConflictError, InvalidInputError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A mapping from names to items ("rows"), in the order in which they were added.

    >>> colours = Registry("colour", lambda row: row[0])
    >>> colours.add(("red", 1))
    >>> colours["red"], list(colours)
    (('red', 1), ['red'])
    """

    def __init__(self, what: str, name_of: Callable[[T], str]) -> None:
        """`what` is the word for an item in error messages. `name_of` returns an item's name."""
        self._what = what
        self._name_of = name_of
        self._rows: dict[str, T] = {}

    def add(self, *rows: T) -> None:
        """Add items. Raises ConflictError if a name is taken."""
        for row in rows:
            name = self._name_of(row)
            if name in self._rows:
                raise ConflictError(f"there is a {self._what} of this name", received=name, expected="a new name")
            self._rows[name] = row

    def remove(self, name: str) -> None:
        """Remove an item. Raises InvalidInputError if there is none of that name."""
        self.of(name)
        del self._rows[name]

    @contextmanager
    def added(self, *rows: T) -> Iterator[None]:
        """A context manager that adds items on entry and removes them on exit."""
        self.add(*rows)
        try:
            yield
        finally:
            for row in rows:
                self.remove(self._name_of(row))

    def of(self, name: str) -> T:
        """The item of a name. Raises InvalidInputError, listing the known names, if there is none."""
        try:
            return self._rows[name]
        except KeyError:
            known = ", ".join(self._rows)
            raise InvalidInputError(f"unknown {self._what}", received=name, expected=f"one of {known}") from None

    def __getitem__(self, name: str) -> T:
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)
