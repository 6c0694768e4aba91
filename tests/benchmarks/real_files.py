"""`make bench ARGS=files`: files that no one here wrote, out of source packages of the registry: what is read of each format, and how fast.

Packages are downloaded from the index that pip is set to. Of each format at most `MOST` files are taken by lot.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import tarfile
import time
from collections import defaultdict
from pathlib import Path

import httpx

from hyblink.indexer.readers.files import FileSource
from hyblink.indexer.readers.formats import detect_format
from tests.benchmarks.timing import table

PACKAGES = (
    "python-docx", "python-pptx", "openpyxl", "pdfminer.six", "pypdf", "nbformat", "xlrd", "odfpy", "chardet", "docutils",
    "mail-parser", "striprtf", "flask", "pandas", "scikit-learn", "matplotlib", "django", "sphinx", "textract", "rdflib",
    "trafilatura", "jupyter-client", "asciidoc3", "orgparse", "beautifulsoup4", "tablib", "agate",
)  # fmt: skip
MOST, SEED = 25, 26
_UNINTERESTING = ("code", "picture")


def index_url() -> str:
    """The package index that pip is set to."""
    for name in ("PIP_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX"):
        if os.environ.get(name):
            return os.environ[name]
    asked = subprocess.run(
        ["python3", "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "https://pypi.org/simple"


def fetched(name: str, folder: Path) -> Path | None:
    """The newest source package of a project, downloaded once."""
    known = sorted(folder.glob(f"{name}.tar.gz"))
    if known:
        return known[0]
    page = f"{index_url().rstrip('/')}/{re.sub(r'[-_.]+', '-', name).lower()}/"
    with httpx.Client(follow_redirects=True, timeout=120) as client:
        answer = client.get(page)
        links = re.findall(r'href="([^"]+\.tar\.gz)[^"]*"', answer.text) if answer.is_success else []
        if not links:
            return None
        content = client.get(str(httpx.URL(str(answer.url)).join(links[-1])))
        if not content.is_success:
            return None
        path = folder / f"{name}.tar.gz"
        path.write_bytes(content.content)
        return path


def chosen(packages: list[Path], folder: Path) -> list[Path]:
    """At most `MOST` files of each format, unpacked."""
    by_format: dict[str, list[tuple[Path, str]]] = defaultdict(list)
    for package in packages:
        with tarfile.open(package) as archive:
            for member in archive.getmembers():
                kind = detect_format(Path(member.name)) if member.isfile() and member.size else None
                if kind is not None and kind not in _UNINTERESTING:
                    by_format[kind].append((package, member.name))
    draw = random.Random(SEED)
    made = []
    for kind in sorted(by_format):
        for number, (package, name) in enumerate(draw.sample(by_format[kind], min(MOST, len(by_format[kind])))):
            with tarfile.open(package) as archive:
                source = archive.extractfile(name)
                assert source is not None
                path = folder / kind / f"{number:02}-{package.name.removesuffix('.tar.gz')}-{Path(name).name}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(source.read())
                made.append(path)
    return made


def run(_data: Path | None, work: Path, _passages: int) -> None:
    packages = work / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    found = [path for name in PACKAGES if (path := fetched(name, packages)) is not None]
    files = chosen(found, work / "real-files")
    rows, odd = [], []
    totals = [0, 0, 0, 0, 0, 0]
    for folder in sorted({path.parent for path in files}):
        own = [path for path in files if path.parent == folder]
        counts = {"read": 0, "skipped": 0, "rejected": 0}
        titled = texts = placed = documents = 0
        begin = time.perf_counter()
        for item in FileSource(folder).items():
            if item.outcome and "/" not in item.file:  # files in archives are counted as documents only
                counts[item.outcome] += 1
                if item.outcome != "read":
                    odd.append(f"{folder.name}/{item.file}: {item.outcome}: {item.why or item.error}")
            one = item.document
            if one is not None:
                documents += 1
                titled += one.title not in ("", Path(item.file).stem)
                texts += bool(one.text.strip())
                placed += bool(one.sections)
        seconds = time.perf_counter() - begin
        row = [len(own), counts["read"], counts["skipped"], counts["rejected"], documents, titled]
        totals = [a + b for a, b in zip(totals, row, strict=True)]
        rows.append([folder.name, *row, texts, placed, f"{len(own) / seconds:.1f}"])
    heads = [
        "format",
        "files",
        "read",
        "skipped",
        "rejected",
        "documents",
        "own title",
        "with text",
        "with sections",
        "files/s",
    ]
    table(heads, rows)
    names = ("files", "read", "skipped", "rejected", "documents", "with a title of their own")
    print(
        ", ".join(f"{number} {name}" for number, name in zip(totals, names, strict=True)), f"from {len(found)} packages"
    )
    for line in odd:
        print("-", line[:220])
