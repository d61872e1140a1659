"""The steps that some values need, as a function for ``kg.compile``."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from kilograd.compile import frames
from kilograd.compile.graph import Equation, Var, leaves, mapped, name_of
from kilograd.compile.step import Compiled
from kilograd.errors import TraceError
from kilograd.kernels.kernel import as_one_step
from kilograd.tensor import Tensor, wrap

_UNEXPECTED = (
    "{}: its result has the shape {}, where the graph has reckoned with {}: the shape depends on values, "
    "which a lazy graph does not know\n  at {}"
)


class Plan:
    """The steps that some values need, as a function for ``kg.compile``."""

    def __init__(
        self, steps: list[Equation], inputs: list[Var], outputs: list[Var], like: dict[Var, Any]
    ) -> None:
        self.steps = steps
        self.inputs = inputs
        self.outputs = outputs
        shapes = {v: like[v].shape for eq in steps for v in eq.outs}
        self.compiled = Compiled(functools.partial(_replay, steps, inputs, outputs, shapes))


def _replay(
    steps: Any, inputs: Any, outputs: Any, shapes: Any, *tensors: Tensor
) -> tuple[Tensor, ...]:
    """Run steps one by one: eagerly, or while ``kg.compile`` is looking."""
    values: dict[Var, Any] = dict(zip(inputs, [t.array for t in tensors], strict=True))
    for eq in steps:
        args, kwargs = mapped(lambda x: values[x] if type(x) is Var else x, (eq.args, eq.kwargs))
        result = _run_step(eq.fn, args, kwargs)
        tree = eq.outs[0] if eq.tree is None and eq.outs else eq.tree
        for v, x in zip(leaves(tree), leaves(result), strict=True):
            if type(v) is Var:
                values[v] = np.asarray(x) if isinstance(x, np.generic) else x
                if np.shape(x) != shapes[v]:
                    raise TraceError(
                        _UNEXPECTED.format(name_of(eq.fn), np.shape(x), shapes[v], eq.line)
                    )
    return tuple([wrap(values[v]) for v in outputs])


def _run_step(fn: Any, args: Any, kwargs: Any) -> Any:
    try:
        return fn(*args, **kwargs)
    except Exception as e:
        return as_one_step(fn, args, kwargs, name_of(fn), e)


frames._OPS.add(_run_step.__code__)


class Writing:
    """A function that writes into some of its arguments, as one that returns what they become."""

    def __init__(self, fn: Any, places: tuple[int, ...]) -> None:
        self.fn = fn
        self.places = places
        self.__name__ = name_of(fn)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        count = -1
        new: list[Any] = []

        def own(x: Any) -> Any:
            nonlocal count
            count += 1
            if count in self.places:
                x = x.copy()
                new.append(x)
            return x

        args, kwargs = mapped(own, (args, kwargs))
        return self.fn(*args, **kwargs), tuple(new)


class Part:
    """One of several results of a function, as a function."""

    def __init__(self, fn: Any, place: int) -> None:
        self.fn = fn
        self.place = place
        self.__name__ = name_of(fn)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)[self.place]
