"""What an installation knows."""

from __future__ import annotations

from pydantic import BaseModel


class SignalAnswer(BaseModel):
    """A signal. `proposes`: a search can ask for it; the others re-rank, or are for entities alone."""

    name: str
    label: str
    colour: str
    proposes: bool


class SignalsAnswer(BaseModel):
    """Every signal, in the order of the ledger."""

    signals: list[SignalAnswer]


class FormatAnswer(BaseModel):
    """A file format: its name, the suffixes it is recognised by, what is read of it."""

    name: str
    suffixes: list[str]
    about: str


class FormatsAnswer(BaseModel):
    """Every format."""

    formats: list[FormatAnswer]
