"""The span family, ELQ (Li et al. 2020): a head that detects and encodes the mentions of a text in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.encoders.loading.adapters import SPAN_HEAD
from hyblink.app.encoders.loading.models import plain_tokenizer, root_of
from hyblink.training.data.rows import TrainingRow
from hyblink.training.families.base import Family, Inputs, Say
from hyblink.training.linking.spans import SpanRow, cut_to, read_spans
from hyblink.training.linking.vectors import EntityVectors
from hyblink.training.load import Loaded
from hyblink.training.run_config import RunConfig

if TYPE_CHECKING:
    from hyblink.training.families.span.trainable import SpanTrainable
from hyblink.training.families.span.config import SpanConfig


class SpanFamily(Family):
    """Span heads, trained together with a LoRA adapter of their backbone."""

    kind = "span"
    config: ClassVar[type[RunConfig]] = SpanConfig
    losses = ("nll",)
    tunings = ("lora",)

    def check_inputs(self, config: RunConfig, inputs: Inputs) -> None:
        """Raises InvalidInputError unless exactly one of entity vectors and `train_entities` is given."""
        together = cast("SpanConfig", config).train_entities
        if bool(inputs.entities) == together:
            raise InvalidInputError(
                "a span head learns against entities' vectors, or with their tower",
                received=f"{len(inputs.entities)} files of vectors, train_entities {together}",
                expected="either --entities FILE or --set train_entities=true",
            )
        super().check_inputs(config, inputs)

    def read(self, path: Path, split: str) -> Sequence[TrainingRow]:
        del split
        return read_spans(path)

    def rows(self, config: RunConfig, loaded: Loaded, say: Say) -> tuple[RunConfig, list[TrainingRow]]:
        """The texts, cut at sentence ends to at most `query_tokens` tokens with special tokens."""
        rows = [row for row in loaded.rows if isinstance(row, SpanRow)]
        made = cut_to(rows, plain_tokenizer(root_of(config.base)), config.query_tokens - 2)
        if len(made) > len(rows):
            longer = f"texts longer than {config.query_tokens} tokens are cut behind sentences"
            say(f"{longer}: {len(rows)} become {len(made)}")
        if config.negatives and not any(row.hard for row in rows):
            say("no mention has wrong candidates: entities drawn at random are learned from")
        return config, list(made)

    def trainable(self, config: RunConfig, inputs: Inputs, beside: Any = None) -> SpanTrainable:
        del beside
        from hyblink.training.families.span.trainable import SpanTrainable

        vectors = EntityVectors(*inputs.entities) if inputs.entities else None
        made = SpanTrainable(cast("SpanConfig", config), vectors)
        if inputs.init_from is not None:
            made.init_from(inputs.init_from)
        return made

    def artifact(self, config: RunConfig) -> str:
        del config
        return SPAN_HEAD
