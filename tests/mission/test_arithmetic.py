"""Arithmetic, functions of single elements, and reductions: values and derivatives."""

from __future__ import annotations

import numpy as np
import pytest

import kilograd as kg
from tests.mission.rows import close, numbers, row, slopes

# --- arithmetic ---------------------------------------------------------------------------------


@row("Arithmetic", "+ - * with broadcasting, reflected", ancestors="all")
def test_add_subtract_multiply_with_broadcasting_reflected():
    """`+ - *` broadcast as NumPy does, with a number or array on either side, or one tensor on both."""
    a, b = numbers(2, 3), numbers(4, 1, 3)
    close(slopes(lambda x, y: x + y * x - y, a, b), a + b * a - b)
    close(slopes(lambda x: 2 - x * 3 + 1, a), 3 - 3 * a)
    close(slopes(lambda x: x + x * x - x, a), a * a)
    with pytest.raises(RuntimeError, match="could not be broadcast"):
        kg.ones(2, 3) + kg.ones(2)


@row("Arithmetic", "/", ancestors="all")
def test_divide():
    """`/` is true division, of integers too; division by zero is inf or nan, as in IEEE arithmetic."""
    a, b = numbers(2, 3), numbers(3) + 4
    close(slopes(lambda x, y: x / y, a, b), a / b)
    close(slopes(lambda y: 1 / y / y, b), b**-2)
    assert (kg.tensor([7, 8]) / 2).tolist() == [3.5, 4.0]
    assert (kg.tensor([1.0, -1.0, 0.0]) / 0).tolist()[:2] == [np.inf, -np.inf]
    assert (kg.tensor([7, -7]) // 2).tolist() == [3, -4]


@row("Arithmetic", "unary - / +", ancestors="all")
def test_unary_minus_and_plus():
    """`-x` and `+x`; booleans refuse both, as in PyTorch."""
    a = numbers(4)
    close(slopes(lambda x: -x, a), -a)
    close(slopes(lambda x: +x * 2, a), 2 * a)
    with pytest.raises((TypeError, RuntimeError)):
        -kg.tensor([True])


@row("Arithmetic", "** constant", ancestors="all")
def test_power_of_a_constant():
    """`x ** n` for whole, negative and fractional exponents; the slope of `x ** 0` at 0 is 0."""
    a = np.abs(numbers(5)) + 0.3
    for n in (2, 3, -1, 0.5, -2.5, 0):
        close(slopes(lambda x, n=n: x**n, a), a**n)
    x = kg.tensor([0.0, 0.0], requires_grad=True)
    (x**0).backward(kg.ones(2))
    assert x.grad.tolist() == [0, 0]


@row("Arithmetic", "constant ** tensor", ancestors="synapgrad, neograd, simple_autograd")
def test_constant_to_the_power_of_a_tensor():
    """`2 ** x`, with the slope `log(2) * 2 ** x`."""
    a = numbers(2, 3)
    close(slopes(lambda x: 2**x, a), 2**a)
    close(slopes(lambda x: 0.5**x, a), 0.5**a)


@row("Arithmetic", "tensor ** tensor (both grads)", ancestors="neograd, macrograd, simple_autograd")
def test_tensor_to_the_power_of_a_tensor():
    """`x ** y` with both gradients and broadcasting; `x ** x` too."""
    a, b = np.abs(numbers(2, 3)) + 0.2, numbers(3)
    close(slopes(lambda x, y: x**y, a, b), a**b)
    close(slopes(lambda x: x**x, a), a**a)


@row("Arithmetic", "% (left grad)", ancestors="simple_autograd")
def test_remainder_with_left_gradient():
    """`x % y` has the sign of `y` and both gradients: 1 on the left, minus the whole quotient on the right."""
    a, b = np.array([5.5, -5.5, 7.25]), np.array([2.0, 2.0, -3.0])
    close(slopes(lambda x: x % 2, a), a % 2)
    close(slopes(lambda x, y: x % y, a, b), a % b)


@row("Arithmetic", "matmul @ 2-D", ancestors="all")
def test_matmul_of_matrices():
    """`x @ y`, `kg.matmul`, `kg.mm`; shapes that do not fit are named in the error."""
    a, b = numbers(2, 3), numbers(3, 4)
    close(slopes(lambda x, y: x @ y, a, b), a @ b)
    close(kg.mm(kg.tensor(a), kg.tensor(b)), a @ b)
    with pytest.raises(RuntimeError, match="2x3 and 2x3"):
        kg.ones(2, 3) @ kg.ones(2, 3)


@row("Arithmetic", "batched matmul, broadcast", ancestors="all")
def test_batched_matmul_with_broadcasting():
    """`@` of batches of matrices, whose batch dimensions broadcast; the gradients have the inputs' shapes."""
    for first, second in (((5, 2, 3), (5, 3, 2)), ((2, 3), (4, 3, 2)), ((3, 1, 2, 3), (4, 3, 2))):
        a, b = numbers(*first), numbers(*second)
        close(slopes(lambda x, y: x @ y, a, b), a @ b)


@row(
    "Arithmetic",
    "vector @ vector / matrix @ vector",
    ancestors="neograd, macrograd, pygrad, simple_autograd",
)
def test_vector_products():
    """`@` of vectors with vectors, matrices and batches, in both orders; `kg.dot` and `kg.mv` as well."""
    v, w, m, batch = numbers(3), numbers(3), numbers(4, 3), numbers(2, 4, 3)
    for a, b in ((v, w), (m, v), (w[:2], numbers(2, 5)), (batch, v), (numbers(4), batch)):
        close(slopes(lambda x, y: x @ y, a, b), a @ b)
    close(kg.dot(kg.tensor(v), kg.tensor(w)), v @ w)
    close(kg.mv(kg.tensor(m), kg.tensor(v)), m @ v)


@row("Arithmetic", "addmm", ancestors="synapgrad")
def test_addmm():
    """`kg.addmm(c, a, b, beta=, alpha=)` is `beta * c + alpha * a @ b`."""
    c, a, b = numbers(4), numbers(2, 3), numbers(3, 4)
    got = slopes(lambda z, x, y: kg.addmm(z, x, y, beta=0.5, alpha=-2), c, a, b)
    close(got, 0.5 * c - 2 * a @ b)


@row("Arithmetic", "square", ancestors="pygrad")
def test_square():
    """`kg.square(x)` and `x.square()`."""
    a = numbers(2, 3)
    close(slopes(kg.square, a), a * a)


@row("Arithmetic", "maximum / minimum (elementwise)", ancestors="simple_autograd")
def test_maximum_and_minimum():
    """`kg.maximum(x, y)` and `kg.minimum`; equal elements share the gradient."""
    a, b = numbers(2, 3), numbers(3)
    close(slopes(kg.maximum, a, b), np.maximum(a, b))
    close(slopes(kg.minimum, a, b), np.minimum(a, b))
    x, y = kg.ones(1, requires_grad=True), kg.ones(1, requires_grad=True)
    kg.maximum(x, y).backward(kg.tensor([3.0]))
    assert x.grad.tolist() == y.grad.tolist() == [1.5]


# --- elementwise --------------------------------------------------------------------------------


@row("Elementwise", "exp, log, sqrt", ancestors="all")
def test_exp_log_sqrt():
    """`kg.exp`, `log`, `sqrt`: exact, without an epsilon; `log(0)` is -inf and `log(-1)` is nan."""
    a = np.abs(numbers(2, 3)) + 0.1
    for name in ("exp", "log", "sqrt"):
        close(slopes(getattr(kg, name), a), getattr(np, name)(a))
    assert kg.log(kg.tensor([0.0])).item() == -np.inf and kg.log(kg.tensor(1.0)).item() == 0
    assert np.isnan(kg.tensor(-1.0).log().item())


@row("Elementwise", "sin, cos", ancestors="pygrad, simple_autograd")
def test_sin_cos():
    """`kg.sin` and `kg.cos`, and the rest of trigonometry."""
    a = numbers(2, 3)
    for name in ("sin", "cos", "tan", "sinh", "cosh", "arctan"):
        close(slopes(getattr(kg, name), a), getattr(np, name)(a))


@row("Elementwise", "tanh", ancestors="synapgrad, neograd, pygrad")
def test_tanh():
    """`kg.tanh`, finite for every input."""
    a = numbers(2, 3)
    close(slopes(kg.tanh, a), np.tanh(a))
    assert kg.tanh(kg.tensor([-1e4, 1e4])).tolist() == [-1, 1]


@row("Elementwise", "log2 / ln", ancestors="macrograd")
def test_log2_and_natural_log():
    """`kg.log` is the natural logarithm; `kg.log2` and `kg.log10` are the other bases."""
    a = np.abs(numbers(2, 3)) + 0.1
    close(slopes(kg.log2, a), np.log2(a))
    close(slopes(kg.log10, a), np.log10(a))
    close(kg.log(kg.tensor(a)) / np.log(2), np.log2(a))


# --- reductions ---------------------------------------------------------------------------------


@row("Reductions", "sum axis int/tuple, keepdims", ancestors="all")
def test_sum_over_axes():
    """`x.sum(dim, keepdim)`, over one axis, several or all; the gradient is right for square inputs too."""
    a = numbers(3, 3, 3)
    for dim in (None, 0, 1, -1, (0, 2), (-1, 0)):
        for keep in (False, True):
            got = slopes(lambda x, d=dim, k=keep: kg.sum(x, dim=d, keepdim=k), a)
            close(got, a.sum(axis=dim, keepdims=keep))
    with pytest.raises(IndexError):
        kg.tensor(a).sum(3)


@row("Reductions", "mean", ancestors="synapgrad, simple_autograd")
def test_mean():
    """`x.mean(dim, keepdim)`; of integers it is an error, as in PyTorch."""
    a = numbers(3, 3)
    for dim in (None, 0, -1, (0, 1)):
        close(slopes(lambda x, d=dim: kg.mean(x, dim=d), a), a.mean(axis=dim))
    with pytest.raises(RuntimeError, match="floating point"):
        kg.arange(3).mean()


@row("Reductions", "max / min with axis", ancestors="synapgrad, macrograd, simple_autograd")
def test_max_and_min_with_axis():
    """`x.max(dim)` gives values and indices, the gradient to the first; `amax` shares it among equals."""
    a = numbers(3, 4)
    values, indices = kg.tensor(a).max(dim=1)
    close(values, a.max(1))
    assert indices.tolist() == a.argmax(1).tolist()
    for dim in (0, 1, (0, 1)):
        close(slopes(lambda x, d=dim: kg.amax(x, d), a), a.max(dim))
        close(slopes(lambda x, d=dim: kg.amin(x, d), a), a.min(dim))
    for fn, expected in ((lambda x: x.max(0)[0], [6, 0]), (lambda x: x.amax(0), [3, 3])):
        x = kg.ones(2, requires_grad=True)
        fn(x).backward(kg.tensor(6.0))
        assert x.grad.tolist() == expected


@row("Reductions", "var / std (unbiased flag)", ancestors="simple_autograd")
def test_var_and_std():
    """`x.var(dim, unbiased=…)` and `x.std`, unbiased by default; `correction=` says it as a number."""
    a = numbers(4, 3)
    for unbiased in (True, False):
        got = slopes(lambda x, u=unbiased: x.var(0, unbiased=u), a)
        close(got, a.var(0, ddof=int(unbiased)))
        got = slopes(lambda x, u=unbiased: x.std(1, unbiased=u, keepdim=True), a)
        close(got, a.std(1, ddof=int(unbiased), keepdims=True))
    close(kg.tensor(a).var(correction=0), a.var())


@row("Reductions", "`keepdim` alias", ancestors="simple_autograd")
def test_keepdim_alias():
    """`dim` and `axis`, `keepdim` and `keepdims` are the same arguments of every reduction."""
    x = kg.tensor(numbers(2, 3))
    for name in ("sum", "mean", "amax", "amin", "prod", "var", "std", "argmax", "logsumexp"):
        one = getattr(x, name)(dim=1, keepdim=True)
        assert one.shape == (2, 1) and kg.equal(one, getattr(x, name)(axis=1, keepdims=True))
        assert getattr(kg, name)(x, axis=1).shape == (2,)
