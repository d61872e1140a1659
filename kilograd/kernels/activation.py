"""Activations and their derivatives as short chains of passes over cache-sized blocks.

``np.where`` is avoided: where the two sides mix at random it costs ten multiplications. exp, expm1,
log1p and tanh cost about two.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from kilograd.kernels.blocks import blockwise, in_blocks
from kilograd.kernels.kernel import kernel
from kilograd.kernels.rows import row_maxima, row_products, row_sums
from kilograd.kernels.special import erf

Array = np.ndarray

EXP_LIMIT = {2: 11.0, 4: 88.0, 8: 709.0}  # by itemsize: exp of more overflows
CUBIC = 0.044715  # of the tanh approximation of GELU
SQRT_2_OVER_PI = math.sqrt(2 / math.pi)

# (2Φ(x) - 1) = tanh(x P(x²)), Φ the normal cdf: coefficients of P, a minimax fit for |x| < 5.9
# made with Lawson's algorithm; its error is 8e-8, in float32 arithmetic 1e-7.
_NORMAL = (
    0.797884643, 0.0363342344, -3.37038709e-05, -5.48887125e-05, 3.8946427e-06, -1.270576e-07, 1.61865904e-09,
)  # fmt: skip


def over(ufunc: np.ufunc, y: Array, *more: float) -> Array:
    """The ufunc of a fresh array, written over it (NumPy's 0-d results are numbers, not arrays)."""
    return ufunc(y, *more, out=y) if type(y) is np.ndarray else ufunc(y, *more)


def _exp_minus(x: Array) -> Array:
    """exp(-x), held below infinity."""
    return over(np.exp, np.minimum(-x, EXP_LIMIT[x.dtype.itemsize]))


def _sigmoid(x: Array) -> Array:
    s = _exp_minus(x)
    s += 1
    return over(np.reciprocal, s)


def _softplus(x: Array) -> Array:
    # log(1 + e^x) > x always; above the limit of exp they are equal
    y = over(np.exp, np.minimum(x, EXP_LIMIT[x.dtype.itemsize]))
    return np.maximum(over(np.log1p, y), x)


sigmoid = blockwise(_sigmoid)


@kernel
@blockwise
def softplus(x: Array) -> Array:
    """``log(1 + exp(x))``."""
    return _softplus(x)


@kernel
@blockwise
def silu(x: Array) -> tuple[Array, Array]:
    """x σ(x), and σ(x)."""
    s = _sigmoid(x)
    return x * s, s


@kernel
@blockwise
def silu_gradient(g: Array, x: Array, s: Array) -> Array:
    """g σ(x) (1 + x (1 - σ(x)))."""
    d = 1 - s
    d *= x
    d += 1
    d *= s
    d *= g
    return d


@kernel
@blockwise
def mish(x: Array) -> tuple[Array, Array]:
    """x t, and t = tanh(softplus(x))."""
    t = over(np.tanh, _softplus(x))
    return x * t, t


@kernel
@blockwise
def mish_gradient(g: Array, x: Array, t: Array) -> Array:
    """g (t + x (1 - t²) σ(x))."""
    d = t * t
    d -= 1
    d *= x
    d *= _sigmoid(x)
    d -= t
    d *= -g
    return d


@kernel
@blockwise
def gelu(x: Array) -> tuple[Array, Array]:
    """x Φ(x), and Φ(x)."""
    if x.dtype == np.float32:
        c = np.maximum(np.minimum(x, 5.9), -5.9)
        square = c * c
        cdf = square * _NORMAL[-1]
        for k in _NORMAL[-2:0:-1]:
            cdf += k
            cdf *= square
        cdf += _NORMAL[0]
        cdf *= c
        cdf = over(np.tanh, cdf)
    else:
        cdf = erf(np.asarray(x * math.sqrt(0.5)))
    cdf += 1
    cdf *= 0.5
    return x * cdf, cdf


@kernel
@blockwise
def gelu_gradient(g: Array, x: Array, cdf: Array) -> Array:
    """g (Φ(x) + x φ(x)), φ the normal density."""
    d = x * x
    d *= -0.5
    d = over(np.exp, d)
    d *= x
    d *= 1 / math.sqrt(2 * math.pi)
    d += cdf
    d *= g
    return d


@kernel
@blockwise
def gelu_tanh(x: Array) -> tuple[Array, Array]:
    """x c, and c = (1 + tanh(√(2/π) (x + 0.044715 x³)))/2."""
    cdf = x * x
    cdf *= CUBIC * SQRT_2_OVER_PI
    cdf += SQRT_2_OVER_PI
    cdf *= x
    cdf = over(np.tanh, cdf)
    cdf += 1
    cdf *= 0.5
    return x * cdf, cdf


@kernel
@blockwise
def gelu_tanh_gradient(g: Array, x: Array, cdf: Array) -> Array:
    """g (c + 2 x c (1 - c) √(2/π) (1 + 3·0.044715 x²))."""
    d = x * x
    d *= 6 * CUBIC * SQRT_2_OVER_PI
    d += 2 * SQRT_2_OVER_PI
    d *= x
    d *= 1 - cdf
    d += 1
    d *= cdf
    d *= g
    return d


@kernel
@blockwise
def elu(x: Array, alpha: float, scale: float, input_scale: float) -> Array:
    """scale x where positive, else scale alpha (exp(input_scale x) - 1)."""
    y = np.minimum(x, 0)
    if input_scale != 1:
        y *= input_scale
    y = over(np.expm1, y)
    if scale * alpha != 1:
        y *= scale * alpha
    positive = np.maximum(x, 0)
    if scale != 1:
        positive *= scale
    y += positive
    return y


@kernel
@blockwise
def elu_gradient(g: Array, x: Array, alpha: float, scale: float, input_scale: float) -> Array:
    """g scale where x is positive, else g scale alpha input_scale exp(input_scale x)."""
    slope = scale * alpha * input_scale
    d = np.minimum(x, 0)
    if input_scale != 1:
        d *= input_scale
    d = over(np.exp, d)
    if slope != 1:
        d *= slope
    if slope != scale:
        step = (x > 0).astype(x.dtype)
        step *= scale - slope
        d += step
    d *= g
    return d


# --- softmax ------------------------------------------------------------------------------------


def _by_rows(fn: Callable[..., None], x: Array, y: Array, *more: Array) -> Array:
    """fn(rows of x, of y, ...) on blocks of rows of contiguous arrays; y."""
    width = x.shape[-1]
    n = x.size // width
    rows = [a.reshape(n, width) for a in (x, y, *more)]
    in_blocks(lambda i, j: fn(*[a[i:j] for a in rows]), n, width, row=width)
    return y


def _last(x: Array, axis: int) -> bool:
    """Whether an axis is the last one of an array in its natural order that is worth the trouble."""
    return x.size >= 512 and axis % x.ndim == x.ndim - 1 and x.flags.c_contiguous


def _softmax_rows(x: Array, y: Array) -> None:
    np.subtract(x, row_maxima(x), out=y)
    np.exp(y, out=y)
    y /= row_sums(y)[:, None]


@kernel
def softmax(x: Array, axis: int) -> Array:
    """exp(x) divided by its sum along an axis."""
    if _last(x, axis):
        return _by_rows(_softmax_rows, x, np.empty_like(x))
    if not x.size:
        return x.copy()
    y = over(np.exp, x - np.maximum.reduce(x, axis=axis, keepdims=True))
    y /= np.add.reduce(y, axis=axis, keepdims=True)
    return y


def _softmax_gradient_rows(g: Array, d: Array, y: Array) -> None:
    np.subtract(g, row_products(g, y)[:, None], out=d)
    d *= y


@kernel
def softmax_gradient(g: Array, y: Array, axis: int) -> Array:
    """y (g - Σ g y)."""
    if _last(y, axis) and g.flags.c_contiguous:
        return _by_rows(_softmax_gradient_rows, g, np.empty_like(y), y)
    d = g * y
    d -= y * np.add.reduce(d, axis=axis, keepdims=True)
    return d


def _log_softmax_rows(x: Array, y: Array) -> None:
    np.subtract(x, row_maxima(x), out=y)
    y -= np.log(row_sums(np.exp(y)))[:, None]


@kernel
def log_softmax(x: Array, axis: int) -> Array:
    """x less the logarithm of the sum of its exp along an axis."""
    if _last(x, axis):
        return _by_rows(_log_softmax_rows, x, np.empty_like(x))
    if not x.size:
        return x.copy()
    y = x - np.maximum.reduce(x, axis=axis, keepdims=True)
    y -= np.log(np.add.reduce(np.exp(y), axis=axis, keepdims=True))
    return y


def _log_softmax_gradient_rows(g: Array, d: Array, y: Array) -> None:
    np.exp(y, out=d)
    d *= row_sums(g)[:, None]
    np.subtract(g, d, out=d)


@kernel
def log_softmax_gradient(g: Array, y: Array, axis: int) -> Array:
    """g - exp(y) Σ g."""
    if _last(y, axis) and g.flags.c_contiguous:
        return _by_rows(_log_softmax_gradient_rows, g, np.empty_like(y), y)
    return g - np.exp(y) * np.add.reduce(g, axis=axis, keepdims=True)
