"""Elementwise ops that few networks need: special functions, several arguments, complex numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd import dtypes
from kilograd.kernels import special
from kilograd.ops.elementwise import cast, promoted, sign, turning, typed, ufunc, where, zero
from kilograd.ops.op import Op, no_grad_op, op

digamma: Op  # rules name these before their own line
zeta: Op
i1: Op
i1e: Op
xlogy: Op
xlog1py: Op


def unknown(name: str) -> Callable[..., Any]:
    """The rule of an input for which PyTorch has no derivative either."""

    def rule(g: Any) -> Any:
        raise NotImplementedError(f"the derivative for {name!r} is not implemented")

    return rule


# --- special functions --------------------------------------------------------------------------


def _xlogy(a: Any, b: Any) -> Any:
    return np.where((a == 0) & ~np.isnan(b), 0, a * np.log(b)).astype(a.dtype, copy=False)


def _xlog1py(a: Any, b: Any) -> Any:
    return np.where((a == 0) & ~np.isnan(b), 0, a * np.log1p(b)).astype(a.dtype, copy=False)


def _entr(x: Any) -> Any:
    outside = np.where(x == 0, 0, np.where(x < 0, -math.inf, x))
    return np.where(x > 0, -x * np.log(np.maximum(x, 0)), outside).astype(x.dtype, copy=False)


def _sinc(x: Any) -> Any:
    t = x * math.pi
    return np.where(t == 0, 1, np.sin(t) / t).astype(x.dtype, copy=False)


def _sgn(x: Any) -> Any:
    if x.dtype.kind != "c":
        return sign(x)
    size = np.abs(x)
    return np.where(size == 0, 0, x / np.where(size == 0, 1, size)).astype(x.dtype, copy=False)


def _heaviside(a: Any, b: Any) -> Any:
    return np.where(a == 0, b, (a > 0).astype(b.dtype))


def _angle(x: Any) -> Any:
    if x.dtype.kind == "c":
        return np.angle(x)
    return np.where(np.isnan(x), x, (x < 0) * x.dtype.type(math.pi))


def _of_angle(g: Any, x: Any) -> Any:
    if x.dtype.kind != "c":
        return zero(g)
    return where(x == 0, 0, g * -1j / where(x == 0, 1, x))


# fmt: off
sgn           = ufunc(_sgn,             lambda g, x: turning(g, x), name="sgn")
angle         = ufunc(_angle,           lambda g, x: _of_angle(g, x), name="angle", floats=True)
nextafter     = ufunc(np.nextafter,     lambda g: g,                 zero, floats=True, integers=False)
heaviside     = ufunc(_heaviside,       differentiable=False, name="heaviside")
erf           = ufunc(special.erf,      lambda g, x: g * (np.exp(-x * x) * (2 / math.sqrt(math.pi))), floats=True)
erfc          = ufunc(special.erfc,     lambda g, x: g * (np.exp(-x * x) * (-2 / math.sqrt(math.pi))), floats=True)
erfcx         = ufunc(special.erfcx,    lambda g, x, y: g * (x * y * 2 - 2 / math.sqrt(math.pi)), floats=True)
erfinv        = ufunc(special.erfinv,   lambda g, y: g * (np.exp(y * y) * (math.sqrt(math.pi) / 2)), floats=True)
ndtr          = ufunc(special.ndtr,     lambda g, x: g * (np.exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))), floats=True)
ndtri         = ufunc(special.ndtri,    lambda g, y: g * (np.exp(y * y * 0.5) * math.sqrt(2 * math.pi)), floats=True)
log_ndtr      = ufunc(special.log_ndtr, lambda g, x: g * math.sqrt(2 / math.pi) / erfcx(x * -math.sqrt(0.5)), floats=True)
lgamma        = ufunc(special.lgamma,   lambda g, x: g * digamma(x), floats=True)
digamma       = ufunc(special.digamma,  lambda g, x: g * polygamma(x, n=1), floats=True)
zeta          = ufunc(special.zeta,     unknown("input"),            lambda g, a, b: g * (-a * zeta(a + 1, b)), floats=True)
igamma        = ufunc(special.igamma,   unknown("input"),            lambda g, a, b: g * _gamma_density(a, b), floats=True, integers=False)
igammac       = ufunc(special.igammac,  unknown("input"),            lambda g, a, b: -g * _gamma_density(a, b), floats=True, integers=False)
i0            = ufunc(special.i0,       lambda g, x: g * i1(x),      floats=True)
i0e           = ufunc(special.i0e,      lambda g, x, y: g * (i1e(x) - np.sign(x) * y), floats=True)
i1            = ufunc(special.i1,       lambda g, x, y: g * where(x == 0, 0.5, i0(x) - y / where(x == 0, 1.0, x)), floats=True)
i1e           = ufunc(special.i1e,      lambda g, x, y: g * where(x == 0, 0.5, i0e(x) - y * (np.sign(x) + 1 / where(x == 0, 1.0, x))), floats=True)
xlogy         = ufunc(_xlogy,           lambda g, a, b: where((a == 0) & (b <= 0), 0.0, xlogy(g, b)), lambda g, a, b: g * a / b, name="xlogy", floats=True, wide=True)
xlog1py       = ufunc(_xlog1py,         lambda g, a, b: where((a == 0) & (b <= -1), 0.0, xlog1py(g, b)), lambda g, a, b: g * a / (b + 1), name="xlog1py", floats=True, wide=True)
entr          = ufunc(_entr,            lambda g, x: g * (-1 - np.log(x)), name="entr", floats=True, wide=True)
sinc          = ufunc(_sinc,            lambda g, x: g * _sinc_slope(x), name="sinc", floats=True, wide=True)
# fmt: on


def _gamma_density(a, x):
    return np.exp((a - 1) * np.log(x) - x - lgamma(a))


def _sinc_slope(x):
    t = x * math.pi
    return where(t == 0, 0.0, (t * np.cos(t) - np.sin(t)) / (t * x))


@op
def polygamma(x, *, n):
    """The n-th derivative of digamma."""
    return typed(lambda v: special.polygamma(n, v), floats=True, count=1)(x)


@polygamma.vjp("x")
def _(g, x, n):
    return g * polygamma(x, n=n + 1)


@op
def logit(x, *, eps=None):
    """log(x / (1 - x)), x first held within eps of the ends if eps is given."""
    return typed(lambda v: _logit(v, eps), floats=True, wide=True, count=1)(x)


def _logit(x, eps):
    if eps is not None:
        x = np.minimum(np.maximum(x, eps), 1 - eps)
    return np.log(x / (1 - x))


@logit.vjp("x")
def _(g, x, eps):
    if eps is None:
        return where((x < 0) | (x > 1), math.nan, g / (x * (1 - x)))
    return where((x < eps) | (x > 1 - eps), 0.0, g / (x * (1 - x)))


@no_grad_op
def isclose(a, b, *, rtol, atol, equal_nan):
    """Whether ``|a - b| <= atol + rtol * |b|``."""
    close = a == b
    if a.dtype.kind in "iu":
        a, b = a.astype(float), b.astype(float)
    if a.dtype.kind != "b":
        error = np.abs(a - b)
        close = close | (np.isfinite(error) & (error <= atol + np.abs(b * rtol)))
    return close | (np.isnan(a) & np.isnan(b)) if equal_nan else close


# --- several arguments --------------------------------------------------------------------------


@op
def lerp(x, end, weight):
    """``x + weight * (end - x)``, exact at both ends."""
    if type(weight) is float or type(weight) is int:
        step = end - x
        return x + weight * step if abs(weight) < 0.5 else end - step * (1 - weight)
    x, end, weight = promoted(x, end, weight)
    step = end - x
    return np.where(np.abs(weight) < 0.5, x + weight * step, end - step * (1 - weight))


@lerp.vjp("x")
def _(g, weight):
    return g * (1 - weight)


@lerp.vjp("end")
def _(g, weight):
    return g * weight


@lerp.vjp("weight")
def _(g, x, end):
    return g * (end - x)


@op
def addcmul(x, a, b, *, value=1):
    """``x + value * a * b``."""
    x, a, b = promoted(x, a, b)
    y = a * b
    return x + (y if value == 1 else y * value)


@addcmul.vjp("x")
def _(g):
    return g


@addcmul.vjp("a")
def _(g, b, value):
    return g * (b * value)


@addcmul.vjp("b")
def _(g, a, value):
    return g * (a * value)


@op
def addcdiv(x, a, b, *, value=1):
    """``x + value * a / b``."""
    x, a, b = promoted(x, a, b)
    return x + (a * value) / b


@addcdiv.vjp("x")
def _(g):
    return g


@addcdiv.vjp("a")
def _(g, b, value):
    return g * value / b


@addcdiv.vjp("b")
def _(g, a, b, value):
    return g * (a * -value) / (b * b)


@op
def nan_to_num(x, *, nan, posinf, neginf):
    """Finite numbers in place of nan and the infinities."""
    if x.dtype.kind not in "fc":
        return x.copy()
    return np.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf)


@nan_to_num.vjp("x")
def _(g, x):
    return where(np.isfinite(x), g, 0.0)


@op
def round_to(x, *, decimals):
    """Rounded to a number of decimals (halves to even)."""
    scale = 10.0 ** abs(decimals)
    return np.rint(x * scale) / scale if decimals > 0 else np.rint(x / scale) * scale


round_to.vjp("x")(zero)


@op(outputs=2)
def frexp(x):
    """``(mantissa, exponent)``: x = mantissa * 2**exponent, with 1/2 ≤ |mantissa| < 1."""
    return np.frexp(x)


@frexp.vjp("x")
def _(g, y):
    return g[0] / np.exp2(cast(y[1], dtype=g[0].dtype))


# --- complex numbers ----------------------------------------------------------------------------
#
# Which complex gradients these rules take and give: ``autograd/conjugate.py``.


@op(view=True)
def real(x):
    """The real part."""
    return x.real


@real.vjp("x")
def _(g):
    return g


@op(view=True)
def imag(x):
    """The imaginary part of a complex array."""
    return x.imag


@imag.vjp("x")
def _(g):
    return g * -1j


@op(view=True)
def as_real(x):
    """Complex (*) as real (*, 2)."""
    return x[..., None].view(x.real.dtype)


@as_real.vjp("x")
def _(g):
    return conj(as_complex(g))


@op(view=True)
def as_complex(x):
    """Real (*, 2) as complex (*)."""
    return x.view(dtypes.FROM_NUMPY[x.dtype].to_complex().dtype)[..., 0]


@as_complex.vjp("x")
def _(g):
    return as_real(conj(g))


@op
def conj(x):
    """The complex conjugate."""
    return np.conjugate(x) if x.dtype.kind == "c" else x.copy()


@conj.vjp("x")
def _(g):
    return conj(g)


@op
def complex_of(re, im):
    """``re + 1j * im``."""
    dtype = dtypes.FROM_NUMPY[re.dtype].to_complex().dtype
    y = np.empty(np.broadcast_shapes(re.shape, im.shape), dtype)
    y.real, y.imag = re, im
    return y


@complex_of.vjp("re", "im")
def _(g):
    return real(g), -imag(g)
