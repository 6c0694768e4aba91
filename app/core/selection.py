"""A selection of passages whose rows are at hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hyblink.app.core.types.arrays import BoolArray, IdArray


@dataclass(frozen=True, slots=True)
class RowSelection:
    """The passages of the given rows, which ascend."""

    all_rows: IdArray

    def rows(self) -> IdArray:
        """All of them."""
        return self.all_rows

    def few(self, limit: int) -> IdArray | None:  # noqa: ARG002
        """All of them, however many."""
        return self.all_rows

    def contains(self, rows: IdArray) -> BoolArray:
        """Which of the given rows are among them."""
        return np.isin(rows, self.all_rows)
