"""Lists the files below a folder, and says of everything that is left out why."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_JUNK = frozenset({"thumbs.db", "desktop.ini", "icon\r"})
_JUNK_FOLDERS = frozenset({"__macosx", "$recycle.bin", "system volume information", "__pycache__"})
_LONGEST_NAME = 440


@dataclass(frozen=True, slots=True)
class Found:
    """A file below a folder: its name there, safe to show, and its path; or `why` it is not read."""

    name: str
    path: Path
    why: str = ""
    broken: bool = False
    """Whether it cannot be read, rather than is left out."""


def walk(root: Path) -> list[Found]:
    """Everything below a folder, sorted by name. Links are followed, each folder once."""
    return sorted(_walked(root), key=lambda one: one.name)


def _walked(root: Path) -> Iterator[Found]:
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                yield Found(shown_name(folder, root), folder, "a link to a folder that is read already")
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            yield Found(shown_name(folder, root), folder, f"cannot be read: {error.strerror or error}", broken=True)
            continue
        for entry in entries:
            path = Path(entry.path)
            name = shown_name(path, root)
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError as error:
                yield Found(name, path, f"cannot be read: {error.strerror or error}", broken=True)
                continue
            why = left_out(entry.name, is_folder=is_folder)
            if why:
                yield Found(name, path, why)
            elif is_folder:
                waiting.append(path)
            elif is_file:
                yield Found(name, path)
            elif entry.is_symlink():
                yield Found(name, path, "a link to nothing", broken=True)
            else:
                yield Found(name, path, "no regular file")


def left_out(name: str, *, is_folder: bool) -> str:
    """Why a file or folder of this name is not read; "" if it is."""
    folded = name.casefold()
    if name.startswith("."):
        return f"hidden{' folder' if is_folder else ''}; name it in the command to read it"
    if is_folder:
        return "a folder of the system" if folded in _JUNK_FOLDERS else ""
    if name.startswith("~$") or folded.endswith((".lock", "~")) or (name.startswith("#") and name.endswith("#")):
        return "a lock file or a backup of an editor"
    return "a file of the system" if folded in _JUNK else ""


def shown_name(path: Path, root: Path) -> str:
    """The name of a file below `root` as text: unprintable characters and bytes that are no UTF-8 are escaped."""
    return printable(os.fsencode(path.relative_to(root) if path != root else Path(path.name)))


def printable(name: bytes) -> str:
    """A file name as text that can be shown and be an id.

    >>> printable(b"caf\\xe9\\n.txt")
    'caf\\\\xe9\\\\n.txt'
    """
    text = name.decode("utf-8", "backslashreplace")
    if not text.isprintable():
        text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    if len(text) > _LONGEST_NAME:
        text = f"{text[:_LONGEST_NAME]}…{hashlib.sha256(name).hexdigest()[:16]}"
    return text
