"""The program of a step: a straight list of equations, ``out = fn(args)``, on arrays.

A value is a :class:`Var`, given once and never changed: what a rule wrote in place is a new value
here. Memory that outlives the step is read at the beginning (``inputs``) and written at the end
(``writes``), so that a step that fails half-way has changed nothing. ``print(graph)`` shows the
NumPy function you could have written.

Read next: ``compile/passes.py``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Array = np.ndarray


class Var:
    """One value: an array of a known shape and dtype, or a Python number (``number``)."""

    __slots__ = ("dtype", "name", "number", "shape")

    def __init__(self, name: str, shape: tuple[int, ...], dtype: Any, number: bool = False) -> None:
        self.name = name
        self.shape = shape
        self.dtype = dtype
        self.number = number

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        n = 1
        for k in self.shape:
            n *= k
        return n

    def __repr__(self) -> str:
        return self.name


class Equation:
    """``outs = fn(*args, **kwargs)``; an effect (a random draw) keeps its place in the program."""

    __slots__ = ("args", "effect", "fn", "kwargs", "line", "outs", "tree")

    def __init__(
        self, outs: tuple[Var, ...], fn: Callable[..., Any], args: tuple[Any, ...],
        kwargs: dict[str, Any], line: str = "", effect: bool = False, tree: Any = None,
    ) -> None:  # fmt: skip
        self.outs = outs
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.line = line  # the user's source line
        self.effect = effect
        self.tree = tree  # the structure of the results, Vars in it; None: the one result

    def inputs(self) -> Iterator[Var]:
        """The values it reads."""
        yield from variables(self.args)
        yield from variables(self.kwargs)

    def replaced(self, values: dict[Var, Any]) -> Equation:
        """The equation with some of what it reads exchanged."""
        if not any(v in values for v in self.inputs()):
            return self
        swap = lambda v: values.get(v, v)  # noqa: E731
        args, kwargs = mapped(swap, self.args), mapped(swap, self.kwargs)
        return Equation(self.outs, self.fn, args, kwargs, self.line, self.effect, self.tree)


class Graph:
    """A whole program: inputs, equations in order, results, and what is written at the end."""

    def __init__(self) -> None:
        self.inputs: list[Var] = []
        self.constants: dict[Var, Any] = {}
        self.equations: list[Equation] = []
        self.outputs: list[Var] = []
        self.writes: list[tuple[Var, Var]] = []  # (the input that is written to, its new value)

    def with_equations(self, equations: list[Equation]) -> Graph:
        """The same program with other equations."""
        new = Graph()
        new.inputs, new.constants = self.inputs, self.constants
        new.outputs, new.writes, new.equations = self.outputs, self.writes, equations
        return new

    def results(self) -> list[Var]:
        """What must be known at the end."""
        return [*self.outputs, *(value for _, value in self.writes)]

    def __str__(self) -> str:
        from kilograd.compile.numpy_executor import source

        return source(self)

    def verify(self) -> None:
        """Every value is given once, before it is read. Run after each pass in the tests.

        Raises:
            AssertionError: naming the equation that breaks the rule.
        """
        known: set[Var] = {*self.inputs, *self.constants}
        assert len(known) == len(self.inputs) + len(self.constants), "an input is given twice"
        for k, eq in enumerate(self.equations):
            for v in eq.inputs():
                assert v in known, f"equation {k} ({name_of(eq.fn)}) reads {v} before it is known"
            for v in eq.outs:
                assert v not in known, f"equation {k} ({name_of(eq.fn)}) gives {v} a second time"
                known.add(v)
        for v in self.results():
            assert v in known, f"the result {v} is never computed"
        targets = [t for t, _ in self.writes]
        assert len(set(targets)) == len(targets), "an input is written twice"
        for target, value in self.writes:
            assert target in self.inputs, f"{target} is written but is no input"
            assert target.shape == value.shape, f"{value} does not fit into {target}"


# --- functions that NumPy says as statements -------------------------------------------------------


def put(x: Array, index: Any, values: Any) -> Array:
    """A copy of ``x`` with ``x[index] = values``."""
    y = np.array(x)  # NumPy's 0-d results are numbers
    y[index] = values
    return y


def put_view(x: Array, values: Any, path: Any) -> Array:
    """A copy of ``x`` with ``values`` in place of a view of it; ``path`` leads to the view."""
    y = np.array(x)  # NumPy's 0-d results are numbers
    (view := follow(path, y))[...] = values
    if not np.may_share_memory(view, y):  # x lies otherwise than when this was recorded
        np.put(y, follow(path, np.arange(y.size).reshape(y.shape)), view)
    return y


def follow(path: Any, x: Any) -> Any:
    """The view of ``x`` at the end of a path of (function, arguments, options)."""
    for fn, args, kwargs in path:
        x = fn(x, *args, **kwargs)
    return x


def cast(x: Any, dtype: Any) -> Any:
    """``x`` in another dtype."""
    return x.astype(dtype)


# --- trees of values -------------------------------------------------------------------------------


def mapped(f: Callable[[Any], Any], tree: Any) -> Any:
    """A nested structure (tuples, lists, dicts, slices) with ``f`` applied to everything in it."""
    kind = type(tree)
    if kind is tuple:
        return tuple([mapped(f, t) for t in tree])
    if kind is list:
        return [mapped(f, t) for t in tree]
    if kind is dict:
        return {k: mapped(f, t) for k, t in tree.items()}
    if kind is slice:
        return slice(mapped(f, tree.start), mapped(f, tree.stop), mapped(f, tree.step))
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return kind(*[mapped(f, t) for t in tree])
    return f(tree)


def leaves(tree: Any) -> Iterator[Any]:
    """Everything in a nested structure, in the order of :func:`mapped`."""
    kind = type(tree)
    if kind in (tuple, list) or (isinstance(tree, tuple) and hasattr(tree, "_fields")):
        for t in tree:
            yield from leaves(t)
    elif kind is dict:
        for t in tree.values():
            yield from leaves(t)
    elif kind is slice:
        yield from (tree.start, tree.stop, tree.step)
    else:
        yield tree


def variables(tree: Any) -> Iterator[Var]:
    """The Vars in a nested structure."""
    return (v for v in leaves(tree) if type(v) is Var)


# --- names -----------------------------------------------------------------------------------------

INFIX = {
    np.add: "+", np.subtract: "-", np.multiply: "*", np.divide: "/", np.floor_divide: "//",
    np.remainder: "%", np.matmul: "@", np.greater: ">", np.less: "<", np.greater_equal: ">=",
    np.less_equal: "<=", np.equal: "==", np.not_equal: "!=", np.bitwise_and: "&",
    np.bitwise_or: "|", np.bitwise_xor: "^", operator.pow: "**", operator.add: "+",
    operator.sub: "-", operator.mul: "*", operator.truediv: "/",
}  # fmt: skip

NAMES: dict[Any, str] = {}  # functions that are shown by a name that is not their own


def name_of(fn: Any) -> str:
    """What a function is called in a printed program."""
    if fn in NAMES:
        return NAMES[fn]
    owner = getattr(fn, "__self__", None)
    if isinstance(owner, np.ufunc):
        return f"{owner.__name__}_{fn.__name__}"
    name = getattr(fn, "__name__", None) or type(fn).__name__
    return name if name.isidentifier() else "fn"
