"""Native normalisation, softmax and reductions against the NumPy kernels and float64."""

import itertools

import numpy as np
import pytest

from kilograd.kernels import activation, norm
from kilograd.kernels.native import build
from kilograd.kernels.native.plan import TWINS, AtOnce

pytestmark = pytest.mark.skipif(not build.available(), reason="no native kernels here")
if build.available():
    from kilograd.kernels.native import norms, reductions, softmax  # noqa: F401

BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])
RNG = np.random.default_rng(0)


class InTwo(AtOnce):
    """Every call as two threads would share it, one after the other."""

    def call(self, kernel, *args, dtype, work=0):
        run = build._c_function(kernel.address(dtype))
        table = kernel.pack(args, dtype)
        for part in range(2):
            run(table.ctypes.data, part, 2)


def normal(*shape, dtype=np.float64):
    return RNG.standard_normal(shape).astype(dtype)


def as_tuple(x):
    return x if isinstance(x, tuple) else (x,)


def compare(kernel, *args, dtype, ulps=64.0, scale=1.0):
    """The twin against NumPy in float64; both ways of dividing the work give the same.

    ``scale``: how large the numbers are from which the results come by cancellation.
    """
    args = [a.astype(dtype) if isinstance(a, np.ndarray) else a for a in args]
    exact = [a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in args]
    truth = as_tuple(kernel(*exact))
    usual = as_tuple(kernel(*args))
    got = as_tuple(TWINS[kernel](AtOnce(), *args))
    divided = as_tuple(TWINS[kernel](InTwo(), *args))
    assert len(got) == len(usual)
    for y, again, u, t in zip(got, divided, usual, truth, strict=True):
        assert y.shape == u.shape and y.dtype == u.dtype == dtype
        np.testing.assert_array_equal(y, again)
        bound = ulps * np.finfo(dtype).eps * max(np.abs(t).max(initial=0), scale)
        np.testing.assert_allclose(y, t, rtol=0, atol=bound)
    return got


# --- norms ----------------------------------------------------------------------------------------

PLANES = [(5, 3, 1), (1, 4, 7), (7, 1, 100), (8, 6, 64), (3, 5, 300), (33, 40, 31), (2, 1, 1), (9, 1100, 1)]  # fmt: skip
ROWS = [(1, 1), (3, 5), (40, 17), (70, 64), (33, 300), (5, 1000)]
AFFINE = pytest.mark.parametrize("affine", ["wb", "w", "b", ""])


@BOTH
@AFFINE
@pytest.mark.parametrize("shape", PLANES)
def test_batch_norm(shape, affine, dtype):
    x, g = normal(*shape), normal(*shape)
    w = normal(shape[1]) if "w" in affine else None
    b = normal(shape[1]) if "b" in affine else None
    few = shape[0] * shape[2] < 8  # deviations may be small: r is large
    y, mean, r, var = compare(norm.batch_norm, x, w, b, 1e-2, dtype=dtype, ulps=256 if few else 64)
    many = float(shape[0] * shape[2])
    compare(norm.batch_norm_gradient, g, x, w, mean, r, dtype=dtype, scale=max(many**0.5, 10.0))
    if affine == "wb":
        compare(norm.channel_moments, x, dtype=dtype)


@BOTH
@AFFINE
@pytest.mark.parametrize("shape", ROWS)
def test_layer_norm(shape, affine, dtype):
    x, g = normal(*shape), normal(*shape)
    w = normal(shape[1]) if "w" in affine else None
    b = normal(shape[1]) if "b" in affine else None
    y, mean, r = compare(norm.layer_norm, x, w, b, 1e-2, dtype=dtype)
    compare(norm.layer_norm_gradient, g, x, w, mean, r, dtype=dtype, scale=10.0)


@BOTH
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("shape", ROWS)
def test_rms_norm(shape, weighted, dtype):
    x, g = normal(*shape), normal(*shape)
    w = normal(shape[1]) if weighted else None
    y, r = compare(norm.rms_norm, x, w, 1e-2, dtype=dtype)
    compare(norm.rms_norm_gradient, g, x, w, r, dtype=dtype, scale=10.0)


@BOTH
@AFFINE
@pytest.mark.parametrize(("shape", "groups"), [((3, 6, 10), 2), ((1, 4, 1), 1), ((5, 4, 33), 4), ((40, 8, 5), 2)])  # fmt: skip
def test_group_norm(shape, groups, affine, dtype):
    x, g = normal(*shape), normal(*shape)
    w = normal(shape[1]) if "w" in affine else None
    b = normal(shape[1]) if "b" in affine else None
    y, mean, r = compare(norm.group_norm, x, w, b, groups, 1e-2, dtype=dtype)
    compare(norm.group_norm_gradient, g, x, w, mean, r, groups, dtype=dtype, scale=10.0)


@BOTH
@pytest.mark.parametrize("shape", PLANES)
def test_scaled(shape, dtype):
    x, g = normal(*shape), normal(*shape)
    for n in {1, shape[0]}:
        a, b, c = normal(n, shape[1]), normal(n, shape[1]), normal(n, shape[1])
        compare(norm.scaled, x, a, b, dtype=dtype)
        compare(norm.scaled_gradient, g, x, a, b, c, dtype=dtype)


@BOTH
@pytest.mark.parametrize("shape", [(50, 3, 1), (60, 2, 9), (20, 3, 100)])
def test_large_mean(shape, dtype):
    """The variance about the mean keeps its digits, and so does y."""
    at = 1e4 if dtype == np.float32 else 1e9
    x = (normal(*shape) + at).astype(dtype)
    x[0] -= dtype(50)  # where a channel begins says little of its mean
    truth = norm.batch_norm(x.astype(np.float64) - at, None, None, 1e-5)
    y, mean, r, var = TWINS[norm.batch_norm](AtOnce(), x, None, None, 1e-5)
    # the sums are as exact as the arguments are
    tolerance = 100 * np.finfo(dtype).eps
    # in float32 what is missing to the mean is not lost; in float64 LLVM may add it to the mean
    rounded = 20 * tolerance if dtype == np.float32 else 4 * at * np.finfo(dtype).eps
    np.testing.assert_allclose(mean, truth[1] + at, rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(var, truth[3], rtol=tolerance)
    np.testing.assert_allclose(y, truth[0], rtol=0, atol=rounded)
    np.testing.assert_allclose(TWINS[norm.channel_moments](AtOnce(), x)[1], var, rtol=tolerance)
    rows = np.ascontiguousarray(x.reshape(len(x), -1)[1:])
    truth = norm.layer_norm(rows.astype(np.float64) - at, None, None, 1e-5)
    y, mean, r = TWINS[norm.layer_norm](AtOnce(), rows, None, None, 1e-5)
    np.testing.assert_allclose(r, truth[2], rtol=tolerance)
    np.testing.assert_allclose(y, truth[0], rtol=0, atol=rounded)


@BOTH
def test_constant_channels(dtype):
    for shape in ((6, 2, 3), (6, 2, 80)):
        x = np.full(shape, 1234.567, dtype)
        y, mean, r, var = TWINS[norm.batch_norm](AtOnce(), x, None, None, 1e-5)
        assert not y.any() and not var.any()
        np.testing.assert_array_equal(mean, x[0, :, 0])


def test_transposed_arguments_are_copied():
    x = normal(6, 5, 4).transpose(2, 1, 0)
    y = TWINS[norm.batch_norm](AtOnce(), x, None, None, 1e-5)[0]
    np.testing.assert_allclose(y, norm.batch_norm(x, None, None, 1e-5)[0], atol=1e-12)


def test_nothing_to_normalise_is_left_to_numpy():
    empty = np.zeros((0, 3), np.float32)
    assert TWINS[norm.layer_norm](AtOnce(), empty, None, None, 1e-5) is NotImplemented
    half = np.zeros((2, 3), np.float16)
    assert TWINS[norm.rms_norm](AtOnce(), half, None, 1e-5) is NotImplemented
    w = np.ones(3)
    assert TWINS[norm.rms_norm](AtOnce(), empty[:0], w, 1e-5) is NotImplemented


# --- softmax --------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    "shape", [(1,), (7,), (3, 5), (40, 65), (2, 1, 9), (3, 10, 33), (2, 3, 600)]
)
def test_softmax(shape, dtype):
    x, g = 3 * normal(*shape), normal(*shape)
    for axis in {0, 1 % len(shape), -1}:
        (y,) = compare(activation.softmax, x, axis, dtype=dtype)
        compare(activation.softmax_gradient, g, y, axis, dtype=dtype)
        (y,) = compare(activation.log_softmax, x, axis, dtype=dtype, scale=10.0)
        compare(activation.log_softmax_gradient, g, y, axis, dtype=dtype, scale=10.0)


@BOTH
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_softmax_of_special_numbers(axis, dtype):
    inf, nan, big = np.inf, np.nan, 1e30
    x = np.array([
        [0.0, -inf, 1.0], [-inf, -inf, -inf], [inf, 0.0, 0.0], [nan, 0.0, 1.0], [-nan, -1.0, -2.0],
        [big, -big, big], [-1.0, -3.0, -2.0], [-big, -big, 0.0], [0.0, -0.0, -0.0],
    ], dtype)  # fmt: skip
    for kernel in (activation.softmax, activation.log_softmax):
        a = x if axis else np.ascontiguousarray(x.T)
        expected = kernel(a.astype(np.float64), axis)
        np.testing.assert_allclose(TWINS[kernel](AtOnce(), a, axis), expected, rtol=1e-6)


def test_softmax_of_nothing_is_left_to_numpy():
    assert TWINS[activation.softmax](AtOnce(), np.zeros((0, 3)), 1) is NotImplemented
    assert TWINS[activation.softmax](AtOnce(), np.zeros((2, 3), int), 1) is NotImplemented
    assert TWINS[activation.softmax](AtOnce(), np.zeros(()), 0) is NotImplemented


# --- reductions -----------------------------------------------------------------------------------

SHAPES = [(), (5,), (1, 1), (7, 3), (4, 5, 17), (1, 6, 1, 40), (3, 4, 5, 6), (2, 1, 2, 20, 3), (3, 9000), (20000,)]  # fmt: skip


@BOTH
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min"])
def test_reductions_over_all_sets_of_axes(name, shape, dtype):
    x = normal(*shape, dtype=dtype)
    f = getattr(reductions, f"{name}_over")
    for k in range(len(shape) + 1):
        for axis in itertools.combinations(range(len(shape)), k):
            y, again = f(AtOnce(), x, axis), f(InTwo(), x, axis)
            truth = getattr(np, name)(x.astype(np.float64), axis=axis)
            assert y.shape == truth.shape and y.dtype == dtype
            np.testing.assert_array_equal(y, again)
            # numbers of about 1, of which the sum of n is about √n
            terms = max(x.size // max(truth.size, 1), 1)
            few = 4 * np.finfo(dtype).eps
            if name in ("max", "min"):
                np.testing.assert_array_equal(y, truth)
            else:
                each = few * terms**0.5 * (1 if name == "sum" else 1 / terms)
                np.testing.assert_allclose(y, truth, rtol=few, atol=4 * each)


def test_reductions_do_not_write_over_their_argument():
    x = normal(3, 1, 2)
    y = reductions.sum_over(AtOnce(), x, (1,))
    assert not np.shares_memory(x, y)
    np.testing.assert_array_equal(y, x[:, 0])
    assert reductions.max_over(AtOnce(), np.zeros((0, 2)), (0,)) is NotImplemented


@pytest.mark.parametrize(("shape", "axis"), [((10**7,), 0), ((10**6, 10), 0), ((10, 10**6), 1)])
def test_long_sums_keep_their_digits(shape, axis):
    x = np.full(shape, 0.1, np.float32)
    truth = x.astype(np.float64).sum(axis)
    np.testing.assert_allclose(reductions.sum_over(AtOnce(), x, (axis,)), truth, rtol=1e-6)
    truth = x.astype(np.float64).mean(axis)
    np.testing.assert_allclose(reductions.mean_over(AtOnce(), x, (axis,)), truth, rtol=1e-6)


@BOTH
@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("special", [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0])
@pytest.mark.parametrize(("shape", "axis"), [((50, 30), (0,)), ((50, 30), (1,)), ((50, 30), (0, 1)), ((5, 3, 40), (0, 2)), ((20000,), (0,))])  # fmt: skip
def test_extremes_of_special_numbers(shape, axis, special, name, dtype):
    x = normal(*shape, dtype=dtype)
    x.reshape(-1)[37] = special
    f = getattr(reductions, f"{name}_over")
    for a in (x, np.abs(x), -np.abs(x), np.full_like(x, special)):
        np.testing.assert_array_equal(f(AtOnce(), a, axis), getattr(np, name)(a, axis=axis))
