"""Files are read in a process of its own: one that hangs, crashes or fills the memory is rejected, the others are read."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from hyblink.indexer.readers.files import FileSource
from hyblink.indexer.readers.format import Format
from hyblink.indexer.readers.formats import FORMATS

EXTENSION = """
import os, signal, sys, time
from hyblink.indexer.readers.format import WholeFile

def read(data):
    said = data.decode().strip()
    if said == "hang":
        time.sleep(600)
    if said == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if said == "memory":
        return WholeFile("", "x" * (4 << 30))
    if said == "raise":
        raise RuntimeError("a library's fault \\udc80")
    if said == "print":
        print("noise " * 10_000)
        print("noise", file=sys.stderr)
    return WholeFile("title", f"said {said} in {os.getpid()}", {"n": 1})
"""


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of files `.odd`, whose format does what the file says."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "odd_format.py").write_text(EXTENSION)
    monkeypatch.syspath_prepend(tmp_path / "code")
    import odd_format  # type: ignore[import-not-found]

    module: ModuleType = odd_format
    FORMATS.add(Format("odd", (".odd",), "does what it says", whole=module.read))
    folder = tmp_path / "files"
    folder.mkdir()
    yield folder
    FORMATS.remove("odd")
    del sys.modules["odd_format"]


def test_one_bad_file_costs_itself_only(odd: Path) -> None:
    for number, what in enumerate(["fine", "hang", "fine", "crash", "print", "memory", "raise", "fine"]):
        (odd / f"{number}-{what}.odd").write_text(what)
    started = time.monotonic()
    found = {item.file: item for item in FileSource(odd, file_seconds=2).items()}
    assert time.monotonic() - started < 60
    said = {name: str(item.error) for name, item in found.items() if item.error}
    assert set(said) == {"1-hang.odd", "3-crash.odd", "5-memory.odd", "6-raise.odd"}
    assert "takes too long to read" in said["1-hang.odd"]
    assert "2 s (ingest.file_time_limit_s)" in said["1-hang.odd"]
    assert f"signal {int(signal.SIGSEGV)}" in said["3-crash.odd"]
    assert "out of memory" in said["5-memory.odd"]
    assert "ingest.file_memory_bytes" in said["5-memory.odd"]
    assert "RuntimeError: a library's fault" in said["6-raise.odd"]
    documents = {name: item.document for name, item in found.items() if item.document}
    assert set(documents) == {"0-fine.odd", "2-fine.odd", "4-print.odd", "7-fine.odd"}
    assert all(document.title == "title" for document in documents.values())
    assert not any(str(os.getpid()) in document.text for document in documents.values())


def test_the_process_is_used_again_and_ends_with_the_run(odd: Path) -> None:
    for number in range(3):
        (odd / f"{number}.odd").write_text("fine")
    texts = [item.document.text for item in FileSource(odd).items() if item.document]
    assert len(texts) == 3
    (pid,) = {int(text.rpartition(" ")[2]) for text in texts}
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    half_read = FileSource(odd).items()
    first = next(half_read).document
    assert first is not None
    half_read.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(first.text.rpartition(" ")[2]), 0)


def test_a_function_that_no_other_process_can_find_is_called_here(odd: Path) -> None:
    from hyblink.indexer.readers.format import WholeFile

    FORMATS.add(Format("local", (".local",), "of this process", whole=lambda data: WholeFile("t", data.decode())))
    try:
        (odd / "a.local").write_text("here")
        (item,) = FileSource(odd / "a.local").items()
        assert item.document is not None
        assert item.document.text == "here"
    finally:
        FORMATS.remove("local")
