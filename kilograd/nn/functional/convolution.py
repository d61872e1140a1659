"""Convolutions and transposed convolutions in 1 to 3 dimensions; windows as columns and back.

The batch dimension of the input may be left out.
"""

from __future__ import annotations

import functools
from typing import Any

from kilograd.errors import ShapeError
from kilograd.functions.calling import function
from kilograd.nn.functional.sizes import batched, in_float32, per_dim, unbatched
from kilograd.ops import conv as ops
from kilograd.ops.padding import pad_constant
from kilograd.tensor import Tensor

__all__ = [
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "fold",
    "unfold",
]  # fmt: skip

Sizes = Any  # an int, or one int for each spatial dimension


@functools.lru_cache(maxsize=1024)
def _settings(
    name: str, n: int, kernel: tuple[int, ...], stride: Sizes, padding: Any, dilation: Sizes
) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...], tuple[int, ...]]:
    """Stride, (before, after) padding and dilation of each dimension, checked."""
    stride = per_dim(stride, n, "stride")
    dilation = per_dim(dilation, n, "dilation")
    if min(stride) < 1:
        raise RuntimeError(f"{name}: non-positive stride is not supported, got {stride}")
    if min(dilation) < 1:
        raise RuntimeError(f"{name}: dilation should be greater than zero, got {dilation}")
    if isinstance(padding, str):
        if padding == "same":
            if max(stride) > 1:
                raise RuntimeError("padding='same' is not supported for strided convolutions")
            spare = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
            return stride, tuple([(s // 2, s - s // 2) for s in spare]), dilation
        if padding != "valid":
            raise RuntimeError(f"Invalid padding string: {padding!r}; use 'same' or 'valid'")
        padding = 0
    padding = per_dim(padding, n, "padding")
    if min(padding) < 0:
        raise RuntimeError(f"{name}: negative padding is not supported, got {padding}")
    return stride, tuple([(p, p) for p in padding]), dilation


def _hashable(value: Any) -> Any:
    return tuple(value) if type(value) is list else value


def _check(
    name: str, x: Any, w: Any, b: Any, n: int, channels: int, groups: int, outputs: int
) -> None:
    if w.ndim != n + 2:
        raise ShapeError(f"{name}: expected a {n + 2}D weight, but got one of size {list(w.shape)}")
    if groups < 1:
        raise RuntimeError(f"{name}: non-positive groups is not supported, got {groups}")
    if w.shape[0] % groups:
        raise RuntimeError(
            f"{name}: given groups={groups}, expected weight to be divisible by {groups} at "
            f"dimension 0, but got weight of size {list(w.shape)} instead"
        )
    if x.shape[1] != channels:
        raise ShapeError(
            f"{name}: given groups={groups}, weight of size {list(w.shape)}, expected input"
            f"{list(x.shape)} to have {channels} channels, but got {x.shape[1]} channels instead"
        )
    if 0 in w.shape[2:]:
        raise RuntimeError(
            f"{name}: kernel size should be greater than zero, got {list(w.shape[2:])}"
        )
    if b is not None and b.shape != (outputs,):
        raise ShapeError(
            f"{name}: given weight of size {list(w.shape)}, expected bias to be 1-dimensional with "
            f"{outputs} elements, but got bias of size {list(b.shape)} instead"
        )
    if x.dtype != w.dtype or (b is not None and b.dtype != x.dtype):
        kinds = f"{x.dtype}, weight {w.dtype}" + (f", bias {b.dtype}" if b is not None else "")
        raise RuntimeError(f"{name}: the dtypes must be the same, but got input {kinds}")


def _conv(
    n: int, input: Tensor, weight: Tensor, bias: Tensor | None,
    stride: Sizes, padding: Any, dilation: Sizes, groups: int,
) -> Tensor:  # fmt: skip
    name = f"conv{n}d"
    input, added = batched(input, n, name)
    x, w = input.array, weight.array
    _check(name, x, w, getattr(bias, "array", bias), n, w.shape[1] * groups if w.ndim > 1 else 0, groups,
           len(w) if w.ndim else 0)  # fmt: skip
    kernel = w.shape[2:]
    stride, padding, dilation = _settings(
        name, n, kernel, _hashable(stride), _hashable(padding), _hashable(dilation)
    )
    for size, k, (a, b), d in zip(x.shape[2:], kernel, padding, dilation, strict=True):
        if size + a + b < d * (k - 1) + 1:
            padded = [m + a + b for m, (a, b) in zip(x.shape[2:], padding, strict=True)]
            reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
            raise ShapeError(
                f"{name}: calculated padded input size per channel: {padded}. Kernel size: {reach}. "
                "Kernel size can't be greater than actual input size"
            )
    y = ops.conv(
        input, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    return unbatched(y, added) if added else y


@function(method=False)
@in_float32
def conv1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: Sizes = 1, padding: Any = 0, dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Slide the kernels of ``weight`` (O, C/groups, K) over ``input`` (N, C, L): (N, O, L').

    ``padding`` is a size, ``"valid"`` (none) or ``"same"`` (L' = L).

    >>> import kilograd as kg
    >>> kg.nn.functional.conv1d(kg.arange(5.0).reshape(1, 1, 5), kg.tensor([[[1.0, 0.0, -1.0]]]))
    tensor([[[-2., -2., -2.]]])
    """
    return _conv(1, input, weight, bias, stride, padding, dilation, groups)


@function(method=False)
@in_float32
def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: Sizes = 1, padding: Any = 0, dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Slide the kernels of ``weight`` (O, C/groups, KH, KW) over ``input`` (N, C, H, W).

    ``padding`` is a size, ``"valid"`` (none) or ``"same"`` (the output has the input's size).

    >>> import kilograd as kg
    >>> kg.nn.functional.conv2d(kg.ones(1, 3, 8, 8), kg.ones(4, 3, 3, 3), padding=1, stride=2).shape
    kilograd.Size([1, 4, 4, 4])

    Raises:
        RuntimeError: channels, sizes or dtypes that do not fit.
    """
    return _conv(2, input, weight, bias, stride, padding, dilation, groups)


@function(method=False)
@in_float32
def conv3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: Sizes = 1, padding: Any = 0, dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Slide the kernels of ``weight`` (O, C/groups, KD, KH, KW) over ``input`` (N, C, D, H, W)."""
    return _conv(3, input, weight, bias, stride, padding, dilation, groups)


def _conv_transpose(
    n: int, input: Tensor, weight: Tensor, bias: Tensor | None,
    stride: Sizes, padding: Sizes, output_padding: Sizes, groups: int, dilation: Sizes,
) -> Tensor:  # fmt: skip
    name = f"conv_transpose{n}d"
    input, added = batched(input, n, name)
    x, w = input.array, weight.array
    outputs = w.shape[1] * groups if w.ndim > 1 else 0
    _check(name, x, w, getattr(bias, "array", bias), n, len(w) if w.ndim else 0, groups, outputs)
    stride, pairs, dilation = _settings(
        name, n, w.shape[2:], _hashable(stride), _hashable(padding), _hashable(dilation)
    )
    extra = per_dim(output_padding, n, "output_padding")
    if min(extra) < 0:
        raise RuntimeError(f"{name}: negative output_padding is not supported, got {extra}")
    for e, s, d in zip(extra, stride, dilation, strict=True):
        if e >= s and e >= d:
            raise RuntimeError(
                f"{name}: output padding must be smaller than either stride or dilation, but got "
                f"output_padding {extra}, stride {stride}, dilation {dilation}"
            )
    size = tuple([
        (m - 1) * s - a - b + d * (k - 1) + e + 1
        for m, k, s, (a, b), d, e in zip(
            x.shape[2:], w.shape[2:], stride, pairs, dilation, extra, strict=True
        )
    ])  # fmt: skip
    if min(size) < 1:
        raise ShapeError(
            f"{name}: given input size per channel: {list(x.shape[2:])}. Calculated output size per "
            f"channel: {list(size)}. Output size is too small"
        )
    if any(e >= s for e, s in zip(extra, stride, strict=True)):
        # A convolution of that size would have more positions than the input: end where they end.
        reach = [
            (m - 1) * s + d * (k - 1) + 1 - a
            for m, k, s, (a, _), d in zip(
                x.shape[2:], w.shape[2:], stride, pairs, dilation, strict=True
            )
        ]
        inner = [min(m, r) for m, r in zip(size, reach, strict=True)]
        pairs = tuple([(a, r - m) for (a, _), r, m in zip(pairs, reach, inner, strict=True)])
        y = ops.conv_input(input, weight, None, shape=(len(x), outputs, *inner), stride=stride,
                           padding=pairs, dilation=dilation, groups=groups)  # fmt: skip
        rest = tuple([(0, m - n) for m, n in zip(size, inner, strict=True)])
        y = pad_constant(y, pads=((0, 0), (0, 0), *rest))
        if bias is not None:
            y = y + bias.reshape((-1,) + (1,) * n)
        return unbatched(y, added)
    shape = (len(x), outputs, *size)
    y = ops.conv_input(input, weight, bias, shape=shape, stride=stride, padding=pairs, dilation=dilation,
                       groups=groups)  # fmt: skip
    return unbatched(y, added) if added else y


@function(method=False)
@in_float32
def conv_transpose1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1, padding: Sizes = 0,
    output_padding: Sizes = 0, groups: int = 1, dilation: Sizes = 1,
) -> Tensor:  # fmt: skip
    """The transpose of :func:`conv1d`: input (N, C, L), weight (C, O/groups, K) → (N, O, L')."""
    return _conv_transpose(
        1, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


@function(method=False)
@in_float32
def conv_transpose2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1, padding: Sizes = 0,
    output_padding: Sizes = 0, groups: int = 1, dilation: Sizes = 1,
) -> Tensor:  # fmt: skip
    """The transpose of :func:`conv2d`: input (N, C, H, W), weight (C, O/groups, KH, KW) → (N, O, H', W').

    H' = (H - 1) * stride - 2 * padding + dilation * (KH - 1) + output_padding + 1.

    >>> import kilograd as kg
    >>> kg.nn.functional.conv_transpose2d(kg.ones(1, 3, 4, 4), kg.ones(3, 5, 2, 2), stride=2).shape
    kilograd.Size([1, 5, 8, 8])
    """
    return _conv_transpose(
        2, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


@function(method=False)
@in_float32
def conv_transpose3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1, padding: Sizes = 0,
    output_padding: Sizes = 0, groups: int = 1, dilation: Sizes = 1,
) -> Tensor:  # fmt: skip
    """The transpose of :func:`conv3d`."""
    return _conv_transpose(
        3, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


def _positive(name: str, **values: tuple[int, ...]) -> None:
    for what, v in values.items():
        if min(v) < (0 if what == "padding" else 1):
            raise RuntimeError(f"{name}: {what} should be greater than zero, but got {v}")


def _positions(size: Any, kernel: Any, dilation: Any, padding: Any, stride: Any) -> list[int]:
    return [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, d, p, s in zip(size, kernel, dilation, padding, stride, strict=True)
    ]


@function(method=False)
def unfold(
    input: Tensor, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1
) -> Tensor:
    """The windows of an image (N, C, H, W) as columns: (N, C*KH*KW, L), L positions.

    >>> import kilograd as kg
    >>> kg.nn.functional.unfold(kg.ones(1, 3, 5, 5), 3).shape
    kilograd.Size([1, 27, 9])
    """
    kernel = per_dim(kernel_size, 2, "kernel_size")
    dilation = per_dim(dilation, 2, "dilation")
    padding = per_dim(padding, 2, "padding")
    stride = per_dim(stride, 2, "stride")
    _positive("unfold", kernel_size=kernel, dilation=dilation, padding=padding, stride=stride)
    input, added = batched(input, 2, "unfold")
    size = input.array.shape[2:]
    if 0 in input.array.shape[1:]:
        raise ShapeError(
            f"unfold: expected a non-empty input, but got size {list(input.array.shape)}"
        )
    blocks = _positions(size, kernel, dilation, padding, stride)
    if min(blocks) < 1:
        raise ShapeError(
            f"unfold: given input with spatial size {list(size)}, kernel_size={kernel}, "
            f"dilation={dilation}, padding={padding}, calculated shape of the array of sliding blocks "
            f"as {blocks}, which is too small (non-positive)"
        )
    y = ops.im2col(input, kernel=kernel, dilation=dilation, padding=padding, stride=stride)
    return unbatched(y, added)


@function(method=False)
def fold(
    input: Tensor, output_size: Sizes, kernel_size: Sizes,
    dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1,
) -> Tensor:  # fmt: skip
    """The transpose of :func:`unfold`: columns (N, C*KH*KW, L) added up into (N, C, H, W).

    Raises:
        RuntimeError: L is not the number of windows that ``output_size`` has.
    """
    size = per_dim(output_size, 2, "output_size")
    kernel = per_dim(kernel_size, 2, "kernel_size")
    dilation = per_dim(dilation, 2, "dilation")
    padding = per_dim(padding, 2, "padding")
    stride = per_dim(stride, 2, "stride")
    _positive(
        "fold",
        output_size=size,
        kernel_size=kernel,
        dilation=dilation,
        padding=padding,
        stride=stride,
    )
    input, added = batched(input, 1, "fold")
    _, rows, L = input.array.shape
    if rows == 0 or rows % (kernel[0] * kernel[1]):
        raise ShapeError(
            "fold: expected size of input's dimension 1 to be divisible by the product of "
            f"kernel_size={kernel}, but got {rows}"
        )
    blocks = _positions(size, kernel, dilation, padding, stride)
    if min(blocks) < 1 or blocks[0] * blocks[1] != L:
        raise ShapeError(
            f"fold: given output_size={size}, kernel_size={kernel}, dilation={dilation}, "
            f"padding={padding}, stride={stride}, expected size of input's last dimension to match the "
            f"number of sliding blocks {blocks[0]} * {blocks[1]}, but got {L}"
        )
    y = ops.col2im(
        input, shape=size, kernel=kernel, dilation=dilation, padding=padding, stride=stride
    )
    return unbatched(y, added)
