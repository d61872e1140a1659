"""Copies, gathers, scatters, scans and choices in native form, beside NumPy."""

import itertools

import numpy as np
import pytest

import kilograd as kg
from kilograd import random
from kilograd.compile import eager
from kilograd.kernels import order as kernels
from kilograd.kernels import place, scatter
from kilograd.kernels.kernel import LARGE
from kilograd.kernels.native import build, indexing, order, placing, reductions
from tests.test_native_sequence import InParts, both

pytestmark = pytest.mark.skipif(not build.available(), reason=build.why_not())

FLOATS = [np.float32, np.float64]
MOVED = [*FLOATS, np.int64, np.int32]


@pytest.fixture(params=[1, 2])
def native(request, monkeypatch):
    """Every array is large: all ops are native programs, on one thread and on two."""
    monkeypatch.setattr(LARGE, "limit", 1)
    monkeypatch.setattr(eager, "_programs", {})
    before = kg.get_num_threads()
    kg.set_num_threads(request.param)
    yield
    kg.set_num_threads(before)


def numbers(shape, dtype, seed=0):
    x = np.random.default_rng(seed).standard_normal(shape) * 10
    return x.astype(dtype)


def equal(found, expected):
    assert found.shape == expected.shape and found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def moved(fn, *args):
    """``fn(plan, …)`` in one part, and bit for bit in two and three."""
    return both(fn, *args, exactly=True)


def natively(fn, *args, **options):
    """``fn`` as an eager program; it must be one."""
    found = eager.run(fn, args, options)
    assert any(callable(p) for p in eager._programs.values())
    return found


# --- copies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", MOVED)
@pytest.mark.parametrize(
    "shape", [(64, 48), (37, 53), (16, 3), (3, 16), (1, 7), (2, 33, 40), (5, 2, 18, 17), (0, 4)]
)
def test_copies_in_every_order(native, dtype, shape):
    x = numbers(shape, dtype)
    for axes in itertools.permutations(range(len(shape))):
        equal(natively(lambda x: x.copy(), x.transpose(axes)), x.transpose(axes).copy())


def test_copies_of_views(native):
    x = numbers((40, 50, 60), np.float32)
    for view in (
        x[::-1].T, x[:, ::-1, ::2].transpose(2, 0, 1), x[3:, 4:, 5].T, x[..., ::-1],
        np.broadcast_to(x[:, :1, :1], x.shape).T, np.broadcast_to(x[0].T, (3, 60, 50)),
    ):  # fmt: skip
        equal(natively(lambda x: x.copy(), view), view.copy())
        equal(
            natively(lambda x: np.concatenate((x, x), -1), view), np.concatenate((view, view), -1)
        )
        equal(natively(lambda x: x.astype(np.float64), view), view.astype(np.float64, order="C"))


def test_where_turned_copies_write():
    """Parts of larger arrays, from parts of larger arrays."""
    x = numbers((70, 90), np.float32)
    y = natively(lambda x: np.stack((x[3:40, 5:80].T, x[13:50, 6:81].T), 1), x)
    equal(y, np.stack((x[3:40, 5:80].T, x[13:50, 6:81].T), 1))


INDICES = [
    ((8, 9), (slice(2, 5), slice(None, -3))), ((8, 9), (slice(None), 4)), ((8, 9), -1), ((8, 9), ...),
    ((8, 9), (None, slice(1, 7), None)), ((8, 9), (..., slice(7, 1, -1))), ((8, 9), (slice(0, 8, 3),)),
    ((8, 9), (slice(3, 3), slice(1, 2))), ((4, 5, 6), (1, ..., slice(2, 4))), ((7,), slice(5, 1, -1)),
    ((7,), slice(5, 6, 10)), ((), ...), ((3, 0), slice(1, 2)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("shape", "index"), INDICES)
def test_put_zeros(dtype, shape, index):
    g = numbers(np.zeros(shape)[index].shape, dtype)
    equal(moved(placing.put_zeros, g, shape, index), place.put_zeros(g, shape, index))


@pytest.mark.parametrize("dtype", [*FLOATS, np.int64, np.bool_])
def test_pad_constant(dtype):
    x = numbers((5, 6), dtype)
    for pads in (((1, 2), (3, 0)), ((-1, 2), (3, -2)), ((0, 0), (-4, -2)), ((0, 0), (0, 0))):
        equal(moved(placing.pad_constant, x, pads, 1), place.pad_constant(x, pads, 1))


@pytest.mark.parametrize("dtype", [*MOVED, np.bool_])
def test_roll(dtype):
    x = numbers((5, 6, 7), dtype)
    for k, axis in (
        (3, 0),
        (-9, 2),
        ((1, 2), (0, 1)),
        ((1, 2), (1, 1)),
        (0, 1),
        ((1, 2, 3), (0, 1, 2)),
    ):
        equal(moved(placing.roll, x[::-1], k, axis), np.roll(x[::-1], k, axis))
    equal(moved(placing.roll, x[:0], 1, 0), x[:0])
    assert placing.roll(InParts(), x, 1) is NotImplemented


@pytest.mark.parametrize("dtype", MOVED)
def test_triangles(dtype):
    for shape in ((6, 6), (3, 7), (7, 3), (2, 4, 5), (0, 3), (3, 0)):
        x = numbers(shape, dtype)
        for k in (-9, -2, -1, 0, 1, 3, 9):
            equal(moved(placing.tril, x, k), np.tril(x, k))
            equal(moved(placing.triu, x, k), np.triu(x, k))


# --- by index -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("shape", "axis", "count"),
    [((7, 9), 1, 4), ((7, 9), 0, 12), ((3, 5, 700), 1, 8), ((2, 1500), 1, 1100), ((6,), 0, 3),
     ((1, 900), 0, 2), ((3, 0), 0, 2), ((0, 3), 1, 2)],
)  # fmt: skip
def test_gather_and_scatter(dtype, shape, axis, count):
    rng = np.random.default_rng(0)
    index = rng.integers(0, max(shape[axis], 1), (*shape[:axis], count, *shape[axis + 1 :]))
    x, v = numbers(shape, dtype), numbers(index.shape, dtype, 1)
    message = "{bad} of {n}", RuntimeError
    wrapped = index - shape[axis] * (index % 2)
    equal(moved(indexing.gather, x, wrapped, axis), place.gather(x, wrapped, axis))
    equal(moved(indexing.gather, x, index, axis, message), place.gather(x, index, axis))
    for start in (None, x):
        found = both(indexing.scatter_add, shape, axis, index, v, start, message)
        np.testing.assert_allclose(
            found, scatter.scatter_add(shape, axis, index, v, start), rtol=1e-5, atol=1e-5
        )
    if index.size:
        index.flat[-1] = -1
        for fn, args in (
            (indexing.gather, (x, index, axis, message)),
            (indexing.scatter_add, (shape, axis, index, v, x, message)),
        ):
            plan = InParts(2)
            fn(plan, *args)
            assert plan.failed


def test_errors_of_indices_are_those_of_numpy(native):
    x = kg.randn(30, 40)
    index = kg.zeros(30, 20, dtype=kg.int64)
    index[3, 4] = 40
    for fn in (
        lambda: x.gather(1, index),
        lambda: x.scatter_add(1, index, kg.ones(30, 20)),
    ):
        with pytest.raises(RuntimeError, match="index 40 is out of bounds .* size 40"):
            fn()
    with pytest.raises(RuntimeError, match="index -1 is out of bounds"):
        x.gather(1, index - 1)


# --- scans, places, products ----------------------------------------------------------------------

AROUND = [((7, 9), 1), ((9, 7), 0), ((4, 5, 6), 1), ((1, 300), 1), ((3, 2000), 0), ((5, 1), 1),
          ((6, 700), 1), ((3, 5, 1100), -2), ((4,), 0)]  # fmt: skip


def peculiar(shape, dtype):
    """Few values, hence ties; zeros of both signs, infinities and a nan here and there."""
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, shape).astype(dtype)
    x[x == 0] *= rng.choice([1, -1], shape)[x == 0]
    x[rng.random(shape) < 0.02] = np.inf
    x[rng.random(shape) < 0.02] = -np.inf
    x[rng.random(shape) < 0.01] = np.nan
    return x


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("shape", "axis"), AROUND)
def test_scans(dtype, shape, axis):
    x = numbers(shape, dtype) / 10
    for reverse in (False, True):
        for native_form, numpy_form in (
            (order.cumsum, kernels.cumsum),
            (order.cumprod, kernels.cumprod),
        ):
            equal(moved(native_form, x, axis, reverse), numpy_form(x, axis, reverse))
            equal(moved(native_form, x[::-1], axis, reverse), numpy_form(x[::-1], axis, reverse))
    equal(moved(order.cumsum, x[:0], axis), x[:0].cumsum(axis))
    assert order.cumsum(InParts(), x.astype(int), axis) is NotImplemented


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("shape", "axis"), AROUND)
def test_places_of_extremes(dtype, shape, axis):
    for x in (numbers(shape, dtype), peculiar(shape, dtype), peculiar(shape, dtype)[::-1]):
        for keepdims in (False, True):
            how = {"axis": axis, "keepdims": keepdims}
            equal(both(order.argmax, x, exactly=True, **how), x.argmax(**how))
            equal(both(order.argmin, x, exactly=True, **how), x.argmin(**how))
    assert order.argmax(InParts(), x) is NotImplemented
    assert order.argmax(InParts(), x[:0], axis) is NotImplemented


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [1, 8, 15, 16, 100, 1000])
def test_top(dtype, width):
    for x in (numbers((2, 5, width), dtype), peculiar((2, 5, width), dtype)):
        for k in {1, min(3, width), min(width, 32)}:
            for largest in (True, False):
                expected = kernels.argsort(x, -1, largest)[..., :k]
                equal(moved(order.arg_topk, x, k, -1, largest), expected)


@pytest.mark.parametrize("dtype", FLOATS)
def test_products(dtype):
    x = 1 + numbers((6, 7, 40), dtype) / 100
    for axis in ((0,), (1,), (2,), (0, 2), (1, 2), (0, 1, 2)):
        np.testing.assert_allclose(
            both(reductions.product_over, x, axis), x.prod(axis), rtol=1e-5, atol=0
        )


# --- draws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*FLOATS, np.float16])
@pytest.mark.parametrize("n", [1, 15, 16, 37, 1024, 5000, 20_011])
def test_draws_are_the_same_bits(native, monkeypatch, dtype, n):
    found = []
    for limit in (1, np.inf):
        monkeypatch.setattr(LARGE, "limit", limit)
        g = random.Generator().manual_seed(n)
        draws = (
            random.uniform(g, n, dtype=dtype), random.uniform(g, n, -2.5, 3.25, dtype=dtype),
            random.normal(g, n, dtype=dtype), random.normal(g, (n, 2), 1.5, 0.3, dtype=dtype),
            random.dropout_mask(g, (n,), 0.3, dtype=dtype), random.dropout_mask(g, (2, n), 0.5, dtype=dtype),
            g.get_state(),
        )  # fmt: skip
        found.append(draws)
    for a, b in zip(*found, strict=True):
        equal(a, b)


# --- gradients ------------------------------------------------------------------------------------

OPS = {
    "transpose": lambda x: x.transpose(0, 1).contiguous(),
    "slice": lambda x: x[2:-3, ::2],
    "repeat": lambda x: x.repeat(2, 1, 3),
    "roll": lambda x: x.roll((2, -5), (0, 1)),
    "flip": lambda x: x.flip(0, 1),
    "tril": lambda x: x.tril(1),
    "triu": lambda x: x.triu(-2),
    "cat": lambda x: kg.cat((x, x.T), 1),
    "stack": lambda x: kg.stack((x, x.T), 2),
    "chunk": lambda x: x.chunk(3, 1)[1],
    "gather": lambda x: x.gather(1, INDEX),
    "gather dim 0": lambda x: x.gather(0, INDEX),
    "scatter_add": lambda x: x.scatter_add(1, INDEX, x * 2),
    "cumsum": lambda x: x.cumsum(1) * x.cumsum(0),
    "cumprod": lambda x: x.cumprod(1),
    "prod": lambda x: x.prod(0),
    "max": lambda x: x.max(0)[0] + x.max(1)[0],
    "min": lambda x: x.min(0)[0] + x.min(1)[0],
    "amax": lambda x: x.amax(1) + x.max() * x.amin(0),
    "topk": lambda x: x.topk(3, 1)[0],
    "index_select": lambda x: x.index_select(1, INDEX[0, :7]),
}
INDEX = kg.tensor(np.random.default_rng(0).integers(0, 20, (20, 20)))


@pytest.mark.parametrize("name", OPS)
def test_gradients(native, monkeypatch, name):
    x = kg.tensor(numbers((20, 20), np.float64), requires_grad=True)
    y = OPS[name](x)
    g = kg.tensor(numbers(tuple(y.shape), np.float64, 1))
    (dx,) = kg.autograd.grad(y, x, g)
    assert eager._programs
    monkeypatch.setattr(LARGE, "limit", np.inf)
    expected = OPS[name](x)
    np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(
        dx.numpy(), kg.autograd.grad(expected, x, g)[0].numpy(), rtol=1e-9, atol=1e-9
    )


def test_sums_of_few_rows():
    for rows in (1, 2, 7, 8, 9):
        x = numbers((3, rows, 5000), np.float32)
        np.testing.assert_allclose(
            both(reductions.sum_over, x, (1,)), x.sum(1), rtol=1e-5, atol=1e-4
        )
        np.testing.assert_allclose(
            both(reductions.mean_over, x, (1,)), x.mean(1), rtol=1e-5, atol=1e-4
        )
