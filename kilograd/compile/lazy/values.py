"""What a graph knows: its steps and inputs, the shapes of now, and the values that were computed.

Read next: ``recorder.py``, which writes the steps down.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np

from kilograd import random
from kilograd.autograd.driver import Node, reachable
from kilograd.autograd.modes import ModeContext
from kilograd.compile import step
from kilograd.compile.graph import Equation, Var, leaves, mapped, name_of
from kilograd.compile.guards import owner_of
from kilograd.compile.lazy.arrays import LazyArray
from kilograd.compile.lazy.inputs import Memory, Source
from kilograd.compile.lazy.nodes import BlockGrad
from kilograd.compile.lazy.plans import Plan, Writing
from kilograd.compile.lazy.shapes import infer
from kilograd.compile.lazy.sizes import Dim, Extent
from kilograd.compile.tracer import Recording, _is_view
from kilograd.errors import ShapeError
from kilograd.kernels.kernel import TRACE
from kilograd.tensor import wrap

MOST_PLANS, MOST_SIZES = 64, 16  # that are kept


class Values(Recording):
    """Steps, inputs, and what is known of their results at the moment."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.RLock()
        # what the graph is: steps, inputs, and what was decided when they were written down
        self.steps: list[Equation] = []
        self.views: set[Var] = set()  # results that look at the memory of their first argument
        self.sources: dict[Var, Source] = {}
        self.memories: dict[Var, Memory] = {}
        self.guards: dict[Any, tuple[Extent, Any, str]] = {}  # decisions by sizes
        self.decisions: list[tuple[Var, Any, Any, str]] = []  # values that were read in a block
        self.gradients: list[BlockGrad] = []  # that blocks leave to tensors
        # what is computed outside of blocks has fixed sizes: (line, shapes of the inputs, like)
        self.outside: dict[Var, tuple[str, Any, Any]] = {}
        # what is known now
        self.like: dict[Var, Any] = {}  # arrays of the right shape, dtype, layout; values are not
        self.values: dict[Var, Any] = {}  # of the last realization
        self.by_array: dict[int, Source] = {}
        self.by_tensor: dict[int, Source] = {}
        # what may be forgotten: results and inputs of outside of blocks, unless somebody holds them
        self.loose: set[Var] = set()
        self.arrays: list[weakref.ref[LazyArray]] = []  # all that there are
        self.most = 32  # of them, before it is time to look
        self.cleared = False
        # what need not be found again
        self.likes: dict[Any, dict[Var, Any]] = {}  # by the sizes of the inputs
        self.plans: dict[Any, Plan] = {}
        self.last: Plan | None = None
        step._switched[0] += 1  # the quick way into compiled functions sees no lazy arrays
        weakref.finalize(self, _switch_back)

    # --- shapes ---------------------------------------------------------------------------------------

    def like_of(self, v: Var) -> Any:
        """The array that shows the shape and dtype of a value."""
        if self.cleared:
            raise RuntimeError("a tensor of a graph that was cleared is used: compute it again")
        if TRACE.get() is None:
            with self.lock:
                self.sync()
        return self.fitting(v)

    def fitting(self, v: Var) -> Any:
        """The same for the sizes of the last look at the inputs."""
        if v not in self.like:
            raise ShapeError(
                "a tensor was computed outside of a `with graph:` block, where sizes are plain numbers, and "
                f"an input of its graph has another size now\n  at {self.outside[v][0]}\nCompute it again, or "
                "inside of the block."
            )
        return self.like[v]

    def sync(self) -> None:
        """Look at the inputs: other data are another realization, other sizes other shapes."""
        now = [(s, s.now()) for s in self.sources.values()]
        changed = [(s, stamp) for s, _ in now if (stamp := s.stamp()) != s.seen]
        if not changed:
            return
        for s, _ in changed:
            s.seen = None
        moved = [(s, a) for s, a in now if a is not self.like[s.var]]
        for s, a in moved:
            self.check_input(s, a)
        if any(_layout(a) != _layout(self.like[s.var]) for s, a in moved):
            self.resize()
        self.like.update({s.var: a for s, a in now})
        self.values.clear()
        self.by_array = {id(a): s for s, a in now}
        for s, stamp in changed:
            s.seen = stamp

    def check_input(self, source: Source, array: Any) -> None:
        """Raise if an input was given an array that can never do."""
        before = self.like[source.var]
        if (
            array.dtype != before.dtype
            or array.ndim != before.ndim
            or (source.fixed and array.shape != before.shape)
        ):
            raise ShapeError(
                f"an input of a lazy graph was {before.dtype}{list(before.shape)} and is "
                f"{array.dtype}{list(array.shape)} now: only sizes may change, and not those of parameters"
            )
        for other in self.sources.values():
            written = source.memory.version or other.memory.version
            if written and other is not source and owner_of(other.array) is owner_of(array):
                raise RuntimeError(
                    "two inputs of a lazy graph have the same memory now (t.data = …), and the graph "
                    "writes to it: give them memory of their own"
                )

    def sizes(self) -> Any:
        """All inputs, and their shapes."""
        return tuple([(v, s.array.shape) for v, s in self.sources.items()])

    def resize(self) -> None:
        """Find all shapes anew, for inputs of other sizes."""
        layout = tuple([_layout(s.array) for s in self.sources.values()])
        key = len(self.steps), len(self.guards), layout
        like = self.likes.get(key)
        if like is None:
            like = {s.var: s.array for s in self.sources.values()}
            for eq in self.steps:
                if self.outside.keys().isdisjoint(eq.outs):
                    self._resize_step(eq, like)
            self.check_guards(like)
            if len(self.likes) >= MOST_SIZES:
                del self.likes[next(iter(self.likes))]
            self.likes[key] = like
        self.like, sizes = dict(like), dict(self.sizes())
        for v, (_, of, a) in self.outside.items():
            if all(sizes.get(x, shape) == shape for x, shape in of):
                self.like[v] = a

    def _resize_step(self, eq: Equation, like: dict[Var, Any]) -> None:
        """The shapes of the results of one step, from those of what it reads."""
        now: Any = lambda x: like[x] if type(x) is Var else sized(x, like)  # noqa: E731
        try:
            args, kwargs = mapped(now, (eq.args, eq.kwargs))
            result, written = infer(eq.fn.fn if type(eq.fn) is Writing else eq.fn, args, kwargs)
        except Exception as e:
            self.check_guards(like, some=True)  # they say more
            raise ShapeError(
                f"{name_of(eq.fn)}: does not fit the new sizes of the inputs: {e}\n  at {eq.line}"
            ) from e
        given = list(leaves((args, kwargs)))
        new = [*_arrays(result), *[np.empty_like(given[i]) for i in written]]
        tree: Any = eq.outs[0] if eq.tree is None and eq.outs else eq.tree
        tree = tree[0] if type(eq.fn) is Writing else tree
        if (
            [(a.ndim, a.dtype) for a in new] != [(len(v.shape), v.dtype) for v in eq.outs]
            or _numbers(result) != _numbers(tree)
            or (given and new and self._other_view(eq, new[0], given[0]))
        ):
            self.check_guards(like, some=True)
            raise ShapeError(
                f"{name_of(eq.fn)}: gives something else for the new sizes of the inputs, or the layout in "
                f"which they lie\n  at {eq.line}"
            )
        like.update(zip(eq.outs, new, strict=True))

    def _other_view(self, eq: Equation, y: Any, x: Any) -> bool:
        """Whether a result that was a view is a copy now, or the reverse, and it matters: for writing."""
        of = next(iter(leaves((eq.args, eq.kwargs))))
        if type(x) is not np.ndarray or not x.size or type(of) is not Var:
            return False
        if _is_view(y, x) == (eq.outs[0] in self.views):
            return False
        memories = [self.memories.get(v) for v in (of, eq.outs[0])]
        return any(m is None or m.version for m in memories)

    def check_guards(self, like: dict[Var, Any], some: bool = False) -> None:
        """Raise if code that built the graph would have decided otherwise (``some``: as far as is known)."""
        for extent, result, line in self.guards.values():
            try:
                now = extent.now(like)
            except KeyError:  # of what was computed outside of blocks; or is not known yet
                if some:
                    continue
                now = "another one"
            if now != result:
                raise ShapeError(
                    "the graph was built for inputs of other sizes: a size that code decided by, or took as a "
                    f"plain number, was {result} and would be {now}\n  at {line}\nBuild the graph again for "
                    "these sizes."
                )

    def extent(self, v: Var, what: Any) -> Extent:
        """A size of a value, or how it lies: a block that asks for it may need it again."""
        self.loose.discard(v)
        return Extent(None, (v, what))

    # --- what nobody can reach any more ---------------------------------------------------------------

    def forget(self) -> None:
        """Drop steps, inputs and values of outside of blocks that no array, and no other step, leads to."""
        arrays = [a for ref in self.arrays if (a := ref()) is not None]
        self.arrays = [ref for ref in self.arrays if ref() is not None]
        held = {v for a in arrays for v in (a._var, a.memory.var, a.memory.origin)}
        held.update(v for v, *_ in self.decisions)
        held.update(found.after for found in self.gradients)
        held.update(s.memory.var for s in self.sources.values() if s.memory.version)
        steps = []
        for eq in reversed(self.steps):
            if not (eq.outs and self.loose.issuperset(eq.outs) and held.isdisjoint(eq.outs)):
                held.update(eq.outs, eq.inputs())
                steps.append(eq)
        self.steps = steps[::-1]
        dead = self.loose - held
        self.loose -= dead
        self.views -= dead
        known: tuple[dict[Var, Any], ...] = (
            self.sources, self.memories, self.outside, self.like, self.values
        )  # fmt: skip
        for v in dead:
            for of in known:
                of.pop(v, None)
        self.by_array = {k: s for k, s in self.by_array.items() if s.var in self.sources}
        self.by_tensor = {k: s for k, s in self.by_tensor.items() if s.var in self.sources}
        self.likes.clear()  # (known by the number of steps)
        self.plans = {
            key: plan
            for key, plan in self.plans.items()
            if dead.isdisjoint(plan.outputs) and dead.isdisjoint(key[1])
        }
        self.most = 32 + 2 * len(self.loose)

    # --- values ---------------------------------------------------------------------------------------

    def now(self, v: Var) -> Any:
        """A value that is known: of this realization, or what an input holds."""
        return self.values[v] if v in self.values else self.sources[v].array

    def compute(self, wanted: list[Var]) -> list[Any]:
        """The values of Vars: those that are not known run as one program."""
        if self.cleared:
            raise RuntimeError("a tensor of a graph that was cleared is read: compute it again")
        token = TRACE.set(None)
        try:
            self.sync()
            read = [v for v, *_ in self.decisions]
            missing = [
                v
                for v in dict.fromkeys([*wanted, *read])
                if v not in self.values and v not in self.sources
            ]
            for v in missing:
                self.fitting(v)  # raises for those that do not fit the sizes of now
            if missing:
                self.run(missing)
            for v, kind, before, line in self.decisions:
                now = kind(self.now(v))
                if not np.array_equal(now, before, equal_nan=v.dtype.kind in "fc"):
                    what = f"{before}, which is {now} now" if np.size(now) == 1 else "another one"
                    raise RuntimeError(
                        f"the graph was built by reading a value, which was {what}: build it again, or read "
                        f"values after the block\n  at {line}"
                    )
            return [self.now(v) for v in wanted]
        finally:
            TRACE.reset(token)

    def run(self, missing: list[Var]) -> None:
        """Run the steps that values need."""
        known = frozenset(self.values)
        key = tuple(missing), known, self.sizes()
        plan = self.plans.get(key)
        if plan is None:
            if len(self.plans) >= MOST_PLANS:
                del self.plans[next(iter(self.plans))]
            plan = self.plans[key] = self.plan(missing)
        self.last = plan
        given = [wrap(self.now(v)) for v in plan.inputs]
        with ModeContext(grad=False):
            results = plan.compiled(*given)
        for v, t in zip(plan.outputs, results, strict=True):
            self.values[v] = t.array

    def with_sizes(self, eq: Equation) -> Equation:
        """A step with the sizes of now."""
        now: Any = lambda x: sized(x, self.like)  # noqa: E731
        args, kwargs = mapped(now, (eq.args, eq.kwargs))
        return Equation(eq.outs, eq.fn, args, kwargs, eq.line, eq.effect, eq.tree)

    def plan(self, missing: list[Var]) -> Plan:
        """The program for values: what they need of steps, inputs and values that are known."""
        needed, keep = set(missing), dict.fromkeys(missing)
        inputs: dict[Var, None] = {}
        steps: list[Equation] = []
        for eq in reversed(self.steps):
            if not needed.isdisjoint(eq.outs) or (not eq.outs and eq.effect):
                steps.append(self.with_sizes(eq))
                for v in eq.inputs():
                    if v in self.values or v in self.sources:
                        inputs[v] = None
                    else:
                        needed.add(v)
                for x in leaves((eq.args, eq.kwargs)):
                    if isinstance(x, random.Generator):  # what is drawn stays with the realization
                        keep.update(dict.fromkeys(eq.outs))
        steps.reverse()
        return Plan(steps, list(inputs), list(keep), self.like)

    def realized(self, tree: Any) -> Any:
        """A structure with arrays and ints in place of lazy ones."""
        with self.lock:
            arrays = [x.var for x in leaves(tree) if type(x) is LazyArray]
            found = iter(self.compute(arrays))

            def plain(x: Any) -> Any:
                return next(found) if type(x) is LazyArray else x._now() if type(x) is Dim else x

            return mapped(plain, tree)

    def kept_by(self, node: Node) -> tuple[Any, ...]:
        """What a node kept, as arrays; that of all nodes below is computed with it."""
        kept: Any = node.kept
        with self.lock:
            self.sync()
            mine = [x.var for x in leaves(kept) if type(x) is LazyArray]
            if any(v not in self.values and v not in self.sources for v in mine):
                below = [n for n in reachable([node]) if getattr(n, "recorder", None) is self]
                arrays = [x for n in below for x in leaves(n.kept) if type(x) is LazyArray]
                self.compute(list(dict.fromkeys([*mine, *[x.var for x in arrays]])))

            return self.realized(kept)


def sized(x: Any, like: dict[Var, Any]) -> Any:
    """A number made of sizes, for arrays of these shapes; anything else as it is."""
    return x.now(like) if type(x) is Extent else x


def _numbers(tree: Any) -> list[Any]:
    """What is no array in the results of a step."""
    return [x for x in leaves(tree) if type(x) not in (Var, np.ndarray)]


def _layout(x: Any) -> Any:
    return x.shape, x.strides


def _switch_back() -> None:
    step._switched[0] -= 1


def _arrays(tree: Any) -> list[Any]:
    return [x for x in leaves(tree) if type(x) is np.ndarray]
