"""Field types for signals, which are validated against the registry at the time of the request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from hyblink.app.core.types.linking import LINK_SIGNALS
from hyblink.app.core.types.ranking import (
    Signal,
)
from hyblink.ranker.signals.registry import SIGNALS, proposing


class _OneOf:
    """Validates that a signal is registered at the time of the request, and lists the registered ones in OpenAPI."""

    def __init__(self, known: Callable[[], Sequence[Signal]]) -> None:
        self._known = known

    def _check(self, signal: Signal) -> Signal:
        if signal not in self._known():
            raise ValueError(f"unknown signal {signal!r}; expected one of {', '.join(self._known())}")
        return signal

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        del schema, handler
        return {"type": "string", "enum": [signal.value for signal in self._known()]}


Leg = Annotated[Signal, _OneOf(proposing)]

AnySignal = Annotated[Signal, _OneOf(lambda: [row.name for row in SIGNALS.values()])]

LinkSignal = Annotated[Signal, _OneOf(lambda: LINK_SIGNALS)]

Weight = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False, strict=True)]
