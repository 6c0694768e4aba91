"""The items that every reader yields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hyblink.app.core.errors import UserError
from hyblink.app.core.types.documents import Document

Outcome = Literal["", "read", "skipped", "rejected"]


@dataclass(frozen=True, slots=True)
class SourceItem:
    """A document, the error of a row that could not be read, or only what became of a file.

    `line` is the line or row of the item in its file, from 1. It is 0 if the whole file is one document. `position` is
    passed to `items(after=…)` to resume after this item. `raw` is the beginning of a rejected row.

    The last item of a file has its `outcome`; `why` says why it was skipped.
    """

    file: str
    line: int
    position: str
    document: Document | None = None
    error: UserError | None = None
    raw: str = ""
    outcome: Outcome = ""
    why: str = ""

    @property
    def is_row(self) -> bool:
        """Whether it is a document or an error, and not only what became of a file."""
        return self.document is not None or self.error is not None
