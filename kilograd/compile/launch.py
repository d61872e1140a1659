"""The quick way into a native program: everything that must be checked and set, and no more.

For each program a Python function is written that compares the arguments and the guards with what the
program was made for, puts addresses and numbers into the table, calls it, and wraps the results. A
tiny network's step costs microseconds, so this function names every object directly.
It answers ``MISS`` where anything is not as it was: the caller then looks closer. It answers
``REFUSED`` where the program could not finish; nothing was written then.
"""

from __future__ import annotations

import ctypes
import inspect
import itertools
import operator
import sys
import weakref
from typing import Any

import numpy as np

from kilograd.autograd.modes import MODE
from kilograd.compile.guards import _MISSING, _differs, holds, owner_of
from kilograd.compile.native_executor import EXTRAS
from kilograd.errors import is_from_signal
from kilograd.kernels.kernel import CHANGES, TRACE
from kilograd.kernels.native.build import INTERPRETER, Generated
from kilograd.tensor import Tensor

MISS, REFUSED = object(), object()
_pointer = ctypes.c_int64.from_address
_POINTER_AT = 16  # where an ndarray keeps the address of its data, behind the object's head


def _finds_pointers() -> bool:
    """Whether addresses can be read off arrays (some Pythons have other heads)."""
    probe = np.zeros(3)
    try:
        return sys.implementation.name == "cpython" and (
            object.__basicsize__ == _POINTER_AT
            and _pointer(id(probe) + _POINTER_AT).value == probe.ctypes.data
        )
    except (ValueError, TypeError):
        return False


QUICK = _finds_pointers()


class Kept:
    """A gradient that a program writes again and again, as long as nobody else holds it."""

    def __init__(self, var: Any, owner: dict[str, Any]) -> None:
        self.var = var
        self.owner = owner  # the attributes of the tensor whose gradient it is


class _Pool:
    """The gradients of a program, each a tensor in its owner's ``.grad`` and an array in the table.

    As long as the owner and this pool alone hold a gradient, the next step writes into its memory;
    counting references tells. Else that gradient gets other memory.
    """

    def __init__(self, native: Any, kept: list[Kept]) -> None:
        self.native = native
        self.kept = kept
        self.held: list[Any] = [None] * 2 * len(kept)  # the tensors, then their arrays
        # the attributes of each tensor: two, unless marked
        self.marks: list[Any] = [()] * len(kept)
        native.kept.append(self)

    def renew(self) -> list[Any]:
        """Put every gradient in its place again, those that somebody else holds in new memory.

        Returns what was in their places.
        """
        held, n = self.held, len(self.kept)
        before = [k.owner.get("grad") for k in self.kept]
        for i, k in enumerate(self.kept):
            in_place = held[i] is not None and k.owner.get("grad") is held[i]
            if (
                held[i] is None
                or len(self.marks[i]) != 2
                or sys.getrefcount(held[i]) != REFERENCES.tensor - (not in_place)
                or sys.getrefcount(held[n + i]) != REFERENCES.array
            ):
                array = held[n + i] = self.native._new(k.var)
                t = held[i] = object.__new__(Tensor)
                t.array = array
                t._cell = [0]
                self.marks[i] = t.__dict__
                del array, t
            k.owner["grad"] = held[i]
        self.point()
        return before

    def back(self, before: list[Any]) -> None:
        """Put back what ``renew`` has exchanged: the program did not run."""
        for k, grad in zip(self.kept, before, strict=False):
            k.owner["grad"] = grad

    def point(self) -> None:
        """Write the addresses into the table."""
        for k, array in zip(self.kept, self.held[len(self.kept) :], strict=True):
            if array is not None:
                self.native._point(k.var, array.ctypes.data)


class _References:
    """How many references ``sys.getrefcount`` counts for what the pool and the owner alone hold."""

    def __init__(self) -> None:
        t = object.__new__(Tensor)
        t.array = np.zeros(1)
        tensors, arrays, owner = [t], [t.array], {"grad": t}
        del t
        self.tensor = next(map(sys.getrefcount, tensors))
        self.array = next(map(sys.getrefcount, arrays))
        del owner


REFERENCES = _References()


def fetch(a: Any, part: Any, parts: Any) -> None:
    """Read the addresses of arrays' data off the arrays, and write them where the table wants them.

    ``a``: addresses of the arrays (as objects), of the table, of pairs (place, offset), and of how
    many pairs each array has; how many arrays; where in an object the address stands.
    """
    objects, table, pairs, counts = i64_at(a[0]), i64_at(a[1]), i64_at(a[2]), i64_at(a[3])  # type: ignore[name-defined]  # noqa: F821
    k = 0
    for i in range(a[4]):
        data = i64_at(objects[i] + a[5])[0]  # type: ignore[name-defined]  # noqa: F821
        for _ in range(counts[i]):
            table[pairs[2 * k]] = data + pairs[2 * k + 1]
            k += 1


def alone(a: Any, part: Any, parts: Any) -> None:
    """Run a program on this thread: (number of kernels, table, status, counter, 0, interpreter)."""
    call(a[5], a[6], 0, 1)  # type: ignore[name-defined]  # noqa: F821


FETCH = Generated("fetch", inspect.getsource(fetch))
ALONE = Generated("alone", inspect.getsource(alone))
EXTRAS += [FETCH, ALONE]


class Entry:
    """A program's table with ``fetch`` as its first line, and one C call that runs it."""

    def __init__(self, native: Any, places: list[list[tuple[int, int]]]) -> None:
        self.memory = np.zeros(max(len(places), 1), np.int64)
        self.ids = memoryview(self.memory)  # type: ignore[arg-type]
        self.pairs = np.array([p for each in places for p in each] or [(0, 0)], np.int64)
        self.counts = np.array([len(each) for each in places] or [0], np.int64)
        self.args = np.array(
            [self.memory.ctypes.data, native.table.ctypes.data, self.pairs.ctypes.data,
             self.counts.ctypes.data, len(places), _POINTER_AT], np.int64,
        )  # fmt: skip
        first = np.array([[FETCH.address(np.float32), self.args.ctypes.data, 0]], np.int64)
        self.code = np.concatenate([first, native.codes[0][: native.heads[0][0]]])
        self.program = native.heads[0].copy()
        self.program[0], self.program[1] = len(self.code), self.code.ctypes.data
        self.head = np.array(
            [0, 0, 0, 0, 0, INTERPRETER.address(np.float32), self.program.ctypes.data], np.int64
        )
        kind = (
            ctypes.PYFUNCTYPE if native.work < 1 << 18 else ctypes.CFUNCTYPE
        )  # short: keep the GIL
        self.run = kind(None, ctypes.c_void_p)(ALONE.address(np.float32))
        self.at = self.head.ctypes.data


class _Bound:
    """What has its address in the table: parameters, and gradients that were there before the step.

    The guards may have seen other memory since, on the way to another program; so this is kept here.
    """

    def __init__(self, native: Any, guards: Any) -> None:
        self.native = native
        self.guards = guards
        self.sources = [s for s in native.other_sources if s.kind == "grad"]
        self.grads: list[tuple[Any, Any, Any]] = []  # (attributes of the owner, tensor, array)
        self.arrays: list[Any] = []
        self.memories: set[int] = set()

    def bind(self) -> None:
        """Put the addresses into the table, the guards having just been found to hold."""
        self.native.bind()
        self.arrays[:] = self.guards.arrays
        self.memories |= self.guards.memories  # (another thread may be looking)
        self.memories &= self.guards.memories
        self._bind_grads()

    def _bind_grads(self) -> None:
        with self.native._lock:
            self.grads[:] = []
            for s in self.sources:
                t = s.owner.grad
                self.native._point(s.var, t.array.ctypes.data)
                self.grads.append((s.owner.__dict__, weakref.ref(t), weakref.ref(t.array)))

    def has_grads(self) -> bool:
        """Whether the gradients are in the table: most often those of the last call are there still."""
        for owner, tensor, array in self.grads:
            t = tensor()
            if (
                t is None
                or owner.get("grad") is not t
                or t.array is not array()
                or t._node is not None
            ):
                break
        else:
            return True
        if self.memories != self.guards.memories or self.guards._other_grads([]) is not None:
            return False
        self._bind_grads()
        return True


class _Streams:
    """Where generators are, to go back there if the step fails: kilograd.random's state, in short."""

    def __init__(self, generators: list[Any]) -> None:
        self.generators = generators
        self.size = 625 * 4  # the words of a twister, and its position
        self.at = [g._twister.ctypes.state_address for g in generators]

    def noted(self) -> Any:
        """Where they are."""
        words = [ctypes.string_at(at, self.size) for at in self.at]
        return words, [(g._untouched, g._spare_normal, g._spare_float) for g in self.generators]

    def back(self, noted: Any) -> None:
        """Go back to where they were."""
        for g, at, words, rest in zip(self.generators, self.at, *noted, strict=True):
            with g._lock:
                ctypes.memmove(at, words, self.size)
                g._untouched, g._spare_normal, g._spare_float = rest


def launcher(program: Any, signature: Any, Out: Any, results: Any) -> Any:
    """The quick way into a native program, or None where the general one must do.

    ``signature``: a tuple for each argument: ("tensor", shape, dtype, strides, leaf, no graph) or
    ("value", the value). ``results`` makes of outputs what is no mere wrapping of them.
    """
    native = program.runner
    guards = program.guards
    if program.backward is not None or not QUICK or guards.same or guards.writes_arguments:
        return None
    read = {id(t) for t, _ in guards.grads}
    if any(type(t) is int for t, _ in guards.grads) or any(
        id(owner) in read for owner, _ in (*program.grads, *program.other_grads)
    ):  # what is read is another tensor each time
        return None
    bound = _Bound(native, guards)
    space: dict[str, Any] = {
        "Tensor": Tensor, "MISS": MISS, "REFUSED": REFUSED, "TRACE": TRACE, "MODE": MODE,
        "mode": MODE.get(), "pointer": _pointer, "CHANGES": CHANGES, "cells": native.cells, "refs": sys.getrefcount, "new": object.__new__,
        "empty": np.empty, "ndarray": np.ndarray, "lock": native._lock, "owned": native._lock._is_owned, "native": native,
        "same": operator.is_, "guards": guards, "owner_of": owner_of, "each": map, "get": dict.get,
        "grad": itertools.repeat("grad"), "array_of": operator.attrgetter("array"),
        "program": program, "arrays": bound.arrays, "memories": bound.memories,
    }  # fmt: skip
    names = [f"x{i}" for i in range(len(signature))]
    lines = [f"def launch({', '.join(names)}):"]

    def line(text: str, depth: int = 1) -> None:
        lines.append("    " * depth + text)

    line("m = MODE.get()")
    line("if m is not mode and m != mode or TRACE.get() is not None: return MISS")
    line("if CHANGES[0] != guards.changes: return MISS")
    arrays = {}
    place = 0
    for i, what in enumerate(signature):
        if what[0] == "value":
            space[f"k{i}"] = what[1]
            line(
                f"if x{i} is not k{i} and (type(x{i}) is not type(k{i}) or x{i} != k{i}"
                f"{f' or str(x{i}) != str(k{i})' if what[1] == 0 else ''}): return MISS"
            )
            continue
        _, shape, dtype, strides, leaf, no_graph = what
        space.update({f"shape{i}": shape, f"dtype{i}": dtype, f"strides{i}": strides})
        line(f"if type(x{i}) is not Tensor: return MISS")
        line(f"a{i} = x{i}.array")
        line(
            f"if a{i}.shape != shape{i} or a{i}.dtype is not dtype{i} or a{i}.strides != strides{i} "
            f"or x{i}._leaf is not {leaf} or (x{i}._node is None) is not {no_graph}: return MISS"
        )
        line(f"b = a{i}.base")
        line(f"if b is None: b = a{i}")
        line(f"elif type(b) is not ndarray or b.base is not None: b = owner_of(a{i})")
        line("if id(b) in memories: return MISS")
        arrays[place] = f"a{i}"
        place += 1
    for a, b in itertools.combinations(arrays.values(), 2):  # one array twice is another program
        line(f"if {a} is {b}: return MISS")
    own: dict[int, str] = {}

    def attributes(owner: Any) -> str:
        """The name of a tensor's attributes: of an argument, or one that was there before."""
        if type(owner) is int:
            return f"x{_argument(signature, owner)}.__dict__"
        name = own.setdefault(id(owner), f"own{len(own)}")
        space[name] = owner.__dict__
        return name

    def wrapped(index: int, depth: int) -> str:
        """The name of a new tensor around an output."""
        line(f"t{index} = new(Tensor)", depth)
        line(f"t{index}.array = o{index}", depth)
        line(f"t{index}._cell = [0]", depth)
        return f"t{index}"

    _guard_lines(guards, space, line, attributes)
    line("if owned(): return REFUSED")  # in a signal's handler, while the program runs
    if guards.grads:
        space["has_grads"] = bound.has_grads
        line("if not has_grads(): return MISS")
    line("with lock:")
    quick = not (
        native.python_steps
        or native.parallel
        or native.fallible
        or native.generators
        or native.blas
    )
    fetched: list[tuple[str, list[tuple[int, int]]]] = []  # what the table gets the addresses of
    given = [s for s in native.other_sources if s.kind == "argument"]
    for s in given if not quick else ():
        patches = native.patches.get(s.var, ())
        if patches:
            line(f"at = pointer(id({arrays[s.key]}) + {_POINTER_AT}).value", 2)
        for cell, offset in patches:
            line(f"cells[{cell}] = at{f' + {offset}' if offset else ''}", 2)
        if native.python_steps:
            space[f"var_{s.var}"] = s.var
            line(f"native.now[var_{s.var}] = pointer(id({arrays[s.key]}) + {_POINTER_AT}).value", 2)
    if quick:
        fetched += [(arrays[s.key], native.patches.get(s.var, [])) for s in given]
    for k, s in enumerate(native.setting_sources):
        if s.var not in native.numbers:
            continue
        number = native.numbers[s.var]
        space[f"number{k}"], space[f"group{k}"] = number, s.owner
        part = "" if s.key[1] is None else f"[{s.key[1]}]"
        line(f"number{k}.value = group{k}[{s.key[0]!r}]{part}", 2)
    grads = {index: owner for owner, index in program.grads if index is not None}
    keeps: list[Kept] = []
    kept: set[int] = set()  # which outputs: none that the result may be a view of
    for index, v in enumerate(native.graph.outputs):
        places = native.patches.get(v, [])
        if index in grads and type(grads[index]) is not int and program.simple:
            keeps.append(Kept(v, grads[index].__dict__))
            kept.add(index)
            continue
        lay = native.layouts[v]
        space.update({f"size{index}": lay.shape, f"kind{index}": lay.dtype, f"out{index}": v})
        new = f"empty(size{index}, kind{index})" if lay.contiguous else f"native._new(out{index})"
        line(f"o{index} = {new}", 2)
        if quick:
            fetched.append((f"o{index}", places))
            continue
        line(f"at = pointer(id(o{index}) + {_POINTER_AT}).value", 2)
        for cell, offset in places:
            line(f"cells[{cell}] = at{f' + {offset}' if offset else ''}", 2)
        if native.python_steps:
            space[f"var_{v}"] = v
            line(f"native.now[var_{v}] = at", 2)
    if keeps:
        pool = _Pool(native, keeps)
        counts = [REFERENCES.tensor] * len(keeps) + [REFERENCES.array] * len(keeps)
        space.update(marks=pool.marks, twos=[2] * len(keeps), length=len)
        space.update(pool=pool, held=pool.held, counts=counts)
        space.update(owners=[k.owner for k in keeps])
        line("before = ()", 2)
        line(
            "if not all(each(same, each(get, owners, grad), held)) or [*each(refs, held)] != counts or [*each(length, marks)] != twos:",
            2,
        )
        line("before = pool.renew()", 3)
    if quick:
        entry = Entry(native, [places for _, places in fetched])
        space.update(ids=entry.ids, run=entry.run, entry=entry)
        for k, (name, _) in enumerate(fetched):
            line(f"ids[{k}] = id({name})", 2)
        line(f"run({entry.head.ctypes.data})", 2)
    else:
        space["go"] = native.go
        draws = native.fallible and program.generators
        if draws:
            space["streams"] = _Streams(program.generators)
            line("noted = streams.noted()", 2)
        line("try: go()" if native.fallible else "go()", 2)
        if native.fallible:
            space["is_from_signal"] = is_from_signal
            line("except Exception as e:", 2)
            if draws:
                line("streams.back(noted)", 3)
            if keeps:
                line("pool.back(before)", 3)
            line("if is_from_signal(e): raise", 3)
            line("return REFUSED", 3)
    line("program.runs += 1", 2)
    for k, (counter, times) in enumerate(program.cells):
        space[f"cell{k}"] = counter
        line(f"cell{k}[0] += {times}", 2)
    for owner, times in program.grad_cells:
        line(f"{attributes(owner)}['grad']._cell[0] += {times}", 2)
    for place, times in program.argument_cells:
        line(f"x{_argument(signature, place)}._cell[0] += {times}", 2)
    for owner, index in program.grads:
        if index is None:
            line(f"{attributes(owner)}['grad'] = None", 2)
        elif index not in kept:
            line(f"{attributes(owner)}['grad'] = {wrapped(index, 2)}", 2)
    if program.simple:
        line(f"return {_result_lines(program, Out, space, line, wrapped)}")
    else:
        tensors = [f"x{i}" for i, what in enumerate(signature) if what[0] == "tensor"]
        outputs = [f"o{index}" for index in range(len(native.graph.outputs))]
        space["results"] = results
        line(f"return results(program, [{', '.join(outputs)}], [{', '.join(tensors)}])")
    text = "\n".join(lines)
    exec(compile(text, "<kilograd launcher>", "exec"), space)
    made = space["launch"]
    made.text, made.arity, made.program, made.bind = text, len(names), program, bound.bind
    return made


def _result_lines(program: Any, Out: Any, space: dict[str, Any], line: Any, wrapped: Any) -> str:
    """Lines that build the result, its parts first; the name of what they build."""
    made: dict[int, str] = {}  # output → the name of its tensor: in two places it is one tensor

    def tensor(out: Any) -> str:
        name = made[out.index] = wrapped(out.index, 1)
        if out.dead:
            space["dead"] = program.dead
            line(f"{name}._node = dead")
        if out.leaf:
            line(f"{name}._leaf = True")
        if out.inference:
            line(f"{name}._inference = True")
        return name

    def built(part: Any) -> str:
        kind, name = type(part), f"part{next(count)}"
        if kind is Out:
            return made.get(part.index) or tensor(part)
        if kind is dict:
            space.update({f"{name}_{k}": key for k, key in enumerate(part)})
            items = [f"{name}_{k}: {built(p)}, " for k, p in enumerate(part.values())]
            text = f"{{{''.join(items)}}}"
        elif kind in (tuple, list):
            items = [f"{built(p)}, " for p in part]
            text = f"({''.join(items)})" if kind is tuple else f"[{''.join(items)}]"
        elif kind is slice or (isinstance(part, tuple) and hasattr(part, "_fields")):
            parts = part if kind is not slice else (part.start, part.stop, part.step)
            space[f"{name}_kind"] = kind
            text = f"{name}_kind({', '.join(map(built, parts))})"
        else:
            space[name] = part
            return name
        line(f"{name} = {text}")
        return name

    count = itertools.count()
    return built(program.template)


def _argument(signature: Any, number: int) -> int:
    """Which argument the tensor of a number is."""
    return [i for i, w in enumerate(signature) if w[0] == "tensor"][number]


def _guard_lines(guards: Any, space: dict[str, Any], line: Any, attributes: Any) -> None:
    """The guards as comparisons of identity; where one fails, the caller looks closer."""
    space.update(differs=_differs, missing=_MISSING)
    if guards.tensors:  # whether each still has the memory whose address is in the table
        space["known"] = guards.tensors
        line("if not all(each(same, each(array_of, known), arrays)): return MISS")
    if guards.names is not None:
        for k, (cell, value, inside) in enumerate(guards.names.cells):
            space[f"cell_{k}"], space[f"content_{k}"], space[f"inside_{k}"] = cell, value, inside
            if inside is None:
                line(f"if cell_{k}.cell_contents is not content_{k}: return MISS")
            else:
                line(f"if differs(cell_{k}.cell_contents, content_{k}, inside_{k}): return MISS")
        for k, (place, name, value, inside) in enumerate(guards.names.places):
            space[f"space_{k}"], space[f"global_{k}"], space[f"held_{k}"] = place, value, inside
            now = f"space_{k}.get({name!r}, missing)"
            if inside is None:
                line(f"if {now} is not global_{k}: return MISS")
            else:
                line(f"if differs({now}, global_{k}, held_{k}): return MISS")
    for k, (group, (name, place), value) in enumerate(guards.settings):
        space[f"set_{k}"], space[f"value_{k}"] = group, value
        index = "" if place is None else f"[{place}]"
        line(f"if set_{k}[{name!r}]{index} != value_{k}: return MISS")
    for k, (group, names, _) in enumerate(guards.groups):
        space[f"group_{k}"] = group
        for j, name in enumerate(names):
            space[f"plain_{k}_{j}"] = group[name]
            line(f"if group_{k}[{name!r}] is not plain_{k}_{j}: return MISS")
    for t in guards.no_grad_at_start:
        line(f"if {attributes(t)}.get('grad') is not None: return MISS")
    for t in guards.grad_at_start:
        line(f"if {attributes(t)}.get('grad') is None: return MISS")
    for k, (optimizer, state) in enumerate(guards.optimizers):
        space[f"optimizer_{k}"] = optimizer
        line(f"if len(optimizer_{k}.state) != {len(state[1])}: return MISS")
        line(f"if len(optimizer_{k}.param_groups) != {len(optimizer.param_groups)}: return MISS")
        for j, group in enumerate(optimizer.param_groups):
            space[f"group_{k}_{j}"] = group
            line(f"if optimizer_{k}.param_groups[{j}] is not group_{k}_{j}: return MISS")
            line(f"if len(group_{k}_{j}['params']) != {len(group['params'])}: return MISS")
        if held := holds(optimizer):
            space.update({f"state_{k}": held, "holds": holds})
            line(f"if not all(map(same, holds(optimizer_{k}), state_{k})): return MISS")
