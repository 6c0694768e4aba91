"""What sources have in common whose files are fetched one by one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from hyblink.app.core.errors import HyblinkError, InvalidInputError, NotFoundError
from hyblink.indexer.readers.files import FileSource
from hyblink.indexer.readers.isolated import IsolatedReader
from hyblink.indexer.readers.item import SourceItem
from hyblink.indexer.readers.walk import Found


class Remote(Protocol):
    """A place with files. Another kind of source is one more of these."""

    @property
    def address(self) -> str:
        """Where it is, without passwords. Two with one address are the same source."""
        ...

    def files(self) -> Iterator[tuple[str, str]]:
        """Yield (name, why it is not read or "") of every file. Raises SourceUnavailableError, NotFoundError."""
        ...

    def fetch(self, name: str, path: Path) -> None:
        """Write a file to `path`. Raises NotFoundError if it is gone, another error of ours if it cannot be had now."""
        ...


class RemoteSource(FileSource):
    """Documents of the files of a `Remote`. Files that are gone are skipped, those that cannot be had rejected."""

    def __init__(self, remote: Remote, **reading: Any) -> None:
        """`reading` are the arguments of `FileSource`."""
        self._remote = remote
        self._folder = Path(os.devnull)
        super().__init__(Path(os.devnull), source_id=f"remote:{remote.address}", **reading)

    def items(self, after: str | None = None) -> Iterator[SourceItem]:
        """Yield all items, or only those after `after`; each file is fetched when it is its turn."""
        with tempfile.TemporaryDirectory(prefix="hyblink-source-") as folder:
            self._folder = Path(folder)
            yield from super().items(after)

    @property
    def bytes_total(self) -> int:
        """Not known before the files are fetched: 0."""
        return 0

    def _found(self) -> list[Found]:
        found = []
        for number, (name, why) in enumerate(self._remote.files()):
            suffixes = "".join(Path(name.partition("?")[0]).suffixes[-2:])
            suffix = suffixes if len(suffixes) < 20 and "/" not in suffixes else ""
            found.append(Found(name, self._folder / f"{number}{suffix}", why))
        return sorted(found, key=lambda one: one.name)

    def _outer(self, one: Found, reader: IsolatedReader) -> Iterator[SourceItem]:
        if one.why:
            yield from super()._outer(one, reader)
            return
        try:
            self._remote.fetch(one.name, one.path)
        except NotFoundError as error:
            yield SourceItem(one.name, 0, f"{one.name}:0", outcome="skipped", why=f"gone: {error}")
            return
        except HyblinkError as failure:
            refused = InvalidInputError(f"cannot be had now: {failure.message}", received=failure.received)
            yield SourceItem(one.name, 0, f"{one.name}:0", error=refused, outcome="rejected")
            return
        try:
            yield from super()._outer(one, reader)
        finally:
            one.path.unlink(missing_ok=True)
