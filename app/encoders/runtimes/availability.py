"""Whether models can be exported here, and what is raised where one cannot."""

from __future__ import annotations

import importlib.util

from hyblink.app.core.errors import EncoderUnavailableError


class NotExportableError(EncoderUnavailableError):
    """ONNX has no form of this model."""

    code = "not_exportable"


def onnx_installed() -> bool:
    """Whether models can be exported and run by ONNX here."""
    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))
