"""Routes that list the installed signals and file formats, with their labels."""

from __future__ import annotations

from fastapi import Response

from hyblink.app.access.keys import Role
from hyblink.app.api.answers import json_answer
from hyblink.app.api.dependencies import guarded_router, requires
from hyblink.app.api.schemas.installation import FormatsAnswer, SignalsAnswer
from hyblink.indexer.readers.formats import FORMATS
from hyblink.ranker.signals.registry import SIGNALS

router = guarded_router()


@router.get(
    "/v1/signals",
    tags=["installation"],
    summary="Signals: what they are called and shown as, and which of them propose passages",
    responses={200: {"model": SignalsAnswer}},
    response_model=None,
)
@requires(Role.SEARCH)
def signals() -> Response:

    shown = [
        {"name": row.name, "label": row.label, "colour": row.colour, "proposes": row.leg is not None}
        for row in SIGNALS.values()
    ]
    return json_answer({"signals": shown})


@router.get(
    "/v1/formats",
    tags=["installation"],
    summary="File formats that can be ingested",
    responses={200: {"model": FormatsAnswer}},
    response_model=None,
)
@requires(Role.SEARCH)
def formats() -> Response:

    shown = [{"name": row.name, "suffixes": list(row.suffixes), "about": row.about} for row in FORMATS.values()]
    return json_answer({"formats": shown})
