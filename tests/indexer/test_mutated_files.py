"""Files of all formats with bytes changed, cut and doubled: each is read, skipped or rejected, soon, and none ends a run."""

from __future__ import annotations

import io
import random
import time
import zipfile
from pathlib import Path

from support.services import SOAK

from hyblink.indexer.readers.files import FileSource
from hyblink.indexer.readers.formats import detect_format

CASES = Path(__file__).parents[1] / "data" / "cases"
TRIES = 20_000 if SOAK else 200
AT_ONCE = 100
_LONGEST_S = 10.0


def seeds() -> list[Path]:
    return sorted(path for path in CASES.rglob("*") if path.is_file() and path.name != "expected.json")


def mutated(data: bytes, draw: random.Random, suffix: str) -> bytes:
    if zipfile.is_zipfile(io.BytesIO(data)) and draw.random() < 0.7:
        out = io.BytesIO()  # what is in an office file, rather than its packing
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
            names = old.namelist()
            chosen = draw.choice(names)
            for name in names:
                inner = old.read(name)
                new.writestr(name, changed(inner, draw) if name == chosen else inner)
        return out.getvalue()
    return changed(data, draw)


def changed(data: bytes, draw: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 5, 20])):
        at = draw.randrange(len(made) + 1)
        match draw.randrange(6):
            case 0:
                made[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                made[at : at + draw.randint(1, 200)] = b""
            case 2:
                made[at:at] = made[at : at + draw.randint(1, 400)] * draw.choice([1, 2, 50])
            case 3:
                made[at:at] = draw.choice([b"\x00", b'"', b"<", b"\xff\xfe", b"&x;", b"{", b"\n", b"\\", b"(" * 300])
            case 4:
                made[at:] = b""
            case _:
                made[at:at] = draw.randbytes(draw.randint(1, 30))
    return bytes(made)


def test_no_file_ends_a_run_or_takes_long(tmp_path: Path) -> None:
    draw = random.Random(26)
    found = seeds()
    seen: dict[str, int] = {}
    for start in range(0, TRIES, AT_ONCE):
        folder = tmp_path / str(start)
        folder.mkdir()
        for number in range(AT_ONCE):
            seed = draw.choice(found)
            name = f"{number:03d}{seed.suffix or '-' + seed.name}"
            (folder / name).write_bytes(mutated(seed.read_bytes(), draw, seed.suffix))
        accounted: set[str] = set()
        last = time.monotonic()
        for item in FileSource(folder, file_seconds=_LONGEST_S).items():
            if item.outcome:
                took, last = time.monotonic() - last, time.monotonic()
                assert took < _LONGEST_S, (item.file, took)
                assert "takes too long" not in str(item.error), item.file
                assert "ended the process" not in str(item.error), (item.file, item.error)
                seen[f"{detect_format(Path(item.file))} {item.outcome}"] = 1
                accounted.add(item.file.partition("/")[0])
        assert accounted == {path.name for path in folder.iterdir()}
    assert sum("read" in one for one in seen) > 10
