"""The regions of a plane that a classifier gives to each class, and the points it is asked about."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from kilograd.autograd.modes import ModeContext
from kilograd.compile.lazy.graph import outside
from kilograd.dtypes import get_default_dtype
from kilograd.nn import Module, Sigmoid
from kilograd.tensor import Tensor, wrap
from kilograd.utils.undisturbed import undisturbed
from kilograd.viz.picture import Plot, array_of, panels

OUTPUTS = ("auto", "logits", "probabilities")


@outside()
def decision_boundary(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    output: str = "auto",
    resolution: int = 200,
    margin: float = 0.1,
    batch_size: int = 8192,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    ax: Any = None,
) -> Plot:
    """Draw what a classifier says about every point of the plane around ``x``.

    With one output (N,) or (N, 1) the colour is the probability of the second class and the line is at one
    half; with C outputs (N, C) each class has a colour, the paler the smaller its lead. Where the model
    gives NaN the plane stays white. A module is run in eval mode, in batches and without gradients, and every
    part of it is put back into the mode it was in.

    Args:
        model: a module or function: (N, 2) → (N,), (N, 1) or (N, C).
        x: the points, (N, 2).
        y: their classes, (N,) or (N, 1): 0 … C-1; for one output any two numbers, the larger the second class.
        output: for one output: ``"logits"`` (the classes meet at 0), ``"probabilities"`` (at 0.5), or
            ``"auto"``: probabilities if the model's last module is a Sigmoid or every value on the plane is in
            [0, 1], else logits.
        resolution: points on each side of the grid, at least 2.
        margin: how far the plane reaches beyond the points, as a part of their extent.
        batch_size: how many points the model is given at once.
        labels: the names of the classes.
        title: a title over the picture.
        ax: the Axes to draw in.

    Returns:
        The picture.

    Raises:
        ValueError: ``x`` is not (N, 2), empty or not finite; ``y`` does not fit it or the outputs; the outputs
            have another shape; or a setting is out of range.
        ImportError: Matplotlib is not installed.

    Example:
        >>> import kilograd as kg
        >>> points = kg.tensor([[0.0, 0.0], [1.0, 1.0]])
        >>> plot = decision_boundary(kg.nn.Linear(2, 3), points, kg.tensor([0, 2]), resolution=20)
        >>> [text.get_text() for text in plot.axes[0].get_legend().get_texts()]
        ['0', '2']
    """
    points = array_of(x, "decision_boundary: x").astype(np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(
            f"decision_boundary: x must have the shape (N, 2), two coordinates a point, got {points.shape}"
        )
    if not len(points) or not np.isfinite(points).all():
        raise ValueError("decision_boundary: x must hold at least one point, and finite numbers")
    if output not in OUTPUTS:
        raise ValueError(f"decision_boundary: output={output!r}; it is one of {OUTPUTS}")
    if resolution < 2 or batch_size < 1 or not margin >= 0:
        raise ValueError(
            "decision_boundary: resolution must be at least 2, batch_size at least 1 and margin not negative; "
            f"got {resolution}, {batch_size} and {margin}"
        )
    low, high = points.min(0), points.max(0)
    around = margin * np.where(high > low, high - low, 1) + np.where(high > low, 0, 0.5)
    sides = np.linspace(low - around, high + around, resolution)  # (resolution, 2)
    grid = np.stack(np.meshgrid(*sides.T), axis=-1).reshape(-1, 2)
    floats = isinstance(x, Tensor) and x.array.dtype.kind == "f"
    dtype = x.array.dtype if floats else get_default_dtype().dtype
    scores = _scores(model, grid.astype(dtype), batch_size)
    classes = max(scores.shape[1], 2)
    kinds = None if y is None else _classes(y, len(points), scores.shape[1])
    if labels is not None and len(labels) < classes:
        raise ValueError(f"decision_boundary: {classes} classes, but {len(labels)} labels")

    plot = panels(1, ax, what="decision_boundary", size=(5.6, 4.6))
    axes = plot.axes[0]
    colors = _colors(classes)
    extent = (sides[0, 0], sides[-1, 0], sides[0, 1], sides[-1, 1])
    square = (resolution, resolution)
    if scores.shape[1] == 1:
        value, probability = _binary(model, scores[:, 0], output)
        shade, edges = _blend(probability, colors), [value]
    else:
        shade, edges = _regions(scores, colors), _leads(scores)
    axes.imshow(
        shade.reshape(*square, 4), extent=extent, origin="lower", aspect="auto", interpolation="nearest"
    )  # fmt: skip
    for edge in edges:
        if np.nanmin(edge, initial=np.inf) < 0 < np.nanmax(edge, initial=-np.inf):
            axes.contour(
                *sides.T,
                np.ma.masked_invalid(edge.reshape(square)),
                [0],
                colors="0.2",
                linewidths=1,
            )
    if kinds is None:
        axes.scatter(*points.T, s=16, c="0.2", edgecolors="white", linewidths=0.5)
    else:
        names = [str(n) for n in (labels if labels is not None else _names(y, classes))]
        for k in np.unique(kinds):
            axes.scatter(
                *points[kinds == k].T, s=18, color=colors[k], edgecolors="white", linewidths=0.6, label=names[k]
            )  # fmt: skip
        outside = {} if ax is not None else {"loc": "upper left", "bbox_to_anchor": (1.01, 1)}
        axes.legend(fontsize="small", ncols=1 if classes <= 20 else 2, **outside)
    axes.set_xlim(extent[:2])
    axes.set_ylim(extent[2:])
    if title is not None:
        axes.set_title(title)
    return plot


def _scores(model: Any, grid: np.ndarray[Any, Any], batch_size: int) -> np.ndarray[Any, Any]:
    """The model's outputs, (N, C) float64, from eval mode; the modes are put back."""
    parts = []
    module = isinstance(model, Module)
    with undisturbed(model) if module else nullcontext(), ModeContext(grad=False):
        if module:
            model.eval()
        for start in range(0, len(grid), batch_size):
            batch = grid[start : start + batch_size]
            scores = array_of(model(wrap(batch)), "decision_boundary: the model's output")
            if scores.shape[:1] != (len(batch),) or scores.ndim > 2 or not scores.size:
                raise ValueError(
                    f"decision_boundary: for {len(batch)} points the model gave the shape {scores.shape}; "
                    "expected (N,), (N, 1) or (N, C)"
                )
            parts.append(scores.reshape(len(batch), -1).astype(np.float64))
    return np.concatenate(parts)


def _classes(y: Any, count: int, outputs: int) -> np.ndarray[Any, Any]:
    """The class number of each point."""
    kinds = array_of(y, "decision_boundary: y")
    if kinds.shape not in ((count,), (count, 1)):
        raise ValueError(
            f"decision_boundary: y must hold one class a point, ({count},), got the shape {kinds.shape}"
        )
    kinds = kinds.reshape(-1)
    values = np.unique(kinds)
    if outputs == 1:
        if len(values) > 2 or not np.isfinite(values.astype(np.float64)).all():
            raise ValueError(
                f"decision_boundary: the model has one output, so two classes; y has {values[:5]}"
            )
        second = 0 if set(values.tolist()) <= {0, 1} else values[0]
        return (
            (kinds > second).astype(np.int64) if len(values) > 1 else (kinds > 0).astype(np.int64)
        )
    whole = kinds.astype(np.int64)
    if (whole != kinds).any() or values[0] < 0 or values[-1] >= outputs:
        raise ValueError(
            f"decision_boundary: the model has {outputs} outputs, so y must be 0 … {outputs - 1}; it has "
            f"{values[0]} … {values[-1]}"
        )
    return whole


def _names(y: Any, classes: int) -> list[str]:
    values = np.unique(array_of(y, "y")) if classes == 2 else np.arange(0)
    return [f"{v:g}" for v in values] if len(values) == 2 else [str(k) for k in range(classes)]


def _binary(
    model: Any, score: np.ndarray[Any, Any], output: str
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The signed distance from the limit, and the probability of the second class."""
    if output == "auto":
        last = list(model.modules())[-1] if isinstance(model, Module) else None
        inside = np.nanmin(score, initial=1) >= 0 and np.nanmax(score, initial=0) <= 1
        output = "probabilities" if inside or isinstance(last, Sigmoid) else "logits"
    if output == "probabilities":
        return score - 0.5, np.clip(score, 0, 1)
    return score, 0.5 + 0.5 * np.tanh(score / 2)


def _colors(classes: int) -> np.ndarray[Any, Any]:
    """(C, 3) colours: blue and orange for two classes; 10 or 20 well apart, and a rainbow beyond."""
    from matplotlib import colormaps

    if classes <= 10:
        return np.array([colormaps["tab10"](k)[:3] for k in range(classes)])
    if classes <= 20:
        return np.array([colormaps["tab20"](k)[:3] for k in range(classes)])
    return np.array([colormaps["gist_rainbow"](k / classes)[:3] for k in range(classes)])


def _blend(probability: np.ndarray[Any, Any], colors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """From the first colour over white to the second: (N, 4)."""
    color = np.where((probability < 0.5)[:, None], colors[0], colors[1])
    alpha = 0.1 + 0.9 * np.abs(probability - 0.5)
    return np.nan_to_num(np.column_stack([color, np.where(np.isnan(probability), 0, alpha)]))


def _regions(scores: np.ndarray[Any, Any], colors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The winner's colour, stronger where it leads by more: (N, 4)."""
    known = ~np.isnan(scores).any(1)
    scores = np.nan_to_num(scores)
    first, second = np.sort(scores, 1)[:, :-3:-1].T
    lead = np.tanh(np.maximum(first - second, 0))
    return np.column_stack([colors[scores.argmax(1)], np.where(known, 0.2 + 0.3 * lead, 0)])


def _leads(scores: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """For each class its score less the best other one: zero where its region ends."""
    leads = []
    for k in range(scores.shape[1]):
        leads.append(scores[:, k] - np.delete(scores, k, 1).max(1))
    return leads
