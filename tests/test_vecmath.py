"""The vectorised functions of compiled loops, against float64.

Units in the last place between the result and the float64 function rounded to the type, the largest
over the samples below:

TABLE
"""

import math

import numpy as np
import pytest

from kilograd.kernels import vecmath
from kilograd.kernels.native import build

pytestmark = pytest.mark.skipif(not build.available(), reason=build.why_not())

TWO = {"power", "atan2", "maximum", "minimum", "fmax", "fmin", "copysign"}


def run(name, *arrays):
    """The function over arrays, in a compiled loop."""
    x, z = arrays[0], arrays[-1]
    call = f"{name}(x[i], z[i])" if name in TWO else f"{name}(x[i])"
    text = (
        f"def each_{name}(a, part, parts):\n"
        "    x = T_at(a[0]); z = T_at(a[1]); y = T_at(a[2])\n"
        "    for i in range(a[3]):\n"
        f"        y[i] = {call}\n"
    )
    y = np.empty_like(x)
    table = np.array([x.ctypes.data, z.ctypes.data, y.ctypes.data, x.size], np.int64)
    address = build.Generated(f"each_{name}", text).address(x.dtype)
    build._c_function(address)(table.ctypes.data, 0, 1)
    return y


def each(fn):
    """A function of math over an array."""

    def over(x):
        return np.fromiter((fn(v) for v in x.tolist()), np.float64, x.size)

    return over


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


REFERENCE = {
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log2": np.log2,
    "log10": np.log10, "log1p": np.log1p, "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "tanh": np.tanh, "sinh": np.sinh, "cosh": np.cosh, "sigmoid": sigmoid, "erf": each(math.erf),
    "erfc": each(math.erfc), "sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x),
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "atan2": np.arctan2,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "power": np.power,
    "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "rint": np.rint, "sign": np.sign,
    "maximum": np.maximum, "minimum": np.minimum, "fmax": np.fmax, "fmin": np.fmin,
    "absolute": np.abs, "copysign": np.copysign,
}  # fmt: skip
EXACT = """
sqrt floor ceil trunc rint sign maximum minimum fmax fmin absolute copysign
""".split()


def ulps(got, expected):
    """How many numbers of the type lie between; one infinity is next to the largest number."""
    kind = np.int32 if got.dtype == np.float32 else np.int64
    a, b = got.view(kind), expected.view(kind)
    low = np.iinfo(kind).min
    a, b = (np.where(v < 0, low - v, v).astype(np.float64) for v in (a, b))
    return np.where(np.isnan(got) & np.isnan(expected), 0, np.abs(a - b))


def expected_of(name, *arrays):
    wide = [a.astype(np.float64) for a in arrays]
    with np.errstate(all="ignore"):
        return REFERENCE[name](*wide).astype(arrays[0].dtype)


SPECIAL = [
    0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, 1.5, -1.5, 2.5,
    -2.5, 1e-45, -1e-45, 1e-40, -1e-40, 1.17549435e-38, -1.17549435e-38, 3.4028235e38,
    -3.4028235e38, 1e30, -1e30, 88.72284, 88.72283, -87.33655, -103.97208, -103.97209, -103.2789,
    127.99999, 128.0, -149.0, -149.5, -150.0, 16777216.0, 33554432.0, 8388609.0, 4.0, 10.05, 10.06,
    1.5707964, 3.1415927, 6.2831855, 11.0, 22.0, 355.0, 1e5, 1e6, 16367173e15, 2147483648.0,
]  # fmt: skip


def sample32():
    """Every 4099th of all float32, and more of those that are met in practice."""
    bits = np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32)
    special = np.array(SPECIAL, np.float32)
    around = [np.nextafter(special, np.float32(s)) for s in (-np.inf, np.inf)]
    usual = [np.linspace(-s, s, 40001, dtype=np.float32) for s in (1.1, 12, 110, 3000)]
    quarters = (np.arange(1, 20001) * (np.pi / 2)).astype(np.float32)
    return np.concatenate([bits.view(np.float32), special, *around, *usual, quarters])


def pairs32():
    """Pairs of float32: of all sizes, of usual sizes, and all pairs of special values."""
    random = np.random.RandomState(0)
    some = sample32()
    x, y = random.choice(some, 200000), random.choice(some, 200000)
    near = np.exp(random.randn(2, 300000) * 2) * random.choice([-1, 1], (2, 300000))
    base = 1 + random.randn(100000) * 1e-3
    power = random.randn(100000) * 3e4
    whole = random.randint(-20, 20, 100000)
    sides = random.randn(100000) * 4
    s = np.array(SPECIAL, np.float32)
    first = [x, near[0], base, sides, np.repeat(s, s.size)]
    second = [y, near[1], power, whole, np.tile(s, s.size)]
    return tuple(np.concatenate([p.astype(np.float32) for p in part]) for part in (first, second))


def worst(name, *arrays):
    """The largest error, after what must be right exactly has been looked at."""
    got, expected = run(name, *arrays), expected_of(name, *arrays)
    for kind in (np.isnan, lambda v: np.signbit(v) & (v == 0), lambda v: (v == 0) & ~np.signbit(v)):
        # nan where nan is right and nowhere else; zeros have their sign
        wrong = (kind(expected) & ~kind(got) & ((expected == 0) <= (got == 0))) | (
            np.isnan(got) & ~np.isnan(expected)
        )
        where = np.flatnonzero(wrong)[:5]
        if name not in ("maximum", "minimum", "fmax", "fmin"):
            assert not where.size, [(a[where], got[where], expected[where]) for a in arrays]
    error = ulps(got, expected)
    at = int(error.argmax())
    return error[at], [a[at] for a in arrays], got[at], expected[at]


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_float32(name):
    arrays = pairs32() if name in TWO else (sample32(),)
    error, *where = worst(name, *arrays)
    print(name, error, where)
    assert error <= (0 if name in EXACT else 4), where
