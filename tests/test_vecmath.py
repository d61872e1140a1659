"""The vectorised functions of compiled loops, against float64.

Units in the last place between the result and NumPy's float64 function rounded to the type, the
largest over the samples below. In float32 (1.3 million numbers):

    0  sqrt asinh acosh atanh
    1  exp exp2 expm1 log log2 log1p sin cos sinh cosh erf erfc rsqrt acos power
    2  log10 tan tanh sigmoid asin atan atan2

In float64 (100 thousand numbers; NumPy's own errors are in it):

    0  sin cos erf erfc sqrt rsqrt
    1  exp exp2 log log2 log10 log1p tan cosh asin acos atan atan2 atanh power
    2  expm1 sinh sigmoid asinh acosh
    3  tanh

Roundings, sign, maximum, minimum, fmax, fmin, absolute and copysign are exact.
"""

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kilograd.compile import eager
from kilograd.kernels import vecmath
from kilograd.kernels.native import build

pytestmark = pytest.mark.skipif(not build.available(), reason=build.why_not())

TWO = {"power", "atan2", "maximum", "minimum", "fmax", "fmin", "copysign"}


def kernel(name):
    """The function over arrays, as a compiled loop."""
    call = f"{name}(x[i], z[i])" if name in TWO else f"{name}(x[i])"
    text = (
        f"def each_{name}(a, part, parts):\n"
        "    x = T_at(a[0]); z = T_at(a[1]); y = T_at(a[2])\n"
        "    for i in range(a[3]):\n"
        f"        y[i] = {call}\n"
    )
    return build.Generated(f"each_{name}", text)


def run(name, *arrays):
    x, z = arrays[0], arrays[-1]
    y = np.empty_like(x)
    table = np.array([x.ctypes.data, z.ctypes.data, y.ctypes.data, x.size], np.int64)
    build._c_function(kernel(name).address(x.dtype))(table.ctypes.data, 0, 1)
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
    low = np.iinfo(kind).min
    a, b = (
        np.where(v < 0, low - v, v).astype(np.int64) for v in (got.view(kind), expected.view(kind))
    )
    far = np.abs(a.astype(np.float64) - b)
    near = np.abs(np.where(far < 1e6, a - b, 0))
    error = np.where(far < 1e6, near, far)
    return np.where(np.isnan(got) & np.isnan(expected), 0, error)


def expected_of(name, *arrays):
    with np.errstate(all="ignore"):
        wide = [a.astype(np.float64) for a in arrays]
        return REFERENCE[name](*wide).astype(arrays[0].dtype)


SPECIAL = [
    0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, 1.5, -1.5, 2.5,
    -2.5, 1e-45, -1e-45, 1e-40, -1e-40, 1.17549435e-38, -1.17549435e-38, 3.4028235e38,
    -3.4028235e38, 1e30, -1e30, 88.72284, 88.72283, -87.33655, -103.97208, -103.97209, -103.2789,
    127.99999, 128.0, -149.0, -149.5, -150.0, 16777216.0, 33554432.0, 8388609.0, 4.0, 10.05, 10.06,
    1.5707964, 3.1415927, 6.2831855, 11.0, 22.0, 355.0, 1e5, 1e6, 16367173e15, 2147483648.0,
]  # fmt: skip


def sample(dtype):
    """Numbers of every size, special ones and those next to them, and those met in practice.

    In float32, every 4099th there is.
    """
    if dtype == np.float32:
        count, bits = 40001, np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32)
    else:
        random = np.random.RandomState(0)
        count, bits = 8001, random.randint(0, 2**64, 50000, dtype=np.uint64)
    special = np.array(SPECIAL, dtype)
    with np.errstate(all="ignore"):
        around = [np.nextafter(special, dtype(s)) for s in (-np.inf, np.inf)]
        quarters = (np.arange(1, count // 2) * (np.pi / 2)).astype(dtype)
        usual = [np.linspace(-s, s, count, dtype=dtype) for s in (1.1, 12, 110, 3000)]
        return np.concatenate([bits.view(dtype), special, *around, *usual, quarters])


def pairs(dtype):
    """Pairs of all sizes, of usual sizes, and all pairs of special values."""
    random = np.random.RandomState(0)
    n = 200000 if dtype == np.float32 else 20000
    some = sample(dtype)
    near = np.exp(random.randn(2, n) * 2) * random.choice([-1, 1], (2, n))
    special = np.array(SPECIAL, dtype)
    first = [random.choice(some, n), near[0], 1 + random.randn(n) * 1e-3, random.randn(n) * 4]
    second = [random.choice(some, n), near[1], random.randn(n) * 3e4, random.randint(-20, 20, n)]
    first.append(np.repeat(special, special.size))
    second.append(np.tile(special, special.size))
    return tuple(np.concatenate([p.astype(dtype) for p in part]) for part in (first, second))


def worst(name, dtype):
    """The largest error and where it is, after what must be exact has been looked at."""
    arrays = pairs(dtype) if name in TWO else (sample(dtype),)
    got, expected = run(name, *arrays), expected_of(name, *arrays)
    wrong = np.isnan(got) != np.isnan(expected)
    if name not in ("maximum", "minimum", "fmax", "fmin"):  # of 0 and -0 either may come
        wrong |= (got == 0) & (expected == 0) & (np.signbit(got) != np.signbit(expected))
    at = np.flatnonzero(wrong)[:5]
    assert not at.size, [a[at] for a in (*arrays, got, expected)]
    error = ulps(got, expected)
    at = int(error.argmax())
    return error[at], [a[at] for a in (*arrays, got, expected)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_error(name, dtype):
    error, where = worst(name, dtype)
    assert error <= (0 if name in EXACT else 4), where


def test_every_function_has_a_reference():
    assert set(vecmath.NAMES) == set(REFERENCE)


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_loops_are_vectors(name):
    """A loop of calls would be right, and slow: LLVM made vectors of every float32 function."""
    _, _, library = kernel(name).build(np.dtype(np.float32))
    assert re.search(r"<\d+ x float>", library.get_llvm_str())


@pytest.mark.parametrize("name", sorted(REFERENCE))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_type_is_kept(name, dtype):
    kind = build._numba().scalars[np.dtype(dtype)]
    fn = build._names(np.dtype(dtype))[name]
    arguments = (kind,) * (2 if name in TWO else 1)
    if hasattr(fn, "get_call_template"):  # what is one instruction has no code of its own
        fn.get_call_template(arguments, {})
        made = [m.signature for m in fn.overloads.values() if m.signature.args == arguments]
        assert [signature.return_type for signature in made] == [kind]


@build.native("T* x, T* y, i64 n")
def softplus_sum(x, y, n):
    total = T(0)  # noqa: F821
    for i in range(n):
        total += log1p(exp(x[i]))  # noqa: F821
        y[i] = total


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_in_a_written_kernel(dtype):
    x = np.linspace(-5, 5, 101, dtype=dtype)
    y = np.empty_like(x)
    softplus_sum(x, y, x.size)
    expected = np.cumsum(np.log1p(np.exp(x.astype(np.float64))))
    np.testing.assert_allclose(y, expected, rtol=1e-5 if dtype == np.float32 else 1e-13)


def test_importing_it_imports_no_numba():
    code = "import sys, kilograd.kernels.vecmath; sys.exit('numba' in sys.modules)"
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=root).returncode == 0


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_near_forms(name):
    """As good as the others, up to their bound and at the multiples of π/2."""
    rng = np.random.default_rng(0)
    whole = (np.arange(-20860, 20861) * (np.pi / 2)).astype(np.float32)
    x = np.concatenate([
        rng.uniform(-vecmath.NEAR, vecmath.NEAR, 400_000), rng.uniform(-7, 7, 400_000), whole,
        np.nextafter(whole, np.float32(np.inf)), np.nextafter(whole, np.float32(-np.inf)),
        2.0 ** rng.uniform(-149, 15, 100_000), [0.0, -0.0],
    ]).astype(np.float32)  # fmt: skip
    x = x[np.abs(x) < vecmath.NEAR]
    got = run(f"{name}_near", x)
    expected = getattr(np, name)(x.astype(np.float64)).astype(np.float32)
    assert ulps(got, expected).max() <= 2
    assert name == "cos" or np.signbit(got[-1])


@pytest.mark.parametrize("shape", [(3000,), (5, 700), (40, 3)])
def test_loops_take_the_near_form_where_they_may(shape):
    """Some blocks have arguments that are far, infinite or nan, and others have not."""
    x = np.random.default_rng(0).uniform(-9, 9, shape).astype(np.float32)
    x.flat[[7, -1]] = 1e30, 40_000
    x.flat[-2:-1] = np.inf
    with np.errstate(invalid="ignore"):
        wide = x.astype(np.float64)
        expected = np.sin(wide), np.cos(np.sin(wide) * 3)
        found = eager.run(lambda x: (np.sin(x), np.cos(np.sin(x) * np.float32(3))), (x,), {})
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=6e-7)
    x = np.where(abs(x) < 9, x, 1)[..., :3]
    total = eager.run(lambda x: np.add.reduce(np.cos(x)), (x,), {})
    wide = x.astype(np.float64)
    np.testing.assert_allclose(total, np.add.reduce(np.cos(wide)), rtol=1e-5, atol=1e-5)
