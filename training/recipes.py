"""Recipes: a run is a named function that returns a typed configuration; `--set key=value` changes it."""

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
    """VDR: two-way loss over all weights of the model (Zhou et al. 2024)."""
    return VdrConfig(
        "vdr", tuning="full", loss="vdr", temperature=1.0, learning_rate=2e-5, batch=32, negatives=1, clip=2.0,
        query_tokens=128, query_top_k=768, precision="bf16",
    )  # fmt: skip


def svdr() -> VdrConfig:
    """Semi-parametric VDR: four ways between embeddings and bags."""
    return replace(vdr(), recipe="svdr", loss="svdr")


def vdr_head() -> VdrConfig:
    """The shipped VDR adapter: a lexical and a semantic head on a frozen backbone that the dense signal uses too."""
    return VdrConfig(
        "vdr_head", tuning="head", loss="vdr", temperature=1.0, distil=1.0, steps=600, batch=16, negatives=3,
        head_learning_rate=1e-3, clip=2.0, lexical=True, semantic=False, project=True, own_path=True, tied_norm=True,
        passage_tokens=512,
    )  # fmt: skip


def vdr_again() -> VdrConfig:
    """A VDR head that was trained before, fitted to one collection: fewer and smaller steps."""
    return replace(vdr_head(), recipe="vdr_again", steps=200, head_learning_rate=3e-4)


def dense() -> DenseConfig:
    """A bi-encoder with in-batch and given negatives (Karpukhin et al. 2020), as a LoRA adapter."""
    return DenseConfig("dense", learning_rate=2e-4, negatives=1)


def dense_e5() -> DenseConfig:
    """E5's family, with its prefixes, all weights."""
    return DenseConfig("dense_e5", base="intfloat/e5-small-v2", tuning="full", temperature=0.01, negatives=1)


def dense_bge() -> DenseConfig:
    """BGE-style (Xiao et al. 2024): all weights, mined hard negatives, temperature .05, 512 tokens."""
    return DenseConfig(
        "dense_bge", base="BAAI/bge-small-en-v1.5", tuning="full", negatives=2, passage_tokens=512,
        precision="bf16",
    )  # fmt: skip


def cross_encoder() -> CrossEncoderConfig:
    """A cross-encoder by listwise cross-entropy over a positive and its negatives: LoRA in the upper layers."""
    return CrossEncoderConfig(
        "cross_encoder", loss="listwise", learning_rate=5e-4, batch=8, negatives=5, passage_tokens=192,
        steps=400, temperature=1.0, frozen_layers=3, dropout=False,
    )  # fmt: skip


def late_interaction() -> LateInteractionConfig:
    """Weighted MaxSim over the states of the lower layers (Khattab & Zaharia 2020), beside the first stage's scores."""
    return LateInteractionConfig(
        "late_interaction", tuning="head", loss="listwise", residual=1.0, kept_layers=3, steps=400, batch=16,
        negatives=7, head_learning_rate=3e-4, clip=2.0, temperature=1.0, weight_decay=0.0,
    )  # fmt: skip


def distil() -> DenseConfig:
    """A bi-encoder from a teacher's scores: KL divergence beside in-batch NLL."""
    return replace(dense(), recipe="distil", distil=1.0, negatives=7)


def blink_bi() -> MentionConfig:
    """BLINK's bi-encoder (Wu et al. 2020, section 4.1), in-batch negatives: a mention tower beside frozen entities."""
    return MentionConfig(
        "blink_bi", learning_rate=5e-4, batch=32, negatives=0, query_tokens=96, passage_tokens=256,
        steps=400, frozen_layers=3, dropout=False,
    )  # fmt: skip


def blink_bi_hard() -> MentionConfig:
    """BLINK's second round: wrong candidates of a mention among its negatives."""
    return replace(blink_bi(), recipe="blink_bi_hard", negatives=8)


def blink_shared() -> DenseConfig:
    """A bi-encoder whose towers share their weights: entities have to be encoded anew by what it makes."""
    return DenseConfig(
        "blink_shared", learning_rate=5e-4, batch=32, negatives=2, query_tokens=96, passage_tokens=128, steps=400,
        frozen_layers=3, dropout=False,
    )  # fmt: skip


def blink_cross() -> CrossEncoderConfig:
    """BLINK's cross-encoder (section 4.2): softmax over a mention's entity and its wrong candidates."""
    return replace(cross_encoder(), recipe="blink_cross", negatives=7, passage_tokens=224, steps=300)


def elq() -> SpanConfig:
    """ELQ (Li et al. 2020): span heads and span vectors beside frozen entities, over whole texts."""
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
    """A recipe's configuration, with fields changed by text. Raises InvalidInputError naming what is not known."""
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
