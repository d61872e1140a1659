"""Floor 0 against PyTorch: values, both gradients, and <A x, g> == <x, Aᵀ g> where A is linear."""

from __future__ import annotations

import random

import numpy as np
import pytest

from kilograd.kernels import conv, depthwise, pool, resize, scatter, separable, threads, window

FLOATS = ["float32", "float64"]
RNG = np.random.RandomState(0)


def tolerance(dtype, scale=1.0):
    return {"rtol": 1e-4, "atol": 1e-4 * scale} if dtype == "float32" else {"atol": 1e-10}


def agree(ours, theirs, dtype, message="", scale=1.0):
    assert ours.dtype == np.dtype(dtype)
    theirs = theirs.detach().numpy() if hasattr(theirs, "detach") else theirs
    np.testing.assert_allclose(ours, theirs, err_msg=str(message), **tolerance(dtype, scale))


def inner(a, b):
    return float((a * b).sum())


# --- convolution --------------------------------------------------------------------------------


def conv_case(draw):
    """A random geometry: (x_shape, w_shape, stride, padding, dilation, groups)."""
    nd = draw.choice([1, 2, 2, 3])
    groups, cg, og = draw.choice([1, 1, 2, 3]), draw.choice([1, 2, 3]), draw.choice([1, 2, 5])
    if draw.random() < 0.25:
        groups, cg, og = 6, 1, 1
    kernel = [draw.choice([1, 2, 3, 4]) for _ in range(nd)]
    stride = [draw.choice([1, 1, 2, 3]) for _ in range(nd)]
    dilation = [draw.choice([1, 1, 2, 3]) for _ in range(nd)]
    padding = [(draw.randint(0, 4), draw.randint(0, 4)) for _ in range(nd)]
    if draw.random() < 0.2:
        kernel, padding = [1] * nd, [(0, 0)] * nd
    size = [
        max(draw.choice([3, 5, 8, 11]), (k - 1) * d + 1 - a - b)
        for k, d, (a, b) in zip(kernel, dilation, padding, strict=True)
    ]
    return (
        (draw.choice([1, 2, 5]), groups * cg, *size), (groups * og, cg, *kernel),
        tuple(stride), tuple(padding), tuple(dilation), groups,
    )  # fmt: skip


def torch_conv(x, w, bias, stride, padding, dilation, groups):
    import torch.nn.functional as F

    x = F.pad(x, [side for pair in reversed(padding) for side in pair])
    function = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[x.ndim]
    return function(x, w, bias, stride=stride, dilation=dilation, groups=groups)


@pytest.mark.parametrize("seed", range(60))
def test_convolution_and_both_gradients(seed, monkeypatch):
    torch = pytest.importorskip("torch")
    draw = random.Random(seed)
    # Small budgets take the paths of large inputs: several panels, blocks, split kernels.
    monkeypatch.setattr(conv, "BUDGET", draw.choice([1 << 20, 500, 3000]))
    monkeypatch.setattr(conv, "ENOUGH", draw.choice([160, 4, 1]))
    monkeypatch.setattr(depthwise, "WIDEST", draw.choice([48, 0]))
    x_shape, w_shape, *geometry = conv_case(draw)
    dtype = draw.choice(FLOATS)
    x = torch.tensor(RNG.randn(*x_shape).astype(dtype), requires_grad=True)
    w = torch.tensor(RNG.randn(*w_shape).astype(dtype), requires_grad=True)
    bias = torch.tensor(RNG.randn(w_shape[0]).astype(dtype))
    y = torch_conv(x, w, bias, *geometry)
    g = RNG.randn(*y.shape).astype(dtype)
    dx, dw = torch.autograd.grad(y, (x, w), torch.tensor(g))
    x, w = x.detach().numpy(), w.detach().numpy()
    before = x.copy(), w.copy(), g.copy()
    message = x_shape, w_shape, geometry
    agree(conv.conv_forward(x, w, *geometry, bias.numpy()), y, dtype, message)
    agree(conv.conv_input_grad(g, w, x_shape, *geometry), dx, dtype, message)
    agree(conv.conv_weight_grad(g, x, w_shape, *geometry), dw, dtype, message, scale=10)
    for now, then in zip((x, w, g), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("seed", range(20))
def test_convolution_family_is_adjoint(seed):
    x_shape, w_shape, *geometry = conv_case(random.Random(100 + seed))
    x, w = RNG.randn(*x_shape), RNG.randn(*w_shape)
    y = conv.conv_forward(x, w, *geometry)
    g = RNG.randn(*y.shape)
    expected = pytest.approx(inner(y, g), rel=1e-9, abs=1e-9)
    assert inner(x, conv.conv_input_grad(g, w, x_shape, *geometry)) == expected
    assert inner(w, conv.conv_weight_grad(g, x, w_shape, *geometry)) == expected


def test_transposed_convolution_of_any_output_size():
    torch = pytest.importorskip("torch")
    x, w = RNG.randn(2, 4, 5, 3), RNG.randn(4, 3, 3, 2)
    for extra in ((0, 0), (1, 0), (1, 2)):
        y = torch.nn.functional.conv_transpose2d(
            torch.tensor(x), torch.tensor(w), stride=(2, 3), padding=(1, 0), output_padding=extra
        )
        padding = ((1, 1), (0, 0))
        ours = conv.conv_input_grad(x, w, tuple(y.shape), (2, 3), padding, (1, 1), 1)
        agree(ours, y, "float64")


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("kernel", [(2, 4), (3, 2), (4, 4)])
def test_same_padding_of_even_kernels(kernel):
    torch = pytest.importorskip("torch")
    x, w = RNG.randn(2, 3, 7, 6), RNG.randn(5, 3, *kernel)
    padding = tuple(((k - 1) // 2, k - 1 - (k - 1) // 2) for k in kernel)
    y = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(w), padding="same")
    agree(conv.conv_forward(x, w, (1, 1), padding, (1, 1)), y, "float64")


@pytest.mark.parametrize("groups", [1, 4])
def test_convolution_of_an_empty_batch(groups):
    x, w = np.zeros((0, 4, 9, 8), np.float32), np.ones((4, 4 // groups, 3, 3), np.float32)
    geometry = ((1, 1), ((1, 1), (1, 1)), (1, 1), groups)
    y = conv.conv_forward(x, w, *geometry)
    assert (y.shape, y.dtype) == ((0, 4, 9, 8), np.float32)
    assert conv.conv_input_grad(y, w, x.shape, *geometry).shape == x.shape
    dw = conv.conv_weight_grad(y, x, w.shape, *geometry)
    assert dw.shape == w.shape
    assert not dw.any()


def test_convolution_of_integers():
    x, w = RNG.randint(-5, 5, (2, 3, 12, 9)), RNG.randint(-5, 5, (4, 3, 3, 3))
    geometry = ((1, 2), ((1, 1), (0, 2)), (2, 1), 1)
    y = conv.conv_forward(x, w, *geometry)
    assert y.dtype == np.int64
    np.testing.assert_array_equal(y, conv.conv_forward(x * 1.0, w * 1.0, *geometry))


def test_what_no_window_covers_neither_matters_nor_gets_a_gradient():
    x = np.full((1, 1, 8), np.nan)
    x[..., ::3] = 1.0  # all that a kernel of 1 sees with a stride of 3
    y = conv.conv_forward(x, np.ones((1, 1, 1)), (3,), ((0, 0),), (1,))
    np.testing.assert_array_equal(y, [[[1, 1, 1]]])
    dx = conv.conv_input_grad(np.ones_like(y), np.ones((1, 1, 1)), (1, 1, 8), (3,), ((0, 0),), (1,))
    np.testing.assert_array_equal(dx, [[[1, 0, 0, 1, 0, 0, 1, 0]]])


def test_an_infinity_stays_in_its_windows():
    for channels in (1, 40):  # plain im2col, and the grid
        x = np.ones((2, channels, 12, 12), np.float32)
        x[0, 0, 5, 5] = np.inf
        y = conv.conv_forward(
            x, np.ones((2, channels, 3, 3), np.float32), (1, 1), ((1, 1),) * 2, (1, 1)
        )
        assert np.isinf(y[0]).sum() == 2 * 9
        assert np.isfinite(y[1]).all()


def test_threads_do_not_change_the_answer(monkeypatch):
    x, w = RNG.randn(5, 8, 40, 40).astype("f"), RNG.randn(8, 8, 3, 3).astype("f")
    geometry = ((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    results = []
    for workers in (1, 2, 3):
        monkeypatch.setattr(threads, "_workers", workers)
        y = conv.conv_forward(x, w, *geometry)
        results.append(
            (y, conv.conv_input_grad(y, w, x.shape, *geometry),
             conv.conv_weight_grad(y, x, w.shape, *geometry),
             *pool.max_pool_forward(x, (2, 2), (2, 2), (0, 0), (1, 1)))
        )  # fmt: skip
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-2)


def test_slices_cover_the_range_in_order_and_pass_errors_on(monkeypatch):
    monkeypatch.setattr(threads, "_workers", 3)
    assert [i for a, b in threads.sliced(lambda a, b: (a, b), 7) for i in range(a, b)] == [
        *range(7)
    ]
    inner_call = threads.sliced(lambda a, b: len(threads.sliced(lambda c, d: c, 4)), 3)
    assert inner_call in ([1, 1, 1], [1])  # a region within a region does not split again

    def fail(start, stop):
        raise ZeroDivisionError

    for _ in range(2):  # and the lock is free again afterwards
        with pytest.raises(ZeroDivisionError):
            threads.sliced(fail, 3)


def test_the_number_of_threads():
    before = threads.get_num_threads()
    try:
        threads.set_num_threads(1)
        assert threads.get_num_threads() == 1
    finally:
        threads.set_num_threads(before)
    with pytest.raises(ValueError, match="positive"):
        threads.set_num_threads(0)


# --- windows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
def test_unfold_and_fold(dtype):
    torch = pytest.importorskip("torch")
    x = RNG.randn(2, 3, 7, 9).astype(dtype)
    for rule in (((2, 3), (1, 2), (0, 1), (2, 1)), ((1, 1), (1, 1), (0, 0), (1, 1)),
                 ((3, 3), (1, 1), (1, 1), (3, 2))):  # fmt: skip
        cols = window.unfold(x, *rule)
        agree(cols, torch.nn.functional.unfold(torch.tensor(x), *rule), dtype)
        back = window.fold(cols, (7, 9), *rule)
        agree(back, torch.nn.functional.fold(torch.tensor(cols), (7, 9), *rule), dtype)
        g = RNG.randn(*cols.shape).astype(dtype)
        adjoint = inner(x, window.fold(g, (7, 9), *rule))
        assert inner(cols, g) == pytest.approx(adjoint, rel=1e-3, abs=1e-3)


def test_unfold_in_one_and_three_dimensions():
    np.testing.assert_array_equal(
        window.unfold(np.arange(5).reshape(1, 1, 5), (3,), (1,), (0,), (2,)),
        [[[0, 2], [1, 3], [2, 4]]],
    )
    x = RNG.randn(1, 2, 3, 4, 5)
    cols = window.unfold(x, (2, 2, 2), (1,) * 3, (0,) * 3, (1,) * 3)
    assert cols.shape == (1, 16, 2 * 3 * 4)
    w = RNG.randn(1, 2, 2, 2, 2)
    y = conv.conv_forward(x, w, (1,) * 3, ((0, 0),) * 3, (1,) * 3)
    np.testing.assert_allclose((w.reshape(1, 16) @ cols).ravel(), y.ravel())


# --- pooling ------------------------------------------------------------------------------------


def fill(draw, shape, dtype):
    x = RNG.randn(*shape).astype(dtype)
    kind = draw.choice(["normal", "ties", "nan", "inf"])
    if kind == "ties":
        x = RNG.randint(-2, 2, shape).astype(dtype)
    if kind == "nan":
        x[RNG.rand(*shape) < 0.1] = np.nan
    if kind == "inf":
        x[RNG.rand(*shape) < 0.6] = -np.inf
    return x, kind


def pool_case(draw):
    nd = draw.choice([1, 2, 2, 3])
    while True:
        kernel = [draw.choice([1, 2, 3, 4]) for _ in range(nd)]
        stride = [draw.choice([1, 2, 3, 4]) for _ in range(nd)]
        dilation = [draw.choice([1, 1, 2, 3]) for _ in range(nd)]
        padding = [draw.randint(0, k // 2) for k in kernel]
        size = [draw.choice([4, 5, 6, 8, 11, 13]) for _ in range(nd)]
        rule = zip(size, kernel, padding, dilation, strict=True)
        if all(n + 2 * p >= d * (k - 1) + 1 for n, k, p, d in rule):
            return tuple(map(tuple, (size, kernel, stride, padding, dilation)))


@pytest.mark.parametrize("seed", range(80))
def test_max_pool(seed, monkeypatch):
    torch = pytest.importorskip("torch")
    F, draw = torch.nn.functional, random.Random(seed)
    monkeypatch.setattr(pool, "PANEL", draw.choice([1 << 16, 10, 100]))
    size, *rule = pool_case(draw)
    ceil_mode, dtype = draw.random() < 0.5, draw.choice(FLOATS)
    x, kind = fill(draw, (2, 3, *size), dtype)
    message = size, rule, ceil_mode, kind
    leaf = torch.tensor(x, requires_grad=True)
    function = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[len(size)]
    y, indices = function(leaf, *rule, ceil_mode=ceil_mode, return_indices=True)
    ours, found = pool.max_pool_forward(x, *rule, ceil_mode)
    np.testing.assert_array_equal(ours, y.detach().numpy(), str(message))
    np.testing.assert_array_equal(found, indices.numpy(), str(message))
    assert (ours.dtype, found.dtype) == (x.dtype, np.int64)
    g = RNG.randn(*y.shape).astype(dtype)
    (dx,) = torch.autograd.grad(y, leaf, torch.tensor(g))
    agree(pool.pool_scatter(g, found, x.shape), dx, dtype, message)
    np.testing.assert_array_equal(pool.pool_gather(x, found), ours)


@pytest.mark.parametrize("seed", range(40))
def test_average_pool(seed, monkeypatch):
    torch = pytest.importorskip("torch")
    F, draw = torch.nn.functional, random.Random(seed)
    monkeypatch.setattr(pool, "PANEL", draw.choice([1 << 16, 10, 100]))
    size, kernel, stride, padding, _ = pool_case(draw)
    kernel = tuple(min(k, n) for k, n in zip(kernel, size, strict=True))
    padding = tuple(min(p, k // 2) for p, k in zip(padding, kernel, strict=True))
    ceil_mode, include, dtype = draw.random() < 0.5, draw.random() < 0.5, draw.choice(FLOATS)
    divisor = draw.choice([None, None, 3]) if len(size) > 1 else None
    function = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[len(size)]
    more = () if len(size) == 1 else (divisor,)
    x = RNG.randn(2, 3, *size).astype(dtype)
    leaf = torch.tensor(x, requires_grad=True)
    y = function(leaf, kernel, stride, padding, ceil_mode, include, *more)
    rule = (kernel, stride, padding, ceil_mode, include, divisor)
    agree(pool.avg_pool_forward(x, *rule), y, dtype, (size, rule))
    g = RNG.randn(*y.shape).astype(dtype)
    (dx,) = torch.autograd.grad(y, leaf, torch.tensor(g))
    agree(pool.avg_pool_backward(g, x.shape, *rule), dx, dtype, (size, rule))


@pytest.mark.parametrize("seed", range(60))
def test_adaptive_pools(seed):
    torch = pytest.importorskip("torch")
    F, draw = torch.nn.functional, random.Random(seed)
    size = [draw.choice([1, 4, 6, 9, 13]) for _ in range(draw.choice([1, 2, 2, 3]))]
    out = tuple(draw.randint(1, n + 2) for n in size)
    if draw.random() < 0.3:
        out = draw.choice([(1,) * len(size), tuple(max(1, n // 2) for n in size)])
    dtype, nd = draw.choice(FLOATS), len(size)
    x, kind = fill(draw, (2, 3, *size), dtype)
    leaf = torch.tensor(x, requires_grad=True)
    largest = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}[nd]
    y, indices = largest(leaf, out, return_indices=True)
    ours, found = pool.adaptive_max_pool_forward(x, out)
    np.testing.assert_array_equal(ours, y.detach().numpy(), str((size, out, kind)))
    np.testing.assert_array_equal(found, indices.numpy(), str((size, out, kind)))
    mean = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[nd]
    y = mean(leaf, out)
    agree(pool.adaptive_avg_pool_forward(x, out), y, dtype, (size, out, kind))
    g = RNG.randn(*y.shape).astype(dtype)
    (dx,) = torch.autograd.grad(y, leaf, torch.tensor(g))
    agree(pool.adaptive_avg_pool_backward(g, x.shape), dx, dtype, (size, out))


def test_pools_of_an_empty_batch():
    x = np.zeros((0, 3, 8, 8), np.float32)
    y, found = pool.max_pool_forward(x, (2, 2), (2, 2), (0, 0), (1, 1))
    assert y.shape == found.shape == (0, 3, 4, 4)
    assert pool.pool_scatter(y, found, x.shape).shape == x.shape
    assert pool.pool_gather(x, found).shape == y.shape
    assert pool.avg_pool_forward(x, (2, 2), (2, 2), (0, 0)).shape == y.shape
    assert pool.avg_pool_backward(y, x.shape, (2, 2), (2, 2), (0, 0)).shape == x.shape
    for out in ((1, 1), (3, 3), (4, 4)):
        y = pool.adaptive_avg_pool_forward(x, out)
        assert y.shape == (0, 3, *out)
        assert pool.adaptive_avg_pool_backward(y, x.shape).shape == x.shape
        assert pool.adaptive_max_pool_forward(x, out)[0].shape == y.shape


def test_max_pool_of_integers():
    x = RNG.randint(-9, -1, (1, 2, 5, 5))
    y, _ = pool.max_pool_forward(x, (3, 3), (2, 2), (1, 1), (1, 1))
    expected, _ = pool.max_pool_forward(x * 1.0, (3, 3), (2, 2), (1, 1), (1, 1))
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, expected)


# --- scatter ------------------------------------------------------------------------------------

mask = np.arange(20).reshape(4, 5) % 3 == 0
INDICES = [
    np.array([0, 1, -1, 1]),
    (np.array([[0, 1], [1, 0]]),),
    (slice(None), np.array([1, 1, 0])),
    (np.array([0, 0]), slice(1, 4, 2), np.array([2, 2])),
    (np.array([0, 0]), np.array([1, 1])),
    (Ellipsis, np.array([1, -1, 5, 5])),
    (None, np.array([0, 0]), 1),
    (1, np.array([1, 1])),
    (mask,),
    (mask, np.array([2] * mask.sum())),
    (np.array([True, False, True, True]), np.array([1, 1, 0])),
    (np.array([0, 0])[:, None], slice(None), np.array([1, 1, 3])),
    (np.array([1, 1]), None, slice(2)),
    (slice(None), np.array([], int)),
    (0, [1, 1, 2]),
    [0, 0],
    np.array(2),
    slice(None, None, -1),
    1,
]


@pytest.mark.parametrize("index", INDICES, ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_index_put_add(index, dtype):
    shape = (4, 5, 6)
    values = (RNG.randn(*np.zeros(shape)[index].shape) * 10).astype(dtype)
    expected = np.zeros(shape, dtype)
    np.add.at(expected, index, values)
    ours = scatter.index_put_add(shape, index, values)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    assert ours.dtype == values.dtype


@pytest.mark.parametrize("seed", range(40))
def test_scatter_add_index_add_and_scatter_reduce(seed):
    torch = pytest.importorskip("torch")
    draw = random.Random(seed)
    shape = tuple(draw.randint(1, 5) for _ in range(draw.choice([1, 2, 3])))
    axis = draw.randrange(len(shape))
    part = [draw.randint(0, 7) if i == axis else draw.randint(0, n) for i, n in enumerate(shape)]
    index = RNG.randint(0, shape[axis], part)
    src = RNG.randint(-3, 4, [n + draw.randint(0, 2) for n in part]).astype("float32")
    x = RNG.randint(-3, 4, shape).astype("float32")
    if src.size and draw.random() < 0.3:
        src.flat[0] = np.nan
    elif draw.random() < 0.3:
        x, src = x.astype("int64"), src.astype("int64")
    theirs = [torch.tensor(a) for a in (x, index, src)]
    expected = torch.zeros_like(theirs[0]).scatter_add(axis, *theirs[1:])
    ours = scatter.scatter_add(shape, axis, index, src)
    np.testing.assert_array_equal(ours, expected.numpy())
    for reduce in ("sum", "prod", "mean", "amax", "amin"):
        for include in (True, False):
            y = theirs[0].scatter_reduce(axis, *theirs[1:], reduce, include_self=include)
            ours = scatter.scatter_reduce(x, axis, index, src, reduce, include)
            np.testing.assert_allclose(ours, y.numpy(), rtol=1e-5)
            assert ours.dtype == x.dtype
    rows = RNG.randint(0, shape[axis], draw.randint(0, 6))
    values = RNG.randn(*shape[:axis], len(rows), *shape[axis + 1 :]).astype("float32")
    y = torch.zeros(shape).index_add(axis, torch.tensor(rows), torch.tensor(values))
    agree(scatter.index_add(shape, rows, values, axis), y, "float32")


@pytest.mark.parametrize("padding_idx", [None, 2])
def test_embedding_grad(padding_idx):
    torch = pytest.importorskip("torch")
    indices = RNG.randint(0, 10, (4, 7))
    g = RNG.randn(4, 7, 3).astype("float32")
    w = torch.zeros(10, 3, requires_grad=True)
    y = torch.nn.functional.embedding(torch.tensor(indices), w, padding_idx=padding_idx)
    (dw,) = torch.autograd.grad(y, w, torch.tensor(g))
    agree(scatter.embedding_grad(g, indices, 10, padding_idx), dw, "float32")


def test_scatter_refuses_what_does_not_exist():
    with pytest.raises(IndexError, match="index 3 is out of bounds for dimension with size 3"):
        scatter.scatter_add((3,), 0, np.array([0, 3]), np.ones(2))
    with pytest.raises(IndexError, match="index -4 is out of bounds"):
        scatter.index_add((3,), np.array([-4]), np.ones(1))


# --- resize -------------------------------------------------------------------------------------


def resize_case(draw):
    nd = draw.choice([1, 2, 2, 3])
    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}[nd]
    modes = ["nearest", "nearest-exact", "area", linear, linear] + ["bicubic"] * 2 * (nd == 2)
    mode = draw.choice(modes)
    size = [draw.randint(2, 12) for _ in range(nd)]
    smooth = mode not in ("nearest", "nearest-exact", "area")
    options = {"align_corners": draw.random() < 0.5} if smooth else {}
    if mode in ("bilinear", "bicubic") and draw.random() < 0.5:
        options["antialias"] = True
    if draw.random() < 0.4:
        scales = tuple(draw.choice([0.5, 2, 1.5, 3.3, draw.uniform(0.5, 4)]) for _ in size)
        # PyTorch has two rules for nearest where a size doubles or stays though the scale is another.
        if mode == "nearest":
            scales = tuple(draw.choice([0.5, 2, 3]) for _ in size)
        out = tuple(int(n * s) for n, s in zip(size, scales, strict=True))
    else:
        scales, out = None, tuple(draw.randint(2, 15) for _ in size)
    return size, out, scales, mode, options


@pytest.mark.parametrize("seed", range(120))
def test_resize(seed):
    torch = pytest.importorskip("torch")
    draw = random.Random(seed)
    size, out, scales, mode, options = resize_case(draw)
    if min(out) < 2:  # with antialias, PyTorch is wrong for a width of one (see below)
        out, scales = tuple(max(2, n) for n in out), None
    dtype = draw.choice(FLOATS)
    x = RNG.randn(2, 3, *size).astype(dtype)
    leaf = torch.tensor(x, requires_grad=True)
    how = {"scale_factor": scales} if scales else {"size": out}
    y = torch.nn.functional.interpolate(leaf, **how, mode=mode, **options)
    rest = (
        mode, options.get("align_corners", False), scales, options.get("antialias", False)
    )  # fmt: skip
    message = size, out, rest
    ours = resize.resize_forward(x, out, *rest)
    agree(ours, y, dtype, message)
    g = RNG.randn(*y.shape).astype(dtype)
    back = resize.resize_backward(g, x.shape, *rest)
    if mode != "nearest":  # PyTorch's backward may round another way than its forward
        agree(back, torch.autograd.grad(y, leaf, torch.tensor(g))[0], dtype, message)
    assert inner(ours, g) == pytest.approx(inner(x, back), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_nearest_rounds_as_pytorch_does(mode, dtype):
    torch = pytest.importorskip("torch")
    for n in (2, 3, 7, 54, 98):
        x = np.arange(n, dtype=dtype)[None, None]
        for out in range(1, 150, 1 if n > 2 else 2):
            if mode == "nearest-exact" and n == 2:
                continue  # an exact half: PyTorch rounds by whether the compiler fused its multiply-add
            y = torch.nn.functional.interpolate(torch.tensor(x), size=out, mode=mode)
            np.testing.assert_array_equal(resize.resize_forward(x, (out,), mode), y.numpy())


def test_antialias_of_a_single_column_equals_that_of_many():
    x = RNG.randn(1, 1, 10, 1)
    many = resize.resize_forward(np.repeat(x, 4, 3), (2, 4), "bilinear", antialias=True)
    one = resize.resize_forward(x, (2, 1), "bilinear", antialias=True)
    np.testing.assert_allclose(one[..., 0], many[..., 0])


def test_resize_keeps_what_is_not_finite_where_it_is():
    x = np.array([[[np.inf, 1.0, 2.0, 3.0]]])
    y = resize.resize_forward(x, (8,), "linear")
    assert np.isfinite(y[..., 3:]).all()
    assert resize.resize_forward(np.array([[[1, 2]]], np.uint8), (4,), "nearest").dtype == np.uint8


def test_taps_of_an_empty_batch_and_of_nothing_to_do():
    x = np.zeros((0, 2, 3), np.float32)
    assert resize.resize_forward(x, (5,), "linear").shape == (0, 2, 5)
    x = RNG.randn(1, 1, 3)
    np.testing.assert_array_equal(separable.apply(x, [None]), x)
