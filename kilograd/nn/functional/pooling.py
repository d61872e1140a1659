"""Pooling in 1 to 3 dimensions. The batch dimension of the input may be left out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kilograd import random
from kilograd.errors import ShapeError
from kilograd.functions.calling import function
from kilograd.kernels import pool as kernels
from kilograd.kernels.place import in_range
from kilograd.nn.functional.sizes import batched, in_float32, per_dim, unbatched
from kilograd.ops import elementwise as ew
from kilograd.ops import pool as ops
from kilograd.tensor import Tensor, wrap

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
    "adaptive_max_pool1d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool2d_with_indices",
    "adaptive_max_pool3d", "adaptive_max_pool3d_with_indices", "avg_pool1d", "avg_pool2d",
    "avg_pool3d", "fractional_max_pool2d", "fractional_max_pool2d_with_indices",
    "fractional_max_pool3d", "fractional_max_pool3d_with_indices", "lp_pool1d", "lp_pool2d",
    "lp_pool3d", "max_pool1d", "max_pool1d_with_indices", "max_pool2d", "max_pool2d_with_indices",
    "max_pool3d", "max_pool3d_with_indices", "max_unpool1d", "max_unpool2d", "max_unpool3d",
]  # fmt: skip

Sizes = Any  # an int, or one int for each spatial dimension


def _windows(
    name: str,
    x: Any,
    n: int,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
) -> tuple[tuple[int, ...], ...]:
    """Kernel, stride, padding and dilation of each dimension, checked against x (N, C, *spatial)."""
    kernel = per_dim(kernel, n, "kernel_size")
    no_stride = stride is None or (isinstance(stride, (tuple, list)) and not stride)
    stride = kernel if no_stride else per_dim(stride, n, "stride")
    padding = per_dim(padding, n, "padding")
    dilation = per_dim(dilation, n, "dilation")
    if min(kernel) < 1:
        raise RuntimeError(f"{name}: kernel size should be greater than zero, but got {kernel}")
    if min(stride) < 1:
        raise RuntimeError(f"{name}: stride should not be zero or negative, but got {stride}")
    if min(dilation) < 1:
        raise RuntimeError(f"{name}: dilation should be greater than zero, but got {dilation}")
    for k, p, d in zip(kernel, padding, dilation, strict=True):
        if not 0 <= p <= ((k - 1) * d + 1) // 2:
            raise RuntimeError(
                f"{name}: pad should be non-negative and at most half of effective kernel size, but "
                f"got padding={padding}, kernel_size={kernel} and dilation={dilation}"
            )
    if 0 in x.shape[1:]:
        raise ShapeError(
            f"{name}: expected input's non-batch dimensions to be non-zero, got {list(x.shape)}"
        )
    out = kernels.pool_sizes(tuple(x.shape[2:]), kernel, stride, padding, dilation, ceil_mode)
    if min(out) < 1:
        raise ShapeError(
            f"{name}: given input size {list(x.shape[1:])}, calculated output size {[x.shape[1], *out]}: "
            "output size is too small"
        )
    return kernel, stride, padding, dilation


# --- maxima -------------------------------------------------------------------------------------


def _max_pool(
    n: int, input: Tensor, kernel_size: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes,
    ceil_mode: bool, return_indices: bool,
) -> Any:  # fmt: skip
    name = f"max_pool{n}d"
    input, added = batched(input, n, name)
    kernel, stride, padding, dilation = _windows(
        name, input.array, n, kernel_size, stride, padding, dilation, ceil_mode
    )
    if not return_indices:
        y = ops.max_pool(input, kernel=kernel, stride=stride, padding=padding, dilation=dilation,
                         ceil_mode=ceil_mode)  # fmt: skip
        return unbatched(y, added) if added else y
    _, indices = kernels.max_pool_forward(input.array, kernel, stride, padding, dilation, ceil_mode)
    return _at(input, indices, added)


def _at(input: Tensor, indices: Any, added: bool) -> tuple[Tensor, Tensor]:
    """The input at the indices of its maxima, and the indices."""
    where = wrap(indices)
    return unbatched(ops.pool_gather(input, where), added), unbatched(where, added)


@function(method=False)
def max_pool1d(
    input: Tensor, kernel_size: Sizes, stride: Sizes = None, padding: Sizes = 0, dilation: Sizes = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """The maximum of each window of an input (N, C, L); with ``return_indices`` also where it is."""
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@function(method=False)
def max_pool2d(
    input: Tensor, kernel_size: Sizes, stride: Sizes = None, padding: Sizes = 0, dilation: Sizes = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """The maximum of each window of an input (N, C, H, W); with ``return_indices`` also where it is.

    The stride is the kernel size unless given; indices are flat over (H, W).

    >>> import kilograd as kg
    >>> kg.nn.functional.max_pool2d(kg.arange(16.0).reshape(1, 1, 4, 4), 2)
    tensor([[[[ 5.,  7.],
              [13., 15.]]]])
    """
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@function(method=False)
def max_pool3d(
    input: Tensor, kernel_size: Sizes, stride: Sizes = None, padding: Sizes = 0, dilation: Sizes = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """The maximum of each window of an input (N, C, D, H, W); with ``return_indices`` also where it is."""
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@function(method=False)
def max_pool1d_with_indices(
    input: Tensor, kernel_size: Sizes, stride: Sizes = None, padding: Sizes = 0, dilation: Sizes = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """:func:`max_pool1d` with ``return_indices=True``."""
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, True)


@function(method=False)
def max_pool2d_with_indices(
    input: Tensor, kernel_size: Sizes, stride: Sizes = None, padding: Sizes = 0, dilation: Sizes = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """:func:`max_pool2d` with ``return_indices=True``."""
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, True)


@function(method=False)
def max_pool3d_with_indices(
    input: Tensor, kernel_size: Sizes, stride: Sizes = None, padding: Sizes = 0, dilation: Sizes = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """:func:`max_pool3d` with ``return_indices=True``."""
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, True)


def _max_unpool(
    n: int,
    input: Tensor,
    indices: Tensor,
    kernel_size: Sizes,
    stride: Sizes,
    padding: Sizes,
    output_size: Any,
) -> Tensor:
    name = f"max_unpool{n}d"
    kernel = per_dim(kernel_size, n, "kernel_size")
    stride = kernel if stride is None else per_dim(stride, n, "stride")
    padding = per_dim(padding, n, "padding")
    x, at = input.array, indices.array
    default = [
        (m - 1) * s + k - 2 * p
        for m, s, k, p in zip(x.shape[max(x.ndim - n, 0) :], stride, kernel, padding, strict=False)
    ]
    size = default
    if output_size is not None:
        size = list(output_size[2:] if len(output_size) == n + 2 else output_size)
        if len(size) != n:
            raise ValueError(
                f"output_size should be a sequence containing {n} or {n + 2} elements, but it has a "
                f"length of '{len(size)}'"
            )
        for d, (o, m, s) in enumerate(zip(size, default, stride, strict=False)):
            if not m - s < o < m + s:
                raise ValueError(
                    f'invalid output_size "{size}" (dim {d} must be between {m - s} and {m + s})'
                )
    if any(o < 0 for o in size):
        raise ValueError(f"max_unpooling: output_size must be non-negative, but got {size}")
    if at.dtype != np.int64:
        raise RuntimeError(f"{name}: elements in indices should be type int64 but got: {at.dtype}")
    if x.ndim not in (n + 1, n + 2):
        raise ShapeError(
            f"{name}: expected {n + 1}D or {n + 2}D input, but got size {list(x.shape)}"
        )
    if at.shape != x.shape:
        raise ShapeError(
            f"{name}: expected shape of indices to be the same as that of the input {list(x.shape)}, "
            f"but got indices of shape {list(at.shape)}"
        )
    if min(stride) < 1:
        raise RuntimeError(f"{name}: strides should be greater than zero, but got stride: {stride}")
    if 0 in x.shape[x.ndim - n - 1 :]:
        raise ShapeError(
            f"{name}: expected input to have non-empty channels and space, got {list(x.shape)}"
        )
    total = math.prod(size)
    message = f"{name}: found an invalid max index: {{bad}} (output volumes are {size})"
    in_range(at, total, message, RuntimeError)
    input, added = batched(input, n, name)
    where = indices.reshape((1, *at.shape)) if added else indices
    return unbatched(ops.unpool(input, where, size=tuple(size)), added)


@function(method=False)
def max_unpool1d(
    input: Tensor, indices: Tensor, kernel_size: Sizes, stride: Sizes = None, padding: Sizes = 0,
    output_size: Any = None,
) -> Tensor:  # fmt: skip
    """Put the maxima that :func:`max_pool1d` found back where they were, among zeros."""
    return _max_unpool(1, input, indices, kernel_size, stride, padding, output_size)


@function(method=False)
def max_unpool2d(
    input: Tensor, indices: Tensor, kernel_size: Sizes, stride: Sizes = None, padding: Sizes = 0,
    output_size: Any = None,
) -> Tensor:  # fmt: skip
    """Put the maxima that :func:`max_pool2d` found back where they were, among zeros."""
    return _max_unpool(2, input, indices, kernel_size, stride, padding, output_size)


@function(method=False)
def max_unpool3d(
    input: Tensor, indices: Tensor, kernel_size: Sizes, stride: Sizes = None, padding: Sizes = 0,
    output_size: Any = None,
) -> Tensor:  # fmt: skip
    """Put the maxima that :func:`max_pool3d` found back where they were, among zeros."""
    return _max_unpool(3, input, indices, kernel_size, stride, padding, output_size)


def _region_sizes(size: Any, n: int, spatial: tuple[int, ...], name: str) -> tuple[int, ...]:
    """The output size of adaptive pooling; None leaves a dimension as it is."""
    if isinstance(size, (tuple, list)):
        if len(size) == 1:
            size = tuple(size) * n
        if len(size) != n:
            raise RuntimeError(f"{name}: output_size must be one integer or {n}, but got {size}")
    else:
        size = (size,) * n
    found = tuple([m if s is None else int(s) for s, m in zip(size, spatial, strict=True)])
    if min(found) < 0:
        raise RuntimeError(
            f"{name}: elements of output_size must be greater than or equal to 0, got {found}"
        )
    if 0 in spatial:
        raise ShapeError(
            f"{name}: expected input to have non-zero size for non-batch dimensions, got {spatial}"
        )
    return found


def _adaptive_max_pool(n: int, input: Tensor, output_size: Any, return_indices: bool) -> Any:
    name = f"adaptive_max_pool{n}d"
    input, added = batched(input, n, name)
    x = input.array
    if 0 in x.shape[1:]:
        raise ShapeError(
            f"{name}: expected input to have non-zero size for non-batch dimensions, got {list(x.shape)}"
        )
    size = _region_sizes(output_size, n, x.shape[2:], name)
    if not return_indices:
        return unbatched(ops.adaptive_max_pool(input, size=size), added)
    return _at(input, kernels.adaptive_max_pool_forward(x, size)[1], added)


@function(method=False)
def adaptive_max_pool1d(input: Tensor, output_size: Sizes, return_indices: bool = False) -> Any:
    """The maximum of each of ``output_size`` regions of about equal size."""
    return _adaptive_max_pool(1, input, output_size, return_indices)


@function(method=False)
def adaptive_max_pool2d(input: Tensor, output_size: Sizes, return_indices: bool = False) -> Any:
    """The maximum of each of ``output_size`` regions of about equal size; None: all of a dimension."""
    return _adaptive_max_pool(2, input, output_size, return_indices)


@function(method=False)
def adaptive_max_pool3d(input: Tensor, output_size: Sizes, return_indices: bool = False) -> Any:
    """The maximum of each of ``output_size`` regions of about equal size; None: all of a dimension."""
    return _adaptive_max_pool(3, input, output_size, return_indices)


@function(method=False)
def adaptive_max_pool1d_with_indices(
    input: Tensor, output_size: Sizes, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """:func:`adaptive_max_pool1d` with ``return_indices=True``."""
    return _adaptive_max_pool(1, input, output_size, True)


@function(method=False)
def adaptive_max_pool2d_with_indices(
    input: Tensor, output_size: Sizes, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """:func:`adaptive_max_pool2d` with ``return_indices=True``."""
    return _adaptive_max_pool(2, input, output_size, True)


@function(method=False)
def adaptive_max_pool3d_with_indices(
    input: Tensor, output_size: Sizes, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """:func:`adaptive_max_pool3d` with ``return_indices=True``."""
    return _adaptive_max_pool(3, input, output_size, True)


def _starts(sample: Any, size: int, out: int, kernel: int) -> Any:
    """Where the windows of fractional pooling begin (Graham, 2014): (..., out)."""
    if out == 1:
        return np.full((*sample.shape, 1), size - kernel)
    alpha = (size - kernel) / sample.dtype.type(out - 1)
    i = np.arange(out - 1, dtype=sample.dtype)
    u = sample[..., None]
    starts = ((i + u) * alpha).astype(np.int64) - (u * alpha).astype(np.int64)
    return np.concatenate([starts, np.full((*sample.shape, 1), size - kernel)], -1)


def _fractional_max_pool(
    n: int,
    input: Tensor,
    kernel_size: Sizes,
    output_size: Any,
    output_ratio: Any,
    samples: Tensor | None,
) -> tuple[Tensor, Tensor]:
    name = f"fractional_max_pool{n}d"
    if output_size is None and output_ratio is None:
        raise ValueError(f"{name} requires specifying either an output_size or an output_ratio")
    input, added = batched(input, n, name)
    x = input.array
    kernel = per_dim(kernel_size, n, "kernel_size")
    if output_size is None:
        ratio = output_ratio if isinstance(output_ratio, (tuple, list)) else (output_ratio,) * n
        if not all(0 < r < 1 for r in ratio):
            raise ValueError(f"output_ratio must be between 0 and 1 (got {output_ratio})")
        out = tuple(int(m * r) for m, r in zip(x.shape[2:], ratio, strict=True))
    else:
        out = per_dim(output_size, n, "output_size")
    N, C = x.shape[:2]
    if samples is None:
        u = random.uniform(None, (N, C, n), dtype=x.dtype)
    else:
        u = samples.array
        if u.ndim != 3 or u.shape[0] < N or u.shape[1] < C or u.shape[2] != n:
            raise ShapeError(
                f"{name}: expected _random_samples of size {[N, C, n]}, got {list(u.shape)}"
            )
    if 0 in x.shape[1:]:
        raise ShapeError(
            f"{name}: expected non-zero size for non-batch dimensions, got {list(x.shape)}"
        )
    for m, o, k in zip(x.shape[2:], out, kernel, strict=True):
        if o + k - 1 > m:
            raise ShapeError(
                f"{name}: pool size {kernel} too large for input of size {list(x.shape)}"
            )
    at: Any = np.zeros(
        (1, 1) + (1,) * (2 * n), np.int64
    )  # (N, C, *out, *kernel), flat over spatial
    for d in range(n):
        # in two dimensions the samples are (width, height), in three (depth, height, width)
        first = _starts(u[:N, :C, 1 - d if n == 2 else d], x.shape[2 + d], out[d], kernel[d])
        rows = first[..., None] + np.arange(kernel[d])  # (N, C, out, kernel)
        shape = [N, C] + [1] * (2 * n)
        shape[2 + d], shape[2 + n + d] = out[d], kernel[d]
        at = at * x.shape[2 + d] + rows.reshape(shape)
    at = at.reshape(N, C, math.prod(out), math.prod(kernel))
    flat = x.reshape(N, C, math.prod(x.shape[2:]))
    values = np.take_along_axis(flat, at.reshape(N, C, math.prod(at.shape[2:])), 2).reshape(
        at.shape
    )
    indices = np.take_along_axis(at, values.argmax(-1, keepdims=True), -1).reshape(N, C, *out)
    return _at(input, indices, added)


@function(method=False)
def fractional_max_pool2d(
    input: Tensor, kernel_size: Sizes, output_size: Any = None, output_ratio: Any = None,
    return_indices: bool = False, _random_samples: Tensor | None = None,
) -> Any:  # fmt: skip
    """The maximum of windows at random places that give ``output_size`` (Graham, 2014)."""
    found = _fractional_max_pool(2, input, kernel_size, output_size, output_ratio, _random_samples)
    return found if return_indices else found[0]


@function(method=False)
def fractional_max_pool3d(
    input: Tensor, kernel_size: Sizes, output_size: Any = None, output_ratio: Any = None,
    return_indices: bool = False, _random_samples: Tensor | None = None,
) -> Any:  # fmt: skip
    """The maximum of windows at random places that give ``output_size`` (Graham, 2014)."""
    found = _fractional_max_pool(3, input, kernel_size, output_size, output_ratio, _random_samples)
    return found if return_indices else found[0]


@function(method=False)
def fractional_max_pool2d_with_indices(
    input: Tensor, kernel_size: Sizes, output_size: Any = None, output_ratio: Any = None,
    return_indices: bool = False, _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """:func:`fractional_max_pool2d` with ``return_indices=True``."""
    return _fractional_max_pool(2, input, kernel_size, output_size, output_ratio, _random_samples)


@function(method=False)
def fractional_max_pool3d_with_indices(
    input: Tensor, kernel_size: Sizes, output_size: Any = None, output_ratio: Any = None,
    return_indices: bool = False, _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """:func:`fractional_max_pool3d` with ``return_indices=True``."""
    return _fractional_max_pool(3, input, kernel_size, output_size, output_ratio, _random_samples)


# --- averages -----------------------------------------------------------------------------------


def _avg_pool(
    n: int, input: Tensor, kernel_size: Sizes, stride: Sizes, padding: Sizes, ceil_mode: bool,
    count_include_pad: bool, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    name = f"avg_pool{n}d"
    if divisor_override == 0:
        raise RuntimeError(f"{name}: divisor must be not zero")
    input, added = batched(input, n, name)
    kernel, stride, padding, _ = _windows(
        name, input.array, n, kernel_size, stride, padding, 1, ceil_mode
    )
    y = ops.avg_pool(input, kernel=kernel, stride=stride, padding=padding, ceil_mode=ceil_mode,
                     count_include_pad=count_include_pad, divisor_override=divisor_override)  # fmt: skip
    return unbatched(y, added) if added else y


@function(method=False)
@in_float32
def avg_pool1d(
    input: Tensor, kernel_size: Sizes, stride: Sizes = None, padding: Sizes = 0,
    ceil_mode: bool = False, count_include_pad: bool = True,
) -> Tensor:  # fmt: skip
    """The mean of each window of an input (N, C, L)."""
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad)


@function(method=False)
@in_float32
def avg_pool2d(
    input: Tensor, kernel_size: Sizes, stride: Sizes = None, padding: Sizes = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean of each window of an input (N, C, H, W).

    ``count_include_pad``: whether padding counts among what is divided by; ``divisor_override``:
    divide by this instead.

    >>> import kilograd as kg
    >>> kg.nn.functional.avg_pool2d(kg.arange(16.0).reshape(1, 1, 4, 4), 2)
    tensor([[[[ 2.5000,  4.5000],
              [10.5000, 12.5000]]]])
    """
    return _avg_pool(
        2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


@function(method=False)
@in_float32
def avg_pool3d(
    input: Tensor, kernel_size: Sizes, stride: Sizes = None, padding: Sizes = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean of each window of an input (N, C, D, H, W)."""
    return _avg_pool(
        3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def _adaptive_avg_pool(n: int, input: Tensor, output_size: Any) -> Tensor:
    name = f"adaptive_avg_pool{n}d"
    input, added = batched(input, n, name)
    x = input.array
    size = _region_sizes(output_size, n, x.shape[2:], name)
    if x.shape[1] == 0:
        raise ShapeError(f"{name}: expected input to have channels, but got size {list(x.shape)}")
    y = ops.adaptive_avg_pool(input, size=size)
    return unbatched(y, added) if added else y


@function(method=False)
@in_float32
def adaptive_avg_pool1d(input: Tensor, output_size: Sizes) -> Tensor:
    """The mean of each of ``output_size`` regions of about equal size."""
    return _adaptive_avg_pool(1, input, output_size)


@function(method=False)
@in_float32
def adaptive_avg_pool2d(input: Tensor, output_size: Sizes) -> Tensor:
    """The mean of each of ``output_size`` regions of about equal size; None: all of a dimension.

    >>> import kilograd as kg
    >>> kg.nn.functional.adaptive_avg_pool2d(kg.ones(2, 8, 7, 5), 1).shape
    kilograd.Size([2, 8, 1, 1])
    """
    return _adaptive_avg_pool(2, input, output_size)


@function(method=False)
@in_float32
def adaptive_avg_pool3d(input: Tensor, output_size: Sizes) -> Tensor:
    """The mean of each of ``output_size`` regions of about equal size; None: all of a dimension."""
    return _adaptive_avg_pool(3, input, output_size)


# --- power averages -----------------------------------------------------------------------------


def _lp_pool(
    n: int, input: Tensor, p: float, kernel_size: Sizes, stride: Sizes, ceil_mode: bool
) -> Tensor:
    if p == math.inf:
        return _max_pool(n, abs(input), kernel_size, stride, 0, 1, ceil_mode, False)
    if p == -math.inf:
        return -_max_pool(n, -abs(input), kernel_size, stride, 0, 1, ceil_mode, False)
    out = _avg_pool(n, input**p, kernel_size, stride, 0, ceil_mode, True)
    count = math.prod(per_dim(kernel_size, n, "kernel_size"))
    return (ew.sign(out) * ew.relu(abs(out)) * count) ** (1.0 / p)


@function(method=False)
@in_float32
def lp_pool1d(
    input: Tensor,
    norm_type: float,
    kernel_size: Sizes,
    stride: Sizes = None,
    ceil_mode: bool = False,
) -> Tensor:
    """``(Σ xᵖ)^(1/p)`` over each window of an input (N, C, L)."""
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


@function(method=False)
@in_float32
def lp_pool2d(
    input: Tensor,
    norm_type: float,
    kernel_size: Sizes,
    stride: Sizes = None,
    ceil_mode: bool = False,
) -> Tensor:
    """``(Σ xᵖ)^(1/p)`` over each window of an input (N, C, H, W)."""
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


@function(method=False)
@in_float32
def lp_pool3d(
    input: Tensor,
    norm_type: float,
    kernel_size: Sizes,
    stride: Sizes = None,
    ceil_mode: bool = False,
) -> Tensor:
    """``(Σ xᵖ)^(1/p)`` over each window of an input (N, C, D, H, W)."""
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)
