"""The quick way into a native program: everything that must be checked and set, and no more.

For each program a Python function is written that compares the arguments and the guards with what the
program was made for, puts addresses and numbers into the table, calls it, and wraps the results. A
tiny network's step costs microseconds, so this function names every object directly.
It answers ``MISS`` where anything is not as it was: the caller then looks closer.
"""

from __future__ import annotations

import ctypes
import inspect
import itertools
import operator
import sys
from typing import Any

import numpy as np

from kilograd.autograd.modes import MODE
from kilograd.compile.guards import _MISSING, _differs, holds, owner_of
from kilograd.compile.native_executor import EXTRAS
from kilograd.compile.scalar import F64
from kilograd.kernels.kernel import CHANGES, TRACE
from kilograd.kernels.native.build import INTERPRETER, Generated
from kilograd.tensor import Tensor

MISS = object()
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

    def __init__(self, var: Any, dtype: Any, owner: dict[str, Any]) -> None:
        self.var = var
        self.dtype = dtype
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

    def renew(self) -> None:
        """Put every gradient in its place again, those that somebody else holds in new memory."""
        held, n = self.held, len(self.kept)
        for i, k in enumerate(self.kept):
            in_place = held[i] is not None and k.owner.get("grad") is held[i]
            if (
                held[i] is None
                or len(self.marks[i]) != 2
                or sys.getrefcount(held[i]) != REFERENCES.tensor - (not in_place)
                or sys.getrefcount(held[n + i]) != REFERENCES.array
            ):
                array = held[n + i] = np.empty(k.var.shape, k.dtype)
                t = held[i] = object.__new__(Tensor)
                t.array = array
                t._cell = [0]
                self.marks[i] = t.__dict__
                del array, t
            k.owner["grad"] = held[i]
        self.point()

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


def launcher(program: Any, template: Any, signature: Any, Out: Any) -> Any:
    """The quick way into a native program, or None where the general one must do.

    ``signature``: a tuple for each argument: ("tensor", shape, dtype, strides, leaf, no graph) or
    ("value", the value).
    """
    native = program.runner
    guards = program.guards
    if program.backward is not None or (native.fallible and program.generators):
        return None
    if any(s.kind == "grad" for s in program.sources) or not QUICK:
        return None
    if guards.grads or guards.grad_at_start or guards.same or guards.writes_arguments:
        return None
    if any(type(t) is int for t in guards.no_grad_at_start):
        return None
    single = type(template) is Out and not (template.leaf or template.grad)
    if not single and template is not None:
        return None
    space: dict[str, Any] = {
        "Tensor": Tensor, "MISS": MISS, "TRACE": TRACE, "MODE": MODE, "mode": MODE.get(), "pointer": _pointer,
        "CHANGES": CHANGES, "cells": native.cells, "refs": sys.getrefcount, "new": object.__new__,
        "empty": np.empty, "ndarray": np.ndarray, "lock": native._lock, "native": native,
        "same": operator.is_, "guards": guards, "owner_of": owner_of,
    }  # fmt: skip
    names = [f"x{i}" for i in range(len(signature))]
    lines = [f"def launch({', '.join(names)}):"]

    def line(text: str, depth: int = 1) -> None:
        lines.append("    " * depth + text)

    line("m = MODE.get()")
    line(
        "if m is not mode and m != mode or TRACE.get() is not None or CHANGES[0] != guards.changes:"
    )
    line("return MISS", 2)
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
        line("if id(b) in guards.memories: return MISS")
        arrays[place] = f"a{i}"
        place += 1
    for a, b in itertools.combinations(arrays.values(), 2):  # one array twice is another program
        line(f"if {a} is {b}: return MISS")
    _guard_lines(guards, space, line)
    line("with lock:")
    quick = not (
        native.python_steps
        or native.parallel
        or native.fallible
        or native.generators
        or native.blas
    )
    fetched: list[tuple[str, list[tuple[int, int]]]] = []  # what the table gets the addresses of
    for s in native.other_sources if not quick else ():
        patches = native.patches.get(s.var, ())
        if patches:
            line(f"at = pointer(id({arrays[s.key]}) + {_POINTER_AT}).value", 2)
        for cell, offset in patches:
            line(f"cells[{cell}] = at{f' + {offset}' if offset else ''}", 2)
        if native.python_steps:
            space[f"var_{s.var}"] = s.var
            line(f"native.now[var_{s.var}] = pointer(id({arrays[s.key]}) + {_POINTER_AT}).value", 2)
    if quick:
        fetched += [(arrays[s.key], native.patches.get(s.var, [])) for s in native.other_sources]
    for k, s in enumerate(native.setting_sources):
        if s.var not in native.numbers:
            continue
        number = native.numbers[s.var]
        space[f"number{k}"], space[f"group{k}"] = number, s.owner
        part = "" if s.key[1] is None else f"[{s.key[1]}]"
        line(f"number{k}.value = group{k}[{s.key[0]!r}]{part}", 2)
    grads = {index: owner for owner, index in program.grads if index is not None}
    keeps: list[tuple[int, Kept]] = []
    for index, v in enumerate(native.graph.outputs):
        dtype = F64 if v.number else v.dtype
        places = native.patches.get(v, [])
        if index in grads and type(grads[index]) is not int:
            keeps.append((index, Kept(v, dtype, grads[index].__dict__)))
            continue
        if not native.layouts[v].contiguous:
            return None
        space.update({f"size{index}": v.shape, f"kind{index}": dtype})
        line(f"o{index} = empty(size{index}, kind{index})", 2)
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
        pool = _Pool(native, [kept for _, kept in keeps])
        counts = [REFERENCES.tensor] * len(keeps) + [REFERENCES.array] * len(keeps)
        space.update(marks=pool.marks, twos=[2] * len(keeps), length=len)
        space.update(pool=pool, held=pool.held, counts=counts, each=map, get=dict.get)
        space.update(owners=[kept.owner for _, kept in keeps], grad=itertools.repeat("grad"))
        line(
            "if not all(each(same, each(get, owners, grad), held)) or [*each(refs, held)] != counts or [*each(length, marks)] != twos:",
            2,
        )
        line("pool.renew()", 3)
    if quick:
        entry = Entry(native, [places for _, places in fetched])
        space.update(ids=entry.ids, run=entry.run, entry=entry)
        for k, (name, _) in enumerate(fetched):
            line(f"ids[{k}] = id({name})", 2)
        line(f"run({entry.head.ctypes.data})", 2)
    else:
        space["go"] = native.go
        line("go()", 2)
    for k, (counter, times) in enumerate(program.cells):
        space[f"cell{k}"] = counter
        line(f"cell{k}[0] += {times}", 2)
    for k, (owner, index) in enumerate(program.grads):
        if index is not None and type(owner) is not int:
            continue
        target = f"x{_argument(signature, owner)}.__dict__" if type(owner) is int else f"none{k}"
        if type(owner) is not int:
            space[f"none{k}"] = owner.__dict__
        if index is None:
            line(f"{target}['grad'] = None", 2)
        else:
            line(f"t = new(Tensor); t.array = o{index}; t._cell = [0]; {target}['grad'] = t", 2)
    if single:
        line("t = new(Tensor)")
        line(f"t.array = o{template.index}")
        line("t._cell = [0]")
        if template.dead:
            space["dead"] = program.dead
            line("t._node = dead")
        if template.inference:
            line("t._inference = True")
        line("return t")
    else:
        line("return None")
    text = "\n".join(lines)
    exec(compile(text, "<kilograd launcher>", "exec"), space)
    made = space["launch"]
    made.text, made.arity = text, len(names)
    return made


def _argument(signature: Any, number: int) -> int:
    """Which argument the tensor of a number is."""
    return [i for i, w in enumerate(signature) if w[0] == "tensor"][number]


def _guard_lines(guards: Any, space: dict[str, Any], line: Any) -> None:
    """The guards as comparisons of identity; where one fails, the caller looks closer."""
    space.update(differs=_differs, missing=_MISSING)
    if guards.tensors:  # whether each still has the memory whose address is in the table
        space.update(each=map, same=operator.is_, array_of=operator.attrgetter("array"))
        space["known"] = guards.tensors
        line("if not all(each(same, each(array_of, known), guards.arrays)): return MISS")
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
    for k, t in enumerate(guards.no_grad_at_start):
        space[f"bare_{k}"] = t.__dict__
        line(f"if bare_{k}.get('grad') is not None: return MISS")
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
