"""Eager ops on large arrays: each op, and each derivative rule, as a native program of its own.

An op is a few lines of NumPy, a derivative rule too. On small arrays NumPy runs them; on large ones every
line goes through memory once, on one core. So what an op does is recorded the first time it meets arrays
of certain shapes, as ``kg.compile`` records a whole step, and becomes a program: its lines fused into
loops, its kernels in their native form, shared among the threads.

What has no native form is left to NumPy, and so is everything where Numba is not installed. Whether an op
runs natively depends on shapes, dtypes and strides alone, never on time or on what was run before: the
same call gives the same bits. ``run`` is what ``kernels/kernel.py`` calls as ``LARGE.run``.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd.compile import native_executor, passes
from kilograd.compile.graph import Var, follow, mapped
from kilograd.compile.launch import Entry
from kilograd.compile.tracer import Number, Recording, Tracer
from kilograd.errors import TraceError
from kilograd.kernels import threads
from kilograd.kernels.kernel import Untraceable
from kilograd.kernels.memory import empty
from kilograd.kernels.native import team

MOST = 4096  # programs kept; the oldest goes
WORTH_SHARING = 80_000  # elements touched, from where a second thread pays: it is awake already
CONSTANTS = 1 << 16  # bytes of constants in a program; more are NumPy's affair
_RESHAPES = (np.reshape, np.ndarray.reshape)
_PLAIN = (int, bool, str, type(None), np.dtype, type, type(Ellipsis))
_programs: dict[Any, Any] = {}
_lock = threading.RLock()  # one program at a time: they share memory


class _Unfit(Exception):
    """No native program can do what was recorded."""


class _Refused(Exception):
    """A kernel met a value that it does not take: NumPy will say which."""


class OpRecording(Recording):
    """The recording of one op: all it meets is what it was given, or made by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.arrays: list[Tracer] = []
        self.numbers: list[Number] = []
        self.bytes = 0

    def array(self, array: np.ndarray) -> Tracer:
        """What the op gets in place of an array."""
        v = self.variable(array, "x")
        self.graph.inputs.append(v)
        self.arrays.append(Tracer(self, array, v))
        return self.arrays[-1]

    def number(self, value: float) -> Number:
        """What the op gets in place of a number that may change from call to call."""
        v = self.variable(value)
        self.graph.inputs.append(v)
        self.numbers.append(Number(self, value, v, frozenset([v])))
        return self.numbers[-1]

    def constant(self, array: Any) -> Var:
        self.bytes += array.nbytes
        if self.bytes > CONSTANTS:
            raise _Unfit("large constants")
        v = self.variable(array, "c")
        self.graph.constants[v] = array.copy()
        return v

    def fail(self, why: str) -> None:
        raise _Unfit(why)

    def cannot(self, what: str) -> None:
        raise _Unfit(what)

    def value_of(self, x: Any, what: str) -> Any:
        raise _Unfit(what)


class _Result:
    """A result that the program computes: its memory, and how it is looked at."""

    __slots__ = ("dtype", "path", "shape", "var")

    def __init__(self, tracer: Tracer) -> None:
        root = tracer.root
        self.var = root.var
        self.dtype = root.dtype
        self.shape = root.shape
        self.path = tracer.path
        if all(fn in _RESHAPES for fn, _, _ in self.path):
            self.shape = tracer.shape  # fresh memory is had in any shape
            self.path = ()


class _Given:
    """A result that is one of the arrays which the op was given."""

    __slots__ = ("place",)

    def __init__(self, place: int) -> None:
        self.place = place


class _Arena:
    """The memory in which programs keep what they compute on the way; it is shared by all of them."""

    def __init__(self) -> None:
        self.block = np.empty(0, np.uint8)

    def __call__(self, size: int) -> np.ndarray:
        if size > self.block.size:  # those made before keep the old one
            self.block = empty((max(size, 2 * self.block.size),), np.dtype(np.uint8))
        return self.block


_arena = _Arena()


class OpProgram:
    """A native program for one op (or rule), given arrays of certain shapes, dtypes and strides."""

    def __init__(self, recording: OpRecording, result: Any) -> None:
        graph = recording.graph
        self.results: list[_Result] = []
        self.template = mapped(self._placer(recording), result)
        variables = [v for v in graph.inputs if not v.number]
        given = list(zip(variables, recording.arrays, strict=True))
        graph.outputs = [r.var for r in self.results]
        graph.writes = [(v, t._var) for v, t in given if t._var is not v]
        if not graph.outputs and not graph.writes:
            raise _Unfit("nothing to compute")
        strides = {v: t.value.strides for v, t in given}
        strides |= {v: c.strides for v, c in graph.constants.items()}
        self.native = native = native_executor.NativeProgram(
            passes.optimised(graph), (), strides, _arena
        )
        made = native.graph.outputs
        if native.python_steps or not all(native.layouts[v].contiguous for v in made):
            raise _Unfit("a step without native form, or a result in another order")
        self.entry = Entry(native, [native.patches.get(v, []) for v in (*variables, *made)])
        self.ids = self.entry.ids
        self.kinds = [(r.shape, r.dtype) for r in self.results]
        self.cells = [(i, native.numbers[n.var]) for i, n in enumerate(recording.numbers)
                      if n.var in native.numbers]  # fmt: skip
        direct = self.template if type(self.template) is tuple else (self.template,)
        self.direct = [r for r in direct if type(r) is _Result and not r.path] == self.results
        self.direct = self.direct and len(direct) == len(self.results)
        self.single = self.direct and type(self.template) is not tuple

    def _placer(self, recording: OpRecording) -> Callable[[Any], Any]:
        """What turns each value of a result into its place."""
        known = {id(t): k for k, t in enumerate(recording.arrays)}
        places: dict[int, _Result] = {}

        def place(x: Any) -> Any:
            if isinstance(x, Number):
                raise _Unfit("a result that is a number")
            if not isinstance(x, Tracer):
                return x
            if id(x) in known:
                return _Given(known[id(x)])
            if id(x.root) in known:
                raise _Unfit("a view of what was given")
            if id(x) not in places:
                places[id(x)] = _Result(x)
                self.results.append(places[id(x)])
            return places[id(x)]

        return place

    def __call__(self, arrays: list[Any], numbers: list[float]) -> Any:
        native, ids = self.native, self.ids
        made = [empty(shape, dtype) for shape, dtype in self.kinds]
        with _lock:
            k = 0
            for a in arrays:
                ids[k] = id(a)
                k += 1
            for a in made:
                ids[k] = id(a)
                k += 1
            for i, cell in self.cells:
                cell.value = numbers[i]
            if native.fallible:
                native.status_array[0] = 0
            if native.work > WORTH_SHARING and threads.get_num_threads() > 1:
                team.run(self.entry.program, native.interpret, native.blas)
            else:
                self.entry.run(self.entry.at)
            if native.fallible and native.status_array[0]:
                raise _Refused
        if self.single:
            return made[0]
        if self.direct:
            return tuple(made)
        found = dict(zip(map(id, self.results), made, strict=True))

        def value(x: Any) -> Any:
            if type(x) is _Result:
                return follow(x.path, found[id(x)])
            return arrays[x.place] if type(x) is _Given else x

        return mapped(value, self.template)


def _key(x: Any, arrays: list[Any]) -> Any:
    """What the program depends on in an option; arrays in it are found on the way."""
    kind = type(x)
    if kind is np.ndarray:
        arrays.append(x)
        return x.dtype, x.shape, x.strides
    if kind in _PLAIN:
        return kind, x
    if kind is float:
        return kind, x if x and x == x else str(x)
    if kind in (tuple, list):
        return kind, *[_key(y, arrays) for y in x]
    if kind is slice:
        return slice, _key(x.start, arrays), _key(x.stop, arrays), _key(x.step, arrays)
    if kind is dict:
        return dict, *[(k, _key(y, arrays)) for k, y in x.items()]
    raise _Unfit(f"an argument of type {kind.__name__}")


_NUMPY: Any = object()  # in place of a program: this is NumPy's
_FROZEN: Any = object()  # likewise: there is a program for each value of the numbers


def run(fn: Callable[..., Any], args: Any, options: dict[str, Any], writes: bool = False) -> Any:
    """``fn(*args, **options)``, natively if that can be; ``writes``: into arrays among ``args``."""
    arrays: list[Any] = []
    numbers: list[float] = []
    key: list[Any] = [fn]
    try:
        for a in args:
            if type(a) is np.ndarray:
                arrays.append(a)
                key.append((a.dtype, a.shape, a.strides))
            elif type(a) is float:
                numbers.append(a)
                key.append(float)
            else:
                key.append(_key(a, arrays))
        if options:
            key.append(_key(options, arrays))
        known = tuple(key)
        program = _programs.get(known)
        if program is None:
            program = _remember(known, _make(fn, args, options, writes, bool(numbers)))
        if program is _FROZEN:
            known = (known, *[_key(x, []) for x in numbers])
            program = _programs.get(known)
            if program is None:
                program = _remember(known, _make(fn, args, options, writes, False))
        if program is not _NUMPY:
            return program(arrays, numbers)
    except (_Unfit, _Refused):
        pass
    return fn(*args, **options)


def _remember(known: Any, program: Any) -> Any:
    _programs[known] = program
    if len(_programs) > MOST:
        with contextlib.suppress(KeyError, RuntimeError, StopIteration):  # another thread was first
            del _programs[next(iter(_programs))]
    return program


def _make(
    fn: Callable[..., Any], args: Any, options: dict[str, Any], writes: bool, numbers: bool
) -> Any:
    """A program for a call like this one; ``_NUMPY``, or with ``numbers`` ``_FROZEN``, if none can be."""
    native_executor.load_twins()
    try:
        return _recorded(fn, args, options, writes, numbers)
    except (_Unfit, Untraceable, TraceError, NotImplementedError):
        return _FROZEN if numbers else _NUMPY
    except TypeError:  # a number that is recorded is no float
        if numbers:
            return _FROZEN
        raise


def _recorded(fn: Any, args: Any, options: Any, writes: bool, numbers: bool) -> OpProgram:
    recording = OpRecording()

    def symbol(x: Any) -> Any:
        if type(x) is np.ndarray:  # what an op is given as an option it may write to
            return recording.array(x.copy(order="K") if writes else x)
        return recording.number(x) if numbers and type(x) is float else x

    given = mapped(symbol, tuple(args))
    numbers, writes = False, True
    chosen = mapped(symbol, options)
    result = fn(*given, **chosen)
    recording.open = False
    return OpProgram(recording, result)
