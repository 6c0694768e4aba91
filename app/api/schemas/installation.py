"""Bodies that list the installed signals and file formats."""

from __future__ import annotations

from pydantic import BaseModel


class SignalAnswer(BaseModel):
    """A signal. `proposes`: it retrieves candidates of a search; other signals only re-rank, or belong to linking."""

    name: str
    label: str
    colour: str
    proposes: bool


class SignalsAnswer(BaseModel):
    """All signals, in the order in which score explanations list them."""

    signals: list[SignalAnswer]


class FormatAnswer(BaseModel):
    """A file format: its name, its file suffixes, and a description."""

    name: str
    suffixes: list[str]
    about: str


class FormatsAnswer(BaseModel):
    """All file formats."""

    formats: list[FormatAnswer]
