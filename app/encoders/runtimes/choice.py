"""Which runtime and which precision a model runs in.

A precision is part of an encoder's identity, a runtime is not: in float32, ONNX Runtime and torch give the same vectors
within `MIXED_COSINE`, so either continues what the other began. No other two of them do (`docs/encoders.md` has the
measured figures), so vectors of two precisions are never put into one collection.
"""

from __future__ import annotations

from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.settings import EncodeSettings
from hyblink.app.encoders.graphs.architectures.architecture import UnknownGraphError
from hyblink.app.encoders.graphs.cache import GraphCache, default_cache
from hyblink.app.encoders.graphs.precision import GRAPH_PRECISIONS
from hyblink.app.encoders.loading.measured import measured_precision
from hyblink.app.encoders.loading.sources import can_be_built
from hyblink.app.encoders.runtimes.devices import cpu_has_bf16, on_gpu, torch_installed
from hyblink.app.encoders.runtimes.transformer import Precision, Runtime

_IN_TORCH: tuple[Precision, ...] = ("fp32", "bf16")
_CACHES: dict[str, GraphCache] = {}


def graph_cache(settings: EncodeSettings) -> GraphCache:
    """The cache of built graphs that the settings name. It is shared, so that a process opens each graph once."""
    folder = settings.graph_cache or default_cache()
    return _CACHES.setdefault(str(folder), GraphCache(folder))


def runtime_for(model: str, precision: Precision, settings: EncodeSettings) -> Runtime:
    """The runtime that gives a model's vectors in a precision: the one that is set, else the fastest that can.

    Raises EncoderUnavailableError if none that is installed and allowed can, with the ways out.
    """
    wanted = settings.runtime
    in_onnx = precision in GRAPH_PRECISIONS and wanted != "torch"
    in_torch = precision in _IN_TORCH and wanted != "onnx"
    if in_torch and torch_installed() and (wanted == "torch" or on_gpu(settings)):
        return "torch"
    if in_onnx and (wanted == "onnx" or can_be_built(model) or not (in_torch and torch_installed())):
        return "onnx"
    if in_torch and torch_installed():
        return "torch"
    raise EncoderUnavailableError(
        f"{precision} vectors of {model!r} cannot be made here",
        received=f"encode.runtime {wanted}, torch {'installed' if torch_installed() else 'not installed'}",
        expected=_ways_out(precision),
    )


def _ways_out(precision: Precision) -> str:
    anew = "a new generation (HYBLINK_ENCODE__PRECISION=fp32 hyblink generations rebuild)"
    if precision in _IN_TORCH:
        return f"encode.runtime auto or torch, and torch: pip install 'hyblink[train]'; or {anew}"
    return f"encode.runtime auto or onnx; or {anew}"


def default_precision(model: str, settings: EncodeSettings, wanted: str = "") -> Precision:
    """The precision in which a model runs unless a collection asks for another one.

    `wanted` is the setting, by default `encode.precision`. With `auto` it is bf16 in torch on GPUs and on CPUs with
    bf16. In ONNX Runtime it is the fastest that lost nothing where it was measured, else fp32.
    """
    wanted = wanted or settings.precision
    if wanted != "auto":
        return wanted  # type: ignore[return-value]  # the settings check it
    try:
        in_torch = runtime_for(model, "fp32", settings) == "torch"
    except EncoderUnavailableError:  # the model's folder is missing or damaged: loading it will say so
        return "fp32"
    if in_torch:
        return "bf16" if on_gpu(settings) or cpu_has_bf16() else "fp32"
    return measured_precision(model)


def torch_instead(error: UnknownGraphError, settings: EncodeSettings, precision: Precision) -> None:
    """Return if torch may run a model of which no graph can be built; else raise the error."""
    if settings.runtime == "onnx" or not torch_installed() or precision not in _IN_TORCH:
        raise error
