"""The model that a run starts from, and how it is made to learn: adapters, frozen layers, dropout."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, cast

import torch
from torch import nn

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.encoders.dense.transformer import load_sentence_transformer
from hyblink.training.families.adapters import load_adapter
from hyblink.training.run_config import RunConfig


def device() -> str:
    """Where training computes."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_backbone(config: RunConfig) -> Any:
    """The SentenceTransformer that a run starts from. Raises EncoderUnavailableError where it cannot be loaded."""
    torch.manual_seed(config.seed)  # adapters and heads start from random numbers
    return load_sentence_transformer(config.base, device())


def with_lora(transformer: nn.Module, rank: int, extra: Sequence[str] = (), frozen_layers: int = 0) -> nn.Module:
    """The transformer with low-rank adapters in every linear layer but those of the lowest `frozen_layers`.

    Only the adapters learn, and modules named in `extra`.
    """
    from peft import LoraConfig, get_peft_model

    above = [number for number in sorted(_layers(transformer)) if number >= frozen_layers] if frozen_layers else None
    names = {name.rpartition(".")[2] for name, module in transformer.named_modules() if isinstance(module, nn.Linear)}
    targets = sorted(names - {"classifier", "out_proj", "score"} - set(extra))
    wrapped = get_peft_model(
        cast("Any", transformer),
        LoraConfig(
            r=rank,
            lora_alpha=2 * rank,
            lora_dropout=0.0,
            target_modules=targets,
            modules_to_save=list(extra) or None,
            layers_to_transform=above,
        ),
    )
    return cast("nn.Module", wrapped)


_LAYER = re.compile(r"\.layers?\.(\d+)\.")


def _layers(transformer: nn.Module) -> dict[int, list[nn.Parameter]]:
    """The parameters of each numbered layer."""
    found: dict[int, list[nn.Parameter]] = {}
    for name, tensor in transformer.named_parameters():
        if match := _LAYER.search(f".{name}"):
            found.setdefault(int(match.group(1)), []).append(tensor)
    return found


def _embeddings_of(transformer: nn.Module) -> nn.Module:
    """What comes before the layers: the module that holds the word embeddings, unless it holds the layers as well."""
    words: nn.Module = cast("Any", transformer).get_input_embeddings()
    for module in transformer.modules():
        if any(child is words for child in module.children()) and not _layers(module):
            return module
    return words


def prepare(transformer: nn.Module, config: RunConfig, extra: Sequence[str] = ()) -> nn.Module:
    """A transformer as the run's tuning trains it: with adapters or whole, lowest layers frozen, dropout as asked.

    Raises InvalidInputError where every layer would be frozen.
    """
    if config.frozen_layers and config.frozen_layers > max(_layers(transformer), default=-1):
        raise InvalidInputError(
            "no layer is left to train", received=f"frozen_layers {config.frozen_layers}", expected="fewer layers"
        )
    if not config.dropout:
        for module in transformer.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    if config.gradient_checkpointing:
        cast("Any", transformer).gradient_checkpointing_enable()
    if config.tuning == "lora":
        return with_lora(transformer, config.lora_rank, extra, config.frozen_layers)
    if config.frozen_layers:
        _embeddings_of(transformer).requires_grad_(False)
        for number, tensors in _layers(transformer).items():
            for tensor in tensors:
                tensor.requires_grad_(number >= config.frozen_layers)
    return transformer


_Config = TypeVar("_Config", bound=RunConfig)


class OneRate(Generic[_Config]):
    """What bi-encoders and cross-encoders share: everything of the model that may learn does, at one rate."""

    config: _Config
    model: Any
    artifact: ClassVar[str]
    """`kind` in the manifest of an adapter of this form."""
    layers: int = 0
    """Lowest transformer layers that were kept; 0 for all."""

    def parameters(self) -> Mapping[str, nn.Parameter]:
        return {name: tensor for name, tensor in self.model.named_parameters() if tensor.requires_grad}

    def learning_rate(self, name: str) -> float:  # noqa: ARG002
        return self.config.learning_rate

    def train(self, on: bool) -> None:
        self.model.train(on)

    def go_on_from(self, folder: Path) -> None:
        """Begin with an adapter that was trained before. Raises InvalidInputError where it is of another form."""
        load_adapter(self.model[0].model, self.artifact, self.config, folder, self.layers)
