import inspect

import numpy as np
import pytest

from kilograd import random
from kilograd.kernels import attention as attention_kernels
from kilograd.kernels import place, scatter
from kilograd.kernels.native import attention, build, draws, indexing, recurrent
from kilograd.kernels.native.plan import AtOnce
from kilograd.ops import rnn

pytestmark = pytest.mark.skipif(not build.available(), reason=build.why_not())

DTYPES = [np.float32, np.float64]
TOLERANCE = {np.dtype(np.float32): 3e-5, np.dtype(np.float64): 1e-12}


class InParts(AtOnce):
    """The plan that runs a kernel part after part, as threads would."""

    def __init__(self, parts=1):
        self.parts = parts
        self.statuses = []

    def call(self, kernel, *args, dtype, work=0):
        table = kernel.pack(args, np.dtype(dtype))
        run = build._c_function(kernel.address(dtype))
        parts = self.parts if kernel.divides else 1
        for part in range(parts):
            run(table.ctypes.data, part, parts)

    def status(self):
        self.statuses.append(np.zeros(1, np.int64))
        return self.statuses[-1]

    @property
    def failed(self):
        return any(s[0] for s in self.statuses)


def flat(x):
    if isinstance(x, (tuple, list)):
        return [a for part in x for a in flat(part)]
    return [x]


def assert_same(expected, found, exactly=False):
    assert found is not NotImplemented
    expected, found = flat(expected), flat(found)
    assert len(expected) == len(found)
    for a, b in zip(expected, found, strict=True):
        if a is None:
            assert b is None
            continue
        assert a.shape == b.shape and a.dtype == b.dtype
        if exactly:
            np.testing.assert_array_equal(a, b)
        else:
            tolerance = TOLERANCE[a.dtype]
            largest = np.abs(a[np.isfinite(a)]).max(initial=1.0)
            np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance * largest)


def both(fn, *args, exactly=False, **kwargs):
    """fn(plan, …) in one part, which must be what it is in two and in three."""
    one = fn(InParts(1), *args, **kwargs)
    for parts in (2, 3):
        assert_same(one, fn(InParts(parts), *args, **kwargs), exactly)
    return one


def numbers(seed):
    rng = np.random.default_rng(seed)
    return lambda *shape, dtype: (rng.standard_normal(shape) * 0.5).astype(dtype)


# --- recurrences ----------------------------------------------------------------------------------

TIMES = [((5, 5, 5), 7), ((4, 3, 3, 1), 16), ((1,), 3), ((32,) * 3, 64), ((3, 2), 130), ((140,), 9)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("sizes", "size"), TIMES)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("projected", [False, True])
def test_lstm(dtype, sizes, size, reverse, projected):
    new = numbers(0)
    rows, batch, wide = sum(sizes), max(sizes), max(size // 2, 1) if projected else size
    w = new(4 * size, wide, dtype=dtype) / np.sqrt(size, dtype=dtype)
    w_hr = new(wide, size, dtype=dtype) if projected else None
    bias = None if reverse else new(4 * size, dtype=dtype)
    gates, h, c = (new(*s, dtype=dtype) for s in ((rows, 4 * size), (batch, wide), (batch, size)))
    how = {"sizes": sizes, "reverse": reverse}
    given = (gates, h, c, w, bias, w_hr)
    expected = rnn.lstm.forward(*given, **how)
    assert_same(expected, both(recurrent.lstm, *given, **how))
    g = (new(rows, wide, dtype=dtype), new(batch, wide, dtype=dtype), new(batch, size, dtype=dtype))
    given = (g, w, w_hr, *expected[1:], sizes, reverse)
    assert_same(rnn.lstm.derivatives[0].rule(*given), both(recurrent.lstm_gradient, *given))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("sizes", "size"), TIMES)
@pytest.mark.parametrize("reverse", [False, True])
def test_gru(dtype, sizes, size, reverse):
    new = numbers(1)
    rows, batch = sum(sizes), max(sizes)
    w = new(3 * size, size, dtype=dtype) / np.sqrt(size, dtype=dtype)
    bias = None if reverse else new(3 * size, dtype=dtype)
    how = {"sizes": sizes, "reverse": reverse}
    given = (new(rows, 3 * size, dtype=dtype), new(batch, size, dtype=dtype), w, bias)
    expected = rnn.gru.forward(*given, **how)
    assert_same(expected, both(recurrent.gru, *given, **how))
    g = (new(rows, size, dtype=dtype), new(batch, size, dtype=dtype))
    given = (g, w, *expected[1:], sizes, reverse)
    assert_same(rnn.gru.derivatives[0].rule(*given), both(recurrent.gru_gradient, *given))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("sizes", "size"), TIMES)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_rnn(dtype, sizes, size, reverse, nonlinearity):
    new = numbers(2)
    rows, batch = sum(sizes), max(sizes)
    w = new(size, size, dtype=dtype) / np.sqrt(size, dtype=dtype)
    bias = None if reverse else new(size, dtype=dtype)
    how = {"sizes": sizes, "reverse": reverse, "nonlinearity": nonlinearity}
    given = (new(rows, size, dtype=dtype), new(batch, size, dtype=dtype), w, bias)
    expected = rnn.rnn.forward(*given, **how)
    assert_same(expected, both(recurrent.rnn, *given, **how))
    g = (new(rows, size, dtype=dtype), new(batch, size, dtype=dtype))
    given = (g, w, *expected[1:], sizes, reverse, nonlinearity)
    assert_same(rnn.rnn.derivatives[0].rule(*given), both(recurrent.rnn_gradient, *given))


def test_recurrences_take_what_the_ops_take():
    for op, forward, gradient in (
        (rnn.lstm, recurrent.lstm, recurrent.lstm_gradient),
        (rnn.gru, recurrent.gru, recurrent.gru_gradient),
        (rnn.rnn, recurrent.rnn, recurrent.rnn_gradient),
    ):
        (derivative,) = op.derivatives
        for of, native in ((op.forward, forward), (derivative.rule, gradient)):
            assert ["plan", *inspect.signature(of).parameters] == [
                *inspect.signature(native).parameters
            ]
    assert recurrent.gru(
        AtOnce(), *[np.ones((3, 3), np.float16)] * 4, sizes=(3,), reverse=False
    ) is (NotImplemented)


# --- attention ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("batch", "L", "S", "E", "D"),
    [((), 5, 7, 3, 4), ((3,), 16, 16, 8, 8), ((2, 3), 64, 64, 16, 16), ((2, 2), 70, 65, 8, 5),
     ((2, 1), 130, 130, 4, 4), ((1, 2), 1, 33, 4, 4)],
)  # fmt: skip
def test_attention(dtype, batch, L, S, E, D):
    new = numbers(3)
    rng = np.random.default_rng(3)
    q, k, v = (new(*batch, n, m, dtype=dtype) * 4 for n, m in ((L, E), (S, E), (S, D)))
    keep = ((rng.random((*batch, L, S)) < 0.8) * 1.25).astype(dtype)
    some = rng.random((L, S)) < 0.5
    some[0] = False  # a query that may look nowhere
    far = rng.random((*batch[:1], *(1,) * (len(batch) - 1), 1, S)) < 0.5
    for mask, kept, causal in (
        (None, None, False), (None, None, True), (None, keep, True), (some, None, False),
        (new(L, S, dtype=dtype), keep, False), (far, keep, False), (new(S, dtype=dtype), None, False),
    ):  # fmt: skip
        given = (q, k, v, mask, kept, 0.3, causal)
        y, p = attention_kernels.attention(*given)
        assert_same((y, p), both(attention.attention, *given))
        g = new(*y.shape, dtype=dtype)
        given = (g, q, k, v, kept, p, 0.3)
        expected = attention_kernels.attention_gradient(*given)
        assert_same(expected, both(attention.attention_gradient, *given))


def test_attention_reads_heads_where_they_are_and_shared_ones():
    new = numbers(4)
    x = new(3, 10, 3, 4, 8, dtype=np.float32)
    q, k, v = (x[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    for keys in (k, k[:1, :1], k[0, 0], k[..., ::-1, :]):
        given = (q, keys, v, None, None, 0.3, True)
        y, p = attention_kernels.attention(*given)
        assert_same((y, p), attention.attention(AtOnce(), *given))
        given = (np.broadcast_to(np.float32(1), y.shape), q, keys, v, None, p, 0.3)
        expected = attention_kernels.attention_gradient(*given)
        assert_same(expected, attention.attention_gradient(AtOnce(), *given))


def test_attention_of_nan_and_infinity():
    new = numbers(5)
    q, k, v = (new(1, 40, 4, dtype=np.float32) for _ in range(3))
    q[0, 3, 1], q[0, 5] = np.nan, -np.nan
    with np.errstate(all="ignore"):
        _, expected = attention_kernels.attention(q, k, v, None, None, 1.0, False)
    _, found = attention.attention(AtOnce(), q, k, v, None, None, 1.0, False)
    np.testing.assert_array_equal(np.isnan(expected), np.isnan(found))
    for value in (np.inf, -np.inf, np.nan):
        mask = np.zeros((40, 40), np.float32)
        mask[1] = value
        mask[2, 2] = value
        given = (np.nan_to_num(q), k, v, mask, None, 1.0, False)
        with np.errstate(all="ignore"):
            _, expected = attention_kernels.attention(*given)
        _, found = attention.attention(AtOnce(), *given)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


# --- indexing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_take(dtype):
    rng = np.random.default_rng(6)
    x = rng.integers(-99, 99, (4, 5, 6)).astype(dtype)
    for shape in ((), (1,), (7,), (2, 3), (0,)):
        for axis in (0, 1, -1):
            n = x.shape[axis]
            index = rng.integers(-n, n, shape)
            assert_same(
                x.take(index, axis), both(indexing.take, x, index, axis, exactly=True), True
            )
            where = (*(slice(None),) * (axis % 3), index)
            assert_same(x[where], both(indexing.getitem, x, where, exactly=True), True)
        index = rng.integers(-4, 4, shape)
        assert_same(x[index], both(indexing.take_rows, x, index, exactly=True), True)
        index = rng.integers(0, 6, shape)
        assert_same(x[..., index], both(indexing.getitem, x, (..., index), exactly=True), True)
    assert indexing.getitem(AtOnce(), x, (index, index)) is NotImplemented
    assert indexing.getitem(AtOnce(), x, x > 0) is NotImplemented


@pytest.mark.parametrize("bad", [4, -5, 2**40])
def test_an_index_out_of_bounds_is_reported(bad):
    x, index = np.ones((4, 3)), np.array([0, bad])
    for fn, args in (
        (indexing.take_rows, (x, index)), (indexing.put_rows_add, ((4, 3), index, np.ones((2, 3)))),
        (indexing.gather, (x, np.full((1, 3), bad), 0)), (indexing.embedding, (x, index)),
        (indexing.one_hot, (index, 4)), (indexing.in_range, (index, 4, "", IndexError)),
        (indexing.scatter_add, ((4, 3), 0, np.full((1, 3), bad), x[:1])),
    ):  # fmt: skip
        plan = InParts(2)
        fn(plan, *args)
        assert plan.failed
    for fn, args in (
        (indexing.embedding, (x, np.array([-1]))), (indexing.one_hot, (np.array([-1]), 4)),
        (indexing.in_range, (np.array([-1]), 4, "", IndexError)),
    ):  # fmt: skip
        plan = InParts()
        fn(plan, *args)
        assert plan.failed
    plan = InParts()
    fn(plan, np.array([0, 3]), 4, "", IndexError)
    assert not plan.failed


@pytest.mark.parametrize("dtype", DTYPES)
def test_adding_at_rows(dtype):
    new, rng = numbers(7), np.random.default_rng(7)
    for shape in ((9,), (4, 3), (0,)):
        index = rng.integers(-5, 5, shape)
        for rest in ((), (3,), (2, 20)):
            v = new(*shape, *rest, dtype=dtype)
            expected = scatter.index_put_add((5, *rest), index, v)
            assert_same(
                expected, both(indexing.put_rows_add, (5, *rest), index, v, exactly=True), True
            )
            assert_same(expected, indexing.index_put_add(AtOnce(), (5, *rest), (index,), v), True)
    index = rng.integers(0, 6, 8)
    for axis in range(-3, 3):
        shape = [4, 3, 5]
        shape[axis] = 8
        v = new(*shape, dtype=dtype)
        shape[axis] = 6
        expected = scatter.index_add(tuple(shape), index, v, axis)
        assert_same(
            expected, both(indexing.index_add, tuple(shape), index, v, axis, exactly=True), True
        )
    g, index = new(6, 7, 33, dtype=dtype), rng.integers(0, 5, (6, 7))
    for padding in (None, 2, -1):
        given = (g, index, 5, padding)
        expected = scatter.embedding_grad(*given)
        assert_same(expected, both(indexing.embedding_grad, *given, exactly=True), True)
    w = new(5, 33, dtype=dtype)
    assert_same(place.embedding(w, index), both(indexing.embedding, w, index, exactly=True), True)
    assert_same(place.one_hot(index, 5), both(indexing.one_hot, index, 5, exactly=True), True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_elements_along_an_axis(dtype):
    new, rng = numbers(8), np.random.default_rng(8)
    x = new(4, 7, 5, dtype=dtype)
    for axis in range(3):
        n = x.shape[axis]
        for count in (1, n, 2 * n):
            shape = list(x.shape)
            shape[axis] = count
            index = rng.integers(0, n, shape)
            given = (x, index - n * (index % 2), axis)
            assert_same(place.gather(*given), both(indexing.gather, *given, exactly=True), True)
            v = new(*shape, dtype=dtype)
            given = (x.shape, axis, index, v)
            expected = scatter.scatter_add(*given)
            assert_same(expected, both(indexing.scatter_add, *given, exactly=True), True)
        index = rng.random(x.shape).argsort(axis)
        given = (x, index, x.shape, axis)
        expected = place.scatter_zeros(*given)
        assert_same(expected, both(indexing.scatter_zeros, *given, exactly=True), True)
    smaller = np.zeros((2, 1, 5), np.int64)
    assert indexing.gather(AtOnce(), x, smaller, 1) is NotImplemented


# --- draws ----------------------------------------------------------------------------------------


@pytest.fixture
def streams():
    """Two generators at the same place, and the address of the second one's state."""
    eager, native = (random.Generator().manual_seed(11) for _ in range(2))
    return eager, native, native._twister.ctypes.state_address


def assert_same_draw(expected, found, eager, native):
    assert expected.dtype == found.dtype and expected.shape == found.shape
    assert expected.tobytes() == found.tobytes()
    native._untouched = eager._untouched
    np.testing.assert_array_equal(eager.get_state(), native.get_state())


LENGTHS = [
    (),
    (1,),
    (3,),
    (311,),
    (623,),
    (624,),
    (625,),
    (1247,),
    (1249,),
    (3, 5, 7),
    (20001,),
    (0,),
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_masks_are_the_eager_ones(streams, dtype):
    eager, native, state = streams
    for shape in LENGTHS:
        for p in (0.5, 0.1, 1 / 3, 1e-9, 0, 1, 0.0, 1.0):
            expected = random.dropout_mask(eager, shape, p, dtype)
            found = draws.dropout_mask(AtOnce(), state, shape, p, dtype)
            assert_same_draw(expected, found, eager, native)
        random.uniform(eager, 1), random.uniform(native, 1)  # one word: pairs begin elsewhere


@pytest.mark.parametrize("dtype", DTYPES)
def test_uniform_numbers_are_the_eager_ones(streams, dtype):
    eager, native, state = streams
    for shape in LENGTHS:
        for low, high in (
            (0, 1), (-1, 1), (0, 2), (0.3, 0.7), (-3.3, 5), (0, 0.1), (2, 2), (1, 2), (-1e9, 1e-9),
        ):  # fmt: skip
            expected = random.uniform(eager, shape, low, high, dtype)
            found = draws.uniform(AtOnce(), state, shape, low, high, dtype)
            assert_same_draw(expected, found, eager, native)
        random.uniform(eager, 1), random.uniform(native, 1)


def test_draws_refuse_what_only_the_eager_ones_serve(streams):
    _, _, state = streams
    assert draws.dropout_mask(AtOnce(), state, (3,), 0.5, np.float16) is NotImplemented
    assert draws.dropout_mask(AtOnce(), state, (3,), 1.5, np.float32) is NotImplemented
    assert draws.uniform(AtOnce(), state, (3,), 2.0, 1.0) is NotImplemented
