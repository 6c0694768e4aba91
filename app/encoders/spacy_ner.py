"""Named entities that a spaCy pipeline finds, as mentions. spaCy and its models are installed by whoever wants them."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import Any

from app.core.errors import EncoderUnavailableError
from app.core.linking import Mention


class SpacyDetector:
    """A pipeline by name. Loaded at the first use; one thread at a time computes."""

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
        except OSError as error:
            raise EncoderUnavailableError(
                f"spaCy has no pipeline {self._name!r}", expected=f"python -m spacy download {self._name}"
            ) from error

    def detect(self, text: str) -> list[Mention]:
        with self._lock:
            found = self._pipeline(text)
        return [Mention(one.start_char, one.end_char, one.text, self.id) for one in found.ents]
