"""Elementwise kernels as the equations they consist of, so that they can be fused with their neighbours.

A kernel such as ``gelu`` is one step for NumPy, which works block by block. In a native loop it is a few
lines among others.
"""
# mypy: allow-untyped-defs
# (an expansion runs on symbols and numbers alike, as a derivative rule does: types would say nothing)

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd.compile.graph import Equation, Graph, Var
from kilograd.compile.scalar import F32, F64, FORMS, Form
from kilograd.kernels import activation, losses, special

LONG = 4096  # elements from which a scalar product is a loop with a sum
EXPANSIONS: dict[Any, Callable[..., Any]] = {}

for _fn, _name in ((special.erf, "erf"), (special.erfc, "erfc")):
    FORMS[_fn] = Form(f"{_name}({{0}})", "float")


class Symbol:
    """A value in an expansion: arithmetic on it becomes equations."""

    def __init__(self, var: Var, into: _Expansion) -> None:
        self.var = var
        self.into = into

    def __neg__(self) -> Any:
        return self.into.apply(np.negative, self)

    def __getattr__(self, name: str) -> Any:
        fn = getattr(np, name)
        return lambda *args: self.into.apply(fn, self, *args)


def _operator(fn: Any, swap: bool = False) -> Any:
    def method(self: Symbol, other: Any) -> Any:
        return self.into.apply(fn, other, self) if swap else self.into.apply(fn, self, other)

    return method


for _name, _ufunc in (
    ("add", np.add),
    ("sub", np.subtract),
    ("mul", np.multiply),
    ("truediv", np.divide),
):
    setattr(Symbol, f"__{_name}__", _operator(_ufunc))
    setattr(Symbol, f"__r{_name}__", _operator(_ufunc, swap=True))
for _name, _comparison in (("gt", np.greater), ("lt", np.less)):
    setattr(Symbol, f"__{_name}__", _operator(_comparison))


class _Expansion:
    """The equations that one equation becomes."""

    def __init__(self, eq: Equation) -> None:
        self.eq = eq
        self.made: list[Equation] = []

    def apply(self, fn: Any, *args: Any) -> Symbol:
        values = [a.var if isinstance(a, Symbol) else a for a in args]
        first = [v for v in values if isinstance(v, Var)]
        shape = np.broadcast_shapes(*[v.shape for v in first])
        dtype = (
            np.dtype(bool)
            if fn in (np.greater, np.less)
            else max((v.dtype for v in first), key=lambda d: (d.kind == "f", d.itemsize))
        )
        out = Var(f"{self.eq.outs[0].name}_{len(self.made)}", shape, dtype)
        self.made.append(Equation((out,), fn, tuple(values), {}, self.eq.line))
        return Symbol(out, self)


def expansion(kernel: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare the equations of an elementwise kernel."""

    def declare(fn: Callable[..., Any]) -> Callable[..., Any]:
        EXPANSIONS[kernel] = fn
        return fn

    return declare


def expanded(graph: Graph) -> Graph:
    """The graph with its elementwise kernels taken apart."""
    equations: list[Equation] = []
    for eq in graph.equations:
        if eq.fn in (np.dot, np.ndarray.dot) and _long_vectors(eq):
            equations += _summed(eq)
            continue
        rule = EXPANSIONS.get(eq.fn)
        arrays = [a for a in eq.args if isinstance(a, Var)]
        if rule is None or not arrays or any(a.dtype not in (F32, F64) or a.number for a in arrays):
            equations.append(eq)
            continue
        into = _Expansion(eq)
        result = rule(*[Symbol(a, into) if isinstance(a, Var) else a for a in eq.args], **eq.kwargs)
        found = result if isinstance(result, tuple) else (result,)
        if any(
            s.var.shape != v.shape or s.var.dtype != v.dtype
            for s, v in zip(found, eq.outs, strict=True)
        ):
            equations.append(eq)
            continue
        names = {s.var: v for s, v in zip(found, eq.outs, strict=True)}
        for made in into.made:
            made = made.replaced(names)
            made.outs = (names.get(made.outs[0], made.outs[0]),)
            equations.append(made)
    return graph.with_equations(equations)


def _long_vectors(eq: Equation) -> bool:
    """Whether a product is the scalar product of two vectors that BLAS would leave to one core."""
    return len(eq.args) == 2 and all(
        isinstance(x, Var) and x.ndim == 1 and x.size > LONG and x.dtype == eq.outs[0].dtype
        for x in eq.args
    )


def _summed(eq: Equation) -> list[Equation]:
    """A scalar product as the sum of products."""
    a, b = eq.args
    products = Var(f"{eq.outs[0].name}_products", a.shape, a.dtype)
    return [
        Equation((products,), np.multiply, (a, b), {}, eq.line),
        Equation(eq.outs, np.add.reduce, (products,), {}, eq.line),
    ]


def _where(c: Symbol, a: Any, b: Any) -> Symbol:
    return c.into.apply(np.where, c, a, b)


def _sigmoid(x: Symbol) -> Symbol:
    return x.into.apply(SIGMOID, x)


def SIGMOID(x: Any) -> Any:
    """1 / (1 + exp(-x)), as one function of native loops."""
    return activation.sigmoid(x)


FORMS[SIGMOID] = Form("sigmoid({0})", "float")


def _softplus(x: Symbol) -> Symbol:
    return x.maximum(0) + (-x.absolute()).exp().log1p()


@expansion(activation.softplus)
def _(x):
    return _softplus(x)


@expansion(activation.silu)
def _(x):
    s = _sigmoid(x)
    return x * s, s


@expansion(activation.silu_gradient)
def _(g, x, s):
    return g * (s * (x * (1 - s) + 1))


@expansion(activation.mish)
def _(x):
    t = _softplus(x).tanh()
    return x * t, t


@expansion(activation.mish_gradient)
def _(g, x, t):
    return g * (t + x * (1 - t * t) * _sigmoid(x))


@expansion(activation.gelu)
def _(x):
    cdf = (x.into.apply(special.erf, x * math.sqrt(0.5)) + 1) * 0.5
    return x * cdf, cdf


@expansion(activation.gelu_gradient)
def _(g, x, cdf):
    return g * (cdf + (x * x * -0.5).exp() * x * (1 / math.sqrt(2 * math.pi)))


@expansion(activation.gelu_tanh)
def _(x):
    a = activation.SQRT_2_OVER_PI
    cdf = ((x * (x * x * (activation.CUBIC * a) + a)).tanh() + 1) * 0.5
    return x * cdf, cdf


@expansion(activation.gelu_tanh_gradient)
def _(g, x, cdf):
    a = activation.SQRT_2_OVER_PI
    return g * (cdf * (x * (x * x * (6 * activation.CUBIC * a) + 2 * a) * (1 - cdf) + 1))


@expansion(activation.elu)
def _(x, alpha, scale, input_scale):
    return _where(x > 0, x * scale, (x.minimum(0) * input_scale).expm1() * (scale * alpha))


@expansion(activation.elu_gradient)
def _(g, x, alpha, scale, input_scale):
    bent = (x.minimum(0) * input_scale).exp() * (scale * alpha * input_scale)
    return g * _where(x > 0, scale, bent)


@expansion(losses.binary_cross_entropy_slope)
def _(p, t):
    return (p - t) / ((1 - p) * p).maximum(1e-12)


@expansion(losses.binary_cross_entropy_with_logits)
def _(x, t):
    return _softplus(-x) + x - x * t, _sigmoid(x)


@expansion(losses.smooth_absolute_error)
def _(a, b, beta, scale):
    d = (a - b).absolute()
    near = d.minimum(beta)
    return (d - near * 0.5) * near * (scale / beta)
