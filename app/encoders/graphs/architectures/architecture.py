"""What an architecture is, and how its file reads the parts of an encoder from a model's tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.extras import NEEDS_TORCH
from hyblink.app.encoders.graphs.parts import Activation, Encoder, Floats, Layer, Linear, Norm, PairHead

_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}


class UnknownGraphError(EncoderUnavailableError):
    """No graph can be built of the model. It can be loaded with torch instead."""

    code = "unknown_graph"


def unknown(what: str, received: object) -> UnknownGraphError:
    """The error of a model that only torch can run, with the way out."""
    return UnknownGraphError(
        f"{what}: ONNX Runtime cannot run this model here",
        received=received,
        expected=NEEDS_TORCH,
    )


@dataclass(frozen=True, slots=True)
class LayerNames:
    """The names of a layer's parts in a model's tensors."""

    query: str
    key: str
    value: str
    output: str
    attention_norm: str
    widen: str
    narrow: str
    norm: str


class Tensors:
    """A model's tensors by name, as float32 arrays, below an optional prefix."""

    def __init__(self, arrays: Mapping[str, Floats]) -> None:
        self._arrays = arrays

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def __getitem__(self, name: str) -> Floats:
        found = self._arrays.get(name)
        if found is None:
            raise unknown("a tensor is missing", name)
        return found

    def linear(self, name: str) -> Linear:
        """The linear layer of this name; its matrix is stored as (outputs, inputs)."""
        weight = np.ascontiguousarray(self[f"{name}.weight"].T)
        bias = self._arrays.get(f"{name}.bias")
        return Linear(weight, np.zeros(weight.shape[1], dtype=np.float32) if bias is None else bias)

    def norm(self, name: str) -> Norm:
        """The layer normalisation of this name. Old files call its tensors `gamma` and `beta`."""
        if f"{name}.gamma" in self._arrays:
            return Norm(self[f"{name}.gamma"], self[f"{name}.beta"])
        return Norm(self[f"{name}.weight"], self[f"{name}.bias"])

    def layer(self, at: str, names: LayerNames) -> Layer:
        """The layer below `at`, whose parts have these names."""
        return Layer(
            query=self.linear(f"{at}.{names.query}"),
            key=self.linear(f"{at}.{names.key}"),
            value=self.linear(f"{at}.{names.value}"),
            output=self.linear(f"{at}.{names.output}"),
            attention_norm=self.norm(f"{at}.{names.attention_norm}"),
            widen=self.linear(f"{at}.{names.widen}"),
            narrow=self.linear(f"{at}.{names.narrow}"),
            norm=self.norm(f"{at}.{names.norm}"),
        )

    def pair_head(self, dense: str, activation: Activation, output: str) -> PairHead | None:
        """The scoring layer of a cross-encoder, if the model has one."""
        if f"{output}.weight" not in self._arrays:
            return None
        return PairHead(self.linear(dense), activation, self.linear(output))


def activation(name: object) -> Activation:
    """The activation of this name in a configuration. Raises UnknownGraphError for one that is not known."""
    found = _ACTIVATIONS.get(str(name))
    if found is None:
        raise unknown("an unknown activation", name)
    return found


@dataclass(frozen=True, slots=True)
class Architecture:
    """An entry of the registry."""

    kind: str
    """`model_type` in the model's configuration."""
    prefix: str
    """The name of the encoder inside larger models, such as `bert.`."""
    encoder: Callable[[Tensors, Mapping[str, Any], int], Encoder]
    """Makes the encoder of tensors, configuration and number of layers to keep."""
