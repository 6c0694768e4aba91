"""The item that every reader yields."""

from __future__ import annotations

from dataclasses import dataclass

from hyblink.app.core.errors import UserError
from hyblink.app.core.types.documents import Document


@dataclass(frozen=True, slots=True)
class SourceItem:
    """A document, or the error of a row that could not be read. Exactly one of `document` and `error` is set.

    `line` is the line or row of the item in its file, from 1. It is 0 if the whole file is one document. `position` is
    passed to `items(after=…)` to resume after this item. `raw` is the beginning of a rejected row.
    """

    file: str
    line: int
    position: str
    document: Document | None = None
    error: UserError | None = None
    raw: str = ""
