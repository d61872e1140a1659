"""A picture is a Matplotlib figure of its own: no pyplot, no display and no global state know of it."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kilograd.compile.lazy.graph import outside
from kilograd.tensor import Tensor
from kilograd.train.checkpoint import atomic_write

# What each format would note about the moment of saving, left out: the same picture is the same file.
FORMATS: dict[str, dict[str, Any]] = {
    ".png": {},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}


class Plot:
    """A drawn figure: look at it in a notebook, save it, or go on drawing in ``axes``.

    Args:
        figure: the ``matplotlib.figure.Figure``.
        axes: the ``matplotlib.axes.Axes`` that were drawn in, in reading order.
    """

    def __init__(self, figure: Any, axes: Sequence[Any]) -> None:
        self.figure = figure
        self.axes = list(axes)

    def save(self, path: str | os.PathLike[str], *, dpi: float = 150) -> Path:
        """Write the picture; the suffix says how: ``.png``, ``.svg`` or ``.pdf``.

        The file is written beside its place and then renamed, so that ``path`` never holds half a picture.

        Args:
            path: where to; an older file is replaced.
            dpi: pixels per inch of a PNG.

        Returns:
            The path.

        Raises:
            ValueError: another suffix.
            OSError: the file cannot be written, e.g. there is no such folder.

        Example:
            >>> import tempfile
            >>> from kilograd.viz.training_curves import curves
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     curves({"loss": [3.0, 2.0]}).save(folder + "/loss.svg").name
            'loss.svg'
        """
        path = Path(path)
        if path.suffix.lower() not in FORMATS:
            raise ValueError(
                f"save: {str(path)!r} ends with {path.suffix!r}; a picture can be saved as "
                + ", ".join(FORMATS)
            )
        if not path.parent.is_dir():
            raise FileNotFoundError(f"save: there is no folder {str(path.parent)!r}")
        data = self._drawn(path.suffix.lower(), dpi)
        with atomic_write(path) as file:
            file.write(data)
        return path

    def _drawn(self, suffix: str, dpi: float) -> bytes:
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format=suffix[1:], dpi=dpi, metadata=FORMATS[suffix])
        return buffer.getvalue()

    def _repr_png_(self) -> bytes:
        return self._drawn(".png", 100)

    def _repr_svg_(self) -> str:
        return self._drawn(".svg", 100).decode()

    def __repr__(self) -> str:
        width, height = self.figure.get_size_inches()
        return f"<Plot of {len(self.axes)} axes, {width:.1f} × {height:.1f} inches: .save(path)>"


def panels(
    count: int, ax: Any, *, what: str, columns: int = 3, size: tuple[float, float] = (4.5, 3.4)
) -> Plot:
    """As many empty axes as asked for: new ones in a grid, or those that were given.

    Args:
        count: how many.
        ax: None for a new figure, one Axes, or a sequence of ``count`` of them.
        what: the calling function, for the message.
        columns: the most that stand side by side.
        size: width and height of each in inches.

    Raises:
        ImportError: Matplotlib is not installed.
        ValueError: another number of Axes was given.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise ImportError(f"{what} needs Matplotlib: pip install 'kilograd[viz]'") from e
    if ax is not None:
        given = list(np.asarray(ax, dtype=object).reshape(-1))
        if len(given) != count:
            raise ValueError(
                f"{what}: this picture has {count} panels, but ax= holds {len(given)} Axes: give "
                f"{count} of them, or leave ax out"
            )
        return Plot(given[0].figure.figure, given)  # a subfigure's figure is the whole one
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    layout: Any = (
        "constrained" if count > 1 else "compressed"
    )  # the latter for pictures of a fixed shape
    figure = Figure(figsize=(columns * size[0], rows * size[1]), layout=layout)
    axes = list(figure.subplots(rows, columns, squeeze=False).reshape(-1))
    for empty in axes[count:]:
        empty.remove()
    return Plot(figure, axes[:count])


@outside()
def array_of(x: Any, what: str) -> np.ndarray[Any, Any]:
    """The numbers of a Tensor or of anything array-like, detached.

    Raises:
        TypeError: they are not real numbers.
    """
    array = x.numpy(force=True) if isinstance(x, Tensor) else np.asarray(x)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{what}: expected real numbers, got {array.dtype} of {type(x).__name__}")
    return array


def shorten(text: str, length: int) -> str:
    """The text, or its two ends where it is too long: ``encoder.layers…weight``."""
    text = " ".join(text.split())
    if len(text) <= length:
        return text
    tail = (length - 1) * 3 // 5  # the end of a dotted name says more than its beginning
    return text[: length - 1 - tail] + "…" + text[len(text) - tail :]


def text_on(background: Sequence[float]) -> str:
    """Black or white, whichever can be read on this colour (red, green, blue from 0 to 1).

    The limit is where both have the same contrast: WCAG 2.1, "relative luminance".
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if luminance > 0.179 else "white"
