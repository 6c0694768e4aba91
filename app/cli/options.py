"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CollectionOption = Annotated[str, typer.Option("--collection", "-c", help="Name of the collection.")]
KbOption = Annotated[str, typer.Option("--kb", "-k", help="Name of the knowledge base (a collection of entities).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
WaitOption = Annotated[
    bool,
    typer.Option(
        "--wait/--no-wait", help="Encode all passages now, or leave it to a server, a worker or `hyblink encode`."
    ),
]
NoteOption = Annotated[str, typer.Option("--note", help="A note that is stored with the generation.")]
GenerationOption = Annotated[
    str | None, typer.Option(help="Id of the generation to search; by default the current one.")
]
JudgedMentions = Annotated[Path, typer.Argument(help="File of judged mentions: .jsonl or .jsonl.gz in BLINK's format.")]
LinkSignalsOption = Annotated[
    str | None, typer.Option(help="Signals to retrieve with, comma-separated: bm25, vdr, dense, prior; by default all.")
]
OwnDocumentOption = Annotated[
    bool,
    typer.Option(
        "--own-document", help="Exclude the entity from whose description a mention was taken (its row id up to ':')."
    ),
]
MentionsLimitOption = Annotated[
    int | None, typer.Option(min=1, help="Largest number of mentions, sampled at random; by default all.")
]
RECIPES_HELP = "RECIPES"
"""A placeholder that `help.py` replaces by the list of registered recipes."""
FORMAT_HELP = "FORMATS"
"""A placeholder that `help.py` replaces by the list of registered formats."""
FilterOption = Annotated[
    str | None, typer.Option(help='Metadata filter as JSON, such as {"term": {"kind": "function"}}.')
]
OcrOption = Annotated[
    bool, typer.Option("--ocr", help="Read pages and pictures without text by Tesseract, which must be installed.")
]
BoilerplateOption = Annotated[
    bool, typer.Option("--keep-boilerplate", help="Read HTML pages with their navigation, banners and footers.")
]
RowsOption = Annotated[bool, typer.Option("--rows", help="Each row of a workbook is a document.")]
PrefixIdsOption = Annotated[
    bool, typer.Option("--prefix-ids", help="Put the source's name before the ids of rows, so that two do not meet.")
]
FormatOption = Annotated[str | None, typer.Option(help=FORMAT_HELP)]
SIGNALS_HELP = "SIGNALS"
"""A placeholder that `help.py` replaces by the list of registered signals."""
SignalsOption = Annotated[str, typer.Option("--signals", "--legs", help=SIGNALS_HELP)]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        help='Fusion weights as JSON, such as {"bm25": 0.4, "dense": 0.6}; by default the ranking profile\'s.'
    ),
]
FusionOption = Annotated[
    str | None,
    typer.Option(help="Fusion: weighted_sum, rrf, comb_sum, comb_mnz or isr; by default the ranking profile's."),
]
NormalizationOption = Annotated[
    str | None,
    typer.Option(
        help="Score normalisation: theoretical, min_max, z_score, l2 or none; by default the ranking profile's."
    ),
]
VdrOption = Annotated[
    str | None,
    typer.Option(
        help="Which of query and passage the VDR encoder encodes: full (both), alpha (passage), beta (query), "
        "bag (neither) or auto; by default the ranking profile's."
    ),
]
