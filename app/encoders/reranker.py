"""The reranker: a model of any family that scores (query, passage) pairs within a deadline.

It is loaded at the first use, which waits for it: deadlines count from then on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from hyblink.app.core.budget import leave_out
from hyblink.app.core.errors import EncoderUnavailableError, OverBudgetError
from hyblink.app.core.settings import EncodeSettings
from hyblink.app.core.types.arrays import ScoreArray, TokenIdf
from hyblink.app.core.types.ranking import TokenContribution
from hyblink.app.encoders.families import family_of
from hyblink.app.encoders.family import EncoderFamily, PairScorer, RerankerLoader
from hyblink.app.encoders.loading.adapters import CROSS_ENCODER, WEIGHTS
from hyblink.app.encoders.loading.models import identity
from hyblink.app.encoders.loading.once import Once, as_unavailable
from hyblink.app.encoders.loading.prefixes import joined
from hyblink.app.encoders.runtimes.choice import default_precision
from hyblink.app.encoders.runtimes.devices import device_of, on_gpu
from hyblink.app.encoders.runtimes.open import open_in_runtime
from hyblink.app.encoders.runtimes.transformer import Precision

DEFAULT = WEIGHTS / "late-minilm"
SHIPPED = ("late-minilm", "cross-minilm")
"""The names of the shipped rerankers, which the settings accept instead of a folder."""
_SKIPPED = "re-ranking of the later candidates; the report on it has their number"
_GROUP = 16
"""Pairs are scored in groups of this size, the best candidates first. A group that is cut off gets no scores at all.

Within a group pairs are sorted by length.
"""
_BATCH, _BATCH_ON_GPU = 4, 128
"""Pairs on CPU and GPU between two looks at the deadline. In torch they are one forward pass."""


class Reranker:
    """The `CrossEncoder` for any reranker model. It is loaded by `load`, or at the first use.

    One thread at a time computes.
    """

    def __init__(self, model: str, settings: EncodeSettings) -> None:
        self._model_name = model
        self._settings = settings
        self._computing = threading.Lock()
        self._loaded = Once(self._opened, f"the cross-encoder {model!r}")

    @cached_property
    def id(self) -> str:
        return f"cross:{identity(self._model_name)}"

    @cached_property
    def precision(self) -> Precision:
        """The precision as set. `auto` takes the model's default, see `default_precision`."""
        return default_precision(self._model_name, self._settings, self._settings.cross_encoder_precision)

    @cached_property
    def _family(self) -> EncoderFamily:
        return family_of(self._model_name, CROSS_ENCODER)

    @cached_property
    def _loader(self) -> RerankerLoader:
        """The loader of the model's family. Raises EncoderUnavailableError if the family has no rerankers."""
        family = self._family
        if family.reranker is None:
            raise EncoderUnavailableError(
                "not a cross-encoder", received=family.kind, expected="a cross-encoder or late interaction"
            )
        return family.reranker

    def _opened(self) -> tuple[PairScorer, int]:
        """The scorer, and the number of pairs that it scores before the deadline is checked again."""
        model, settings, loader = self._model_name, self._settings, self._loader
        tokens, precision = settings.cross_encoder_tokens, self.precision

        def in_torch() -> tuple[PairScorer, int]:
            batch = _BATCH_ON_GPU if on_gpu(settings) else _BATCH
            bf16 = precision == "bf16"
            return loader.in_torch(model, device_of(settings), tokens, bf16=bf16, batch=batch), batch

        return open_in_runtime(
            model, settings, precision,
            in_onnx=lambda of_graph: (loader.in_onnx(model, settings, of_graph, tokens), _BATCH), in_torch=in_torch,
        )  # fmt: skip

    @property
    def batch(self) -> int:
        """The number of pairs that are scored before the deadline is checked again. It loads the model."""
        return self._loaded()[1]

    def load(self) -> None:
        """Load the model now and wait for it. Raises EncoderUnavailableError if it cannot be loaded."""
        self._loaded()

    def score(
        self, query: str, passages: Sequence[tuple[str, str]], deadline: float, idf: TokenIdf | None = None
    ) -> ScoreArray:
        """One score per (title, text), see `CrossEncoder.score`."""
        pairs = [(query, joined(title, text)) for title, text in passages]
        return self._scored(pairs, deadline, _GROUP, idf)

    def score_pairs(self, pairs: Sequence[tuple[str, tuple[str, str]]], deadline: float) -> ScoreArray:
        """The scores of (query, (title, text)) pairs of several queries. If the deadline passes, all are NaN.

        Raises EncoderUnavailableError as `score` does.
        """
        return self._scored([(query, joined(*passage)) for query, passage in pairs], deadline, max(1, len(pairs)), None)

    def _scored(
        self, pairs: Sequence[tuple[str, str]], deadline: float, group: int, idf: TokenIdf | None
    ) -> ScoreArray:
        begun = time.perf_counter()
        scorer, batch_size = self._loaded()
        deadline += time.perf_counter() - begun  # loading does not count
        scores = np.full(len(pairs), np.nan, dtype=np.float32)
        # Another thread may be computing: waiting for it counts towards the deadline.
        if not self._computing.acquire(timeout=min(max(0.0, deadline - time.perf_counter()), threading.TIMEOUT_MAX)):
            return scores
        try:
            return self._computed(scorer, batch_size, idf, pairs, scores, deadline, group)
        finally:
            self._computing.release()

    def contributions(
        self, query: str, title: str, text: str, idf: TokenIdf | None = None
    ) -> tuple[TokenContribution, ...]:
        """Each query token's part of the score; empty if the model cannot tell or is not loaded."""
        loaded = self._loaded.value
        if loaded is None:
            return ()
        with self._computing, as_unavailable("the cross-encoder could not explain its score"):
            return loaded[0].contributions(query, joined(title, text), idf)

    def _computed(
        self,
        scorer: PairScorer,
        batch_size: int,
        idf: TokenIdf | None,
        pairs: Sequence[tuple[str, str]],
        scores: ScoreArray,
        deadline: float,
        group: int,
    ) -> ScoreArray:
        for start in range(0, len(pairs), group):
            order = sorted(range(start, min(start + group, len(pairs))), key=lambda at: sum(map(len, pairs[at])))
            for first in range(0, len(order), batch_size):
                if time.perf_counter() >= deadline:
                    scores[order] = np.nan  # otherwise scored short passages would overtake longer, better ones
                    return scores
                batch = order[first : first + batch_size]
                try:
                    with as_unavailable("the cross-encoder failed"):
                        scores[batch] = scorer.score([pairs[at] for at in batch], idf)
                except OverBudgetError:
                    leave_out(_SKIPPED)
                    scores[order] = np.nan
                    return scores
        return scores
