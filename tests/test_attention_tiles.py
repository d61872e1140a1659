"""Attention in tiles is attention that keeps the softmax, on any number of threads, without its memory."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest

import kilograd as kg
from kilograd.kernels import attention as kernels
from kilograd.kernels import threads
from kilograd.kernels.native import build
from kilograd.kernels.native.plan import AtOnce
from kilograd.ops import attention as ops
from tests.test_native_sequence import DTYPES, InParts, assert_same

F = kg.nn.functional
native = pytest.mark.skipif(not build.available(), reason=build.why_not())

SHAPES = [  # batch, L, S, E, D
    ((), 5, 7, 3, 4), ((3,), 16, 16, 8, 8), ((2, 3), 70, 65, 8, 5), ((2, 1), 130, 130, 4, 40),
    ((1, 2), 1, 33, 4, 4), ((1, 1), 300, 200, 16, 70), ((1,), 100, 300, 20, 20), ((2,), 64, 64, 32, 32),
]  # fmt: skip


@pytest.fixture
def everything_in_tiles(monkeypatch):
    monkeypatch.setattr(ops, "TILED", 1)
    monkeypatch.setattr(ops, "TILED_BY_NUMPY", 1)
    monkeypatch.setattr(ops, "FEW", 1)


def operands(batch, L, S, E, D, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [
        (rng.standard_normal((*batch, n, m)) * 2).astype(dtype)
        for n, m in ((L, E), (S, E), (S, D), (L, D))
    ]


def masks(batch, L, S, dtype):
    """(mask, keep, is_causal)."""
    rng = np.random.default_rng(1)
    keep = ((rng.random((*batch, L, S)) < 0.8) * 1.25).astype(dtype)
    some = rng.random((L, S)) < 0.5
    some[0] = False  # a query that may look nowhere
    far = rng.random((*batch[:1], *(1,) * (len(batch) - 1), 1, S)) < 0.5
    add, row, column = (rng.standard_normal(s).astype(dtype) for s in ((L, S), (S,), (L, 1)))
    return [
        (None, None, False), (None, None, True), (None, keep, True), (some, None, False),
        (add, keep, False), (far, keep, False), (row, None, False), (column, None, False),
        (np.where(some, 0, -math.inf).astype(dtype), None, False),
    ]  # fmt: skip


def kept(q, k, v, g, mask, keep, is_causal):
    """What the version that keeps the softmax gives: y, dq, dk and dv."""
    y, p = kernels.attention(q, k, v, mask, keep, 0.3, is_causal)
    return y, *kernels.attention_gradient(g, q, k, v, keep, p, 0.3)[:3]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_tiles_by_numpy(dtype, shape, monkeypatch):
    q, k, v, g = operands(*shape, dtype)
    for block, (mask, keep, causal) in itertools.product(
        (kernels.BLOCK, 64), masks(*shape[:3], dtype)
    ):
        monkeypatch.setattr(kernels, "BLOCK", block)
        y, *sums = kernels.tiled_attention(q, k, v, mask, keep, 0.3, causal)
        given = (g, q, k, v, mask, keep, y, *sums, 0.3, causal)
        assert_same(
            kept(q, k, v, g, mask, keep, causal), (y, kernels.tiled_attention_gradient(*given))
        )


@native
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_tiles_natively(dtype, shape, monkeypatch):
    from kilograd.kernels.native import attention

    monkeypatch.setattr(threads, "cores", lambda: 16)
    q, k, v, g = operands(*shape, dtype)
    for mask, keep, causal in masks(*shape[:3], dtype):
        expected = kept(q, k, v, g, mask, keep, causal)
        _, *sums = kernels.tiled_attention(q, k, v, mask, keep, 0.3, causal)
        for parts in (1, 2, 5):  # 5: several threads in the middle of the same head
            plan = InParts(parts)
            y, *found = attention.tiled_attention(plan, q, k, v, mask, keep, 0.3, causal)
            assert_same(sums, found)
            given = (g, q, k, v, mask, keep, y, *found, 0.3, causal)
            assert_same(expected, (y, attention.tiled_attention_gradient(plan, *given)))


@native
@pytest.mark.parametrize("length", [70, 520])  # where many queries read them, they are copied
def test_heads_are_read_where_they_are_and_shared(length):
    from kilograd.kernels.native import attention

    x = np.random.default_rng(2).standard_normal((2, length, 3, 3, 8))
    q, k, v = (x[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    for keys in (k, k[:1, :1], k[0, 0], k[..., ::-1, :]):
        y, *sums = kernels.tiled_attention(q, keys, v, None, None, 0.3, True)
        found = attention.tiled_attention(InParts(2), q, keys, v, None, None, 0.3, True)
        assert_same((y, *sums), found)
        g = np.broadcast_to(1.0, y.shape)
        given = (g, q, keys, v, None, None, y, *sums, 0.3, True)
        assert_same(
            kernels.tiled_attention_gradient(*given),
            attention.tiled_attention_gradient(InParts(2), *given),
        )


@native
def test_nan_and_infinity():
    from kilograd.kernels.native import attention

    q, k, v, _ = operands((1,), 40, 80, 4, 3, np.float32)
    bad = q.copy()
    bad[0, 3, 1], bad[0, 5], bad[0, 7, 0] = np.nan, -np.nan, np.inf
    cases = [(bad, None), (bad, np.zeros((40, 80), bool))]
    for value in (np.inf, -np.inf, np.nan):
        mask = np.zeros((40, 80), np.float32)
        mask[1], mask[2, 2] = value, value
        cases.append((q, mask))
    for queries, mask in cases:
        with np.errstate(all="ignore"):
            expected, _ = kernels.attention(queries, k, v, mask, None, 1.0, False)
            by_numpy = kernels.tiled_attention(queries, k, v, mask, None, 1.0, False)
        found = attention.tiled_attention(AtOnce(), queries, k, v, mask, None, 1.0, False)
        for y in (by_numpy[0], found[0]):
            np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def both_kinds(monkeypatch, run):
    """run() keeping the softmax, and in tiles."""
    found = []
    for limit in (math.inf, 1):
        monkeypatch.setattr(ops, "TILED", limit)
        monkeypatch.setattr(ops, "TILED_BY_NUMPY", limit)
        monkeypatch.setattr(ops, "FEW", 1)
        kg.manual_seed(3)
        found.append(run())
    return found


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("seed", range(6))
def test_random_attention(monkeypatch, seed, count):
    rng = np.random.default_rng(seed)
    L, S, E, D = rng.integers(1, 150, 4)
    batch = (int(rng.integers(1, 3)), 4)
    q, k, v, g = operands(batch, L, S, E, D, seed=seed)
    options = {"is_causal": bool(seed % 2), "dropout_p": 0.3 * (seed % 3 == 2)}
    shared = seed % 2 == 1  # two heads of keys and values for four of queries
    mask = None if options["is_causal"] else kg.tensor(rng.random((batch[0], 1, L, S)) < 0.7)

    def run():
        arrays = (q, k[:, : 4 - 2 * shared], v[:, : 4 - 2 * shared])
        tensors = [kg.tensor(a, requires_grad=True) for a in arrays]
        y = F.scaled_dot_product_attention(*tensors, mask, enable_gqa=shared, **options)
        return y.detach().numpy(), *(t.numpy() for t in kg.autograd.grad(y, tensors, kg.tensor(g)))

    before = kg.get_num_threads()
    kg.set_num_threads(count)
    try:
        expected, found = both_kinds(monkeypatch, run)
    finally:
        kg.set_num_threads(before)
    assert_same(expected, found)


def test_derivatives(everything_in_tiles):
    q, k, v, _ = (kg.tensor(a, requires_grad=True) for a in operands((2, 1), 5, 6, 3, 4))
    mask = kg.tensor(np.random.default_rng(0).random((5, 6)) < 0.6)
    for options in ({}, {"is_causal": True}, {"attn_mask": mask}):

        def attend(*x, options=options):
            return F.scaled_dot_product_attention(*x, **options)

        assert kg.autograd.gradcheck(attend, (q, k, v))
        assert "TiledAttention" in attend(q, k, v).grad_fn.name()


def test_second_derivatives(monkeypatch):
    def run():
        q, k, v, g = (kg.tensor(a, requires_grad=True) for a in operands((2, 1), 5, 6, 3, 4))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        first = kg.autograd.grad(y, (q, k, v), g, create_graph=True)
        second = kg.autograd.grad(sum((d * d).sum() for d in first), (q, k, v, g))
        return [t.numpy() for t in second]

    expected, found = both_kinds(monkeypatch, run)
    assert_same(expected, found)


def test_a_mask_with_a_gradient_keeps_the_softmax(everything_in_tiles):
    q, k, v, _ = (kg.tensor(a) for a in operands((2,), 5, 6, 3, 4))
    mask = kg.tensor(np.random.default_rng(0).standard_normal((5, 6)), requires_grad=True)
    assert kg.autograd.gradcheck(lambda m: F.scaled_dot_product_attention(q, k, v, m), (mask,))


def test_the_largest_negative_number_as_a_mask(monkeypatch):
    q, k, v, g = operands((2, 2), 40, 70, 8, 8, np.float32)
    mask = np.zeros((40, 70), np.float32)
    mask[:, 50:] = mask[3] = np.finfo(
        np.float32
    ).min  # query 3 may look nowhere more than elsewhere

    def run():
        x = [kg.tensor(a, requires_grad=True) for a in (q, k, v)]
        y = F.scaled_dot_product_attention(*x, kg.tensor(mask))
        return y.detach().numpy(), *(t.numpy() for t in kg.autograd.grad(y, x, kg.tensor(g)))

    expected, found = both_kinds(monkeypatch, run)
    assert_same(expected, found)


@native
def test_in_a_compiled_step(everything_in_tiles):
    q, k, v, g = (kg.tensor(a) for a in operands((2, 4), 96, 96, 16, 16, np.float32))

    def gradients(*x):
        x = [t.detach().requires_grad_() for t in x]
        return kg.autograd.grad(F.scaled_dot_product_attention(*x, is_causal=True), x, g)

    expected = [t.numpy() for t in gradients(q, k, v)]
    compiled = kg.compile(gradients)
    for _ in range(3):
        assert_same(expected, [t.numpy() for t in compiled(q, k, v)])


# --- memory ---------------------------------------------------------------------------------------

LONG, WIDTH = 2048, 64


def run_long(forward, gradient, causal):
    q, k, v, g = operands((1, 1), LONG, LONG, WIDTH, WIDTH, np.float32)
    y, *sums = forward(q, k, v, None, None, 0.1, causal)
    assert [a.shape for a in sums] == [(1, 1, LONG)] * 2
    gradient(g, q, k, v, None, None, y, *sums, 0.1, causal)


@pytest.mark.parametrize("causal", [False, True])
def test_numpy_needs_no_matrix_of_scores(causal):
    tracemalloc.start()
    try:
        run_long(kernels.tiled_attention, kernels.tiled_attention_gradient, causal)
        assert tracemalloc.get_traced_memory()[1] < LONG * LONG * 4 / 2
    finally:
        tracemalloc.stop()


@native
@pytest.mark.parametrize("causal", [False, True])
def test_native_code_needs_no_matrix_of_scores(causal):
    from kilograd.kernels.native import attention

    class Counting(AtOnce):
        total = 0

        def empty(self, shape, dtype):
            self.total += math.prod(shape) * np.dtype(dtype).itemsize
            return super().empty(shape, dtype)

    def in_total(fn):
        def run(*args):
            plan = Counting()
            result = fn(plan, *args)
            scratch = 17 * (2 * WIDTH + 3 * 64) * 64 * 4  # of at most 16 threads
            assert plan.total < scratch + 20 * LONG * WIDTH * 4 < LONG * LONG * 4
            return result

        return run

    run_long(
        in_total(attention.tiled_attention), in_total(attention.tiled_attention_gradient), causal
    )


def test_what_is_kept():
    assert ops.tiled(256, 256) and ops.tiled(2048, 64)
    assert not ops.tiled(16, 16) and not ops.tiled(1, 1 << 20)


def test_nothing_as_large_as_the_scores_is_kept():
    tensors = [kg.tensor(a, requires_grad=True) for a in operands((1, 1), 512, 512, 8, 8)[:3]]
    y = F.scaled_dot_product_attention(*tensors)
    arrays = [a for a in y.grad_fn.kept if isinstance(a, np.ndarray)]
    assert arrays and all(a.size <= 512 * 8 for a in arrays)
