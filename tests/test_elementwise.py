"""Elementwise functions: dtypes, conventions at kinks and limits, accuracy of the special ones."""

import math

import numpy as np
import pytest

import kilograd as kg
from kilograd.kernels import special

try:
    from tests.oracle.both import agree
except ImportError:
    agree = None

against_torch = pytest.mark.skipif(agree is None, reason="compares with PyTorch")
SETUP = (
    "inf = float('inf'); nan = float('nan'); f = T.tensor([1.5, -2.25, 0.0, 3.0]); "
    "i = T.tensor([3, -4, 0, 7]); u = T.tensor([3, 200, 0, 7], dtype=T.uint8); "
    "b = T.tensor([True, False, True, True]); n = T.tensor([nan, inf, -inf, 1.0]); "
    "d = T.tensor(1.25, dtype=T.float64); s = T.tensor(2.5); h = f.half(); "
)

DTYPES = """
f + i
i + 2.5
u + 300
i + d
f * d
b + b
b - b
b - 1
1 - b
-b
i / 2
i // 2
i // 2.5
i // 0
i % -3
-7 % i.clamp(1)
f % 0
f // 0
T.fmod(i, -3)
i ** 2
i ** -1
i ** 0.5
2 ** i
2 ** f
b ** 2
i ** i
h * 2.5
h + d
u << 1
i & b
f & 1
~f
~i
~b
T.exp(i)
T.exp(b)
T.sqrt(u)
T.square(b)
T.abs(i)
T.sign(b)
T.floor(i)
T.round(u)
T.isnan(i)
T.relu(i)
T.logical_not(n)
T.exp(1.0)
T.exp([1.0])
T.maximum(f, 1)
T.hypot(i, i)
T.div(i, 2, rounding_mode='floor')
T.div(i, -2, rounding_mode='trunc')
T.div(f, i, rounding_mode='trunc')
T.div(i, 0, rounding_mode='trunc')
T.div(i, 2, rounding_mode='up')
T.add(i, 1, alpha=2)
T.add(i, 1, alpha=2.5)
T.add(f, 1, alpha=True)
T.add(b, b, alpha=True)
T.sub(2, f, alpha=3)
T.rsub(f, 3, alpha=2)
T.float_power(i, -1)
T.clamp(i, 0.5)
T.clamp(i, 0, 5)
T.clamp(f, 2, 1)
T.clamp(f, min=i, max=s)
T.clamp(f)
T.clamp(n, -1, 1)
T.clip(f, max=1)
T.where(b, f, 0)
T.where(b, i, 0.5)
T.where(b, 1, 0.5)
T.where(b, d, f)
T.where(f, f, f)
T.where(b)
f.where(b, i)
T.lerp(f, f * 2, 0.3)
T.lerp(f, f.double(), 0.3)
T.lerp(i, i, 0.3)
T.addcdiv(i, i, i)
T.addcmul(f, i, s, value=2)
T.ldexp(f, i)
T.nan_to_num(n)
T.nan_to_num(n, nan=1., posinf=2.)
T.round(f, decimals=1)
T.round(f * 100, decimals=-2)
T.round(i, decimals=1)
T.frexp(f)
T.heaviside(f, s)
T.heaviside(f, i)
T.isclose(f, i)
T.isclose(n, n), T.isclose(n, n, equal_nan=True)
T.equal(f, f.double()), T.equal(f, i), T.equal(f, s)
T.gcd(i, i.flip(0)), T.lcm(i, i.flip(0))
T.complex(f, f), T.complex(f, d), T.imag(f), T.real(f), T.angle(f)
T.polygamma(-1, f)
T.mvlgamma(f.abs() + 3, 2)
x = f.clone(); x.add_(i); x.mul_(2).clamp_(0, 3)
x = i.clone(); x.add_(1.5)
x = i.clone(); x.div_(2)
x = i.clone(); x.exp_()
x = f.clone(); x.eq_(0); x
x = f.clone(); x.add_(T.ones(2, 4))
T.add(f, f, out=T.empty(0, dtype=T.float64))
T.add(f, f, out=T.empty(0, dtype=T.int32))
T.exp(f, out=f)
""".strip().splitlines()


@against_torch
@pytest.mark.parametrize("code", DTYPES)
def test_values_dtypes_and_errors_as_pytorch(code):
    agree(SETUP + code)


ONE = """
abs neg exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square reciprocal sin cos tan sinh cosh tanh
asin acos atan asinh acosh atanh sigmoid relu floor ceil trunc sign sgn angle erf erfc erfinv lgamma
digamma i0 sinc isnan isinf isfinite signbit frac round deg2rad logit special.entr special.erfcx
special.i0e special.i1 special.i1e special.ndtr special.ndtri special.log_ndtr
""".split()


@against_torch
@pytest.mark.parametrize("name", ONE)
def test_limits_as_pytorch(name):
    for dtype in ("float64", "float32"):
        agree(
            "x = T.tensor([0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, float('inf'), -float('inf'), "
            f"float('nan'), 40.0, -40.0, 1e-30], dtype=T.{dtype}); T.{name}(x)"
        )


GRADIENTS = """
T.abs(x)
T.maximum(x, x * 1)
T.minimum(x, T.zeros(4))
T.fmax(x, x * 1)
x.clamp(-1, 2)
x.clamp(min=T.zeros(4), max=x)
T.relu(x)
x ** 0
x ** 1
x ** 2
x ** 3
x ** -2
x ** 20
x ** T.tensor([0.0, 1.0, 2.0, 3.0])
2 ** x
0 ** x.abs()
T.sinc(x)
T.xlogy(x, x.abs())
T.special.entr(x.abs())
T.copysign(x, -x)
T.atan2(x, x * 0)
T.hypot(x, x * 2)
T.remainder(x, 1.3)
T.div(x, 1.3, rounding_mode='floor')
x.floor() + x.sign() + x.round()
T.nan_to_num(1 / x)
T.where(x > 0, 1 / x, x)
T.logaddexp(x, x * 3)
T.logit(x, eps=0.1)
T.lerp(x, x * x, x)
T.special.i1(x) + T.special.i1e(x)
T.frexp(x)[0]
T.nextafter(x, x + 1)
""".strip().splitlines()


@against_torch
@pytest.mark.parametrize("code", GRADIENTS)
def test_gradients_at_kinks_and_ties_as_pytorch(code):
    agree(
        "x = T.tensor([0.0, -1.0, 2.0, 0.75], dtype=T.float64, requires_grad=True); "
        f"y = {code}; T.autograd.grad((y * T.tensor([1.0, 2.0, 3.0, 4.0])).sum(), x)[0]"
    )


# --- special functions ------------------------------------------------------------------------------

KNOWN = [  # function, argument, value (mpmath, 20 digits)
    (special.erf, 0.3, 0.32862675945912742764),
    (special.erf, 1.7, 0.98379045859077456363),
    (special.erfc, 0.4, 0.57160764495333154489),
    (special.erfc, 5.0, 1.5374597944280348502e-12),
    (special.erfc, 26.0, 5.6631924088561428464e-296),
    (special.erfcx, -2.0, 108.94090438997797241),
    (special.erfcx, 100.0, 0.0056416137829894328988),
    (special.erfinv, 0.5, 0.47693627620446987338),
    (special.ndtr, -10.0, 7.6198530241605260660e-24),
    (special.ndtr, -37.0, 5.7255712225245768227e-300),
    (special.log_ndtr, -100.0, -5005.5242086942050886),
    (special.lgamma, 0.25, 1.2880225246980774574),
    (special.lgamma, 3.5, 1.2009736023470742248),
    (special.lgamma, -2.5, -0.056243716497674054274),
    (special.lgamma, 100.5, 361.43554046777772145),
    (special.digamma, 0.25, -4.2274535333762654081),
    (special.digamma, -1.5, 0.70315664064524318723),
    (special.i0, 3.0, 4.8807925858650240856),
    (special.i1, -3.0, -3.9533702174026093965),
    (special.i0e, 50.0, 0.056561626647454192530),
]


@pytest.mark.parametrize(("fn", "x", "value"), KNOWN)
def test_special_functions_are_right_to_a_few_ulp(fn, x, value):
    assert fn(np.array([x]))[0] == pytest.approx(value, rel=4e-15)
    assert fn(np.array([x], np.float32))[0] == pytest.approx(
        fn(np.array([x], np.float32).astype(np.float64))[0], rel=4e-7, abs=1e-37
    )


def test_functions_of_two_arguments():
    assert special.zeta(np.array([2.0]), np.array([1.0]))[0] == pytest.approx(
        math.pi**2 / 6, rel=1e-15
    )
    assert special.zeta(np.array([3.0]), np.array([-1.5]))[0] == pytest.approx(
        0.1181020258208637, rel=1e-13
    )
    assert special.polygamma(1, np.array([-0.5]))[0] == pytest.approx(8.9348022005446793, rel=1e-14)
    a, x = np.array([0.5, 3.0, 50.0]), np.array([2.0, 1.0, 60.0])
    low, high = special.igamma(a, x), special.igammac(a, x)
    np.testing.assert_allclose(
        low, [0.95449973610364158, 0.080301397071394196, 0.91559331890630817], rtol=1e-13
    )
    np.testing.assert_allclose(low + high, 1, rtol=1e-14)


def test_inverses():
    y = np.array([-0.999999, -0.6, -1e-9, 0.3, 0.59, 0.61, 1 - 1e-15])
    np.testing.assert_allclose(special.erf(special.erfinv(y)), y, rtol=1e-15)
    p = np.array([1e-300, 1e-17, 0.01, 0.2, 0.5, 0.8, 0.99])
    np.testing.assert_allclose(special.ndtr(special.ndtri(p)), p, rtol=1e-12)
    assert special.erfinv(np.array([1.0, -1.0]))[0] == math.inf


def test_erf_of_float32_keeps_its_bounds():
    x = np.linspace(-6, 6, 40_001, dtype=np.float32)
    y = special.erf(x)
    assert y.dtype == np.float32
    assert np.abs(y).max() == 1
    exact = special.erf(x.astype(np.float64))
    assert np.abs(y - exact).max() < 3e-7


# --- facts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(-17, 18))
def test_whole_powers(n):
    x = np.array([0.7, -1.3, 2.0])
    np.testing.assert_allclose(kg.from_numpy(x).pow(n).numpy(), x**n, rtol=1e-14)


def test_the_first_power_is_a_copy():
    x = kg.ones(3)
    y = x**1
    y += 1
    assert x.tolist() == [1, 1, 1]


def test_sigmoid_neither_overflows_nor_loses_small_values():
    y = kg.sigmoid(kg.tensor([-1000.0, -80.0, 0.0, 80.0, 1000.0]))
    assert y.tolist() == pytest.approx([0, math.exp(-80), 0.5, 1, 1])


def test_float16_is_computed_in_float32():
    x = kg.tensor([3.0, 0.001], dtype=kg.float16)
    wide = kg.sinc(x.float()).half()
    assert kg.equal(kg.sinc(x), wide)


def test_aliases_are_the_same_functions():
    for a, b in [("absolute", "abs"), ("arccos", "acos"), ("clip", "clamp"), ("greater", "gt"),
                 ("multiply", "mul"), ("subtract", "sub"), ("divide", "div"), ("fix", "trunc")]:  # fmt: skip
        assert getattr(kg, a) is getattr(kg, b)
        assert callable(getattr(kg.Tensor, f"{a}_"))


def test_numpy_arrays_are_welcome_and_lists_are_not():
    x = np.array([1.0, 4.0])
    assert kg.sqrt(x).tolist() == [1, 2]
    assert kg.maximum(x, np.array([2.0, 2.0])).tolist() == [2, 4]
    for bad in ([1.0, 4.0], 4.0, None, "x"):
        with pytest.raises(TypeError):
            kg.sqrt(bad)
        with pytest.raises(TypeError):
            kg.clamp(bad, 0, 1)


def test_missing_derivatives_are_said_to_be_missing():
    a = kg.tensor([1.0], requires_grad=True)
    y = kg.igamma(a, kg.tensor([2.0]))
    with pytest.raises(NotImplementedError, match="input"):
        y.backward()


def test_complex_parts_are_views_with_gradients():
    re = kg.tensor([1.0, 2.0], requires_grad=True)
    im = kg.tensor([3.0, 4.0], requires_grad=True)
    z = kg.complex(re, im)
    (kg.real(z) * kg.tensor([1.0, 10.0]) + z.imag * 2).sum().backward()
    assert re.grad.tolist() == [1, 10]
    assert im.grad.tolist() == [2, 2]
