"""The native executor: the whole step as a table of calls of native kernels.

A program is cut into steps (``fusion.py``); loops become generated kernels (``loops.py``), products go
to BLAS, ``@kernel`` functions to their native twins. All arguments, addresses included, are laid out
once in one table, so that running the step is one call that goes down the table. What has no native
form is called in Python, between two stretches of the table.

Memory: values live in one block, in which places are used again as soon as their value is not needed.
Parameters and optimizer state are written where they are, if whoever reads the old value has done so.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import math
import operator
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd.compile import loops
from kilograd.compile.expand import expanded
from kilograd.compile.fusion import REDUCES, Step, reduction_of, steps_of
from kilograd.compile.graph import (
    Equation,
    Graph,
    Var,
    leaves,
    mapped,
    name_of,
    put,
    put_view,
)
from kilograd.compile.layout import (
    _VIEWS,
    Layout,
    c_strides,
    contiguous,
    fresh,
    is_basic_index,
    layouts_of,
    stand_in,
    viewed,
)
from kilograd.compile.numpy_executor import check, flat, shape_may_change
from kilograd.compile.scalar import F32, F64, LOADS, costly, fusable
from kilograd.errors import TraceError
from kilograd.kernels import threads
from kilograd.kernels.native import ahead, matmul, moves, reductions, team
from kilograd.kernels.native import build as native_build
from kilograd.kernels.native.build import Kernel, bits
from kilograd.kernels.native.plan import TWINS
from kilograd.random import Generator

ALIGN = 64
BLAS_SHARES = (
    1 << 15
)  # work of a product (multiplications / 8) from which OpenBLAS uses its threads
WORTH_SHARING = 200_000  # elements touched in a step, from where a second thread pays
_COPIES = (np.ndarray.copy, np.copy)
_REDUCTIONS: dict[Any, Any] = {  # and the axis they take if none is given
    np.maximum.reduce: (reductions.max_over, 0), np.ndarray.max: (reductions.max_over, None),
    np.minimum.reduce: (reductions.min_over, 0), np.ndarray.min: (reductions.min_over, None),
    np.max: (reductions.max_over, None), np.min: (reductions.min_over, None),
    np.amax: (reductions.max_over, None), np.amin: (reductions.min_over, None),
    np.multiply.reduce: (reductions.product_over, 0), np.ndarray.prod: (reductions.product_over, None),
    np.prod: (reductions.product_over, None),
}  # fmt: skip
_BITS = {
    1: np.dtype(np.uint8),
    2: np.dtype(np.uint16),
    4: np.dtype(np.int32),
    8: np.dtype(np.int64),
}
EXTRAS: list[Kernel] = []  # kernels that every program needs: the quick way adds its own


class Call:
    """One line of the table."""

    __slots__ = ("args", "divides", "dtype", "kernel", "work")

    def __init__(
        self, kernel: Kernel, args: list[Any], dtype: Any, divides: bool, work: int
    ) -> None:
        self.kernel = kernel
        self.args = args
        self.dtype = dtype
        self.divides = divides
        self.work = work


class Place:
    """An array of the program to come: what a twin is given in place of an ndarray."""

    __slots__ = ("dtype", "layout", "ndim", "shape", "size", "strides")

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.shape = layout.shape
        self.dtype = layout.dtype
        self.strides = layout.strides
        self.ndim = len(layout.shape)
        self.size = layout.size

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize


class Plan:
    """What twins ask for memory and tell what to call (see ``kernels/native/plan.py``)."""

    def __init__(self, program: NativeProgram) -> None:
        self.program = program
        self.calls: list[Call] = []
        self.scratch: list[Var] = []
        self.fallible = False

    def empty(self, shape: Any, dtype: Any) -> Place:
        shape = tuple(int(n) for n in (shape if isinstance(shape, (tuple, list)) else (shape,)))
        v = Var(f"m{self.program.count()}", shape, np.dtype(dtype))
        self.scratch.append(v)
        return Place(fresh(v))

    def zeros(self, shape: Any, dtype: Any) -> Place:
        place = self.empty(shape, dtype)
        self.fill(place, 0)
        return place

    def fill(self, place: Place, value: float) -> None:
        """Give every element one value."""
        constant = self.program.constant(np.asarray(value, place.dtype))
        self.copy(place, Place(constant))

    def contiguous(self, *arrays: Any) -> bool:
        return all(
            a is None or contiguous(a.shape, a.strides, a.dtype.itemsize)
            for a in map(self.place, arrays)
        )

    def place(self, x: Any) -> Any:
        """An array given to a twin, as a Place."""
        if isinstance(x, np.ndarray):
            return Place(self.program.constant(x))
        return x

    def as_contiguous(self, x: Any) -> Any:
        x = self.place(x)
        if self.contiguous(x):
            return x
        y = self.empty(x.shape, x.dtype)
        self.copy(y, x)
        return y

    def reshape(self, x: Any, shape: tuple[int, ...]) -> Place:
        found = viewed(self.place(x).layout, np.reshape, (tuple(shape),), {})
        assert found is not None
        return Place(found)

    def view(self, x: Any, index: Any) -> Place:
        found = viewed(self.place(x).layout, operator.getitem, (index,), {})
        assert found is not None
        return Place(found)

    def status(self) -> Place:
        self.fallible = True
        return Place(self.program.status)

    def call(self, kernel: Kernel, *args: Any, dtype: Any, work: int = 0) -> None:
        table = []
        for a in args:
            a = self.place(a)
            table.append(a.layout if isinstance(a, Place) else a)
        self.calls.append(Call(kernel, table, np.dtype(dtype), kernel.divides, work))

    def copy(self, to: Place, source: Place) -> None:
        """``to[...] = source``, with broadcasting and conversion."""
        if to.dtype not in LOADS or source.dtype not in LOADS:  # float16, complex64: as bits
            kind = _BITS.get(to.dtype.itemsize)
            if to.dtype != source.dtype or kind is None:
                raise NotImplementedError(f"a copy from {source.dtype} to {to.dtype}")
            to, source = (Place(x.layout._replace(dtype=kind)) for x in (to, source))
        w = Var("to", to.shape, to.dtype)
        one = Var("from", source.shape, source.dtype, number=False)
        eq = Equation((w,), np.copy, (one,), {})
        step = Step("loop", [eq], to.shape)
        strides = broadcast_strides(source.shape, source.strides, to.shape)
        item, scale = source.dtype.itemsize, to.dtype.itemsize
        steps = [tuple(s // item for s in strides), tuple(s // scale for s in to.strides)]
        if to.size and moves.lower_turned(self, to, source, *loops.collapsed(to.shape, steps)):
            return
        operands = [
            loops.Operand(one, source.dtype, steps[0], "load"),
            loops.Operand(w, to.dtype, steps[1], "store"),
        ]
        self.loop(loops.write(step, operands, []), {one: source.layout, w: to.layout}, to.size)

    def loop(self, loop: loops.Loop, where: dict[Var, Layout], work: int) -> None:
        for part in loop.partial:
            self.scratch.append(part.slots)
            where[part.slots] = fresh(part.slots)
        args = [where[a[0]] if type(a) is tuple else a for a in loop.args]
        self.calls.append(Call(loop.kernel, args, loop.dtype, loop.divides, work))
        for slots, out, divisor in loop.partial:
            to, (count, n) = where[out], slots.shape
            if out.size == 1:
                args = [where[slots], to, count, divisor]
                self.calls.append(Call(reductions.add_totals, args, out.dtype, False, 1))
            else:
                args = [where[slots], to, count, n, divisor]
                self.calls.append(Call(reductions.add_columns, args, out.dtype, True, count * n))


def broadcast_strides(shape: Any, strides: Any, to: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of an array over a larger index space: 0 where it is repeated."""
    lead = len(to) - len(shape)
    return (0,) * lead + tuple(0 if n == 1 else s for n, s in zip(shape, strides, strict=True))


@functools.cache
def load_twins() -> None:
    """Bring in the native forms of kernels, with the first program that may need them."""
    for name in (
        "attention",
        "conv",
        "indexing",
        "norms",
        "order",
        "placing",
        "pool",
        "softmax",
        "losses",
    ):
        importlib.import_module(f"kilograd.kernels.native.{name}")
    importlib.import_module("kilograd.compile.twins_of_draws")
    importlib.import_module("kilograd.compile.twins_of_ops")


def build(graph: Graph, sources: Any = ()) -> NativeProgram | None:
    """The native form of a program; ``sources`` say where its inputs are found.

    None where an input's elements do not lie a whole number of elements apart (a field of records).
    """
    load_twins()
    strides = {
        s.var: s.array.strides
        for s in sources
        if s.kind != "setting" and isinstance(s.array, np.ndarray)
    }
    steps = [(v.dtype, s) for v, s in strides.items()]
    steps += [(c.dtype, c.strides) for c in graph.constants.values()]
    if any(n % dtype.itemsize for dtype, s in steps for n in s):
        return None
    try:
        return NativeProgram(graph, sources, strides)
    except NotImplementedError:  # a result of a dtype that has no native form
        return None


class Function:
    """A graph that is laid out when it is first called (the backward pass of a compiled function)."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.program: NativeProgram | None = None

    def __call__(self, *values: Any) -> tuple[list[Any], list[Any]]:
        if self.program is None:
            load_twins()
            self.program = NativeProgram(self.graph, (), {})
        return self.program(*values)


class NativeProgram:
    """A program laid out; calling it runs it."""

    def __init__(
        self, graph: Graph, sources: Any, strides: dict[Var, tuple[int, ...]],
        memory: Callable[[int], np.ndarray] = lambda size: np.empty(size, np.uint8),
    ) -> None:  # fmt: skip
        self.sources = list(sources)
        self.memory = memory
        self.generators = list(
            dict.fromkeys(  # those whose streams native kernels read
                x
                for eq in graph.equations
                if eq.effect
                for x in eq.args
                if isinstance(x, Generator)
            )
        )
        self._count = 0
        self._lock: Any = threading.RLock()
        graph = with_own_outputs(expanded(graph))
        self.graph = graph
        self.constant_layouts: dict[int, Layout] = {}
        self.status = fresh(Var("status", (1,), np.dtype(np.int64)))
        strides = dict(strides)
        for v, c in graph.constants.items():
            strides[v] = c.strides
        self.layouts, views = layouts_of(graph, strides)
        for eq in graph.equations:  # a result that is a view keeps the order of its dimensions
            if eq.outs and eq.outs[0] in graph.outputs and eq.fn is np.copy:
                v, source = eq.outs[0], self.layouts[eq.args[0]]
                like = np.empty_like(stand_in(source), order="K")
                self.layouts[v] = self.layouts[v]._replace(strides=like.strides)
        aliases = {v: w.root for v, w in self.layouts.items() if w.root is not v}
        self.steps = steps_of(graph.equations, aliases, lambda eq: id(eq) in views)
        self._lower()
        self.targets = {target for target, _ in graph.writes}
        self._settle_writes()
        self.early: dict[Var, int] = {}  # memory that is used before its own value is there
        self._compute_in_place()
        self._lay_out()

    def resolved(self, lay: Layout) -> Layout:
        """A layout in the memory that its value really has."""
        to = self.in_place.get(lay.root)
        if to is None:
            return lay
        if to.contiguous:
            return lay._replace(root=to.root, offset=to.offset + lay.offset)
        return to

    def count(self) -> int:
        self._count += 1
        return self._count

    def constant(self, array: np.ndarray) -> Layout:
        """A constant array of a kernel's."""
        found = self.constant_layouts.get(id(array))
        if found is None:
            v = Var(f"k{self.count()}", array.shape, array.dtype)
            self.graph.constants[v] = array
            found = Layout(v, 0, array.strides, array.shape, array.dtype)
            self.constant_layouts[id(array)] = self.layouts[v] = found
        return found

    # --- from steps to calls ------------------------------------------------------------------------

    def _lower(self) -> None:
        self.plans: list[Plan | None] = []
        needed: dict[Var, None] = dict.fromkeys(self.layouts[v].root for v in self.graph.results())
        for step in self.steps:
            for v in step.reads():
                needed[self.layouts[v].root] = None
        self.needed = needed
        for step in self.steps:
            if step.kind == "loop" and self._lower_plain_sum(step):
                continue
            if step.kind == "loop":
                self.plans.append(Plan(self))  # written when it is known where its results lie
                continue
            plan = Plan(self)
            eq = step.equations[0]
            why = self._lower_call(plan, step, eq)
            if why:
                step.kind, step.why, step.fallible = "python", why, True
                plan = Plan(self)
            step.fallible = step.fallible or plan.fallible
            self.plans.append(plan)

    def _lower_plain_sum(self, step: Step) -> bool:
        """A long sum of what lies in memory: threads share it in kernels of its own."""
        out, total = next(iter(step.sums.items()), (None, None))
        if len(step.equations) != 1 or out is None or total is None or out not in self.needed:
            return False
        if total.of.size <= WORTH_SHARING or not self.layouts[total.of].contiguous:
            return False
        plan = Plan(self)
        reduce = reductions.mean_over if total.divisor != 1 else reductions.sum_over
        found = reduce(plan, Place(self.layouts[total.of]), total.axes)
        plan.copy(plan.reshape(Place(self.layouts[out]), found.shape), found)
        self.plans.append(plan)
        step.kind = "call"
        return True

    def _lower_call(self, plan: Plan, step: Step, eq: Equation) -> str:
        """Plan native calls for an equation; why not, if that cannot be."""
        try:
            if eq.fn in (np.matmul, np.ndarray.dot, np.dot, operator.matmul):
                return self._lower_product(plan, eq)
            if eq.fn in (np.concatenate, np.stack):
                return self._lower_join(plan, eq)
            if eq.fn in (put, put_view):
                return self._lower_put(plan, step, eq)
            if (
                fusable(eq)
                or eq.fn in _COPIES
                or eq.fn in (np.reshape, np.ravel, np.ndarray.reshape)
            ):
                source = self.layouts[eq.args[0]]
                if eq.outs[0].dtype in LOADS:
                    to = Place(self.layouts[eq.outs[0]])
                    shaped = to if to.shape == source.shape else plan.reshape(to, source.shape)
                    plan.copy(shaped, Place(source))
                    return ""
            if eq.fn in _REDUCTIONS:
                return self._lower_reduction(plan, eq)
            twin = TWINS.get(eq.fn) or TWINS.get(getattr(eq.fn, "__wrapped__", None))
            if twin is None:
                return "no native form"
            return self._lower_twin(plan, eq, twin)
        except NotImplementedError as e:
            return str(e) or "not served"

    def _lower_reduction(self, plan: Plan, eq: Equation) -> str:
        """A maximum or minimum over axes, or a sum that no loop takes."""
        kind, first = _REDUCTIONS[eq.fn]
        x, out = eq.args[0], eq.outs[0]
        if not isinstance(x, Var) or x.number or x.dtype not in (F32, F64) or not x.size:
            return "no native form for the dtype"
        given, axes = reduction_of(eq, first)
        if not x.ndim or not set(given) <= {*REDUCES, "initial", "where"}:
            return "no native form"
        if any(given.get(k) is not None for k in ("out", "dtype", "initial", "where")):
            return "no native form"
        found = kind(plan, Place(self.layouts[x]), axes)
        if found is NotImplemented or out.dtype != x.dtype:
            return "no native form"
        plan.copy(plan.reshape(Place(self.layouts[out]), found.shape), found)
        return ""

    def _lower_twin(self, plan: Plan, eq: Equation, twin: Callable[..., Any]) -> str:
        def given(x: Any) -> Any:
            if type(x) is Var:
                if x.number:
                    raise NotImplementedError("a number that changes is an argument")
                return Place(self.layouts[x])
            return x

        result = twin(plan, *mapped(given, eq.args), **mapped(given, eq.kwargs))
        if result is NotImplemented:
            return "its native form does not serve these arguments"
        places = [p for p in leaves(result) if isinstance(p, (Place, np.ndarray))]
        if len(places) != len(eq.outs):
            return "its native form gives other results"
        for v, p in zip(eq.outs, places, strict=True):
            place = plan.place(p)
            if v.number or place.shape != v.shape or place.dtype != v.dtype:
                return f"its native form gives {place.dtype}{list(place.shape)} for {v.dtype}{list(v.shape)}"
        owned = set(plan.scratch)
        for v, p in zip(eq.outs, places, strict=True):
            place = plan.place(p)
            root = place.layout.root
            if (
                root in owned
                and place.layout.contiguous
                and place.layout.offset == 0
                and not any(self.layouts[o].root is root for o in eq.outs)
            ):  # the result is memory that the twin asked for
                plan.scratch = [s for s in plan.scratch if s is not root]
                self._rename(plan, root, v)
            else:
                plan.copy(Place(self.layouts[v]), place)
        return ""

    def _rename(self, plan: Plan, old: Var, new: Var) -> None:
        """Memory that a twin asked for is the memory of a result."""
        for call in plan.calls:
            call.args = [
                a._replace(root=new) if isinstance(a, Layout) and a.root is old else a
                for a in call.args
            ]

    def _lower_product(self, plan: Plan, eq: Equation) -> str:
        a, b = (Place(self.layouts[x]) if isinstance(x, Var) else None for x in eq.args)
        c = Place(self.layouts[eq.outs[0]])
        if a is None or b is None or a.dtype not in (F32, F64) or not a.dtype == b.dtype == c.dtype:
            return "a product of other dtypes"
        if not c.size:
            return ""
        if eq.fn in (np.ndarray.dot, np.dot) and (
            a.ndim > 2 or b.ndim > 2 or not a.ndim or not b.ndim
        ):
            return "a dot of higher dimensions"
        if a.ndim == 1:
            a = with_axis(a, 0)
        if b.ndim == 1:
            b = with_axis(b, 1)
        m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
        if k == 0:
            plan.fill(c, 0)
            return ""
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        item = a.dtype.itemsize
        if not batch or all(s == 1 for s in batch):
            if m * n * k <= matmul.SMALL and self._lower_small(plan, a, b, c, m, n, k):
                return ""
            (ta, lda, a), (tb, ldb, b) = blas_form(plan, a), blas_form(plan, b)
            matmul.lower(plan, a, ta, lda, b, tb, ldb, c, max(n, 1), m, n, k)
            return ""
        (ta, lda, a), (tb, ldb, b) = blas_form(plan, a), blas_form(plan, b)
        sa = broadcast_strides(a.shape[:-2], a.strides[:-2], batch)
        sb = broadcast_strides(b.shape[:-2], b.strides[:-2], batch)
        sc = c_strides((*batch, m, n), item)[: len(batch)]
        sizes, (xa, xb, xc) = loops.collapsed(
            batch, [tuple(s // item for s in t) for t in (sa, sb, sc)]
        )
        if len(sizes) > 2:
            a, b = plan.as_contiguous(a), plan.as_contiguous(b)
            if a.shape[:-2] != batch or b.shape[:-2] != batch:
                return "a product of batches of more than two dimensions"
            (ta, lda, a), (tb, ldb, b) = blas_form(plan, a), blas_form(plan, b)
            count = int(np.prod(batch))
            sizes, xa, xb, xc = [count], [m * k], [k * n], [m * n]
        sizes = [1] * (2 - len(sizes)) + list(sizes)
        xa, xb, xc = ([0] * (2 - len(x)) + list(x) for x in (xa, xb, xc))
        plan.call(
            matmul.products, a, ta, lda, xa[0], xa[1], b, tb, ldb, xb[0], xb[1], c, max(n, 1),
            xc[0], xc[1], sizes[0], sizes[1], m, n, k, dtype=c.dtype,
            work=sizes[0] * sizes[1] * m * n * k // 8,
        )  # fmt: skip
        return ""

    def _lower_small(
        self, plan: Plan, a: Place, b: Place, c: Place, m: int, n: int, k: int
    ) -> bool:
        item = a.dtype.itemsize
        am, ak, bk, bn = (s // item for s in (*a.strides[-2:], *b.strides[-2:]))
        if bn == 1 or n == 1:
            plan.call(
                matmul.small_rows, a, am, ak, b, bk, c, m, n, k, dtype=c.dtype, work=m * n * k
            )
        elif (ak == 1 or k == 1) and (bk == 1 or k == 1):
            plan.call(matmul.small_dots, a, am, b, bn, c, m, n, k, dtype=c.dtype, work=m * n * k)
        else:
            return False
        return True

    def _lower_join(self, plan: Plan, eq: Equation) -> str:
        arrays: Any = eq.args[0] if eq.args else eq.kwargs.get("arrays", ())
        axis = eq.args[1] if len(eq.args) > 1 else eq.kwargs.get("axis", 0)
        if (
            not set(eq.kwargs) <= {"axis"}
            or type(axis) is not int
            or not all(isinstance(x, Var) and not x.number for x in arrays)
        ):
            return "no native form"
        out = Place(self.layouts[eq.outs[0]])
        axis %= out.ndim
        if out.dtype not in LOADS or any(x.dtype not in LOADS for x in arrays):
            return "no native form for the dtype"
        start = 0
        for i, x in enumerate(arrays):
            place = Place(self.layouts[x])
            if eq.fn is np.stack:
                index: Any = (slice(None),) * axis + (i,)
            else:
                index = (slice(None),) * axis + (slice(start, start + x.shape[axis]),)
                start += x.shape[axis]
            to = viewed(out.layout, operator.getitem, (index,), {})
            assert to is not None
            if place.size:
                plan.copy(Place(to), place)
        return ""

    def _lower_put(self, plan: Plan, step: Step, eq: Equation) -> str:
        out = self.layouts[eq.outs[0]]
        if out.dtype not in LOADS:
            return "no native form for the dtype"
        if eq.fn is put:
            x, index, values = eq.args
            if not is_basic_index(index):
                return "an index that is an array"
            to = viewed(out, operator.getitem, (index,), {})
        else:
            x, values = eq.args
            to = out
            for fn, args, kwargs in eq.kwargs["path"]:
                to = viewed(to, fn, args, kwargs)
                if to is None:
                    return "a view that is a copy"
        assert to is not None
        if isinstance(values, Var) and not values.number:
            source = Place(self.layouts[values])
            if source.dtype not in LOADS:
                return "no native form for the dtype"
            while source.ndim > len(to.shape):
                source = Place(viewed(source.layout, operator.getitem, (0,), {}))  # type: ignore[arg-type]
        elif type(values) in (int, float, bool):
            source = Place(self.constant(np.asarray(values, out.dtype)))
        else:
            return "a number that changes is written"
        plan.copy(Place(out), Place(self.layouts[x]))
        if to.size:
            plan.copy(Place(to), source)
        return ""

    # --- what is written to memory of outside -----------------------------------------------------------

    def _settle_writes(self) -> None:
        """Let results that become a parameter's new value be computed in its place where that is safe."""
        last_read: dict[Var, int] = {}
        given: dict[Var, int] = {}
        for k, one in enumerate(self.steps):
            for v in one.reads():
                last_read[self.layouts[v].root] = k
            for v in one.gives():
                given[v] = k
        for v in self.graph.outputs:
            last_read[self.layouts[v].root] = len(self.steps)
        last_fallible = max([k for k, s in enumerate(self.steps) if s.fallible], default=-1)
        self.in_place: dict[Var, Layout] = {}  # a value → the memory it is computed into
        self.copies: list[tuple[Layout, Layout]] = []  # (to, from) at the end
        for target, value in self.graph.writes:
            to, source = self.layouts[target], self.layouts[value]
            if source.root is target and source == to:
                continue
            k = given.get(value, -1)
            step: Step | None = self.steps[k] if k >= 0 else None
            direct = (
                step is not None and source.root is value and value not in self.in_place
                and k > last_fallible and last_read.get(target, -1) <= k
                and value not in self.graph.outputs
            )  # fmt: skip
            if (
                direct and last_read.get(target, -1) == k
            ):  # read by the same step: element by element
                assert step is not None
                direct = (
                    step.kind == "loop"
                    and value not in step.sums
                    and all(
                        self.layouts[v] == to
                        for v in step.reads()
                        if self.layouts[v].root is target
                    )
                    and to.shape == step.shape
                )
            if direct and step is not None and step.kind != "loop":
                direct = to.contiguous and step.kind != "python"
            if direct and not to.contiguous:
                assert step is not None
                direct = value not in step.sums and not any(
                    lay.root is value and lay != fresh(value) for lay in self.layouts.values()
                )
            if direct:
                self.in_place[value] = to
            else:
                self.copies.append((to, source))

    def _compute_in_place(self) -> None:
        """Let a loop write over what it reads, element by element, and nobody reads after it."""
        last_read: dict[Var, int] = {}
        born: dict[Var, int] = {}
        looks: dict[Var, set[Layout]] = {}  # the ways in which each memory is looked at
        for k, step in enumerate(self.steps):
            for v in step.reads():
                last_read[self.layouts[v].root] = k
            for v in step.gives():
                born[v] = k
        for lay in self.layouts.values():
            looks.setdefault(lay.root, set()).add(lay)
        kept = {self.layouts[v].root for v in self.graph.results()}
        python = {v for s in self.steps if s.kind == "python" for v in s.gives()}
        for k, step in reversed(list(enumerate(self.steps))):
            if step.kind != "loop":
                continue
            read: dict[Var, set[tuple[int, ...]]] = {}  # memory, and in which shapes it is read
            for v in step.reads():
                read.setdefault(self.layouts[v].root, set()).add(self.layouts[v].shape)
            free = [
                u for u, shapes in read.items()
                if u in born and born[u] < k and last_read[u] == k and u not in kept
                and u not in self.in_place and u not in python and shapes == {step.shape}
                and all(lay.contiguous and lay.size == u.size for lay in looks[u])
            ]  # fmt: skip
            for v in step.gives():
                if v in step.sums or v not in self.needed or self.layouts[v] != fresh(v):
                    continue
                to = self.in_place.get(v, self.layouts[v])
                u = next((u for u in free if u.size == v.size and u.dtype == v.dtype), None)
                if u is None or not to.contiguous or u.number or v.number:
                    continue
                if self.layouts[to.root].root is not to.root or to.root in self.graph.inputs:
                    continue
                free.remove(u)
                self.in_place[u] = to
                self.early[to.root] = born[u]

    # --- memory and table ---------------------------------------------------------------------------

    def _lay_out(self) -> None:
        self._finish_loops()
        if self.copies:
            plan = Plan(self)
            for to, source in self.copies:
                plan.copy(Place(to), Place(source))
            step = Step("call", [])
            self.steps.append(step)
            self.plans.append(plan)
        self._place_memory()
        self._fill_table()

    def _finish_loops(self) -> None:
        """Write the kernels of fused loops, now that it is known where results lie."""
        for step, plan in zip(self.steps, self.plans, strict=True):
            if step.kind != "loop" or plan is None:
                continue
            operands: list[loops.Operand] = []
            scalars: list[tuple[Var, np.dtype]] = []
            where: dict[Var, Layout] = {}
            for v in step.reads():
                lay = self.resolved(self.layouts[v])
                where[v] = lay
                if (lay.size == 1 and step.shape != ()) or lay.shape == ():
                    scalars.append((v, lay.dtype))
                    continue
                strides = broadcast_strides(lay.shape, lay.strides, step.shape)
                item = lay.dtype.itemsize
                operands.append(
                    loops.Operand(v, lay.dtype, tuple(s // item for s in strides), "load", lay)
                )
            for eq in step.equations:
                v = eq.outs[0]
                if v not in self.needed:
                    continue
                lay = self.resolved(self.layouts[v])
                where[v] = lay
                item = lay.dtype.itemsize
                if v in step.sums:
                    kept = step.sums[v].kept
                    strides = c_strides(kept, item)
                    strides = tuple(
                        0 if i in step.sums[v].axes else s for i, s in enumerate(strides)
                    )
                    role = "sum"
                else:
                    strides, role = lay.strides, "store"
                operands.append(
                    loops.Operand(v, lay.dtype, tuple(s // item for s in strides), role, lay)
                )
            work = math.prod(step.shape)
            if work == 0:
                for v in step.sums:  # a sum of nothing
                    if v in self.needed:
                        plan.fill(Place(where[v]), 0)
                continue
            if len(step.equations) == 1 and step.equations[0].fn in _COPIES:
                (to,), (source,) = step.gives(), step.reads()
                plan.copy(Place(where[to]), Place(where[source]))
                continue
            work *= max(1, len(step.equations) // 4 + 2 * sum(map(costly, step.equations)))
            parts = threads.get_num_threads() if work > WORTH_SHARING else 1
            plan.loop(loops.write(step, operands, scalars, parts), where, work)

    def _place_memory(self) -> None:
        """Give every value an address: outside memory, or a place in the one block."""
        born: dict[Var, int] = {}
        dies: dict[Var, int] = {}
        scratch_of: dict[int, list[Var]] = {}
        for k, (step, plan) in enumerate(zip(self.steps, self.plans, strict=True)):
            for v in step.gives():
                if self.layouts[v].root is v and v not in self.in_place:
                    born[v] = min(k, self.early.get(v, k))
            for v in step.reads():
                dies[self.layouts[v].root] = k
            if plan is not None:
                scratch_of[k] = plan.scratch
                for call in plan.calls:
                    for a in call.args:
                        if isinstance(a, Layout) and a.root in born:  # through a twin's own views
                            dies[a.root] = max(dies.get(a.root, k), k)
        self.out_roots = {self.layouts[v].root for v in self.graph.outputs}
        settings = [v for v in self.graph.inputs if v.number]
        self.settings_at: dict[Var, int] = {}
        free: list[tuple[int, int]] = []  # (offset, bytes)
        top = 0
        self.offsets: dict[Var, int] = {}

        def bytes_of(v: Var) -> int:
            lay = fresh(v)
            return -(-max(lay.size * lay.dtype.itemsize, 1) // ALIGN) * ALIGN

        def take(v: Var) -> None:
            nonlocal top
            size = bytes_of(v)
            best = None
            for i, (_, room) in enumerate(free):
                if room >= size and (best is None or room < free[best][1]):
                    best = i
            if best is None:
                self.offsets[v], top = top, top + size
            else:
                at, room = free.pop(best)
                self.offsets[v] = at
                if room > size:
                    free.append((at + size, room - size))

        def give(v: Var) -> None:
            size = bytes_of(v)
            at = self.offsets[v]
            for i, (other, room) in enumerate(free):  # join neighbours
                if other + room == at:
                    free.pop(i)
                    at, size = other, room + size
                    break
            for i, (other, room) in enumerate(free):
                if at + size == other:
                    free.pop(i)
                    size += room
                    break
            free.append((at, size))

        for v in settings:
            take(v)
            self.settings_at[v] = self.offsets[v]
        ends: dict[int, list[Var]] = {}
        kept = {self.layouts[value].root for _, value in self.graph.writes}
        for k in range(len(self.steps)):
            mine = [v for v, b in born.items() if b == k and v not in self.out_roots]
            for v in mine:
                take(v)
                last = dies.get(v, k)
                if v in kept:
                    last = len(self.steps) - 1
                ends.setdefault(max(last, k), []).append(v)
            for v in scratch_of.get(k, ()):
                take(v)
                ends.setdefault(k, []).append(v)
            for v in ends.pop(k, ()):
                give(v)
        self.block_bytes = top
        self.block = self.memory(top + ALIGN)
        self.block_at = -(-self.block.ctypes.data // ALIGN) * ALIGN

    def address(self, v: Var) -> int | None:
        """The address of a value's memory; None if it changes from call to call."""
        if v in self.offsets:
            return self.block_at + self.offsets[v]
        if v is self.status.root:
            return self.status_array.ctypes.data
        c = self.graph.constants.get(v)
        if c is not None:
            return c.ctypes.data
        return None

    def _fill_table(self) -> None:
        self.status_array = np.zeros(1, np.int64)
        sources = self.sources
        self.tensor_sources = [s for s in sources if s.kind == "tensor"]
        self.other_sources = [s for s in sources if s.kind in ("argument", "grad")]
        self.setting_sources = [s for s in sources if s.kind == "setting"]
        ahead.compile_all(
            [(c.kernel, c.dtype) for plan in self.plans if plan is not None for c in plan.calls]
            + [(k, F32) for k in (native_build.INTERPRETER, *EXTRAS)]
        )
        table: list[int] = []
        self.patches: dict[Var, list[tuple[int, int]]] = {}  # value → (place in the table, offset)
        self.drawn: list[list[Any]] = [[]]  # whose random words each stretch takes
        lines: list[list[tuple[int, int, int]]] = [
            []
        ]  # stretches of (kernel, start of arguments, how)
        self.stretches: list[Any] = []
        self.fallible = any(s.fallible for s in self.steps)
        total = 0
        for step, plan in zip(self.steps, self.plans, strict=True):
            if step.kind == "python":
                self.stretches.append(len(lines) - 1)
                self.stretches.append(self._python_step(step))
                lines.append([])
                self.drawn.append([])
                continue
            assert plan is not None
            for eq in step.equations:
                if eq.effect:
                    self.drawn[-1] += [x for x in eq.args if isinstance(x, Generator)]
            for call in plan.calls:
                start = len(table)
                for a in call.args:
                    if isinstance(a, Layout):
                        a = self.resolved(a)
                        base = self.address(a.root)
                        if base is None:
                            self.patches.setdefault(a.root, []).append((len(table), a.offset))
                            table.append(0)
                        else:
                            table.append(base + a.offset)
                    else:
                        table.append(bits(a))
                how = 1 if call.divides and call.work > 20_000 else 0
                total += call.work
                lines[-1].append((call.kernel.address(call.dtype), start, how))
        self.stretches.append(len(lines) - 1)
        self.work = total
        self.table = np.array(table or [0], np.int64)
        start_of = self.table.ctypes.data
        self.codes = []
        self.heads = []
        self.counter = np.zeros(1, np.int64)
        for stretch in lines:
            code = np.array(
                [[f, start_of + 8 * at, how] for f, at, how in stretch] or [[0, 0, 0]], np.int64
            )
            head = np.array(
                [
                    len(stretch),
                    code.ctypes.data,
                    self.status_array.ctypes.data,
                    self.counter.ctypes.data,
                    0,
                ],
                np.int64,
            )
            self.codes.append(code)
            self.heads.append(head)
        self.cells = memoryview(self.table)  # type: ignore[arg-type]
        self.interpret = native_build._c_function(native_build.INTERPRETER.address(F32))
        used = self._used()
        self.numbers = {
            v: ctypes.c_double.from_address(self.block_at + at)
            for v, at in self.settings_at.items() if v in used
        }  # fmt: skip
        self.python_steps = any(s.kind == "python" for s in self.steps)
        self.blas = any(  # whether a product is large enough for BLAS to call its threads
            c.kernel.calls_blas and c.work > BLAS_SHARES
            for plan in self.plans if plan is not None for c in plan.calls
        )  # fmt: skip
        self.parallel = self.work > WORTH_SHARING and threads.get_num_threads() > 1
        self.now: dict[Var, int] = {}
        self.kept: list[Any] = []  # gradients of the quick way (launch.py)

    def bind(self) -> None:
        """Put the addresses of the tensors that are read by reference into the table."""
        with self._lock:
            for s in self.tensor_sources:
                self._point(s.var, s.owner.array.ctypes.data)

    def go(self) -> None:
        """Run what the table holds now."""
        with contextlib.ExitStack() as stack:
            for generator in self.generators:
                stack.enter_context(generator._lock)
            self._go()

    def _go(self) -> None:
        status = self.status_array
        status[0] = 0
        for part in self.stretches:
            if type(part) is int:
                if self.heads[part][0]:
                    if self.parallel:
                        team.run(self.heads[part], self.interpret, self.blas)
                    elif self.blas:
                        team.alone(self.interpret, self.heads[part].ctypes.data, 0, 1)
                    else:
                        self.interpret(self.heads[part].ctypes.data, 0, 1)
                    for generator in self.drawn[part]:
                        generator._untouched = False
                    if status[0]:
                        raise TraceError("a kernel refused its arguments")
            else:
                part()

    def _used(self) -> set[Var]:
        return {v for step in self.steps for v in step.reads()}

    # --- what stays in Python -----------------------------------------------------------------------

    def _python_step(self, step: Step) -> Callable[[], None]:
        eq = step.equations[0]
        fn, may_change = eq.fn, shape_may_change(eq)

        def run() -> None:
            result = fn(*mapped(self._given, eq.args), **mapped(self._given, eq.kwargs))
            found = flat(result) if eq.tree is not None else [result][: len(eq.outs)]
            for v, x in zip(eq.outs, found, strict=True):
                if may_change and not v.number:
                    check(np.asarray(x), v.shape)
                self._array(v)[...] = x

        return run

    def _given(self, v: Any) -> Any:
        """An argument of a function that is called in Python."""
        array = self._array(v)
        return float(array) if type(v) is Var and v.number else array

    def _array(self, v: Any) -> Any:
        """A value as an ndarray over the program's memory (a number as itself)."""
        if type(v) is not Var:
            return v
        lay = self.resolved(self.layouts[v])
        root = lay.root
        if root in self.graph.constants and lay.root is v:
            return self.graph.constants[v]
        at = self.address(root)
        if at is None:
            at = self.now[root]
        return at_address(at + lay.offset, lay)

    # --- running ------------------------------------------------------------------------------------

    def __call__(self, *values: Any) -> tuple[list[Any], list[Any]]:
        """Run on the values of the inputs: (outputs, nothing more to write)."""
        copies = []  # held until the program has run
        if self._lock._is_owned():
            raise TraceError("the program runs already: this is a signal's handler")
        with self._lock:
            for v, value in zip(self.graph.inputs, values, strict=True):
                if v in self.numbers:
                    self.numbers[v].value = value
                elif not v.number:
                    if v in self.targets and not value.flags.writeable:
                        raise ValueError(f"{v} is written, and its memory is read-only")
                    if value.strides != self.layouts[v].strides:
                        value = self._like_before(v, value)
                        copies.append(value)
                    self._point(v, value.ctypes.data)
            outputs = []
            for v in self.graph.outputs:
                array = self._new(v)
                outputs.append(array)
                self._point(v, array.ctypes.data)
            self.go()
            for kept in self.kept:  # the quick way writes there
                kept.point()
        return outputs, []

    def _new(self, v: Var) -> np.ndarray:
        """Memory for a result."""
        lay = self.layouts[v]
        if lay.contiguous:
            return np.empty(lay.shape, lay.dtype)
        return np.empty_like(stand_in(lay), order="K")

    def _point(self, v: Var, at: int) -> None:
        """The memory of an input or result is at this address now."""
        self.now[v] = at
        for place, offset in self.patches.get(v, ()):
            self.cells[place] = at + offset

    def _like_before(self, v: Var, value: Any) -> Any:
        """An array that lies in memory as in the recording (a gradient from outside may not)."""
        lay = self.layouts[v]
        if not lay.contiguous:
            raise TraceError(f"{v} lies in memory in another way than in the recording")
        return np.ascontiguousarray(value)

    def source(self) -> str:
        """The generated kernels, and the table in words."""
        shown: dict[str, str] = {}  # the text of each kernel, once
        text = ["# the step, call by call"]
        for step, plan in zip(self.steps, self.plans, strict=True):
            if step.kind == "python":
                text.append(f"# in Python: {name_of(step.equations[0].fn)} ({step.why})")
                continue
            for call in plan.calls if plan else ():
                if isinstance(call.kernel, native_build.Generated):
                    shown.setdefault(call.kernel.text, call.kernel.name)
                args = ", ".join(
                    str(a.root) if isinstance(a, Layout) else str(a) for a in call.args
                )
                text.append(f"{call.kernel.name}({args})")
        return "\n\n".join([*shown, "\n".join(text)]) + "\n"


def at_address(at: int, layout: Layout) -> np.ndarray:
    """An ndarray over memory that is kept alive elsewhere."""
    if not layout.size:
        return np.empty(layout.shape, layout.dtype)
    steps = [(n - 1) * s for n, s in zip(layout.shape, layout.strides, strict=True)]
    before = -sum(s for s in steps if s < 0)
    span = before + sum(s for s in steps if s > 0) + layout.dtype.itemsize
    memory = (ctypes.c_char * span).from_address(at - before)
    return np.ndarray(layout.shape, layout.dtype, memory, before, layout.strides)


def with_axis(x: Place, place: int) -> Place:
    """A vector as a matrix of one row (0) or one column (1)."""
    (n,), (s,) = x.shape, x.strides
    shape, strides = (
        ((1, n), (n * x.dtype.itemsize, s)) if place == 0 else ((n, 1), (s, x.dtype.itemsize))
    )
    return Place(x.layout._replace(shape=shape, strides=strides))


def blas_form(plan: Plan, x: Place) -> tuple[int, int, Place]:
    """(transposed, leading dimension, matrix) as BLAS takes it; copied if it must be."""
    item = x.dtype.itemsize
    rows, columns = x.shape[-2:]
    down, along = x.strides[-2:]
    if (
        (along == item or columns == 1)
        and (down >= columns * item or rows == 1)
        and down % item == 0
    ):
        return 0, max(down // item if rows > 1 else columns, columns, 1), x
    if (down == item or rows == 1) and (along >= rows * item or columns == 1) and along % item == 0:
        return 1, max(along // item if columns > 1 else rows, rows, 1), x
    x = plan.as_contiguous(x)
    return 0, max(columns, 1), x


def with_own_outputs(graph: Graph) -> Graph:
    """Results that are views, inputs or the same value twice get memory of their own."""
    plain: set[Var] = set()
    for eq in graph.equations:
        if eq.fn not in _VIEWS:
            plain.update(v for v in eq.outs)
    new = graph.with_equations(list(graph.equations))
    new.constants = dict(graph.constants)
    outputs: list[Var] = []
    for v in graph.outputs:
        if v in plain and v not in outputs:
            outputs.append(v)
            continue
        own = Var(f"out{len(outputs)}", v.shape, v.dtype, v.number)
        new.equations.append(Equation((own,), np.copy, (v,), {}))
        outputs.append(own)
    new.outputs = outputs
    return new
