"""What is begun again and again: a collection's retraining, every so many hours."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hyblink.app.core.errors import ConflictError, InvalidInputError, NotFoundError
from hyblink.app.core.ports.work import Record, Records

_KIND = "schedule"
_LEAST_H, _MOST_H = 0.25, 24.0 * 366
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Schedule:
    """Every `every_hours` a retraining with these parameters; `next` is in seconds since 1970."""

    collection: str
    every_hours: float
    params: Mapping[str, Any]
    by: str
    next: float


class Schedules:
    """One schedule of a collection, kept as records."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def set(self, collection: str, every_hours: float, params: Mapping[str, Any], by: str = "") -> Schedule:
        """Begin so many hours from now, then as often. Raises InvalidInputError for an interval out of range."""
        if not _LEAST_H <= every_hours <= _MOST_H:
            raise InvalidInputError(
                "every_hours is out of range", received=every_hours, expected=f"{_LEAST_H:g} to {_MOST_H:g}"
            )
        made = Schedule(collection, every_hours, params, by, time.time() + every_hours * 3600)
        self._records.add([Record(_KIND, collection, _body(made), collection=collection)])
        return made

    def get(self, collection: str) -> Schedule:
        """Raises NotFoundError where there is none."""
        found = self._records.get(_KIND, collection)
        if found is None:
            raise NotFoundError("nothing is scheduled", received=collection)
        return Schedule(collection, **found.body)

    def remove(self, collection: str) -> None:
        """Raises NotFoundError where there is none."""
        if not self._records.remove(_KIND, [collection]):
            raise NotFoundError("nothing is scheduled", received=collection)

    def put_off(self, one: Schedule) -> None:
        """Begin it with the next look: it was taken, and could not begin."""
        self._records.add([Record(_KIND, one.collection, _body(one), collection=one.collection)])

    def take_due(self, now: float) -> Sequence[Schedule]:
        """What is to begin now. Each is given to one caller only, however many ask."""
        taken = []
        for record in self._records.list(_KIND, limit=_PAGE):
            one = Schedule(record.id, **record.body)
            if one.next > now:
                continue
            later = Schedule(one.collection, one.every_hours, one.params, one.by, now + one.every_hours * 3600)
            try:
                self._records.put(
                    Record(_KIND, record.id, _body(later), record.state, record.collection, record.version)
                )
            except ConflictError:
                continue
            taken.append(one)
        return taken


def _body(one: Schedule) -> dict[str, Any]:
    body = asdict(one)
    del body["collection"]
    return body
