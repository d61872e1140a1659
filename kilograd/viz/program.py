"""The picture of a program: ``graph(fn, *args)`` records a function and draws what it computes."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from kilograd.compile import passes
from kilograd.compile.graph import INFIX, Equation, Graph, Var, leaves, name_of
from kilograd.compile.lazy.graph import Graph as LazyGraph
from kilograd.compile.lazy.graph import eager, outside
from kilograd.compile.numpy_executor import _Writer
from kilograd.compile.report import _amount, nbytes
from kilograd.compile.step import Compiled
from kilograd.nn.module import Module
from kilograd.tensor import Tensor
from kilograd.viz.diagram import ROOT, Block, Diagram, Group, shape_text
from kilograd.viz.drawing import Drawing
from kilograd.viz.record import Recorded, Scope, recorded, timed
from kilograd.viz.rules import rule_source, rules_of


@outside()
def graph(
    fn: Any,
    *args: Any,
    direction: str = "TB",
    depth: int | None = None,
    optimised: bool = False,
    time: bool = True,
    title: str | None = None,
    **kwargs: Any,
) -> Drawing:
    """Draw what a function computes: all of it, forward, backward and update.

    The function runs once, is recorded as :func:`kilograd.compile` does, and all that it changed is put
    back. Operations are grouped by phase, module and op; parameters are blue, data red, constants
    green.

    Args:
        fn: a function of tensors, a training step, a Module, a compiled function; a tensor (see
            :func:`draw_graph`); or a program, drawn as it is: a ``kilograd.compile.graph.Graph``
            (``step.graph``), or the operations of a lazy ``kg.Graph``.
        args, kwargs: what it is called with (lazy tensors: with their values of now).
        direction: "TB" downwards, "LR" to the right.
        depth: how many levels of groups are shown open; None: as many as fit.
        optimised: show the program after the compiler's passes.
        time: also measure each operation (half a second).
        title: over the picture; by default the function's name.

    Raises:
        TraceError: the function cannot be recorded; the message names the line.

    >>> import kilograd as kg
    >>> w = kg.ones(3, requires_grad=True)
    >>> drawing = kg.viz.graph(lambda x: (x * w).relu().sum(), kg.ones(2, 3), time=False)
    >>> [b.title for b in drawing.diagram.blocks.values() if b.order is not None]
    ['multiply', 'relu', 'sum']
    """
    if isinstance(fn, Tensor):
        from kilograd.viz.tape import draw_graph

        if args or kwargs:
            raise TypeError("graph() of a tensor takes no arguments: they belong to a function")
        return draw_graph(fn, direction=direction, title=title).open_to(depth)
    if isinstance(fn, LazyGraph):
        fn = fn.operations
    if isinstance(fn, Graph):
        return _finished(_Picture(fn, title or "program", direction).diagram, depth)
    name = title if title is not None else _name(fn)
    inner = fn.fn if isinstance(fn, Compiled) else fn
    if not callable(inner):
        raise TypeError(
            f"graph() draws a function, Module, tensor or Graph, not {type(fn).__name__}"
        )
    args, kwargs = eager((args, kwargs))
    trace = recorded(inner, args, kwargs)
    program = passes.optimised(trace.graph) if optimised else passes.without_dead_code(trace.graph)
    names = _Names(inner, args, kwargs, trace)
    times = timed(trace, program) if time else None
    picture = _Picture(program, name, direction, trace, names, times)
    trace.let_go()
    return _finished(picture.diagram, depth)


def _finished(diagram: Diagram, depth: int | None) -> Drawing:
    diagram.prune()
    diagram.fold_runs()
    return Drawing(diagram, depth)


def _name(fn: Any) -> str:
    if isinstance(fn, Module):
        return type(fn).__name__
    name = getattr(fn, "__name__", type(fn).__name__)
    return "" if name == "<lambda>" else name


class _Names:
    """What tensors are called: arguments, parameters by their module, variables of the function."""

    def __init__(self, fn: Any, args: Any, kwargs: Any, trace: Recorded) -> None:
        self.of: dict[int, str] = {}
        self.buffers: set[int] = set()
        self.modules: dict[int, str] = {}
        forward = fn.forward if isinstance(fn, Module) else fn
        try:
            given = inspect.signature(forward).bind_partial(*args, **kwargs).arguments
        except (TypeError, ValueError):
            given = {f"x{i}": a for i, a in enumerate(args)} | kwargs
        for name, value in given.items():
            self._see(name, value)
        roots: list[Module] = [fn] if isinstance(fn, Module) else []
        try:
            around = inspect.getclosurevars(inspect.unwrap(fn)) if inspect.isroutine(fn) else None
        except (TypeError, ValueError):
            around = None
        if around is not None:
            for name, value in {**around.globals, **around.nonlocals}.items():
                self._see(name, value)
                if isinstance(value, Module):
                    roots.append(value)
        inner = {id(m) for root in roots for m in root.modules()}
        for module in trace.calls:
            if id(module) not in inner:
                roots.append(module)
                inner |= {id(m) for m in module.modules()}
        for root in roots:
            for name, p in root.named_parameters():
                self.of.setdefault(id(p), name)
            for name, b in root.named_buffers():
                self.of.setdefault(id(b), name)
                self.buffers.add(id(b))
            for name, m in root.named_modules():
                self.modules.setdefault(id(m), name)
        for optimizer, _ in trace.optimizers.values():
            for p, state in optimizer.state.items():
                for name, value in state.items():
                    self.of[id(value)] = f"{self.of.get(id(p), 'parameter')}: {name}"
                    self.buffers.add(id(value))

    def _see(self, name: str, value: Any) -> None:
        found = [t for t in leaves(value) if isinstance(t, Tensor)]
        for k, t in enumerate(found):
            self.of.setdefault(id(t), name if len(found) == 1 else f"{name}[{k}]")


class _Picture:
    """Makes a diagram of a program."""

    def __init__(
        self, graph: Graph, title: str, direction: str, trace: Recorded | None = None,
        names: _Names | None = None, times: dict[Equation, float] | None = None,
    ) -> None:  # fmt: skip
        self.graph = graph
        self.trace = trace
        self.names = names
        self.times = times or {}
        self.diagram = Diagram(title, direction)
        self.of: dict[Var, str] = {}  # which block gives a value
        self.groups: dict[Any, str] = {}
        self.writer = _Writer()
        scopes = [trace.scopes[v] for eq in graph.equations for v in eq.outs if trace and v in trace.scopes]  # fmt: skip
        self.phases = len({s.phase for s in scopes}) > 1
        self._inputs()
        for k, eq in enumerate(graph.equations):
            self._equation(k, eq)
        self._results()
        self._place_inputs()
        self._describe_groups()

    # --- values -------------------------------------------------------------------------------------

    def _inputs(self) -> None:
        sources = {s.var: s for s in self.trace.sources} if self.trace else {}
        used = {v for eq in self.graph.equations for v in eq.inputs()} | set(self.graph.results())
        for v in self.graph.inputs:
            if v not in used:
                continue
            source = sources.get(v)
            kind, title = "data", v.name
            if source is not None:
                kind, title = self._kind_of(source, v)
            block = Block(f"i{len(self.of)}", title, [] if v.number else [_shape(v)], kind)
            block.details = _about(v)
            if source is not None and source.line:
                block.details.append(("read at", source.line))
            self.of[v] = self.diagram.add(block).id
        for v, array in self.graph.constants.items():
            text = np.array2string(array, threshold=6, precision=4) if array.size <= 4 else v.name
            block = Block(f"i{len(self.of)}", " ".join(text.split()), [_shape(v)], "constant")
            block.details = _about(v)
            self.of[v] = self.diagram.add(block).id

    def _kind_of(self, source: Any, v: Var) -> tuple[str, str]:
        """The kind of an input, and what it is called."""
        if source.kind == "setting":
            place = "" if source.key[1] is None else f"[{source.key[1]}]"
            return "constant", f"{source.key[0]}{place} = {source.array:g}"
        t: Any = source.owner
        if source.kind == "argument":
            t = next((t for t in self._tensors() if t.__dict__["array"] is source.array), None)
        name = self.names.of.get(id(t)) if self.names else None
        name = name or getattr(t, "name", None) or v.name
        if source.kind == "grad":
            return "gradient", f"{name}.grad"
        if self.names and id(t) in self.names.buffers:
            return "state", name
        return ("parameter" if getattr(t, "_leaf", False) else "data"), name

    def _tensors(self) -> list[Tensor]:
        return list(self.trace.owners.values()) if self.trace else []

    # --- equations ----------------------------------------------------------------------------------

    def _equation(self, k: int, eq: Equation) -> None:
        scope = None
        if self.trace is not None:
            scope = next((self.trace.scopes[v] for v in eq.outs if v in self.trace.scopes), None)
        block = Block(f"e{k}", name_of(eq.fn), [_shape(v) for v in eq.outs[:1]], order=k)
        if eq.effect and eq.outs:
            block.kind = "random"
        if scope is not None:
            block.phase = scope.phase
            block.parent = self._group(scope, eq)
        block.details = [("code", self.writer.equation(eq))]
        for v in eq.outs[:1]:
            block.details += _about(v)
        if eq in self.times:
            block.details.append(("time", duration(self.times[eq])))
            block.heat = self.times[eq] / max(max(self.times.values()), 1e-9)
        if eq.line:
            block.details.append(("line", eq.line))
        self.diagram.add(block)
        for v in eq.outs:
            self.of[v] = block.id
        for v in dict.fromkeys(eq.inputs()):
            self.diagram.arrow(self.of[v], block.id)
        if eq.fn in INFIX:
            for i, x in enumerate(eq.args):
                if isinstance(x, (int, float)) and not isinstance(x, bool):
                    number = Block(f"{block.id}.{i}", f"{x:g}", kind="constant", phase=block.phase)
                    number.parent = block.parent
                    self.diagram.arrow(self.diagram.add(number).id, block.id)

    def _group(self, scope: Scope, eq: Equation) -> str:
        """The innermost group of a scope; groups are made when first met."""
        parent = ROOT
        if self.phases:
            parent = self._made(("phase", scope.phase), parent, "phase", scope.phase, scope.phase)
        if scope.parameter is not None:
            title = self.names.of.get(id(scope.parameter)) if self.names else None
            whose = ("parameter", id(scope.parameter))
            return self._made(whose, parent, "op", title or "parameter", "update")
        assert self.trace is not None
        for k in range(len(scope.calls)):
            number = scope.calls[k]
            module = self.trace.calls[number]
            key = ("call", scope.phase, number)
            new = (*key, parent) not in self.groups
            parent = self._made(key, parent, "module", self._title(module), scope.phase)
            if new:
                self.diagram.groups[parent].details = _about_module(module)
        if scope.op is None:
            if (
                scope.phase == "backward" and not scope.calls
            ):  # a gradient is added up: where it comes from
                makers = [self.of[v] for v in eq.inputs() if self.of[v] in self.diagram.blocks]
                makers = [m for m in makers if self.diagram.blocks[m].phase == "backward"]
                return self._module_of(makers[-1]) if makers else parent
            return parent
        title = (
            scope.op.name if scope.phase == "forward" and not scope.rule else f"{scope.op.name} ′"
        )
        run = ("op", scope.run)
        new = run not in self.groups
        parent = self._made(run, parent, "op", title, scope.phase)
        if new:
            about = [("op", repr(scope.op))]
            if scope.rule is not None:
                about.append(("derivative rule", rule_source(scope.rule)))
            else:
                about += [(f"derivative: {names}", text) for names, text in rules_of(scope.op)]
            if eq.line:
                about.append(("line", eq.line))
            self.diagram.groups[parent].details = about
        return parent

    def _made(self, key: Any, parent: str, kind: str, title: str, phase: str) -> str:
        key = (*key, parent) if kind == "module" else key
        if key not in self.groups:
            group = Group(f"g{len(self.groups)}", title, kind=kind, phase=phase, parent=parent)
            self.groups[key] = self.diagram.add_group(group).id
        return self.groups[key]

    def _title(self, module: Module) -> str:
        name = self.names.modules.get(id(module), "") if self.names else ""
        kind = type(module).__name__
        return f"{name.rpartition('.')[2]}: {kind}" if name else kind

    # --- what comes out -----------------------------------------------------------------------------

    def _results(self) -> None:
        diagram = self.diagram
        grads = {v: t for t, v in self.trace.grad_vars} if self.trace else {}
        named = dict.fromkeys(self.graph.outputs)
        plain = [v for v in named if v not in grads]
        for k, v in enumerate(plain):
            title = "result" if len(plain) == 1 else f"result {k}"
            block = Block(f"o{k}", title, [_shape(v)], "output", details=_about(v))
            diagram.arrow(self.of[v], diagram.add(block).id)
        for k, v in enumerate(named):
            if v in grads:
                name = self.names.of.get(id(grads[v])) if self.names else None
                block = Block(
                    f"d{k}", f"{name or 'tensor'}.grad", [_shape(v)], "gradient", "backward"
                )
                block.details = _about(v)
                diagram.arrow(self.of[v], diagram.add(block).id)
        for k, (target, v) in enumerate(self.graph.writes):
            old: Any = diagram.blocks.get(self.of.get(target, ""))
            title = old.title if old is not None else target.name
            block = Block(
                f"n{k}", f"{title}, new", [_shape(v)], old.kind if old else "state", "update"
            )
            block.details = _about(v)
            diagram.arrow(self.of[v], diagram.add(block).id)

    def _place_inputs(self) -> None:
        """Parameters and constants lie beside what reads them first; new values beside what gives them."""
        diagram = self.diagram
        readers: dict[str, list[str]] = {}
        for u, v in diagram.arrows:
            readers.setdefault(u, []).append(v)
            if v[0] in "nd" and u in diagram.blocks:
                diagram.blocks[v].parent = self._module_of(u)
        for block in diagram.blocks.values():
            if block.id[0] != "i" or block.kind == "data":
                continue
            users = [diagram.blocks[v] for v in readers.get(block.id, ()) if v[0] == "e"]
            phases = [b.phase for b in users]
            users = [b for b in users if b.phase == min(phases, key=["forward", "backward", "update"].index)]  # fmt: skip
            if users:
                common = diagram.path(users[0].id)
                for b in users[1:]:
                    other = diagram.path(b.id)
                    common = [a for a, c in zip(common, other, strict=False) if a == c]
                while (
                    common and diagram.groups[common[-1]].kind == "op" and block.kind != "constant"
                ):
                    common.pop()
                block.parent = common[-1] if common else ROOT
                block.phase = users[0].phase

    def _module_of(self, id: str) -> str:
        path = self.diagram.path(id)
        while path[-1] != ROOT and self.diagram.groups[path[-1]].kind == "op":
            path.pop()
        return path[-1]

    def _describe_groups(self) -> None:
        """What a closed group says of itself: the shapes that go in and come out, time."""
        diagram = self.diagram
        paths = {id: set(diagram.path(id)) for id in diagram.blocks}
        inward: dict[str, dict[str, None]] = {g: {} for g in diagram.groups}
        outward: dict[str, dict[str, None]] = {g: {} for g in diagram.groups}
        for u, v in diagram.arrows:
            a, b = diagram.blocks[u], diagram.blocks[v]
            if a.lines and a.kind not in ("parameter", "constant", "state"):
                for g in paths[v] - paths[u]:
                    inward[g][a.lines[0]] = None
                if a.phase == b.phase or b.kind == "output":
                    for g in paths[u] - paths[v]:
                        outward[g][a.lines[0]] = None
        times = [self.times.get(eq, 0.0) for eq in self.graph.equations]
        spent = dict.fromkeys(diagram.groups, 0.0)
        for block in diagram.blocks.values():
            for g in paths[block.id] if block.order is not None else ():
                spent[g] += times[block.order]  # type: ignore[index]
        for group in diagram.groups.values():
            ins, outs = ", ".join(inward[group.id]), ", ".join(outward[group.id])
            if group.kind == "op" and outs:
                group.lines = [outs]
            elif group.kind == "module" and outs:
                group.lines = [f"{ins} → {outs}" if ins else f"→ {outs}"]
            if self.times:
                group.details.append(("time", duration(spent[group.id])))


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _shape(v: Var) -> str:
    if v.number:
        return "number"
    return shape_text(v.shape, v.dtype)


def _about(v: Var) -> list[tuple[str, str]]:
    if v.number:
        return [("value", "a Python number")]
    return [("shape", str(tuple(v.shape))), ("dtype", str(v.dtype)), ("memory", _amount(nbytes(v), "B"))]  # fmt: skip


def _about_module(module: Module) -> list[tuple[str, str]]:
    about = [("module", type(module).__name__)]
    if settings := module.extra_repr():
        about.append(("settings", settings))
    count = sum(p.array.size for p in module.parameters())
    if count:
        about.append(("parameters", f"{count:,}"))
    return about


def plot(
    model: Module,
    *inputs: Any,
    input_size: Any = None,
    to_file: Any = None,
    direction: str = "TB",
    depth: int | None = None,
    show_ops: bool = False,
    dpi: float = 144,
    title: str | None = None,
) -> Drawing:
    """Draw a model layer by layer, with the shapes that go into and come out of each.

    Args:
        inputs: example inputs of ``forward``.
        input_size: in place of inputs, the shape of one input of random numbers, batch
            included, or a list of shapes.
        to_file: also save the picture there, in the format of the suffix.
        direction: "TB" downwards, "LR" to the right.
        depth: how many levels of modules are shown open; None: as many as fit.
        show_ops: also draw the operations within layers that have no layers of their own.
        dpi: of a PNG.

    Raises:
        TypeError: neither inputs nor an input size.
        TraceError: the model cannot be recorded; the message names the line.

    >>> import kilograd as kg
    >>> model = kg.nn.Sequential(kg.nn.Linear(4, 8), kg.nn.ReLU())
    >>> drawing = model.plot(input_size=(2, 4))
    >>> [(part.title, part.lines) for part in drawing.diagram.visible() if part.kind == "module"]
    [('0: Linear', ['2×4 → 2×8', '40 parameters']), ('1: ReLU', ['2×8 → 2×8'])]
    """
    if not isinstance(model, Module):
        raise TypeError(f"plot() draws a Module, not {type(model).__name__}")
    if not inputs:
        inputs = _random_inputs(input_size)
    drawing = graph(model, *inputs, direction=direction, time=False, title=title)
    diagram = drawing.diagram
    for group in diagram.groups.values():
        count = next((text for label, text in group.details if label == "parameters"), None)
        if group.kind == "module" and count:
            group.lines.append(f"{count} parameters")
    drawing.open_to(depth)
    if not show_ops:
        drawing.chosen = True
        modules = {g.parent for g in diagram.groups.values() if g.kind == "module"}
        for group in diagram.groups.values():
            if group.kind == "module" and group.id not in modules:
                group.open = False
    if to_file is not None:
        drawing.save(to_file, dpi=dpi)
    return drawing


def _random_inputs(input_size: Any) -> tuple[Tensor, ...]:
    """Inputs of given shapes, which leave the random generators alone."""
    if input_size is None:
        raise TypeError(
            "plot() needs an example input, model.plot(x), or its shape, "
            "model.plot(input_size=(1, 784)): shapes are known only when data flows"
        )
    sizes = [input_size] if isinstance(input_size[0], int) else list(input_size)
    numbers = np.random.default_rng(0)
    return tuple(Tensor(numbers.standard_normal(tuple(size), np.float32)) for size in sizes)
