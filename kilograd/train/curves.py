"""The picture of a run: loss and accuracy, training and test, against epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def draw_curves(history: Sequence[dict[str, float]], file: Any) -> None:
    """Write a PNG with loss and accuracy over epochs.

    Args:
        history: one dict an epoch: ``epoch``, ``train_loss``, ``train_accuracy``, ``test_loss``,
            ``test_accuracy`` (accuracies from 0 to 1).
        file: a path or a binary file.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator, PercentFormatter
    except ImportError as e:
        raise ImportError("drawing curves needs matplotlib: pip install 'kilograd[cli]'") from e
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    epochs = [h["epoch"] for h in history]
    for axes, what in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for part, color in (("train", "tab:blue"), ("test", "tab:orange")):
            values = [h[f"{part}_{what}"] for h in history]
            axes.plot(epochs, values, label=part, color=color, marker="o", markersize=3)
        axes.set_xlabel("epoch")
        axes.set_title(what)
        axes.grid(alpha=0.3)
        axes.legend()
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if what == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1))
    figure.savefig(file, format="png", dpi=120)
