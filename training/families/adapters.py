"""Writes LoRA adapters to folders and loads earlier ones to continue training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hyblink.app.core.errors import EncoderUnavailableError, InvalidInputError
from hyblink.app.encoders.loading.adapters import adapter_manifest
from hyblink.training.run_config import RunConfig


def earlier_manifest(
    folder: Path, kind: str, title: str = "", weights: str = "adapter_model.safetensors"
) -> dict[str, Any]:
    """The manifest of an earlier model to continue from. Raises InvalidInputError if the folder has no such model."""
    try:
        return adapter_manifest(folder, kind, title, weights)
    except EncoderUnavailableError as error:
        raise InvalidInputError(
            f"cannot go on from it: {error}", received=error.received, expected=error.expected
        ) from error


def load_adapter(transformer: Any, kind: str, config: RunConfig, folder: Path, layers: int = 0) -> None:
    """Load the weights of an earlier LoRA adapter into a transformer that has adapters.

    `layers` is the number of layers the transformer was cut to, 0 for all. Raises InvalidInputError if base model,
    layers or shapes differ.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    manifest = earlier_manifest(folder, kind)
    form = {"base": str(manifest["base"]), "layers": int(manifest.get("layers", 0))}
    wanted = {"base": config.base, "layers": layers}
    tensors = load_file(folder / "adapter_model.safetensors")
    own = {name: tensor.shape for name, tensor in get_peft_model_state_dict(transformer).items()}
    if form != wanted or own != {name: tensor.shape for name, tensor in tensors.items()}:
        raise InvalidInputError(
            "the earlier adapter is of another form",
            received=f"{form}, {len(tensors)} tensors",
            expected=f"{wanted}, {len(own)} tensors; the same lora_rank and frozen_layers",
        )
    set_peft_model_state_dict(transformer, {name: tensor.float() for name, tensor in tensors.items()})


def files_of(folder: Path) -> list[str]:
    """The relative paths of all files below a folder, sorted."""
    return [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]


def save_adapter(transformer: Any, base: str, folder: Path, *, half: bool = False) -> list[str]:
    """Write the LoRA adapter of a model into `folder`; returns the file names. With `half`, in float16."""
    for known in transformer.peft_config.values():
        known.base_model_name_or_path = base  # not the local path of the base model
    if half:
        transformer.half()
    transformer.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    if half:
        transformer.float()
    (folder / "README.md").unlink(missing_ok=True)
    return ["adapter_model.safetensors", "adapter_config.json"]
