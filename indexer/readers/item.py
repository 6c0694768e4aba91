"""What every reader yields."""

from __future__ import annotations

from dataclasses import dataclass

from hyblink.app.core.errors import UserError
from hyblink.app.core.types.documents import Document


@dataclass(frozen=True, slots=True)
class SourceItem:
    """A document, or why a row is none. `line` counts rows of the file from 1 (0 where the file is one document).

    `position` is where to resume after this item; `raw` is the beginning of a rejected row.
    """

    file: str
    line: int
    position: str
    document: Document | None = None
    error: UserError | None = None
    raw: str = ""
