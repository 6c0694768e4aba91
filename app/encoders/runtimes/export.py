"""ONNX files of encoders: for servers without Python, and for int8 on CPUs. Needs the extra `onnx`.

One graph serves queries and passages: the input `query` says for each text which it is. Long texts are the caller's to
cut; a passage in several windows has the largest weight of each token over them.
"""

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
from hyblink.app.encoders.cross_encoder.transformer import NotExportableError, load_scorer, onnx_installed
from hyblink.app.encoders.dense.transformer import load_sentence_transformer
from hyblink.app.encoders.late_interaction.head import Tokens, load_tokens
from hyblink.app.encoders.loading.adapters import (
    CROSS_ENCODER_LORA,
    LATE_INTERACTION,
    VDR_HEAD,
    adapter_manifest,
    trained,
)
from hyblink.app.encoders.loading.models import identity, tokenizer_file
from hyblink.app.encoders.vdr.head import VdrHead, load_encoder, towers
from hyblink.app.encoders.vdr.model import is_whole_model

FORMAT = 3
"""Of a graph and the manifest beside it; 3: late interaction gives idf and what was learned of it apart."""
OPSET = 18
_WINDOW = 256


class _Vdr(nn.Module):  # type: ignore[misc]
    """Token ids to VDR weights (B, vocabulary), and the bag of the text's own tokens; with pooling the dense vector."""

    def __init__(
        self, transformer: Any, head: VdrHead, pooling: str = "", apart: tuple[Any, VdrHead] | None = None
    ) -> None:
        """`apart` is the passages' tower where queries have one of their own; each text is then read by both."""
        super().__init__()
        self.transformer, self.head, self.pooling = transformer, head, pooling
        self.towers = nn.ModuleList(apart or ())

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, query: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        states_BLH = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        features = {"token_embeddings": states_BLH, "input_ids": input_ids, "attention_mask": attention_mask}
        as_query_BV, bag_BV = self.head.embed(features, "query")
        head = self.head
        if len(self.towers):
            transformer, head = self.towers
            own_BLH = transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            features = {**features, "token_embeddings": own_BLH}
        as_passage_BV, _ = head.embed(features, "document")
        weights_BV = torch.where(query[:, None], as_query_BV, as_passage_BV)
        wide = tuple(nn.functional.pad(one, (self.head.shift, 0)) for one in (weights_BV, bag_BV))
        return (*wide, _pooled(states_BLH, attention_mask, self.pooling)) if self.pooling else wide


class _Dense(nn.Module):  # type: ignore[misc]
    """Token ids to L2-normalised vectors (B, D)."""

    def __init__(self, transformer: Any, pooling: str) -> None:
        super().__init__()
        self.transformer, self.pooling = transformer, pooling

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states_BLH = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return _pooled(states_BLH, attention_mask, self.pooling)


class _Cross(nn.Module):  # type: ignore[misc]
    """Token ids of pairs to scores (B,)."""

    def __init__(self, classifier: Any) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        made = self.classifier(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return made.logits[:, 0]


def _pooled(states_BLH: torch.Tensor, mask_BL: torch.Tensor, pooling: str) -> torch.Tensor:
    """The text's vector as a sentence-transformers pooling makes it, L2-normalised."""
    if pooling == "cls":
        return nn.functional.normalize(states_BLH[:, 0], dim=-1)
    mask_BL1 = mask_BL[:, :, None].to(states_BLH.dtype)
    return nn.functional.normalize((states_BLH * mask_BL1).sum(1) / mask_BL1.sum(1), dim=-1)


def export(model: str, out: Path, *, kind: str = "", int8: bool = False) -> dict[str, Any]:
    """Write `model.onnx`, the tokenizer and a manifest into the new folder `out`; the manifest.

    `model` is what the settings take; `kind` (`vdr`, `dense`, `cross`) is needed where no manifest tells. With `int8`,
    matrix products are quantised (weights by channel, activations as they come). Raises ConflictError where `out`
    exists, EncoderUnavailableError where the extra is not installed or the model cannot be loaded.
    """
    if out.exists():
        raise ConflictError("the folder exists already", received=str(out), expected="a new folder")
    if not onnx_installed():
        raise EncoderUnavailableError("ONNX is not installed", expected="pip install 'hyblink[onnx]'")
    module, names, shown = _module(model, kind)
    inputs = {
        "input_ids": torch.tensor([[101, 2054, 2003, 102], [101, 2023, 102, 0]]) % module_vocabulary(module),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
        "token_type_ids": torch.zeros(2, 4, dtype=torch.int64),
        "query": torch.tensor([True, False]),
    }
    apart = ("input_ids", "attention_mask")
    taken = {"vdr": (*apart, "query"), "dense": apart, LATE_INTERACTION: apart}.get(shown, (*apart, "token_type_ids"))
    beside = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        try:
            _write(module, {name: inputs[name] for name in taken}, names, beside / "model.onnx")
            if int8:
                _quantize(beside / "model.onnx")
            shutil.copyfile(tokenizer_file(_tokens_of(model)), beside / "tokenizer.json")
        except NotExportableError:
            raise
        except (HyblinkError, RuntimeError, TypeError, ValueError, AttributeError, MemoryError) as error:
            raise NotExportableError(f"{model!r} cannot be written as ONNX: {str(error)[:300]}") from error
        if (beside / "model.onnx.data").exists():
            raise NotExportableError(f"{model!r} is too large for one ONNX file", expected="at most 2 GB")
        manifest = write_manifest(
            beside, ["model.onnx", "tokenizer.json"], format=FORMAT, kind=f"{shown}-onnx", name=out.name,
            parent=identity(model), precision="int8" if int8 else "fp32", inputs=list(taken), outputs=list(names),
            **(_of_tokens(module) if isinstance(module, Tokens) else {}),
        )  # fmt: skip
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return manifest


def _of_tokens(module: Tokens) -> dict[str, float]:
    """What late interaction needs beside the graph."""
    return {"scale": float(module.head.scale.detach()), "positions": module.positions}


def module_vocabulary(module: nn.Module) -> int:
    """How many tokens the transformer within knows."""
    return next(len(one.weight) for one in module.modules() if isinstance(one, nn.Embedding))


def _tokens_of(model: str) -> str:
    manifest = trained(model)
    return str(manifest["base"]) if manifest.get("kind") in {VDR_HEAD, CROSS_ENCODER_LORA, LATE_INTERACTION} else model


def _module(model: str, kind: str) -> tuple[nn.Module, Sequence[str], str]:
    """What is exported, the names of its outputs, and what it is."""
    manifest, folder = trained(model), Path(model).expanduser()
    told = str(manifest.get("kind", "")).removesuffix("-lora").replace("cross-encoder", "cross")
    kind = kind or told
    if told == LATE_INTERACTION:
        return load_tokens(model, "cpu")[0], ("vectors", "learned", "idf"), LATE_INTERACTION
    if VDR_HEAD in {kind, told} and kind in {VDR_HEAD, "vdr"}:
        adapter_manifest(folder, VDR_HEAD)
        backbone = load_sentence_transformer(str(manifest["base"]), "cpu")
        head = VdrHead.load(str(folder), local_files_only=True).float()
        transformer = backbone[0].model
        head.tie(transformer.get_input_embeddings())
        return _Vdr(transformer, head, _pooling(backbone)).eval(), ("weights", "bag", "vector"), "vdr"
    if kind == "vdr" and is_whole_model(folder):
        encoder = load_encoder(folder)
        (of_queries, head), (of_passages, own) = towers(encoder)
        apart = None if own is head else (of_passages.model, own)
        return _Vdr(of_queries.model, head, apart=apart).eval(), ("weights", "bag"), "vdr"
    if kind == "dense":
        made = load_sentence_transformer(model, "cpu")
        return _Dense(made[0].model, _pooling(made)).eval(), ("vector",), "dense"
    if kind == "cross":
        return _Cross(load_scorer(model, "cpu", _WINDOW)[0].model).eval(), ("scores",), "cross"
    raise InvalidInputError(
        "nothing that can be exported", received=kind or model, expected="vdr, dense, cross or late interaction"
    )


def _pooling(model: Any) -> str:
    others = {type(one).__name__ for one in model} - {"Transformer", "Pooling", "Normalize"}
    if others:
        raise InvalidInputError("modules that are not exported", received=sorted(others), expected="a pooling only")
    modes = {str(getattr(one, "pooling_mode", "")) for one in model} - {""}
    if not modes <= {"mean", "cls"} or len(modes) != 1:
        raise InvalidInputError("a pooling that is not exported", received=sorted(modes), expected="mean or cls")
    return modes.pop()


def _write(module: nn.Module, inputs: dict[str, torch.Tensor], outputs: Sequence[str], path: Path) -> None:
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
    shapes = {name: {0: batch, 1: tokens} if one.ndim == 2 else {0: batch} for name, one in inputs.items()}
    noisy = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [one.level for one in noisy]
    for one in noisy:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module, kwargs=inputs, f=str(path), dynamo=True, opset_version=OPSET, dynamic_shapes=shapes,
                input_names=list(inputs), output_names=list(outputs), external_data=False, verbose=False,
            )  # fmt: skip
    finally:
        for one, level in zip(noisy, levels, strict=True):
            one.setLevel(level)
    import onnx

    for value in onnx.load(path, load_external_data=False).graph.input:
        fixed = [axis.dim_value for axis in value.type.tensor_type.shape.dim if not axis.dim_param]
        if fixed:
            raise NotExportableError(f"the graph takes one size of {value.name} only", received=fixed)


def _quantize(path: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(path)
    del model.graph.value_info[:]  # shapes as torch saw them, which the quantiser's own inference contradicts
    logging.disable(logging.WARNING)  # it recommends a step that contradicts itself on these graphs
    try:
        quantize_dynamic(
            model, path, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True, weight_type=QuantType.QInt8
        )
    finally:
        logging.disable(logging.NOTSET)
