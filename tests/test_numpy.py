"""Tensors among NumPy's arrays and functions: never a silent detach, never a surprise of type."""

from __future__ import annotations

import operator

import numpy as np
import pytest

import kilograd as kg
from kilograd.ops.elementwise import BY_UFUNC

rng = np.random.default_rng(1)
OPERATORS = (
    "add",
    "sub",
    "mul",
    "truediv",
    "pow",
    "floordiv",
    "mod",
    "matmul",
    "lt",
    "le",
    "gt",
    "ge",
    "eq",
    "ne",
)


def inputs_of(ufunc):
    whole = ufunc in (np.invert, np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.left_shift, np.right_shift,
                      np.gcd, np.lcm)  # fmt: skip
    low, high = (1.1, 2.0) if ufunc is np.arccosh else (0.1, 0.9)
    args = [rng.uniform(low, high, (2, 3)) for _ in range(ufunc.nin)]
    return [(a * 10).astype(np.int64) for a in args] if whole else args


@pytest.mark.parametrize(
    "ufunc", sorted(BY_UFUNC, key=lambda u: u.__name__), ids=lambda u: u.__name__
)
def test_ufuncs_on_tensors_are_numpys_on_arrays(ufunc):
    args = inputs_of(ufunc)
    expected = ufunc(*args)
    y = ufunc(*[kg.tensor(a) for a in args])
    assert isinstance(y, kg.Tensor)
    np.testing.assert_allclose(y.array, expected, rtol=1e-12)
    if ufunc.nin == 2:  # an array on either side
        for mixed in ((kg.tensor(args[0]), args[1]), (args[0], kg.tensor(args[1]))):
            y = ufunc(*mixed)
            assert isinstance(y, kg.Tensor)
            np.testing.assert_allclose(y.array, expected, rtol=1e-12)


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_between_tensors_and_arrays(name):
    fn = getattr(operator, name)
    a, b = rng.uniform(0.5, 3, (2, 3, 3))
    for x, y in (
        (kg.tensor(a), b),
        (a, kg.tensor(b)),
        (kg.tensor(a), np.float64(2.0)),
        (np.float64(2.0), kg.tensor(b)),
    ):
        if name == "matmul" and (np.ndim(x) == 0 or np.ndim(y) == 0):
            continue
        z = fn(x, y)
        assert isinstance(z, kg.Tensor), (type(x), type(y))
        np.testing.assert_allclose(z.array, fn(np.asarray(x), np.asarray(y)))


def test_numpy_scalars_do_not_widen():
    x = kg.ones(3)
    for scalar in (np.float32(2), 2.0, 2, True, np.int64(2), np.float64(2)):
        assert (x * scalar).dtype == kg.float32, type(scalar)
        assert (scalar * x).dtype == kg.float32, type(scalar)
    assert (kg.ones(3, dtype=kg.int64) * np.float32(2)).dtype == kg.float32


def test_memory_is_shared_where_pytorch_shares_it():
    a = np.arange(3.0)
    assert np.shares_memory(kg.from_numpy(a).numpy(), a)
    assert np.shares_memory(np.asarray(kg.from_numpy(a)), a) and np.shares_memory(
        kg.as_tensor(a).array, a
    )
    assert not np.shares_memory(kg.tensor(a).array, a)
    t = kg.from_numpy(a)
    t.add_(1)
    assert a.tolist() == [1, 2, 3]
    with pytest.raises(TypeError):
        kg.from_numpy([1.0])
    assert np.asarray(t, dtype=np.float32).dtype == np.float32 and np.array(t).tolist() == [1, 2, 3]
    assert t.detach().numpy() is t.array or np.shares_memory(t.detach().numpy(), a)


def test_an_array_is_not_changed_into_a_tensor_in_place():
    a, t = np.ones(2), kg.ones(2, dtype=kg.float64, requires_grad=True)
    with pytest.raises(TypeError):
        a += t
    assert a.tolist() == [1, 1]
    with pytest.raises((TypeError, RuntimeError)):
        a[:] = t
    a[:] = t.detach() * 3
    assert a.tolist() == [3, 3]


CALLS = {  # (array function of a matrix, its arguments)
    "sum": [(), (0,), {"axis": (0, 1)}, {"axis": -1, "keepdims": True}], "mean": [(), (1,), {"axis": 0, "keepdims": True}],
    "prod": [(), (1,)], "max": [(), (0,), {"axis": 1, "keepdims": True}], "min": [(), (1,)], "amax": [(0,)],
    "var": [(), (0,), {"ddof": 1}, {"axis": 1, "keepdims": True}], "std": [(), (1,), {"axis": 0, "ddof": 1}],
    "nansum": [(), (0,)], "nanmean": [(), (1,)], "cumsum": [(), (0,)], "cumprod": [(), (1,)], "sort": [(), (0,)],
    "quantile": [(0.3,), (0.5, 1)], "diff": [(), (1, 0)], "clip": [(-0.5, 0.5), (None, 0.2)],
    "nan_to_num": [()], "round": [(), (1,)], "sinc": [()], "i0": [()], "real": [()], "copy": [()],
    "reshape": [((2, 6),), (12,)], "ravel": [()], "transpose": [(), ((1, 0),)], "swapaxes": [(0, 1)],
    "moveaxis": [(0, 1)], "squeeze": [()], "expand_dims": [(1,)], "broadcast_to": [((2, 3, 4),)],
    "atleast_1d": [()], "atleast_2d": [()], "flip": [(), (0,)], "fliplr": [()], "flipud": [()],
    "roll": [(2,), (1, 0)], "rot90": [(), (2,)], "tile": [(2,), ((2, 1),)], "repeat": [(2,), (3, 1)],
    "take": [([0, 5, 5],), ([1, 1], 1)], "split": [(3,), ([1], 1)], "array_split": [(2,)], "diag": [(), (1,)],
    "diagonal": [(), (1,)], "tril": [(), (-1,)], "triu": [(), (1,)], "trace": [(), (1,)],
}  # fmt: skip
PAIRS = {
    "dot": ["a, b.T", "a, b[0]", "a[0], b[0]", "a[0], b.T"], "outer": ["a, b"], "inner": ["a, b", "a[0], b[0]"],
    "kron": ["a, b"], "tensordot": ["a, b.T, 1", "a, b, 2"], "einsum": ["'ij,kj->ik', a, b"],
    "where": ["b > 0, a, 0.5", "b > 0, a, b"], "concatenate": ["[a, b]", "[a, b], 1", "(a, b), None"],
    "stack": ["[a, b]", "[a, b], -1"], "vstack": ["[a, b]"], "hstack": ["[a, b]"], "dstack": ["[a, b]"],
    "column_stack": ["[a, b]"], "linalg.inv": ["a[:, :3]"], "linalg.det": ["a[:, :3]"],
    "linalg.matrix_power": ["a[:, :3], 3"],
}  # fmt: skip


def named(name):
    return operator.attrgetter(name)(np)


def compare(fn, a):
    """The same function of an array, of a tensor, and of one that requires grad."""
    expected = fn(a)
    for grad in (False, True):
        x = kg.tensor(a, requires_grad=grad)
        got = fn(x)
        assert (
            type(got) is type(expected)
            if isinstance(expected, list)
            else isinstance(got, kg.Tensor)
        )
        ys = got if isinstance(got, list) else [got]
        for y, e in zip(ys, expected if isinstance(expected, list) else [expected], strict=True):
            assert y.requires_grad == grad and y.array.shape == np.shape(e)
            np.testing.assert_allclose(y.array, e, rtol=1e-12)
        if grad:
            ups = [kg.tensor(rng.standard_normal(y.array.shape)) for y in ys]
            (g,) = kg.autograd.grad(ys, x, ups)
            u, eps = rng.standard_normal(a.shape), 1e-6
            left, right = (fn(a + k * eps * u) for k in (-1, 1))
            if not isinstance(left, list):
                left, right = [left], [right]
            numeric = sum(
                (v.array * (q - p)).sum() for v, p, q in zip(ups, left, right, strict=True)
            ) / (2 * eps)
            np.testing.assert_allclose((g.array * u).sum(), numeric, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", CALLS)
def test_array_functions_have_numpys_meaning(name):
    for how in CALLS[name]:
        args, kwargs = ((), how) if isinstance(how, dict) else (how, {})
        compare(lambda x, a=args, k=kwargs: named(name)(x, *a, **k), rng.standard_normal((3, 4)))


@pytest.mark.parametrize("name", PAIRS)
def test_array_functions_of_two_have_numpys_meaning(name):
    b = rng.standard_normal((3, 4))
    for how in PAIRS[name]:
        compare(
            eval(f"lambda a: fn({how})", {"fn": named(name), "b": b}), rng.standard_normal((3, 4))
        )


def test_every_differentiable_array_function_is_tested():
    from kilograd.functions.dispatch import _DIFFERENTIABLE

    assert set(_DIFFERENTIABLE) == {named(n) for n in (*CALLS, *PAIRS, "amin")}


def test_other_functions_take_tensors_without_gradients_only():
    a = rng.standard_normal((3, 4))
    for fn in (np.median, np.unique, np.ptp, np.linalg.norm, lambda x: np.percentile(x, 30), np.cov, np.fft.fft,
               lambda x: np.histogram(x)[0], lambda x: np.gradient(x)[0], lambda x: np.sum(x, where=x > 0),
               lambda x: np.sum(x, dtype=np.float32), lambda x: np.apply_along_axis(np.sum, 0, x),
               lambda x: np.interp(x, [0, 1], [0, 1]), lambda x: np.add.reduce(x)):  # fmt: skip
        y = fn(kg.tensor(a))
        np.testing.assert_allclose(np.asarray(y), fn(a), rtol=1e-6)
        with pytest.raises((TypeError, RuntimeError)):
            fn(kg.tensor(a, requires_grad=True))
    for fn in (np.argmax, np.argsort, np.nonzero, np.shape, np.size, np.zeros_like, lambda x: np.allclose(x, x),
               lambda x: np.count_nonzero(x > 0), np.all, lambda x: np.isclose(x, 0)):  # fmt: skip
        got, expected = fn(kg.tensor(a, requires_grad=True)), fn(a)
        assert np.array_equal(np.asarray(got), np.asarray(expected))
    np.testing.assert_array_equal(kg.tensor(a), a)


def test_random_indices_and_lists_of_tensors():
    rows = [kg.tensor([1.0, 2.0]), kg.tensor([3.0, 4.0])]
    assert np.array(rows).tolist() == [[1, 2], [3, 4]] and kg.tensor(rows[0]).tolist() == [1, 2]
    a = np.arange(4)
    assert a[kg.tensor(2)] == 2 and a[kg.tensor([0, 3]).numpy()].tolist() == [0, 3]
    assert list(range(5))[kg.tensor(3)] == 3 and list(range(kg.tensor(3))) == [0, 1, 2]
