"""Training curves: what each metric was, epoch by epoch, training and validation in one panel."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kilograd.tensor import Tensor
from kilograd.viz.picture import Plot, panels, shorten

PARTS = re.compile(r"^(train|training|val|valid|validation|test)[_/. ](.+)$", re.IGNORECASE)
CLOCKS = ("epoch", "step", "iteration", "batch")  # what may be on the x-axis, unless x= says it
LINES = {"train": "-", "training": "-", "test": ":"}  # validation is dashed
MARKED = 40  # up to so many points each gets a dot


def curves(
    history: Any,
    *,
    keys: str | Iterable[str] | None = None,
    x: str | None = None,
    log: bool | str | Iterable[str] = False,
    title: str | None = None,
    ax: Any = None,
) -> Plot:
    """Draw the curves of a training run, or of several over each other.

    ``train_loss`` and ``val_loss`` (``validation_``, ``valid_``, ``test_``, also with ``/`` or ``.``) share the
    panel "loss", and so do Keras's ``loss`` and ``val_loss``. Accuracies are in percent. The line goes past epochs
    in which a metric was not measured (missing or None); NaN and infinity are gaps in it.

    Args:
        history: a list with one dict an epoch, ``[{"train_loss": 0.9, …}, …]``; or a dict of lists,
            ``{"train_loss": [0.9, …], …}``; or an object whose ``.history`` is one of them; or several runs,
            ``{"adam": history, "sgd": history}``. Numbers may be 0-d tensors; entries that are no numbers
            are passed over.
        keys: the metrics to draw (``"loss"`` means all its parts, ``"val_loss"`` that one); all by default.
        x: the entry for the x-axis; by default ``epoch``, ``step``, ``iteration`` or ``batch``, whichever there
            is, or else 1, 2, 3, …
        log: True for a logarithmic scale of everything but accuracies, or the metrics to have one. Values
            that are not positive are gaps there.
        title: a title over the picture.
        ax: the Axes to draw in, one per metric.

    Returns:
        The picture, one panel per metric.

    Raises:
        ValueError: nothing to draw, an unknown key, or lists of different lengths.
        TypeError: ``history`` is none of the above.
        ImportError: Matplotlib is not installed.

    Example:
        >>> epochs = [{"epoch": 1, "train_loss": 0.9, "val_loss": 1.0}, {"epoch": 2, "train_loss": 0.5}]
        >>> plot = curves(epochs)
        >>> [line.get_label() for line in plot.axes[0].get_lines()], plot.axes[0].get_title()
        (['train', 'val'], 'loss')
    """
    keys = [keys] if isinstance(keys, str) else keys
    log = [log] if isinstance(log, str) else log
    runs = {name: _columns(run) for name, run in _runs(history).items()}
    metrics = _metrics(runs, x, None if keys is None else list(keys))
    logs = (
        {m for m in metrics if not _is_accuracy(m)}
        if log is True
        else {_split(k, metrics)[1] for k in log or ()}
    )
    if unknown := logs - metrics.keys():
        raise ValueError(
            f"curves: log= names {sorted(unknown)}, which is not drawn; there are {list(metrics)}"
        )
    plot = panels(len(metrics), ax, what="curves")
    for axes, (metric, parts) in zip(plot.axes, metrics.items(), strict=True):
        _draw(axes, metric, parts, runs, x, metric in logs)
    if len(runs) > 1 and ax is None:
        _explain(plot, list(runs), list(dict.fromkeys(p for m in metrics.values() for p in m if p)))
    if title is not None:
        plot.figure.suptitle(title) if ax is None else plot.axes[0].set_title(title)
    return plot


def _draw(
    axes: Any, metric: str, parts: dict[str, str], runs: Mapping[str, Any], x: str | None, log: bool
) -> None:
    """One panel: every run has a colour and every part a line style; a lone run has a colour a part."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    values: list[np.ndarray[Any, Any]] = []
    times: list[np.ndarray[Any, Any]] = []
    label = ""
    for i, (name, columns) in enumerate(runs.items()):
        label, time = _clock(columns, x)
        for j, (part, key) in enumerate(parts.items()):
            if key not in columns:
                continue
            measured = ~np.ma.getmaskarray(columns[key])
            y, when = columns[key].data[measured], time[measured]
            seen = np.isfinite(y) & (y > 0 if log else True)
            beside = np.convolve(seen, [1, 0, 1], "same") > 0
            points = seen if len(y) <= MARKED else seen & ~beside  # a point alone has no line
            axes.plot(
                when, np.where(seen, y, np.nan),
                color=_color(i, len(runs)) if len(runs) > 1 else f"C{j}",
                linestyle="-" if len(runs) == 1 else _style(part),
                linewidth=1.5 if len(y) <= 500 else 0.8,
                marker="o", markersize=3.5, markevery=np.flatnonzero(points).tolist(),
                label=", ".join(filter(None, (name, part))) or metric,
            )  # fmt: skip
            values.append(y[seen])
            times.append(when)
    drawn = np.concatenate(values)
    if log and drawn.size:
        axes.set_yscale("log", nonpositive="mask")
    elif _is_accuracy(metric) and drawn.size:
        axes.yaxis.set_major_formatter(PercentFormatter(1 if drawn.max() <= 1 else 100))
    if not drawn.size:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, ha="center", color="0.4")
    ends = min(t.min() for t in times), max(t.max() for t in times)
    if ends[0] == ends[1]:  # one epoch: a tick in the middle
        axes.set_xlim(ends[0] - 1, ends[1] + 1)
        axes.set_xticks([ends[0]])
    elif all((t == np.rint(t)).all() for t in times):
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.set_xlabel(label)
    axes.set_title(metric)
    axes.grid(alpha=0.3)
    if len(axes.get_lines()) > 1:
        axes.legend(fontsize="small").set_in_layout(False)


def _explain(plot: Plot, runs: list[str], parts: list[str]) -> None:
    """One legend beside the panels, in place of theirs: what the colours are, and what the lines."""
    from matplotlib.lines import Line2D

    names = [shorten(name, 40) for name in runs]
    entries = [
        Line2D([], [], color=_color(i, len(names)), label=name) for i, name in enumerate(names)
    ]
    if len(parts) > 1:
        entries += [Line2D([], [], color="0.4", linestyle=_style(p), label=p) for p in parts]
    for axes in plot.axes:
        if axes.get_legend() is not None:
            axes.get_legend().remove()
    width, height = plot.figure.get_size_inches()
    longest = max(len(name) for name in names)
    plot.figure.set_size_inches(width + 0.7 + 0.08 * longest, max(height, 0.2 * len(entries) + 0.3))
    plot.figure.legend(handles=entries, fontsize="small", loc="outside right upper")


def _color(i: int, count: int) -> Any:
    """The user's colours; they are ten, and more runs than that go from one end of a scale to the other."""
    if count <= 10:
        return f"C{i}"
    from matplotlib import colormaps

    return colormaps["turbo"](0.05 + 0.9 * i / (count - 1))


def _style(part: str) -> Any:
    return LINES.get(part.lower(), "--") if part else "-"


def _runs(history: Any) -> dict[str, Any]:
    """Name → history; one run has the name ""."""
    history = getattr(history, "history", history)
    if isinstance(history, Mapping) and history:
        runs = {str(k): getattr(v, "history", v) for k, v in history.items()}
        if all(
            isinstance(v, Mapping)
            or (isinstance(v, Sequence) and len(v) and isinstance(v[0], Mapping))
            for v in runs.values()
        ):
            return runs
    return {"": history}


def _columns(run: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Key → its values, one per epoch, masked where it was not measured."""
    if isinstance(run, Mapping):
        raw = {str(k): list(v) for k, v in run.items() if _is_list(v)}
    elif isinstance(run, Sequence) and all(isinstance(epoch, Mapping) for epoch in run):
        names = dict.fromkeys(str(k) for epoch in run for k in epoch)
        raw = {k: [epoch.get(k) for epoch in run] for k in names}
    else:
        raise TypeError(
            "curves: history is a list with one dict an epoch or a dict of lists, not "
            f"{type(run).__name__}"
        )
    columns: dict[str, Any] = {}
    for key, entries in raw.items():
        numbers = [_number(v) for v in entries]
        if None not in numbers and any(v is not None for v in entries):
            columns[key] = np.ma.array(numbers, float, mask=[v is None for v in entries])
    if not columns:
        raise ValueError("curves: the history holds no numbers yet")
    if len({len(c) for c in columns.values()}) > 1:
        lengths = ", ".join(f"{k!r} has {len(c)}" for k, c in columns.items())
        raise ValueError(
            f"curves: the lists have different lengths ({lengths}): put None where nothing was measured"
        )
    return columns


def _is_list(v: Any) -> bool:
    return not isinstance(v, (str, bytes)) and hasattr(v, "__iter__") and getattr(v, "ndim", 1) == 1


def _number(v: Any) -> float | None:
    """A float; NaN for what is missing, None for what is no number."""
    if v is None:
        return float("nan")
    if isinstance(v, (Tensor, np.ndarray)):
        v = v.item() if (v.numel() if isinstance(v, Tensor) else v.size) == 1 else None
    if isinstance(v, (int, float, np.integer, np.floating)) and not isinstance(v, bool):
        return float(v)
    return None


def _split(key: str, keys: Iterable[str] = ()) -> tuple[str, str]:
    """``"val_loss"`` → ``("val", "loss")``; a name without a part is the metric itself."""
    found = PARTS.match(key)
    return (found[1], found[2]) if found and key not in keys else ("", key)


def _metrics(
    runs: Mapping[str, Mapping[str, Any]], x: str | None, wanted: list[str] | None
) -> dict[str, dict[str, str]]:
    """Metric → part → key, in the order of their first appearance."""
    if x is not None and (lacking := [n or "history" for n, c in runs.items() if x not in c]):
        raise ValueError(f"curves: x={x!r} is not in {', '.join(lacking)}")
    keys = dict.fromkeys(k for c in runs.values() for k in c if k not in (x, *CLOCKS))
    metrics: dict[str, dict[str, str]] = {}
    for key in keys:
        part, metric = _split(key)
        metrics.setdefault(metric, {})[part] = key
    for parts in metrics.values():  # Keras says "loss" for the training loss, beside "val_loss"
        if "" in parts and len(parts) > 1 and "train" not in parts:
            metric = parts.pop("")
            parts |= {"train": metric, **{p: parts.pop(p) for p in list(parts)}}
    if wanted is not None:
        if absent := [w for w in wanted if w not in keys and w not in metrics]:
            raise ValueError(f"curves: there is no {absent}; the history has {list(keys)}")
        chosen: dict[str, dict[str, str]] = {}
        for w in wanted:
            metric = w if w in metrics else _split(w)[1]
            parts = {p: k for p, k in metrics[metric].items() if w in (k, metric)}
            chosen.setdefault(metric, {}).update(parts)
        metrics = chosen
    if not metrics:
        raise ValueError(f"curves: there is nothing to draw but {list(keys) or 'the x-axis'}")
    return metrics


def _clock(columns: Mapping[str, Any], x: str | None) -> tuple[str, np.ndarray[Any, Any]]:
    """The name and values of a run's x-axis."""
    key = x or next((k for k in CLOCKS if k in columns), None)
    if key is None:
        return "epoch", np.arange(1, 1 + len(next(iter(columns.values()))))
    if not np.isfinite(columns[key].data).all():
        raise ValueError(f"curves: {key!r} is the x-axis, and is not a finite number everywhere")
    return key, columns[key].data


def _is_accuracy(metric: str) -> bool:
    words = re.split(r"[^a-z0-9]+", metric.lower())
    return any(w.startswith("acc") or w in ("top1", "top5") for w in words)
