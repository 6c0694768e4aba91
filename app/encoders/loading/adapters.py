"""Trained model folders, such as LoRA adapters and heads. A manifest in the folder names their kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hyblink.app.core.errors import CorruptionError, EncoderUnavailableError
from hyblink.app.core.manifest import MANIFEST, check_manifest, read_json
from hyblink.app.core.process import package_folder
from hyblink.app.encoders.loading.safety import refuse_unsafe

FORMAT = 1
DENSE = "dense"
VDR = "vdr"
VDR_HEAD = "vdr-head"
CROSS_ENCODER = "cross-encoder"
CROSS_ENCODER_LORA = "cross-encoder-lora"
LATE_INTERACTION = "late-interaction"
DENSE_LORA = "dense-lora"
MENTION_LORA = "mention-lora"
SPAN_HEAD = "span-head"
ON_A_BASE = frozenset({DENSE_LORA, MENTION_LORA, SPAN_HEAD, CROSS_ENCODER_LORA, LATE_INTERACTION, VDR_HEAD})
"""The kinds that hold no transformer and tokenizer of their own, but use those of the base that they name."""
WEIGHTS = package_folder() / "app" / "encoders" / "weights"
"""The folder of the shipped models."""


def adapter_manifest(
    folder: Path, kind: str, title: str = "", weights: str = "adapter_model.safetensors"
) -> dict[str, Any]:
    """The manifest of an adapter folder, after all checks: safe files, checksums, kind, format.

    `title` is the adapter's name in error messages, `weights` the required file. Raises EncoderUnavailableError if the
    folder holds no intact adapter of this kind.
    """
    title = title or kind.removesuffix("-lora").removesuffix("-head")
    try:
        refuse_unsafe(folder)
        manifest = check_manifest(folder)
    except FileNotFoundError as error:
        raise EncoderUnavailableError(
            f"no such {title} adapter", received=str(folder), expected="a folder with a manifest.json"
        ) from error
    except (CorruptionError, OSError, ValueError) as error:
        raise EncoderUnavailableError(f"the {title} adapter {folder.name!r} is damaged: {error}") from error
    if manifest.get("kind") != kind or manifest.get("format") != FORMAT:
        raise EncoderUnavailableError(
            f"not a {title} adapter",
            received=f"{manifest.get('kind')}, format {manifest.get('format')}",
            expected=f"{kind}, format {FORMAT}",
        )
    if weights not in manifest["files"] or not all(isinstance(manifest.get(key), str) for key in ("base", "name")):
        raise EncoderUnavailableError(
            f"the {title} adapter {folder.name!r} is not whole", expected=f"a name, a base, and {weights}"
        )
    return manifest


def trained(model: str) -> dict[str, Any]:
    """The manifest of a trained model folder, read without checks; empty for any other model."""
    path = Path(model).expanduser() / MANIFEST
    return read_json(path) if path.is_file() else {}


def adapts_passages(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest is of a LoRA adapter that encodes passages: a dense one, or a span head trained with them."""
    if manifest.get("kind") == SPAN_HEAD:
        config = manifest.get("config")
        return isinstance(config, dict) and config.get("train_entities") is True
    return manifest.get("kind") == DENSE_LORA
