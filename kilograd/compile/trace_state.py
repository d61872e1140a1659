"""State while a trace runs: tensors, gradients, settings and generators that were there before.

While a step is recorded, ``Tensor.array`` and ``Tensor.grad`` are descriptors. What is read through
them is *lifted*: a tensor that existed before becomes an input of the program, read by reference
each time it runs. Layers and optimizers report themselves, parameter groups hand out their floats as
:class:`~kilograd.compile.tracer.Number`, and what is left in old memory is written at the end.

Read next: ``compile/guards.py``, then ``compile/step.py``.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np

from kilograd import random
from kilograd.autograd.driver import Node, reachable
from kilograd.compile.frames import users_line
from kilograd.compile.graph import NAMES, Var, leaves, mapped
from kilograd.compile.guards import module_state, optimizer_state, plain_settings
from kilograd.compile.tracer import Number, Recording, Tracer, concrete
from kilograd.kernels.kernel import TRACE
from kilograd.tensor import Tensor
from kilograd.value import NoGrad

_SHAPED_BY_VALUES = ("getitem", "masked_select", "nonzero")  # ops: a mask as an index


class Gate(Node):
    """Stands before the graph of an argument: gradients that leave the function pass here."""

    __slots__ = ("trace",)

    def __init__(self, trace: Trace, node: Node, array: Any) -> None:
        super().__init__((node,), array.shape, array.dtype)
        self.trace = trace
        self.kept, self.cells = (), ()
        self.plan = self.op = None  # type: ignore[assignment]

    def name(self) -> str:
        before: Any = self.inputs[0]
        return before.name()

    def shares(self, g: Any, create_graph: bool) -> list[tuple[Any, Any]]:
        if self.trace.open:
            self.trace.fail(
                "backward() inside of a compiled function goes on into the graph of an argument: "
                "detach() the argument"
            )
        return [(self.inputs[0], g)]


class Source:
    """Where an input of the program is found when it runs.

    ``kind``: "argument" (key: its number), "tensor" (owner: the tensor), "grad" (owner: the tensor
    whose ``.grad`` it is), "setting" (owner: a parameter group, key: (name, place in it or None)).
    """

    __slots__ = ("array", "key", "kind", "line", "owner", "var")

    def __init__(self, kind: str, var: Var, array: Any, owner: Any = None, key: Any = None) -> None:
        self.kind = kind
        self.var = var
        self.array = array
        self.owner = owner
        self.key = key
        self.line = ""


class Trace(Recording):
    """One recording, and the state that it met."""

    def __init__(self, fullgraph: bool = False, words: set[str] | None = None) -> None:
        super().__init__(fullgraph)
        self.words = words or set()  # names in the user's code: which attributes matter
        self.sources: list[Source] = []
        self.tracers: dict[int, Tracer] = {}  # id(tensor) → its tracer, for tensors of before
        self.owners: dict[int, Tensor] = {}  # keeps those ids from being reused
        self.by_memory: dict[int, Tracer] = {}  # id(array) → tracer, for arrays of before
        self.made: list[tuple[Any, str]] = []  # (weakref to a tensor of this trace, line)
        self.grads: dict[int, tuple[Tensor, Tensor | None]] = {}  # .grad as it was before
        self.grads_set: set[int] = set()  # tensors whose .grad was set
        self.grads_read: dict[int, Tensor] = {}  # whose .grad was looked at before it was set
        self.grad_owner: dict[int, Tensor] = {}  # id(.grad tensor of before) → its owner
        self.groups: dict[int, Any] = {}
        self.modules: dict[int, Any] = {}
        self.optimizers: dict[int, Any] = {}
        self.plain_groups: list[Any] = []  # (group, names, values) of what is no float
        self.generators: dict[int, Any] = {}
        self.cells: dict[int, tuple[list[int], int, Tensor]] = {}  # version counters as they were
        self.requires: dict[int, tuple[Tensor, bool]] = {}  # requires_grad as it was

    # --- opaque steps and draws --------------------------------------------------------------------

    def opaque(self, fn: Any, args: Any, kwargs: Any, name: str) -> Any:
        """An op or rule as one equation."""
        if self.recording and any(isinstance(x, Tensor) for x in leaves((args, kwargs))):
            self.fail(f"{name} decides on values, and is itself being differentiated")
        if self.recording and name in _SHAPED_BY_VALUES:
            self.fail(f"the shape of the result of {name} depends on values")
        if self.failure is None:
            NAMES.setdefault(fn, name)
        token = TRACE.set(None)
        before = random.default_generator.get_state()
        try:
            result = self.record(fn, args, kwargs)
            if not np.array_equal(random.default_generator.get_state(), before):
                self.generators[id(random.default_generator)] = random.default_generator
                if self.recording:
                    self.graph.equations[-1].effect = True
            return result
        finally:
            TRACE.reset(token)

    def draw(self, fn: Any, generator: Any, args: Any, kwargs: Any) -> Any:
        """Random numbers: an effect on a generator."""
        self.generators.setdefault(id(generator), generator)
        if not self.recording:
            return self.merely_run(fn, (generator, *args), kwargs)
        token = TRACE.set(None)
        try:
            return self.record(fn, (generator, *args), kwargs, effect=True)
        finally:
            TRACE.reset(token)

    def frozen(self, array: Any) -> Tracer:
        """An array that is said to stay as it is."""
        v = self.variable(array, "c")
        if self.recording:
            self.graph.constants[v] = array.copy()
        return Tracer(self, array.copy(), v)

    # --- settings, layers, optimizers ----------------------------------------------------------------

    def settings(self, group: dict[str, Any]) -> dict[str, Any]:
        """A parameter group whose floats are numbers of the program."""
        if not self.recording:
            return group
        found = self.groups.get(id(group))
        if found is None:
            copy = {
                name: self._setting(group, name, value)
                for name, value in group.items()
                if name != "params"
            }
            copy["params"] = group["params"]
            found = self.groups[id(group)] = (copy, group)
        return found[0]

    def _setting(self, group: Any, name: str, value: Any) -> Any:
        if isinstance(value, (float, np.floating)) or (type(value) is int and name == "lr"):
            return self._number_input(group, (name, None), float(value))
        if type(value) is tuple and value and all(type(v) is float for v in value):
            return tuple(self._number_input(group, (name, i), v) for i, v in enumerate(value))
        return value

    def _number_input(self, group: Any, key: Any, value: Any) -> Number:
        v = Var(f"{key[0]}{next(self.counter)}", (), np.dtype(type(value)), number=True)
        self.graph.inputs.append(v)
        source = Source("setting", v, value, group, key)
        self.sources.append(source)
        return Number(self, value, v, frozenset([source]))

    def saw_module(self, module: Any) -> None:
        """A layer is about to run: what it is set to is a guard."""
        if id(module) not in self.modules:
            state = module_state(module, self.words)
            self.modules[id(module)] = (module, state, module.training)

    def saw_optimizer(self, optimizer: Any) -> None:
        """An optimizer is about to step: which state it holds is a guard."""
        if id(optimizer) not in self.optimizers:
            self.optimizers[id(optimizer)] = (optimizer, optimizer_state(optimizer))
            for group in optimizer.param_groups:
                self.plain_groups.append((group, *plain_settings(group)))

    def saw_requires_grad(self, t: Tensor) -> None:
        """``requires_grad`` is about to be set."""
        if not isinstance(t.__dict__["array"], Tracer):
            self.requires.setdefault(id(t), (t, t._leaf))

    # --- tensors ------------------------------------------------------------------------------------

    def argument(self, t: Tensor, place: int) -> None:
        """Register an argument before the function runs."""
        self._input(t, t.__dict__["array"], "argument", place)
        if t._node is not None:
            t._node = Gate(self, t._node, t.__dict__["array"])

    def lift(self, t: Tensor, array: Any) -> Any:
        """The Tracer of a tensor that existed before."""
        found = self.tracers.get(id(t))
        if found is not None:
            return found
        if self.failure is not None:
            return array
        if t._node is not None:
            self.fail(
                "a tensor that was computed outside, with its graph, is used in a compiled function: "
                "detach() it, or compute it inside"
            )
            return array
        owner = self.grad_owner.get(id(t))
        if owner is not None:
            return self._input(t, array, "grad", None, owner)
        return self._input(t, array, "tensor", None, t)

    def _input(self, t: Tensor, array: Any, kind: str, key: Any, owner: Any = None) -> Tracer:
        same = self.by_memory.get(id(array))
        if same is None:
            v = self.variable(array, {"argument": "x", "grad": "g"}.get(kind, "w"))
            self.graph.inputs.append(v)
            source = Source(kind, v, array, owner, key)
            source.line = users_line()
            self.sources.append(source)
            same = self.by_memory[id(array)] = Tracer(self, array, v)
        self.tracers[id(t)], self.owners[id(t)] = same, t
        self.cells.setdefault(id(t._cell), (t._cell, t._cell[0], t))
        return same

    def adopt(self, t: Tensor, array: Any) -> Any:
        """What a tensor is to hold that gets its array during the trace."""
        if array is self.tracers.get(id(t)) is not None:  # t.array += 1
            return t.__dict__["array"]
        if not self.recording:
            return array if not self.open else self._keep_track(t, array)
        if "array" in t.__dict__ and not isinstance(t.__dict__["array"], Tracer):
            self.again = True  # lazy layers do it once
            self.tracers.pop(id(t), None)
            self.fail("the memory of a tensor is exchanged (t.data = …) in a compiled function")
            return concrete(array)
        if type(array) is np.ndarray:
            array = Tracer(self, array, self.constant(array))
        return self._keep_track(t, array)

    def _keep_track(self, t: Tensor, array: Any) -> Any:
        if isinstance(array, Tracer):
            self.made.append((weakref.ref(t), users_line() if len(self.made) < 20000 else ""))
        return array

    def read_grad(self, t: Tensor, grad: Any) -> Any:
        if id(t) not in self.grads:
            self.grads[id(t)] = (t, grad)
            self.grads_read[id(t)] = t
            if grad is not None:
                self.grad_owner[id(grad)] = t
        return grad

    def set_grad(self, t: Tensor, before: Any) -> None:
        if id(t) not in self.grads:
            self.grads[id(t)] = (t, before)
        self.grads_set.add(id(t))

    def forget_grads(self) -> None:
        """Let go of what had gradients."""
        self.grads.clear()
        self.grads_read.clear()
        self.grad_owner.clear()

    # --- the end --------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the recording: what survives holds plain arrays again."""
        self.open = False
        nodes: list[Node] = []
        for ref, _ in self.made:
            t = ref()
            if t is not None:
                t.__dict__["array"] = concrete(t.__dict__["array"])
                if t._node is not None:
                    nodes.append(t._node)
                if t._view is not None:
                    parent, op, options = t._view
                    t._view = (parent, op, mapped(concrete, options))
        for node in reachable(nodes):
            kept = getattr(node, "kept", None)
            if kept:
                node.kept = mapped(concrete, kept)
            raw = getattr(node, "raw", None)
            if raw:  # (array, …) as a custom function saves it
                node.raw = tuple([r and (concrete(r[0]), *r[1:]) for r in raw])  # type: ignore[attr-defined]

    def survivors(self, known: set[int]) -> list[str]:
        """Lines that made tensors which somebody still holds, other than the known ones."""
        for ref, _ in self.made:  # a result that is a view holds on to what it looks at
            t = ref()
            while t is not None and id(t) in known and t._view is not None:
                t = t._view[0]
                known.add(id(t))
        return [line for ref, line in self.made if (t := ref()) is not None and id(t) not in known]

    def written(self) -> list[tuple[Source, Var]]:
        """The inputs whose memory has another value now."""
        result = []
        for source in self.sources:
            tracer = self.by_memory.get(id(source.array))
            if tracer is not None and tracer._var is not source.var and source.kind != "setting":
                result.append((source, tracer._var))
        return result


# --- while a trace runs, the attributes of Tensor hand out tracers ----------------------------------


class _ArrayOfTensor:
    def __get__(self, t: Any, owner: Any = None) -> Any:
        if t is None:
            return self
        try:
            array = t.__dict__["array"]
        except KeyError:
            raise AttributeError("array") from None
        trace = TRACE.get()
        if trace is None or isinstance(array, Tracer) or not trace.open:
            return array
        return trace.lift(t, array)

    def __set__(self, t: Any, array: Any) -> None:
        trace = TRACE.get()
        if trace is not None and trace.open:
            array = trace.adopt(t, array)
        t.__dict__["array"] = array


class _GradOfTensor:
    def __get__(self, t: Any, owner: Any = None) -> Any:
        if t is None:
            return None
        grad = t.__dict__.get("grad")
        trace = TRACE.get()
        return grad if trace is None or not trace.open else trace.read_grad(t, grad)

    def __set__(self, t: Any, value: Any) -> None:
        trace = TRACE.get()
        if trace is not None and trace.open:
            trace.set_grad(t, t.__dict__.get("grad"))
        t.__dict__["grad"] = value


_tracing = 0
_lock = threading.RLock()


class tracing:
    """A context in which a trace records what this thread does with tensors."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def __enter__(self) -> Trace:
        global _tracing
        with _lock:
            _tracing += 1
            if _tracing == 1:
                Tensor.array = _ArrayOfTensor()
                Tensor.grad = _GradOfTensor()  # type: ignore[assignment]
        self.token = TRACE.set(self.trace)
        return self.trace

    def __exit__(self, *exc: object) -> None:
        global _tracing
        TRACE.reset(self.token)
        self.trace.close()
        with _lock:
            _tracing -= 1
            if _tracing == 0:
                del Tensor.array
                Tensor.grad = NoGrad()  # type: ignore[assignment]
