"""Loads models with sentence-transformers, which needs torch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.extras import NEEDS_TORCH
from hyblink.app.encoders.loading.adapters import MENTION_LORA, SPAN_HEAD, adapter_manifest, adapts_passages, trained
from hyblink.app.encoders.loading.models import locate, quietly


def load_sentence_transformer(name: str, device: str) -> Any:
    """A SentenceTransformer by hub name, folder or `package:NAME`. A dense LoRA adapter is merged into its base.

    Raises EncoderUnavailableError if it cannot be loaded.
    """
    manifest = trained(name)
    if adapts_passages(manifest) or manifest.get("kind") in {MENTION_LORA, SPAN_HEAD}:
        folder = Path(name).expanduser()
        adapter_manifest(folder, str(manifest["kind"]))
        model = load_sentence_transformer(str(manifest["base"]), device)
        merge_lora(model, folder)
        return model
    location = locate(name)
    if Path(location).is_dir():
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise EncoderUnavailableError(f"{name!r} in torch needs torch", expected=NEEDS_TORCH) from error
    try:
        with quietly():
            return SentenceTransformer(
                location,
                device=device,
                local_files_only=Path(location).is_dir(),
                model_kwargs={"use_safetensors": True},
            )
    except (OSError, ValueError) as error:
        raise EncoderUnavailableError(f"cannot load the dense model {name!r}: {error}") from error


def merge_lora(model: Any, folder: Path) -> None:
    """Merge a LoRA adapter into a sentence-transformers model, in place. Raises EncoderUnavailableError if it fails."""
    from peft import PeftModel

    transformer = model[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # between peft and transformers: no user can mend it
            transformer.model = PeftModel.from_pretrained(transformer.model, str(folder)).merge_and_unload()
    except (OSError, ValueError, RuntimeError) as error:
        raise EncoderUnavailableError(f"cannot load the adapter {folder.name!r}: {error}") from error


def on_device(features: Mapping[str, Any], device: Any) -> dict[str, Any]:
    """The batch with its tensors moved to a device. Other values stay unchanged."""
    return {name: value.to(device) if hasattr(value, "to") else value for name, value in features.items()}


def cut_layers(transformer: Any, kept: int) -> None:
    """Keep only the lowest `kept` transformer layers, in place; 0 keeps all.

    Raises EncoderUnavailableError if the model is not BERT-like or has fewer layers.
    """
    if not kept:
        return
    encoder = getattr(transformer.base_model, "encoder", None)
    if encoder is None or not 0 < kept <= len(getattr(encoder, "layer", ())):
        raise EncoderUnavailableError(
            "layers cannot be cut off", received=kept, expected="a BERT-like model of at least as many layers"
        )
    encoder.layer = encoder.layer[:kept]
    transformer.config.num_hidden_layers = kept
