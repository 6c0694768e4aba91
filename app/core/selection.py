"""A `Selection` that holds its rows in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hyblink.app.core.types.arrays import BoolArray, IdArray


@dataclass(frozen=True, slots=True)
class RowSelection:
    """The `Selection` of the given rows, which ascend."""

    all_rows: IdArray

    def rows(self) -> IdArray:
        """All rows, ascending."""
        return self.all_rows

    def rows_if_at_most(self, limit: int) -> IdArray | None:  # noqa: ARG002
        """All rows, whatever the limit, since they are in memory."""
        return self.all_rows

    def contains(self, rows: IdArray) -> BoolArray:
        """A mask parallel to `rows`: which of them are selected."""
        return np.isin(rows, self.all_rows)
