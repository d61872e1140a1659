"""The ratios as a picture: a bar an op, to the right of 1 where kilograd is faster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kilograd.cli.bench.rows import Row, ratio_title
from kilograd.cli.bench.timing import TITLES
from kilograd.train.checkpoint import atomic_write

FORMATS = ("png", "svg", "pdf")


def draw_ratios(rows: Sequence[Row], pairs: Sequence[tuple[str, str]], path: Path) -> None:
    """Write a picture with a panel for each group of rows; the suffix of the path is its format.

    Raises:
        ImportError: matplotlib is not installed.
    """
    mpl = matplotlib()
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if any(row.ratio(*pair) is not None for pair in pairs):
            groups.setdefault(row.group, []).append(row)
    longest = max(map(len, groups.values()), default=1)
    figure = mpl.figure.Figure(
        figsize=(6 * max(len(groups), 1), 1.6 + 0.2 * longest * max(len(pairs), 1)),
        layout="constrained",
    )
    mpl.backends.backend_agg.FigureCanvasAgg(figure)
    panels = figure.subplots(1, max(len(groups), 1), squeeze=False, sharex=True)[0]
    for axes, (group, found) in zip(panels, groups.items(), strict=False):
        draw_panel(axes, group, found, pairs)
    with atomic_write(path) as f:
        figure.savefig(f, format=path.suffix[1:].lower(), dpi=120)


def draw_panel(
    axes: Any, group: str, rows: Sequence[Row], pairs: Sequence[tuple[str, str]]
) -> None:
    """One group: a line of bars for each row, the first on top."""
    height = 0.8 / len(pairs)
    for i, pair in enumerate(pairs):
        found = [(place, row.ratio(*pair)) for place, row in enumerate(rows)]
        places = [place + i * height for place, value in found if value is not None]
        values = [value for _, value in found if value is not None]
        # A single pair shows by colour who wins; of several, each has its own.
        colours: Any = f"C{i}"
        if len(pairs) == 1:
            colours = ["tab:green" if value >= 1 else "tab:red" for value in values]
        bars = axes.barh(
            places, [v - 1 for v in values], height, left=1, color=colours,
            label=ratio_title(*pair),
        )  # fmt: skip
        axes.bar_label(bars, [f"{v:.2f}" for v in values], padding=2, fontsize=6)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.margins(x=0.15)
    ticker = matplotlib().ticker
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    labels = [f"{row.name}  {row.size}" if len(row.size) < 24 else row.name for row in rows]
    axes.set_yticks([p + 0.4 - height / 2 for p in range(len(rows))], labels, fontsize=7)
    axes.set_ylim(len(rows), -0.6)
    axes.set_title(group)
    axes.set_xlabel("times as fast as " + " and ".join(dict.fromkeys(TITLES[p[0]] for p in pairs)))
    axes.grid(axis="x", alpha=0.3)
    if len(pairs) > 1:
        axes.legend(fontsize=7)


def matplotlib() -> Any:
    """matplotlib with what is needed of it: no window, no global state."""
    try:
        import matplotlib
        import matplotlib.backends.backend_agg
        import matplotlib.figure
        import matplotlib.ticker
    except ImportError as e:
        raise ImportError("drawing ratios needs matplotlib: pip install 'kilograd[cli]'") from e
    return matplotlib
