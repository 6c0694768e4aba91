"""Whether ONNX export and int8 are available on this machine."""

from __future__ import annotations

import importlib.util
import platform
from functools import cache
from pathlib import Path

from hyblink.app.core.errors import EncoderUnavailableError


class NotExportableError(EncoderUnavailableError):
    """The model cannot be exported to ONNX."""

    code = "not_exportable"


def onnx_installed() -> bool:
    """Whether the packages for ONNX export and ONNX Runtime are installed."""
    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))


@cache
def int8_weight_bits() -> int:
    """The number of bits, 7 or 8, of int8 weights that this CPU multiplies without overflow.

    x86 CPUs without VNNI add two byte products in 16 bits, which can overflow with 8-bit weights. ONNX Runtime then
    needs 7-bit weights. If the CPU cannot be identified, the answer is 7.
    """
    if platform.machine().lower() not in {"x86_64", "amd64", "i386", "i686"}:
        return 8
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 7
    return 8 if "avx512_vnni" in flags or "avx_vnni" in flags else 7
