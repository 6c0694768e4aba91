"""Claims: leases on unencoded passages, by which several processes share the encoding of a generation.

A passage is claimed by one process at a time. A claim expires after its lease, and at once if its owner has died. If
two processes encode a passage nevertheless, it is stored once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from hyblink.app.core.errors import ConflictError, HyblinkError, UnavailableError
from hyblink.app.core.ports.engine import Engine
from hyblink.app.core.ports.jobs import Record, Records
from hyblink.app.core.process import has_died, new_owner
from hyblink.app.core.types.arrays import IdArray, as_rows

KIND = "claim"
BLOCK = 128
"""How many passages are claimed, encoded and written together. Larger blocks, sorted by length, need less padding."""
_TRIES = 100
_PAUSE_S = 0.02


class Claims:
    """The claims of one process on unencoded passages. Each expires after `lease_s` seconds."""

    def __init__(self, records: Records, *, lease_s: float) -> None:
        self._records = records
        self._lease_s = lease_s
        self._owner = new_owner()

    @contextmanager
    def some(self, engine: Engine, most: int) -> Iterator[IdArray]:
        """Claim up to `most` unencoded rows of a generation that no other process has claimed, oldest first.

        Yields the claimed rows, possibly none, and releases the claim afterwards. Raises UnavailableError if too many
        processes claim at once.
        """
        name = f"{engine.record.collection}/{engine.record.id}"
        rows, mark = self._take(engine, name, most)
        try:
            yield rows
        finally:
            if mark:
                self._give_back(name, mark)

    def live(self, engine: Engine) -> bool:
        """Return whether any live process has claimed passages of a generation."""
        found = self._records.get(KIND, f"{engine.record.collection}/{engine.record.id}")
        return bool(found and _alive(found.body["claims"], self._records.time()))

    def _take(self, engine: Engine, name: str, most: int) -> tuple[IdArray, str]:
        for attempt in range(_TRIES):
            found = self._records.get(KIND, name)
            reader = engine.store.reader()  # opened after reading the claims: vectors are stored before a release
            claims = _alive(found.body["claims"], self._records.time()) if found else []
            taken = as_rows([row for claim in claims for row in claim["rows"]])
            rows, after = as_rows([]), 0
            while not len(rows):
                waiting = reader.unencoded(most, after=after)
                if not len(waiting):
                    return rows, ""
                after = int(waiting[-1])
                rows = np.setdiff1d(waiting, taken)
            mark = f"{self._owner} {time.monotonic_ns()}"
            mine = {
                "owner": self._owner,
                "mark": mark,
                "until": self._records.time() + self._lease_s,
                "rows": rows.tolist(),
            }
            try:
                self._put(found, name, [*claims, mine])
            except ConflictError:
                time.sleep(_PAUSE_S * (1 + attempt % 5))
                continue
            return rows, mark
        raise UnavailableError("too many processes claim passages at once", received=name)

    def _give_back(self, name: str, mark: str) -> None:
        for attempt in range(_TRIES):
            found = self._records.get(KIND, name)
            if found is None:
                return
            try:
                self._put(found, name, [item for item in found.body["claims"] if item["mark"] != mark])
            except ConflictError:
                time.sleep(_PAUSE_S * (1 + attempt % 5))
            except HyblinkError:
                return  # the claim expires by itself
            else:
                return

    def _put(self, found: Record | None, name: str, claims: list[dict[str, Any]]) -> None:
        collection = name.partition("/")[0]
        self._records.put(Record(KIND, name, {"claims": claims}, "", collection, found.version if found else 0))


def _alive(claims: list[dict[str, Any]], now: float) -> list[dict[str, Any]]:
    return [claim for claim in claims if claim["until"] > now and not has_died(claim["owner"])]
