"""Cross-encoders: any sentence-transformers model by hub name or folder, or a LoRA adapter beside a shared backbone.

On CPUs the linear layers are computed in int8 (dynamic quantisation) unless the settings ask for another precision.
"""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from app.core.errors import EncoderUnavailableError
from app.core.settings import EncodeSettings
from app.core.types import ScoreArray
from app.encoders.adapters import CROSS_ENCODER_LORA, WEIGHTS, adapter_manifest, merge_lora, trained
from app.encoders.dense import device_of
from app.encoders.models import identity, locate
from app.encoders.prefixes import joined

DEFAULT = WEIGHTS / "cross-minilm"
_GROUP = 32
"""Pairs between two looks at the clock; within a group they are batched by length."""
_BATCH = 16


class TransformerCrossEncoder:
    """A cross-encoder with one output. Loaded at the first use; one thread at a time computes."""

    def __init__(self, model: str, settings: EncodeSettings) -> None:
        self._model_name = model
        self._settings = settings
        self._loading = threading.Lock()
        self._computing = threading.Lock()

    @cached_property
    def _adapter(self) -> dict[str, Any] | None:
        """The manifest where the model is an adapter folder of ours."""
        if trained(self._model_name).get("kind") != CROSS_ENCODER_LORA:
            return None
        return adapter_manifest(Path(self._model_name).expanduser(), CROSS_ENCODER_LORA)

    @cached_property
    def id(self) -> str:
        return f"cross:{identity(self._model_name)}"

    @property
    def precision(self) -> str:
        """`int8` on CPUs, `bf16` on GPUs, unless set."""
        if self._settings.cross_encoder_precision != "auto":
            return self._settings.cross_encoder_precision
        return "bf16" if device_of(self._settings).startswith("cuda") else "int8"

    @cached_property
    def _loaded(self) -> Any:
        import torch

        name = self._adapter["base"] if self._adapter else self._model_name
        model = load_cross_encoder(name, device_of(self._settings), self._settings.cross_encoder_tokens)
        if self._adapter is not None:
            merge_lora(model, Path(self._model_name).expanduser())
        model.eval()
        if self.precision == "bf16":
            model.to(dtype=torch.bfloat16)
        elif self.precision == "int8":
            quantize(model)
        return model

    @property
    def model(self) -> Any:
        """The sentence-transformers CrossEncoder."""
        with self._loading:
            return self._loaded

    def score(self, query: str, passages: Sequence[tuple[str, str]], deadline: float) -> ScoreArray:
        model = self.model
        scores = np.full(len(passages), np.nan, dtype=np.float32)
        pairs = [(query, joined(title, text)) for title, text in passages]
        with self._computing:
            for start in range(0, len(pairs), _GROUP):
                order = sorted(range(start, min(start + _GROUP, len(pairs))), key=lambda at: len(pairs[at][1]))
                for first in range(0, len(order), _BATCH):
                    if time.perf_counter() >= deadline:
                        return scores
                    batch = order[first : first + _BATCH]
                    scores[batch] = model.predict(
                        [pairs[at] for at in batch], batch_size=_BATCH, show_progress_bar=False
                    )
        return scores


def load_cross_encoder(name: str, device: str, tokens: int) -> Any:
    """A sentence-transformers CrossEncoder with one output. Raises EncoderUnavailableError where none loads."""
    import torch
    from sentence_transformers import CrossEncoder
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    location = locate(name)
    reports = logging.getLogger("transformers.modeling_utils")
    level = reports.level
    reports.setLevel(logging.ERROR)  # an output layer that a bi-encoder has not is nothing to report
    try:
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
    finally:
        reports.setLevel(level)


def quantize(model: Any) -> None:
    """Compute the transformer's linear layers in int8, activations quantised as they come."""
    import torch

    transformer = model[0]
    with warnings.catch_warnings():
        # torch announces that this will move to a package of its own; the versions pinned have it.
        warnings.filterwarnings(
            "ignore", message=r".*torch\.ao\.quantization is deprecated", category=DeprecationWarning
        )
        transformer.model = torch.ao.quantization.quantize_dynamic(
            transformer.model, {torch.nn.Linear}, dtype=torch.qint8
        )
