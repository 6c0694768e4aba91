"""The reranker: a model of any family that scores (query, passage) pairs within a deadline.

It is loaded in a background thread, so that searches do not wait. On CPUs without bf16 the model runs in int8 on ONNX
Runtime, if that is installed and the settings do not ask for another precision.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np

from hyblink.app.core.errors import EncoderUnavailableError, HyblinkError
from hyblink.app.core.settings import EncodeSettings
from hyblink.app.core.types.arrays import ScoreArray, TokenIdf
from hyblink.app.core.types.ranking import TokenContribution
from hyblink.app.encoders.dense.transformer import cpu_has_bf16, device_of
from hyblink.app.encoders.families import family_of
from hyblink.app.encoders.family import EncoderFamily, PairScorer, RerankerLoader
from hyblink.app.encoders.loading.adapters import CROSS_ENCODER, WEIGHTS, trained
from hyblink.app.encoders.loading.models import identity, weights_version
from hyblink.app.encoders.loading.prefixes import joined
from hyblink.app.encoders.runtimes.availability import NotExportableError, onnx_installed
from hyblink.app.encoders.runtimes.graphs import exported

DEFAULT = WEIGHTS / "late-minilm"
SHIPPED = ("late-minilm", "cross-minilm")
"""The names of the shipped rerankers, which the settings accept instead of a folder."""
_GROUP = 16
"""Pairs are scored in groups of this size, the best candidates first. A group that is cut off gets no scores at all.

Within a group pairs are sorted by length.
"""
_BATCH, _BATCH_ON_GPU = 4, 128
"""Batch sizes in pairs on CPU and GPU. The deadline is checked before each batch. Larger CPU batches are slower."""
log = logging.getLogger(__name__)


class Reranker:
    """The `CrossEncoder` for any reranker model. It is loaded by `load`, or in the background at the first use.

    One thread at a time computes.
    """

    def __init__(self, model: str, settings: EncodeSettings, cache: Path | None = None) -> None:
        """`cache` is the folder for int8 exports of models. Without it int8 is not available."""
        self._model_name = model
        self._settings = settings
        self._cache = cache
        self._loading = threading.Lock()
        self._computing = threading.Lock()
        self._beginning = threading.Lock()
        self._loader: threading.Thread | None = None
        self._failure: HyblinkError | None = None

    @cached_property
    def id(self) -> str:
        return f"cross:{identity(self._model_name)}"

    @property
    def precision(self) -> str:
        """The precision as set. `auto` takes `bf16` on GPUs, and on CPUs with bf16 if the family is fastest with it.

        Otherwise it takes `int8` if ONNX is installed, else `fp32`.
        """
        if self._settings.cross_encoder_precision != "auto":
            return self._settings.cross_encoder_precision
        if device_of(self._settings).startswith("cuda") or (cpu_has_bf16() and self._loader_of_family.bf16_on_cpu):
            return "bf16"
        return "int8" if self._cache is not None and onnx_installed() else "fp32"

    @cached_property
    def _family(self) -> EncoderFamily:
        return family_of(self._model_name, CROSS_ENCODER)

    @cached_property
    def _loader_of_family(self) -> RerankerLoader:
        """The loader of the model's family. Raises EncoderUnavailableError if the family has no rerankers."""
        family = self._family
        if family.reranker is None:
            raise EncoderUnavailableError(
                "not a cross-encoder", received=family.kind, expected="a cross-encoder or late interaction"
            )
        return family.reranker

    @cached_property
    def _loaded(self) -> PairScorer:
        tokens = self._settings.cross_encoder_tokens
        loader = self._loader_of_family
        as_graph = self._family.graph != "" or self._settings.cross_encoder_precision == "int8"
        if self.precision == "int8" and as_graph:
            if self._cache is None:
                raise EncoderUnavailableError("int8 needs a folder for the model's int8 form", received="none")
            try:
                return loader.in_graph(self._model_name, exported(self._model_name, self._kept()), tokens)
            except NotExportableError as error:
                if self._settings.cross_encoder_precision == "int8":
                    raise
                log.warning("re-ranking is computed in fp32: %s", error)
        device = device_of(self._settings)
        bf16 = self.precision == "bf16"
        return loader.in_torch(self._model_name, device, tokens, bf16=bf16, batch=self.batch)

    @property
    def batch(self) -> int:
        """The number of pairs in one forward pass."""
        return _BATCH_ON_GPU if device_of(self._settings).startswith("cuda") else _BATCH

    def _kept(self) -> Path:
        """The folder of the int8 export. Its name includes the version of the weights."""
        assert self._cache is not None
        name = self.id.replace(":", "-").replace("/", "-")
        folder = Path(self._model_name).expanduser()
        if folder.is_dir() and not trained(self._model_name):
            name += f"-{weights_version(folder)}"
        return self._cache / f"{name}-int8"

    def load(self) -> None:
        """Load the model now and wait for it. Raises EncoderUnavailableError if it cannot be loaded."""
        with self._loading, _as_unavailable(f"cannot load the cross-encoder {self._model_name!r}"):
            _ = self._loaded

    def _load_beside(self) -> None:
        """Load the model in a background thread. Raises the error of an earlier attempt once, then tries again."""

        def load() -> None:
            try:
                self.load()
            except HyblinkError as error:
                self._failure = error

        with self._beginning:
            if self._failure is not None:  # reported once; the next search tries again
                failure, self._failure, self._loader = self._failure, None, None
                raise failure
            if self._loader is None:
                self._loader = threading.Thread(target=load, name="hyblink-cross-encoder", daemon=True)
                self._loader.start()

    def score(
        self, query: str, passages: Sequence[tuple[str, str]], deadline: float, idf: TokenIdf | None = None
    ) -> ScoreArray:
        """One score per (title, text), see `CrossEncoder.score`.

        The first call starts loading the model. Until it is loaded, calls raise EncoderUnavailableError.
        """
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
        if "_loaded" not in self.__dict__:
            self._load_beside()
            raise EncoderUnavailableError("the cross-encoder is being loaded", expected="a search a little later")
        scores = np.full(len(pairs), np.nan, dtype=np.float32)
        # Another thread may be computing: waiting for it counts towards the deadline.
        if not self._computing.acquire(timeout=min(max(0.0, deadline - time.perf_counter()), threading.TIMEOUT_MAX)):
            return scores
        try:
            return self._computed(self._loaded, idf, pairs, scores, deadline, group)
        finally:
            self._computing.release()

    def contributions(
        self, query: str, title: str, text: str, idf: TokenIdf | None = None
    ) -> tuple[TokenContribution, ...]:
        """Each query token's part of the score; empty if the model cannot tell or is not loaded."""
        scorer: PairScorer | None = self.__dict__.get("_loaded")
        if scorer is None:
            return ()
        with self._computing, _as_unavailable("what re-ranks could not explain itself"):
            return scorer.contributions(query, joined(title, text), idf)

    def _computed(
        self,
        scorer: PairScorer,
        idf: TokenIdf | None,
        pairs: Sequence[tuple[str, str]],
        scores: ScoreArray,
        deadline: float,
        group: int,
    ) -> ScoreArray:
        batch_size = self.batch
        for start in range(0, len(pairs), group):
            order = sorted(range(start, min(start + group, len(pairs))), key=lambda at: sum(map(len, pairs[at])))
            for first in range(0, len(order), batch_size):
                if time.perf_counter() >= deadline:
                    scores[order] = np.nan  # otherwise scored short passages would overtake longer, better ones
                    return scores
                batch = order[first : first + batch_size]
                with _as_unavailable("the cross-encoder failed"):
                    scores[batch] = scorer.score([pairs[at] for at in batch], idf)
        return scores


@contextmanager
def _as_unavailable(what: str) -> Iterator[None]:
    """Turn any exception of a model's libraries into EncoderUnavailableError, so that the search goes on without it."""
    try:
        yield
    except HyblinkError:
        raise
    except Exception as error:
        raise EncoderUnavailableError(f"{what}: {type(error).__name__}: {error}") from error
