"""Kernels with vectors that stay in registers, which loops written in Python cannot ask for.

A module writes functions of LLVM's vector instructions (with :class:`Body`, as Numba intrinsics) in
a function ``vector_functions``; its kernels declared by :func:`vector` then call them by name. It is
called when the first of them is compiled, for only then is Numba loaded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd.kernels.native.build import FLAGS, SUMS, Kernel, _text


class VectorKernel(Kernel):
    """A kernel that uses what its module's ``vector_functions()`` returns, by name."""

    def build(self, dtype: np.dtype) -> tuple[str, bytes, Any]:
        names = self.fn.__globals__
        names.update(names["vector_functions"]())
        return super().build(dtype)

    def source(self) -> str:
        """Also this file, in which instructions are made."""
        return super().source() + _text(__file__)


def vector(signature: str, *, sums: bool = False) -> Callable[[Callable[..., Any]], VectorKernel]:
    """Declare a native kernel that uses vector functions."""
    return lambda fn: VectorKernel(fn, signature, SUMS if sums else FLAGS)


@functools.lru_cache(maxsize=1)
def machine() -> tuple[int, bool]:
    """Bytes of a vector register here, and whether there are 32 of them."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, True
    if features.get("avx"):
        return 32, False
    return 16, bool(features.get("neon"))


class Body:
    """Builds code: a loop's counter and sums as phis, loads and stores of vectors of one element type."""

    def __init__(self, builder: Any, pointer: Any) -> None:
        from llvmlite import ir
        from numba import types as nt

        self.b, self.ir = builder, ir
        self.size = 4 if pointer.dtype == nt.float32 else 8
        self.lanes = machine()[0] // self.size
        self.element = ir.FloatType() if self.size == 4 else ir.DoubleType()
        self.vector = ir.VectorType(self.element, self.lanes)
        self.name = f"v{self.lanes}f{self.size * 8}"  # as LLVM's functions call it
        self.i64 = ir.IntType(64)

    def at(self, pointer: Any, offset: Any) -> Any:
        return self.b.gep(pointer, [offset])

    def load(self, pointer: Any, k: int = 0) -> Any:
        """The k-th vector after a pointer."""
        place = self.b.gep(pointer, [self.i64(k * self.lanes)]) if k else pointer
        return self.b.load(self.b.bitcast(place, self.vector.as_pointer()), align=self.size)

    def store(self, value: Any, pointer: Any, k: int = 0) -> None:
        place = self.b.gep(pointer, [self.i64(k * self.lanes)]) if k else pointer
        self.b.store(value, self.b.bitcast(place, self.vector.as_pointer()), align=self.size)

    def spread(self, pointer: Any, k: int = 0) -> Any:
        """The k-th element in every lane."""
        x = self.b.load(self.b.gep(pointer, [self.i64(k)]) if k else pointer, align=self.size)
        one = self.b.insert_element(
            self.ir.Constant(self.vector, self.ir.Undefined), x, self.ir.IntType(32)(0)
        )
        lanes = self.ir.Constant(
            self.ir.VectorType(self.ir.IntType(32), self.lanes), [0] * self.lanes
        )
        return self.b.shuffle_vector(one, self.ir.Constant(self.vector, self.ir.Undefined), lanes)

    def loop(self, count: Any, step: int, sums: list, body: Callable[..., list]) -> list:
        """For i in range(0, count, step): sums = body(i, sums); returns the last sums."""
        b = self.b
        before = b.block
        head, inside, after = (b.append_basic_block(n) for n in ("head", "inside", "after"))
        b.branch(head)
        b.position_at_end(head)
        i = b.phi(self.i64)
        i.add_incoming(self.i64(0), before)
        phis = [b.phi(s.type) for s in sums]
        for phi, s in zip(phis, sums, strict=True):
            phi.add_incoming(s, before)
        b.cbranch(b.icmp_signed("<", i, count), inside, after)
        b.position_at_end(inside)
        new = body(i, phis)
        for phi, s in zip(phis, new, strict=True):
            phi.add_incoming(s, b.block)
        i.add_incoming(b.add(i, self.i64(step)), b.block)
        b.branch(head)
        b.position_at_end(after)
        return phis

    def declared(self, name: str, result: Any, arguments: list) -> Any:
        from numba.core import cgutils

        kind = self.ir.FunctionType(result, arguments)
        return cgutils.get_or_insert_function(self.b.module, kind, f"llvm.{name}")

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        """x * y + z."""
        fn = self.declared(f"fma.{self.name}", self.vector, [self.vector] * 3)
        return self.b.call(fn, [x, y, z])

    def prefetch(self, pointer: Any) -> None:
        """Have a line brought to the second-level cache; any address will do."""
        word, place = self.ir.IntType(32), self.ir.IntType(8).as_pointer()
        fn = self.declared("prefetch.p0", self.ir.VoidType(), [place, word, word, word])
        self.b.call(fn, [self.b.bitcast(pointer, place), word(0), word(2), word(1)])

    def mask(self, count: Any, every: int = 1) -> Any:
        """The lanes below a number (and of those, every so many)."""
        word = self.ir.IntType(32)
        numbers = self.ir.VectorType(word, self.lanes)
        count = self.b.trunc(count, word)
        one = self.b.insert_element(self.ir.Constant(numbers, self.ir.Undefined), count, word(0))
        limit = self.b.shuffle_vector(
            one,
            self.ir.Constant(numbers, self.ir.Undefined),
            self.ir.Constant(numbers, [0] * self.lanes),
        )
        lanes = [i if i % every == 0 else 1 << 30 for i in range(self.lanes)]
        return self.b.icmp_signed("<", self.ir.Constant(numbers, lanes), limit)

    def load_masked(self, pointer: Any, mask: Any) -> Any:
        word, places = self.ir.IntType(32), self.vector.as_pointer()
        fn = self.declared(
            f"masked.load.{self.name}.p0", self.vector, [places, word, mask.type, self.vector]
        )
        zero = self.ir.Constant(self.vector, [0.0] * self.lanes)
        near = self.b.bitcast(pointer, places)
        return self.b.call(fn, [near, word(self.size), mask, zero])

    def store_masked(self, value: Any, pointer: Any, mask: Any) -> None:
        word, places = self.ir.IntType(32), self.vector.as_pointer()
        fn = self.declared(
            f"masked.store.{self.name}.p0",
            self.ir.VoidType(),
            [self.vector, places, word, mask.type],
        )
        self.b.call(fn, [value, self.b.bitcast(pointer, places), word(self.size), mask])

    def shuffle(self, x: Any, y: Any, lanes: list[int]) -> Any:
        return self.b.shuffle_vector(
            x, y, self.ir.Constant(self.ir.VectorType(self.ir.IntType(32), self.lanes), lanes)
        )

    def halves(self, x: Any, y: Any, distance: int) -> Any:
        """Sums of lanes ``distance`` apart: x's, then y's, in every group of 2 * distance lanes."""
        groups = range(0, self.lanes, 2 * distance)
        low = [at + i + k for at in groups for k in (0, self.lanes) for i in range(distance)]
        return self.b.fadd(self.shuffle(x, y, low), self.shuffle(x, y, [i + distance for i in low]))

    def store_sums(self, vectors: list, pointer: Any) -> None:
        """Write the sums of many vectors' lanes: a tree that halves them all at once."""
        zero = self.ir.Constant(self.vector, [0.0] * self.lanes)
        for first in range(0, len(vectors), self.lanes):
            some = vectors[first : first + self.lanes]
            some += [zero] * (self.lanes - len(some))
            # With halves of every group joined in this order, lane i ends with vector i's sum.
            distance = self.lanes // 2
            while distance:
                half = len(some) // 2
                some = [self.halves(some[i], some[i + half], distance) for i in range(half)]
                distance //= 2
            self.store(some[0], pointer, first // self.lanes)


@functools.lru_cache(maxsize=1)
def skip_function() -> Any:
    """skip(pointer): how many elements on from there a vector is aligned.

    A load then meets one line of the cache, and never two.
    """
    from numba import types as nt
    from numba.extending import intrinsic

    @intrinsic
    def skip(typing_context, pointer):
        def generate(context: Any, builder: Any, signature: Any, a: Any) -> Any:
            on = Body(builder, pointer)
            over = builder.and_(builder.neg(builder.ptrtoint(a[0], on.i64)), on.i64(63))
            return builder.udiv(over, on.i64(on.size))

        return nt.int64(pointer), generate

    return skip
