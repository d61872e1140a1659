"""Histograms of weights, gradients or activations: small multiples, one per tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kilograd.autograd.modes import ModeContext
from kilograd.compile.lazy.graph import outside
from kilograd.nn import Module
from kilograd.tensor import Tensor
from kilograd.utils.undisturbed import undisturbed
from kilograd.viz.picture import Plot, array_of, panels, shorten

MOST = 120  # panels in one picture
LONGEST = 34  # letters of a name over a panel


def histograms(
    model: Any,
    what: str = "weights",
    *,
    inputs: Any = None,
    bins: int | Sequence[float] = 50,
    log: bool = False,
    title: str | None = None,
    ax: Any = None,
) -> Plot:
    """Draw the distribution of every weight, gradient or activation of a model.

    NaN and infinite values are left out of the bars, counted, and named above them in red. Looking changes
    nothing: activations are those of one call of the model in the mode it is in (``train()`` or ``eval()``),
    without gradients, and running statistics and random numbers are as they were before.

    Args:
        model: a module; or a dict name → tensor, and then ``what`` is not looked at.
        what: ``"weights"`` (the parameters), ``"gradients"`` (their ``.grad``) or ``"activations"`` (what the
            innermost modules return).
        inputs: for activations: the model's input, or a tuple of its inputs.
        bins: the number of bars, or their edges (values beyond them are not counted).
        log: a logarithmic scale of the counts.
        title: a title over the picture.
        ax: the Axes to draw in, one per tensor.

    Returns:
        The picture, one panel per tensor; under each name its shape, mean and standard deviation.

    Raises:
        ValueError: there is nothing to draw (no gradients before ``backward()``), ``inputs`` is missing,
            more than 120 tensors, or bad ``bins``.
        TypeError: ``model`` is neither a module nor a dict of real tensors.
        ImportError: Matplotlib is not installed.

    Example:
        >>> import kilograd as kg
        >>> plot = histograms(kg.nn.Sequential(kg.nn.Linear(4, 8), kg.nn.ReLU(), kg.nn.Linear(8, 2)))
        >>> [axes.get_title().splitlines()[0] for axes in plot.axes]
        ['0.weight', '0.bias', '2.weight', '2.bias']
    """
    if isinstance(bins, (int, np.integer)) and bins < 1:
        raise ValueError(f"histograms: bins must be at least 1, got {bins}")
    tensors = _tensors(model, what, inputs)
    if not tensors:
        raise ValueError("histograms: there is no tensor to draw")
    if len(tensors) > MOST:
        raise ValueError(
            f"histograms: {len(tensors)} tensors are too many for one picture (at most {MOST}): give a part "
            "of the model, or a dict with the tensors you want"
        )
    arrays = {
        name: None if t is None else array_of(t, f"histograms: {name}")
        for name, t in tensors.items()
    }
    shorter = _short_names([str(name) for name in tensors])
    columns = min(6, math.ceil(math.sqrt(1.5 * len(tensors))))
    plot = panels(len(tensors), ax, what="histograms", columns=columns, size=(2.7, 2.2))
    for axes, (name, array) in zip(plot.axes, arrays.items(), strict=True):
        _draw(axes, shorter[str(name)], array, bins, log)
    if title is not None:
        plot.figure.suptitle(title) if ax is None else plot.axes[0].set_title(title)
    return plot


def _draw(
    axes: Any, name: str, array: np.ndarray[Any, Any] | None, bins: int | Sequence[float], log: bool
) -> None:
    from matplotlib.ticker import NullFormatter

    axes.set_title(name, fontsize=9)
    axes.tick_params(labelsize=7)
    if not log:
        axes.set_yticks([])
    if array is None:
        return _say(axes, "no gradient")
    values = array.reshape(-1).astype(np.float64)
    good = values[np.isfinite(values)]
    nan = int(np.isnan(values).sum())
    bad = [
        f"{n:,} {what}" for n, what in ((nan, "NaN"), (values.size - good.size - nan, "inf")) if n
    ]
    shape = "×".join(map(str, array.shape)) or "scalar"
    if good.size:
        unit = np.abs(good).max() or 1.0  # so that the squares of large numbers do not overflow
        shape += f"   {unit * (good / unit).mean():.3g} ± {unit * (good / unit).std():.3g}"
    axes.set_title(
        f"{name}\n" + (f"{' and '.join(bad)} of {values.size:,}" if bad else shape),
        fontsize=9, color="tab:red" if bad else "black", linespacing=1.3,
    )  # fmt: skip
    if not good.size:
        return _say(axes, "no finite value" if values.size else "empty")
    counts, edges = np.histogram(good, _edges(good, bins))
    floor = 0.5 if log else 0
    color = "C3" if bad else "C0"
    axes.stairs(np.maximum(counts, floor), edges, baseline=floor, fill=True, color=color)
    axes.set_xlim(edges[0], edges[-1])
    axes.locator_params(
        axis="x", nbins=4, prune="both"
    )  # labels at the ends would meet the neighbours'
    axes.xaxis.get_offset_text().set_fontsize(7)
    if log:
        axes.set_yscale("log")
        axes.set_ylim(floor, max(10, 1.5 * counts.max()))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0, 1.05 * max(counts.max(), 1))
    if edges[0] < 0 < edges[-1]:
        axes.axvline(0, color="0.3", linewidth=0.6)


def _short_names(names: list[str]) -> dict[str, str]:
    """Names as they fit over a panel: less what all begin with, and then less their middle."""
    common = 0
    if len(names) > 1 and max(map(len, names)) > LONGEST:
        for level in zip(*(name.split(".")[:-1] for name in names), strict=False):
            if len(set(level)) > 1:
                break
            common += len(level[0]) + 1
    return {name: shorten("…" * bool(common) + name[common:], LONGEST) for name in names}


def _edges(values: np.ndarray[Any, Any], bins: int | Sequence[float]) -> np.ndarray[Any, Any]:
    """The edges of the bars; a constant is one bar in the middle."""
    if not isinstance(bins, (int, np.integer)):
        return np.asarray(bins, dtype=np.float64)
    low, high = values.min(), values.max()
    edges = np.linspace(low, high, int(bins) + 1)
    if (np.diff(edges) > 0).all():
        return edges
    around = max(abs(low), abs(high)) / 2 or 0.5
    return np.linspace(low - around, high + around, 12)


def _say(axes: Any, text: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="0.4")


def _tensors(model: Any, what: str, inputs: Any) -> dict[str, Any]:
    """Name → tensor, or None where there is no gradient."""
    if isinstance(model, Mapping):
        return dict(model)
    if not isinstance(model, Module):
        raise TypeError(
            "histograms: expected a module or a dict of tensors, got " + type(model).__name__
        )
    if what == "weights":
        return dict(model.named_parameters())
    if what == "gradients":
        gradients = {name: p.grad for name, p in model.named_parameters()}
        if all(g is None for g in gradients.values()):
            raise ValueError("histograms: no parameter has a gradient: call loss.backward() first")
        return gradients
    if what != "activations":
        raise ValueError(
            f"histograms: what={what!r}; it is 'weights', 'gradients' or 'activations'"
        )
    if inputs is None:
        raise ValueError("histograms: activations are drawn for inputs=, and there are none")
    return activations(model, inputs)


@outside()
def activations(model: Module, inputs: Any) -> dict[str, np.ndarray[Any, Any]]:
    """What each innermost module returned in one call: name → array.

    A module that was called several times has all its values, one after the other; the parts of a tuple are
    named ``lstm[0]``, ``lstm[1]``. The call leaves the model and the random numbers as they were.

    Example:
        >>> import kilograd as kg
        >>> model = kg.nn.Sequential(kg.nn.Linear(4, 8), kg.nn.ReLU())
        >>> {name: a.shape for name, a in activations(model, kg.zeros(3, 4)).items()}
        {'0': (3, 8), '1': (3, 8)}
    """
    seen: dict[str, list[np.ndarray[Any, Any]]] = {}

    def keep(name: str, output: Any) -> None:
        if isinstance(output, Tensor):
            seen.setdefault(name, []).append(output.numpy(force=True).copy())
        elif isinstance(output, Mapping):
            for key, part in output.items():
                keep(f"{name}[{key!r}]", part)
        elif isinstance(output, (tuple, list)):
            for i, part in enumerate(output):
                keep(f"{name}[{i}]", part)

    handles = []
    try:
        for name, module in model.named_modules():
            if next(module.children(), None) is None:
                hook = lambda _, __, out, name=name: keep(name or type(model).__name__, out)  # noqa: E731
                handles.append(module.register_forward_hook(hook))
        with undisturbed(model), ModeContext(grad=False):
            model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: calls[0] if len(calls) == 1 else np.concatenate([c.reshape(-1) for c in calls])
        for name, calls in seen.items()
    }
