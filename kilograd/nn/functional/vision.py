"""Images: interpolation, sampling at given points, shuffling pixels and channels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from kilograd.errors import ShapeError
from kilograd.functions.calling import function
from kilograd.nn.functional.pooling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
)
from kilograd.nn.functional.sizes import in_float32
from kilograd.ops import elementwise as ew
from kilograd.ops import resize as resize_ops
from kilograd.ops.elementwise import where
from kilograd.ops.index import gather
from kilograd.ops.linalg import matmul
from kilograd.ops.shape import permute, reshape
from kilograd.tensor import Tensor, wrap

__all__ = [
    "affine_grid", "channel_shuffle", "grid_sample", "interpolate", "native_channel_shuffle",
    "pixel_shuffle", "pixel_unshuffle", "upsample", "upsample_bilinear", "upsample_nearest",
]  # fmt: skip

_DIMS = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}


# --- another size -------------------------------------------------------------------------------


@function(method=False)
@in_float32
def interpolate(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:  # fmt: skip
    """Resize (N, C, …) to ``size`` or by ``scale_factor``.

    Modes: nearest, nearest-exact, area (1 to 3 dimensions), linear (1), bilinear and bicubic (2),
    trilinear (3). ``align_corners``: the corner pixels' centres, and not their corners, stay in place.

    >>> import kilograd as kg
    >>> kg.nn.functional.interpolate(kg.tensor([[[0.0, 1.0]]]), scale_factor=2)
    tensor([[[0., 0., 1., 1.]]])

    Raises:
        ValueError: neither or both of size and scale_factor. NotImplementedError: a mode for another
        number of dimensions.
    """
    x = input.array
    n = x.ndim - 2
    if mode in ("nearest", "area", "nearest-exact") and align_corners is not None:
        raise ValueError(
            "align_corners option can only be set with the interpolating modes: "
            "linear | bilinear | bicubic | trilinear"
        )
    if size is not None and scale_factor is not None:
        raise ValueError("only one of size or scale_factor should be defined")
    scales: Any = None
    if size is not None:
        out = list(size) if isinstance(size, (list, tuple)) else [size] * n
        if len(out) != n:
            raise ValueError(
                "Input and output must have the same number of spatial dimensions, but got "
                "input with spatial "
                f"dimensions of {list(x.shape[2:])} and output size of {size}."
            )
        if not all(hasattr(s, "__index__") for s in out):
            raise TypeError(f"expected size to be one of int or a tuple of ints, but got {size}")
        if recompute_scale_factor:
            raise ValueError("recompute_scale_factor is not meaningful with an explicit size.")
    elif scale_factor is not None:
        scales = (
            list(scale_factor) if isinstance(scale_factor, (list, tuple)) else [scale_factor] * n
        )
        if len(scales) != n:
            raise ValueError(
                "Input and scale_factor must have the same number of spatial dimensions, but got input with "
                f"spatial dimensions of {list(x.shape[2:])} and scale_factor of shape {scale_factor}."
            )
        out = [math.floor(m * s) for m, s in zip(x.shape[2:], scales, strict=True)]
        if recompute_scale_factor or mode == "area":
            scales = None
    else:
        raise ValueError("either size or scale_factor should be defined")
    if antialias and not (mode in ("bilinear", "bicubic") and x.ndim == 4):
        raise ValueError(
            "Anti-alias option is restricted to bilinear and bicubic modes and requires a 4-D tensor as input"
        )
    if not 1 <= n <= 3 or mode not in (*_DIMS, "nearest", "nearest-exact", "area"):
        raise NotImplementedError(
            f"Input Error: Only 3D, 4D and 5D input Tensors supported (got {x.ndim}D) for the "
            "modes: nearest | "
            f"linear | bilinear | bicubic | trilinear | area | nearest-exact (got {mode})"
        )
    if _DIMS.get(mode, n) != n:
        raise NotImplementedError(
            f"Got {x.ndim}D input, but {mode} mode needs {_DIMS[mode] + 2}D input"
        )
    target = tuple(int(s) for s in out)
    if mode == "area":
        return (adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d)[n - 1](input, target)
    if min(target) < 1 or 0 in x.shape[1:]:
        raise ShapeError(
            "interpolate: input and output sizes should be greater than 0, but got input "
            f"{list(x.shape)} and "
            f"output {list(target)}"
        )
    return resize_ops.resize(
        input, size=target, mode=mode, align_corners=bool(align_corners),
        scales=None if scales is None else tuple(scales), antialias=antialias,
    )  # fmt: skip


@function(method=False)
def upsample(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:  # fmt: skip
    """The older name of :func:`interpolate`."""
    return interpolate(input, size, scale_factor, mode, align_corners)


@function(method=False)
def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """``interpolate(mode="nearest")``."""
    return interpolate(input, size, scale_factor, mode="nearest")


@function(method=False)
def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """``interpolate(mode="bilinear", align_corners=True)``."""
    return interpolate(input, size, scale_factor, mode="bilinear", align_corners=True)


# --- sampling at points -------------------------------------------------------------------------


def _default_corners(align_corners: bool | None) -> bool:
    if align_corners is None:
        warnings.warn(
            "Default grid_sample and affine_grid behavior has changed to align_corners=False since 1.3.0. "
            "Please specify align_corners=True if the old behavior is desired.",
            stacklevel=4,
        )
    return bool(align_corners)


@function(method=False)
def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The points (N, H, W, 2) at which :func:`grid_sample` applies affine maps theta (N, 2, 3).

    ``size`` is the output's (N, C, H, W); in three dimensions theta is (N, 3, 4) and size (N, C, D, H, W).
    """
    align_corners = _default_corners(align_corners)
    t = theta.array
    if t.dtype.kind != "f":
        raise ValueError(f"Expected theta to have floating point type, but got {t.dtype}")
    n = len(size) - 2
    if n not in (2, 3):
        raise NotImplementedError(
            "affine_grid only supports 4D and 5D sizes, for 2D and 3D affine transforms, "
            f"respectively. Got size {size}."
        )
    if t.ndim != 3 or t.shape[1:] != (n, n + 1):
        raise ValueError(
            f"Expected a batch of {n}D affine matrices of shape Nx{n}x{n + 1} for size {size}. "
            f"Got {list(t.shape)}."
        )
    spatial = tuple(int(s) for s in size[2:])
    if align_corners and min(spatial) == 1:
        warnings.warn(
            "affine_grid: unit-size grids with align_corners=True are not an intended use.",
            stacklevel=3,
        )
    elif min(size) <= 0:
        raise ValueError(f"Expected non-zero, positive output size. Got {size}")
    base = np.ones((*spatial, n + 1), t.dtype)
    for d, m in enumerate(spatial):  # x first: the last dimension
        line = np.linspace(-1, 1, m, dtype=t.dtype) if m > 1 else np.zeros(1, t.dtype)
        if not align_corners:
            line = line * (m - 1) / m
        base[..., n - 1 - d] = line.reshape((-1,) + (1,) * (n - 1 - d))
    grid = matmul(wrap(base.reshape(1, -1, n + 1)), theta.transpose(1, 2))
    return reshape(grid, shape=(len(t), *spatial, n))


def _reflected(x: Tensor, low: float, high: float) -> Tensor:
    """Coordinates folded back into [low, high]; both are twice the bounds, to stay integers."""
    if low == high:
        return x * 0
    start, span = low / 2, (high - low) / 2
    d = abs(x - start)
    a = d.array
    flips = np.floor(a / span)
    rest = d - wrap((flips * span).astype(a.dtype))
    return where(flips % 2 == 0, rest + start, span - rest + start)


def _placed(x: Tensor, size: int, padding_mode: str, align_corners: bool) -> Tensor:
    """Coordinates beyond the border brought back, as the padding mode says."""
    if padding_mode == "reflection":
        x = _reflected(x, 0, 2 * (size - 1)) if align_corners else _reflected(x, -1, 2 * size - 1)
    if padding_mode != "zeros":
        a = x.array
        inside = (a > 0) & (a < size - 1)
        x = where(inside, x, wrap(np.minimum(np.maximum(a, 0), size - 1)))
    return x


@function(method=False)
@in_float32
def grid_sample(
    input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:  # fmt: skip
    """``input`` (N, C, H, W) at points ``grid`` (N, H', W', 2) given as (x, y) in [-1, 1]: (N, C, H', W').

    Also (N, C, D, H, W) at (N, D', H', W', 3). Modes: bilinear, nearest, bicubic (two dimensions only);
    padding modes: zeros, border, reflection.
    """
    if mode not in ("bilinear", "nearest", "bicubic"):
        raise ValueError(
            "nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' or "
            f"'bicubic', but got: '{mode}'"
        )
    if padding_mode not in ("zeros", "border", "reflection"):
        raise ValueError(
            "nn.functional.grid_sample(): expected padding_mode to be 'zeros', 'border', or "
            f"'reflection', but got: '{padding_mode}'"
        )
    align_corners = _default_corners(align_corners)
    x, p = input.array, grid.array
    n = x.ndim - 2
    if n not in (2, 3) or p.ndim != x.ndim:
        raise ShapeError(
            "grid_sample(): expected 4D or 5D input and grid with same number of dimensions, "
            "but got input with "
            f"sizes {list(x.shape)} and grid with sizes {list(p.shape)}"
        )
    if p.shape[0] != x.shape[0] or p.shape[-1] != n:
        raise ShapeError(
            f"grid_sample(): expected grid to have the batch size {x.shape[0]} and size {n} in "
            "last dimension, but "
            f"got grid with sizes {list(p.shape)}"
        )
    if 0 in x.shape[2:]:
        raise ShapeError(
            f"grid_sample(): expected input to have non-empty spatial dimensions, but got {list(x.shape)}"
        )
    if mode == "bicubic" and n != 2:
        raise RuntimeError("grid_sample(): bicubic interpolation only supports 4D input")
    if x.dtype != p.dtype:
        raise RuntimeError(
            f"grid_sample(): expected input and grid to have same dtype, but got {x.dtype} and {p.dtype}"
        )
    sizes = x.shape[2:]
    at = []  # coordinates in pixels, first dimension first
    for d, m in enumerate(sizes):
        c = grid[..., n - 1 - d] + 1
        c = c * ((m - 1) / 2) if align_corners else (c * m - 1) * 0.5
        at.append(c if mode == "bicubic" else _placed(c, m, padding_mode, align_corners))
    if mode == "nearest":
        weighted: list[list[tuple[Any, Any]]] = [
            [(np.rint(c.array), _one(c) if c.requires_grad else None)] for c in at
        ]
    elif mode == "bilinear":
        weighted = []
        for c in at:
            low = np.floor(c.array)
            high_part = c - wrap(low)
            weighted.append([(low, 1 - high_part), (low + 1, high_part)])
    else:
        weighted = [
            _cubic(c, m, padding_mode, align_corners) for c, m in zip(at, sizes, strict=True)
        ]
    flat = reshape(input, shape=(*x.shape[:2], math.prod(sizes)))
    total: Any = None
    for corner in np.ndindex(*[len(w) for w in weighted]):
        index: Any = 0
        valid: Any = True
        weight: Any = None
        for d, i in enumerate(corner):
            place, w = weighted[d][i]
            valid = valid & (place >= 0) & (place <= sizes[d] - 1)
            with np.errstate(invalid="ignore"):
                whole = np.clip(np.nan_to_num(place), 0, sizes[d] - 1).astype(np.int64)
            index = index * sizes[d] + whole
            if w is not None:
                weight = w if weight is None else weight * w
        picked = gather(
            flat,
            np.broadcast_to(index.reshape(len(x), 1, -1), (*x.shape[:2], index[0].size)),
            axis=2,
        )
        part = where(valid.reshape(len(x), 1, -1), picked, 0.0)
        if weight is not None:
            part = part * reshape(weight, shape=(len(x), 1, -1))
        total = part if total is None else total + part
    return reshape(total, shape=(*x.shape[:2], *p.shape[1:-1]))


def _one(c: Tensor) -> Tensor:
    """Ones, with the derivative of a step (zero) by c."""
    return ew.floor(where(np.isfinite(c.array), c, 0.0)) * 0 + 1


def _cubic(
    c: Tensor, size: int, padding_mode: str, align_corners: bool
) -> list[tuple[Any, Tensor]]:
    """The four neighbours of each coordinate and their weights (Keys, 1981, with A = -3/4)."""
    A = -0.75
    low = np.floor(c.array)
    t = c - wrap(low)

    def near(d: Tensor) -> Tensor:  # at distance up to 1
        return ((A + 2) * d - (A + 3)) * d * d + 1

    def far(d: Tensor) -> Tensor:  # at distance 1 to 2
        return ((A * d - 5 * A) * d + 8 * A) * d - 4 * A

    weights = (far(t + 1), near(t), near(1 - t), far(2 - t))
    places = []
    for i in range(-1, 3):
        place = _placed(wrap(low + i), size, padding_mode, align_corners).array
        places.append(np.trunc(place) if padding_mode != "zeros" else place)
    return list(zip(places, weights, strict=True))


# --- shuffles -----------------------------------------------------------------------------------


@function(method=False)
def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(*, C*r², H, W) → (*, C, H*r, W*r): channels become pixels.

    >>> import kilograd as kg
    >>> kg.nn.functional.pixel_shuffle(kg.arange(4.0).reshape(1, 4, 1, 1), 2)
    tensor([[[[0., 1.],
              [2., 3.]]]])
    """
    shape, r = input.array.shape, upscale_factor
    if len(shape) < 3:
        raise ShapeError(
            "pixel_shuffle expects input to have at least 3 dimensions, but got input with "
            f"{len(shape)} dimension(s)"
        )
    if r <= 0:
        raise RuntimeError(f"pixel_shuffle expects a positive upscale_factor, but got {r}")
    *lead, C, H, W = shape
    if C % (r * r):
        raise ShapeError(
            "pixel_shuffle expects its input's 'channel' dimension to be divisible by the "
            "square of upscale_factor, "
            f"but input.size(-3)={C} is not divisible by {r * r}"
        )
    n, c = len(lead), C // (r * r)
    y = reshape(input, shape=(*lead, c, r, r, H, W))
    y = permute(y, axes=(*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return reshape(y, shape=(*lead, c, H * r, W * r))


@function(method=False)
def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(*, C, H*r, W*r) → (*, C*r², H, W): the inverse of :func:`pixel_shuffle`."""
    shape, r = input.array.shape, downscale_factor
    if len(shape) < 3:
        raise ShapeError(
            "pixel_unshuffle expects input to have at least 3 dimensions, but got input with "
            f"{len(shape)} dimension(s)"
        )
    if r <= 0:
        raise RuntimeError(f"pixel_unshuffle expects a positive downscale_factor, but got {r}")
    *lead, C, H, W = shape
    if H % r or W % r:
        raise ShapeError(
            "pixel_unshuffle expects height and width to be divisible by downscale_factor, but "
            f"{H}x{W} is not divisible by {r}"
        )
    n = len(lead)
    y = reshape(input, shape=(*lead, C, H // r, r, W // r, r))
    y = permute(y, axes=(*range(n), n, n + 2, n + 4, n + 1, n + 3))
    return reshape(y, shape=(*lead, C * r * r, H // r, W // r))


@function(method=False)
def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """The channels of (N, C, …), dealt out from ``groups`` groups in turn."""
    shape = input.array.shape
    if len(shape) < 3:
        raise ShapeError(
            f"channel_shuffle expects input with > 2 dims, but got input with sizes {list(shape)}"
        )
    if groups <= 0:
        raise RuntimeError(
            f"Number of groups to divide channels in must be positive. Value of groups: {groups}"
        )
    if shape[1] % groups:
        raise RuntimeError(
            f"Number of channels must be divisible by groups. Got {shape[1]} channels and {groups} groups."
        )
    y = reshape(input, shape=(shape[0], groups, shape[1] // groups, *shape[2:]))
    y = permute(y, axes=(0, 2, 1, *range(3, len(shape) + 1)))
    return reshape(y, shape=shape)


@function(method=False)
def native_channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """:func:`channel_shuffle`."""
    return channel_shuffle(input, groups)
