"""A fused loop as the source of a native kernel.

The index space is collapsed to as few dimensions as the strides of all operands allow; sizes and
strides stay arguments, so that one kernel serves every size. What is fixed in the source is the
number of dimensions and how each operand walks along the innermost one: by one, not at all, or by a
step. Sums are collected in a register along the innermost dimension and added to memory outside. Where
several threads share a loop, sums over what they share are collected in a slot for each thread first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kilograd.compile.fusion import Step, Sum
from kilograd.compile.graph import Equation, Var, name_of
from kilograd.compile.scalar import (
    BOOL,
    CODES,
    F32,
    F64,
    I64,
    LOADS,
    converted,
    expression,
    kind_of,
    literal,
)
from kilograd.kernels.native.build import Generated
from kilograd.kernels.vecmath import NEAR

_IN_TEXT = (-1.0, 0.0, 0.5, 1.0, 2.0)
BLOCK = 512  # elements whose arguments are looked at together
ROW = 4096  # a long sum is added up by rows of this many


class Operand(NamedTuple):
    """An array a loop reads or writes: its dtype and strides (elements) over the index space."""

    var: Var
    dtype: np.dtype
    strides: tuple[int, ...]
    role: str  # "load", "store", "sum"
    where: Any = None  # its place in memory: what is written where it was read has one pointer


class Partial(NamedTuple):
    """A sum of which each thread gives a part: where they lie, and what makes one of them."""

    slots: Var  # (threads, count)
    out: Var
    divisor: float


class Loop(NamedTuple):
    """A kernel, and what its arguments are: numbers, or (operand, "address")."""

    kernel: Generated
    dtype: np.dtype
    args: list[Any]
    divides: bool
    partial: list[Partial]


def collapsed(
    shape: tuple[int, ...], strides: list[tuple[int, ...]]
) -> tuple[list[int], list[list[int]]]:
    """A shape with neighbouring dimensions made one where every operand allows it."""
    dims = [d for d, n in enumerate(shape) if n != 1]
    sizes: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for d in dims:
        if sizes and all(s[-1] == st[d] * shape[d] for s, st in zip(steps, strides, strict=True)):
            sizes[-1] *= shape[d]
            for s, st in zip(steps, strides, strict=True):
                s[-1] = st[d]
        else:
            sizes.append(shape[d])
            for s, st in zip(steps, strides, strict=True):
                s.append(st[d])
    return sizes, steps


def write(
    step: Step, operands: list[Operand], scalars: list[tuple[Var, np.dtype]], threads: int = 1
) -> Loop:
    """The kernel of a fused loop.

    ``operands`` are arrays over the index space; ``scalars`` are 0-d values it reads; ``threads``: so
    many may share its sums.
    """
    sizes, strides = collapsed(step.shape, [o.strides for o in operands])
    if not sizes:
        sizes, strides = [1], [[0] for _ in operands]
    return _Writer(step, operands, scalars, sizes, strides, threads).loop()


class _Writer:
    def __init__(
        self, step: Step, operands: Any, scalars: Any, sizes: Any, strides: Any, threads: int
    ) -> None:
        self.step = step
        self.operands = operands
        self.scalars = scalars
        self.sizes = sizes
        self.strides = strides
        self.args: list[Any] = []
        self.lines: list[str] = []
        self.prelude: list[str] = []  # constants
        self.constants: dict[Any, str] = {}
        self.names: dict[Var, tuple[str, np.dtype]] = {}
        self.threads = threads
        self.partial: list[Partial] = []

    def argument(self, value: Any) -> str:
        self.args.append(value)
        return f"a[{len(self.args) - 1}]"

    def number(self, x: Any, dtype: np.dtype) -> str:
        """A constant: the commonest in the text, others (they may depend on sizes) as arguments."""
        if dtype not in (F32, F64) or float(x) in _IN_TEXT or not np.isfinite(float(x)):
            return literal(x, dtype)
        key = (float(x), dtype)
        if key not in self.constants:
            self.constants[key] = name = f"c{len(self.constants)}"
            read = self.argument(float(x))
            self.prelude.append(f"    {name} = {CODES[dtype]}(f64_bits({read}))")
        return self.constants[key]

    def line(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def loop(self) -> Loop:
        rank = len(self.sizes)
        inner = rank - 1
        sums = [(o, s) for o, s in zip(self.operands, self.strides, strict=True) if o.role == "sum"]
        totals = {id(o) for o, s in sums if not any(s)}
        in_rows = {id(o) for o, s in sums if s[inner] == 0 and any(s) and all(s[:inner])}
        divides = all(id(o) in in_rows for o, _ in sums)
        self.shared = not divides and self._worth_sharing(sums, in_rows)
        divides = divides or self.shared
        for d, n in enumerate(self.sizes):
            self.line(1, f"n{d} = {self.argument(n)}")
        names: dict[int, str] = {}
        read: dict[Any, str] = {}  # place in memory → pointer; two pointers to one place would
        for k, (o, s) in enumerate(zip(self.operands, self.strides, strict=True)):  # stop LLVM
            if o.role == "store" and o.where in read:
                names[id(o)] = read[o.where]
                continue
            name = names[id(o)] = f"{ {'load': 'x', 'store': 'y', 'sum': 'z'}[o.role] }{k}"
            if self.shared and o.role == "sum" and id(o) not in in_rows:
                self._slots(o, name, id(o) in totals, s)
                continue
            self.line(1, f"{name} = {LOADS[o.dtype]}_at({self.argument((o.var, 'address'))})")
            if o.role == "load" and o.where is not None:
                read[o.where] = name
            for d in range(rank):
                if s[d] != 0 and not (d == inner and s[d] in (1, -1)):
                    self.line(1, f"{name}_{d} = {self.argument(s[d])}")
        for k, (v, dtype) in enumerate(self.scalars):
            code = LOADS[dtype]
            self.names[v] = (f"s{k}", _computed(dtype))
            text = f"{code}_at({self.argument((v, 'address'))})[0]"
            self.line(1, f"s{k} = {converted_load(text, dtype)}")
        for o, s in sums:
            z = names[id(o)]
            if id(o) in totals:
                self.line(1, f"{z}_total = f64(0)")
            elif id(o) not in in_rows and not self.shared:
                self.line(1, f"{z}_count = {self.argument(self._count(s))}")
                self.line(1, f"for j in range({z}_count):")
                self.line(2, f"{z}[j] = {CODES[o.dtype]}(0)")
        starts = {id(o): f"{names[id(o)]}_slot" for o, s in sums if self.shared and any(s)
                  and id(o) not in in_rows}  # fmt: skip
        self._nest(0, starts, names, sums, totals, in_rows, divides)
        for o, _ in sums:
            z, total = names[id(o)], self._sum(o)
            if self.shared and id(o) not in in_rows:
                if id(o) in totals:
                    self.line(1, "if part < slots:")
                    self.line(2, f"{z}[part * 8] = {z}_total")
                continue
            scale = f" * {self.number(1.0 / total.divisor, o.dtype)}" if total.divisor != 1 else ""
            if id(o) in totals:
                scale = f" / {self.number(total.divisor, F64)}" if total.divisor != 1 else ""
                self.line(1, f"{z}[0] = {CODES[o.dtype]}({z}_total{scale})")
            elif scale and id(o) not in in_rows:
                self.line(1, f"for j in range({z}_count):")
                self.line(2, f"{z}[j] = {z}[j]{scale}")
        words = [name_of(eq.fn) for eq in self.step.equations]
        name = "_".join(w for w in dict.fromkeys(words) if w.isidentifier())[:48].strip("_")
        name = f"loop_{name}".rstrip("_")
        text = f"def {name}(a, part, parts):\n" + "\n".join(self.prelude + self.lines) + "\n"
        return Loop(Generated(name, text), self._dtype(), self.args, divides, self.partial)

    def _count(self, strides: list[int]) -> int:
        """How many sums an operand of the role "sum" has."""
        return int(np.prod([n for n, s in zip(self.sizes, strides, strict=True) if s]))

    def _worth_sharing(self, sums: Any, in_rows: Any) -> bool:
        """Whether threads gain by summing into slots of their own that are then added up."""
        count = sum(self._count(s) for o, s in sums if id(o) not in in_rows and any(s))
        whole = int(np.prod(self.sizes))
        first = self.sizes[0] if len(self.sizes) > 1 else whole // ROW
        return self.threads > 1 and first >= 4 * self.threads and 16 * count * self.threads <= whole

    def _slots(self, o: Operand, name: str, total: bool, strides: list[int]) -> None:
        """Each thread sums into a place of its own; those of threads that are not there are zero."""
        count = 8 if total else self._count(strides)  # 8: threads do not write to one cache line
        dtype = F64 if total else o.dtype
        var = Var(f"{o.var.name}_parts", (self.threads, count), dtype)
        self.partial.append(Partial(var, o.var, float(self._sum(o).divisor)))
        if len(self.partial) == 1:
            self.line(1, f"slots = {self.argument(self.threads)}")
            self.line(1, "used = min(parts, slots)")
        self.line(1, f"{name} = {CODES[dtype]}_at({self.argument((var, 'address'))})")
        self.line(1, f"{name}_count = {self.argument(count)}")
        self.line(1, f"{name}_slot = part * {name}_count")
        self.line(1, "for q in range(part, slots, parts):")
        self.line(2, f"for j in range(q * {name}_count, (q + 1) * {name}_count):")
        self.line(3, f"{name}[j] = {CODES[dtype]}(0)")
        rank = len(self.sizes)
        for d in range(rank):
            if strides[d] != 0 and not (d == rank - 1 and strides[d] == 1):
                self.line(1, f"{name}_{d} = {self.argument(strides[d])}")

    def _share(self, depth: int, n: str) -> None:
        """This thread's part of a loop, as lo and hi."""
        if self.shared:  # there may be more threads now than there are slots
            self.line(depth, f"lo, hi = share({n}, min(part, used), used)")
            self.line(depth, f"hi = min(hi, {n})")
        else:
            self.line(depth, f"lo, hi = share({n}, part, parts)")

    def _dtype(self) -> np.dtype:
        """Which versions of exp, tanh … the loop calls."""
        from kilograd.compile.fusion import _math_dtype

        kinds = [k for eq in self.step.equations if (k := _math_dtype(eq)) is not None]
        return kinds[0] if kinds else F32

    def _sum(self, o: Operand) -> Sum:
        return self.step.sums[o.var]

    def _nest(self, d: int, offsets: dict[int, str], names: Any, sums: Any, totals: Any,
              in_rows: Any, divides: bool) -> None:  # fmt: skip
        rank = len(self.sizes)
        inner = rank - 1
        depth = d + 1
        index = f"i{d}"
        if d == inner:
            return self._innermost(d, depth, offsets, names, sums, totals, in_rows, divides)
        if d == 0 and divides:
            self._share(depth, "n0")
            self.line(depth, "for i0 in range(lo, hi):")
        else:
            self.line(depth, f"for {index} in range(n{d}):")
        offsets = dict(offsets)
        done = set()
        for o, s in zip(self.operands, self.strides, strict=True):
            if s[d] and names[id(o)] in done:
                offsets[id(o)] = f"{names[id(o)]}_at{d}"
            elif s[d]:
                name = names[id(o)]
                done.add(name)
                before = offsets.get(id(o))
                text = f"{index} * {name}_{d}"
                offsets[id(o)] = f"{name}_at{d}"
                self.line(depth + 1, f"{name}_at{d} = {before + ' + ' if before else ''}{text}")
        self._nest(d + 1, offsets, names, sums, totals, in_rows, divides)

    def _innermost(self, d: int, depth: int, offsets: dict[int, str], names: Any, sums: Any,
                   totals: Any, in_rows: Any, divides: bool) -> None:  # fmt: skip
        index = f"i{d}"
        known = dict(self.names)
        walking = []
        for o, s in zip(self.operands, self.strides, strict=True):
            if o.role != "load":
                continue
            if s[d] == 0:  # the same for the whole row
                name = names[id(o)]
                self.line(
                    depth,
                    f"{name}_row = {converted_load(f'{name}[{offsets.get(id(o), 0)}]', o.dtype)}",
                )
                known[o.var] = (f"{name}_row", _computed(o.dtype))
            else:
                walking.append((o, s))
        single = d == 0
        rows = single and totals
        if rows:  # one long sum: by rows
            if self.shared:
                self.line(depth, f"rows = (n0 + {ROW - 1}) // {ROW}")
                self._share(depth, "rows")
                self.line(depth, f"for start in range(lo * {ROW}, min(hi * {ROW}, n0), {ROW}):")
            else:
                self.line(depth, f"for start in range(0, n0, {ROW}):")
            depth += 1
            self.line(depth, f"stop = min(start + {ROW}, n0)")
        for o, s in sums:
            if s[d] == 0:
                self.line(depth, f"{names[id(o)]}_sum = {CODES[o.dtype]}(0)")
        places = f"n{d}"
        if rows:
            places = "start, stop"
        elif single and divides:
            self._share(depth, "n0")
            places = "lo, hi"

        def at(o: Operand, s: list[int]) -> str:
            name = names[id(o)]
            before = offsets.get(id(o), "")
            if s[d] == 0:
                return before or "0"
            if s[d] == -1:  # said in the text, it is done in vectors
                return f"{before} - {index}"
            here = index if s[d] == 1 else f"{index} * {name}_{d}"
            return f"{before} + {here}" if before else here

        def element(depth: int, how: str = "any") -> None:
            self._element(depth, how, d, at, dict(known), walking, names)

        if not any(map(_has_near_form, self.step.equations)):
            self.line(depth, f"for {index} in range({places}):")
            element(depth + 1)
        else:  # by blocks that take the cheaper form if they may
            self.line(
                depth,
                f"for block in range({places if ',' in places else '0, ' + places}, {BLOCK}):",
            )
            self.line(depth + 1, f"end = min(block + {BLOCK}, {places.split(', ')[-1]})")
            self.line(depth + 1, "far = False")
            self.line(depth + 1, f"for {index} in range(block, end):")
            element(depth + 2, "look")
            for how, head in (("any", "if far:"), ("near", "else:")):
                self.line(depth + 1, head)
                self.line(depth + 2, f"for {index} in range(block, end):")
                element(depth + 3, how)
        for o, s in sums:
            name, total = names[id(o)], self._sum(o)
            if s[d] != 0:
                continue
            if id(o) in totals:
                self.line(depth, f"{name}_total += f64({name}_sum)")
            elif id(o) in in_rows:
                scale = (
                    f" * {self.number(1.0 / total.divisor, o.dtype)}" if total.divisor != 1 else ""
                )
                self.line(depth, f"{name}[{offsets.get(id(o), '0')}] = {name}_sum{scale}")
            else:
                self.line(depth, f"{name}[{offsets.get(id(o), '0')}] += {name}_sum")

    def _element(
        self, depth: int, how: str, d: int, at: Any, known: Any, walking: Any, names: Any
    ) -> None:
        """What is done for each element.

        ``how``: with any arguments of functions, with "near" ones, or a "look" whether they are.
        """
        for o, s in walking:
            name = names[id(o)]
            known[o.var] = (f"v_{name}", _computed(o.dtype))
            self.line(depth, f"v_{name} = {converted_load(f'{name}[{at(o, s)}]', o.dtype)}")
        t = 0
        for eq in self.step.equations:
            v = eq.outs[0]
            if v in self.step.sums:
                continue
            text = expression(eq, known, self.number)
            if how != "any" and _has_near_form(eq):
                name, argument = text[:-1].split("(", 1)
                text = f"{name}_near({argument})"
                if how == "look":
                    self.line(depth, f"far |= not (abs({argument}) < f32({NEAR}))")
            self.line(depth, f"t{t} = {text}")
            known[v] = (f"t{t}", _computed(kind_of(v)))
            t += 1
        if how == "look":
            return
        for o, s in zip(self.operands, self.strides, strict=True):
            name = names[id(o)]
            if o.role == "store":
                text, kind = known[o.var]
                value = converted(text, kind, _computed(o.dtype))
                if o.dtype == BOOL:
                    value = f"1 if {text} else 0"
                self.line(depth, f"{name}[{at(o, s)}] = {value}")
            elif o.role == "sum":
                text, _ = known[self._sum(o).of]
                if s[d] == 0:
                    self.line(depth, f"{name}_sum = plus({name}_sum, {text})")
                else:
                    self.line(depth, f"{name}[{at(o, s)}] += {text}")


def _has_near_form(eq: Equation) -> bool:
    """Whether an equation is cheaper where its argument is small."""
    return eq.fn in (np.sin, np.cos) and kind_of(eq.outs[0]) == F32


def _computed(dtype: np.dtype) -> np.dtype:
    """In which dtype a loaded element is computed with."""
    return dtype if dtype in CODES else I64


def converted_load(text: str, dtype: np.dtype) -> str:
    """An element as it is read from memory, in the dtype it is computed with."""
    if dtype == BOOL:
        return f"{text} != 0"
    return text if dtype in CODES else f"i64({text})"
