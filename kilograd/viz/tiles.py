"""Many small pictures as one: convolution filters, rows of a weight matrix, images of a batch.

The tiles are put together as one array of colours and drawn as one image, so that thousands are quick.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from kilograd.nn import Module
from kilograd.tensor import Tensor
from kilograd.viz.picture import Plot, array_of, panels, shorten

MOST = 16384  # tiles in one picture
SCALES = ("common", "each")
BAD = (1.0, 0.85, 0.0)  # NaN and infinity: yellow, which neither colormap has


def filters(
    layer: Any,
    *,
    shape: Sequence[int] | None = None,
    scale: str = "common",
    columns: int | None = None,
    cmap: str = "RdBu_r",
    title: str | None = None,
    ax: Any = None,
) -> Plot:
    """Draw the weight of a layer as a grid of small pictures.

    A convolution (O, C, H, W) of one channel is a grid of O filters; of three channels, of O colour pictures; of
    others, one row per filter and one column per channel. A convolution over time (O, C, K) is O pictures
    of C rows. A weight matrix (O, I) is O pictures, each row reshaped to ``shape``. Zero is the middle of the
    colormap. NaN and infinity are yellow.

    Args:
        layer: a module with a ``weight``, or the weight.
        shape: the shape of a row of a matrix: (H, W) or (C, H, W).
        scale: ``"common"`` gives all filters the same colours, with a colour bar; ``"each"`` stretches every
            filter to its own largest value.
        columns: how many side by side; by default about as many as rows.
        cmap: the Matplotlib colormap of single channels.
        title: a title over the picture.
        ax: the Axes to draw in.

    Returns:
        The picture.

    Raises:
        TypeError: no weight, or no real numbers.
        ValueError: a weight of another shape, a ``shape`` that does not fit, an unknown ``scale``, or more than
            16,384 filters.
        ImportError: Matplotlib is not installed.

    Example:
        >>> import kilograd as kg
        >>> plot = filters(kg.nn.Conv2d(1, 16, 5))
        >>> plot = filters(kg.nn.Linear(784, 10), shape=(28, 28), scale="each")
    """
    weight = layer
    if isinstance(layer, Module):
        weight = getattr(layer, "weight", None)
        if weight is None:
            raise TypeError(
                f"filters: {type(layer).__name__} has no weight; give a layer that has one, e.g. model[0]"
            )
    array = array_of(weight, "filters").astype(np.float64)
    if shape is not None:
        shape = tuple(int(n) for n in shape)
        if array.ndim != 2 or len(shape) not in (2, 3) or math.prod(shape) != array.shape[1]:
            raise ValueError(
                f"filters: shape={shape} does not fit rows of a weight of the shape {array.shape}"
            )
        array = array.reshape(-1, *(shape if len(shape) == 3 else (1, *shape)))
    elif array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4 or not array.size:
        hint = ": say shape=(height, width) of a row" if array.ndim == 2 else ""
        raise ValueError(
            f"filters: expected (O, C, H, W) or (O, C, K), got the shape {array.shape}{hint}"
        )
    if scale not in SCALES:
        raise ValueError(f"filters: scale={scale!r}; it is one of {SCALES}")
    if array.shape[1] == 3:
        pictures = _stretched(array, scale)
        limit = None
    else:
        if array.shape[1] > 1:
            columns = columns or array.shape[1]
        array = array.reshape(-1, 1, *array.shape[2:])
        size = np.abs(np.where(np.isfinite(array), array, 0)).max(axis=(1, 2, 3), keepdims=True)
        limit = float(size.max()) or 1.0
        pictures = array / (limit if scale == "common" else np.where(size > 0, size, 1)) / 2 + 0.5
    _check_count("filters", len(pictures))
    colors = _colored(pictures, cmap)
    bar_beside = limit is not None and scale == "common"
    plot = _grid(colors, columns, None, ax, "filters", beside=0.9 * bar_beside)
    if limit is not None and bar_beside:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        scalars = ScalarMappable(Normalize(-limit, limit), cmap)
        bar = plot.figure.colorbar(scalars, ax=plot.axes[0], fraction=0.046, pad=0.02, shrink=0.8)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8)
    if title is not None:
        plot.axes[0].set_title(title)
    return plot


def images(
    batch: Any,
    *,
    titles: Iterable[Any] | None = None,
    scale: str | None = None,
    columns: int | None = None,
    cmap: str = "gray",
    title: str | None = None,
    ax: Any = None,
) -> Plot:
    """Draw a batch of images as a grid.

    Args:
        batch: (N, H, W), (N, 1, H, W), (N, 3, H, W) or (N, H, W, 3), or one image (H, W) (a colour
            image alone: ``image[None]``). Bytes are from 0 to 255, floats from 0 to 1.
        titles: what stands over each image, N of them (numbers and 0-d tensors too).
        scale: None draws the values as they are, floats outside of 0 … 1 clipped and NaN and infinity yellow; ``"common"`` stretches the
            smallest and largest value of the batch to black and white, ``"each"`` those of every image.
        columns: how many side by side; by default about as many as rows.
        cmap: the Matplotlib colormap of images with one channel.
        title: a title over the picture.
        ax: the Axes to draw in.

    Returns:
        The picture.

    Raises:
        ValueError: another shape, another number of titles, an unknown ``scale``, floats far from 0 … 1 without
            a ``scale``, or more than 16,384 images.
        ImportError: Matplotlib is not installed.

    Example:
        >>> import kilograd as kg
        >>> plot = images(kg.rand(6, 1, 8, 8), titles=range(6), columns=3)
        >>> [text.get_text() for text in plot.axes[0].texts]
        ['0', '1', '2', '3', '4', '5']
    """
    array = array_of(batch, "images")
    given = array.shape
    if array.ndim == 2:
        array = array[None]
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
        array = np.moveaxis(array, 3, 1)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or not array.size:
        raise ValueError(
            f"images: expected (N, H, W), (N, 1, H, W), (N, 3, H, W) or (N, H, W, 3), got the shape {given}"
        )
    names = None if titles is None else [_name(t) for t in titles]
    if names is not None and len(names) != len(array):
        raise ValueError(f"images: {len(array)} images, but {len(names)} titles")
    if scale is not None and scale not in SCALES:
        raise ValueError(f"images: scale={scale!r}; it is None, 'common' or 'each'")
    _check_count("images", len(array))
    values = array.astype(np.float64) / (255 if array.dtype == np.uint8 else 1)
    pictures = values if scale is None else _stretched(values, scale)
    if scale is None:
        finite = values[np.isfinite(values)]
        if finite.size and (finite.min() < -0.5 or finite.max() > 1.5):
            raise ValueError(
                f"images: the values go from {finite.min():.3g} to {finite.max():.3g}; images are bytes, or from "
                "0 to 1: say scale='common' or scale='each', or convert them"
            )
        pictures = np.where(np.isfinite(values), np.clip(values, 0, 1), np.nan)
    plot = _grid(_colored(pictures, cmap), columns, names, ax, "images")
    if title is not None:
        plot.figure.suptitle(title) if ax is None else plot.axes[0].set_title(title)
    return plot


def _name(title: Any) -> str:
    return str(title.item() if isinstance(title, Tensor) and title.numel() == 1 else title)


def _check_count(what: str, count: int) -> None:
    if count > MOST:
        raise ValueError(
            f"{what}: {count:,} tiles are too many for one picture (at most {MOST:,}): give a part, e.g. "
            "weight[:32, :32]"
        )


def _stretched(array: np.ndarray[Any, Any], scale: str) -> np.ndarray[Any, Any]:
    """From the smallest to the largest finite value, of all or of each tile, to 0 … 1."""
    over = (1, 2, 3) if scale == "each" else None
    finite = np.isfinite(array)
    low = np.min(array, axis=over, keepdims=True, where=finite, initial=np.inf)
    high = np.max(array, axis=over, keepdims=True, where=finite, initial=-np.inf)
    low, span = np.where(high >= low, low, 0), np.where(high > low, high - low, 1)
    return np.where(high > low, (array - low) / span, np.where(finite, 0.5, np.nan))


def _colored(pictures: np.ndarray[Any, Any], cmap: str) -> np.ndarray[Any, Any]:
    """(N, 1 or 3, H, W) from 0 to 1 → (N, H, W, 3) colours."""
    from matplotlib import colormaps

    good = np.isfinite(pictures).all(1)[..., None]
    values = np.where(good, np.moveaxis(pictures, 1, 3), 0)
    colors = values if values.shape[3] == 3 else colormaps[cmap](values[..., 0])[..., :3]
    return np.where(good, colors, BAD)


def _grid(
    colors: np.ndarray[Any, Any],
    columns: int | None,
    names: list[str] | None,
    ax: Any,
    what: str,
    beside: float = 0,
) -> Plot:
    """The tiles side by side, a little apart, under their names, and room ``beside`` them in inches."""
    n, height, width, _ = colors.shape
    if columns is None:
        columns = _columns(n, height / width)
    elif columns < 1:
        raise ValueError(f"{what}: columns must be at least 1, got {columns}")
    rows = math.ceil(n / columns)
    # Pixels are repeated until the smallest tile has about 32 of them, so that a gap can be thin.
    zoom = (
        max(1, round(32 / min(height, width)))
        if n <= 4096
        else max(1, round(12 / min(height, width)))
    )
    colors = colors.repeat(zoom, 1).repeat(zoom, 2)
    height, width = height * zoom, width * zoom
    gap = max(1, round(0.06 * min(height, width)))
    inches = (columns * (width + gap), rows * (height + gap))  # in proportion, for now
    if ax is None:
        tile = min(1.0, 12 / max(columns, rows)) if names is None else 1.1
        unit = tile / min(width, height)
        unit = min(unit, (14 if names is None else 40) / max(inches))
    else:
        box = np.array(ax.get_window_extent().size) / ax.figure.figure.dpi
        unit = float((box / inches).min())
    size = 9.0
    above = 0
    if names is not None:
        room = (width + gap) * unit * 72  # points for a title
        longest = max(len(name) for name in names)
        size = min(9.0, max(5.0, room / (0.62 * max(longest, 1))))
        names = [shorten(name, max(3, int(room / (0.62 * size)))) for name in names]
        above = math.ceil(1.5 * size / 72 / unit)
    canvas = np.ones((rows * (height + gap + above) + gap, columns * (width + gap) + gap, 4))
    canvas[..., 3] = 0
    corners = []
    for k in range(n):
        top = gap + above + (k // columns) * (height + gap + above)
        left = gap + (k % columns) * (width + gap)
        canvas[top : top + height, left : left + width, :3] = colors[k]
        canvas[top : top + height, left : left + width, 3] = 1
        corners.append((top, left))
    inch = (max(canvas.shape[1] * unit, 1.5) + beside, max(canvas.shape[0] * unit, 1.0))
    plot = panels(1, ax, what=what, size=inch)
    axes = plot.axes[0]
    axes.imshow(canvas, interpolation="nearest")
    axes.set_axis_off()
    for (top, left), name in zip(corners, names or (), strict=False):
        text = axes.text(
            left + width / 2, top - gap / 2, name, ha="center", va="bottom", fontsize=size
        )
        text.set_in_layout(False)  # there is room: measuring thousands of texts takes long
    return plot


def _columns(n: int, tall: float) -> int:
    """About as wide as high, a little wider rather, and the last row as full as can be."""
    ideal = min(n, math.sqrt(1.6 * n * tall))
    near = range(max(1, math.ceil(0.75 * ideal)), max(2, min(n, math.floor(1.3 * ideal)) + 1))
    return min(near, key=lambda columns: (-n % columns, abs(columns - ideal)))
