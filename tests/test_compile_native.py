"""The native executor: programs of every kind against eager and against NumPy."""

import gc
import itertools
import operator
import os
import select
import threading
import warnings
import weakref
from typing import Any, NamedTuple

import numpy as np
import pytest

import kilograd as kg
import kilograd.nn.functional as F
from kilograd import nn
from kilograd.compile import native_executor, numpy_executor, passes
from kilograd.compile import step as step_module
from kilograd.compile.graph import Equation, Graph, Var, name_of
from kilograd.errors import TraceError
from kilograd.kernels.native import build
from kilograd.tensor import Tensor, wrap

needs_numba = pytest.mark.skipif(not build.available(), reason=build.why_not())


@pytest.fixture(autouse=True)
def verified(monkeypatch):
    """Every pass is looked over, and the number of threads is put back."""
    monkeypatch.setattr(passes, "VERIFY", True)
    threads = kg.get_num_threads()
    yield
    kg.set_num_threads(threads)


def native(f, **how):
    return kg.compile(f, backend="numba", fullgraph=True, **how)


def flat(result):
    if isinstance(result, (tuple, list)):
        return [x for r in result for x in flat(r)]
    return [result]


def same(got, want, rtol=2e-6, atol=1e-6, exact=False):
    got, want = flat(got), flat(want)
    assert len(got) == len(want)
    for k, (a, b) in enumerate(zip(got, want, strict=True)):
        a, b = (x.array if isinstance(x, Tensor) else x for x in (a, b))
        assert a.dtype == b.dtype and a.shape == b.shape, (
            f"result {k}: {a.dtype}{a.shape} {b.dtype}{b.shape}"
        )
        if exact or a.dtype.kind in "biu":
            np.testing.assert_array_equal(a, b, err_msg=f"result {k}")
            if a.dtype.kind == "f":
                number = ~np.isnan(b)
                np.testing.assert_array_equal(
                    np.signbit(a)[number], np.signbit(b)[number], err_msg=f"result {k}"
                )
        else:
            np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=f"result {k}")


def left_to_python(step):
    return [name_of(s.equations[0].fn) for s in step.last.runner.steps if s.kind == "python"]


def agree(f, *args, python=(), **how):
    """Eager, recorded, and run twice: the general way and the quick way."""
    args = [wrap(a) if isinstance(a, (np.ndarray, np.generic)) else a for a in args]
    want = f(*args)
    step = native(f)
    for _ in range(3):
        same(step(*args), want, **how)
    assert isinstance(step.last.runner, native_executor.NativeProgram)
    assert set(left_to_python(step)) <= set(python)
    return step


def numbers(shape, dtype=np.float32, seed=0):
    """Numbers of a dtype, small, of both signs where it has them."""
    x = np.random.default_rng(seed).uniform(-3, 3, shape)
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return np.asarray(x > 0)
    return np.asarray(np.abs(x) if dtype.kind == "u" else x).astype(dtype)


# --- loops: broadcasting, strides, dtypes -------------------------------------------------------------

N, C, L = 3, 4, 5
SHAPES = [
    (),
    (1,),
    (L,),
    (C, 1),
    (C, L),
    (1, 1, L),
    (1, C, 1),
    (N, 1, 1),
    (N, C, 1),
    (N, 1, L),
    (N, C, L),
]


@needs_numba
def test_broadcasting():
    for k, (a, b) in enumerate(itertools.combinations_with_replacement(SHAPES, 2)):
        if k % 2 or (N, C, L) in (a, b):
            agree(lambda x, y: x * 2 + y, numbers(a, seed=k), numbers(b, seed=k + 1))


@needs_numba
def test_broadcasting_of_many():
    def f(*xs):
        total = xs[0] * 2
        for x in xs[1:]:
            total = total - x * total
        return total, xs[-1] + 1, xs[1] * xs[2], total.sum((0, 2)), total.sum(-1), total.sum()

    agree(f, *[numbers(s, seed=k) for k, s in enumerate(SHAPES)], rtol=1e-4, atol=1e-4)


@needs_numba
def test_size_one_axes_and_empty_arrays():
    f = lambda x, y: (x * y + 1, (x + y).sum(0), (x - y).sum(), (x * y).sum(-1, keepdim=True))  # noqa: E731
    # (what has no elements may be left to Python)
    for a, b in [
        ((1, 1), (1, 1)), ((1, 1, 1), ()), ((1, 5, 1), (1,)), ((2, 1, 3), (1, 4, 1)), ((0,), (0,)), ((0, 3), (3,)),
        ((3, 0), (3, 1)), ((0, 1), (1, 4)), ((2, 0, 3), ()),
    ]:  # fmt: skip
        agree(f, numbers(a), numbers(b, seed=1), python=() if 0 not in a else ("add_reduce",))
    agree(lambda x: (x.exp(), x.sum(), -x), numbers(()))


def views():
    """Looks at one memory, none of them contiguous but the first."""
    base = numbers((6, 8, 10))
    return [
        base, base.transpose(2, 1, 0), base.transpose(0, 2, 1), base[::2], base[:, ::2], base[..., ::3],
        base[1:4, 2:7, 3:5], base[::-1], base[:, ::-1], base[..., ::-2], base[2], base[:, 3], base[..., 4],
        base[::-1].transpose(1, 0, 2)[::2, ::-1], np.broadcast_to(base[0, :, :1], (6, 8, 10)), base[5, 7, 9:],
    ]  # fmt: skip


@needs_numba
def test_strides_of_arguments():
    for x in views():
        agree(lambda x: (x * 2 + x, x.sum(-1), (x * x).sum(0)), x, rtol=1e-5, atol=1e-5)


@needs_numba
def test_views_of_views():
    def f(x):
        a = x.transpose(0, 2)[1:]
        b = a.flip(0)[:, ::2].reshape(-1, 6)
        c = (x * 2)[..., None].expand(6, 8, 10, 2)[:, 3].permute(2, 0, 1)
        d = x[2].T.reshape(4, 5, 4)[1:3, ::2].transpose(0, 1)
        return a * 2, b + 1, c.sum(0), d - 1, c[0, ::2, 1:] * d[0, 0, 0], a[0, 0], b.contiguous()

    agree(f, numbers((6, 8, 10)))


@needs_numba
def test_results_that_are_inputs_and_views():
    def f(x, y):
        z = x * 2
        return x, x, y.T, y.T, z, z, z.T, z[0], y[1:], (x + y).T, kg.ones(2)

    x, y = kg.tensor(numbers((3, 4))), kg.tensor(numbers((3, 4), seed=1))
    want, step = f(x, y), native(f)
    for _ in range(3):
        got = step(x, y)
        same(got, want)
        assert got[0] is x and got[1] is x
        assert np.shares_memory(got[2].array, y.array)
        assert np.shares_memory(got[6].array, got[4].array)
        assert not np.shares_memory(got[4].array, x.array)
        assert got[4] is got[5]
    first = step(x, y)
    kept = first[4].array.copy()
    step(x * 3, y)
    np.testing.assert_array_equal(
        first[4].array, kept
    )  # results are not overwritten by later calls


FLOATS = [np.float32, np.float64]
DTYPES = [np.float32, np.float64, np.int64, np.bool_, np.int32, np.uint8]


@needs_numba
def test_dtypes():
    def f(x, y):
        return x + y, x * y, x == y, x < y, x >= y, kg.where(x > y, x, y), kg.maximum(x, y)

    for a, b in itertools.combinations_with_replacement(DTYPES, 2):
        agree(
            f,
            numbers((3, 4), a),
            numbers(4, b, 1),
            python=("maximum", "add", "multiply", "where", "cast"),
            exact=True,
        )


@needs_numba
def test_conversions():
    def f(x):
        return (
            x.float(), x.double(), x.long(), x.bool(), x.to(kg.int32), x.to(kg.uint8), x.float() * 2 + x.double(),
            x.bool() & (x > 0), ~x.bool(), x.long() * 2,
        )  # fmt: skip

    for dtype in DTYPES:
        agree(f, np.abs(numbers((2, 5), dtype)) if dtype is not np.bool_ else numbers((2, 5), dtype),
              python=("cast",), exact=True)  # fmt: skip


@needs_numba
def test_integers():
    def f(x, y):
        return (
            x + y, x - 3, x * y, -x, abs(x), x // 3, x % 3, x // y, x % y, x**2, x**3, x > y, x == 2, x / y, x * 0.5,
            x.sum(), x.sum(0), x.float().mean(-1), kg.sign(x), kg.maximum(x, y), kg.minimum(x, y), x.clamp(-1, 2),
        )  # fmt: skip

    x, y = np.arange(-12, 12).reshape(4, 6), np.array([1, 2, -3, 4, 5, -6])
    agree(f, x, y, python=("floor_divide", "remainder", "add_reduce", "sign", "pow"))


@needs_numba
def test_the_edges_of_dtypes():
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 2.7, -2.7, 0, 1e10] * 4, np.float32)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numbers that do not fit
        agree(lambda x: (x.long(), x.bool(), x.long() * 2), x, exact=True)
        agree(lambda x: (x.long(), x.long().double()), np.float64(x), exact=True)
    agree(
        lambda i: (i > 0.5, i == 2.0**53, i + i, i * 3, i.double(), i.float(), i != 0, kg.where(i > 5, i, -i), abs(i)),
        np.array([2**62, -(2**63), 2**53 + 1, 5, -7]), exact=True,
    )  # fmt: skip
    agree(
        lambda b: (b + b, b * b, b | b, b ^ b, ~b, b + 1, b * 2.5, kg.where(b, 1.0, 2.0), b == 1, b > 0.5, b.long() - 1),
        np.array([True, False]), exact=True, python=("add", "multiply"),
    )  # fmt: skip
    agree(lambda u: (u + u, u * 2, u.float() / 255, u > 100, u.long() + u, u == 255),
          np.array([0, 200, 255], np.uint8), exact=True, python=("add", "multiply"))  # fmt: skip
    agree(lambda j: (j + 1, j.float() * 0.5, j.long() * 2, j > 0, j.double()),
          np.array([2**31 - 1, -(2**31)], np.int32), exact=True, python=("add",))  # fmt: skip
    agree(
        lambda h: (h * 2, h.float() * 2),
        np.array([1, 2], np.float16),
        exact=True,
        python=("multiply", "cast"),
    )
    agree(lambda a, b, s: (a * b, a + 1.1, b + a, a > b, kg.maximum(a, b), kg.where(a > 0, a, b), a * s, a.clamp(-s, s)),
          numbers(5), numbers(5, np.float64, 1), np.float64(0.5), exact=True)  # fmt: skip


# --- loops: special values ----------------------------------------------------------------------------


def special(dtype):
    tiny = np.finfo(dtype).tiny
    values = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        2.5,
        -2.5,
        0.5,
        np.inf,
        -np.inf,
        np.nan,
        tiny,
        -tiny,
        tiny / 4,
        3e38,
        -3e38,
    ]
    x = np.array(values, dtype)
    return [np.ascontiguousarray(a) for a in np.meshgrid(x, x)]


@needs_numba
@pytest.mark.parametrize("dtype", FLOATS)
def test_special_values_exactly(dtype):
    def f(x, y):
        return (
            kg.maximum(x, y), kg.minimum(x, y), kg.fmax(x, y), kg.fmin(x, y), kg.where(x > y, x, y), x > y, x < y,
            x >= y, x <= y, x == y, x != y, kg.sign(x), abs(x), -x, kg.isnan(x), kg.isinf(x), kg.isfinite(x),
            x.clamp(-1, 2), x.clamp(min=0), kg.relu(x), x + y, x - y, x * y, x / y, x.sqrt(), x * x, x.floor(),
            x.ceil(), x.trunc(), x.round(), x.bool(), ~(x > 0), kg.copysign(x, y), 1 / x, x.double(), x.float(),
            F.leaky_relu(x, 0.1), F.hardtanh(x), kg.logical_and(x, y), kg.logical_or(x, y), kg.logical_not(x),
        )  # fmt: skip

    with np.errstate(all="ignore"):
        agree(f, *special(dtype), exact=True, python=("sign",))


@needs_numba
@pytest.mark.parametrize("dtype", FLOATS)
def test_special_values_of_functions(dtype):
    def f(x):
        return (
            x.exp(), x.log(), x.tanh(), x.sigmoid(), x.log1p(), x.expm1(), x.sin(), x.cos(), x.erf(), x.atan(),
            x.log2(), x.exp2(), x.sinh(), x.cosh(), x.asin(), x.acos(), x.tan(), x.log10(), F.softplus(x),
            x.asinh(), x.acosh(), x.atanh(), F.elu(x), F.logsigmoid(x), F.hardswish(x), x.copysign(-x),
            kg.atan2(x, x + 1),
        )  # fmt: skip

    x = special(dtype)[0].reshape(-1)[:30]
    rtol = 2e-6 if dtype is np.float32 else 1e-13
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        agree(
            f,
            x[np.abs(np.nan_to_num(x, posinf=0, neginf=0)) < 1e30],
            rtol=rtol,
            atol=rtol * 1e-30,
            python=("log10",),
        )

        def curves(x):
            return (
                F.silu(x),
                F.gelu(x),
                F.mish(x),
                F.gelu(x, approximate="tanh"),
                x.erfc(),
            )

        agree(curves, numbers(50, dtype), rtol=5 * rtol, atol=rtol)


@needs_numba
@pytest.mark.parametrize("dtype", FLOATS)
def test_powers(dtype):
    def f(x, y):
        return (
            x**2, x**3, x**0.5, x**-1, x**0, x**1, x**-2, x**4, x**1.5, x**-0.5, x**7, 2**x, 0.5**x, x**y, y**x,
            kg.pow(x, y), (-x) ** 2, (-x) ** 3,
        )  # fmt: skip

    x, y = np.abs(numbers((4, 5), dtype)) + dtype(0.1), numbers(5, dtype, 1)
    rtol = 1e-5 if dtype is np.float32 else 1e-12
    agree(f, x, y, rtol=rtol)
    g = lambda x: (x**2, x**3, x**0.5, x**-1, x**-2, x**1.5, x**0)  # noqa: E731
    with np.errstate(all="ignore"):
        agree(g, special(dtype)[0].reshape(-1)[:15], rtol=rtol, atol=0)


# --- sums -----------------------------------------------------------------------------------------------


@needs_numba
def test_sums_over_all_axes():
    axes = [a for n in (1, 2, 3, 4) for a in itertools.combinations(range(4), n)]

    def sums(x):
        y = x * 2
        return [(y + 1).sum(a, keepdim=k) for a in axes for k in (False, True)]

    def means(x):
        y = x * 2
        return [y.mean(a) for a in axes], y.sum(), y.mean()

    x = numbers((2, 3, 4, 5))
    agree(sums, x, rtol=1e-5, atol=1e-5)
    agree(means, x, rtol=1e-5, atol=1e-5)
    agree(means, np.float64(x), rtol=1e-13)
    agree(
        lambda x: (x.sum(0), x.mean((1, 3)), x.sum(-1), x.sum()),
        x.transpose(3, 1, 0, 2),
        rtol=1e-5,
        atol=1e-5,
    )


@needs_numba
def test_long_sums_do_not_lose_digits():
    x = np.random.default_rng(0).uniform(0, 1, (1000, 1000)).astype(np.float32)

    def f(x):
        y = x * 1.5
        return y.sum(), y.mean(), y.sum(0), y.sum(1), y.reshape(-1).sum(0)

    step = native(f)
    step(kg.tensor(x))
    total, mean, columns, rows, again = [t.array for t in step(kg.tensor(x))]
    y = (x * np.float32(1.5)).astype(np.float64)
    assert (
        abs(total / y.sum() - 1) < 2e-6
        and abs(mean / y.mean() - 1) < 2e-6
        and abs(again / y.sum() - 1) < 2e-6
    )
    np.testing.assert_allclose(columns, y.sum(0), rtol=2e-5)
    np.testing.assert_allclose(rows, y.sum(1), rtol=5e-6)


@needs_numba
def test_sums_in_one_loop():
    def f(x, y):
        a = x * y
        b = a.exp()
        return (
            a,
            a.sum(),
            b.sum(),
            b.sum(0),
            b.sum(1),
            (a * b).mean(),
            (a - a.mean(-1, keepdim=True)).square().sum(-1),
        )

    step = agree(f, numbers((7, 9)), numbers(9, seed=1), rtol=1e-5, atol=1e-4)
    assert len([s for s in step.last.runner.steps if s.kind == "loop"]) <= 4


@needs_numba
def test_empty_sums():
    agree(
        lambda x: (x.sum(), x.sum(0), x.sum(1), x.mean(1) * 0),
        numbers((3, 0)),
        python=("add_reduce",),
        exact=True,
    )
    agree(
        lambda x: ((x * 2).sum(0), (x * 2).sum()),
        numbers((0, 3)),
        python=("add_reduce",),
        exact=True,
    )


# --- products -------------------------------------------------------------------------------------------

PRODUCTS = [
    ((3, 4), (4, 5)), ((1, 4), (4, 1)), ((4,), (4,)), ((4,), (4, 5)), ((3, 4), (4,)), ((2, 3, 4), (4, 5)),
    ((2, 3, 4), (2, 4, 5)), ((6, 2, 3, 4), (2, 4, 5)), ((2, 1, 3, 4), (5, 4, 2)), ((3, 1, 2, 2, 3), (2, 1, 3, 2)),
    ((4,), (2, 4, 3)), ((2, 3, 4), (4,)), ((0, 4), (4, 3)), ((3, 0), (0, 2)), ((3, 4), (4, 0)), ((2, 0, 4), (4, 3)),
    ((0, 3, 4), (0, 4, 2)), ((40, 50), (50, 60)), ((1, 300), (300, 2)), ((300, 1), (1, 20)), ((70, 3), (3, 70)),
]  # fmt: skip


@needs_numba
@pytest.mark.parametrize("dtype", FLOATS)
def test_products(dtype):
    rtol = 2e-5 if dtype is np.float32 else 1e-12
    for a, b in PRODUCTS:
        agree(lambda x, y: x @ y, numbers(a, dtype), numbers(b, dtype, 1), rtol=rtol, atol=10 * rtol,
              python=("matmul",) if len(a) + len(b) > 6 else ())  # fmt: skip


@needs_numba
@pytest.mark.parametrize("dtype", FLOATS)
def test_products_of_views(dtype):
    rtol = 2e-5 if dtype is np.float32 else 1e-12
    for m, n, k in ((3, 4, 5), (30, 40, 50)):
        a, b = numbers((2 * m, 2 * k), dtype), numbers((2 * k, 2 * n), dtype, 1)
        lefts = [
            a[:m, :k],
            a[::2, ::2],
            a[m:, 1 : k + 1],
            a[:m, k:][:, ::-1],
            np.asfortranarray(a[:m, :k]),
        ]
        rights = [
            b[:k, :n],
            b[::2, ::2],
            b[k:, 2 : n + 2],
            b[:k, :n][::-1],
            np.asfortranarray(b[:k, :n]),
        ]
        for x, y in zip(lefts, rights, strict=True):
            agree(
                lambda x, y: (x @ y, y.T @ x.T, x @ x.T, (x * 2).T @ x),
                x,
                y,
                rtol=rtol,
                atol=10 * rtol,
            )
    x, y = numbers((2, 3, 4, 5), dtype), numbers((2, 3, 4, 6), dtype, 1)
    agree(lambda x, y: (x.mT @ y, x.transpose(0, 1).mT @ y.transpose(0, 1), x[:, 1].mT @ y[1, 2], x[:1].mT @ y),
          x, y, rtol=rtol, atol=10 * rtol)  # fmt: skip
    agree(
        lambda x, y: x[0, 0, :, 0] @ y[0, 0, :, 1], x, y, rtol=rtol, atol=10 * rtol
    )  # vectors with steps


# --- joining, putting, padding --------------------------------------------------------------------------


@needs_numba
def test_joins():
    def f(x, y):
        z = x * 2
        return (
            kg.cat([x, y]), kg.cat([z, y, z], 1), kg.stack([x, y, z]), kg.stack([x, z], -1), kg.cat([x[:1], z[::2]]),
            kg.cat([x.T, y.T], -1), kg.cat([x.reshape(-1), y.reshape(-1)]) * 2, kg.cat([x[:0], y]),
        )  # fmt: skip

    agree(f, numbers((3, 4)), numbers((3, 4), seed=1))
    agree(lambda x, y: kg.cat([x, y]) + 1, numbers((2, 3)), numbers((4, 3), np.float64))
    agree(
        lambda x, y: (kg.cat([x, y]), kg.stack([y, y])), numbers(3, np.int64), numbers(2, np.int64)
    )


@needs_numba
def test_writes_into_views():
    def f(x, y):
        z = x * 1.5
        z[0] = y
        z[1:, ::2] = 7
        z[:, -1] += 1
        w = x.clone()
        w.T[1:3].mul_(y[:3])
        w[..., 0].fill_(-1)
        v = kg.zeros(5, 6)
        v[1:4, 1:5] = x
        u = x + 0
        u[0, 1:3] = u[2, 1:3]
        return z, w, v, u, z.sum(), x

    agree(f, numbers((3, 4)), numbers(4, seed=1))


@needs_numba
def test_pads():
    def f(x):
        return (
            F.pad(x, (1, 2)), F.pad(x, (1, 0, 2, 3), value=-1.5), F.pad(x, (-1, 1)), F.pad(x * 2, (-1, -1, 0, -1)),
            F.pad(x.T, (2, 2)),
        )  # fmt: skip

    agree(f, numbers((3, 4)))
    agree(f, numbers((3, 4), np.int64))


@needs_numba
def test_gradients_of_slices():
    def f(x):
        loss = (
            (x[1:] * x[:-1]).sum()
            + (x[:, ::2] ** 2).sum()
            + x[0, 0] * 3
            + F.pad(x, (1, 1))[:, :2].sum()
        )
        (g,) = kg.autograd.grad(loss, x)
        return loss.detach(), g

    agree(f, wrap(numbers((4, 5))).requires_grad_())


# --- memory ---------------------------------------------------------------------------------------------


@needs_numba
def test_updates_that_still_read_the_old_value():
    def make():
        p, q, e = (kg.tensor(numbers((4, 3), seed=k)) for k in range(3))

        def step(x):
            old = p * 1
            e.mul_(0.9).add_(p, alpha=0.1)
            t = p.clone()
            p.copy_(q)  # swap …
            q.copy_(t)
            p.add_(x @ q)  # … and go on with the new ones
            return old, e.sum(), q.T @ p

        return step, (p, q, e)

    check_steps(make, [kg.tensor(numbers((4, 4), seed=k)) for k in range(5)])


def check_steps(make, batches, rtol=1e-5, **how):
    """A step with state, eager and native: results and state after each call."""
    plain, state = make()
    made, mine = make()
    step = native(made)
    for k, x in enumerate(batches):
        args = x if isinstance(x, tuple) else (x,)
        same(step(*args), plain(*args), rtol=rtol, atol=1e-5, **how)
        same(list(mine), list(state), rtol=rtol, atol=1e-5, **how)
        got = [t.__dict__.get("grad") for t in mine]
        want = [t.__dict__.get("grad") for t in state]
        assert [g is None for g in got] == [g is None for g in want], f"call {k}"
        same(
            [g for g in got if g is not None],
            [g for g in want if g is not None],
            rtol=rtol,
            atol=1e-5,
        )
    assert step.last.runs > 0 or step.launch is not None
    return step


@needs_numba
@pytest.mark.parametrize(
    "kind", ["swap", "cycle", "shift", "transposed", "itself", "product", "sum", "view", "strided"]
)
def test_overlapping_updates(kind):
    def make():
        state = [kg.tensor(numbers((4, 4), seed=k)) for k in range(3)]
        if kind == "strided":
            state = [wrap(t.array.T) for t in state]
        p, q, r = state

        def step(x):
            if kind == "swap":
                a, b = p * 1.01, q * 0.99
                p.copy_(b)
                q.copy_(a)
            elif kind == "cycle":
                t = p.clone()
                p.copy_(q)
                q.copy_(r)
                r.copy_(t)
            elif kind == "shift":  # element i needs element i + 1 of the old one
                p[:-1].copy_(p[1:] + x[1:])
            elif kind == "transposed":
                p.copy_(p.T * 0.5 + p)
            elif kind == "itself":
                p.copy_(p)
                q.mul_(q * 0.2)
                q.sub_(q.mean())
            elif kind == "product":
                p.copy_(p @ q)
                q.copy_(p @ q)
            elif kind == "sum":
                p.div_(p.abs().sum(0))
                q.sub_(q.sum(1, keepdim=True) * 0.1)
                r.copy_((r * x).sum(0))
            elif kind == "view":
                row = p[0] * 1
                p[1] = row + p[2]
                p[0] = p[1] * 0.5
                q.copy_(p.T)
            else:
                p.add_(x)
                q.copy_(p * 2)
                r.copy_(q.T @ p * 0.1)
            return p.sum() + q.sum(), (p * q).detach()

        return step, state

    check_steps(make, [kg.tensor(numbers((4, 4), seed=k) * 0.1) for k in range(5)], rtol=1e-4)


OPERATIONS = [
    (np.add, 2), (np.subtract, 2), (np.multiply, 2), (np.maximum, 2), (np.tanh, 1), (np.negative, 1),
    (np.absolute, 1), ("row sum", 1), ("column sum", 1), ("total", 1), ("product", 2), ("transpose", 1),
    ("copy", 1), ("slice", 1), ("where", 2), ("reverse", 1), ("join", 2),
]  # fmt: skip


def random_program(rng, length, n=6):
    """A long program on n × n matrices, n even, as a graph: what is used, and when last, is left to chance."""
    graph = Graph()
    dtype = np.dtype(np.float32)
    count = itertools.count()
    var = lambda shape=(n, n), dtype=dtype: Var(f"v{next(count)}", shape, dtype)  # noqa: E731
    graph.inputs = [var() for _ in range(4)]
    pool = list(graph.inputs)

    def eq(fn, *args, shape=(n, n), dtype=dtype):
        out = var(shape, np.dtype(dtype))
        graph.equations.append(Equation((out,), fn, args, {}))
        return out

    def mean(x, axis, shape):
        total = eq(np.ndarray.sum, x, axis, np.dtype(np.float32), None, True, shape=shape)
        return eq(np.broadcast_to, eq(np.multiply, total, 1 / n, shape=shape), (n, n))

    for _ in range(length):
        fn, arity = OPERATIONS[rng.integers(len(OPERATIONS))]
        recent = pool[-12:] if rng.uniform() < 0.8 else pool
        a, b = (recent[rng.integers(len(recent))] for _ in range(2))
        if fn == "row sum":
            new = mean(a, 1, (n, 1))
        elif fn == "column sum":
            new = mean(a, 0, (1, n))
        elif fn == "total":
            new = mean(a, (0, 1), (1, 1))
        elif fn == "product":
            new = eq(np.multiply, eq(np.matmul, a, b), 3 / n)
        elif fn == "transpose":
            new = eq(np.transpose, a, (1, 0))
        elif fn == "copy":
            new = eq(np.copy, a)
        elif fn == "slice":
            part = eq(operator.getitem, a, (slice(1, n // 2 + 1), slice(None)), shape=(n // 2, n))
            new = eq(np.concatenate, (part, part), 0)
        elif fn == "reverse":
            new = eq(operator.getitem, a, (slice(None, None, -1), slice(None)))
        elif fn == "join":
            halves = [
                eq(operator.getitem, x, (slice(None), slice(0, n // 2)), shape=(n, n // 2))
                for x in (a, b)
            ]
            new = eq(np.concatenate, tuple(halves), 1)
        elif fn == "where":
            new = eq(np.where, eq(np.greater, a, b, dtype=bool), a, b)
        else:
            new = eq(fn, *(a, b)[:arity])
        pool.append(eq(np.tanh, new) if rng.uniform() < 0.5 else eq(np.multiply, new, 0.25))
    graph.outputs = [pool[k] for k in sorted(rng.choice(np.arange(4, len(pool)), 6, replace=False))]
    values = [v for v in pool[-10:] if v not in graph.inputs]
    chosen = rng.choice(len(values), 3, replace=False)
    graph.writes = [(graph.inputs[k], values[c]) for k, c in enumerate(chosen)]
    graph.verify()
    return graph


@needs_numba
@pytest.mark.parametrize("seed", range(6))
def test_memory_of_long_random_programs(seed):
    graph = random_program(np.random.default_rng(seed), 120)
    native_program = same_as_numpy(graph, 6, seed)
    assert not [s for s in native_program.steps if s.kind == "python"]
    total = sum(v.size * 4 for eq in native_program.graph.equations for v in eq.outs)
    assert native_program.block_bytes < total / 2  # places are used again


@needs_numba
@pytest.mark.parametrize("threads", [2, 3])
def test_long_random_programs_on_several_threads(shared, threads):
    shared(threads)
    n = 160  # large enough for loops to be divided
    native_program = same_as_numpy(random_program(np.random.default_rng(0), 60, n), n, 0)
    assert native_program.parallel
    assert (
        sum(call.divides and call.work > 20_000 for p in native_program.plans for call in p.calls)
        > 8
    )


def same_as_numpy(graph, n, seed):
    """A program on four n × n matrices, on both executors."""
    program = passes.optimised(graph)
    wanted = numpy_executor.build(program)
    native_program = native_executor.build(program)
    given = [numbers((n, n), seed=seed + k) for k in range(4)]
    for _ in range(3):
        mine = [g.copy() for g in given]
        outputs, writes = wanted(*[g.copy() for g in given])
        got, left = native_program(*mine)
        assert left == []
        same(got, [np.asarray(x) for x in outputs], rtol=1e-3, atol=1e-4)
        same(mine, [*[np.array(w) for w in writes], given[3]], rtol=1e-3, atol=1e-4)
        given = [g * np.float32(0.9) for g in given]
    return native_program


@needs_numba
def test_memory_of_many_programs_is_freed():
    f = native(lambda x: (x * 2).sum())
    for n in range(2, 6):
        f(kg.ones(n)), f(kg.ones(n))
    blocks = [p.runner.block for ps in f.programs.values() for p in ps]
    assert len(blocks) == 4
    refs = [weakref.ref(b) for b in blocks]
    del blocks
    f.reset()
    gc.collect()
    assert [r() for r in refs] == [None] * 4


# --- training steps: the quick way ------------------------------------------------------------------------


def classifier(optimizer=None):
    kg.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    make = optimizer or (lambda p: kg.optim.SGD(p, lr=0.1, momentum=0.9))
    optimizer = make(model.parameters())

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return model, optimizer, step


def batch(n=6, seed=0):
    rng = np.random.default_rng(seed)
    return kg.tensor(rng.normal(size=(n, 5)).astype(np.float32)), kg.tensor(rng.integers(0, 3, n))


class Pair:
    """A training step twice, eager and native, from the same start."""

    def __init__(self, optimizer=None):
        self.eager, self.eager_optimizer, self.plain = classifier(optimizer)
        self.model, self.optimizer, step = classifier(optimizer)
        self.step = native(step)
        for k in range(4):  # recorded, the general way, the quick way
            self.go(k)
        assert self.step.launch is not None

    def both(self, change):
        change(self.eager, self.eager_optimizer)
        change(self.model, self.optimizer)

    def go(self, seed=0, n=6):
        x, y = batch(n, seed)
        same(self.step(x, y), self.plain(x, y), rtol=1e-4)
        mine, theirs = list(self.model.parameters()), list(self.eager.parameters())
        same([p.detach() for p in mine], [p.detach() for p in theirs], rtol=1e-4, atol=1e-5)
        assert [p.grad is None for p in mine] == [p.grad is None for p in theirs]
        same([p.grad for p in mine if p.grad is not None], [p.grad for p in theirs if p.grad is not None],
             rtol=1e-4, atol=1e-5)  # fmt: skip


@needs_numba
def test_gradients_that_the_user_keeps():
    pair = Pair()
    kept = []
    for k in range(6):
        pair.go(k)
        grads = [p.grad for p in pair.model.parameters()]
        how = k % 3
        held = (
            grads
            if how == 0
            else [g.array for g in grads]
            if how == 1
            else [g.array[:1] for g in grads]
        )
        kept.append((held, [np.array(h.array if isinstance(h, Tensor) else h) for h in held]))
        del grads, held
    for held, values in kept:
        same(list(held), values, exact=True)
    del kept, held
    for k in range(3):
        pair.go(k)
    assert pair.step.launch is not None


@needs_numba
def test_gradients_changed_between_steps():
    pair = Pair()
    changes = [
        lambda m, o: o.zero_grad(),
        lambda m, o: setattr(m[0].weight, "grad", None),
        lambda m, o: setattr(m[0].weight, "grad", kg.ones(8, 5)),
        lambda m, o: m[2].bias.grad.fill_(7),
        lambda m, o: setattr(m[0].weight, "grad", kg.ones(8, 5) * m[0].bias.grad[0]),
        lambda m, o: [p.grad.zero_() for p in m.parameters()],
    ]
    for k, change in enumerate(changes):
        pair.both(change)
        pair.go(k)
        pair.go(k + 1)
    # A gradient taken away and shared between two owners stays what it was.
    taken = pair.model[0].weight.grad
    value = taken.array.copy()
    pair.both(lambda m, o: setattr(m[0].weight, "grad", None))
    pair.go(3)
    np.testing.assert_array_equal(taken.array, value)
    assert pair.model[0].weight.grad is not taken


@needs_numba
@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
def test_settings_and_memory_changed_between_steps(kind):
    pair = Pair(lambda p: getattr(kg.optim, kind)(p, lr=0.05))
    programs = sum(map(len, pair.step.programs.values()))

    def replaced(model, optimizer):
        for p in model.parameters():
            p.data = kg.tensor(p.array * np.float32(0.5))

    def other_rate(model, optimizer):
        optimizer.param_groups[0]["lr"] = 0.2

    for change in (replaced, other_rate, replaced):
        pair.both(change)
        for k in range(3):
            pair.go(k)
    assert sum(map(len, pair.step.programs.values())) == programs  # nothing was recorded again
    pair.both(lambda m, o: m.load_state_dict({k: v * 0.5 for k, v in m.state_dict().items()}))
    pair.go(5)
    pair.both(lambda m, o: m.requires_grad_(True) and m[0].requires_grad_(False))
    pair.go(6)
    pair.go(7)
    pair.both(lambda m, o: m.eval())
    pair.go(8)


@needs_numba
def test_batches_of_other_sizes():
    pair = Pair()
    for n in (6, 3, 6, 1, 3, 6, 1, 1, 7):
        pair.go(n, n)
        pair.go(n + 1, n)
    assert sum(map(len, pair.step.programs.values())) == 4


@needs_numba
def test_kernels_are_shared_between_sizes(monkeypatch):
    """Another size is another program, and no other machine code."""
    f = native(lambda x, y: ((x * y + 1).tanh() @ y.T).sum(0))
    x, y = kg.tensor(numbers((3, 4))), kg.tensor(numbers((3, 4)))
    f(x, y), f(x, y)

    def no_compilation(self, dtype):
        raise AssertionError(f"{self.name} is compiled again:\n{getattr(self, 'text', '')}")

    for kind in (build.Generated, build.Kernel):
        monkeypatch.setattr(kind, "build", no_compilation)
    for n, m in ((5, 4), (2, 9), (7, 3)):
        x, y = kg.tensor(numbers((n, m))), kg.tensor(numbers((n, m)))
        for _ in range(2):
            same(f(x, y), f.fn(x, y), rtol=1e-5, atol=1e-5)


@needs_numba
def test_two_programs_on_the_same_parameters():
    model, optimizer, train = classifier()
    twin_model, twin_optimizer, twin_train = classifier()
    train, predict = native(train), native(lambda x: model(x).softmax(-1))
    for k in range(6):
        x, y = batch(6, k)
        same(train(x, y), twin_train(x, y), rtol=1e-4)
        same(predict(x), twin_model(x).softmax(-1).detach(), rtol=1e-4)
    model[0].weight.data = kg.tensor(model[0].weight.array * 2)
    twin_model[0].weight.data = kg.tensor(twin_model[0].weight.array * 2)
    for k in range(3):
        x, y = batch(6, k)
        same(predict(x), twin_model(x).softmax(-1).detach(), rtol=1e-4)
        same(train(x, y), twin_train(x, y), rtol=1e-4)


@needs_numba
def test_arguments_that_are_parameters_too():
    w = kg.tensor(numbers((3, 3)))
    v = kg.tensor(numbers((3, 3)))

    def f(x):
        w.add_(x * 0.5)
        return (w * x).sum(0)

    step = kg.compile(f, backend="numba")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # (of what runs eagerly)
        for x in (v, v, v, w, w, v, w.T, w.flip(0), v, w, w.T, w.view(3, 3), w.detach()):
            before = w.array.copy()
            want = f(x).array
            after = w.array.copy()
            w.array[...] = before
            same(step(x), want, rtol=1e-5)
            np.testing.assert_allclose(w.array, after, rtol=1e-5)
    assert step.last.runs > 0


@needs_numba
def test_arguments_that_share_memory():
    f = lambda x, y: (x.add_(y), y * 2)[1]  # noqa: E731
    step = native(f)
    for _ in range(2):
        memory = kg.tensor(numbers(10))
        for a, b in (
            (memory[:5], memory[5:]),
            (memory[:5], memory[3:8]),
            (memory[2:7], memory[2:7]),
        ):
            before = memory.array.copy()
            want = f(a, b).array
            after = memory.array.copy()
            memory.array[...] = before
            try:
                got = step(a, b)
            except TraceError:
                continue  # said rather than done
            same(got, want)
            np.testing.assert_array_equal(memory.array, after)
        separate = kg.tensor(numbers(5)), kg.tensor(numbers(5, seed=1))
        same(step(*separate), separate[1] * 2)


@needs_numba
def test_wrong_arguments_raise_what_the_function_raises():
    def f(x, y, *, scale=2.0):
        return (x * y * scale).sum(-1)

    step = native(f)
    x, y = kg.ones(3, 4), kg.ones(4)
    for _ in range(3):
        same(step(x, y), f(x, y))
    assert step.launch is not None
    for args, kwargs in (
        ((x,), {}), ((x, y, 1), {}), ((), {}), ((x, "y"), {}), ((x, None), {}), ((x, kg.ones(5)), {}), ((x, y), {"z": 1}),
    ):  # fmt: skip
        with pytest.raises(Exception) as wanted:
            f(*args, **kwargs)
        with pytest.raises(type(wanted.value)) as got:
            step(*args, **kwargs)
        assert str(got.value) == str(wanted.value)
        same(step(x, y), f(x, y))
    same(step(x, 3.0), f(x, 3.0))
    same(step(x, 3), f(x, 3))
    same(step(x, 0.0), f(x, 0.0))
    same(step(x, -0.0), f(x, -0.0), exact=True)
    same(step(x, True), f(x, True))
    same(step(x, y, scale=3.0), f(x, y, scale=3.0))
    same(step(x.double(), y), f(x.double(), y))
    same(step(x, y), f(x, y))


@needs_numba
def test_an_error_inside_is_not_taken_for_wrong_arguments():
    """A function that raises TypeError itself raises it once, not twice."""
    calls = []

    def f(x):
        calls.append(1)
        raise TypeError("mine")

    step = kg.compile(f, backend="numba")
    with pytest.raises(TypeError, match="mine"):
        step(kg.ones(2))
    assert len(calls) == 1


@needs_numba
def test_disabled():
    seen = []

    def f(x):
        seen.append(1)
        return x * 2

    g = kg.compile(lambda x: x * 2, backend="numba")
    x = kg.ones(3)
    for _ in range(3):
        g(x)
    assert g.launch is not None
    f = kg.compile(f, backend="numba")
    with kg.compile.disable():
        for k in range(4):
            same(f(x), x * 2)
            assert len(seen) == k + 1 and f.last is None
        runs = g.last.runs
        same(g(x), x * 2)
        assert g.last.runs == runs
    other = []
    with kg.compile.disable():  # on this thread only
        t = threading.Thread(target=lambda: other.append(g(x)))
        t.start()
        t.join()
    same(other, [x * 2])


@needs_numba
def test_modes_of_autograd():
    w = kg.tensor(numbers((4, 4))).requires_grad_()
    step = native(lambda x: (x @ w).tanh())
    x = kg.tensor(numbers((3, 4)))
    for _ in range(3):
        y = step(x)
        assert y.requires_grad
        y.sum().backward()
        got, w.grad = w.grad, None
        (x @ w).tanh().sum().backward()
        same(got, w.grad, rtol=1e-5)
        w.grad = None
        with kg.no_grad():
            assert not step(x).requires_grad
        with kg.inference_mode():
            assert not step(x).requires_grad


@needs_numba
def test_gradients_from_outside_that_are_repeated():
    """The gradient of a sum is one number, looked at many times: each is copied for the program."""
    w = kg.tensor(numbers((6, 6))).requires_grad_()
    step = native(lambda x: ((x @ w).tanh(), (x * w).sin(), x - w))
    x = kg.tensor(numbers((6, 6), seed=1))
    for _ in range(4):
        grads = []
        for f in (step, step.fn):
            a, b, c = f(x)
            (a.sum() + 2 * b.sum() - 3 * c.T.sum()).backward()
            grads.append(w.grad.array)
            w.grad = None
        np.testing.assert_allclose(*grads, rtol=1e-4, atol=1e-4)


# --- training steps: what they return ---------------------------------------------------------------------


def general_ways(step):
    """Counts the calls that do not go the quick way."""
    count, prepare = [0], step._prepare_launch

    def counted(*args):
        count[0] += 1
        return prepare(*args)

    step._prepare_launch = counted
    return count


class Both(NamedTuple):
    loss: Any
    scores: Any


def alike(got, want, seen=None):
    """The same structure, values, flags and layout; what is one tensor here is one tensor there."""
    seen = {} if seen is None else seen
    assert type(got) is type(want)
    if isinstance(want, Tensor):
        assert seen.setdefault(id(want), id(got)) == id(got)
        same(got, want, rtol=1e-4, atol=1e-5)
        assert got.array.strides == want.array.strides
        for name in ("requires_grad", "is_leaf", "_leaf", "_inference", "_version"):
            assert getattr(got, name) == getattr(want, name), name
        assert (got.grad_fn is None) is (want.grad_fn is None)
        has = vars(want).get("grad")  # to read it of a tensor in between would warn
        if has is not None:
            alike(got.grad, has, seen)
    elif isinstance(want, dict):
        assert list(got) == list(want)
        alike([*got.values()], [*want.values()], seen)
    elif isinstance(want, slice):
        alike([got.start, got.stop, got.step], [want.start, want.stop, want.step], seen)
    elif isinstance(want, (tuple, list)):
        assert len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            alike(a, b, seen)
    else:
        assert got == want


def tensors_in(result):
    if isinstance(result, dict):
        return tensors_in([*result.values()])
    if isinstance(result, (tuple, list)):
        return [t for r in result for t in tensors_in(r)]
    return [result] if isinstance(result, Tensor) else []


def deep(t, levels=150):
    for k in range(levels):
        t = (t, k) if k % 2 else [t]
    return t


RETURNED = {
    "pair": lambda loss, s, x, w: (loss, s),
    "detached": lambda loss, s, x, w: [loss.detach(), s.detach()],
    "record": lambda loss, s, x, w: Both(loss, s.argmax(1)),
    "nest": lambda loss, s, x, w: {"loss": loss, 3: (s, [None, 2.5, -0.0, "text", True]), None: {}},
    "twice": lambda loss, s, x, w: (loss, [loss, {"s": s, "again": s}]),
    "slice": lambda loss, s, x, w: slice(loss, None, 2),
    "empty": lambda loss, s, x, w: ((), [], {}, (loss,)),
    "numbers": lambda loss, s, x, w: (1, None),
    "deep": lambda loss, s, x, w: deep(loss),
    "turned": lambda loss, s, x, w: (loss, s.T),
    "dtypes": lambda loss, s, x, w: (s > 0, s.double().detach(), (s > 9).sum()),
    # what is no mere wrapping of outputs
    "views": lambda loss, s, x, w: (s.detach(), s.detach()[1:], loss),
    "argument": lambda loss, s, x, w: (loss, x, x[0]),
    "parameter": lambda loss, s, x, w: {"loss": loss, "w": w},
}


@needs_numba
@pytest.mark.parametrize("kind", RETURNED)
def test_what_a_training_step_returns(kind):
    def make():
        model, optimizer, _ = classifier()

        def step(x, y):
            optimizer.zero_grad()
            scores = model(x)
            loss = F.cross_entropy(scores, y)
            loss.backward()
            optimizer.step()
            return RETURNED[kind](loss, scores, x, model[0].weight)

        return model, step

    model, step = make()
    twin, plain = make()
    step = native(step)
    ways = general_ways(step)
    kept = []
    for k in range(6):
        x, y = batch(6, k)
        got = step(x, y)
        alike(got, plain(x, y))
        assert (step.launch is not None) == (k > 1)  # recorded twice, then run
        own = [t for t in tensors_in(got) if t is not x and t is not model[0].weight]
        own = [t for t in own if not np.may_share_memory(t.array, x.array)]
        for t, values in kept:  # of another call
            np.testing.assert_array_equal(t.array, values)
            assert not any(np.may_share_memory(t.array, other.array) for other in own)
        kept += [(t, t.array.copy()) for t in own]
    same(
        [p.detach() for p in model.parameters()], [p.detach() for p in twin.parameters()], rtol=1e-4
    )
    assert ways[0] == 1 and step.last.runs == 4


@needs_numba
@pytest.mark.parametrize("look", [lambda g: g[0], lambda g: g.T, lambda g: g.detach(), lambda g: g])
def test_gradients_that_are_returned(look):
    def make():
        w = kg.tensor(numbers((3, 4))).requires_grad_()

        def step(x):
            w.grad = None
            loss = (w * x).sin().sum()
            loss.backward()
            return loss, look(w.grad)

        return w, step

    (w, step), (twin, plain) = make(), make()
    step = native(step)
    kept = []
    for k in range(5):
        x = kg.tensor(numbers((3, 4), seed=k))
        (_, got), (_, want) = step(x), plain(x)
        same([got, w.grad], [want, twin.grad], rtol=1e-5)
        assert np.may_share_memory(got.array, w.grad.array)
        kept.append((got, got.array.copy()))
    for got, values in kept:
        np.testing.assert_array_equal(got.array, values)
    assert step.launch is not None


@needs_numba
def test_leaves_that_are_returned():
    step = native(lambda x: (x + 1, [(x * 2).requires_grad_()]))
    ways = general_ways(step)
    for k in range(5):
        x = kg.tensor(numbers(4, seed=k))
        one, (leaf,) = step(x)
        same([one, leaf], [x + 1, x * 2])
        assert leaf.requires_grad and leaf.is_leaf and not one.requires_grad
        (leaf * 3).sum().backward()
        assert leaf.grad.tolist() == [3.0] * 4
    assert ways[0] == 1


@needs_numba
@pytest.mark.parametrize("mode", [kg.no_grad, kg.inference_mode])
def test_what_is_returned_without_gradients(mode):
    w = kg.tensor(numbers((4, 4))).requires_grad_()
    f = lambda x: {"y": (y := x @ w), "more": [y.relu(), y.T, y[0]]}  # noqa: E731
    step = native(f)
    with mode():
        for k in range(4):
            x = kg.tensor(numbers((3, 4), seed=k))
            alike(step(x), f(x))
    assert step.launch is not None


@needs_numba
def test_gradients_of_arguments():
    w = kg.tensor(numbers((4, 4)))

    def f(x):
        loss = (x @ w).tanh().sum()
        loss.backward()
        return loss, x * 2

    step = native(f)
    x, twin = (kg.tensor(numbers((3, 4))).requires_grad_() for _ in range(2))
    for _ in range(4):
        alike(step(x)[0], f(twin)[0])
        same(x.grad, twin.grad, rtol=1e-5)
        x.grad = twin.grad = None


# --- training steps: gradients that add up ------------------------------------------------------------------


def accumulating(returns=lambda loss, model: loss):
    model, optimizer, _ = classifier()

    def step(x, y):
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return returns(loss, model)

    return model, optimizer, step


@needs_numba
@pytest.mark.parametrize("kind", ["none", "zeros", "in place", "never", "the user's", "held"])
def test_gradients_that_add_up(kind):
    model, optimizer, step = accumulating()
    twin, twin_optimizer, plain = accumulating()
    step = native(step)
    ways = general_ways(step)
    held = []

    def forget(model, optimizer):
        if kind in ("none", "held"):
            held.extend((p.grad, p.grad.array.copy()) for p in model.parameters() if kind == "held")
            optimizer.zero_grad()
        elif kind == "zeros":
            optimizer.zero_grad(set_to_none=False)
        for p in model.parameters():
            if kind == "in place":
                p.grad.zero_()
            elif kind == "the user's":
                p.grad = kg.ones(*p.shape)

    for k in range(24):
        x, y = batch(6, k)
        alike(step(x, y), plain(x, y))
        mine, theirs = list(model.parameters()), list(twin.parameters())
        same([p.grad for p in mine], [p.grad for p in theirs], rtol=1e-4, atol=1e-5)
        if kind in ("never", "zeros", "the user's"):
            assert [p.grad._version for p in mine] == [p.grad._version for p in theirs]
        if k % 4 == 3:
            for m, o in ((model, optimizer), (twin, twin_optimizer)):
                o.step()
                forget(m, o)
    assert ways[0] <= 2
    assert sum(map(len, step.programs.values())) == 2
    for grad, values in held:
        np.testing.assert_array_equal(grad.array, values)


@needs_numba
def test_gradients_of_before_that_are_others():
    """Other memory, another layout or dtype, one gradient for two parameters, none, a graph."""
    model, _, step = accumulating()
    twin, _, plain = accumulating()
    step = kg.compile(step, backend="numba")

    def shared(m):
        m[0].bias.grad = m[0].bias.grad.clone()
        m[2].bias.grad = m[0].bias.grad[:3]

    changes = [
        lambda m: setattr(m[0].weight, "grad", kg.ones(8, 5)),
        lambda m: setattr(m[0].weight, "grad", kg.ones(5, 8).T),
        lambda m: setattr(m[0].weight, "grad", None),
        lambda m: setattr(m[0].weight.grad, "array", np.full((8, 5), 2.0, np.float32)),
        shared,
        lambda m: setattr(m[2].bias, "grad", kg.zeros(3)),
        lambda m: setattr(m[0].weight, "grad", m[0].weight.detach()),
        lambda m: setattr(m[0].weight, "grad", kg.ones(8, 5)),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # (of what runs eagerly)
        for k, change in enumerate([lambda m: None] * 4 + changes):
            change(model), change(twin)
            for j in range(3):
                x, y = batch(6, 3 * k + j)
                same(step(x, y), plain(x, y), rtol=1e-4)
                mine, theirs = list(model.parameters()), list(twin.parameters())
                same([p.grad for p in mine], [p.grad for p in theirs], rtol=1e-4, atol=1e-4)
                same([p.detach() for p in mine], [p.detach() for p in theirs], rtol=1e-4, atol=1e-4)


@needs_numba
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_the_version_of_a_gradient_that_is_added_to(backend):
    w = kg.ones(3).requires_grad_()

    def f(x):
        loss = (w * x).sum()
        loss.backward()
        return loss.detach()

    step = kg.compile(f, backend=backend, fullgraph=True)
    for _ in range(3):
        step(kg.ones(3))
    old, version = w.grad, w.grad._version
    for k in range(5):
        w.grad = kg.zeros(3)
        step(kg.ones(3)), step(kg.ones(3))
        assert w.grad._version == 2 and w.grad.tolist() == [2.0, 2.0, 2.0], k
    assert old._version == version
    v = kg.ones(3).requires_grad_()
    y = (w.grad * v).sum()
    step(kg.ones(3))
    with pytest.raises(RuntimeError, match="modified"):
        y.backward()


@needs_numba
def test_gradients_that_add_up_and_are_returned():
    returns = lambda loss, model: (loss, model[0].bias.grad)  # noqa: E731
    model, _, step = accumulating(returns)
    _, _, plain = accumulating(returns)
    step = native(step)
    for k in range(5):
        loss, grad = step(*batch(6, k))
        same([loss, grad], plain(*batch(6, k)), rtol=1e-4, atol=1e-5)
        assert grad is model[0].bias.grad
    assert step.launch is not None


@needs_numba
def test_a_gradient_that_does_not_lie_in_rows():
    w = kg.tensor(numbers((3, 4))).requires_grad_()

    def f(x):
        w.grad = (x * 2).T
        return x.sum()

    step = native(f)
    for k in range(5):
        x = kg.tensor(numbers((4, 3), seed=k))
        step(x)
        np.testing.assert_array_equal(w.grad.array, 2 * x.array.T)
        assert w.grad.array.strides == (4, 12)
    assert step.launch is not None


# --- the quick way: what may change, and what may fail ----------------------------------------------------


@needs_numba
def test_steps_that_take_turns():
    model, optimizer, _ = classifier()
    twin, twin_optimizer, _ = classifier()

    def make(model, optimizer):
        def step(first, last, weight, x, y):
            if first:
                optimizer.zero_grad()
            scores = model(x)
            loss = F.cross_entropy(scores, y)
            (loss * weight).backward()
            if last:
                optimizer.step()
            return loss.detach(), scores.detach()

        return step

    step, plain = native(make(model, optimizer)), make(twin, twin_optimizer)
    ways = general_ways(step)
    for k in range(24):
        how = (k % 3 == 0, k % 3 == 2, 0.5)
        x, y = batch(6, k)
        alike(step(*how, x, y), plain(*how, x, y))
        assert step.graph is step.last.graph and (k < 9 or step.last is step.launch.program)
    assert ways[0] <= 3 and len(step.launches) == 3
    for n in range(1, 9):  # no more than a few
        for _ in range(3):
            x, y = batch(n)
            alike(step(True, True, 1.0, x, y), plain(True, True, 1.0, x, y))
    assert len(step.launches) == step_module.MOST_LAUNCHES
    step.reset()
    assert step.launch is None and not step.launches


@needs_numba
def test_results_of_several_threads():
    step = native(lambda x: {"y": (y := (x * 2).tanh() @ x.T), "more": (y.sum(), y.T)})
    given = [kg.tensor(numbers((5, 5), seed=k)) for k in range(4)]
    for x in given:
        step(x)
    wants = [[t.array for t in tensors_in(step.fn(x))] for x in given]
    ways, wrong = general_ways(step), []

    def work(x, want):
        for _ in range(200):
            got = tensors_in(step(x))
            for t, w in zip(got, want, strict=True):
                if t.shape != w.shape or not np.allclose(t.array, w, rtol=1e-4, atol=1e-5):
                    wrong.append((t, w))

    threads = [threading.Thread(target=work, args=a) for a in zip(given, wants, strict=True)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong and ways[0] == 0


@needs_numba
def test_memory_of_another_kind():
    """A parameter's array becomes one of another dtype or order, unseen by any counter."""
    w = kg.ones(3, 3)
    step = kg.compile(f := lambda x: (w * x).sum(0), backend="numba")
    x = kg.full((3, 3), 2.0)
    arrays = [
        np.full((3, 3), 5.0), np.arange(9, dtype=np.float32).reshape(3, 3).T, np.ones((3, 3), np.int32),
        np.full((3, 3), 4, np.float32), np.full((3, 1), 3, np.float32),
    ]  # fmt: skip
    for array in [w.array, *arrays, *arrays]:
        w.array = array
        for _ in range(4):
            same(step(x), f(x), rtol=1e-6)


@needs_numba
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_an_argument_that_was_a_parameter_detached(backend):
    w = kg.ones(3, 3)
    step = kg.compile(f := lambda x: (w * x).sum(0), backend=backend)
    x = kg.full((3, 3), 2.0)
    for value in (1.0, 5.0, 7.0):
        w.data = kg.full((3, 3), value)
        for given in (x, x, x, w.detach(), x, x, w.detach(), w, x):
            same(step(given), f(given), rtol=1e-6)


@needs_numba
def test_a_step_that_draws_and_fails():
    """Where a kernel refuses, the eager step draws what it would have drawn, and says why."""

    def make():
        kg.manual_seed(1)
        model = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        optimizer = kg.optim.SGD(model.parameters(), lr=0.1)

        def step(x, y):
            optimizer.zero_grad()
            scores = model(x)
            loss = F.cross_entropy(scores, y)
            loss.backward()
            optimizer.step()
            return loss, scores

        return model, step

    def run(compiled):
        model, step = make()
        step = native(step) if compiled else step
        kg.manual_seed(7)
        found = []
        for k in range(10):
            x, y = batch(6, k)
            if k in (5, 8):
                y = kg.full((6,), 99)
                with pytest.raises(Exception) as error:
                    step(x, y)
                found.append((type(error.value), str(error.value)))
            else:
                found += [t.array for t in step(x, y)]
            found.append(kg.get_rng_state())
        assert not compiled or step.launch is not None
        return found + [p.array for p in model.parameters()]

    for got, want in zip(run(True), run(False), strict=True):
        if isinstance(want, tuple):
            assert got == want
        else:
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@needs_numba
def test_a_step_that_fails_in_python():
    w = kg.eye(3).requires_grad_()

    def f(x):
        loss = (w * kg.linalg.inv(x)).sum()
        loss.backward()
        return loss.detach(), x * 2

    step = native(f)
    for _ in range(4):
        w.grad = None
        alike(step(kg.eye(3)), (kg.tensor(3.0), kg.eye(3) * 2))
    assert step.launch is not None
    w.grad = None
    for g in (f, step, step):
        with pytest.raises(kg.linalg.LinAlgError, match="singular"):
            g(kg.zeros(3, 3))
        assert w.grad is None
    step(kg.eye(3))
    assert w.grad.tolist() == kg.eye(3).tolist()


@needs_numba
def test_fields_of_records():
    """Elements that do not lie a whole number of elements apart."""
    records = np.zeros(10, [("a", "u1"), ("b", "f4")])
    records["b"] = np.arange(10)
    f = kg.compile(lambda x: x * 2 + 1, backend="numba")
    for x in (wrap(records["b"]), wrap(np.arange(10, dtype=np.float32))):
        for _ in range(3):
            same(f(x), kg.arange(10.0) * 2 + 1)
    shifted = np.zeros(41, np.uint8)[1:].view(np.float32)  # misaligned, but by whole elements
    shifted[:] = np.arange(10)
    for _ in range(3):
        same(f(wrap(shifted)), kg.arange(10.0) * 2 + 1)


@needs_numba
def test_read_only_memory_is_not_written():
    constant = np.frombuffer(np.ones(4, np.float32).tobytes(), np.float32)

    def f(x):
        x.add_(1)
        return x.sum()

    step = native(f)
    for _ in range(3):
        step(kg.ones(4))
    for _ in range(2):
        with pytest.raises(kg.errors.GradError, match="read-only") as wanted:
            f(wrap(constant))
        with pytest.raises(kg.errors.GradError) as got:
            step(wrap(constant))
        assert str(got.value) == str(wanted.value)
    assert (constant == 1).all()


# --- threads ------------------------------------------------------------------------------------------------


@pytest.fixture
def shared(monkeypatch):
    """Small programs are divided among threads too."""
    monkeypatch.setattr(native_executor, "WORTH_SHARING", 0)
    return lambda n: kg.set_num_threads(n)


@needs_numba
@pytest.mark.parametrize("threads", [2, 3])
def test_results_do_not_depend_on_threads(shared, threads):
    def run(n):
        shared(n)
        kg.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(40, 96), nn.ReLU(), nn.LayerNorm(96), nn.Dropout(0.2), nn.Linear(96, 10)
        )
        optimizer = kg.optim.AdamW(model.parameters(), lr=0.01)
        rng = np.random.default_rng(0)
        x = kg.tensor(rng.normal(size=(400, 40)).astype(np.float32))
        y = kg.tensor(rng.integers(0, 10, 400))

        @native
        def step(x, y):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        losses = [step(x, y).item() for _ in range(8)]
        assert step.last.runner.parallel == (n > 1)
        if n > 1:
            assert "shared by threads" in step.explain()
        return losses, [p.array.copy() for p in model.parameters()]

    losses, state = run(1)
    shared_losses, shared_state = run(threads)
    np.testing.assert_allclose(shared_losses, losses, rtol=1e-4)
    same(shared_state, state, rtol=1e-3, atol=1e-4)
    assert losses[-1] < losses[0]


@needs_numba
def test_shared_loops(shared):
    shared(2)
    agree(lambda x, y: (x * y + 1, (x * y).sum(0), (x + y).sum(1), x.sum(), (x.T @ x)), numbers((300, 400)),
          numbers(400, seed=1), rtol=1e-4, atol=1e-2)  # fmt: skip
    agree(lambda x: (x.softmax(-1), x.amax(1), x.cumsum(0)), numbers((300, 200)), rtol=1e-4, atol=1e-4,
          python=("cumsum", "maximum_reduce"))  # fmt: skip


@needs_numba
def test_another_number_of_threads_afterwards(shared):
    shared(2)
    step = native(lambda x: (x.tanh() @ x.T).sum(1))
    x = kg.tensor(numbers((200, 150)))
    want = step.fn(x)
    for n in (2, 2, 1, 2, 3, 2, 1):
        shared(n)
        same(step(x), want, rtol=1e-4, atol=1e-3)
    assert kg.get_num_threads() == 1


@needs_numba
@pytest.mark.parametrize("threads", [1, 2])
def test_many_threads_call_one_function(shared, threads):
    shared(threads)
    w = kg.tensor(numbers((64, 64)))
    step = native(lambda x: (x @ w).tanh().sum(0))
    xs = [kg.tensor(numbers((64, 64), seed=k)) for k in range(6)]
    wanted = [step.fn(x).array for x in xs]
    wrong = []

    def work(k):
        for i in range(40):
            j = (k + i) % len(xs)
            got = step(xs[j]).array
            if not np.allclose(got, wanted[j], rtol=1e-4, atol=1e-4):
                wrong.append((k, i))

    workers = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for t in workers:
        t.start()
    for t in workers:
        t.join()
    assert wrong == []


@needs_numba
def test_many_threads_train():
    """Steps with state on several threads: each step happens wholly, one after the other."""
    total = kg.zeros(50)

    @native
    def step(x):
        total.add_(x)
        return total * 1

    step(kg.zeros(50)), step(kg.zeros(50))
    torn = []

    def work():
        for _ in range(100):
            values = step(kg.ones(50)).array
            if (values != values[0]).any():
                torn.append(values)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for t in workers:
        t.start()
    for t in workers:
        t.join()
    assert torn == [] and (total.array == 400).all()


@needs_numba
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_process(shared, threads):
    shared(threads)
    step = native(lambda x: (x.tanh() @ x.T).sum(1))
    x = kg.tensor(numbers((200, 150)))
    want = step(x).array
    for _ in range(3):
        step(x)
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads about
        pid = os.fork()
    if pid == 0:
        fine = b"n"
        try:
            got = [step(x).array for _ in range(3)]
            fresh = native(lambda x: (x * 2).sum(1))
            fresh(x)
            got_fresh = fresh(x).array
            pairs = [*((g, want) for g in got), (got_fresh, (x.array * 2).sum(1))]
            if all(np.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in pairs):
                fine = b"y"
        finally:
            os.write(writer, fine)
            os._exit(0)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], 40)
    if not ready:
        os.kill(pid, 9)
    answer = os.read(reader, 1) if ready else b"hangs"
    os.close(reader)
    os.waitpid(pid, 0)
    assert answer == b"y"
    same(step(x), want, rtol=1e-4, atol=1e-3)


# --- kernels that refuse ---------------------------------------------------------------------------------------


def refused(make, good, bad, rng_used=False):
    """A step that is given something wrong: the same error, and everything as eager leaves it."""
    outcomes = []
    for compiled in (False, True):
        kg.manual_seed(5)
        step, tensors = make()
        if compiled:
            step = native(step)
        seen = []
        for args in (good, good, good, bad, good, bad, good):
            try:
                seen.append(step(*args).array.copy())
            except Exception as e:
                seen.append(f"{type(e).__name__}: {e}")
            for t in tensors:
                seen.append(t.array.copy())
                grad = t.__dict__.get("grad")
                seen.append(None if grad is None else grad.array.copy())
            seen.append(kg.get_rng_state().array.copy())
        outcomes.append(seen)
    errors = 0
    for a, b in zip(*outcomes, strict=True):
        if isinstance(a, str) or isinstance(b, str) or a is None or b is None:
            errors += isinstance(a, str)
            assert isinstance(a, type(b)) and (a is b or a == b)
        else:
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert errors == 2


@needs_numba
@pytest.mark.parametrize("dropout", [False, True])
def test_a_class_out_of_range(dropout):
    def make():
        layers = [nn.Linear(5, 8), nn.Dropout(0.3), nn.Linear(8, 3)]
        model = nn.Sequential(*layers if dropout else layers[::2])
        optimizer = kg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(x, y):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return step, list(model.parameters())

    x, y = batch()
    refused(make, (x, y), (x, kg.tensor([0, 1, 2, 3, 0, 1])))


@needs_numba
@pytest.mark.parametrize("index", [7, -1])
def test_an_index_out_of_range(index):
    def make():
        table = nn.Embedding(7, 4)
        optimizer = kg.optim.Adam(table.parameters(), lr=0.1)

        def step(i):
            optimizer.zero_grad()
            loss = table(i).square().sum()
            loss.backward()
            optimizer.step()
            return loss

        return step, list(table.parameters())

    refused(make, (kg.tensor([0, 3, 3, 6]),), (kg.tensor([0, index, 3, 6]),))


@needs_numba
def test_a_probability_out_of_range(shared):
    def make():
        p = kg.tensor(numbers(4)).requires_grad_()

        def step(x, y):
            p.grad = None
            loss = F.binary_cross_entropy(x, y) * p.sum()
            loss.backward()
            with kg.no_grad():
                p.sub_(p.grad * 0.1)
            return loss

        return step, [p]

    good = kg.tensor([0.1, 0.5, 1.0, 0.0]), kg.tensor([0.0, 1.0, 1.0, 0.0])
    refused(make, good, (kg.tensor([0.1, 1.5, 1.0, 0.0]), good[1]))
    shared(2)
    refused(make, good, (kg.tensor([0.1, float("nan"), 1.0, 0.0]), good[1]))


# --- what is said about it ----------------------------------------------------------------------------------


@needs_numba
def test_reports():
    pair = Pair()
    text = pair.step.explain()
    for words in (
        "executor: native", "steps in", "kernels", "memory:", "fused:", "loops", "native kernels:", "FLOP",
        "tensors read by reference", "written: 8 tensors", "cross_entropy", "left to Python: nothing",
    ):  # fmt: skip
        assert words in text, text
    source = pair.step.source
    assert (
        "def loop_" in source
        and "# the step, call by call" in source
        and "(a, part, parts):" in source
    )
    compile(source.split("# the step")[0], "<source>", "exec")
    assert "def step(" in str(pair.step.graph)
    unsupported = native(lambda x: x.argsort() + 1)
    unsupported(kg.ones(3)), unsupported(kg.ones(3))
    if left_to_python(unsupported):
        assert "left to Python:\n" in unsupported.explain() and "# in Python" in unsupported.source
    numpy = kg.compile(lambda x: x * 2, backend="numpy")
    numpy(kg.ones(3))
    assert "executor: NumPy" in numpy.explain() and "def step(" in numpy.source
    fresh = kg.compile(lambda x: x * 2, backend="numba")
    assert "nothing was compiled yet" in fresh.explain()
    with pytest.raises(RuntimeError, match="nothing is compiled yet"):
        fresh.source


@needs_numba
def test_what_has_no_native_form_runs_in_python_between_the_rest():
    def f(x, y):
        a = (x * 2 + y).sort(-1).values
        b = kg.linalg.inv(a @ a.T + 10 * kg.eye(4)) @ x
        return a + 1, b.sum(0), (b * 2).cumsum(0), (x > 0).long().cumsum(1) * 2

    step = native(f)
    x, y = kg.tensor(numbers((4, 4))), kg.tensor(numbers(4, seed=1))
    for _ in range(3):
        same(step(x, y), f(x, y), rtol=1e-4, atol=1e-4)
    for k in range(3):
        same(step(x * k, y + k), f(x * k, y + k), rtol=1e-4, atol=1e-4)


def test_each_pass_keeps_the_program(monkeypatch):
    seen = []

    def watched(one):
        def run(graph):
            new = one(graph)
            new.verify()
            seen.append(one.__name__)
            x = numbers((3, 4))
            (a, _), (b, _) = numpy_executor.build(graph)(x), numpy_executor.build(new)(x)
            same([np.asarray(t) for t in b], [np.asarray(t) for t in a], exact=True)
            return new

        return run

    expected = [one.__name__ for one in passes.PASSES]
    monkeypatch.setattr(passes, "PASSES", [watched(one) for one in passes.PASSES])

    def f(x):
        y = (x.T.T * 1).clone() + kg.zeros(4) + kg.full((4,), 2.0) * 3
        return (
            y,
            (x + 1) * (x + 1),
            x.reshape(2, 6).reshape(12),
            x.sum(),
            x.clone().T.clone(),
            kg.ones(2) + 1,
        )

    step = kg.compile(f, backend="numpy", fullgraph=True)
    x = kg.tensor(numbers((3, 4)))
    for _ in range(2):
        same(step(x), f(x), exact=True)
    assert seen == expected


# --- without Numba ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["auto", "numba"])
def test_without_numba(monkeypatch, backend):
    why = "Numba is not installed (a test says so)"
    monkeypatch.setattr(build, "available", lambda: False)
    monkeypatch.setattr(build, "why_not", lambda: why)
    monkeypatch.setattr(step_module, "_said", set())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        _, _, train = classifier()
        _, _, plain = classifier()
        train = kg.compile(train, backend=backend)
        for k in range(4):
            same(train(*batch(6, k)), plain(*batch(6, k)), rtol=1e-5)
        other = kg.compile(lambda x: x.exp().sum(), backend=backend)
        x = kg.ones(3)
        for _ in range(2):
            same(other(x), x.exp().sum())
    said = [str(w.message) for w in said if issubclass(w.category, RuntimeWarning)]
    assert len(said) == 1 and why in said[0] and "NumPy" in said[0]
    assert "executor: NumPy" in train.explain()


def test_numpy_is_asked_for_without_a_word(monkeypatch):
    monkeypatch.setattr(build, "available", lambda: False)
    monkeypatch.setattr(step_module, "_said", set())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        f = kg.compile(lambda x: x * 2, backend="numpy")
        same([f(kg.ones(2)), f(kg.ones(2))], [2 * kg.ones(2)] * 2)


@needs_numba
def test_memory_that_is_exchanged_behind_our_back():
    """``t.array = …`` tells nobody; the next call sees it all the same."""
    w = kg.ones(3)
    f = kg.compile(lambda x: x * w, backend="numba")
    for _k in range(4):
        assert f(kg.ones(3)).tolist() == [1, 1, 1]
    w.array = np.full(3, 2, np.float32)
    for _k in range(3):
        assert f(kg.ones(3)).tolist() == [2, 2, 2]
