"""Loads the base model of a run and prepares it for training: LoRA adapters, frozen layers, dropout."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, cast

import torch
from torch import nn

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.encoders.loading.in_torch import load_sentence_transformer
from hyblink.training.families.adapters import load_adapter
from hyblink.training.run_config import RunConfig


def device() -> str:
    """The torch device for training: "cuda" if available, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_backbone(config: RunConfig) -> Any:
    """Load the SentenceTransformer that a run starts from, and seed torch.

    Raises EncoderUnavailableError if it cannot be loaded.
    """
    torch.manual_seed(config.seed)  # adapters and heads are initialised at random
    return load_sentence_transformer(config.base, device())


def with_lora(transformer: nn.Module, rank: int, extra: Sequence[str] = (), frozen_layers: int = 0) -> nn.Module:
    """Add LoRA adapters to every linear layer except in the lowest `frozen_layers` transformer layers.

    Only the adapters and the modules named in `extra` are trained.
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
    """The parameters of each transformer layer, by its number."""
    found: dict[int, list[nn.Parameter]] = {}
    for name, tensor in transformer.named_parameters():
        if match := _LAYER.search(f".{name}"):
            found.setdefault(int(match.group(1)), []).append(tensor)
    return found


def _embeddings_of(transformer: nn.Module) -> nn.Module:
    """The embedding module: the parent of the word embeddings, or the word embeddings if the parent has the layers."""
    words: nn.Module = cast("Any", transformer).get_input_embeddings()
    for module in transformer.modules():
        if any(child is words for child in module.children()) and not _layers(module):
            return module
    return words


def prepare(transformer: nn.Module, config: RunConfig, extra: Sequence[str] = ()) -> nn.Module:
    """Prepare a transformer for training: LoRA adapters or all weights, frozen layers, dropout, checkpointing.

    `extra` names further modules to train with LoRA. Raises InvalidInputError if every layer would be frozen.
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
    """Shared base of bi-encoders and cross-encoders: all trainable parameters have the same learning rate."""

    config: _Config
    model: Any
    artifact: ClassVar[str]
    """The `kind` in the manifest of adapters of this model."""
    layers: int = 0
    """Number of lowest transformer layers that were kept; 0 for all."""

    def parameters(self) -> Mapping[str, nn.Parameter]:
        return {name: tensor for name, tensor in self.model.named_parameters() if tensor.requires_grad}

    def learning_rate(self, name: str) -> float:  # noqa: ARG002
        return self.config.learning_rate

    def train(self, on: bool) -> None:
        self.model.train(on)

    def init_from(self, folder: Path) -> None:
        """Start from the weights of an earlier adapter. Raises InvalidInputError if it does not fit."""
        load_adapter(self.model[0].model, self.artifact, self.config, folder, self.layers)
