"""Schedules: retrain a collection every so many hours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hyblink.app.core.errors import ConflictError, InvalidInputError, NotFoundError
from hyblink.app.core.ports.jobs import Record, Records

_KIND = "schedule"
_LEAST_H, _MOST_H = 0.25, 24.0 * 366
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Schedule:
    """A retraining with these parameters every `every_hours` hours, next due at `next` (in seconds since 1970)."""

    collection: str
    every_hours: float
    params: Mapping[str, Any]
    by: str
    next: float


class Schedules:
    """The schedules of all collections, at most one for each, stored as records."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def set(self, collection: str, every_hours: float, params: Mapping[str, Any], by: str = "") -> Schedule:
        """Store a collection's schedule; the first run is due in `every_hours` hours.

        Raises InvalidInputError for an interval out of range.
        """
        if not _LEAST_H <= every_hours <= _MOST_H:
            raise InvalidInputError(
                "every_hours is out of range", received=every_hours, expected=f"{_LEAST_H:g} to {_MOST_H:g}"
            )
        made = Schedule(collection, every_hours, params, by, self._records.time() + every_hours * 3600)
        self._records.add([Record(_KIND, collection, _body(made), collection=collection)])
        return made

    def get(self, collection: str) -> Schedule:
        """Return a collection's schedule. Raises NotFoundError if it has none."""
        found = self._records.get(_KIND, collection)
        if found is None:
            raise NotFoundError("nothing is scheduled", received=collection)
        return Schedule(collection, **found.body)

    def remove(self, collection: str) -> None:
        """Delete a collection's schedule. Raises NotFoundError if it has none."""
        if not self._records.remove(_KIND, [collection]):
            raise NotFoundError("nothing is scheduled", received=collection)

    def put_off(self, schedule: Schedule) -> None:
        """Make a schedule due again, after it was taken but its job could not be started."""
        self._records.add([Record(_KIND, schedule.collection, _body(schedule), collection=schedule.collection)])

    def take_due(self, now: float) -> Sequence[Schedule]:
        """Return the schedules that are due at `now`, and set their next time.

        Of several processes that call this at once, only one gets each schedule.
        """
        taken = []
        for record in self._records.list(_KIND, limit=_PAGE):
            schedule = Schedule(record.id, **record.body)
            if schedule.next > now:
                continue
            later = Schedule(
                schedule.collection,
                schedule.every_hours,
                schedule.params,
                schedule.by,
                now + schedule.every_hours * 3600,
            )
            try:
                self._records.put(
                    Record(_KIND, record.id, _body(later), record.state, record.collection, record.version)
                )
            except ConflictError:
                continue
            taken.append(schedule)
        return taken


def _body(schedule: Schedule) -> dict[str, Any]:
    body = asdict(schedule)
    del body["collection"]
    return body
