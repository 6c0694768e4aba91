"""Plots the training curve of a run: the loss by step and the dev metric."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def plot_curve(losses: Sequence[float], dev: Sequence[tuple[int, float]], path: Path, title: str) -> None:
    """Write a PNG with the loss by step (moving average over 20 steps) and the dev metric on a second axis.

    `losses` holds one value per step, `dev` pairs (step, MRR@10).
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    figure, axes = plt.subplots(figsize=(7, 3.5))
    if losses:
        width = min(20, len(losses))
        axes.plot(np.arange(width, len(losses) + 1), np.convolve(losses, np.ones(width) / width, "valid"), label="loss")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    if dev:
        other = axes.twinx()
        other.plot(*zip(*dev, strict=True), "o-", color="tab:orange", label="dev MRR@10")
        other.set_ylabel("dev MRR@10")
    axes.set_title(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
