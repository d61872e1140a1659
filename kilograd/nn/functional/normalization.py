"""Batch, layer, group, instance and RMS normalisation; local response normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kilograd.errors import ShapeError
from kilograd.functions.calling import function
from kilograd.nn.functional.padding import pad
from kilograd.nn.functional.pooling import avg_pool2d, avg_pool3d
from kilograd.nn.functional.sizes import in_float32
from kilograd.ops import activation as activation_ops
from kilograd.ops import elementwise as ew
from kilograd.ops import norm as ops
from kilograd.tensor import Tensor

__all__ = [
    "batch_norm", "group_norm", "instance_norm", "layer_norm", "local_response_norm", "rms_norm",
]  # fmt: skip

_HALF = np.dtype("float16")


def _check_channels(name: str, channels: int, **vectors: Any) -> None:
    for what, v in vectors.items():
        if v is not None and tuple(v.shape) != (channels,):
            raise ShapeError(
                f"{name}: {what} should contain {channels} elements not {list(v.shape)}: one for each channel"
            )


@function(method=False)
def batch_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Normalise each channel of (N, C, …): in training by the batch's mean and (biased) variance.

    Training moves ``running_mean`` and ``running_var`` (if given; the variance unbiased) towards the
    batch's by ``momentum``, in place; evaluation normalises by them.

    Raises:
        ValueError: one value per channel in training; eps not positive.
    """
    x = input.array
    if training and x.ndim > 1 and x.size == x.shape[1]:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {list(x.shape)}"
        )
    if eps < 0 or (training and eps == 0):
        raise ValueError(f"batch_norm eps must be positive during training, but got {eps}")
    if not x.size:
        y = ew.clone(input)
        y = y if weight is None else y * weight[0]
        return y if bias is None else y + bias[0]
    if x.ndim < 2:
        raise ShapeError(
            f"batch_norm: expected at least 2 dimensions (N, C, ...), got size {list(x.shape)}"
        )
    _check_channels("batch_norm", x.shape[1], running_mean=running_mean, running_var=running_var,
                    weight=weight, bias=bias)  # fmt: skip
    activation_ops.floating("batch_norm", x)
    if x.dtype is _HALF:
        single = np.dtype("float32")
        up = [v if v is None else ew.cast(v, dtype=single) for v in (input, weight, bias)]
        y = batch_norm(up[0], running_mean, running_var, up[1], up[2], training, momentum, eps)
        return ew.cast(y, dtype=_HALF)
    if not training:
        if running_mean is None or running_var is None:
            raise RuntimeError(
                "batch_norm: expected running_mean and running_var to be defined when training=False"
            )
        return _by_running(input, running_mean, running_var, weight, bias, eps)
    running = None
    if running_mean is not None or running_var is not None:
        arrays = []
        for r in (running_mean, running_var):
            arrays.append(None if r is None else r.array)
            if r is not None:
                r._cell[0] += 1
        running = (*arrays, momentum)
    return ops.batch_norm(input, weight, bias, eps=eps, running=running)


def _by_running(
    input: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    scale = ew.rsqrt(var.detach() + eps)
    if weight is not None:
        scale = scale * weight
    shift = -(mean.detach() * scale)
    if bias is not None:
        shift = shift + bias
    ndim = input.array.ndim
    if ndim > 2:
        shape = (-1,) + (1,) * (ndim - 2)
        scale, shift = scale.reshape(shape), shift.reshape(shape)
    y = input * scale + shift
    return y if y.array.dtype == input.array.dtype else ew.cast(y, dtype=input.array.dtype)


@function(method=False)
@in_float32
def instance_norm(
    input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
    weight: Tensor | None = None, bias: Tensor | None = None, use_input_stats: bool = True,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Normalise each channel of each sample of (N, C, …) by itself.

    ``use_input_stats=False``: by the running statistics instead, as :func:`batch_norm` in evaluation.
    """
    x = input.array
    if use_input_stats and math.prod(x.shape[2:]) == 1:
        raise ValueError(
            f"Expected more than 1 spatial element when training, got input size {list(x.shape)}"
        )
    if x.ndim < 3:
        raise ShapeError(
            f"instance_norm: expected (N, C, ...) of 3 or more dimensions, got size {list(x.shape)}"
        )
    _check_channels("instance_norm", x.shape[1], running_mean=running_mean, running_var=running_var,
                    weight=weight, bias=bias)  # fmt: skip
    if (running_mean is None) != (running_var is None):
        raise RuntimeError("instance_norm: expected both running_mean and running_var, or neither")
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise RuntimeError(
                "Expected running_mean and running_var to be defined when use_input_stats is false"
            )
        return _by_running(input, running_mean, running_var, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        axes = tuple(range(2, x.ndim))
        n = math.prod(x.shape[2:])
        new = (x.mean(axes).mean(0), np.var(x, axes, ddof=1).mean(0) if n > 1 else np.nan)
        for r, value in zip((running_mean, running_var), new, strict=True):
            r.array[...] = (1 - momentum) * r.array + momentum * value
            r._cell[0] += 1
    return ops.group_norm(input, weight, bias, groups=x.shape[1], eps=eps)


def _normalized_shape(name: str, input: Tensor, shape: Any, **vectors: Any) -> int:
    """The number of last dimensions that are normalised together, checked."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    size = input.array.shape
    if not shape:
        raise RuntimeError(f"{name}: expected normalized_shape to be at least 1-dimensional")
    if size[-len(shape) :] != shape or len(shape) > len(size):
        raise ShapeError(
            f"{name}: given normalized_shape={list(shape)}, expected input with shape "
            f"[*{''.join(f', {n}' for n in shape)}], but got input of size {list(size)}"
        )
    for what, v in vectors.items():
        if v is not None and tuple(v.shape) != shape:
            raise ShapeError(
                f"{name}: expected {what} to be of same shape as normalized_shape, but got {what} of shape "
                f"{list(v.shape)} and normalized_shape = {list(shape)}"
            )
    return len(shape)


@function(method=False)
@in_float32
def layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Normalise over the last dimensions, whose sizes are ``normalized_shape``; then scale and shift.

    >>> import kilograd as kg
    >>> kg.nn.functional.layer_norm(kg.tensor([[1.0, 3.0]]), (2,))
    tensor([[-1.0000,  1.0000]])
    """
    ndim = _normalized_shape("layer_norm", input, normalized_shape, weight=weight, bias=bias)
    activation_ops.floating("LayerNormKernelImpl", input.array)
    return ops.layer_norm(input, weight, bias, ndim=ndim, eps=eps)


@function(method=False)
@in_float32
def rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """Divide by the root of the mean square over the last dimensions; eps: the dtype's unless given."""
    ndim = _normalized_shape("rms_norm", input, normalized_shape, weight=weight)
    activation_ops.floating("rms_norm", input.array)
    eps = float(np.finfo(input.array.dtype).eps) if eps is None else eps
    return ops.rms_norm(input, weight, ndim=ndim, eps=eps)


@function(method=False)
@in_float32
def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Normalise over each of ``num_groups`` groups of channels of each sample of (N, C, …)."""
    x = input.array
    if x.ndim < 2:
        raise RuntimeError(f"Expected at least 2 dimensions for input tensor but received {x.ndim}")
    N, C = x.shape[:2]
    if num_groups <= 0:
        raise RuntimeError(
            f"group_norm: expected num groups to be greater than 0, got {num_groups}"
        )
    if N * C // num_groups * math.prod(x.shape[2:]) == 1:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {list(x.shape)}"
        )
    if C % num_groups:
        raise RuntimeError(
            "Expected number of channels in input to be divisible by num_groups, but got input of shape "
            f"{list(x.shape)} and num_groups={num_groups}"
        )
    _check_channels("group_norm", C, weight=weight, bias=bias)
    activation_ops.floating("GroupNormKernelImpl", x)
    return ops.group_norm(input, weight, bias, groups=num_groups, eps=eps)


@function(method=False)
def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """``x / (k + alpha * mean of x² over size channels)^beta`` (Krizhevsky et al., 2012)."""
    x = input.array
    if x.ndim < 3:
        raise ValueError(f"Expected 3D or higher dimensionality input (got {x.ndim} dimensions)")
    if not x.size:
        return input
    square = input * input
    before, after = size // 2, (size - 1) // 2
    if x.ndim == 3:
        padded = pad(square.reshape((x.shape[0], 1, *x.shape[1:])), (0, 0, before, after))
        mean = avg_pool2d(padded, (size, 1), stride=1)
    else:
        shape = (x.shape[0], 1, x.shape[1], x.shape[2], -1)
        mean = avg_pool3d(
            pad(square.reshape(shape), (0, 0, 0, 0, before, after)), (size, 1, 1), stride=1
        )
    return input / (mean.reshape(x.shape) * alpha + k) ** beta


def native_layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`layer_norm` with the mean and 1/√(variance + eps): PyTorch's ``torch.native_layer_norm``."""
    y = layer_norm(input, normalized_shape, weight, bias, eps)
    ndim = _normalized_shape("native_layer_norm", input, normalized_shape)
    dims = tuple(range(-ndim, 0))
    mean = input.detach().mean(dims, keepdim=True)
    d = input.detach() - mean
    return y, mean, ew.rsqrt((d * d).mean(dims, keepdim=True) + eps)
