"""Activations: elementwise curves of a layer's output, and softmax.

The cheap ones have rules that any array can run. Those that spend their time in ``exp`` or ``erf``
keep what they computed (a residual), and say their composition for higher orders.
"""

from __future__ import annotations

import math

import numpy as np

from kilograd.kernels import activation as kernels
from kilograd.ops import elementwise as ew
from kilograd.ops import special
from kilograd.ops.elementwise import where
from kilograd.ops.op import Box, op
from kilograd.ops.reduce import sum as sum_


def floating(name, x):
    """Refuse integers where PyTorch has no kernel for them."""
    if x.dtype.kind not in "fc":
        raise NotImplementedError(f'"{name}" not implemented for {x.dtype}')


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
    if 0 <= slope <= 1:
        return g * np.maximum(np.sign(x), slope)
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
    return g * ((x > low) & (x < high))


@op
def hardsigmoid(x):
    """``(x + 3) / 6`` held between 0 and 1."""
    floating("hardsigmoid", x)
    y = np.minimum(np.maximum(x + 3, 0), 6)
    y *= 1 / 6
    return y


@hardsigmoid.vjp("x")
def _(g, x):
    return g * ((x > -3) & (x < 3)) * (1 / 6)


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
    return g * ((x * (1 / 3) + 0.5) * ((x > -3) & (x < 3)) + (x >= 3))


@op
def threshold(x, *, threshold, value):
    """``x`` where above the threshold, else ``value``."""
    return np.where(x <= threshold, _number(value, x), x)


@threshold.vjp("x")
def _(g, x, threshold):
    return g * (x > threshold)


@op
def hardshrink(x, *, lambd):
    """``x`` outside of [-lambd, lambd], else 0."""
    floating("hardshrink", x)
    return x * ((x < -lambd) | (x > lambd))


@op
def softshrink(x, *, lambd):
    """``x`` moved towards 0 by lambd, and 0 within [-lambd, lambd]."""
    floating("softshrink", x)
    return x - np.minimum(np.maximum(x, -lambd), lambd)


@hardshrink.vjp("x")
@softshrink.vjp("x")
def _(g, x, lambd):
    return g * ((x < -lambd) | (x > lambd))


# --- curves -------------------------------------------------------------------------------------


def _elu_composition(x, *, alpha, scale, input_scale):
    positive = x > 0
    bent = np.expm1(where(positive, 0.0, x) * input_scale) * (scale * alpha)
    return where(positive, x * scale, bent)


@op(weight=4, composition=_elu_composition)
def elu(x, *, alpha=1.0, scale=1.0, input_scale=1.0):
    """``scale * x`` where positive, else ``scale * alpha * (exp(input_scale * x) - 1)``."""
    floating("elu", x)
    return kernels.elu(x, alpha=alpha, scale=scale, input_scale=input_scale)


@elu.vjp("x")
def _(g, x, alpha, scale, input_scale):
    return kernels.elu_gradient(g, x, alpha=alpha, scale=scale, input_scale=input_scale)


@op(weight=4)
def softplus(x, *, beta, threshold):
    """``log(1 + exp(beta * x)) / beta``, and ``x`` itself where ``beta * x > threshold``."""
    floating("softplus", x)
    if beta == 1 and threshold >= 20:  # the formula gives x there
        return kernels.softplus(x)
    z = x * beta
    return np.where(z > threshold, x, kernels.softplus(z) / beta)


@softplus.vjp("x")
def _(g, x, beta, threshold):
    if beta == 1 and threshold >= 20:
        return g * ew.sigmoid(x)
    z = x * beta
    return where(z > threshold, g, g * ew.sigmoid(z))


@op(weight=4)
def logsigmoid(x):
    """``log(1 / (1 + exp(-x)))``."""
    floating("log_sigmoid", x)
    return -kernels.softplus(-x)


@logsigmoid.vjp("x")
def _(g, x):
    return g * ew.sigmoid(-x)


def _silu_composition(x):
    return x * ew.sigmoid(x)


@op(weight=4, residuals=("s",), composition=_silu_composition)
def silu(x):
    """``x * sigmoid(x)``."""
    floating("silu", x)
    return kernels.silu(x)


@silu.vjp("x")
def _(g, x, s):
    return kernels.silu_gradient(g, x, s)


def _mish_composition(x):
    return x * np.tanh(softplus(x, beta=1.0, threshold=20.0))


@op(weight=4, residuals=("t",), composition=_mish_composition)
def mish(x):
    """``x * tanh(softplus(x))``."""
    floating("mish", x)
    return kernels.mish(x)


@mish.vjp("x")
def _(g, x, t):
    return kernels.mish_gradient(g, x, t)


def _gelu_composition(x, *, approximate):
    if approximate == "tanh":
        inner = np.tanh((x + x * x * x * kernels.CUBIC) * kernels.SQRT_2_OVER_PI)
    else:
        inner = special.erf(x * math.sqrt(0.5))
    return x * (inner + 1) * 0.5


@op(weight=4, residuals=("cdf",), composition=_gelu_composition)
def gelu(x, *, approximate="none"):
    """``x`` times the normal distribution's cdf at ``x``, or its approximation by tanh."""
    floating("GeluKernelImpl", x)
    return kernels.gelu_tanh(x) if approximate == "tanh" else kernels.gelu(x)


@gelu.vjp("x")
def _(g, x, cdf, approximate):
    if approximate == "tanh":
        return kernels.gelu_tanh_gradient(g, x, cdf)
    return kernels.gelu_gradient(g, x, cdf)


# --- softmax ------------------------------------------------------------------------------------


@op(weight=4)
def softmax(x, *, axis):
    """``exp(x)`` divided by its sum along an axis."""
    floating("softmax_lastdim_kernel_impl", x)
    return kernels.softmax(x, axis)


@softmax.vjp("x")
def _(g, y, axis):
    if not isinstance(g, Box) and not isinstance(y, Box):
        return kernels.softmax_gradient(g, y, axis)
    d = g * y
    return d - y * sum_(d, axis=axis, keepdims=True)


@op(weight=4)
def log_softmax(x, *, axis):
    """``x`` less the logarithm of the sum of its ``exp`` along an axis."""
    floating("log_softmax_lastdim_kernel_impl", x)
    return kernels.log_softmax(x, axis)


@log_softmax.vjp("x")
def _(g, y, axis):
    if not isinstance(g, Box) and not isinstance(y, Box):
        return kernels.log_softmax_gradient(g, y, axis)
    return g - np.exp(y) * sum_(g, axis=axis, keepdims=True)
