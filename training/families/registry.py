"""The registry of all model families that can be trained."""

from __future__ import annotations

from hyblink.app.core.registry import Registry
from hyblink.training.families.base import Family
from hyblink.training.families.cross_encoder.family import CrossEncoderFamily
from hyblink.training.families.dense.family import DenseFamily
from hyblink.training.families.late_interaction.family import LateInteractionFamily
from hyblink.training.families.mention.family import MentionFamily
from hyblink.training.families.span.family import SpanFamily
from hyblink.training.families.vdr.family import VdrFamily
from hyblink.training.run_config import RunConfig

FAMILIES: Registry[Family] = Registry("family of models", lambda family: family.kind)
FAMILIES.add(
    VdrFamily(),
    DenseFamily(),
    CrossEncoderFamily(),
    LateInteractionFamily(),
    MentionFamily(),
    SpanFamily(),
)


def family_of(config: RunConfig) -> Family:
    """The model family of a configuration. Raises InvalidInputError for an unknown one."""
    return FAMILIES.of(config.kind)
