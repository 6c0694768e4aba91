"""What the tests of the file readers share: a check of sections, and zip archives made by hand."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from hyblink.indexer.readers.format import WholeFile

BOMB = (
    '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">'
    '<!ENTITY f SYSTEM "file:///etc/passwd"><!ENTITY u SYSTEM "http://127.0.0.1:9/x">]>'
)


def check(file: WholeFile) -> list[tuple[str, str, str]]:
    """(place, path, first line) of each section. They are in order, the first at 0, each begins where a block does."""
    starts = [section.start for section in file.sections]
    assert starts == sorted(set(starts))
    assert not starts or starts[0] == 0
    for section in file.sections:
        assert section.start == 0 or file.text[section.start - 2 : section.start] == "\n\n"
        assert file.text[section.start] != "\n"
    assert file.text == file.text.strip()
    assert "\n\n\n" not in file.text
    assert all(line == line.rstrip() for line in file.text.split("\n"))
    json.dumps([file.text, file.title, file.metadata]).encode()
    file.text.encode()
    return [(s.place, " > ".join(s.path), file.text[s.start :].split("\n")[0]) for s in file.sections]


def zipped(parts: dict[str, str | bytes]) -> bytes:
    """A zip archive of the parts."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return out.getvalue()


def parts_of(data: bytes) -> dict[str, str | bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def saved(document: Any) -> bytes:
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()
