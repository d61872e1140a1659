"""Activations, and softmax with its relatives."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from kilograd import dtypes, random
from kilograd.functions.calling import function, inplace_method, one_axis
from kilograd.nn.functional.sizes import in_float32
from kilograd.ops import activation as ops
from kilograd.ops import elementwise as ew
from kilograd.ops.index import getitem
from kilograd.ops.op import Op
from kilograd.tensor import Tensor, wrap

__all__ = [
    "celu", "celu_", "elu", "elu_", "gelu", "glu", "gumbel_softmax", "hardshrink", "hardsigmoid",
    "hardswish", "hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_", "log_softmax", "logsigmoid",
    "mish", "prelu", "relu", "relu6", "relu_", "rrelu", "rrelu_", "selu", "selu_", "sigmoid",
    "silu", "softmax", "softmin", "softplus", "softshrink", "softsign", "tanh", "tanhshrink",
    "threshold", "threshold_",
]  # fmt: skip

_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


def _run(op: Op, input: Tensor, inplace: bool, **options: Any) -> Tensor:
    return input._inplace(op, **options) if inplace else op(input, **options)


@function(method=False)
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """``max(x, 0)``; the derivative at 0 is 0.

    >>> import kilograd as kg
    >>> kg.nn.functional.relu(kg.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    if input.array.dtype.kind == "b":
        raise RuntimeError("relu: Boolean inputs are not supported")
    return _run(ew.relu, input, inplace)


@function(method=False)
def sigmoid(input: Tensor) -> Tensor:
    """``1 / (1 + exp(-x))``."""
    return ew.sigmoid(input)


@function(method=False)
def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return ew.tanh(input)


@function(method=False)
def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """``x`` where positive, else ``negative_slope * x``.

    >>> import kilograd as kg
    >>> kg.nn.functional.leaky_relu(kg.tensor([-1.0, 2.0]), 0.1)
    tensor([-0.1000,  2.0000])
    """
    return _run(ops.leaky_relu, input, inplace, slope=float(negative_slope))


@function(method=False)
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """``x`` where positive, else ``weight * x``: one weight, or one for each channel (dimension 1).

    Raises:
        RuntimeError: the weight's size is neither 1 nor the number of channels.
    """
    x, w = input.array, weight.array
    if w.dtype != x.dtype:
        raise RuntimeError(
            f"prelu: input is {x.dtype} and weight is {w.dtype}: they must be the same"
        )
    if w.ndim > 1:
        raise RuntimeError(f"prelu: weight must be a scalar or 1D tensor, but got ndim = {w.ndim}")
    if w.size != 1:
        if x.ndim == 0:
            raise RuntimeError(
                "prelu: not allow zero-dim input tensor with a weight for each channel."
            )
        channels = x.shape[1] if x.ndim > 1 else 1
        if channels != w.size:
            raise RuntimeError(
                f"prelu: mismatch of parameter numbers and input channel size. Found parameter "
                f"numbers = {w.size} and channel size = {channels}."
            )
    if x.ndim > 1:
        weight = weight.reshape((-1,) + (1,) * (x.ndim - 2))
    elif w.ndim > x.ndim:
        weight = weight.reshape(())
    return ops.prelu(input, weight)


@function(method=False)
def rrelu(
    input: Tensor,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    """Leaky ReLU with a slope drawn for each negative element, or in evaluation the mean slope."""
    if lower > upper:
        raise RuntimeError(
            f"rrelu: lower bound {lower} should be less than or equal to the upper {upper}"
        )
    if not (math.isfinite(lower) and math.isfinite(upper)):
        raise RuntimeError(f"rrelu: bounds must be finite, got {lower} and {upper}")
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    x = input.array
    ops.floating("rrelu", x)
    negative = x <= 0
    slopes = np.ones_like(x)
    count = int(negative.sum())
    slopes[negative] = random.uniform(None, count, lower, upper, dtype=np.float64)
    return _scaled(input, slopes, inplace)


def _scaled(input: Tensor, factor: Any, inplace: bool) -> Tensor:
    return input._inplace(ew.multiply, factor) if inplace else ew.multiply(input, factor)


@function(method=False)
def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """``x`` where positive, else ``alpha * (exp(x) - 1)``."""
    return _run(ops.elu, input, inplace, alpha=float(alpha))


@function(method=False)
def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """ELU with the constants for which layers keep mean 0 and variance 1."""
    return _run(ops.elu, input, inplace, alpha=_SELU_ALPHA, scale=_SELU_SCALE)


@function(method=False)
def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """``x`` where positive, else ``alpha * (exp(x / alpha) - 1)``."""
    if alpha == 0:
        raise RuntimeError("ZeroDivisionError: alpha cannot be 0 for CELU")
    return _run(ops.elu, input, inplace, alpha=float(alpha), input_scale=1.0 / alpha)


@function(method=False)
@in_float32
def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """``x`` times the normal distribution's cdf at x; ``approximate="tanh"`` is a bit cheaper.

    >>> import kilograd as kg
    >>> kg.nn.functional.gelu(kg.tensor([-1.0, 0.0, 1.0]))
    tensor([-0.1587,  0.0000,  0.8413])
    """
    if approximate not in ("none", "tanh"):
        raise RuntimeError(
            f"approximate argument must be either none or tanh, not {approximate!r}."
        )
    return ops.gelu(input, approximate=approximate)


@function(method=False)
def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """``x * sigmoid(x)``, also called swish."""
    return _run(ops.silu, input, inplace)


@function(method=False)
def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """``x * tanh(softplus(x))``."""
    return _run(ops.mish, input, inplace)


@function(method=False)
def softplus(input: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """``log(1 + exp(beta x)) / beta``; x itself where ``beta x > threshold``."""
    return ops.softplus(input, beta=float(beta), threshold=float(threshold))


@function(method=False)
def logsigmoid(input: Tensor) -> Tensor:
    """``log(sigmoid(x))``, right also where sigmoid(x) underflows."""
    return ops.logsigmoid(input)


@function(method=False)
def hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    """``x`` held between two numbers; the derivative at the bounds is 0.

    Raises:
        ValueError: min_val > max_val.
    """
    if min_val > max_val:
        raise ValueError("min_val cannot be greater than max_val")
    kind = input.array.dtype.kind
    if kind == "b":
        raise RuntimeError("Bool inputs not supported for hardtanh")
    if kind == "u" and (min_val < 0 or max_val < 0):
        raise RuntimeError("cannot do hardtanh on an unsigned type with negative limits")
    return _run(ops.hardtanh, input, inplace, low=min_val, high=max_val)


@function(method=False)
def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """``min(max(x, 0), 6)``."""
    if input.array.dtype.kind == "b":
        raise RuntimeError("Bool inputs not supported for hardtanh")
    return _run(ops.hardtanh, input, inplace, low=0, high=6)


@function(method=False)
def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """``relu6(x + 3) / 6``."""
    return _run(ops.hardsigmoid, input, inplace)


@function(method=False)
def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """``x * relu6(x + 3) / 6``."""
    return _run(ops.hardswish, input, inplace)


@function(method=False)
def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """``x`` outside of [-lambd, lambd], else 0."""
    return ops.hardshrink(input, lambd=float(lambd))


@function(method=False)
def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """``x`` moved towards 0 by lambd, and 0 within [-lambd, lambd]."""
    if lambd < 0:
        raise RuntimeError(f"lambda must be greater or equal to 0, but found to be {lambd}.")
    return ops.softshrink(input, lambd=float(lambd))


@function(method=False)
def softsign(input: Tensor) -> Tensor:
    """``x / (1 + |x|)``."""
    return input / (abs(input) + 1)


@function(method=False)
def tanhshrink(input: Tensor) -> Tensor:
    """``x - tanh(x)``."""
    return input - ew.tanh(input)


@function(method=False)
def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """``x`` where above the threshold, else ``value``."""
    return _run(ops.threshold, input, inplace, threshold=threshold, value=value)


@function(method=False)
def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half along a dimension times the sigmoid of the second half.

    Raises:
        RuntimeError: the size of the dimension is odd, or there is none.
    """
    shape = input.array.shape
    if not shape:
        raise RuntimeError("glu does not support 0-dimensional tensors")
    axis = one_axis(dim, len(shape))
    if shape[axis] % 2:
        raise RuntimeError(
            f"Halving dimension must be even, but dimension {axis} is size {shape[axis]}"
        )
    half, before = shape[axis] // 2, (slice(None),) * axis
    a = getitem(input, index=(*before, slice(0, half)))
    b = getitem(input, index=(*before, slice(half, None)))
    return a * ew.sigmoid(b)


def _softmax_axis(name: str, ndim: int, dim: int | None) -> int:
    if dim is None:
        warnings.warn(
            f"Implicit dimension choice for {name} has been deprecated. Change the call to include "
            "dim=X as an argument.",
            stacklevel=4,
        )
        dim = 0 if ndim in (0, 1, 3) else 1
    return one_axis(dim, ndim)


def _as(input: Tensor, dtype: Any) -> Tensor:
    if dtype is None:
        return input
    wanted = dtypes.as_dtype(dtype).dtype
    return input if input.array.dtype == wanted else ew.cast(input, dtype=wanted)


@function(method=False)
@in_float32
def softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Tensor:
    """``exp(x)`` divided by its sum along a dimension; ``dtype``: convert the input first.

    >>> import kilograd as kg
    >>> kg.nn.functional.softmax(kg.tensor([[0.0, 0.0, 0.0, 0.0]]), dim=1)
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """
    axis = _softmax_axis("softmax", input.array.ndim, dim)
    return _along(ops.softmax, _as(input, dtype), axis)


def _along(op: Op, input: Tensor, axis: int) -> Tensor:
    if input.array.ndim == 0:
        return op(input.reshape((1,)), axis=0).reshape(())
    return op(input, axis=axis)


@function(method=False)
@in_float32
def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Tensor:
    """The logarithm of :func:`softmax`, computed without underflow."""
    axis = _softmax_axis("log_softmax", input.array.ndim, dim)
    return _along(ops.log_softmax, _as(input, dtype), axis)


@function(method=False)
@in_float32
def softmin(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Tensor:
    """Softmax of ``-x``."""
    axis = _softmax_axis("softmin", input.array.ndim, dim)
    return _along(ops.softmax, _as(-input, dtype), axis)


@function(method=False)
def gumbel_softmax(
    logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Tensor:
    """A sample of softmax(logits) as a soft or (``hard=True``) one-hot vector.

    The hard sample's gradient is the soft one's.
    """
    if eps != 1e-10:
        warnings.warn("`eps` parameter is deprecated and has no effect.", stacklevel=3)
    x = logits.array
    noise = -np.log(random.exponential(None, x.shape, dtype=x.dtype))
    soft = softmax((logits + wrap(noise)) / tau, dim)
    if not hard:
        return soft
    y = soft.array
    axis = one_axis(dim, y.ndim)
    one_hot = np.zeros_like(y)
    np.put_along_axis(one_hot, y.argmax(axis, keepdims=True), 1, axis)
    return wrap(one_hot - y) + soft


relu_ = inplace_method(relu, "relu_")
leaky_relu_ = inplace_method(leaky_relu, "leaky_relu_")
rrelu_ = inplace_method(rrelu, "rrelu_")
elu_ = inplace_method(elu, "elu_")
selu_ = inplace_method(selu, "selu_")
celu_ = inplace_method(celu, "celu_")
hardtanh_ = inplace_method(hardtanh, "hardtanh_")
threshold_ = inplace_method(threshold, "threshold_")
