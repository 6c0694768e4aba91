"""Opens a model in the runtime that fits its precision."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from hyblink.app.core.settings import EncodeSettings
from hyblink.app.encoders.graphs.architectures.architecture import UnknownGraphError
from hyblink.app.encoders.graphs.precision import GRAPH_PRECISIONS, GraphPrecision
from hyblink.app.encoders.loading.sources import base_folder, pooling_of, source_of, tokens_in
from hyblink.app.encoders.runtimes.choice import graph_cache, runtime_for, torch_instead
from hyblink.app.encoders.runtimes.devices import device_of
from hyblink.app.encoders.runtimes.onnx_transformer import OnnxTransformer
from hyblink.app.encoders.runtimes.transformer import Precision, Transformer

log = logging.getLogger(__name__)
_T = TypeVar("_T")


def open_in_runtime(
    model: str,
    settings: EncodeSettings,
    precision: Precision,
    *,
    in_onnx: Callable[[GraphPrecision], _T],
    in_torch: Callable[[], _T],
) -> _T:
    """What `in_onnx` or `in_torch` makes of a model, by `runtime_for`; by torch also if no graph of it can be built.

    Raises EncoderUnavailableError if no runtime can open it here in this precision.
    """
    if runtime_for(model, precision, settings) == "onnx":
        assert precision in GRAPH_PRECISIONS
        try:
            return in_onnx(precision)
        except UnknownGraphError as error:
            torch_instead(error, settings, precision)
            log.warning("%s runs in torch: %s", model, error)
    return in_torch()


def open_transformer(model: str, settings: EncodeSettings, precision: Precision) -> Transformer:
    """A model's text encoder: hub name, folder, `package:NAME`, or a trained adapter, which is merged into its base.

    Raises EncoderUnavailableError if it cannot be loaded in this precision here.
    """

    def in_onnx(graph_precision: GraphPrecision) -> Transformer:
        source = source_of(model)
        pooling = pooling_of(base_folder(model))
        graph = graph_cache(settings).open(source, graph_precision, "states")
        return OnnxTransformer(graph, tokens_in(model, source.folder), pooling)

    def in_torch() -> Transformer:
        from hyblink.app.encoders.loading.in_torch import load_sentence_transformer
        from hyblink.app.encoders.runtimes.torch_transformer import TorchTransformer

        made = load_sentence_transformer(model, device_of(settings))
        if precision == "bf16":
            made.bfloat16()
        return TorchTransformer(made.eval(), settings.batch_size)

    return open_in_runtime(model, settings, precision, in_onnx=in_onnx, in_torch=in_torch)
