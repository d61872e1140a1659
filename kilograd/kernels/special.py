"""Special functions, which NumPy lacks: series and continued fractions, a whole block at a time.

Everything is computed in float64 and rounded to the input's dtype, save ``erf`` of float32, which is
in every GELU and has its own short formula. Coefficients are computed here where they have a formula.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kilograd.kernels.kernel import kernel

Array = Any
_BLOCK = 1 << 13  # elements: the temporaries of a block stay in the first-level caches
_HALF_SQRT_PI = math.sqrt(math.pi) / 2


def blockwise(fn: Callable[..., Array]) -> Callable[..., Array]:
    """``fn`` of float64 vectors, as a function of arrays of one shape and any floating dtype."""
    count = fn.__code__.co_argcount

    @functools.wraps(fn)
    def kernel(*xs: Array) -> Array:
        dtype = np.result_type(*xs)  # before numbers become arrays: theirs gives way
        if count > 1:
            xs = tuple(np.broadcast_arrays(*xs))
        shape = xs[0].shape
        flat = [x.reshape(-1) for x in xs]
        y = np.empty(flat[0].size, dtype)
        with np.errstate(all="ignore"):
            for i in range(0, y.size, _BLOCK):
                y[i : i + _BLOCK] = fn(*[x[i : i + _BLOCK].astype(float) for x in flat])
        return y.reshape(shape)

    kernel.nin = count  # type: ignore[attr-defined]  # as a NumPy ufunc says it
    return kernel


def _polynomial(t: Array, coefficients: Sequence[float]) -> Array:
    """Horner's rule, constant term first."""
    y = t * coefficients[-1]
    for c in coefficients[-2:0:-1]:
        y += c
        y *= t
    y += coefficients[0]
    return y


def _choose(y: Array, mask: Array, fn: Callable[..., Array], *xs: Array) -> None:
    """``y[mask] = fn(x[mask], …)``, where there is anything to do."""
    if mask.all():
        y[...] = fn(*xs)
    elif mask.any():
        y[mask] = fn(*[x[mask] for x in xs])


# --- the error function -----------------------------------------------------------------------------

_ERF = [(-1) ** n / (math.factorial(n) * (2 * n + 1)) / _HALF_SQRT_PI for n in range(19)]
# (1 + 2x) erfcx(x) as a polynomial of (x - 4) / (x + 4), fitted for this file in 60-digit arithmetic
_ERFCX = [
    1.2329951186255526, -0.1396211168405623, 0.015379652102619604, 0.06809705425466908,
    -0.10103906603630056, 0.0937328349990944, -0.06633036581218697, 0.03716751552655567,
    -0.016197734059799265, 0.005031970067657488, -0.0007577732613730968, -0.00019925714661091044,
    0.0001506214900124092, -2.439774642244038e-05, -1.1221287012364663e-05, 5.706604414902869e-06,
    2.919733378148673e-07, -8.210939042644085e-07, 7.746992724986845e-08, 1.0633855619206898e-07,
    -2.056064926164413e-08, -1.2346866046373305e-08, 3.169588185990688e-09, 9.311744982840203e-10,
    -2.6595996805919714e-10,
]  # fmt: skip
# artanh(erf(x)) / x as a polynomial of x², fitted so that erf has 2 ulp in float32
_ERF32 = [
    1.12837923, 0.102769859, -0.000195284374, -0.000614841876,
    8.45981995e-05, -4.7949593e-06, 2.76125505e-08, 5.42020784e-09,
]  # fmt: skip


def _erfcx_right(x: Array) -> Array:
    return _polynomial(1 - 8 / (x + 4), _ERFCX) / (1 + 2 * x)


def _bell(x: Array, scale: float = 1.0) -> Array:
    """exp(-scale x²), with the rounding error of x² made good."""
    high = np.round(x * 65536) / 65536  # its square is exact wherever exp does not underflow
    return np.exp(high * high * -scale) * np.exp((high - x) * (high + x) * scale)


def _erfc_right(x: Array) -> Array:
    x = np.minimum(x, 40)  # exp(-1600) is 0
    return _bell(x) * _erfcx_right(x)


def _upper(x: Array) -> Array:
    """The normal distribution's tail beyond x ≥ 0."""
    x = np.minimum(x, 50)
    return _bell(x, 0.5) * _erfcx_right(x * math.sqrt(0.5)) / 2


def _erf_middle(x: Array) -> Array:
    return x * _polynomial(x * x, _ERF)


@blockwise
def _erf64(x: Array) -> Array:
    y = np.abs(x)
    small = y < 1
    _choose(y, ~small, lambda a: 1 - _erfc_right(a), y)
    y = np.copysign(y, x)
    _choose(y, small, _erf_middle, x)
    return y


def _erf32(x: Array) -> Array:
    y = np.empty_like(x, order="C")
    flat, out = x.reshape(-1), y.reshape(-1)
    block = min(4 * _BLOCK, x.size)
    squares = np.empty(block, np.float32)
    with np.errstate(over="ignore"):
        for i in range(0, x.size, block or 1):
            a, p = flat[i : i + block], out[i : i + block]
            s = squares[: a.size]
            np.multiply(a, a, out=s)
            np.multiply(s, _ERF32[-1], out=p)
            for c in _ERF32[-2:0:-1]:
                np.add(p, c, out=p)
                np.multiply(p, s, out=p)
            np.add(p, _ERF32[0], out=p)
            np.multiply(p, a, out=p)
            np.tanh(p, out=p)
    return y


@kernel
def erf(x: Array) -> Array:
    """2/√π ∫₀ˣ exp(-t²) dt."""
    return _erf32(x) if x.dtype == np.float32 else _erf64(x)


@kernel
@blockwise
def erfc(x: Array) -> Array:
    """1 - erf(x), without cancellation for large x."""
    y = np.abs(x)
    small = y < 0.5
    _choose(y, ~small, _erfc_right, y)
    y = np.where(x < 0, 2 - y, y)
    _choose(y, small, lambda a: 1 - _erf_middle(a), x)
    return y


@kernel
@blockwise
def erfcx(x: Array) -> Array:
    """exp(x²) erfc(x)."""
    y = _erfcx_right(np.abs(x))
    _choose(y, x < 0, lambda a, b: 2 / _bell(np.maximum(a, -30)) - b, x, y)
    return y


def _erfc_inverse(q: Array) -> Array:
    """The x ≥ 0 with erfc(x) = q, for 0 ≤ q ≤ 1: Newton's method on the logarithm."""
    log = np.log(q * (2 - q))
    b = 2 / (math.pi * 0.147) + log / 2
    x = np.sqrt(np.maximum(np.sqrt(b * b - log / 0.147) - b, 0))  # Winitzki: two digits
    log_q = np.log(q)
    for _ in range(4):
        tail = _erfcx_right(x)
        x = x + (np.log(tail) - x * x - log_q) * tail * _HALF_SQRT_PI
    return np.where(q == 0, math.inf, x)


def _erf_inverse_middle(y: Array) -> Array:
    """The x with erf(x) = y, for |y| < 0.6: Halley's method."""
    x = _HALF_SQRT_PI * y * (1 + math.pi / 12 * y * y)
    for _ in range(3):
        step = (_erf_middle(x) - y) * _HALF_SQRT_PI * np.exp(x * x)
        x = x - step / (1 + x * step)
    return x


@kernel
@blockwise
def erfinv(y: Array) -> Array:
    """The x with erf(x) = y; ±inf at ±1, nan beyond."""
    a = np.abs(y)
    x = np.full_like(y, math.nan)
    _choose(x, a < 0.6, _erf_inverse_middle, y)
    _choose(x, (a >= 0.6) & (a <= 1), lambda v, w: np.copysign(_erfc_inverse(1 - v), w), a, y)
    return x


# --- the normal distribution ------------------------------------------------------------------------


@kernel
@blockwise
def ndtr(x: Array) -> Array:
    """The standard normal distribution function."""
    y = np.abs(x)
    small = y < 0.7
    _choose(y, ~small, _upper, y)
    y = np.where(x > 0, 1 - y, y)
    _choose(y, small, lambda a: 0.5 + _erf_middle(a * math.sqrt(0.5)) / 2, x)
    return y


@kernel
@blockwise
def ndtri(p: Array) -> Array:
    """The x with ndtr(x) = p; ±inf at 1 and 0, nan beyond."""
    x = np.full_like(p, math.nan)
    lower = np.minimum(p, 1 - p) * 2
    middle = np.abs(p - 0.5) < 0.3
    _choose(x, middle, lambda v: math.sqrt(2) * _erf_inverse_middle(2 * v - 1), p)
    _choose(
        x,
        ~middle & (lower >= 0),
        lambda q, v: math.sqrt(2) * np.copysign(_erfc_inverse(q), v - 0.5),
        lower,
        p,
    )
    return x


@kernel
@blockwise
def log_ndtr(x: Array) -> Array:
    """log(ndtr(x)), also where ndtr underflows."""
    half = math.sqrt(0.5)
    y = np.full_like(x, math.nan)
    _choose(y, x < -0.7, lambda a: np.log(_erfcx_right(a * -half) / 2) - a * a / 2, x)
    _choose(y, x >= 0.7, lambda a: np.log1p(-_upper(a)), x)
    _choose(y, np.abs(x) <= 0.7, lambda a: np.log(0.5 + _erf_middle(a * half) / 2), x)
    return y


# --- gamma and its family ---------------------------------------------------------------------------

_BERNOULLI = [1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798]
_BERNOULLI += [-174611 / 330, 854513 / 138, -236364091 / 2730]  # B₂, B₄, …


def _zeta(s: Array, q: Array) -> Array:
    """Hurwitz's zeta for q > 0: ten terms of the sum, and Euler and Maclaurin for the rest."""
    total = np.zeros_like(q)
    for _ in range(10):
        total += q**-s
        q = q + 1
    power = q**-s
    total += power * (0.5 + q / (s - 1))
    term, inverse = power * s / q, 1 / (q * q)
    for j, b in enumerate(_BERNOULLI):
        total += term * (b / math.factorial(2 * j + 2))
        term = term * (s + 2 * j + 1) * (s + 2 * j + 2) * inverse
    return np.where(q == math.inf, 0.0, total)


def _nearest_terms(s: Array, q: Array) -> Array:
    """Hurwitz's zeta for q < 0 and large s: the two terms next to 0 are all that counts."""
    r = q - np.floor(q)
    return r**-s + (r - 1) ** -s


@kernel
@blockwise
def zeta(s: Array, q: Array) -> Array:
    """Hurwitz's zeta, Σ (q + k)^-s over k ≥ 0; s > 1."""
    y = np.full_like(q, math.nan)
    _choose(y, s == 1, np.full_like, s, np.full_like(s, math.inf))
    _choose(y, (s > 1) & (q > 0), _zeta, s, q)
    left = (s > 1) & (q <= 0) & (s == np.floor(s)) & np.isfinite(s) & np.isfinite(q)
    for n in np.unique(s[left & (s <= 100)]):
        here = left & (s == n)
        y[here] = _polygamma(int(n) - 1, q[here]) * ((1 - 2 * (n % 2)) / math.gamma(n))
    _choose(y, left & (s > 100), _nearest_terms, s, q)
    y[(s > 1) & (q <= 0) & (q == np.floor(q)) & (q > -math.inf)] = math.inf
    return y


# log Γ(2 + z) = (1 - γ) z + Σ (-1)ᵏ (ζ(k) - 1) zᵏ / k
_LGAMMA = [0.0, 1 - 0.5772156649015329] + [
    (-1) ** k * float(_zeta(np.array([float(k)]), np.array([2.0]))[0]) / k for k in range(2, 30)
]


def _lgamma_right(x: Array) -> Array:
    """log Γ(x) for x > 0: Stirling's series from 8 on, else brought to [1.5, 2.5]."""
    y = np.empty_like(x)
    large = x >= 8
    _choose(y, large, _stirling, x)
    _choose(y, ~large, _lgamma_small, x)
    return y


def _stirling(x: Array) -> Array:
    inverse = 1 / x
    series = [b / ((2 * j + 2) * (2 * j + 1)) for j, b in enumerate(_BERNOULLI[:9])]
    correction = inverse * _polynomial(inverse * inverse, series) + math.log(2 * math.pi) / 2
    return np.where(x == math.inf, x, (x - 0.5) * (np.log(x) - 1) + (correction - 0.5))


def _lgamma_small(x: Array) -> Array:
    up, down = np.ones_like(x), np.ones_like(x)
    up = np.where(x < 0.5, x * (x + 1), np.where(x < 1.5, x, 1.0))
    x = np.where(x < 0.5, x + 2, np.where(x < 1.5, x + 1, x))
    for _ in range(6):
        high = x >= 2.5
        x = np.where(high, x - 1, x)
        down = np.where(high, down * x, down)
    return _polynomial(x - 2, _LGAMMA) + np.log(down) - np.log(up)


def _sin_pi(x: Array) -> Array:
    """sin(πx), from the part of x that matters."""
    r = x - 2 * np.round(x / 2)
    r = np.where(np.abs(r) > 0.5, np.copysign(1.0, r) - r, r)
    return np.sin(math.pi * r)


def _cot_pi(x: Array) -> Array:
    return 1 / np.tan(math.pi * (x - np.round(x)))


@kernel
@blockwise
def lgamma(x: Array) -> Array:
    """log |Γ(x)|; inf at 0, -1, -2, …"""
    y = np.full_like(x, math.nan)
    _choose(y, x > 0, _lgamma_right, x)
    _choose(
        y,
        x <= 0,
        lambda v: math.log(math.pi) - np.log(np.abs(_sin_pi(v))) - _lgamma_right(1 - v),
        x,
    )
    y[(np.floor(x) == x) & (x <= 0) | np.isinf(x)] = math.inf
    return y


def _digamma_right(x: Array) -> Array:
    y = np.zeros_like(x)
    for _ in range(10):
        small = x < 10
        y -= small / x
        x = x + small
    inverse = 1 / (x * x)
    series = [b / (2 * j + 2) for j, b in enumerate(_BERNOULLI[:8])]
    return y + np.log(x) - 0.5 / x - inverse * _polynomial(inverse, series)


@kernel
@blockwise
def digamma(x: Array) -> Array:
    """The derivative of lgamma; ∓inf at ±0, nan at -1, -2, …"""
    y = np.full_like(x, math.nan)
    _choose(y, x > 0, _digamma_right, x)
    _choose(
        y,
        (x < 0) & (x != np.floor(x)),
        lambda v: _digamma_right(1 - v) - math.pi * _cot_pi(v),
        x,
    )
    y[x == 0] = np.copysign(math.inf, -x[x == 0])
    return y


@functools.cache
def _cot_derivative(n: int) -> list[float]:
    """The n-th derivative of cot as a polynomial of cot: each is -(1 + c²) times the last one's."""
    p = [0.0, 1.0]
    for _ in range(n):
        d = [k * c for k, c in enumerate(p)][1:]
        p = [-a - b for a, b in zip([*d, 0.0, 0.0], [0.0, 0.0, *d], strict=True)]
    return p


def _polygamma(n: int, x: Array) -> Array:
    y = np.full_like(x, math.nan)
    sign = 1 if n % 2 else -1
    scale = sign * math.gamma(n + 1) if n < 170 else sign * math.inf

    def right(v: Array) -> Array:
        return scale * _zeta(np.full_like(v, n + 1.0), v)

    def left(v: Array) -> Array:
        cot = _polynomial(_cot_pi(v), _cot_derivative(n)) * math.pi ** (n + 1)
        return -sign * right(1 - v) - cot

    _choose(y, x > 0, right, x)
    _choose(y, x <= 0, left, x)
    y[(x <= 0) & (x == np.floor(x)) & (x > -math.inf)] = sign * math.inf
    return y


@kernel
def polygamma(n: int, x: Array) -> Array:
    """The n-th derivative of digamma."""
    return digamma(x) if n == 0 else blockwise(lambda v: _polygamma(n, v))(x)


@kernel
@blockwise
def igamma(a: Array, x: Array) -> Array:
    """The regularised lower incomplete gamma function P(a, x)."""
    return _incomplete(a, x, lower=True)


@kernel
@blockwise
def igammac(a: Array, x: Array) -> Array:
    """The regularised upper incomplete gamma function, 1 - P(a, x)."""
    return _incomplete(a, x, lower=False)


def _incomplete(a: Array, x: Array, lower: bool) -> Array:
    y = np.full_like(x, math.nan)
    regular = (a > 0) & (x > 0) & np.isfinite(a) & np.isfinite(x)
    series = regular & ((x <= 1) | (x <= a))
    _choose(y, series, lambda a, x: _series(a, x) if lower else 1 - _series(a, x), a, x)
    _choose(
        y,
        regular & ~series,
        lambda a, x: 1 - _fraction(a, x) if lower else _fraction(a, x),
        a,
        x,
    )
    one, zero = (1.0, 0.0) if lower else (0.0, 1.0)
    y[(x == 0) & (a > 0) | (x >= 0) & np.isfinite(x) & (a == math.inf)] = zero
    y[(x > 0) & (a == 0) | (x == math.inf) & (a >= 0) & np.isfinite(a)] = one
    return y


def _front(a: Array, x: Array) -> Array:
    """xᵃ exp(-x) / Γ(a)."""
    return np.exp(a * np.log(x) - x - _lgamma_right(a))


def _series(a: Array, x: Array) -> Array:
    term = 1 / a
    total, k = term.copy(), a.copy()
    for _ in range(5000):
        k += 1
        term = term * (x / k)
        total += term
        if not np.any(term > total * 1e-17):
            break
    return total * _front(a, x)


def _fraction(a: Array, x: Array) -> Array:
    """Q(a, x) by its continued fraction (Lentz's method)."""
    b = x + 1 - a
    c = np.full_like(x, 1e300)
    d = 1 / b
    h = d.copy()
    for i in range(1, 5000):
        an = -i * (i - a)
        b = b + 2
        d = an * d + b
        d = 1 / np.where(d == 0, 1e-300, d)
        c = b + an / c
        c = np.where(c == 0, 1e-300, c)
        delta = c * d
        h = h * delta
        if not np.any(np.abs(delta - 1) > 4e-16):
            break
    return h * _front(a, x)


# --- modified Bessel functions ----------------------------------------------------------------------


def _bessel(order: int, x: Array) -> Array:
    """exp(-|x|) I(x): its power series up to 20, its asymptotic series beyond."""
    a = np.abs(x)
    y = np.empty_like(x)
    small = ~(a > 20)
    _choose(y, small, functools.partial(_bessel_series, order), a)
    _choose(y, ~small, functools.partial(_bessel_asymptotic, order), a)
    return y if order == 0 else np.copysign(y, x)


def _bessel_series(order: int, x: Array) -> Array:
    quarter = x * x / 4
    term = np.ones_like(x) if order == 0 else x / 2
    total = term.copy()
    for k in range(1, 50):
        term = term * (quarter / (k * (k + order)))
        total += term
    return total * np.exp(-x)


def _bessel_asymptotic(order: int, x: Array) -> Array:
    term = np.ones_like(x)
    total = term.copy()
    for k in range(1, 25):
        term = term * (((2 * k - 1) ** 2 - 4 * order * order) / (8 * k) / x)
        total += term
    return total / np.sqrt(2 * math.pi * x)


@kernel
@blockwise
def i0e(x: Array) -> Array:
    """exp(-|x|) I₀(x)."""
    return _bessel(0, x)


@kernel
@blockwise
def i1e(x: Array) -> Array:
    """exp(-|x|) I₁(x)."""
    return _bessel(1, x)


@kernel
@blockwise
def i0(x: Array) -> Array:
    """The modified Bessel function of the first kind, order 0."""
    return _bessel(0, x) * np.exp(np.abs(x))


@kernel
@blockwise
def i1(x: Array) -> Array:
    """The modified Bessel function of the first kind, order 1."""
    return _bessel(1, x) * np.exp(np.abs(x))
