"""The confusion matrix: how many samples of each true class were taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kilograd.compile.lazy.graph import outside
from kilograd.tensor import Tensor
from kilograd.viz.picture import Plot, array_of, panels, shorten, text_on

SUMS: dict[str, Any] = {"true": 1, "pred": 0, "all": None}  # normalize → the axis to sum over
NUMBERED = 40  # classes; the numbers of a larger matrix could not be read


def confusion_matrix(
    y_true: Any,
    y_pred: Any = None,
    *,
    labels: Sequence[Any] | None = None,
    normalize: str | None = None,
    cmap: str = "Blues",
    title: str | None = None,
    ax: Any = None,
) -> Plot:
    """Draw a confusion matrix: true classes down, predicted classes across.

    Args:
        y_true: the true classes, (N,) integers or strings; or, without ``y_pred``, the matrix itself, (C, C).
        y_pred: the predicted classes, (N,) (of scores (N, C): ``scores.argmax(1)``).
        labels: the classes in the order to draw them, if they are among the values; or else the names of the
            classes 0, 1, …, C-1. By default all values that occur, sorted.
        normalize: None draws counts; ``"true"`` percent of each row, ``"pred"`` of each column, ``"all"`` of
            everything, as in scikit-learn. A row or column without samples is 0.
        cmap: the Matplotlib colormap.
        title: a title over the picture.
        ax: the Axes to draw in.

    Returns:
        The picture; beyond 40 classes without numbers in the cells.

    Raises:
        ValueError: shapes that do not fit, a value that is not among the labels, or an unknown ``normalize``.
        TypeError: classes that are neither integers nor strings.
        ImportError: Matplotlib is not installed.

    Example:
        >>> plot = confusion_matrix([0, 0, 1, 1], [0, 1, 1, 1], labels=["cat", "dog"])
        >>> [text.get_text() for text in plot.axes[0].texts]
        ['1', '1', '0', '2']
    """
    if normalize is not None and normalize not in SUMS:
        raise ValueError(
            f"confusion_matrix: normalize={normalize!r}; it is None, 'true', 'pred' or 'all'"
        )
    if y_pred is None:
        counts = array_of(y_true, "confusion_matrix")
        if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
            raise ValueError(
                f"confusion_matrix: without y_pred, expected a matrix (C, C), got the shape {counts.shape}"
            )
        if not (counts >= 0).all() or not np.isfinite(counts).all():
            raise ValueError("confusion_matrix: the matrix must hold finite numbers, none negative")
        names = list(range(len(counts))) if labels is None else list(labels)
        if len(names) != len(counts):
            raise ValueError(f"confusion_matrix: {len(counts)} classes, but {len(names)} labels")
    else:
        counts, names = count_confusions(y_true, y_pred, labels)
    shown = counts.astype(np.float64)
    if normalize is not None:
        total = shown.sum(axis=SUMS[normalize], keepdims=True)
        shown = np.divide(shown, total, out=np.zeros_like(shown), where=total != 0)

    n = len(counts)
    side = min(max(0.62 * n, 2.6), 13)  # inches
    written = [shorten(str(name), 24) for name in names]
    longest = max(len(name) for name in written)
    slanted = longest > 4 or n > 12
    letter = 0.085 if n <= 20 else 0.06  # inches
    size = (side + 1.5 + longest * letter, side + 0.6 + slanted * 0.75 * longest * letter)
    plot = panels(1, ax, what="confusion_matrix", size=size)
    axes = plot.axes[0]
    image = axes.imshow(shown, cmap=cmap, vmin=0, vmax=1 if normalize in ("true", "pred") else None)
    bar = plot.figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    bar.outline.set_visible(False)
    if normalize is not None:
        from matplotlib.ticker import PercentFormatter

        bar.ax.yaxis.set_major_formatter(PercentFormatter(1))
    if n <= NUMBERED:
        texts = [[_cell(v, normalize, n) for v in row] for row in shown]
        # A digit is about 0.6 as wide as the font is high; the longest number gets four fifths of a cell.
        width = _inches(axes, side, ax) * 72 / n
        font = min(11.0, 0.8 * width / (0.6 * max(len(t) for row in texts for t in row)))
        for i, row in enumerate(texts):
            for j, text in enumerate(row):
                color = text_on(image.to_rgba(shown[i, j]))
                zero = counts[i, j] == 0
                axes.text(
                    j, i, text, ha="center", va="center", fontsize=font, color=color, alpha=0.6 if zero else 1
                ).set_in_layout(False)  # fmt: skip
    places = range(0, n, max(1, -(-n // 60)))
    small = 10 if n <= 20 else 7
    slant = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(places, [written[k] for k in places], fontsize=small, **slant)
    axes.set_yticks(places, [written[k] for k in places], fontsize=small)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if title is not None:
        axes.set_title(title)
    return plot


def count_confusions(
    y_true: Any, y_pred: Any, labels: Sequence[Any] | None = None
) -> tuple[np.ndarray[Any, Any], list[Any]]:
    """The matrix of counts, (C, C) int64, and the classes; see :func:`confusion_matrix`.

    Example:
        >>> count_confusions(["cat", "dog", "dog"], ["dog", "dog", "dog"])
        (array([[0, 1], [0, 2]]), ['cat', 'dog'])
    """
    true, pred = _classes(y_true, "y_true"), _classes(y_pred, "y_pred")
    if true.shape != pred.shape:
        raise ValueError(f"confusion_matrix: {len(true)} true classes, but {len(pred)} predictions")
    if true.size and (true.dtype.kind == "U") != (pred.dtype.kind == "U"):
        raise TypeError("confusion_matrix: y_true and y_pred are not both integers or both strings")
    present = np.unique(np.concatenate([true, pred])).tolist() if true.size else []
    if labels is None:
        classes = names = present
    else:
        names = list(labels)
        classes = [n.item() if hasattr(n, "item") else n for n in names]
        if not set(present) <= set(classes) and all(isinstance(v, int) for v in present):
            classes = list(range(len(names)))
    if not classes:
        raise ValueError("confusion_matrix: there are no samples, and no labels")
    place = {c: i for i, c in enumerate(classes)}
    if len(place) < len(classes):
        raise ValueError(f"confusion_matrix: labels holds a class twice: {names}")
    if lost := [v for v in present if v not in place]:
        raise ValueError(
            f"confusion_matrix: {lost[:5]} is not among the {len(classes)} classes {shorten(str(classes), 60)}"
        )
    counts = np.zeros((len(classes), len(classes)), np.int64)
    rows = [place[v] for v in true.tolist()]
    np.add.at(counts, (rows, [place[v] for v in pred.tolist()]), 1)
    return counts, names


@outside()
def _classes(y: Any, what: str) -> np.ndarray[Any, Any]:
    array = y.numpy(force=True) if isinstance(y, Tensor) else np.asarray(y)
    if array.dtype.kind == "O":
        array = np.asarray(
            [str(v) if isinstance(v, str) else v for v in array.reshape(-1).tolist()]
        )
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        hint = f"; of scores, give {what}.argmax(1)" if array.ndim == 2 else ""
        raise ValueError(
            f"confusion_matrix: {what} must have the shape (N,), got {array.shape}{hint}"
        )
    if array.dtype.kind == "f" and (array == np.rint(array)).all():
        array = array.astype(np.int64)
    if array.dtype.kind not in "biuU":
        raise TypeError(f"confusion_matrix: {what} must be integers or strings, got {array.dtype}")
    return array.astype(np.int64) if array.dtype.kind == "b" else array


def _cell(value: float, normalize: str | None, n: int) -> str:
    if normalize is None:
        return f"{value:,.0f}" if value == round(value) else f"{value:.3g}"
    return f"{100 * value:.1f}%" if n <= 8 else f"{100 * value:.0f}"


def _inches(axes: Any, side: float, ax: Any) -> float:
    """How wide the matrix is."""
    if ax is None:
        return side
    box = axes.get_window_extent()
    return float(min(box.width, box.height) / axes.figure.figure.dpi)
