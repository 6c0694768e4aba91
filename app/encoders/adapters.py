"""Small models of ours beside a backbone: folders with a manifest that says of which kind they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.core.errors import EncoderUnavailableError
from app.core.manifest import check_manifest

FORMAT = 1
VDR_HEAD = "vdr-head"
CROSS_ENCODER_LORA = "cross-encoder-lora"
_SHOWN = {VDR_HEAD: "VDR", CROSS_ENCODER_LORA: "cross-encoder"}
WEIGHTS = Path(__file__).parent / "weights"
"""What is shipped."""


def adapter_manifest(folder: Path, kind: str) -> dict[str, Any]:
    """The checked manifest. Raises EncoderUnavailableError where the folder holds no adapter of this kind."""
    try:
        manifest = check_manifest(folder)
    except FileNotFoundError as error:
        raise EncoderUnavailableError(
            f"no such {_SHOWN[kind]} adapter", received=str(folder), expected="a folder with a manifest.json"
        ) from error
    if manifest.get("kind") != kind or manifest.get("format") != FORMAT:
        raise EncoderUnavailableError(
            f"not a {_SHOWN[kind]} adapter",
            received=f"{manifest.get('kind')}, format {manifest.get('format')}",
            expected=f"{kind}, format {FORMAT}",
        )
    return manifest
