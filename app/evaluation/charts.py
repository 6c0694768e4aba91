"""Bar charts of evaluation results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hyblink.app.evaluation.measures import SystemResult
from hyblink.app.evaluation.systems import MEASURES


def plot(results: Sequence[SystemResult], path: Path, title: str, measures: Sequence[str] = MEASURES) -> None:
    """Write a bar chart of the systems' mean measures to a PNG file."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(10, 4.5))
    width = 0.8 / len(results)
    places = np.arange(len(measures))
    for at, result in enumerate(results):
        values = [result.mean[measure] for measure in measures]
        bars = axes.bar(places + at * width, values, width, label=result.name)
        axes.bar_label(bars, fmt="%.3f", fontsize=6, rotation=90, padding=2)
    axes.set_xticks(places + 0.4 - width / 2, measures)
    axes.set_ylim(0, 1.12)
    axes.set_title(title)
    axes.legend(ncols=len(results), fontsize=8, loc="upper left")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
