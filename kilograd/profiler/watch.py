"""Watching a program run: who is told of each op, derivative, module call and optimizer step.

``with watching(observer):`` wraps, for as long as the block lasts, the few places through which all
work goes, and takes the wrapping off at its end. Eager code pays nothing while nobody watches: there
is no line about it in ``tensor.apply``, in the driver or in ``Module``.

=============  ==============================  ===============================  ====================
kind           what is wrapped                 ``what``                         ``args``
=============  ==============================  ===============================  ====================
``op``         ``Op.forward``, ``LARGE.run``   the Op                           arrays and numbers
``backward``   ``Node.shares``                 the Node                         its gradient, create_graph
``pass``       ``driver.run``                  None                             the seeds
``module``     ``Module.__call__``             the Module                       its inputs
``optimizer``  ``Optimizer.step``              the Optimizer
``program``    ``Compiled.__call__``           the compiled function            its arguments
``kernel``     a line of a program             its name, the line
``span``       a block (see :func:`span`)      its name
=============  ==============================  ===============================  ====================

While ``kg.compile`` records a function, and inside of a native program, nothing is told: what happens
there is one call; unless an observer asks for ``kernels``, for which programs run line by line.
"""

from __future__ import annotations

import functools
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from kilograd.autograd import calls, driver
from kilograd.autograd.driver import Node
from kilograd.compile.step import Compiled  # and all of compile: later it would see what is wrapped
from kilograd.kernels.kernel import LARGE, TRACE
from kilograd.nn.module import Module
from kilograd.ops.op import Op
from kilograd.optim.optimizer import Optimizer
from kilograd.profiler import programs

now = time.perf_counter_ns


class Call:
    """One call that is being watched; the observers of one program share it.

    ``start`` and ``end`` (ns) are taken right around the work; ``inside`` is how long calls within it
    took, with what watching them has cost, so ``end - start - inside`` is the time of its own.
    """

    __slots__ = ("args", "end", "entered", "error", "home", "inside", "kind", "notes", "options", "parent",
                 "result", "start", "thread", "what")  # fmt: skip

    def __init__(
        self, kind: str, what: Any, args: tuple[Any, ...], options: dict[str, Any],
        parent: Call | None,
    ) -> None:  # fmt: skip
        self.kind = kind
        self.what = what
        self.args = args
        self.options = options
        self.parent = parent  # the call it is made in, on the same thread
        self.thread = threading.get_ident()
        self.entered = self.start = self.end = self.inside = 0
        self.result: Any = None
        self.error: BaseException | None = None
        self.notes: dict[Any, Any] = {}  # what observers want to remember until its end
        self.home = _home(self)  # the path of the module it belongs to, "" outside of all

    @property
    def name(self) -> str:
        """What the call is called: an op's name, a class, a function."""
        kind, what = self.kind, self.what
        if kind == "op":
            return str(what.name)
        if kind == "backward":
            return str(what.op.name if what.op is not None else what.name())
        if kind == "pass":
            return "backward pass"
        if kind == "span":
            return str(what)
        if kind == "kernel":
            return str(what[0])
        if kind == "program":
            return str(getattr(what.fn, "__qualname__", type(what.fn).__name__))
        return type(what).__name__ + (".step" if kind == "optimizer" else "")

    def within(self, *kinds: str) -> bool:
        """Whether it is made, however deep, in a call of one of these kinds."""
        call = self.parent
        while call is not None and call.kind not in kinds:
            call = call.parent
        return call is not None


class Observer:
    """Told about each call that begins and ends; what it raises is raised where the call was made."""

    kernels = False  # whether compiled programs are to run one kernel at a time

    def begins(self, call: Call) -> None:
        """The call is about to be made."""

    def ends(self, call: Call) -> None:
        """The call has ended, with ``call.result``, or ``call.error``."""


@contextmanager
def watching(observer: Observer) -> Iterator[Observer]:
    """Tell an observer of all calls, of all threads, made while the block runs.

    Several may watch at once; the wrapping comes off when the last of them has gone.

    >>> import kilograd as kg
    >>> class Names(Observer):
    ...     def ends(self, call):
    ...         print(call.kind, call.name)
    >>> x = kg.ones(2, requires_grad=True)
    >>> with watching(Names()):
    ...     x.exp().sum().backward()
    op exp
    op sum
    op repeated
    backward sum
    backward exp
    pass backward pass
    """
    global _observers
    with _lock:
        if not _observers:
            _wrap_all()
        _observers = (*_observers, observer)
    try:
        yield observer
    finally:
        with _lock:
            _observers = tuple([o for o in _observers if o is not observer])
            if not _observers:
                _unwrap_all()


@contextmanager
def span(name: str) -> Iterator[None]:
    """A block by name, as one call; nothing while nobody watches."""
    if not _told():
        yield
        return
    call = _begin("span", name, (), {})
    try:
        yield
    except BaseException as e:
        call.error = e
        raise
    finally:
        _end(call)


# --- telling ---------------------------------------------------------------------------------------


class _Here(threading.local):
    """Where this thread is."""

    def __init__(self) -> None:
        self.stack: list[Call] = []
        self.quiet = False  # in a native program, or in the making of one
        self.watch = 0  # which watch the marks are of
        self.marks: list[
            tuple[int, str]
        ] = []  # from which node on the graph is made in which module


_here = _Here()
_observers: tuple[Observer, ...] = ()
_lock = threading.Lock()
_undo: list[Callable[[], None]] = []
_watches = [0]
_roots: WeakKeyDictionary[Module, str] = (
    WeakKeyDictionary()
)  # modules that no other calls: their names
_names: WeakKeyDictionary[Module, dict[int, str]] = WeakKeyDictionary()  # of those below, by id


def _told() -> bool:
    return bool(_observers) and not _here.quiet and TRACE.get() is None


def _begin(kind: str, what: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Call:
    entered = now()
    stack = _here.stack
    call = Call(kind, what, args, options, stack[-1] if stack else None)
    call.entered = entered
    stack.append(call)
    if kind == "module":
        _mark(call.home)
    try:
        for observer in _observers:
            observer.begins(call)
    except BaseException:
        stack.pop()
        raise
    call.start = now()
    return call


def _end(call: Call) -> None:
    call.end = now()
    _here.stack.remove(call)
    parent = call.parent
    if call.kind == "module":
        _mark(parent.home if parent is not None else "")
    try:
        for observer in _observers:
            observer.ends(call)
    finally:
        call.args, call.options, call.result = (
            (),
            {},
            None,
        )  # nothing lives longer for being watched
        if parent is not None:
            parent.inside += now() - call.entered


def _around(
    kind: str, what: Any, args: tuple[Any, ...], options: dict[str, Any], work: Callable[[], Any]
) -> Any:
    """``work()``, and the observers are told."""
    if not _told() or _by_super(kind, what):
        return work()
    call = _begin(kind, what, args, options)
    try:
        call.result = result = work()
    except BaseException as e:
        call.error = e
        raise
    finally:
        _end(call)
    return result


def _by_super(kind: str, what: Any) -> bool:
    """Whether a subclass's method, which is being watched, calls the one of its parent class."""
    if kind not in ("backward", "optimizer") or not _here.stack:
        return False
    around = _here.stack[-1]
    return around.kind == kind and around.what is what


# --- modules -----------------------------------------------------------------------------------------


def _mark(path: str) -> None:
    """Nodes made from here on are of the module at ``path``."""
    if _here.watch != _watches[0]:
        _here.watch, _here.marks = _watches[0], []
    _here.marks.append((next(driver.ticks), path))


def _home(call: Call) -> str:
    """The path of the module a call belongs to; of a derivative, the one its op was run in."""
    parent = call.parent
    if call.kind == "backward":
        return home_of(call.what)
    if call.kind != "module":
        return parent.home if parent is not None else ""
    above = parent
    while above is not None and above.kind != "module":
        above = above.parent
    if above is None:
        return _root_name(call.what)
    name = _name_below(above.what, call.what)
    return f"{above.home}.{name or type(call.what).__name__}"


def _root_name(module: Module) -> str:
    """The class of a module that no other calls; a second one of it with parameters is ``Net#2``."""
    kind = type(module).__name__
    if next(module.parameters(), None) is None:  # a loss, made anew in each step perhaps
        return kind
    if module not in _roots:
        others = sum(name.partition("#")[0] == kind for name in _roots.values())
        _roots[module] = f"{kind}#{others + 1}" if others else kind
    return _roots[module]


def home_of(node: Node) -> str:
    """The path of the module in which a node's op was run, if that was seen on this thread."""
    if _here.watch != _watches[0]:
        return ""
    i = bisect_right(_here.marks, (node.order, "\U0010ffff")) - 1
    return _here.marks[i][1] if i >= 0 else ""


def _name_below(above: Module, module: Module) -> str:
    for again in (False, True):  # modules may have been added since
        if above not in _names or again:
            _names[above] = {id(m): name for name, m in above.named_modules()}
        name = _names[above].get(id(module), "")
        if name:
            return name
    return ""


# --- wrapping ----------------------------------------------------------------------------------------


class _Watched:
    """An op's forward function while it is watched; to those who compare, the function itself."""

    __slots__ = ("__name__", "fn", "op")

    def __init__(self, op: Op, fn: Any) -> None:
        self.op = op
        self.fn = fn
        self.__name__ = getattr(fn, "__name__", op.name)

    def __call__(self, *arrays: Any, **options: Any) -> Any:
        return _around("op", self.op, arrays, options, lambda: self.fn(*arrays, **options))

    def __eq__(self, other: object) -> bool:
        return bool(self.fn == getattr(other, "fn", other))

    def __hash__(self) -> int:
        return hash(self.fn)


class _Forward:
    """Stands before the attribute ``forward`` of all ops, and hands out what is watched."""

    def __get__(self, op: Any, owner: Any = None) -> Any:
        if op is None:
            return self
        fn = op.__dict__["forward"]
        return _Watched(op, fn) if _told() else fn

    def __set__(self, op: Any, fn: Any) -> None:
        op.__dict__["forward"] = fn.fn if type(fn) is _Watched else fn


def _wrap_all() -> None:
    _watches[0] += 1
    try:
        Op.forward = _Forward()  # type: ignore[assignment]
        _undo.append(lambda: delattr(Op, "forward"))
        _wrap_large()
        for cls in _with_subclasses(Node):
            if "shares" in vars(cls):
                _replace(cls, "shares", _shares)
        _replace(calls, "run", _run)
        _replace(Module, "__call__", functools.partial(_called, "module"))
        for cls in _with_subclasses(Optimizer):
            if "step" in vars(cls):
                _replace(cls, "step", functools.partial(_called, "optimizer"))
        _replace(Compiled, "__call__", _program)
    except BaseException:
        _unwrap_all()
        raise


def _unwrap_all() -> None:
    while _undo:
        _undo.pop()()
    _names.clear()
    _roots.clear()


def _replace(owner: Any, name: str, wrapping: Callable[[Any], Any]) -> None:
    before = vars(owner)[name]
    setattr(owner, name, functools.wraps(before)(wrapping(before)))
    _undo.append(lambda: setattr(owner, name, before))


def _with_subclasses(cls: type) -> set[type]:
    below: list[type] = cls.__subclasses__()
    return {cls}.union(*[_with_subclasses(c) for c in below])


def _shares(shares: Any) -> Any:
    def watched(self: Node, g: Any, create_graph: bool) -> Any:
        def work() -> Any:
            backward = getattr(self, "backward", None)  # of a compiled function's node
            if backward is None or not _by_kernels():
                return shares(self, g, create_graph)
            with programs.backward_one_by_one(backward, _kernel):
                return shares(self, g, create_graph)

        return _around("backward", self, (g, create_graph), {}, work)

    return watched


def _program(call: Any) -> Any:
    def watched(self: Any, *args: Any, **options: Any) -> Any:
        def work() -> Any:
            if not _by_kernels():
                return call(self, *args, **options)
            with programs.one_by_one(self, _kernel):
                return call(self, *args, **options)

        return _around("program", self, args, options, work)

    return watched


def _by_kernels() -> bool:
    return any(observer.kernels for observer in _observers)


def _kernel(name: str, line: str, work: Callable[[], Any]) -> Any:
    return _around("kernel", (name, line), (), {}, work)


def _run(run: Any) -> Any:
    def watched(seeds: Any, **how: Any) -> Any:
        return _around("pass", None, (seeds,), how, lambda: run(seeds, **how))

    return watched


def _called(kind: str, call: Any) -> Any:
    def watched(self: Any, *args: Any, **options: Any) -> Any:
        return _around(kind, self, args, options, lambda: call(self, *args, **options))

    return watched


def _wrap_large() -> None:
    """Ops on large arrays: ``LARGE.run`` is to know them by the function that they always have."""
    before: list[Any] = [LARGE.run]

    def run(fn: Any, args: Any, options: Any, writes: bool = False, small: bool = False) -> Any:
        if type(fn) is not _Watched:
            return quietly(fn, args, options, writes, small)
        return _around(
            "op", fn.op, tuple(args), options, lambda: quietly(fn.fn, args, options, writes, small)
        )

    def quietly(*call: Any) -> Any:
        loud, _here.quiet = not _here.quiet, True
        try:
            return before[0](*call)
        finally:
            _here.quiet = not loud
            if (
                LARGE.run is not run and undo in _undo
            ):  # the first such op has brought in the compiler
                before[0], LARGE.run = LARGE.run, run

    def undo() -> None:
        LARGE.run = before[0]

    LARGE.run = run
    _undo.append(undo)
