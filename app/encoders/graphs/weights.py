"""Reads a model's tensors from safetensors files, and merges LoRA adapters (Hu et al. 2022) into them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize

from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.manifest import read_json
from hyblink.app.encoders.graphs.architectures.architecture import Tensors, unknown
from hyblink.app.encoders.graphs.architectures.known import ARCHITECTURES
from hyblink.app.encoders.graphs.parts import Encoder, Floats

_FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
_OTHERS = {"BOOL": np.bool_, "I64": np.int64, "I32": np.int32, "U8": np.uint8, "I8": np.int8}
_ADAPTER = "adapter_model.safetensors"
_IN_ADAPTERS = "base_model.model."


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model's tensors come from: a base folder, adapters merged in this order, and the layers that are kept."""

    folder: Path
    adapters: tuple[Path, ...] = ()
    layers: int = 0
    """The number of lowest layers; 0: all."""

    def files(self) -> list[Path]:
        """The files that determine the graph."""
        found = [self.folder / "config.json", *_tensor_files(self.folder)]
        for adapter in self.adapters:
            found += [adapter / "adapter_config.json", adapter / _ADAPTER]
        return found


def architecture_of(folder: Path) -> str:
    """`model_type` in a model's configuration; empty if there is none. Raises EncoderUnavailableError."""
    return str(_config(folder).get("model_type", ""))


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise EncoderUnavailableError("the model folder has no config.json", received=folder.name)
    return read_json(path)


def _tensor_files(folder: Path) -> list[Path]:
    """The safetensors files of a model: one, or several that an index lists."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict):
            raise EncoderUnavailableError("the index of the model's tensors is damaged", received=folder.name)
        return [folder / Path(str(name)).name for name in sorted(set(names.values()))]
    path = folder / "model.safetensors"
    if not path.is_file():
        raise unknown("the model folder has no model.safetensors", folder.name)
    return [path]


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All tensors of a safetensors file; those in half precision as float32, integers and booleans as they are.

    Raises EncoderUnavailableError if it is damaged.
    """
    try:
        listed = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except (OSError, SafetensorError) as error:
        raise EncoderUnavailableError(f"cannot read {path.parent.name}/{path.name}: {error}") from error
    found: dict[str, npt.NDArray[Any]] = {}
    for name, item in listed:
        kind, shape = item["dtype"], item["shape"]
        if kind == "BF16":
            wide = np.frombuffer(item["data"], dtype=np.uint16).astype(np.uint32) << 16
            found[name] = wide.view(np.float32).reshape(shape)
        elif kind in _FLOATS:
            values: npt.NDArray[Any] = np.frombuffer(item["data"], dtype=_FLOATS[kind])
            found[name] = values.reshape(shape).astype(np.float32, copy=False)
        elif kind in _OTHERS:
            found[name] = np.frombuffer(item["data"], dtype=_OTHERS[kind]).reshape(shape)
    return found


def read_tensors(path: Path) -> dict[str, Floats]:
    """The floating-point tensors of a safetensors file as float32. Raises EncoderUnavailableError if it is damaged."""
    return {name: values for name, values in read_arrays(path).items() if values.dtype == np.float32}


def encoder_of(source: Source) -> Encoder:
    """The encoder of a model. Raises UnknownGraphError if only torch can run it."""
    config = _config(source.folder)
    architecture = ARCHITECTURES.get(str(config.get("model_type", "")))
    if architecture is None:
        raise unknown("an unknown architecture", config.get("model_type", "none"))

    def plain(tensors: Mapping[str, Floats]) -> dict[str, Floats]:
        return {name.removeprefix(architecture.prefix): values for name, values in tensors.items()}

    arrays: dict[str, Floats] = {}
    for path in _tensor_files(source.folder):
        arrays |= plain(read_tensors(path))
    for adapter in source.adapters:
        _merge(arrays, adapter, architecture.prefix)
    whole = int(config.get("num_hidden_layers", config.get("n_layers", 0)))
    if source.layers > whole:
        raise unknown("more layers than the model has", source.layers)
    try:
        return architecture.encoder(Tensors(arrays), config, source.layers or whole)
    except (KeyError, ValueError, TypeError) as error:
        raise unknown("a configuration that is not understood", f"{source.folder.name}: {error}") from error


def _merge(arrays: dict[str, Floats], folder: Path, prefix: str) -> None:
    """Add ``scaling · B · A`` to each adapted matrix (equation 3 there), and replace tensors that are saved whole."""
    config = read_json(folder / "adapter_config.json")
    if config.get("peft_type") != "LORA" or config.get("use_dora") or config.get("fan_in_fan_out"):
        raise unknown("a kind of adapter that is not plain LoRA", config.get("peft_type"))
    told = read_tensors(folder / _ADAPTER)
    for name, values in told.items():
        module = name.removeprefix(_IN_ADAPTERS).removeprefix(prefix)
        if module.endswith(".lora_A.weight"):
            own = module.removesuffix(".lora_A.weight")
            scale = _scaling(config, own)
            weight, up = arrays.get(f"{own}.weight"), told.get(name.replace(".lora_A.", ".lora_B."))
            if weight is None or up is None or weight.shape != (up.shape[0], values.shape[1]):
                raise EncoderUnavailableError(f"the adapter {folder.name!r} does not fit its base", received=own)
            arrays[f"{own}.weight"] = weight + scale * (up @ values)
        elif ".lora_" not in module:
            arrays[module] = values
        elif not module.endswith(".lora_B.weight"):
            raise unknown("a kind of adapter that is not plain LoRA", module)


def _scaling(config: Mapping[str, Any], module: str) -> np.float32:
    """``alpha / r`` of a module, or ``alpha / √r`` with rank-stabilised LoRA."""
    rank = _of_module(config.get("rank_pattern"), module, config["r"])
    alpha = _of_module(config.get("alpha_pattern"), module, config["lora_alpha"])
    return np.float32(alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank)


def _of_module(pattern: Mapping[str, Any] | None, module: str, otherwise: float) -> float:
    for name, value in (pattern or {}).items():
        if re.fullmatch(rf"(.*\.)?({name})", module):
            return float(value)
    return float(otherwise)
