"""What the documentation shows is what the commands print."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from support.documentation import ROOT, matches, run, steps

from hyblink.indexer.readers.formats import formats_table

PAGES = ("README.md", "docs/search.md", "docs/linking.md", "docs/how-to.md")


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the pages search the documentation of Python 3.11")
@pytest.mark.parametrize("page", PAGES)
def test_commands_print_what_the_page_shows(page: str, tmp_path: Path) -> None:
    lacking = [tool for tool in ("curl", "jq") if shutil.which(tool) is None]
    if lacking:
        pytest.skip(f"{', '.join(lacking)} is not installed")
    wrong = [
        f"{page}:{step.line}: $ {step.command}\n--- the page shows\n{step.output}\n--- it printed\n{printed}"
        for step, printed in run(ROOT / page, tmp_path)
        if not matches(step.output, printed)
    ]
    assert not wrong, "\n\n".join(wrong)


def test_pages_have_commands() -> None:
    assert all(len(steps(ROOT / page)) >= 3 for page in PAGES)


def test_the_table_of_formats_is_the_registry() -> None:
    assert formats_table() in (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")


def test_links_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").rglob("*.md")]
    broken = []
    for page in pages:
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8")):
            name, _, anchor = target.partition("#")
            to = (page.parent / name).resolve() if name else page
            if not to.exists() or (anchor and anchor not in anchors(to)):
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken


def test_named_files_exist() -> None:
    pages = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").rglob("*.md")]
    named = re.compile(r"`((?:app|indexer|ranker|training|ui|tests|opensearch|docs)/[\w/.-]+)`")
    lost = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in pages
        for name in named.findall(page.read_text(encoding="utf-8"))
        if not (ROOT / name).exists()
    ]
    assert not lost


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_outputs_are_compared() -> None:
    assert matches("3 documents in … s", "3 documents in 0.4 s\n")
    assert matches("a\n…\nz", "a\nb\nc\nz")
    assert not matches("3 documents in … s", "2 documents in 0.4 s")
    assert not matches("", "something")
