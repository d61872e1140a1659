"""Activations: elementwise curves of a layer's output, and softmax.

The cheap ones have rules that any array can run. Those that spend their time in ``exp`` or ``erf``
keep what they computed (a residual), and say their composition for higher orders.
"""

from __future__ import annotations

import math

import numpy as np

from kilograd.ops import elementwise as ew
from kilograd.ops.elementwise import where
from kilograd.ops.op import op
from kilograd.ops.reduce import sum as sum_

SQRT_HALF = math.sqrt(0.5)
SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
CUBIC = 0.044715  # of the tanh approximation of GELU


def floating(name, x):
    """Refuse integers where PyTorch has no kernel for them."""
    if x.dtype.kind not in "fc":
        raise NotImplementedError(f'"{name}" not implemented for {x.dtype}')


def _in_place(ufunc, y):
    """The ufunc of a fresh array, written over it (NumPy's 0-d results are numbers, not arrays)."""
    return ufunc(y, out=y) if type(y) is np.ndarray else ufunc(y)


def _number(value, like):
    """A Python number that does not change the dtype of what it meets."""
    return like.dtype.type(value)


# --- pieces of straight lines -------------------------------------------------------------------


@op
def leaky_relu(x, *, slope):
    """``x`` where positive, else ``slope * x``."""
    floating("leaky_relu", x)
    if 0 <= slope <= 1:
        return np.maximum(x, x * slope)
    return np.where(x > 0, x, x * slope)


@leaky_relu.vjp("x")
def _(g, x, slope):
    return where(x > 0, g, g * slope)


@op
def prelu(x, w):
    """``x`` where positive, else ``w * x`` (``w`` broadcasts)."""
    return np.where(x > 0, x, x * w)


@prelu.vjp("x")
def _(g, x, w):
    return where(x > 0, g, g * w)


@prelu.vjp("w")
def _(g, x):
    return where(x > 0, 0.0, g * x)


@op
def hardtanh(x, *, low, high):
    """``x`` held between two numbers; the derivative at the bounds is 0."""
    return np.minimum(np.maximum(x, _number(low, x)), _number(high, x))


@hardtanh.vjp("x")
def _(g, x, low, high):
    return where((x > low) & (x < high), g, 0.0)


@op
def hardsigmoid(x):
    """``(x + 3) / 6`` held between 0 and 1."""
    floating("hardsigmoid", x)
    y = np.minimum(np.maximum(x + 3, 0), 6)
    y *= 1 / 6
    return y


@hardsigmoid.vjp("x")
def _(g, x):
    return where((x > -3) & (x < 3), g * (1 / 6), 0.0)


@op
def hardswish(x):
    """``x * hardsigmoid(x)``."""
    floating("hardswish", x)
    y = np.minimum(np.maximum(x + 3, 0), 6)
    y *= x
    y *= 1 / 6
    return y


@hardswish.vjp("x")
def _(g, x):
    return where(x < 3, where(x > -3, g * (x * (1 / 3) + 0.5), 0.0), g)


@op
def threshold(x, *, threshold, value):
    """``x`` where above the threshold, else ``value``."""
    return np.where(x <= threshold, _number(value, x), x)


@threshold.vjp("x")
def _(g, x, threshold):
    return where(x <= threshold, 0.0, g)


@op
def hardshrink(x, *, lambd):
    """``x`` outside of [-lambd, lambd], else 0."""
    floating("hardshrink", x)
    return np.where((x >= -lambd) & (x <= lambd), _number(0, x), x)


@op
def softshrink(x, *, lambd):
    """``x`` moved towards 0 by lambd, and 0 within [-lambd, lambd]."""
    floating("softshrink", x)
    return x - np.minimum(np.maximum(x, -lambd), lambd)


@hardshrink.vjp("x")
@softshrink.vjp("x")
def _(g, x, lambd):
    return where((x >= -lambd) & (x <= lambd), 0.0, g)


# --- curves -------------------------------------------------------------------------------------


@op
def elu(x, *, alpha=1.0, scale=1.0, input_scale=1.0):
    """``scale * x`` where positive, else ``scale * alpha * (exp(input_scale * x) - 1)``."""
    floating("elu", x)
    y = np.minimum(x, 0)
    if input_scale != 1:
        y *= input_scale
    y = _in_place(np.expm1, y)
    y *= scale * alpha
    positive = np.maximum(x, 0)
    if scale != 1:
        positive *= scale
    y += positive
    return y


@elu.vjp("x")
def _(g, x, alpha, scale, input_scale):
    bent = np.exp(where(x > 0, 0.0, x) * input_scale) * (scale * alpha * input_scale)
    return g * where(x > 0, scale, bent)


@op
def softplus(x, *, beta, threshold):
    """``log(1 + exp(beta * x)) / beta``, and ``x`` itself where ``beta * x > threshold``."""
    floating("softplus", x)
    z = x * beta
    y = np.log1p(np.exp(-np.absolute(z)))
    y += np.maximum(z, 0)
    y *= 1 / beta
    above = z > threshold
    if threshold < 20 or above.any():
        y = np.where(above, x, y)
    return y


@softplus.vjp("x")
def _(g, x, beta, threshold):
    z = x * beta
    return where(z > threshold, g, g * ew.sigmoid(z))


@op
def logsigmoid(x):
    """``log(1 / (1 + exp(-x)))``."""
    floating("log_sigmoid", x)
    return np.minimum(x, 0) - _in_place(np.log1p, np.exp(-np.absolute(x)))


@logsigmoid.vjp("x")
def _(g, x):
    return g * ew.sigmoid(-x)


def _silu_composition(x):
    return x * ew.sigmoid(x)


@op(residuals=("s",), composition=_silu_composition)
def silu(x):
    """``x * sigmoid(x)``."""
    floating("silu", x)
    s = ew.sigmoid(x)
    return x * s, s


@silu.vjp("x")
def _(g, x, s):
    d = 1 - s
    d *= x
    d += 1
    d *= s
    d *= g
    return d


def _mish_composition(x):
    return x * np.tanh(ew.softplus(x))


@op(residuals=("t",), composition=_mish_composition)
def mish(x):
    """``x * tanh(softplus(x))``."""
    floating("mish", x)
    t = np.tanh(ew.softplus(x))
    return x * t, t


@mish.vjp("x")
def _(g, x, t):
    return g * (t + x * (1 - t * t) * ew.sigmoid(x))


def _gelu_composition(x, *, approximate):
    if approximate == "tanh":
        inner = np.tanh((x + x * x * x * CUBIC) * SQRT_2_OVER_PI)
    else:
        inner = ew.erf(x * SQRT_HALF)
    return x * (inner + 1) * 0.5


@op(residuals=("cdf",), composition=_gelu_composition)
def gelu(x, *, approximate="none"):
    """``x`` times the normal distribution's cdf at ``x``, or its approximation by tanh."""
    floating("GeluKernelImpl", x)
    if approximate == "tanh":
        cdf = x * x
        cdf *= CUBIC * SQRT_2_OVER_PI
        cdf += SQRT_2_OVER_PI
        cdf *= x
        cdf = np.tanh(cdf)
    else:
        cdf = ew.erf(x * SQRT_HALF)
    cdf += 1
    cdf *= 0.5
    return x * cdf, cdf


@gelu.vjp("x")
def _(g, x, cdf, approximate):
    d = x * x
    if approximate == "tanh":  # d cdf / dx = 2 cdf (1 - cdf) * d inner / dx
        d *= 6 * CUBIC * SQRT_2_OVER_PI
        d += 2 * SQRT_2_OVER_PI
        d *= cdf
        d *= 1 - cdf
    else:  # the density
        d *= -0.5
        d = np.exp(d)
        d *= 1 / math.sqrt(2 * math.pi)
    d *= x
    d += cdf
    d *= g
    return d


# --- softmax ------------------------------------------------------------------------------------


def softmax_(x, axis):
    """Softmax of an array; a new array."""
    if not x.size:
        return x.copy()
    y = _in_place(np.exp, x - np.maximum.reduce(x, axis=axis, keepdims=True))
    y /= np.add.reduce(y, axis=axis, keepdims=True)
    return y


@op
def softmax(x, *, axis):
    """``exp(x)`` divided by its sum along an axis."""
    floating("softmax_lastdim_kernel_impl", x)
    return softmax_(x, axis)


@softmax.vjp("x")
def _(g, y, axis):
    d = g * y
    d -= y * sum_(d, axis=axis, keepdims=True)
    return d


def log_softmax_(x, axis):
    """The logarithm of softmax of an array; a new array."""
    if not x.size:
        return x.copy()
    y = x - np.maximum.reduce(x, axis=axis, keepdims=True)
    y -= np.log(np.add.reduce(np.exp(y), axis=axis, keepdims=True))
    return y


@op
def log_softmax(x, *, axis):
    """``x`` less the logarithm of the sum of its ``exp`` along an axis."""
    floating("log_softmax_lastdim_kernel_impl", x)
    return log_softmax_(x, axis)


@log_softmax.vjp("x")
def _(g, y, axis):
    d = np.exp(y) * -sum_(g, axis=axis, keepdims=True)
    d += g
    return d

