"""Exports models to ONNX, for servers without Python and for int8 on CPUs. It needs the extra `train`."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hyblink.app.core.errors import ConflictError, EncoderUnavailableError, HyblinkError, InvalidInputError
from hyblink.app.core.manifest import write_manifest
from hyblink.app.encoders.families import family_of
from hyblink.app.encoders.family import Graph
from hyblink.app.encoders.loading.adapters import trained
from hyblink.app.encoders.loading.models import identity, tokenizer_file
from hyblink.app.encoders.runtimes.availability import NotExportableError, int8_weight_bits, onnx_installed

FORMAT = 3
"""The version of exported graphs and their manifests. Exports of another version are made again."""
OPSET = 18


def export(model: str, out: Path, *, kind: str = "", int8: bool = False) -> dict[str, Any]:
    """Write `model.onnx`, the tokenizer and a manifest into the new folder `out`, and return the manifest.

    `model` is a model's name as in the settings. `kind` (`vdr`, `dense`, `cross`) is needed for a model without a
    manifest. With `int8`, matrix products are quantised: weights per channel, with as many bits as this CPU multiplies
    exactly, and activations dynamically. Raises ConflictError if `out` exists, EncoderUnavailableError if the extra is
    not installed or the model cannot be loaded, and its subclass NotExportableError if ONNX cannot express the model.
    """
    if out.exists():
        raise ConflictError("the folder exists already", received=str(out), expected="a new folder")
    if not onnx_installed():
        raise EncoderUnavailableError("ONNX is not installed", expected="pip install 'hyblink[train]'")
    made = _graph(model, kind)
    inputs = {
        "input_ids": torch.tensor([[101, 2054, 2003, 102], [101, 2023, 102, 0]]) % module_vocabulary(made.module),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
        "token_type_ids": torch.zeros(2, 4, dtype=torch.int64),
        "query": torch.tensor([True, False]),
    }
    beside = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        try:
            _write(made.module, {name: inputs[name] for name in made.inputs}, made.outputs, beside / "model.onnx")
            if int8:
                _quantize(beside / "model.onnx")
            shutil.copyfile(tokenizer_file(made.tokenizer), beside / "tokenizer.json")
        except NotExportableError:
            raise
        except (HyblinkError, RuntimeError, TypeError, ValueError, AttributeError, MemoryError) as error:
            raise NotExportableError(f"{model!r} cannot be written as ONNX: {str(error)[:300]}") from error
        if (beside / "model.onnx.data").exists():
            raise NotExportableError(f"{model!r} is too large for one ONNX file", expected="at most 2 GB")
        manifest = write_manifest(
            beside, ["model.onnx", "tokenizer.json"], format=FORMAT, kind=f"{made.kind}-onnx", name=out.name,
            parent=identity(model), precision="int8" if int8 else "fp32", inputs=list(made.inputs),
            outputs=list(made.outputs), **({"weight_bits": int8_weight_bits()} if int8 else {}), **made.fields,
        )  # fmt: skip
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return manifest


def module_vocabulary(module: nn.Module) -> int:
    """The size of the module's first embedding table, which is the transformer's vocabulary size."""
    return next(len(item.weight) for item in module.modules() if isinstance(item, nn.Embedding))


_ASKED = {"vdr": "vdr", "dense": "dense", "cross": "cross-encoder"}
"""The values of `kind` for a model without a manifest, and the families that they name."""


def _graph(model: str, kind: str) -> Graph:
    """The `Graph` of a model. Raises InvalidInputError if its family cannot be exported."""
    known = bool(trained(model).get("kind"))
    if not known and kind not in _ASKED:
        raise InvalidInputError(
            "nothing that can be exported", received=kind or model, expected="vdr, dense, cross or late interaction"
        )
    family = family_of(model, _ASKED.get(kind, ""))
    if not family.graph:
        raise InvalidInputError(
            "nothing that can be exported", received=family.kind, expected="vdr, dense, cross or late interaction"
        )
    return family.exported(model)


def _write(module: nn.Module, inputs: dict[str, torch.Tensor], outputs: Sequence[str], path: Path) -> None:
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
    shapes = {name: {0: batch, 1: tokens} if item.ndim == 2 else {0: batch} for name, item in inputs.items()}
    noisy = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [item.level for item in noisy]
    for item in noisy:
        item.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module, kwargs=inputs, f=str(path), dynamo=True, opset_version=OPSET, dynamic_shapes=shapes,
                input_names=list(inputs), output_names=list(outputs), external_data=False, verbose=False,
            )  # fmt: skip
    finally:
        for item, level in zip(noisy, levels, strict=True):
            item.setLevel(level)
    import onnx

    for value in onnx.load(path, load_external_data=False).graph.input:
        fixed = [axis.dim_value for axis in value.type.tensor_type.shape.dim if not axis.dim_param]
        if fixed:
            raise NotExportableError(f"the graph takes one size of {value.name} only", received=fixed)


def _quantize(path: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(path)
    del model.graph.value_info[:]  # torch's inferred shapes, which conflict with the quantiser's own shape inference
    logging.disable(logging.WARNING)  # the quantiser recommends a preprocessing step that fails on these graphs
    try:
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            reduce_range=int8_weight_bits() < 8,
        )
    finally:
        logging.disable(logging.NOTSET)
