"""What makes a model a cross-encoder."""

from __future__ import annotations

from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.manifest import read_json
from hyblink.app.encoders.loading.adapters import CROSS_ENCODER, CROSS_ENCODER_LORA, trained
from hyblink.app.encoders.loading.sources import base_folder


def check_scores(model: str) -> None:
    """Raise EncoderUnavailableError for a model without a trained scoring layer, such as a bi-encoder."""
    kind = trained(model).get("kind", CROSS_ENCODER)
    if kind == CROSS_ENCODER_LORA:
        return
    if kind != CROSS_ENCODER:
        raise EncoderUnavailableError("not a cross-encoder", received=kind, expected="a cross-encoder")
    config = base_folder(model) / "config.json"
    known = read_json(config).get("architectures") or [] if config.is_file() else []
    if known and not any("SequenceClassification" in name for name in known):
        raise EncoderUnavailableError("not a cross-encoder", received=known, expected="…ForSequenceClassification")
