"""Mathematical functions for compiled loops: polynomials instead of calls.

A loop that calls ``expf`` runs one element at a time. Written as arithmetic without branches, the
same function is compiled into the loop, and LLVM does 8 or 16 elements at once. So each function
here is a few lines of plain arithmetic: an identity that brings the argument into a small interval,
a polynomial there, and the identity backwards. ``tests/test_vecmath.py`` holds the errors, all of
them at most 4 units in the last place, with ±inf, nan, ±0 and denormals as in C. In float64, what
training seldom needs is a call of the C library (`LIBM`, atan2, power).

How to read and to write them:

- ``a if c else b`` is a select: both sides are computed, so neither may be slow or fail. Give them
  names first: what stands inside may become a branch, and a loop with branches no vectors.
- A number beside a float32 must be written ``f32(0.5)`` (or ``T(0.5)``): Numba makes float32 times a
  Python float a float64, which halves the speed. Integers likewise become 64 bits wide unless ``i32``
  brings them back.
- A name ending in ``_f32`` or ``_f64`` is for that type; without an ending, it is written in ``T``
  for both. Compiled code says ``exp``, and gets the one for its type.
- Products and sums may be fused (``contract``). Nothing may be reordered: the reductions live off it.
- ``x != x`` asks for nan. A comparison with nan is false, and the selects are written to that.
"""

from __future__ import annotations

import math
import types
from typing import Any

import numpy as np

INF = float("inf")
NAN = float("nan")

# What compiled code means by these names: see `functions`.
T: Any = None
f32: Any = None
f64: Any = None
i32: Any = None
f32_of_bits: Any = None
bits_of_f32: Any = None
f64_of_bits: Any = None
bits_of_f64: Any = None
horner: Any = None  # horner(x, COEFFICIENTS): c0 + c1 x + c2 x² + …
fabs: Any = None
sqrt: Any = None
floor: Any = None
ceil: Any = None
trunc: Any = None
rint: Any = None
copysign: Any = None
fma: Any = None  # fma(x, y, z): x y + z, rounded once
exp: Any = None
expm1: Any = None

# --- coefficients ---------------------------------------------------------------------------------
# Fitted for the least largest relative error of the whole function (given as a power of two), each
# coefficient rounded to its type before the next ones are fitted.

# exp(r) on |r| ≤ ln(2)/2; 2^-26 of expm1(r)
EXP = (1.0, 1.0, 0.49999997, 0.16666546, 0.04166743, 0.00836628, 0.0013871056)
EXP_TWICE = tuple([2 * c for c in EXP])
# 2^r on |r| ≤ 1/2; 2^-28
EXP2 = (1.0, 0.6931472, 0.24022648, 0.055503596, 0.009618499, 0.0013390979, 0.00015329111)
# (log(1+f) - f + f²/2) / f³ on √½ - 1 ≤ f ≤ √2 - 1; 2^-30
LOG = (
    0.33333313, -0.2500001, 0.20002073, -0.16667993, 0.14220318, -0.12406069, 0.11883714,
    -0.11671449, 0.06750681,
)  # fmt: skip
# (sin(r) - r) / r³ in r², |r| ≤ π/4; 2^-28
SIN = (-0.16666655, 0.008332188, -0.00019518097)
# cos(r) in r², |r| ≤ π/4; 2^-33
COS = (1.0, -0.5, 0.041666646, -0.0013887301, 2.443067e-05)
# (tan(r) - r) / r³ in r², |r| ≤ π/4; 2^-26
TAN = (0.33333156, 0.13338836, 0.053408194, 0.024441432, 0.00310136, 0.009396667)
# (sinh(x) - x) / x³ in x², |x| ≤ 1; 2^-32
SINH = (0.16666667, 0.0083333105, 0.00019842894, 2.782231e-06)
# (asin(s) - s) / s³ in s², |s| ≤ 1/2; 2^-28
ASIN = (0.16666752, 0.074953094, 0.045469146, 0.024184644, 0.042158965)
# (atan(z) - z) / z³ in z², |z| ≤ 1; 2^-26
ATAN = (
    -0.33333153, 0.19993769, -0.14211023, 0.10665879, -0.075519495, 0.043208797, -0.016366085,
    0.0029202404,
)  # fmt: skip
# erf(x) / x - 1 in x², |x| ≤ 1; 2^-29
ERF = (
    0.12837917, -0.37612626, 0.11283579, -0.02685335, 0.005187184, -0.0007998235, 7.8089426e-05,
)  # fmt: skip
# -log(1 - erf(x)) on 1 ≤ x ≤ 4; 2^-30 of erf(x)
ERF_TAIL = (
    0.00034113636, 1.1270907, 0.6381424, 0.103108846, -0.021839082, 0.0029479244, -0.0001864084,
)  # fmt: skip
# (1 + 2x) exp(x²) erfc(x) in (x - 3) / (x + 3), 0 ≤ x ≤ 10.1, float64; 2^-29
ERFC = (
    1.2530080591231394, -0.13562113931549766, -0.04756239955683836, 0.12964641497691182,
    -0.11927097287906725, 0.0682957655805358, -0.023797545406963397, 0.0025673711620937414,
    0.0020018392907963467, -0.0007775537025575473, -0.00026812014524412017,
)  # fmt: skip
# exp(r) on |r| ≤ ln(2)/2, float64; 2^-53 of expm1(r)
EXP_64 = (
    1.0, 1.0, 0.5, 0.16666666666666677, 0.041666666666666685, 0.00833333333332179,
    0.0013888888888893502, 0.00019841269885375833, 2.4801587279730104e-05, 2.755724509614917e-06,
    2.755732859617691e-07, 2.510871437630683e-08, 2.079461214812994e-09,
)  # fmt: skip
# (log((1+s)/(1-s)) - 2s) / s³ in s², |s| ≤ (√2 - 1)/(√2 + 1), float64; 2^-59
LOG_64 = (
    0.6666666666666734, 0.3999999999941666, 0.2857142874202866, 0.2222219860440179,
    0.1818356291589903, 0.1531408261593886, 0.147956584887788,
)  # fmt: skip

# Constants in two parts: the first has so few bits that its product with an exponent is exact.
LN2, LN2_REST = 0.693145751953125, 1.4286068e-06
LN2_64, LN2_64_REST = 0.6931471805592082, 7.371002565167799e-13
LOG10_2, LOG10_2_REST = 0.301025390625, 4.605039e-06
PI, PI_REST = 3.1415927, -8.742278e-08
LOG2_E = 1.4426950408889634
LOG10_E = 0.4342944819032518

# 2/π · 2^256: the quarter turns in one radian, to 256 bits
QUARTERS = 0xA2F9836E4E441529FC2757D1F534DDC0DB6295993C439041FE5163ABDEBBC561

# --- exponentials ---------------------------------------------------------------------------------


def pow2_f32(n):
    """2^n for a whole n in [-126, 127]: n lands in the lowest bits of a large sum, and from there
    goes to where the exponent stands.
    """
    return f32_of_bits(i32(bits_of_f32(n + f32(12582912.0 + 127.0)) << 23))


def pow2_f64(n):
    """2^n for a whole n in [-1022, 1023]."""
    return f64_of_bits(bits_of_f64(n + f64(6755399441055744.0 + 1023.0)) << 52)


def scale_f32(p, n):
    """p 2^n, in two steps: 2^n may be too small or too large where the result is not."""
    half = rint(n * f32(0.5))
    return p * pow2_f32(half) * pow2_f32(n - half)


def scale_f64(p, n):
    """p 2^n, in two steps."""
    half = rint(n * 0.5)
    return p * pow2_f64(half) * pow2_f64(n - half)


def clamp(x, low, high):
    """x between two bounds; nan stays nan."""
    x = low if x < low else x
    return high if x > high else x


def exp_f32(x):
    """e^x = 2^(n-1) 2e^r, where x = n ln 2 + r.

    The whole number n is what is left of x / ln 2 in the last bits of a large sum, from where it goes to
    the place of the exponent. Results too small for an exponent of their own are made 2^64 times as large
    first.
    """
    x = clamp(x, f32(-105.0), f32(89.0))
    t = x * f32(LOG2_E) + f32(12582912.0 + 126.0)
    n = t - f32(12582912.0 + 126.0)
    r = (x - n * f32(LN2)) - n * f32(LN2_REST)
    low = x < f32(-86.0)
    y = horner(r, EXP_TWICE) * f32_of_bits(i32(bits_of_f32(t + f32(64.0) if low else t) << 23))
    return y * f32(2.0**-64) if low else y


def half_exp_f32(x):
    """e^x / 2, for x ≥ 0: finite where sinh and cosh are."""
    x = clamp(x, f32(0.0), f32(89.5))
    t = x * f32(LOG2_E) + f32(12582912.0 + 125.0)
    n = t - f32(12582912.0 + 125.0)
    r = (x - n * f32(LN2)) - n * f32(LN2_REST)
    return horner(r, EXP_TWICE) * f32_of_bits(i32(bits_of_f32(t) << 23))


def exp_f64(x):
    """e^x = 2^n e^r, where x = n ln 2 + r."""
    x = clamp(x, -746.0, 710.0)
    n = rint(x * LOG2_E)
    r = (x - n * LN2_64) - n * LN2_64_REST
    return scale_f64(horner(r, EXP_64), n)


def exp2_f32(x):
    """2^x = 2^n 2^r, where n is the whole number next to x."""
    x = clamp(x, f32(-151.0), f32(129.0))
    n = rint(x)
    return scale_f32(horner(x - n, EXP2), n)


def exp2_f64(x):
    """2^x = 2^n e^(r ln 2), where x = n + r."""
    x = clamp(x, -1076.0, 1025.0)
    n = rint(x)
    return scale_f64(horner((x - n) * 0.6931471805599453, EXP_64), n)


def expm1_f32(x):
    """e^x - 1 = 2^n (e^r - 1) + (2^n - 1); computed as half of it, for 2^n must not overflow."""
    c = clamp(x, f32(-20.0), f32(90.0))
    n = rint(c * f32(LOG2_E))
    r = (c - n * f32(LN2)) - n * f32(LN2_REST)
    p = r + r * r * horner(r, EXP[2:])
    h = pow2_f32(n - f32(1.0))
    y = f32(2.0) * (h * p + (h - f32(0.5)))
    y = f32(INF) if x > f32(88.8) else y
    return x if fabs(x) < f32(1e-8) else y


def expm1_f64(x):
    """e^x - 1, in the same way."""
    c = clamp(x, -40.0, 710.0)
    n = rint(c * LOG2_E)
    r = (c - n * LN2_64) - n * LN2_64_REST
    p = r + r * r * horner(r, EXP_64[2:])
    h = pow2_f64(n - 1.0)
    y = 2.0 * (h * p + (h - 0.5))
    y = INF if x > 709.8 else y
    return x if fabs(x) < 1e-17 else y


def sigmoid(x):
    """1 / (1 + e^-x), from e^-|x|, which does not overflow."""
    e = exp(-fabs(x))
    return (T(1) if x >= T(0) else e) / (T(1) + e)


def tanh(x):
    """(e^2x - 1) / (e^2x + 1)."""
    a = fabs(x)
    t = expm1(T(2) * (T(20) if a > T(20) else a))
    return copysign(t / (t + T(2)), x)


def sinh_f32(x):
    """(e^x - e^-x) / 2; for small x, where that cancels, a polynomial."""
    a = fabs(x)
    h = half_exp_f32(a)
    large = copysign_f32(h - f32(0.25) / h, x)
    s = x * x
    small = x + x * s * horner(s, SINH)
    return small if a < f32(1.0) else large


def cosh_f32(x):
    """(e^x + e^-x) / 2, from e^|x| / 2, which is finite where the result is."""
    h = half_exp_f32(fabs(x))
    return h + f32(0.25) / h


# --- logarithms -----------------------------------------------------------------------------------


def split_f32(x):
    """Exponent e and f with x = 2^e (1 + f), √½ ≤ 1 + f ≤ √2."""
    tiny = x < f32(2.0**-126)  # denormal: no exponent of its own
    x = x * f32(2.0**23) if tiny else x
    b = bits_of_f32(x)
    e = f32(i32(i32(b >> 23) - 127)) - (f32(23.0) if tiny else f32(0.0))
    m = f32_of_bits(i32((b & 0x7FFFFF) | 0x3F800000))
    above = m > f32(1.4142135)
    return (e + f32(1.0) if above else e), (m * f32(0.5) if above else m) - f32(1.0)


def split_f64(x):
    """Exponent e and f with x = 2^e (1 + f), √½ ≤ 1 + f ≤ √2."""
    tiny = x < 2.0**-1022
    x = x * 2.0**52 if tiny else x
    b = bits_of_f64(x)
    # an integer to float64 as the last bits of 2^52 + …: AVX2 has no instruction for it
    e = f64_of_bits((b >> 52) & 0x7FF | 0x4330000000000000) - (4503599627370496.0 + 1023.0)
    e = e - 52.0 if tiny else e
    m = f64_of_bits((b & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000)
    above = m > 1.4142135623730951
    return (e + 1.0 if above else e), (m * 0.5 if above else m) - 1.0


def ends_f32(x, y):
    """y, but log's values where x is 0, negative, inf or nan."""
    y = y if x < f32(INF) else x
    return y if x > f32(0.0) else (f32(-INF) if x == f32(0.0) else f32(NAN))


def ends_f64(x, y):
    """y, but log's values where x is 0, negative, inf or nan."""
    y = y if x < INF else x
    return y if x > 0.0 else (-INF if x == 0.0 else NAN)


def log_f32(x):
    """log(2^e (1 + f)) = e ln 2 + (f - f²/2 + f³ P(f))."""
    e, f = split_f32(x)
    s = f * f
    y = s * f * horner(f, LOG) + e * f32(LN2_REST)
    y = (y - f32(0.5) * s) + f
    return ends_f32(x, y + e * f32(LN2))


def log_f64(x):
    """log(2^e (1 + f)) = e ln 2 + log((1 + s) / (1 - s)), where s = f / (2 + f).

    2s = f - s f, and s f = f²/2 - s f²/2: so f, which is exact, stands alone.
    """
    e, f = split_f64(x)
    s = f / (2.0 + f)
    z = s * s
    h = 0.5 * f * f
    y = f - (h - (s * (h + z * horner(z, LOG_64)) + e * LN2_64_REST))
    return ends_f64(x, y + e * LN2_64)


def log2_f32(x):
    """e + log(1 + f) / ln 2."""
    e, f = split_f32(x)
    s = f * f
    y = (s * f * horner(f, LOG) - f32(0.5) * s) + f
    return ends_f32(x, y * f32(LOG2_E) + e)


def log10_f32(x):
    """e log10(2) + log(1 + f) / ln 10."""
    e, f = split_f32(x)
    s = f * f
    y = (s * f * horner(f, LOG) - f32(0.5) * s) + f
    return ends_f32(x, (y * f32(LOG10_E) + e * f32(LOG10_2_REST)) + e * f32(LOG10_2))


def log1p_f32(x):
    """log(u) for u = 1 + x as rounded, with what the rounding lost added to f."""
    u = f32(1.0) + x
    lost = x - (u - f32(1.0))
    e, f = split_f32(u)
    f = f + lost * pow2_f32(clamp(-e, f32(-126.0), f32(126.0)))
    s = f * f
    y = s * f * horner(f, LOG) + e * f32(LN2_REST)
    y = (y - f32(0.5) * s) + f
    y = ends_f32(u, y + e * f32(LN2))
    return x if fabs(x) < f32(1e-8) else y


def power_f32(x, y):
    """x^y = ±exp(y log|x|), in float64, which has bits enough for the product."""
    w = clamp(f64(y), -1e300, 1e300)  # finite: 1^inf is 1
    r = exp_f64(w * log_f64(f64(fabs(x))))
    whole = rint(y) == y
    odd = whole & (f32(2.0) * rint(y * f32(0.5)) != y)
    r = copysign_f64(r, f64(x)) if odd else r
    r = r if (x >= f32(0.0)) | (x == f32(-INF)) | whole | (x != x) else NAN
    return f32(1.0 if (y == f32(0.0)) | (x == f32(1.0)) else r)


def power_f64(x, y):
    """x^y, by the C library."""
    return math.pow(x, y)


# --- circular functions ---------------------------------------------------------------------------


BOUNDS = (2.0**25, 2.0**51, 2.0**77, 2.0**103)


def _quarters_by_size():
    """2/π in three parts of 28, 28 and 53 bits, each for the five ranges that BOUNDS divides |x| in.

    From 2^n on, float32 are multiples of 2^(n-23): what 2/π holds in multiples of 4 / 2^(n-23) turns
    x by whole turns, and is left out. The product with x is then small enough to be exact: the first
    two parts give it in 24 + 28 bits, and the third is below 1.
    """
    parts = []
    for low in (None, 25, 51, 77, 103):
        shift = 0 if low is None else low - 23
        turn = 1 << 258  # 4, in units of 2^-256
        rest = (QUARTERS << shift) % turn
        rest -= turn if rest > turn // 2 else 0
        row = []
        for bits in (28, 28, 53):
            unit = 1 << max(abs(rest).bit_length() - bits, 0)
            part = abs(rest) // unit * unit * (1 if rest > 0 else -1)
            row.append(math.ldexp(float(part), -256 - shift))
            rest -= part
        parts.append(row)
    return tuple(zip(*parts, strict=True))


QUARTER_1, QUARTER_2, QUARTER_3 = _quarters_by_size()


def by_size(a, values):
    """The value for the range of BOUNDS that a is in."""
    found = values[3] if a < BOUNDS[3] else values[4]
    found = values[2] if a < BOUNDS[2] else found
    found = values[1] if a < BOUNDS[1] else found
    return values[0] if a < BOUNDS[0] else found


def turn(x):
    """x as a number of quarter turns (of which the last bits count), and the angle left over."""
    w = f64(x)
    a = fabs(w)
    p = w * by_size(a, QUARTER_1)
    q = w * by_size(a, QUARTER_2)
    r = w * by_size(a, QUARTER_3)
    k = rint(p)
    p = (p - k) + q
    j = rint(p + r)
    rest = f32(((p - j) + r) * 1.5707963267948966)
    # whole numbers are the last bits of a large sum
    count = bits_of_f64(k + 6755399441055744.0) + bits_of_f64(j + 6755399441055744.0)
    return i32(count), x if a < 0.5 else rest  # -0 stays -0


NEAR = 32768.0  # up to here three float32 are π/2 to enough bits
HALF_PI = (1.5707963705062866, -4.371138828673793e-08, -1.7151245100059167e-15)


def turn_near(x):
    """``turn`` for |x| < NEAR, at a fraction of the cost.

    The first difference is exact, and the others are rounded once: r is right to its last bit or two,
    also where x is all but a multiple of π/2.
    """
    t = x * f32(0.6366197723675814) + f32(12582912.0)
    k = t - f32(12582912.0)
    r = fma(k, f32(-HALF_PI[0]), x)
    r = fma(k, f32(-HALF_PI[1]), r)
    return i32(bits_of_f32(t)), fma(k, f32(-HALF_PI[2]), r)


def wave(k, r):
    """sin(r + k π/2): one of sin(r), cos(r), -sin(r), -cos(r)."""
    s = r * r
    c = horner(s, COS)
    y = r + r * s * horner(s, SIN)
    y = c if k & 1 else y
    return -y if k & 2 else y


def sin_f32(x):
    """Sine, of any float32: see `_quarters_by_size`."""
    k, r = turn(x)
    return x if fabs(x) < f32(1e-4) else wave(k, r)  # -0 stays -0


def cos_f32(x):
    """Cosine, of any float32: see `_quarters_by_size`."""
    k, r = turn(x)
    return wave(i32(k + 1), r)


def sin_near_f32(x):
    """Sine, where |x| < NEAR."""
    k, r = turn_near(x)
    return x if fabs(x) < f32(1e-4) else wave(k, r)  # -0 stays -0


def cos_near_f32(x):
    """Cosine, where |x| < NEAR."""
    k, r = turn_near(x)
    return wave(i32(k + 1), r)


def tan_f32(x):
    """Tangent: tan(r + π/2) = -1 / tan(r)."""
    k, r = turn(x)
    s = r * r
    t = r + r * s * horner(s, TAN)
    return f32(-1.0) / t if k & 1 else t


def asin_half(s, z):
    """asin(s) for 0 ≤ s ≤ 1/2, z = s²."""
    return s + s * z * horner(z, ASIN)


def asin_f32(x):
    """π/2 - 2 asin(√((1 - x) / 2)) for x > 1/2."""
    a = fabs(x)
    small = a < f32(0.5)
    z = a * a if small else f32(0.5) * (f32(1.0) - a)
    p = asin_half(a if small else sqrt(z), z)
    return copysign_f32(p if small else f32(PI / 2) - f32(2.0) * p, x)


def acos_f32(x):
    """π/2 - asin(x), and 2 asin(√((1 - x) / 2)) for x > 1/2."""
    a = fabs(x)
    small = a < f32(0.5)
    z = a * a if small else f32(0.5) * (f32(1.0) - a)
    p = asin_half(a if small else sqrt(z), z)
    near = f32(2.0) * p if x > f32(0.0) else f32(PI) - f32(2.0) * p
    return f32(PI / 2) - copysign_f32(p, x) if small else near


def atan_f32(x):
    """π/2 - atan(1/x) for x > 1."""
    a = fabs(x)
    z = f32(1.0) / a if a > f32(1.0) else a
    s = z * z
    p = z + z * s * horner(s, ATAN)
    return copysign_f32(f32(PI / 2) - p if a > f32(1.0) else p, x)


def atan2_f32(y, x):
    """The angle of the point (x, y): atan of the smaller over the larger, then the octant."""
    a = fabs(x)
    b = fabs(y)
    steep = b > a
    q = (a if steep else b) / (b if steep else a)
    q = (
        (f32(1.0) if a == f32(INF) else f32(0.0))
        if (a == b) & ((a == f32(INF)) | (a == f32(0.0)))
        else q
    )
    s = q * q
    p = q + q * s * horner(s, ATAN)
    p = f32(PI / 2) - p if steep else p
    p = (f32(PI) - p) + f32(PI_REST) if copysign_f32(f32(1.0), x) < f32(0.0) else p
    return f32(NAN) if (x != x) | (y != y) else copysign_f32(p, y)


def asinh_f32(x):
    """log(|x| + √(x² + 1)), in float64; for small x, x - x³/6."""
    a = f64(fabs(x))
    y = log_f64(a + sqrt(a * a + 1.0))
    small = a - a * a * a * 0.16666666666666666
    return copysign_f32(f32(small if a < 1e-3 else y), x)


def acosh_f32(x):
    """log(x + √((x - 1)(x + 1))), in float64."""
    a = f64(x)
    y = log_f64(a + sqrt((a - 1.0) * (a + 1.0)))
    return f32(y if a >= 1.0 else NAN)


def atanh_f32(x):
    """log((1 + x) / (1 - x)) / 2, in float64; for small x, x + x³/3."""
    a = f64(fabs(x))
    y = 0.5 * log_f64((1.0 + a) / (1.0 - a))
    small = a + a * a * a * 0.3333333333333333
    return copysign_f32(f32(small if a < 1e-3 else y), x)


# --- the error function ---------------------------------------------------------------------------


def erf_f32(x):
    """x + x P(x²), and 1 - e^-Q(x) from 1 on."""
    a = fabs(x)
    s = x * x
    q = horner(clamp(a, f32(1.0), f32(4.0)), ERF_TAIL)
    tail = copysign_f32(f32(1.0) - exp_f32(-q), x)
    near = x + x * horner(s, ERF)
    y = near if a < f32(1.0) else tail
    return x if x != x else y


def erfc_f32(x):
    """exp(-x²) P((x - 3) / (x + 3)) / (1 + 2x), in float64; 2 - that for negative x."""
    a = clamp(f64(fabs(x)), 0.0, 10.2)
    y = exp_f64(-a * a) * horner((a - 3.0) / (a + 3.0), ERFC) / (1.0 + 2.0 * a)
    return f32(y if x >= f32(0.0) else 2.0 - y)


# --- roots, rounding, choosing --------------------------------------------------------------------


def rsqrt(x):
    """1 / √x."""
    return T(1) / sqrt(x)


def sign(x):
    """-1, 0 or 1; nan of nan."""
    return T(1) if x > T(0) else (T(-1) if x < T(0) else (T(0) if x == T(0) else x))


def copysign_f32(x, y):
    """x with the sign of y."""
    return f32_of_bits(i32(bits_of_f32(fabs(x)) | (bits_of_f32(y) & 0x80000000)))


def copysign_f64(x, y):
    """x with the sign of y."""
    return f64_of_bits(bits_of_f64(fabs(x)) | (bits_of_f64(y) & -0x8000000000000000))


def absolute(x):
    """|x|."""
    return fabs(x)


def maximum(x, y):
    """The larger; nan where one is nan."""
    larger = x if x > y else y
    return x if x != x else larger


def minimum(x, y):
    """The smaller; nan where one is nan."""
    smaller = x if x < y else y
    return x if x != x else smaller


def fmax(x, y):
    """The larger; the other where one is nan."""
    larger = x if x > y else y
    return x if y != y else larger


def fmin(x, y):
    """The smaller; the other where one is nan."""
    smaller = x if x < y else y
    return x if y != y else smaller


# --- for compiled code ----------------------------------------------------------------------------

NAMES = """
exp exp2 expm1 log log2 log10 log1p sin cos tan tanh sinh cosh sigmoid erf erfc sqrt rsqrt
asin acos atan atan2 asinh acosh atanh power floor ceil trunc rint sign maximum minimum fmax fmin
absolute copysign
""".split()

# Functions for small arguments only, cheaper where it is known that all are (``compile/loops.py``)
CHEAPER = ("sin_near", "cos_near")

# float64 functions that call the C library, one element at a time
LIBM = """
log2 log10 log1p sin cos tan sinh cosh erf erfc asin acos atan asinh acosh atanh
""".split()


def functions(dtype: Any, n: Any) -> dict[str, Any]:
    """The functions for elements of ``dtype``, compiled by the Numba of ``n``, by name.

    ``n`` holds Numba and what it lacks: see ``native/build.py``.
    """
    width = np.dtype(dtype).itemsize * 8
    space = dict(globals())
    space.update(_primitives(n), T=n.numba.float32 if width == 32 else n.numba.float64)
    options = {"fastmath": {"contract"}, "error_model": "numpy", "no_cpython_wrapper": True}
    options |= {"_nrt": False, "forceinline": True}

    def compiled(fn: Any) -> Any:
        # the same code, with the names of compiled code in place of this file's
        return n.numba.njit(types.FunctionType(fn.__code__, space, fn.__name__), **options)

    for name, fn in globals().items():
        if isinstance(fn, types.FunctionType) and name[0] != "_" and name != "functions":
            space[name] = compiled(fn)
    if width == 64:
        for name in LIBM:
            space[name] = _libm(getattr(math, name), n, options)
        space["atan2"] = n.numba.njit(lambda y, x: math.atan2(y, x), **options)
    for name in (*NAMES, *CHEAPER):
        if f"{name}_f{width}" in space:
            space[name] = space[f"{name}_f{width}"]
    return {name: space[name] for name in (*NAMES, *CHEAPER) if name in space}


def _libm(fn: Any, n: Any, options: Any) -> Any:
    """A compiled call of the C library's function."""
    return n.numba.njit(lambda x: fn(x), **options)


def _primitives(n: Any) -> dict[str, Any]:
    """What the functions above are made of: bits, single instructions, and Horner's rule."""
    from numba.extending import intrinsic

    def instruction(name: str) -> Any:
        """An operation LLVM has for floats, vectors included: ``llvm.floor`` …"""

        @intrinsic
        def one(typing_context: Any, x: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                module = builder.module
                return builder.call(module.declare_intrinsic(f"llvm.{name}", [args[0].type]), args)

            return x(x), generate

        return one

    @intrinsic
    def horner(typing_context: Any, x: Any, coefficients: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x, table = args
            count = len(signature.args[1])
            one = signature.args[0]
            c = [
                context.cast(builder, builder.extract_value(table, i), n.types.float64, one)
                for i in range(count)
            ]
            result = c.pop()
            while c:
                result = builder.fmul(result, x, flags=["contract"])
                result = builder.fadd(result, c.pop(), flags=["contract"])
            return result

        return x(x, coefficients), generate

    @intrinsic
    def fma(typing_context: Any, x: Any, y: Any, z: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.fma(*args)

        return x(x, x, x), generate

    single = ("fabs", "sqrt", "floor", "ceil", "trunc", "rint")
    return {name: instruction(name) for name in single} | {
        "horner": horner, "fma": fma, "f32": n.numba.float32, "f64": n.numba.float64, "i32": n.numba.int32,
        "f32_of_bits": n.f32_of_bits, "bits_of_f32": n.bits_of_f32,
        "f64_of_bits": n.f64_of_bits, "bits_of_f64": n.bits_of_f64,
    }  # fmt: skip
