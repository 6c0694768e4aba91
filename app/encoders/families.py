"""The registry of model families and how to tell a model's family."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from hyblink.app.core.errors import CorruptionError, EncoderUnavailableError
from hyblink.app.core.registry import Registry
from hyblink.app.encoders.cross_encoder.loader import CrossEncoderLoader
from hyblink.app.encoders.family import EncoderFamily
from hyblink.app.encoders.late_interaction.loader import LateInteractionLoader
from hyblink.app.encoders.loading.adapters import (
    CROSS_ENCODER,
    CROSS_ENCODER_LORA,
    DENSE,
    DENSE_LORA,
    LATE_INTERACTION,
    MENTION_LORA,
    SPAN_HEAD,
    VDR,
    VDR_HEAD,
    trained,
)
from hyblink.app.encoders.mention.tower import MentionTower
from hyblink.app.encoders.vdr.adapter import load_adapter
from hyblink.app.encoders.vdr.folders import is_whole_model
from hyblink.app.encoders.vdr.model import load_model

_GRAPHS = "hyblink.app.encoders"

ENCODER_FAMILIES: Registry[EncoderFamily] = Registry("kind of model", lambda family: family.kind)
ENCODER_FAMILIES.add(
    EncoderFamily(DENSE, graph=f"{_GRAPHS}.dense.graph:graph"),
    EncoderFamily(
        DENSE_LORA, mention=MentionTower, graph=f"{_GRAPHS}.dense.graph:graph", adapts="passages"
    ),
    EncoderFamily(VDR, vdr=load_model, graph=f"{_GRAPHS}.vdr.graph:graph_of_model"),
    EncoderFamily(VDR_HEAD, vdr=load_adapter, graph=f"{_GRAPHS}.vdr.graph:graph_of_head"),
    EncoderFamily(
        CROSS_ENCODER, reranker=CrossEncoderLoader(),
        graph=f"{_GRAPHS}.cross_encoder.graph:graph",
    ),
    EncoderFamily(
        CROSS_ENCODER_LORA, reranker=CrossEncoderLoader(),
        graph=f"{_GRAPHS}.cross_encoder.graph:graph",
    ),
    EncoderFamily(
        LATE_INTERACTION, reranker=LateInteractionLoader(),
        graph=f"{_GRAPHS}.late_interaction.graph:graph",
    ),
    EncoderFamily(MENTION_LORA, mention=MentionTower, adapts="mentions"),
    EncoderFamily(SPAN_HEAD),
)  # fmt: skip


def family_of(model: str, otherwise: str) -> EncoderFamily:
    """The family of a model: named by its manifest, else told by its files, else the family named `otherwise`.

    Raises EncoderUnavailableError if the manifest names an unknown family.
    """
    try:
        kind = str(trained(model).get("kind", ""))
    except (CorruptionError, OSError, ValueError):
        kind = otherwise  # the loader will report the damage
    if not kind:
        with suppress(EncoderUnavailableError):  # a sentence-transformers model, but not a VDR model
            kind = VDR if is_whole_model(Path(model).expanduser()) else ""
    family = ENCODER_FAMILIES.get(kind or otherwise)
    if family is None:
        raise EncoderUnavailableError(
            "a kind of model that is not known", received=kind, expected=", ".join(ENCODER_FAMILIES)
        )
    return family
