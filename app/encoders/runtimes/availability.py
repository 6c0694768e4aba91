"""Whether models can be exported here, and what is raised where one cannot."""

from __future__ import annotations

import importlib.util
import platform
from functools import cache
from pathlib import Path

from hyblink.app.core.errors import EncoderUnavailableError


class NotExportableError(EncoderUnavailableError):
    """ONNX has no form of this model."""

    code = "not_exportable"


def onnx_installed() -> bool:
    """Whether models can be exported and run by ONNX here."""
    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))


@cache
def int8_weight_bits() -> int:
    """How many bits of an int8 weight this CPU multiplies exactly.

    x86 CPUs without VNNI add two products of bytes in 16 bits, which overflow: ONNX Runtime then wants 7-bit weights.
    Where that cannot be found out, it is taken to be so.
    """
    if platform.machine().lower() not in {"x86_64", "amd64", "i386", "i686"}:
        return 8
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 7
    return 8 if "avx512_vnni" in flags or "avx_vnni" in flags else 7
