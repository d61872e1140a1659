"""Native convolution and pooling against the NumPy kernels they stand for."""

import itertools
import random

import numpy as np
import pytest

from kilograd.kernels import conv, pool
from kilograd.kernels.native import build

if not build.available():
    pytest.skip(build.why_not(), allow_module_level=True)

from kilograd.kernels.native import conv as _conv
from kilograd.kernels.native import pool as _pool  # noqa: F401  (declares twins)
from kilograd.kernels.native import winograd
from kilograd.kernels.native.plan import TWINS, AtOnce

BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])


class InParts(AtOnce):
    """Runs every kernel as several threads would, one after the other."""

    def __init__(self, parts):
        self.parts = parts

    def call(self, kernel, *args, dtype, work=0):
        table = kernel.pack(args, dtype)
        run = build._c_function(kernel.address(dtype))
        parts = self.parts if kernel.divides else 1
        for part in range(parts):
            run(table.ctypes.data, part, parts)


def close(got, expected):
    assert got.shape == expected.shape and got.dtype == expected.dtype
    if expected.dtype == np.int64:
        assert np.array_equal(got, expected)
        return
    rtol = 2e-5 if expected.dtype == np.float32 else 1e-12
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=0)
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol * scale)


def check(kernel, *args, parts=(1, 2, 3)):
    """The twin's result, in any number of parts, is the kernel's; returns it."""
    expected = kernel(*args)
    several = expected if isinstance(expected, tuple) else (expected,)
    for n in parts:
        result = TWINS[kernel](AtOnce() if n == 1 else InParts(n), *args)
        result = result if isinstance(result, tuple) else (result,)
        for got, one in zip(result, several, strict=True):
            close(got, one)
    return expected


def check_conv(
    x_shape, w_shape, stride, padding, dilation, groups, dtype, bias=True, parts=(1, 2, 3)
):
    rng = np.random.default_rng(len(x_shape) + sum(x_shape))
    x = rng.standard_normal(x_shape).astype(dtype)
    w = rng.standard_normal(w_shape).astype(dtype)
    b = rng.standard_normal(w_shape[0]).astype(dtype) if bias else None
    how = (stride, padding, dilation, groups)
    y = check(conv.conv_forward, x, w, *how, b, parts=parts)
    g = rng.standard_normal(y.shape).astype(dtype)
    check(conv.conv_input_grad, g, w, x_shape, *how, parts=parts)
    check(conv.conv_weight_grad, g, x, w_shape, *how, parts=parts)


@BOTH
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_common_convolutions(dtype, stride, kernel):
    for padding, dilation, channels in itertools.product((0, 1, 2), (1, 2), ((1, 16), (3, 10))):
        C, O = channels
        check_conv(
            (3, C, 13, 11), (O, C, kernel, kernel), (stride,) * 2, ((padding,) * 2,) * 2,
            (dilation,) * 2, 1, dtype,
        )  # fmt: skip


@BOTH
def test_convolutions_of_all_kinds(dtype):
    draw = random.Random(3)
    for i in range(150):
        n = draw.choice((1, 2, 2))
        groups, C, O = draw.choice((1, 1, 2, 3)), draw.randint(1, 5), draw.randint(1, 11)
        if i % 5 == 0:  # depthwise
            groups, C, O = draw.randint(2, 9), 1, draw.randint(1, 2)
        kernel = [draw.randint(1, 5) for _ in range(n)]
        stride = tuple(draw.randint(1, 3) for _ in range(n))
        dilation = tuple(draw.randint(1, 3) for _ in range(n))
        padding = tuple((draw.randint(0, 3), draw.randint(0, 3)) for _ in range(n))
        size = [
            max(draw.randint(1, 40), (k - 1) * d + 1 - sum(p))
            for k, d, p in zip(kernel, dilation, padding, strict=True)
        ]
        check_conv(
            (draw.randint(1, 6), groups * C, *size), (groups * O, C, *kernel), stride, padding,
            dilation, groups, dtype, bias=i % 2 == 0,
        )  # fmt: skip


@BOTH
def test_depthwise_convolutions(dtype):
    draw = random.Random(5)
    for i in range(60):
        C, kernel = draw.randint(2, 5), (draw.randint(1, 7), draw.choice((3, 5, 7)))
        padding = tuple((draw.randint(0, 7), draw.randint(0, 7)) for _ in range(2))
        size = [max(draw.randint(1, 50), k - sum(p)) for k, p in zip(kernel, padding, strict=True)]
        check_conv(
            (draw.randint(1, 3), C, *size), (C, 1, *kernel), (1, 1), padding, (1, 1), C, dtype,
            bias=i % 2 == 0,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("x", "w", "stride", "padding", "dilation", "groups"),
    [
        ((1, 8, 120, 150), (6, 8, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
        ((2, 3, 224, 224), (16, 3, 7, 7), (2, 2), ((3, 3), (3, 3)), (1, 1), 1),
        ((1, 64, 80, 90), (6, 32, 3, 2), (3, 2), ((1, 2), (0, 1)), (2, 3), 2),
        ((1, 1, 9000), (4, 1, 31), (4,), ((15, 15),), (2,), 1),
        ((2, 256, 20, 20), (9, 256, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
        ((5, 40, 8, 8), (24, 40, 1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
        ((5, 40, 8, 8), (24, 20, 1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 2),
    ],
)
def test_images_larger_than_a_panel(x, w, stride, padding, dilation, groups):
    check_conv(x, w, stride, padding, dilation, groups, np.float32, parts=(1, 2, 16, 20))


def test_gradient_of_an_image_with_a_remainder():
    # 9 columns under stride 3 leave two that no window meets: their gradient is 0.
    g, w = np.ones((2, 3, 2, 2)), np.ones((3, 2, 2, 2))
    x = check(conv.conv_input_grad, g, w, (2, 2, 6, 7), (3, 3), ((0, 0), (0, 0)), (1, 1), 1)
    assert (x[..., 2] == 0).all() and (x[..., 5:] == 0).all()


def test_what_is_left_to_numpy():
    x, w = np.ones((1, 1, 3, 3, 3), np.float32), np.ones((1, 1, 1, 1, 1), np.float32)
    ones, none = (1,) * 3, ((0, 0),) * 3
    assert TWINS[conv.conv_forward](AtOnce(), x, w, ones, none, ones) is NotImplemented
    assert TWINS[pool.max_pool_forward](AtOnce(), x, ones, ones, (0,) * 3, ones) is NotImplemented


# --- by Winograd's algorithm ----------------------------------------------------------------------


def check_many_channels(x_shape, w_shape, padding, parts=(1, 2), bias=True):
    """All three against sums in float64, in units of the largest result.

    A plain float32 sum of n terms is off by about 2**-24 * sqrt(n) of its terms' size, here some 2e-7
    of the usual result; the transforms multiply that by 4 (see the module), and the largest of a
    million errors is 5 times the usual one, as is the largest result. A wrong index gives 0.1 and more.
    """
    rng = np.random.default_rng(sum(x_shape) + sum(w_shape))
    x, w = rng.standard_normal(x_shape), rng.standard_normal(w_shape)
    b = rng.standard_normal(w_shape[0]) if bias else None
    how = ((1, 1), padding, (1, 1), 1)
    y = conv.conv_forward(x, w, *how, b)
    g = rng.standard_normal(y.shape)
    for fn, args, more in [
        (conv.conv_forward, (x, w), (*how, b)),
        (conv.conv_input_grad, (g, w), (x_shape, *how)),
        (conv.conv_weight_grad, (g, x), (w_shape, *how)),
    ]:
        args = [a.astype(np.float32) for a in args]
        more = [a.astype(np.float32) if isinstance(a, np.ndarray) else a for a in more]
        exact = fn(*(a.astype(np.float64) for a in args), *more)
        for n in parts:
            got = TWINS[fn](AtOnce() if n == 1 else InParts(n), *args, *more)
            assert got.dtype == np.float32
            error = np.abs(got - exact).max() / np.abs(exact).max()
            assert error < 5e-6, (fn.__name__, n, error)


@pytest.mark.parametrize("kernel", [3, 5])
def test_many_channels(kernel, monkeypatch):
    monkeypatch.setattr(winograd, "suits", lambda *args, **more: True)
    draw = random.Random(kernel)
    for i in range(25):
        C, O = draw.choice((1, 15, 16, 17, 64, 70)), draw.choice((2, 16, 33, 65, 130))
        padding = tuple((draw.randint(0, 5), draw.randint(0, 5)) for _ in range(2))
        size = [max(draw.randint(1, 20), kernel - sum(p)) for p in padding]
        check_many_channels(
            (draw.randint(1, 9), C, *size), (O, C, kernel, kernel), padding, bias=i % 2 == 0
        )


@pytest.mark.parametrize(
    ("x", "w"),
    [
        ((1, 20, 70, 90), (40, 20, 3, 3)),  # bands of an image
        ((2, 70, 40, 33), (20, 70, 5, 5)),
        ((40, 16, 6, 7), (16, 16, 3, 3)),  # many images a panel, the last of them fewer
        ((20, 180, 4, 5), (200, 180, 3, 3)),  # threads share the channels of the weights' gradient
    ],
)
def test_panels_of_tiles(x, w, monkeypatch):
    monkeypatch.setattr(winograd, "suits", lambda *args, **more: True)
    check_many_channels(x, w, ((1, 1), (1, 2)), parts=(1, 2, 3, 16, 20))


def test_what_winograd_is_for():
    def way(x, w, dtype=np.float32, stride=1, dilation=1, groups=1):
        args = (stride,) * 2, ((1, 1),) * 2, (dilation,) * 2, groups
        shape = _conv._shape(x, w, None, *args)
        return winograd.suits(np.dtype(dtype), shape, shape.OH, shape.OW)

    x, w = (8, 32, 16, 16), (32, 32, 3, 3)
    assert way(x, w)
    assert way(x, (32, 32, 5, 5))
    assert not way(x, w, np.float64)
    assert not way(x, w, stride=2)
    assert not way(x, w, dilation=2)
    assert not way(x, (32, 16, 3, 3), groups=2)
    assert not way((8, 3, 16, 16), (32, 3, 3, 3))  # as many transforms as products
    assert not way((8, 32, 16, 16), (32, 32, 3, 1))
    assert not way((8, 32, 1, 1), w)  # one result of 16 is wanted


@pytest.mark.parametrize("kernel", [3, 5])
def test_errors_of_winograd(kernel, monkeypatch):
    """At most five times those of plain sums, as the module says."""
    rng, m = np.random.default_rng(0), 7 - kernel
    x = rng.standard_normal((4, 64, 4 * m, 4 * m)).astype(np.float32)
    w = rng.standard_normal((64, 64, kernel, kernel)).astype(np.float32)
    p = ((kernel // 2,) * 2,) * 2
    exact = conv.conv_forward(x.astype(np.float64), w.astype(np.float64), (1, 1), p, (1, 1))
    errors = []
    for way in (True, False):
        monkeypatch.setattr(winograd, "suits", lambda *args, way=way, **more: way)
        y = TWINS[conv.conv_forward](AtOnce(), x, w, (1, 1), p, (1, 1))
        errors.append(np.sqrt(np.square(y - exact).mean() / np.square(exact).mean()))
    assert errors[0] < 1e-6 and errors[0] < 5 * errors[1], errors


@pytest.mark.skipif(build.why_not() != "", reason="no native kernels")
def test_strided_arguments():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 6, 5, 4)).transpose(0, 3, 2, 1)
    w = rng.standard_normal((3, 3, 4, 8)).transpose(3, 2, 0, 1)
    check(conv.conv_forward, x, w, (1, 1), ((1, 1), (1, 1)), (1, 1))


# --- pooling --------------------------------------------------------------------------------------


def images(shape, dtype, ties=False, odd=False):
    rng = np.random.default_rng(sum(shape))
    x = rng.integers(0, 3, shape) if ties else rng.standard_normal(shape)
    x = x.astype(dtype)
    if odd:
        x[rng.random(shape) < 0.1] = np.nan
        x[rng.random(shape) < 0.3] = -np.inf
    return x


@BOTH
@pytest.mark.parametrize("kind", ["numbers", "ties", "nan and inf"])
def test_max_pool(dtype, kind):
    grid = itertools.product((1, 2, 3), (1, 2, 3), (0, 1), (1, 2), (False, True))
    for k, s, p, d, ceil in grid:
        if 2 * p > k:
            continue
        for size in ((9, 8), (7, 13), (5, 5), (21,)):
            n = len(size)
            x = images((2, 3, *size), dtype, kind == "ties", kind == "nan and inf")
            how = ((k,) * n, (s,) * n, (p,) * n, (d,) * n, ceil)
            y, at = check(pool.max_pool_forward, x, *how)
            g = images(y.shape, dtype)
            check(pool.pool_scatter, g, at, x.shape)
            check(pool.pool_gather, x, at)


def test_max_pool_2x2_of_many_shapes():
    for H, W in itertools.product((2, 3, 24, 33), (2, 5, 16, 24, 47)):
        for odd in (False, True):
            x = images((2, 3, H, W), np.float32, ties=True, odd=odd)
            check(pool.max_pool_forward, x, (2, 2), (2, 2), (0, 0), (1, 1), False)
            check(pool.max_pool_forward, x, (2, 2), (2, 2), (0, 0), (1, 1), True)


def test_scatter_of_an_index_out_of_range_is_reported():
    class Watching(AtOnce):
        def status(self):
            self.flag = np.zeros(1, np.int64)
            return self.flag

    plan, g = Watching(), np.ones((1, 1, 2))
    TWINS[pool.pool_scatter](plan, g, np.array([[[0, 5]]]), (1, 1, 5))
    assert plan.flag[0] != 0
    TWINS[pool.pool_gather](plan, np.ones((1, 1, 5)), np.array([[[0, -1]]]))
    assert plan.flag[0] != 0


@BOTH
def test_avg_pool(dtype):
    grid = itertools.product((1, 2, 3), (1, 2, 3), (0, 1), (False, True), (True, False), (None, 5))
    for k, s, p, ceil, include, divisor in grid:
        if 2 * p > k:
            continue
        for size in ((8, 6), (7, 13), (21,)):
            n = len(size)
            x = images((2, 3, *size), dtype)
            how = ((k,) * n, (s,) * n, (p,) * n, ceil, include, divisor)
            y = check(pool.avg_pool_forward, x, *how)
            check(pool.avg_pool_backward, images(y.shape, dtype), x.shape, *how)


@BOTH
def test_adaptive_pools(dtype):
    for size, out in [
        ((7, 5), (3, 2)),
        ((8, 8), (4, 2)),
        ((6, 9), (1, 1)),
        ((3, 4), (5, 7)),
        ((9,), (4,)),
    ]:
        x = images((2, 3, *size), dtype)
        y = check(pool.adaptive_avg_pool_forward, x, out)
        check(pool.adaptive_avg_pool_backward, images(y.shape, dtype), x.shape)
        check(pool.adaptive_max_pool_forward, x, out)
        check(pool.adaptive_max_pool_forward, images(x.shape, dtype, ties=True, odd=True), out)
