"""Loads cross-encoders with sentence-transformers: by hub name, by folder, or as a LoRA adapter on a base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.manifest import check_manifest
from hyblink.app.encoders.cross_encoder.checks import check_scores
from hyblink.app.encoders.loading.adapters import (
    CROSS_ENCODER_LORA,
    adapter_manifest,
    trained,
)
from hyblink.app.encoders.loading.in_torch import cut_layers, merge_lora
from hyblink.app.encoders.loading.models import locate, quietly


def load_scorer(model: str, device: str, tokens: int) -> Any:
    """A trained CrossEncoder in evaluation mode: a whole model, or a base with a LoRA adapter merged into it.

    Raises EncoderUnavailableError for any other model, such as a bi-encoder, whose scoring layer would be random.
    """
    check_scores(model)
    manifest = trained(model)
    folder = Path(model).expanduser()
    if manifest.get("kind") == CROSS_ENCODER_LORA:
        adapter_manifest(folder, CROSS_ENCODER_LORA)
        made = load_cross_encoder(str(manifest["base"]), device, tokens)
        cut_layers(made[0].model, int(manifest.get("layers", 0)))
        merge_lora(made, folder)
        return made.eval()
    if manifest:
        check_manifest(folder)
    return load_cross_encoder(model, device, tokens).eval()


def load_cross_encoder(name: str, device: str, tokens: int) -> Any:
    """A CrossEncoder with one output and no activation. Its scoring layer is random if the model has none.

    Raises EncoderUnavailableError if the model cannot be loaded.
    """
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
