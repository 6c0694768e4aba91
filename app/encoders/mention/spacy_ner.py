"""Mention detection by the named entity recogniser of a spaCy pipeline. spaCy (the extra `spacy`) is optional."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any

from hyblink.app.core.budget import check_models
from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.types.linking import Mention

_NO_NAMES = frozenset({"CARDINAL", "DATE", "MONEY", "ORDINAL", "PERCENT", "QUANTITY", "TIME"})
"""OntoNotes labels of numbers and dates, which are not mentions of entities."""
_PIECE_CHARS = 100_000
"""Texts are processed in pieces of this size. spaCy needs about 1 GB per 100,000 characters and refuses a million."""


def installed_pipelines() -> list[str]:
    """The names of the spaCy pipelines installed as packages. spaCy itself is not loaded.

    Requests may name only these, because `spacy.load` would open any path on the server and import any package.
    """
    return sorted(entry_point.name for entry_point in entry_points(group="spacy_models"))


class SpacyDetector:
    """The `SpanDetector` of a spaCy pipeline, loaded at the first use. One thread at a time computes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self.id = f"spacy:{name}"

    @cached_property
    def _pipeline(self) -> Any:
        try:
            import spacy
        except ImportError as error:
            raise EncoderUnavailableError("spaCy is not installed", expected="pip install spacy") from error
        try:
            return spacy.load(self._name)
        except (OSError, ValueError) as error:  # no such pipeline; a folder that holds none, or an older one
            raise EncoderUnavailableError(
                f"spaCy cannot load the pipeline {self._name!r}: {error}", received=self._name,
                expected=f"one of {', '.join(installed_pipelines()) or '(none is installed)'}, or a folder of one",
            ) from error  # fmt: skip

    def detect(self, texts: Sequence[str]) -> list[list[Mention]]:
        return [self._found(text) for text in texts]

    def _found(self, text: str) -> list[Mention]:
        found: list[Mention] = []
        with self._lock:
            for start, piece in pieces(text, _PIECE_CHARS):
                check_models()
                for ent in self._pipeline(piece).ents:
                    name = ent.text.strip()
                    if name and ent.label_ not in _NO_NAMES:
                        at = start + ent.start_char + ent.text.index(name)
                        found.append(Mention(at, at + len(name), name, self.id))
        return found


def pieces(text: str, longest: int) -> Iterator[tuple[int, str]]:
    """(start, piece) of a text split into pieces of at most `longest` characters.

    A piece ends after a newline or a space, if there is one in its second half.

    >>> list(pieces("one two\\nthree four", 10))
    [(0, 'one two\\n'), (8, 'three four')]
    """
    start = 0
    while start < len(text):
        end = min(start + longest, len(text))
        if end < len(text):
            cuts = (text.rfind(sign, start + longest // 2, end) for sign in ("\n", " "))
            end = next((at + 1 for at in cuts if at >= 0), end)
        yield start, text[start:end]
        start = end
