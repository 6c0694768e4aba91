"""Unpacks files that hold other files: archives, mailboxes, and the attachments of mails.

The members are written to a folder of the caller, under names that lead nowhere else. Links and devices are passed
over. What unpacks to more than it may is refused before it fills the disk.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from hyblink.app.core.errors import InvalidInputError, TooLargeError, UserError
from hyblink.indexer.readers.format import Member
from hyblink.indexer.readers.mail import attachments, mbox_messages, msg_attachments

MOST_MEMBERS = 100_000
MOST_BYTES = 4 << 30
_MOST_RATIO, _RATIO_FROM = 200, 64 << 20
_CHUNK = 1 << 20


class _Writer:
    """Writes members to numbered files, with a limit on all of them together."""

    def __init__(self, archive: Path, folder: Path) -> None:
        self._folder = folder
        self._packed = archive.stat().st_size
        self._bytes = self._count = 0

    def write(self, name: str, source: IO[bytes]) -> Member:
        self._count += 1
        if self._count > MOST_MEMBERS:
            raise TooLargeError("the archive has too many files", expected=f"at most {MOST_MEMBERS}")
        inside = safe_name(name)
        # The suffix says how the member is read; its own name may be too long for this file system.
        at = self._folder / f"{self._count:06d}{''.join(Path(inside).suffixes[-2:])[-20:]}"
        with at.open("xb") as out:
            while chunk := source.read(_CHUNK):
                self._bytes += len(chunk)
                if self._bytes > MOST_BYTES or self._bytes > max(_RATIO_FROM, _MOST_RATIO * self._packed):
                    raise TooLargeError(
                        "the archive unpacks to too much",
                        received=f"over {self._bytes} bytes from {self._packed}",
                        expected=f"at most {MOST_BYTES} bytes, and {_MOST_RATIO} times its size",
                    )
                out.write(chunk)
        return Member(inside, at.name)


def safe_name(name: str) -> str:
    """The path of a member without anything that leads out of the archive.

    >>> safe_name("../../etc/passwd"), safe_name("C:\\\\docs\\\\a.txt"), safe_name("/x//y.md")
    ('etc/passwd', 'docs/a.txt', 'x/y.md')
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in {"", ".", ".."}]
    if parts and len(parts[0]) == 2 and parts[0][1] == ":":
        parts = parts[1:]
    return "/".join(parts) or "unnamed"


def unpack_zip(path: Path, folder: Path) -> Iterator[Member]:
    """The files of a zip archive. Encrypted ones are told as errors. Raises InvalidInputError if it is broken."""
    writer = _Writer(path, folder)
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.is_dir() or _is_link(entry):
                    continue
                try:
                    with archive.open(entry) as source:
                        yield writer.write(entry.filename, source)
                except (RuntimeError, NotImplementedError) as error:
                    said = "encrypted" if "password" in str(error) or "encrypted" in str(error) else str(error)
                    yield Member(safe_name(entry.filename), error=said)
                except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
                    yield Member(safe_name(entry.filename), error=f"cannot be unpacked: {error}")
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise InvalidInputError(f"the archive cannot be read: {error}", expected="a whole zip archive") from error


def _is_link(entry: zipfile.ZipInfo) -> bool:
    return (entry.external_attr >> 16) & 0o170000 == 0o120000


def unpack_tar(path: Path, folder: Path) -> Iterator[Member]:
    """The regular files of a tar archive, compressed or not. Raises InvalidInputError if it is broken."""
    writer = _Writer(path, folder)
    try:
        with tarfile.open(path, "r:*") as archive:
            for entry in archive:
                if not entry.isreg():
                    continue
                source = archive.extractfile(entry)
                if source is not None:
                    with source:
                        yield writer.write(entry.name, source)
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as error:
        raise InvalidInputError(f"the archive cannot be read: {error}", expected="a whole tar archive") from error


def unpack_7z(path: Path, folder: Path) -> Iterator[Member]:
    """The files of a 7z archive. Raises InvalidInputError if it is broken, encrypted, or unpacks to too much."""
    import py7zr

    inner = folder / "7z"
    try:
        with py7zr.SevenZipFile(path, "r") as archive:
            if archive.needs_password():
                raise InvalidInputError("the archive is encrypted", expected="an archive without a password")
            listed = [entry for entry in archive.list() if not entry.is_directory]
            size = sum(entry.uncompressed for entry in listed)
            if len(listed) > MOST_MEMBERS or size > max(_RATIO_FROM, _MOST_RATIO * path.stat().st_size):
                raise TooLargeError("the archive unpacks to too much", received=f"{size} bytes")
            if size > MOST_BYTES:
                raise TooLargeError(
                    "the archive unpacks to too much", received=f"{size} bytes", expected=str(MOST_BYTES)
                )
            archive.extractall(inner)  # noqa: S202  # py7zr refuses names that lead out; links are passed over below
    except UserError:
        raise
    except Exception as error:  # the library raises many kinds on a broken archive
        raise InvalidInputError(f"the archive cannot be read: {error}", expected="a whole 7z archive") from error
    for at in sorted(inner.rglob("*")):
        if at.is_file() and not at.is_symlink() and at.resolve().is_relative_to(folder.resolve()):
            yield Member(safe_name(at.relative_to(inner).as_posix()), at.relative_to(folder).as_posix())


def unpack_mbox(path: Path, folder: Path) -> Iterator[Member]:
    """The messages of a mailbox, each as a mail file."""
    for number, message in enumerate(mbox_messages(path), start=1):
        at = folder / f"{number:06d}.eml"
        at.write_bytes(message)
        yield Member(f"{number:06d}.eml", at.name)


def unpack_mail(path: Path, folder: Path) -> Iterator[Member]:
    """The attachments of a mail."""
    yield from _attached(attachments(path.read_bytes()), folder)


def unpack_msg(path: Path, folder: Path) -> Iterator[Member]:
    """The attachments of an Outlook message."""
    yield from _attached(msg_attachments(path.read_bytes()), folder)


def _attached(found: list[tuple[str, bytes]], folder: Path) -> Iterator[Member]:
    taken: set[str] = set()
    for number, (name, data) in enumerate(found, start=1):
        inside = safe_name(name)
        if inside in taken:
            inside = f"{number}-{inside}"
        taken.add(inside)
        at = folder / f"{number:06d}{Path(inside).suffix[-20:]}"
        at.write_bytes(data)
        yield Member(inside, at.name)
