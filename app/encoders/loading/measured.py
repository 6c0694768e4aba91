"""The precision in which a model is served, by what was measured (`hyblink models measure`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hyblink.app.core.errors import CorruptionError
from hyblink.app.core.manifest import read_json
from hyblink.app.encoders.graphs.precision import GRAPH_PRECISIONS, GraphPrecision
from hyblink.app.encoders.loading.adapters import WEIGHTS, trained

MEASURED = "measured.json"
"""Its name in a folder without a manifest. A trained model has the table in its manifest, as `measured`."""


def measured_table(model: str) -> dict[str, Any]:
    """What was measured of a model: its `precision`, and rows of figures; empty if it was not measured."""
    manifest = trained(model)
    if manifest:
        told = manifest.get("measured", {})
        return told if isinstance(told, dict) else {}
    for path in (Path(model).expanduser() / MEASURED, _of_base(model)):
        if path.is_file():
            return read_json(path)
    return {}


def _of_base(model: str) -> Path:
    """Where the figures of a base model lie that is not ours."""
    name = model.rsplit("/", 1)[-1].lower().replace("package:", "").replace("gt_", "").replace("_", "-")
    return WEIGHTS / "bases" / f"{name}.json"


def measured_precision(model: str) -> GraphPrecision:
    """The precision that a model is served in by ONNX Runtime: the one that its figures chose, else fp32."""
    try:
        found = measured_table(model).get("precision")
    except (CorruptionError, OSError, ValueError):
        return "fp32"
    return found if found in GRAPH_PRECISIONS else "fp32"
