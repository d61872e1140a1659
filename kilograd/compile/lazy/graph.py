"""``kg.Graph``: open a block, refill, realize, look inside."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from kilograd.autograd.driver import ticks
from kilograd.compile.frames import users_line
from kilograd.compile.graph import Graph as Program
from kilograd.compile.graph import Var, mapped, name_of
from kilograd.compile.lazy.arrays import LazyArray
from kilograd.compile.lazy.recorder import Recorder, makers
from kilograd.compile.trace_state import Trace, tracing
from kilograd.errors import TraceError
from kilograd.functions import creation
from kilograd.kernels.kernel import TRACE
from kilograd.tensor import Tensor, wrap


class Step(NamedTuple):
    """One operation of a graph: its name, what it reads, what it gives, and the line that called it."""

    name: str
    inputs: tuple[Var, ...]
    outputs: tuple[Var, ...]
    line: str


class Graph:
    """A graph of operations that are computed when their values are read.

    Inside of ``with graph:`` every operation on tensors is written down, with shapes and dtypes known
    and wrong ones refused at once, and nothing is computed until :meth:`realize`, or until a value is
    read (``item()``, ``tolist()``, ``numpy()``, ``print``). Tensors that were there before are read by
    reference, each time: parameters, and batches that are refilled by ``x.copy_(…)`` or
    ``x.data = …``, with another batch size, too.

    >>> import kilograd as kg
    >>> x = kg.tensor([1.0, 2.0])
    >>> with kg.Graph() as g:
    ...     y = (x * 3).sum()
    >>> len(g), y.shape, y.item()
    (2, kilograd.Size([]), 9.0)
    >>> _ = x.copy_(kg.tensor([10.0, 20.0]))
    >>> y.item()
    90.0
    """

    def __init__(self) -> None:
        self._recorder = Recorder()
        self._blocks: list[Any] = []

    # --- building -------------------------------------------------------------------------------------

    def __enter__(self) -> Graph:
        if isinstance(TRACE.get(), Trace):
            raise TraceError("a lazy graph inside of a compiled function: one of the two is enough")
        block = tracing(self._recorder)  # type: ignore[arg-type]
        block.__enter__()
        self._blocks.append(block)
        self._recorder.began.append((makers(), next(ticks)))
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._blocks.pop().__exit__(*exc)
        finally:
            self._recorder.began.pop()

    def tensor(self, data: Any, *, dtype: Any = None, requires_grad: bool = False) -> Tensor:
        """A tensor of this graph: what is computed with it is lazy outside of blocks, too.

        Takes what :func:`kilograd.tensor` takes. ``x.copy_(…)`` and ``x.data = …`` outside of a block
        give it other data.

        >>> import kilograd as kg
        >>> g = kg.Graph()
        >>> x = g.tensor([1.0, 2.0])
        >>> y = x + 2
        >>> x.data = kg.tensor([5.0, 6.0])
        >>> y.tolist()
        [7.0, 8.0]
        """
        token = TRACE.set(None)
        try:
            t = creation.tensor(data, dtype=dtype, requires_grad=requires_grad)
        finally:
            TRACE.reset(token)
        return self.adopt(t)

    def adopt(self, t: Tensor) -> Tensor:
        """Make a tensor one of this graph's, as ``kg.Tensor(…, graph=g)`` does."""
        return self._recorder.placeholder(t)

    def freeze(self) -> None:
        """Refuse further operations; values can be refilled and realized as before.

        >>> import kilograd as kg
        >>> g = kg.Graph()
        >>> x = g.tensor([1.0])
        >>> g.freeze()
        >>> x + 1
        Traceback (most recent call last):
        RuntimeError: the graph was frozen at <doctest kilograd.compile.lazy.graph.Graph.freeze[3]>:1 in <module>: no operation can be added to it
        """
        self._recorder.frozen_at = users_line() or "an earlier line"

    @property
    def frozen(self) -> bool:
        """Whether :meth:`freeze` was called."""
        return bool(self._recorder.frozen_at)

    def clear(self) -> None:
        """Forget everything: a new, empty graph. Its tensors of before can no longer be read.

        Raises:
            RuntimeError: inside of a block of this graph.
        """
        if self._blocks:
            raise RuntimeError("clear() inside of a `with` block of the graph")
        old = self._recorder
        with old.lock:
            old.cleared = True
            for held in (old.values, old.like, old.likes, old.sources, old.plans, old.by_array,
                         old.by_tensor, old.guards):  # fmt: skip
                held.clear()
            old.steps, old.gradients, old.decisions, old.last = [], [], [], None
        self._recorder = Recorder()

    # --- running --------------------------------------------------------------------------------------

    def realize(self) -> None:
        """Run the graph once.

        All its tensors that are still held get their values; random numbers are drawn anew; tensors of
        outside that the block wrote to are written to (running statistics, counters); the gradients of a
        ``backward()`` inside are added to ``.grad``.

        Raises:
            ShapeError: an input has a size for which the graph cannot be shown to be right.
        """
        self._recorder.realize()

    # --- looking inside -------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._recorder.steps)

    def __iter__(self) -> Iterator[Step]:
        for eq in list(self._recorder.steps):
            yield Step(name_of(eq.fn), tuple(eq.inputs()), eq.outs, eq.line)

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        like = self._recorder.like
        lines = [repr(self)]
        for s in self:
            outs = ", ".join(v.name for v in s.outputs) or "_"
            what = ", ".join(f"{like[v].dtype}{list(like[v].shape)}" for v in s.outputs)
            call = f"{outs} = {s.name}({', '.join(v.name for v in s.inputs)})"
            lines.append(f"    {call:<40}  # {what}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        frozen = ", frozen" if self.frozen else ""
        return f"Graph({len(self)} operations on {len(self._recorder.sources)} inputs{frozen})"

    @property
    def operations(self) -> Program:
        """The operations as a program: one equation for each op or derivative rule."""
        recorder, program = self._recorder, Program()
        program.inputs = list(recorder.sources)
        known = {
            s.memory.var
            for s in recorder.sources.values()
            if s.memory.version and not (s.own or s.kept)
        }
        held = [t.__dict__["array"] for t in recorder.alive()]
        program.equations = [
            recorder.with_sizes(eq)
            for eq in recorder.steps
            if all(v in recorder.like for v in eq.outs)
        ]
        program.outputs = [
            v
            for v in dict.fromkeys([*[a.var for a in held if type(a) is LazyArray], *known])
            if v in recorder.like
        ]
        return program

    @property
    def graph(self) -> Program:
        """The program that ran last, as ``kg.compile`` simplified it; before that :attr:`operations`."""
        plan = self._recorder.last
        if plan is None or plan.compiled.last is None:
            return self.operations
        return plan.compiled.graph


@contextmanager
def outside() -> Iterator[None]:
    """Outside of all blocks, though one may be open: for what looks at models and tensors."""
    token = TRACE.set(None) if isinstance(TRACE.get(), Recorder) else None
    try:
        yield
    finally:
        if token is not None:
            TRACE.reset(token)


def eager(tree: Any) -> Any:
    """A structure with eager tensors in place of lazy ones: their values of now."""

    def plain(x: Any) -> Any:
        if not isinstance(x, Tensor) or type(x.__dict__["array"]) is not LazyArray:
            return x
        t = wrap(np.array(x.__dict__["array"]))
        t.requires_grad = x.requires_grad
        return t

    return mapped(plain, tree)


def lazy(fn: Callable[..., Any] | None = None) -> Any:
    """``with kg.lazy() as g:`` a new graph; or ``@kg.lazy``, a function that computes lazily.

    >>> import kilograd as kg
    >>> @kg.lazy
    ... def mean_square(x):
    ...     return (x * x).mean()
    >>> result = mean_square(kg.tensor([1.0, 3.0]))  # nothing is computed here
    >>> result
    tensor(5.)
    """
    if fn is None:
        return Graph()
    if not callable(fn):
        raise TypeError(f"lazy() takes a function, not {type(fn).__name__}")

    @functools.wraps(fn)
    def lazily(*args: Any, **kwargs: Any) -> Any:
        with Graph():
            return fn(*args, **kwargs)

    return lazily


_default: ContextVar[Any] = ContextVar("kilograd_default_graph", default=None)


def get_default_graph() -> Graph | None:
    """The graph that :func:`set_default_graph` has set in this thread, or None."""
    return _default.get()


def set_default_graph(graph: Graph | None) -> None:
    """Write down all operations of this thread in a graph, as inside of ``with graph:``; None ends it.

    >>> import kilograd as kg
    >>> kg.set_default_graph(kg.Graph())
    >>> y = kg.ones(2) + 1
    >>> len(kg.get_default_graph())
    1
    >>> kg.set_default_graph(None)
    >>> y
    tensor([2., 2.])
    """
    if graph is not None and not isinstance(graph, Graph):
        raise TypeError(f"set_default_graph() takes a Graph or None, not {type(graph).__name__}")
    before = _default.get()
    if TRACE.get() is not (None if before is None else before._recorder):
        raise RuntimeError("set_default_graph() inside of a `with graph:` block: call it outside")
    if before is not None:
        before.__exit__(None, None, None)
    _default.set(graph)
    if graph is not None:
        graph.__enter__()


def realize(self: Tensor) -> Tensor:
    """Compute the values of a lazy tensor now; on others it does nothing. Returns the tensor."""
    np.asarray(self.__dict__["array"])
    return self
