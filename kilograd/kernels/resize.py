"""Resizing: each interpolation says, for one dimension, which inputs an output sees and how much of each.

That list of taps is all there is to a mode. Dimensions are independent, so an image is resized along one
after the other, and the transpose of every mode comes from the same list (see `separable`). Coordinates are
computed in the precision of the data, as PyTorch does: the floor of a coordinate may depend on it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from kilograd.kernels.kernel import kernel
from kilograd.kernels.pool import adaptive_avg_pool_backward, adaptive_avg_pool_forward
from kilograd.kernels.separable import Taps, apply

CUBIC = {False: -0.75, True: -0.5}  # the free parameter of the cubic, without and with antialias


@kernel
def resize_forward(
    x: np.ndarray,
    output_size: tuple[int, ...],
    mode: str,
    align_corners: bool = False,
    scales: tuple[float | None, ...] | None = None,
    antialias: bool = False,
) -> np.ndarray:
    """x (N, C, *spatial) -> (N, C, *output_size).

    mode: nearest, nearest-exact, linear, bilinear, bicubic, trilinear, area. scales: the user's
    scale_factor per dimension where it is to be used for coordinates (recompute_scale_factor not True).

    >>> resize_forward(np.array([[[0.0, 1, 2]]]), (5,), "linear", align_corners=True)
    array([[[0. , 0.5, 1. , 1.5, 2. ]]])
    >>> resize_forward(np.array([[[1, 2]]]), (5,), "nearest")
    array([[[1, 1, 1, 2, 2]]])
    """
    if mode == "area":
        return adaptive_avg_pool_forward(x, output_size)
    sizes = (x.shape[2:], output_size)
    return apply(x, _maps(*sizes, mode, align_corners, scales, antialias, x.dtype))


@kernel
def resize_backward(
    g: np.ndarray,
    x_shape: tuple[int, ...],
    mode: str,
    align_corners: bool = False,
    scales: tuple[float | None, ...] | None = None,
    antialias: bool = False,
) -> np.ndarray:
    """g (N, C, *output_size) -> (N, C, *spatial) == x_shape; the exact transpose of the forward.

    >>> resize_backward(np.ones((1, 1, 5)), (1, 1, 3), "linear", align_corners=True)
    array([[[1.5, 2. , 1.5]]])
    """
    if mode == "area":
        return adaptive_avg_pool_backward(g, x_shape)
    sizes = (x_shape[2:], g.shape[2:])
    maps = _maps(*sizes, mode, align_corners, scales, antialias, g.dtype)
    return apply(g, [m and m.T for m in maps])


def _maps(
    size: tuple[int, ...],
    out: tuple[int, ...],
    mode: str,
    align_corners: bool,
    scales: tuple[float | None, ...] | None,
    antialias: bool,
    dtype: np.dtype,
) -> list[Taps | None]:
    """One map per dimension, None where it would change nothing."""
    real = np.dtype(dtype if dtype in (np.float32, np.float64) else np.float32)
    scales = scales or (None,) * len(size)
    return [
        _taps(n, o, mode, align_corners, s, antialias, real)
        for n, o, s in zip(size, out, scales, strict=True)
    ]


@lru_cache(maxsize=256)
def _taps(
    n: int,
    out: int,
    mode: str,
    align_corners: bool,
    scale: float | None,
    antialias: bool,
    dtype: np.dtype,
) -> Taps | None:
    real, nearest = dtype.type, mode.startswith("nearest")
    if align_corners and not nearest:
        step = real(n - 1) / real(out - 1) if out > 1 else real(0)
    else:
        step = real(1 / scale) if scale else real(n) / real(out)
    if nearest:
        column = _nearest(n, out, mode == "nearest-exact", step)
        return Taps(np.arange(out), column, np.ones(out, dtype), out, n)
    if n == out and (antialias or mode != "bicubic"):
        return None
    o = np.arange(out).astype(dtype)
    if antialias:
        return _antialiased(n, out, mode, (o + real(0.5)) * step, step)
    at = o * step if align_corners else (o + real(0.5)) * step - real(0.5)
    if mode != "bicubic":
        at = np.maximum(at, real(0))
    first = np.minimum(np.floor(at), real(n - 1))
    t = np.clip(at - first, real(0), real(1))
    if mode == "bicubic":
        reach = np.arange(-1, 3)
        weight = np.stack([_cubic(t - real(k), CUBIC[False]) for k in reach], 1)
    else:
        reach = np.arange(2)
        weight = np.stack([1 - t, t], 1)
    column = np.clip(first.astype(np.int64)[:, None] + reach, 0, n - 1)
    return Taps(np.arange(out).repeat(len(reach)), column.ravel(), weight.ravel(), out, n)


def _nearest(n: int, out: int, exact: bool, step: np.floating) -> np.ndarray:
    """The input that each output copies, rounded as PyTorch's forward rounds (its backward differs)."""
    real = type(step)
    at = np.arange(out).astype(real)
    if exact:
        at = np.maximum(step * (at + real(0.5)) - real(0.5), real(0)) + real(0.5)
    else:
        at = at * step
    return np.minimum(np.floor(at.astype(np.float32)).astype(np.int64), n - 1)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * a - 4 * a
    return np.where(d < 1, near, np.where(d < 2, far, 0)).astype(distance.dtype)


def _antialiased(n: int, out: int, mode: str, center: np.ndarray, step: np.floating) -> Taps:
    """Shrinking widens the kernel until it covers what one output stands for."""
    wide = max(float(step), 1.0)
    support = np.float64(2 if mode == "bicubic" else 1) * wide
    start = np.maximum((center - support + 0.5).astype(np.int64), 0)
    stop = np.minimum((center + support + 0.5).astype(np.int64), n)
    row = np.repeat(np.arange(out), stop - start)
    column = np.concatenate([np.arange(a, b) for a, b in zip(start, stop, strict=True)])
    distance = (column - center[row] + 0.5) / wide
    if mode == "bicubic":
        weight = _cubic(distance, CUBIC[True])
    else:
        weight = np.maximum(1 - np.abs(distance), 0)
    total = np.bincount(row, weight, minlength=out)
    weight = (weight / total[row]).astype(center.dtype)
    return Taps(row, column, weight, out, n)
