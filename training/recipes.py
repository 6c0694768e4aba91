"""Recipes: named functions that return the configuration of a training run. `--set key=value` changes a field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.registry import Registry
from hyblink.training.families.cross_encoder.config import CrossEncoderConfig
from hyblink.training.families.dense.config import DenseConfig
from hyblink.training.families.late_interaction.config import LateInteractionConfig
from hyblink.training.families.mention.config import MentionConfig
from hyblink.training.families.registry import family_of
from hyblink.training.families.span.config import SpanConfig
from hyblink.training.families.vdr.config import VdrConfig
from hyblink.training.run_config import RunConfig


def vdr() -> VdrConfig:
    """VDR (Zhou et al. 2024): a whole sparse encoder, all weights trained, with the two-way loss."""
    return VdrConfig(
        "vdr", tuning="full", loss="vdr", temperature=1.0, learning_rate=2e-5, batch=32, negatives=1, clip=2.0,
        query_tokens=128, query_top_k=768, precision="bf16",
    )  # fmt: skip


def svdr() -> VdrConfig:
    """Semi-parametric VDR: like `vdr`, with the four-way loss between learned weights and bags of tokens."""
    return replace(vdr(), recipe="svdr", loss="svdr")


def vdr_head() -> VdrConfig:
    """The shipped VDR adapter: a lexical head on a frozen backbone, which the dense signal uses too."""
    return VdrConfig(
        "vdr_head", tuning="head", loss="vdr", temperature=1.0, distil=1.0, steps=600, batch=16, negatives=3,
        head_learning_rate=1e-3, clip=2.0, lexical=True, semantic=False, project=True, own_path=True, tied_norm=True,
        passage_tokens=512,
    )  # fmt: skip


def vdr_again() -> VdrConfig:
    """Continues the training of a VDR head on one collection, with fewer steps and a lower learning rate."""
    return replace(vdr_head(), recipe="vdr_again", steps=200, head_learning_rate=3e-4)


def dense() -> DenseConfig:
    """A bi-encoder with in-batch and hard negatives (Karpukhin et al. 2020), trained as a LoRA adapter."""
    return DenseConfig("dense", learning_rate=2e-4, negatives=1)


def dense_e5() -> DenseConfig:
    """A bi-encoder from E5, with its query and passage prefixes, all weights trained."""
    return DenseConfig("dense_e5", base="intfloat/e5-small-v2", tuning="full", temperature=0.01, negatives=1)


def dense_bge() -> DenseConfig:
    """A bi-encoder in the style of BGE (Xiao et al. 2024): all weights, hard negatives, temperature .05, 512 tokens."""
    return DenseConfig(
        "dense_bge", base="BAAI/bge-small-en-v1.5", tuning="full", negatives=2, passage_tokens=512,
        precision="bf16",
    )  # fmt: skip


def cross_encoder() -> CrossEncoderConfig:
    """A cross-encoder: listwise cross-entropy over a positive and its negatives, LoRA above the third layer."""
    return CrossEncoderConfig(
        "cross_encoder", loss="listwise", learning_rate=5e-4, batch=8, negatives=5, passage_tokens=192,
        steps=400, temperature=1.0, frozen_layers=3, dropout=False,
    )  # fmt: skip


def late_interaction() -> LateInteractionConfig:
    """A late-interaction head: weighted MaxSim (Khattab & Zaharia 2020) on the token states of the lowest three layers.

    The loss adds the first-stage scores, so that the head learns what they lack (`residual`).
    """
    return LateInteractionConfig(
        "late_interaction", tuning="head", loss="listwise", residual=1.0, kept_layers=3, steps=400, batch=16,
        negatives=7, head_learning_rate=3e-4, clip=2.0, temperature=1.0, weight_decay=0.0,
    )  # fmt: skip


def distil() -> DenseConfig:
    """A bi-encoder distilled from the scores of a teacher: KL divergence in addition to the in-batch NLL."""
    return replace(dense(), recipe="distil", distil=1.0, negatives=7)


def blink_bi() -> MentionConfig:
    """BLINK's bi-encoder (Wu et al. 2020, section 4.1): a mention tower, fixed entity vectors, in-batch negatives."""
    return MentionConfig(
        "blink_bi", learning_rate=5e-4, batch=32, negatives=0, query_tokens=96, passage_tokens=256,
        steps=400, frozen_layers=3, dropout=False,
    )  # fmt: skip


def blink_bi_hard() -> MentionConfig:
    """BLINK's second round: like `blink_bi`, with wrong candidates of each mention as hard negatives."""
    return replace(blink_bi(), recipe="blink_bi_hard", negatives=8)


def blink_shared() -> DenseConfig:
    """A bi-encoder whose mention and entity tower share weights. The knowledge base must be re-encoded with it."""
    return DenseConfig(
        "blink_shared", learning_rate=5e-4, batch=32, negatives=2, query_tokens=96, passage_tokens=128, steps=400,
        frozen_layers=3, dropout=False,
    )  # fmt: skip


def blink_cross() -> CrossEncoderConfig:
    """BLINK's cross-encoder (section 4.2): softmax over the entity of a mention and its wrong candidates."""
    return replace(cross_encoder(), recipe="blink_cross", negatives=7, passage_tokens=224, steps=300)


def elq() -> SpanConfig:
    """ELQ (Li et al. 2020): mention detection and span vectors for whole texts; entity vectors are fixed."""
    return SpanConfig(
        "elq", learning_rate=5e-4, head_learning_rate=2e-3, batch=8, negatives=0, query_tokens=256, steps=300,
        frozen_layers=3, dropout=False,
    )  # fmt: skip


RECIPES: Registry[Callable[[], RunConfig]] = Registry("recipe", lambda made: made.__name__)
RECIPES.add(
    vdr,
    svdr,
    vdr_head,
    vdr_again,
    dense,
    dense_e5,
    dense_bge,
    cross_encoder,
    late_interaction,
    distil,
    blink_bi,
    blink_bi_hard,
    blink_shared,
    blink_cross,
    elq,
)


def recipe(name: str, changes: Mapping[str, str] | None = None) -> RunConfig:
    """The checked configuration of a recipe. `changes` maps field names to values as text (`--set key=value`).

    Raises InvalidInputError for an unknown recipe or field, or a bad value.
    """
    config = RECIPES.of(name)()
    hints = get_type_hints(type(config))
    known = {field.name: hints[field.name] for field in fields(config) if field.name not in {"recipe", "kind"}}
    parsed: dict[str, Any] = {}
    for key, value in (changes or {}).items():
        if key not in known:
            raise InvalidInputError(
                f"unknown option of the recipe {name}", received=key, expected=f"one of {', '.join(known)}"
            )
        parsed[key] = _parse(key, value, known[key])
    config = replace(config, **parsed)
    family_of(config).check(config)
    return config


def _parse(key: str, value: str, kind: Any) -> Any:
    choices = get_args(kind)
    if choices:
        if value not in choices:
            raise InvalidInputError(f"bad {key}", received=value, expected=", ".join(choices))
        return value
    try:
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[value.lower()]
        return kind(value)
    except (KeyError, ValueError):
        raise InvalidInputError(f"bad {key}", received=value, expected=getattr(kind, "__name__", str(kind))) from None
