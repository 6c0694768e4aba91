"""BLINK's cross-encoder (Wu et al. 2020, section 4.2): scores a mention in its context with each candidate entity."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from hyblink.app.core.settings import EncodeSettings
from hyblink.app.core.types.arrays import ScoreArray
from hyblink.app.core.types.linking import MentionContext
from hyblink.app.encoders.loading.adapters import WEIGHTS
from hyblink.app.encoders.loading.models import plain_tokenizer
from hyblink.app.encoders.mention.text import marked
from hyblink.app.encoders.reranker import Reranker

DEFAULT = WEIGHTS / "entity-cross-minilm"
_BATCHES = 4
"""Mentions are scored in groups of about this many batches. Pairs of similar length share a batch within a group, and a
group that misses the deadline gets no scores."""


class EntityCrossEncoder:
    """The `EntityCross` of a cross-encoder, such as one trained by `hyblink train blink_cross`.

    `mention_tokens` is the length of a mention with its context, in tokens.
    """

    def __init__(self, model: str, settings: EncodeSettings, *, mention_tokens: int) -> None:
        self._model = model
        self._mention_tokens = mention_tokens
        self._pairs = Reranker(model, settings)
        self._lock = threading.Lock()

    @property
    def id(self) -> str:
        return self._pairs.id

    @cached_property
    def _tokenizer(self) -> Any:
        return plain_tokenizer(self._model)

    def load(self) -> None:
        """Load the model. Raises EncoderUnavailableError if it cannot be loaded."""
        self._pairs.load()

    def score(
        self, mentions: Sequence[MentionContext], entities: Sequence[Sequence[tuple[str, str]]], deadline: float
    ) -> list[ScoreArray]:
        with self._lock:
            queries = marked(self._tokenizer, mentions, self._mention_tokens)
        found: list[ScoreArray] = []
        together: list[tuple[str, tuple[str, str]]] = []
        sizes: list[int] = []
        for at, (query, candidates) in enumerate(zip(queries, entities, strict=True), 1):
            together += [(query, candidate) for candidate in candidates]
            sizes.append(len(candidates))
            if len(together) >= _BATCHES * self._pairs.batch or at == len(queries):
                scores = self._pairs.score_pairs(together, deadline)
                found += np.split(scores, np.cumsum(sizes)[:-1])
                together, sizes = [], []
        return found
