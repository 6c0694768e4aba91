"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CollectionOption = Annotated[str, typer.Option("--collection", "-c", help="The collection.")]
KbOption = Annotated[str, typer.Option("--kb", "-k", help="The knowledge base: a collection of entities.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until everything is encoded.")]
NoteOption = Annotated[str, typer.Option("--note", help="Why.")]
GenerationOption = Annotated[str | None, typer.Option(help="Ask this generation instead of the current one.")]
JudgedMentions = Annotated[Path, typer.Argument(help="Judged mentions: .jsonl[.gz] in BLINK's form.")]
LinkSignalsOption = Annotated[str | None, typer.Option(help="Only these: bm25, vdr, dense, prior; joined by commas.")]
OwnDocumentOption = Annotated[
    bool, typer.Option("--own-document", help="Leave out the entity whose id a row's id begins with, up to ':'.")
]
MentionsLimitOption = Annotated[int | None, typer.Option(min=1, help="Only so many mentions, drawn at random.")]
RECIPES_HELP = "RECIPES"
"""Stands for the recipes that there are when help is shown (`help.py`)."""
FORMAT_HELP = "FORMATS"
"""Stands for the formats that there are when help is shown (`help.py`)."""
FormatOption = Annotated[str | None, typer.Option(help=FORMAT_HELP)]
SIGNALS_HELP = "SIGNALS"
"""Stands for the signals that there are when help is shown."""
SignalsOption = Annotated[str, typer.Option("--signals", "--legs", help=SIGNALS_HELP)]
