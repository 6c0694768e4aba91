"""Opens a model in the runtime that fits its precision."""

from __future__ import annotations

import logging

from hyblink.app.core.settings import EncodeSettings
from hyblink.app.encoders.graphs.architectures.architecture import UnknownGraphError
from hyblink.app.encoders.graphs.precision import GRAPH_PRECISIONS, GraphPrecision
from hyblink.app.encoders.loading.sources import source_of, text_encoding
from hyblink.app.encoders.runtimes.choice import graph_cache, runtime_for, torch_instead
from hyblink.app.encoders.runtimes.devices import device_of
from hyblink.app.encoders.runtimes.onnx_transformer import OnnxTransformer
from hyblink.app.encoders.runtimes.transformer import Precision, Transformer

log = logging.getLogger(__name__)


def graph_precision(precision: Precision) -> GraphPrecision:
    """The precision, which is one of graphs."""
    assert precision in GRAPH_PRECISIONS
    return precision


def open_transformer(model: str, settings: EncodeSettings, precision: Precision) -> Transformer:
    """A model's text encoder: hub name, folder, `package:NAME`, or a trained adapter, which is merged into its base.

    Raises EncoderUnavailableError if it cannot be loaded in this precision here.
    """
    if runtime_for(model, precision, settings) == "onnx":
        try:
            return _in_onnx(model, settings, graph_precision(precision))
        except UnknownGraphError as error:
            torch_instead(error, settings, precision)
            log.warning("%s runs in torch: %s", model, error)
    return _in_torch(model, settings, precision)


def _in_onnx(model: str, settings: EncodeSettings, precision: GraphPrecision) -> OnnxTransformer:
    source = source_of(model)
    encoding = text_encoding(model, source)
    graph = graph_cache(settings).open(source, precision, "states")
    return OnnxTransformer(graph, encoding.tokens, encoding.pooling)


def _in_torch(model: str, settings: EncodeSettings, precision: Precision) -> Transformer:
    from hyblink.app.encoders.loading.in_torch import load_sentence_transformer
    from hyblink.app.encoders.runtimes.torch_transformer import TorchTransformer

    made = load_sentence_transformer(model, device_of(settings))
    if precision == "bf16":
        made.bfloat16()
    return TorchTransformer(made.eval(), settings.batch_size)
