"""Eager ops on large arrays: each op, and each derivative rule, as a native program of its own.

An op is a few lines of NumPy, a derivative rule too. On small arrays NumPy runs them; on large ones every
line goes through memory once, on one core. So what an op does is recorded the first time it meets arrays
of certain shapes, as ``kg.compile`` records a whole step, and becomes a program: its lines fused into
loops, its kernels in their native form, shared among the threads.

Ops that take NumPy many steps (a norm, a convolution) are run natively on small arrays, too, but only
after some hundred calls: a script that calls them once waits for no compilation.

What has no native form is left to NumPy, and so is everything where Numba is not installed. Whether a call
runs natively depends on shapes, dtypes, strides and the number of such calls before it, never on time or on
what is on disk: a program gives the same bits every time it is run. ``run`` is what ``kernels/kernel.py``
calls as ``LARGE.run``.
"""

from __future__ import annotations

import contextlib
import functools
import marshal
import math
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd.compile import native_executor, passes
from kilograd.compile.graph import Equation, Var, follow, mapped
from kilograd.compile.launch import Entry
from kilograd.compile.tracer import Number, Recording, Tracer
from kilograd.errors import TraceError
from kilograd.kernels.kernel import Untraceable
from kilograd.kernels.memory import SMALLEST, empty
from kilograd.kernels.native import team
from kilograd.kernels.threads import are_deterministic_algorithms_enabled

MOST = 4096  # programs kept; the oldest goes
OFTEN = 300  # calls on small arrays after which an op is run natively
WORTH_SHARING = 100_000  # elements touched, from where a second thread pays: as a rule it is awake
CONSTANTS = 1 << 16  # bytes of constants in a program; more are NumPy's affair
_RESHAPES = (np.reshape, np.ndarray.reshape)
_SIMPLE = {int, float, bool, str, type(None)}
_PLAIN = {int, bool, str, type(None), type, type(Ellipsis)}
_programs: dict[Any, Any] = {}
_lock: Any = threading.RLock()  # one program at a time: they share memory


def _unlock() -> None:
    """After a fork nobody is there who would let go of another thread's lock."""
    if not _lock._is_owned():
        _lock._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


class _Unfit(Exception):
    """No native program can do what was recorded."""


class _Refused(Exception):
    """A kernel met a value that it does not take: NumPy will say which."""


class OpRecording(Recording):
    """The recording of one op: all it meets is what it was given, or made by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.arrays: list[Tracer] = []
        self.numbers: dict[int, Number] = {}
        self.bytes = 0

    def array(self, array: np.ndarray) -> Tracer:
        """What the op gets in place of an array."""
        v = self.variable(array, "x")
        self.graph.inputs.append(v)
        self.arrays.append(Tracer(self, array, v))
        return self.arrays[-1]

    def number(self, value: float, place: int) -> Number:
        """What the op gets in place of a number that may change from call to call."""
        v = self.variable(value)
        self.graph.inputs.append(v)
        self.numbers[place] = Number(self, value, v, frozenset([place]))
        return self.numbers[place]

    def constant(self, array: Any) -> Var:
        self.bytes += array.nbytes
        if self.bytes > CONSTANTS:
            raise _Unfit("large constants")
        v = self.variable(array, "c")
        self.graph.constants[v] = array.copy()
        return v

    def forget(self) -> None:
        """Let go of the arrays that the op was given."""
        for t in (*self.arrays, *self.numbers.values()):
            t.value = None
            t.trace = None  # type: ignore[assignment]

    def fail(self, why: str) -> None:
        raise _Unfit(why)

    def cannot(self, what: str) -> None:
        raise _Unfit(what)

    def value_of(self, x: Any, what: str) -> Any:
        raise _Unfit(what)


class _Result:
    """A result that the program computes: its memory, and how it is looked at."""

    __slots__ = ("dtype", "path", "shape", "var")

    def __init__(self, tracer: Tracer, made_by: dict[Var, Equation]) -> None:
        root = tracer.root
        self.var = v = root.var
        while v in made_by and made_by[v].fn is np.reshape:  # the memory is what counts
            self.var, v = v, made_by[v].args[0]
        if v in made_by and made_by[v].fn not in native_executor._VIEWS:
            self.var = v
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
        self.written = [k for k, (v, t) in enumerate(given) if t._var is not v]
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
        self.given = len(variables)
        self.cells = [(place, native.numbers[n.var]) for place, n in recording.numbers.items()
                      if n.var in native.numbers]  # fmt: skip
        direct = self.template if type(self.template) is tuple else (self.template,)
        self.direct = [r for r in direct if type(r) is _Result and not r.path] == self.results
        self.direct = self.direct and len(direct) == len(self.results)
        self.single = self.direct and type(self.template) is not tuple

    def _placer(self, recording: OpRecording) -> Callable[[Any], Any]:
        """What turns each value of a result into its place."""
        known = {id(t): k for k, t in enumerate(recording.arrays)}
        places: dict[int, _Result] = {}
        made_by = {eq.outs[0]: eq for eq in recording.graph.equations if eq.outs}

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
                places[id(x)] = _Result(x, made_by)
                self.results.append(places[id(x)])
            return places[id(x)]

        return place

    def value(self, made: list[Any], arrays: list[Any]) -> Any:
        """What the op gives, from the arrays that the program has computed."""
        found = dict(zip(map(id, self.results), made, strict=True))

        def value(x: Any) -> Any:
            if type(x) is _Result:
                return follow(x.path, found[id(x)])
            return arrays[x.place] if type(x) is _Given else x

        return mapped(value, self.template)

    def launcher(self) -> Callable[[list[Any], list[float]], Any]:
        """A Python function ``f(arrays, numbers)`` that runs the program, and does no more than it must."""
        native = self.native
        sizes = [math.prod(shape) * dtype.itemsize for shape, dtype in self.kinds]
        names = [f"a{k}" for k in range(self.given)]
        made = [f"o{k}" for k in range(len(self.kinds))]
        lines = [f"{', '.join(names)}, = arrays"] if names else []
        lines += [
            f"{o} = {'empty' if size >= SMALLEST else 'small'}(*kinds[{k}])"
            for k, (o, size) in enumerate(zip(made, sizes, strict=True))
        ]
        written = [names[k] for k in self.written]
        if written:
            check = " and ".join(f"{a}.flags.writeable" for a in written)
            lines += [f"if not ({check}): raise refused"]
        lines += ["if owned(): raise refused"]  # in a signal's handler, while a program runs
        lines += ["with lock:"]
        lines += [f"    ids[{k}] = id({name})" for k, name in enumerate(names + made)]
        lines += [f"    cells[{k}].value = numbers[{i}]" for k, (i, _) in enumerate(self.cells)]
        if native.fallible:
            lines += ["    status[0] = 0"]
        if native.work > WORTH_SHARING:
            lines += ["    team(program, interpret, blas)"]
        else:
            lines += ["    alone(run, at)" if native.blas else "    run(at)"]
        if native.fallible:
            lines += ["    if status[0]: raise refused"]
        direct = "(" + "".join(f"{o}, " for o in made) + ")"
        if self.template is None:
            direct = "None"
        elif not self.direct:
            direct = f"value([{', '.join(made)}], arrays)"
        lines += ["return " + (made[0] if self.single else direct)]
        head = (
            "def made(lock, owned, ids, cells, status, refused, team, alone, program, interpret, blas, run, at, kinds,"
            " empty, small, value):\n def launch(arrays, numbers):\n  "
        )
        return _factory(head + "\n  ".join(lines) + "\n return launch\n")(
            _lock, _lock._is_owned, self.entry.ids, [cell for _, cell in self.cells], native.status_array, _Refused,
            team.run, team.alone, self.entry.program, native.interpret, native.blas, self.entry.run,
            self.entry.at, self.kinds,
            empty, np.empty, self.value,
        )  # fmt: skip


@functools.lru_cache(maxsize=1024)
def _factory(text: str) -> Callable[..., Any]:
    space: dict[str, Any] = {}
    exec(compile(text, "<kilograd op>", "exec"), space)
    return space["made"]


def dumps(x: Any) -> bytes:
    """A value and its type: 1, 1.0 and True are not the same, nor are 0.0 and -0.0."""
    return marshal.dumps(x, 2)  # from version 3 on, who else holds it matters


def _is_plain(x: tuple[Any, ...]) -> bool:
    """Whether a tuple holds numbers, strings and such tuples: what NumPy has made would lose its dtype."""
    kinds = set(map(type, x))
    if kinds <= _SIMPLE:
        return True
    return kinds <= {*_SIMPLE, tuple} and all(_is_plain(y) for y in x if type(y) is tuple)


def _key(x: Any, arrays: list[Any]) -> Any:
    """What the program depends on in an option; arrays in it are found on the way."""
    kind = type(x)
    if kind is np.ndarray:
        arrays.append(x)
        return x.dtype, x.shape, x.strides
    if kind in _PLAIN or isinstance(x, np.dtype):
        return kind, x
    if kind is float:
        return dumps(x)
    if kind is tuple and _is_plain(x):
        return dumps(x)
    if kind in (tuple, list):
        return kind, *[_key(y, arrays) for y in x]
    if kind is slice:
        return slice, _key(x.start, arrays), _key(x.stop, arrays), _key(x.step, arrays)
    if kind is dict:
        return dict, *[(k, _key(y, arrays)) for k, y in x.items()]
    raise _Unfit(f"an argument of type {kind.__name__}")


_NUMPY: Any = object()  # in place of a program: this is NumPy's


class _Frozen:
    """Likewise: there is a program for each value of some of the numbers (their places)."""

    __slots__ = ("places",)

    def __init__(self, places: frozenset[int]) -> None:
        self.places = places


def run(
    fn: Callable[..., Any],
    args: Any,
    options: dict[str, Any],
    writes: bool = False,
    small: bool = False,
) -> Any:
    """``fn(*args, **options)``, natively if that can be.

    ``writes``: into arrays among ``args``, the second aside (a gradient). ``small``: the arrays are, and
    the op takes NumPy many steps; a program is worth making if the same is done often.
    """
    arrays: list[Any] = []
    numbers: list[float] = []
    rest: list[Any] = []
    key: list[Any] = [fn]
    try:
        for a in args:
            kind = type(a)
            if kind is np.ndarray:
                arrays.append(a)
                key += a.dtype, a.shape, a.strides
            elif kind is float:
                numbers.append(a)
                key.append(float)
            elif kind in _SIMPLE or (kind is tuple and _is_plain(a)):
                rest.append(a)
                key.append(None)
            else:
                key.append(_key(a, arrays))
        if options:
            key += options
            for a in options.values():
                kind = type(a)
                if kind in _SIMPLE or (kind is tuple and _is_plain(a)):
                    rest.append(a)
                    key.append(None)
                else:
                    key.append(_key(a, arrays))
        if rest:
            key.append(dumps(rest))
        if writes and any(_overlap(a, arrays[1]) for a in (arrays[0], *arrays[2:])):
            raise _Unfit("what is written is read in another order")
        known = tuple(key)
        program = _programs.get(known)
        if program is None or type(program) is int:
            if small and ((program or 0) < OFTEN or are_deterministic_algorithms_enabled()):
                _remember(known, (program or 0) + 1)
                return fn(*args, **options)
            program = _remember(known, _make(fn, args, options, writes, len(arrays), frozenset()))
        while type(program) is _Frozen:
            known = (known, *[dumps(numbers[i]) for i in sorted(program.places)])
            frozen = program
            program = _programs.get(known)
            if program is None:
                program = _make(fn, args, options, writes, len(arrays), frozen.places)
                _remember(known, program)
        if program is not _NUMPY:
            return program(arrays, numbers)
    except (_Unfit, _Refused):
        pass
    return fn(*args, **options)


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays may share memory without being the same."""
    if not np.may_share_memory(a, b):
        return False
    return a.strides != b.strides or a.ctypes.data != b.ctypes.data


def reset() -> None:
    """Forget all programs, and how often what was done."""
    _programs.clear()


def _remember(known: Any, program: Any) -> Any:
    _programs[known] = program
    if len(_programs) > MOST:
        with contextlib.suppress(KeyError, RuntimeError, StopIteration):  # another thread was first
            del _programs[next(iter(_programs))]
    return program


def _make(
    fn: Callable[..., Any], args: Any, options: dict[str, Any], writes: bool, count: int,
    frozen: frozenset[int],
) -> Any:  # fmt: skip
    """A program for calls like this one: with ``count`` arrays, and some of its numbers as they are.

    ``_NUMPY`` if there is none; ``_Frozen`` if more of the numbers have to be as they are.
    """
    native_executor.load_twins()
    every = frozenset(range(sum(type(x) is float for x in args)))
    recording = OpRecording()
    try:
        return _recorded(recording, fn, args, options, writes, count, frozen)
    except (_Unfit, Untraceable, TraceError, NotImplementedError):
        if recording.pinned:
            return _Frozen(frozen | recording.pinned)
        return _NUMPY if frozen == every else _Frozen(every)
    except TypeError:  # something must have floats or arrays, and no stand-ins
        return _NUMPY if frozen == every else _Frozen(every)


def _copy(x: np.ndarray) -> np.ndarray:
    """A copy that lies in memory just as x does, with the same gaps."""
    if x.flags.c_contiguous:
        y = empty(x.shape, x.dtype)
    else:
        low, high = np.lib.array_utils.byte_bounds(x)
        memory = np.empty(high - low, np.uint8)
        y = np.ndarray(x.shape, x.dtype, memory, x.ctypes.data - low, x.strides)
    y[...] = x
    return y


def _recorded(
    recording: OpRecording, fn: Any, args: Any, options: Any, writes: bool, count: int,
    frozen: frozenset[int],
) -> Callable[..., Any]:  # fmt: skip
    given: list[Any] = []
    floats = 0

    def copied(x: Any) -> Any:
        return recording.array(_copy(x)) if type(x) is np.ndarray else x

    def as_it_is(x: Any) -> Any:
        return recording.array(x) if type(x) is np.ndarray else x

    try:
        for i, x in enumerate(args):
            if type(x) is not float:
                given.append(mapped(copied if writes and i != 1 else as_it_is, x))
                continue
            given.append(x if floats in frozen else recording.number(x, floats))
            floats += 1
        chosen = mapped(copied, options)  # an op may write to what it is given as an option
        result = fn(*given, **chosen)
        if recording.pinned:
            raise _Unfit("what is done depends on a number")
        if len(recording.arrays) != count:
            raise _Unfit("an array deep inside of an option")
        program = OpProgram(recording, result)
    finally:
        recording.forget()
    launch: Any = program.launcher()
    launch.program = program
    return launch
