"""What re-ranks: any cross-encoder by hub name or folder, a LoRA adapter beside a backbone, or late interaction.

On CPUs without bf16 matrix products are computed in int8 by onnxruntime, where that is installed, unless the settings
ask for another precision.
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from hyblink.app.core.errors import CorruptionError, EncoderUnavailableError, HyblinkError
from hyblink.app.core.manifest import check_manifest
from hyblink.app.core.settings import EncodeSettings
from hyblink.app.core.types.arrays import ScoreArray, TermWeights, TokenIdf
from hyblink.app.core.types.ranking import TokenContribution
from hyblink.app.encoders.dense.transformer import cpu_has_bf16, cut_layers, device_of
from hyblink.app.encoders.late_interaction.model import LateInteraction, in_onnx, in_torch
from hyblink.app.encoders.loading.adapters import (
    CROSS_ENCODER,
    CROSS_ENCODER_LORA,
    LATE_INTERACTION,
    WEIGHTS,
    adapter_manifest,
    merge_lora,
    trained,
)
from hyblink.app.encoders.loading.models import identity, locate, onnx_session, quietly, weights_version
from hyblink.app.encoders.loading.prefixes import joined
from hyblink.app.encoders.vdr.bag import BagOfTokens

DEFAULT = WEIGHTS / "late-minilm"
SHIPPED = ("late-minilm", "cross-minilm")
"""What may be named instead of a folder."""
_GROUP = 16
"""Pairs that are scored all or not at all, so that the best come first; within a group they are sorted by length."""
_BATCH, _BATCH_ON_GPU = 4, 128
"""Pairs computed at once, between two looks at the clock; on CPUs more at once are slower, for they fill the caches."""
log = logging.getLogger(__name__)
_Scorer = Callable[[Sequence[tuple[str, str]]], ScoreArray]


class NotExportableError(EncoderUnavailableError):
    """ONNX has no form of this model."""

    code = "not_exportable"


class TransformerCrossEncoder:
    """A cross-encoder with one output, or late interaction. Loaded by `load`, or beside the first use.

    One thread at a time computes.
    """

    def __init__(self, model: str, settings: EncodeSettings, cache: Path | None = None) -> None:
        """`cache` keeps the int8 form of models between starts; without one int8 cannot be had."""
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
        """`bf16` on GPUs, and on CPUs that have it where both texts are read together: there it is as fast as int8, and
        as exact as fp32. `int8` on other CPUs where ONNX is installed, else `fp32`. All this unless set.
        """
        if self._settings.cross_encoder_precision != "auto":
            return self._settings.cross_encoder_precision
        if device_of(self._settings).startswith("cuda") or (cpu_has_bf16() and not self._late):
            return "bf16"
        return "int8" if self._cache is not None and onnx_installed() else "fp32"

    @cached_property
    def _late(self) -> bool:
        return trained(self._model_name).get("kind") == LATE_INTERACTION

    @cached_property
    def _loaded(self) -> _Scorer | LateInteraction:
        late = self._late
        tokens = self._settings.cross_encoder_tokens
        if self.precision == "int8":
            if self._cache is None:
                raise EncoderUnavailableError("int8 needs a folder for the model's int8 form", received="none")
            try:
                form = exported(self._model_name, self._kept())
                return in_onnx(form, tokens) if late else Exported(form, tokens)
            except NotExportableError as error:
                if self._settings.cross_encoder_precision == "int8":
                    raise
                log.warning("re-ranking is computed in fp32: %s", error)
        device = device_of(self._settings)
        if late:
            return in_torch(self._model_name, device, tokens, bf16=self.precision == "bf16")
        model = load_scorer(self._model_name, device, tokens)
        if self.precision == "bf16":
            model.bfloat16()
        return partial(model.predict, batch_size=self.batch, show_progress_bar=False)

    @property
    def batch(self) -> int:
        """How many pairs are computed at once."""
        return _BATCH_ON_GPU if device_of(self._settings).startswith("cuda") else _BATCH

    def _kept(self) -> Path:
        """Where the int8 form of these very weights is kept."""
        assert self._cache is not None
        name = self.id.replace(":", "-").replace("/", "-")
        folder = Path(self._model_name).expanduser()
        if folder.is_dir() and not trained(self._model_name):
            name += f"-{weights_version(folder)}"
        return self._cache / f"{name}-int8"

    def load(self) -> None:
        """Load the model now, so that no search waits for it. Raises EncoderUnavailableError where it cannot be."""
        with self._loading, _as_unavailable(f"cannot load the cross-encoder {self._model_name!r}"):
            _ = self._loaded

    def _load_beside(self) -> None:
        """Load in a thread: whoever searches meanwhile is not kept waiting."""

        def load() -> None:
            try:
                self.load()
            except HyblinkError as error:
                self._failure = error

        with self._beginning:
            if self._failure is not None:  # said once; the next search tries again
                failure, self._failure, self._loader = self._failure, None, None
                raise failure
            if self._loader is None:
                self._loader = threading.Thread(target=load, name="hyblink-cross-encoder", daemon=True)
                self._loader.start()

    @cached_property
    def _vocabulary(self) -> str:
        return BagOfTokens(str(trained(self._model_name).get("base", ""))).id

    def _own(self, idf: TokenIdf | None) -> TermWeights | None:
        """A collection's idf by the vocabulary of late interaction's backbone; None where it is of another."""
        return idf.terms if idf is not None and idf.vocabulary == self._vocabulary else None

    def score(
        self, query: str, passages: Sequence[tuple[str, str]], deadline: float, idf: TokenIdf | None = None
    ) -> ScoreArray:
        """Scores; raises EncoderUnavailableError while the model is being loaded, which the first call begins."""
        pairs = [(query, joined(title, text)) for title, text in passages]
        return self._scored(pairs, deadline, _GROUP, idf)

    def score_pairs(self, pairs: Sequence[tuple[str, tuple[str, str]]], deadline: float) -> ScoreArray:
        """Scores of (query, (title, text)) of several queries, computed together; NaN for all if time runs out.

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
        # Whoever computes now may take longer than this search has: waiting counts as well.
        if not self._computing.acquire(timeout=min(max(0.0, deadline - time.perf_counter()), threading.TIMEOUT_MAX)):
            return scores
        try:
            scorer = self._loaded
            if isinstance(scorer, LateInteraction):
                scorer = partial(scorer.predict, idf=self._own(idf))
            return self._computed(scorer, pairs, scores, deadline, group)
        finally:
            self._computing.release()

    def contributions(
        self, query: str, title: str, text: str, idf: TokenIdf | None = None
    ) -> tuple[TokenContribution, ...]:
        """What each token of the query gave to the score, by late interaction; empty where both are read together."""
        model = self.__dict__.get("_loaded")
        if not isinstance(model, LateInteraction):
            return ()
        with self._computing, _as_unavailable("late interaction failed"):
            return tuple(
                TokenContribution(f"{one.token} → {one.nearest}", one.contribution, one.weight, one.cosine)
                for one in model.alignment(query, joined(title, text), self._own(idf))
            )

    def _computed(
        self, scorer: _Scorer, pairs: Sequence[tuple[str, str]], scores: ScoreArray, deadline: float, group: int
    ) -> ScoreArray:
        batch_size = self.batch
        for start in range(0, len(pairs), group):
            order = sorted(range(start, min(start + group, len(pairs))), key=lambda at: sum(map(len, pairs[at])))
            for first in range(0, len(order), batch_size):
                if time.perf_counter() >= deadline:
                    scores[order] = np.nan  # else short passages of the group would pass longer and better ones
                    return scores
                batch = order[first : first + batch_size]
                with _as_unavailable("the cross-encoder failed"):
                    scores[batch] = scorer([pairs[at] for at in batch])
        return scores


@contextmanager
def _as_unavailable(what: str) -> Iterator[None]:
    """Whatever a model's libraries raise is an encoder that is not available: a search goes on without it."""
    try:
        yield
    except HyblinkError:
        raise
    except Exception as error:
        raise EncoderUnavailableError(f"{what}: {type(error).__name__}: {error}") from error


class Exported:
    """An exported cross-encoder in onnxruntime.

    In int8 each pair is computed by itself: activations are quantised by their range over all that is computed at once,
    so that in a batch a score would depend on its neighbours (by as much as scores differ); on CPUs it is faster, too.
    """

    def __init__(self, folder: Path, tokens: int) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(tokens)
        self._session = onnx_session(folder)

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> ScoreArray:
        return np.array([self._score(one) for one in self._tokenizer.encode_batch(list(pairs))], dtype=np.float32)

    def _score(self, one: Any) -> float:
        given = {"input_ids": one.ids, "attention_mask": one.attention_mask, "token_type_ids": one.type_ids}
        (score,) = self._session.run(None, {name: np.array([ids], dtype=np.int64) for name, ids in given.items()})
        return float(score.item())


def onnx_installed() -> bool:
    """Whether models can be exported and run by ONNX here."""
    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))


def exported(model: str, folder: Path) -> Path:
    """The int8 form of a cross-encoder in `folder`, made there if it is not there whole: about 20 s, once.

    One that an earlier release wrote in another form is made anew.
    """
    from hyblink.app.encoders.runtimes.export import FORMAT, export

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        try:
            current = check_manifest(folder).get("format") == FORMAT
        except (FileNotFoundError, CorruptionError):
            current = False
        if not current:
            shutil.rmtree(folder, ignore_errors=True)
            export(model, folder, kind="cross", int8=True)
    return folder


def load_scorer(model: str, device: str, tokens: int) -> Any:
    """A CrossEncoder that has learned to score: a whole one, or a base with an adapter of ours merged into it.

    Raises EncoderUnavailableError for anything else, such as a bi-encoder: its scores would be random numbers.
    """
    manifest = trained(model)
    folder = Path(model).expanduser()
    if manifest.get("kind") == CROSS_ENCODER_LORA:
        adapter_manifest(folder, CROSS_ENCODER_LORA)
        made = load_cross_encoder(str(manifest["base"]), device, tokens)
        cut_layers(made[0].model, int(manifest.get("layers", 0)))
        merge_lora(made, folder)
        return made.eval()
    if manifest.get("kind", CROSS_ENCODER) != CROSS_ENCODER:
        raise EncoderUnavailableError("not a cross-encoder", received=manifest["kind"], expected="a cross-encoder")
    if manifest:
        check_manifest(folder)
    made = load_cross_encoder(model, device, tokens)
    known = getattr(made[0].model.config, "architectures", None) or []
    if known and not any("SequenceClassification" in name for name in known):
        raise EncoderUnavailableError("not a cross-encoder", received=known, expected="…ForSequenceClassification")
    return made.eval()


def load_cross_encoder(name: str, device: str, tokens: int) -> Any:
    """A CrossEncoder with one output, which may have to learn yet. Raises EncoderUnavailableError where none loads."""
    import torch
    from sentence_transformers import CrossEncoder

    location = locate(name)
    try:
        with quietly():
            return CrossEncoder(
                location,
                device=device,
                max_length=tokens,
                num_labels=1,
                activation_fn=torch.nn.Identity(),
                local_files_only=Path(location).is_dir(),
                model_kwargs={"use_safetensors": True},
            )
    except (OSError, ValueError) as error:
        raise EncoderUnavailableError(f"cannot load the cross-encoder {name!r}: {error}") from error
