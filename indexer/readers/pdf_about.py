"""What a PDF says of itself: its title, author, date and outline, where they are of use."""

from __future__ import annotations

import re
from datetime import date
from itertools import islice
from typing import Any

from hyblink.indexer.readers.pdf_words import without_ligatures

_MOST_BOOKMARKS = 20_000
_NO_TITLE = re.compile(
    r"""
    (?:untitled|unbenannt|sans\ titre|sin\ t[ií]tulo|document|dokument|title|titel|layout|print|presentation|book|
       powerpoint[ -]pr[eéä]s[ea]nt\w*|pr[eéä]s[ea]ntation(?:\ powerpoint)?|slide|folie|diapositive?a?|page|seite|sheet|
       scan|scanned(?:\ document|\ image)?|new\ document|no\ title|none|null|n/a|doc|test|cover|full\ page\ photo)
       [\s\d._()-]*(?:document|page)?[\s\d._()-]*
    | microsoft\s+(?:office\s+)?(?:word|excel|powerpoint|publisher)\b.*
    | .*\.(?:docx?|dotx?|rtf|odt|pages|indd|qxd|qxp|tex|dvi|ps|eps|pdf|pptx?|odp|key|xlsx?|ods|fm|pmd|p65|wpd|ai|cdr|
       html?|php|aspx?|jsp|txt|md|pub|vsdx?|dwg|tiff?|jpe?g|png)(?:\s*[([]?\d*[)\]]?)?
    | (?:[a-z]:\\|\\\\|/|\.{1,2}/|file:|https?:|about:)\S*.*
    | [\W\d_]*
    """,
    re.IGNORECASE | re.VERBOSE,
)
_NO_AUTHOR = re.compile(
    r"(?:anonymous|unknown|unbekannt|user\d*|username|admin\w*|author|autor|owner|root|guest|default|none|null|n/?a|"
    r"microsoft.*|windows user|scanner|unspecified|\(.*\)|[\W\d_]*|\S*[/\\@]\S*)",
    re.IGNORECASE,
)
_DATE = re.compile(r"(?:D:)?\s*(\d{4})-?(\d{2})?-?(\d{2})?")


def title_of(told: str) -> str:
    """The title, or "" if it is what a program wrote: a file name, a path, `untitled`, `Slide 1`."""
    title = " ".join(without_ligatures(told[:2000]).split())
    return "" if _NO_TITLE.fullmatch(title) else title


def author_of(told: str) -> str:
    """The author, or "" if it is none."""
    author = " ".join(without_ligatures(told[:2000]).split())
    return "" if _NO_AUTHOR.fullmatch(author) else author


def date_of(told: str) -> str:
    """The day of a PDF date such as `D:20240131120000Z`, written 2024-01-31; "" if it is none."""
    match = _DATE.match(told.strip())
    if match is None:
        return ""
    try:
        day = date(int(match[1]), int(match[2] or 1), int(match[3] or 1))
    except ValueError:
        return ""
    return day.isoformat() if 1970 < day.year < 2200 else ""  # 1970-01-01 and 1904 are clocks that were not set


def outline(document: Any) -> dict[int, list[tuple[int, str]]]:
    """The bookmarks of each page (from 0), as (level from 0, title), in their order. Empty if there are none."""
    found: dict[int, list[tuple[int, str]]] = {}
    try:
        for mark in islice(document.get_toc(), _MOST_BOOKMARKS):
            target = mark.get_dest()
            page = target.get_index() if target else None
            title = " ".join(without_ligatures(mark.get_title()).split())
            if page is not None and title:
                found.setdefault(page, []).append((mark.level, title[:300]))
    except Exception:  # noqa: BLE001  # a broken outline is no reason to lose the text
        return {}
    return found


def plain(text: str) -> str:
    """The letters and digits of a line or bookmark, to find one by the other."""
    return "".join(character for character in text.casefold() if character.isalnum())
