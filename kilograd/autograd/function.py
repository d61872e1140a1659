"""Your own op in PyTorch's form: a class with ``forward(ctx, …)`` and ``backward(ctx, *grads)``.

``backward`` runs on tensors; where it is made of differentiable operations, higher orders work.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd.autograd.conjugate import shown
from kilograd.autograd.driver import Array, Edge, Node, Pick
from kilograd.autograd.modes import MODE, ModeContext
from kilograd.errors import GradError
from kilograd.tensor import Tensor, _remember, wrap


class FunctionCtx:
    """What ``forward`` leaves for ``backward``; any attribute may be set on it."""

    needs_input_grad: tuple[bool, ...] = ()
    materialize_grads = True

    def __init__(self) -> None:
        self._saved: tuple[Tensor | None, ...] | None = ()
        self._dirty: tuple[Tensor, ...] = ()
        self._not_differentiable: tuple[Tensor, ...] = ()
        self._node: FunctionNode | None = None

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors (inputs or outputs) for backward; a later in-place change is caught."""
        for t in tensors:
            if t is not None and not isinstance(t, Tensor):
                raise TypeError(
                    f"save_for_backward can only save tensors, but argument is of type "
                    f"{type(t).__name__}: set it as an attribute of ctx instead"
                )
        self._saved = tensors

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """The saved tensors.

        Raises:
            RuntimeError: the graph was freed, or a saved tensor was modified in place.
        """
        node = self._node
        return () if node is None else node.saved()

    saved_variables = saved_tensors

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Say which inputs ``forward`` changed in place (and returned)."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Say which outputs have no gradient."""
        self._not_differentiable = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """With False, the gradient of an unused output arrives as None instead of zeros."""
        self.materialize_grads = value


class FunctionNode(Node):
    """The node of a custom function."""

    __slots__ = ("ctx", "function", "raw", "single")

    ctx: Any
    function: Any
    raw: tuple[Any, ...] | None  # what save_for_backward kept: array, edge, version counter, …
    single: bool  # one output: no Pick between it and this node

    def name(self) -> str:
        return f"{self.function.__name__}Backward"

    def saved(self) -> tuple[Any, ...]:
        """The tensors of save_for_backward, still connected to the graph."""
        if self.raw is None:
            raise GradError(
                f"Trying to backward through {self.name()} a second time: its saved tensors were "
                "freed. Call the first backward with retain_graph=True."
            )
        result: list[Tensor | None] = []
        for item in self.raw:
            if item is None:
                result.append(None)
                continue
            array, edge, cell, version, index = item
            if cell[0] != version:
                raise GradError(
                    f"{self.name()}: one of the variables needed for gradient computation has been "
                    "modified by an inplace operation"
                )
            if index is not None:
                edge = self if self.single else Pick(self, index)
            t = edge if isinstance(edge, Tensor) else wrap(array)
            if t is not edge:
                t._node, t._cell = edge, cell
            result.append(t)
        return tuple(result)

    def shares(self, g: Array, create_graph: bool) -> list[tuple[Edge, Array]]:
        grads = g if isinstance(g, tuple) else (g,)
        args = tuple(
            None if a is None else shown(a if isinstance(a, Tensor) else wrap(a)) for a in grads
        )
        with ModeContext(grad=create_graph):
            result = self.function.backward(self.ctx, *args)
        if not isinstance(result, tuple):
            result = (result,)
        needed = len(self.inputs)
        if len(result) < needed or any(r is not None for r in result[needed:]):
            raise GradError(
                f"function {self.name()} returned an incorrect number of gradients (expected "
                f"{needed}, got {len(result)})"
            )
        shares = []
        for i, (edge, r) in enumerate(zip(self.inputs, result, strict=False)):
            if edge is None or r is None:
                continue
            if not isinstance(r, Tensor):
                raise TypeError(f"{self.name()}: gradient {i} is {type(r).__name__}, not a Tensor")
            shape = edge.shape if isinstance(edge, Node) else edge.array.shape
            try:
                fits = np.broadcast_shapes(r.array.shape, shape) in (r.array.shape, tuple(shape))
            except ValueError:
                fits = False
            if not fits:
                raise GradError(
                    f"Function {self.name()} returned an invalid gradient at index {i} - got "
                    f"{list(r.array.shape)} but expected shape compatible with {list(shape)}"
                )
            if r.array.ndim < len(shape) or (
                r.array.shape != tuple(shape) and r.array.size < int(np.prod(shape))
            ):
                r = r.expand(*shape)
            shares.append((edge, shown(r if create_graph else r.array)))
        return shares

    def release(self) -> None:
        if self.raw:
            self.raw = None


class Function:
    """Base of custom differentiable functions (call them with ``apply``).

    >>> import kilograd as kg
    >>> class Cube(kg.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x * x * x
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         (x,) = ctx.saved_tensors
    ...         return g * 3 * x * x
    >>> x = kg.tensor(2.0, requires_grad=True)
    >>> Cube.apply(x).backward()
    >>> x.grad
    tensor(12.)
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Compute the outputs; first argument ``ctx``, unless ``setup_context`` is defined."""
        raise NotImplementedError(
            "You must implement the forward function for custom autograd.Function."
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Optional: fill ``ctx`` after a ``forward`` that does not take it."""
        raise NotImplementedError

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Gradients of the inputs (None where there is none), given those of the outputs."""
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom "
            "autograd.Function to use it with backward mode AD."
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError(
            f"{type(self).__name__} should not be instantiated. Methods on autograd functions are "
            "all static, so call them on the class itself with apply()."
        )

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run ``forward`` and record ``backward``."""
        ctx = FunctionCtx()
        edges = tuple(a._edge() if isinstance(a, Tensor) else None for a in args)
        ctx.needs_input_grad = tuple(e is not None for e in edges)
        mode = MODE.get()
        split = cls.setup_context is not Function.setup_context
        with ModeContext(grad=False):
            result = cls.forward(*args) if split else cls.forward(ctx, *args)
            if split:
                cls.setup_context(ctx, args, result)
        if not (mode.grad and any(ctx.needs_input_grad)):
            return result
        outs = result if isinstance(result, tuple) else (result,)
        tensors = [o for o in outs if isinstance(o, Tensor)]
        arrays = [o.array for o in tensors]
        single = len(tensors) == 1
        node = FunctionNode(
            edges,
            arrays[0].shape if single else [a.shape for a in arrays],
            arrays[0].dtype if single else [a.dtype for a in arrays],
        )
        node.function, node.ctx, node.single, ctx._node = cls, ctx, single, None
        fresh: list[Any] = []
        k = 0
        places: dict[int, int] = {}
        for o in outs:
            if not isinstance(o, Tensor):
                fresh.append(o)
                continue
            dirty = any(o is d for d in ctx._dirty)
            if dirty:
                o._check_inplace()
                t = o
            elif any(o is a for a in args):
                t = wrap(o.array)  # an input handed back: a view of it with this node
                t._cell = o._cell
            else:
                t = o
            places[id(o)] = k
            if not any(o is n for n in ctx._not_differentiable) and o.array.dtype.kind in "fc":
                to: Node = node if single else Pick(node, k)
                if dirty:
                    holder = wrap(o.array)
                    holder._node = to
                    o._rebase(holder)
                else:
                    t._node = to
                    for a in args:  # an input, or a view of one: no way to follow its changes
                        if isinstance(a, Tensor) and a._cell is t._cell:
                            to_raise: Any = _ViewOfInput(cls.__name__)
                            t._view, t._view_seen = (a, to_raise, {}), t._cell[0]
                            t._cut_view = True
                if mode.retain or mode.anomaly:
                    _remember(to, t, mode)
            fresh.append(t)
            k += 1
        raw: list[Any] = []
        for s in ctx._saved or ():
            if s is None:
                raw.append(None)
            else:
                place = None if any(s is a for a in args) else places.get(id(s))
                edge = None if place is not None else s._edge()
                raw.append((s.array, edge, s._cell, s._cell[0], place))
        node.raw = tuple(raw)
        node.kept, node.cells = (), ()
        node.op = node.plan = None  # type: ignore[assignment]
        ctx._saved = ()
        ctx._node = _Weak(node)  # type: ignore[assignment]
        if isinstance(result, tuple):
            return tuple(fresh)
        return fresh[0]


class _ViewOfInput:
    """In place of the op of a view: what a custom function did to its input is not known."""

    weight, often, view = 1, False, True

    def __init__(self, name: str) -> None:
        self.name = name

    def forward(self, *args: Any) -> Any:
        raise GradError(
            f"An output of {self.name} is a view of its input, whose memory has been modified "
            "inplace since. This view was created inside a custom Function: clone() the output."
        )


class _Weak:
    """ctx → node without a cycle: the node owns the ctx."""

    def __init__(self, node: FunctionNode) -> None:
        import weakref

        self._ref = weakref.ref(node)

    def saved(self) -> tuple[Any, ...]:
        node = self._ref()
        if node is None:
            raise GradError("the graph of this function is gone")
        return node.saved()


def once_differentiable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a ``backward`` as not differentiable: asking for its gradient raises."""

    @functools.wraps(fn)
    def wrapper(ctx: Any, *grads: Any) -> Any:
        tracked = MODE.get().grad and any(
            g is not None and g.requires_grad for g in (*grads, *ctx.saved_tensors)
        )
        with ModeContext(grad=False):
            out = fn(ctx, *grads)
        if not tracked:
            return out
        outs = out if isinstance(out, tuple) else (out,)
        return tuple(
            None
            if o is None
            else _Once.apply(wrap(np.zeros((), o.array.dtype)).requires_grad_(), o)
            for o in outs
        )

    return wrapper


class _Once(Function):
    @staticmethod
    def forward(ctx: Any, flag: Any, value: Any) -> Any:
        return wrap(value.array)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise GradError(
            "trying to differentiate twice a function that was marked with @once_differentiable"
        )
