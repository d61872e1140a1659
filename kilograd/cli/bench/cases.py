"""An op to be timed: written once, and run forward and backward in each library.

An op is a function of ``lib``, which is kilograd, ``torch`` or ``jax.numpy``, and of tensors. JAX is timed
where that function happens to mean the same in it: where it has no such name, or gives another result, it
is left out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kilograd.cli.bench.timing import Step

Array = Any
PARTS = ("both", "forward", "backward")


# What goes in --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Input:
    """An array that an op gets: its shape, how it is filled, and whether its gradient is asked for."""

    shape: tuple[int, ...]
    fill: Callable[[np.random.RandomState, tuple[int, ...]], Array]
    gradient: bool = True

    def array(self, generator: np.random.RandomState) -> Array:
        return self.fill(generator, self.shape)


def normal(*shape: int) -> Input:
    """Normal numbers: the usual input."""
    return Input(shape, lambda g, s: g.standard_normal(s).astype(np.float32))


def uniform(*shape: int) -> Input:
    """Numbers from 0.05 to 1, for functions of positive ones."""
    return Input(shape, lambda g, s: g.uniform(0.05, 1, s).astype(np.float32))


def distinct(*shape: int) -> Input:
    """No two alike, where sorting and maxima would have to choose (float32 holds 2**24 integers)."""
    return Input(
        shape, lambda g, s: (g.permutation(math.prod(s)).reshape(s) / 1024).astype(np.float32)
    )


def target(*shape: int) -> Input:
    """Numbers from 0 to 1 whose gradient nobody wants."""
    return Input(shape, lambda g, s: g.uniform(0, 1, s).astype(np.float32), gradient=False)


def integers(high: int, *shape: int) -> Input:
    """Classes or places: integers below ``high``."""
    return Input(shape, lambda g, s: g.randint(0, high, s), gradient=False)


def mask(*shape: int) -> Input:
    """True or false."""
    return Input(shape, lambda g, s: g.uniform(0, 1, s) < 0.5, gradient=False)


# An op ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Op:
    """A row of the table.

    ``function(lib, *inputs)`` gives a tensor or several. Where there is a ``setup(lib)``, what it makes (a
    layer, an optimizer) comes before the inputs, and the gradients of a layer's parameters are asked for
    as well. An op without ``gradient`` is timed forward only.
    """

    name: str
    group: str
    function: Callable[..., Any]
    inputs: tuple[Input, ...] = ()
    text: str = ""  # the size to print, if the shapes of the inputs do not say it
    setup: Callable[[Any], Any] | None = None
    gradient: bool = True

    @property
    def size(self) -> str:
        """The shapes of the inputs, as they are printed."""
        runs = itertools.groupby("x".join(map(str, i.shape)) for i in self.inputs)
        counted = [(shape, len(list(run))) for shape, run in runs]
        return self.text or ", ".join(f"{n} of {shape}" if n > 1 else shape for shape, n in counted)

    def arrays(self) -> list[Array]:
        """The inputs: the same numbers in every library and every run."""
        generator = np.random.RandomState(0)
        return [i.array(generator) for i in self.inputs]


class Case:
    """An op in kilograd or PyTorch: its tensors, and the upstream gradient of what it gives."""

    def __init__(self, op: Op, lib: Any) -> None:
        lib.manual_seed(0)
        self.op, self.lib = op, lib
        self.inputs = [lib.tensor(array) for array in op.arrays()]
        first = () if op.setup is None else (op.setup(lib),)
        self.arguments = (*first, *self.inputs)
        self.wanted: list[Any] = []
        if op.gradient:
            pairs = zip(op.inputs, self.inputs, strict=True)
            self.wanted = [x.requires_grad_() for i, x in pairs if i.gradient]
            if first:
                self.wanted += list(first[0].parameters())
        lib.manual_seed(0)  # dropout and random tensors draw from here
        self.result = self.forward()
        self.upstream = self.gradients_of(self.result) if self.wanted else None

    def gradients_of(self, result: Any) -> Any:
        """Random numbers in the shape of the result: with ones, some derivatives are special cases."""
        generator = np.random.RandomState(1)

        def one(y: Any) -> Any:
            return self.lib.tensor(generator.standard_normal(tuple(y.shape)).astype(np.float32))

        return one(result) if hasattr(result, "shape") else [one(y) for y in result]

    def forward(self) -> Any:
        return self.op.function(self.lib, *self.arguments)

    def step(self, part: str = "both") -> Step:
        """What is timed: a function without arguments. `.grad` stays as it is."""
        function, lib, arguments = self.op.function, self.lib, self.arguments
        grad, wanted, upstream, result = lib.autograd.grad, self.wanted, self.upstream, self.result
        if not wanted or part == "forward":
            return lambda: function(lib, *arguments)
        if part == "backward":
            return lambda: grad(result, wanted, upstream, retain_graph=True)
        return lambda: grad(function(lib, *arguments), wanted, upstream)

    def values(self) -> list[Array]:
        """The result and the gradients as arrays, for comparing."""
        result = [self.result] if hasattr(self.result, "shape") else list(self.result)
        if self.wanted:
            grad = self.lib.autograd.grad
            result += list(grad(self.result, self.wanted, self.upstream, retain_graph=True))
        return [np.array(x.detach().numpy()) for x in result]


class JaxCase:
    """An op in JAX, compiled as its users do; only with inputs that all have a gradient."""

    def __init__(self, op: Op, jax: Any) -> None:
        if op.setup is not None or not op.inputs or not all(i.gradient for i in op.inputs):
            raise TypeError(f"{op.name} is not a function of arrays alone")
        self.jax = jax
        self.inputs = [jax.numpy.asarray(array) for array in op.arrays()]

        def forward(*inputs: Any) -> Any:
            return op.function(jax.numpy, *inputs)

        def both(upstream: Any, *inputs: Any) -> Any:
            result, pull = jax.vjp(forward, *inputs)
            return [result, *pull(upstream)]

        shape = np.shape(forward(*self.inputs))
        upstream = np.random.RandomState(1).standard_normal(shape).astype(np.float32)
        self.upstream = jax.numpy.asarray(upstream)
        self.compiled = {"forward": jax.jit(forward), "both": jax.jit(both)}
        self.gradient = op.gradient

    def step(self, part: str = "both") -> Step:
        """What is timed; JAX has no backward pass without the forward one."""
        wait, inputs = self.jax.block_until_ready, self.inputs
        if part == "backward":
            raise TypeError("JAX computes gradients together with the result")
        if part == "forward" or not self.gradient:
            forward = self.compiled["forward"]
            return lambda: wait(forward(*inputs))
        both, upstream = self.compiled["both"], self.upstream
        return lambda: wait(both(upstream, *inputs))

    def values(self) -> list[Array]:
        """The result and the gradients as arrays, for comparing."""
        if not self.gradient:
            return [np.asarray(self.compiled["forward"](*self.inputs))]
        return [np.asarray(x) for x in self.compiled["both"](self.upstream, *self.inputs)]


def differences(ours: list[Array], theirs: list[Array], names: tuple[str, str]) -> list[str]:
    """A note for each result or gradient that is not the same but for rounding.

    Rounding is measured by the largest number of the array: sums of a million numbers of either sign may
    end near 0.
    """
    if len(ours) != len(theirs):
        return [f"{names[0]} gives {len(ours)} results and gradients, {names[1]} {len(theirs)}"]
    notes = []
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        what = "the result" if i == 0 else f"result or gradient {i}"
        if a.shape != b.shape or a.dtype != b.dtype:
            notes.append(
                f"{what} is {a.dtype}{list(a.shape)} in {names[0]} and {b.dtype}{list(b.shape)} in {names[1]}"
            )
            continue
        finite = b[np.isfinite(b)]
        scale = float(np.abs(finite).max()) if finite.size else 0.0
        if not np.allclose(a, b, rtol=1e-4, atol=1e-4 * scale, equal_nan=True):
            worst = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
            notes.append(f"{what} differs by {worst:.3g} where numbers go up to {scale:.3g}")
    return notes
