"""Einstein's summation: an equation is read into labels, and operands are contracted two at a time.

A label is a number: 0-25 for A-Z, 26-51 for a-z, as in PyTorch's sublists; what an ellipsis stands for
is numbered from the right, -1, -2, … Then everything is diagonals, sums, and ``ops.linalg.contract``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from kilograd import dtypes
from kilograd.errors import ShapeError
from kilograd.functions.calling import function, tensor_like
from kilograd.ops import linalg as ops
from kilograd.ops import reduce as reduce_ops
from kilograd.ops import shape as shape_ops
from kilograd.ops.elementwise import cast
from kilograd.tensor import Tensor

Term = list[Any]  # labels, and Ellipsis at most once

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@function(method=False)
def einsum(equation: Any, *operands: Any) -> Tensor:
    """Products summed over the indices that ``equation`` names, e.g. ``"bij,bjk->bik"``.

    Repeated indices of one operand take its diagonal; ``...`` stands for any other dimensions;
    without ``->`` the result has the indices that occur once, in alphabetical order. Also
    ``einsum(a, [0, 1], b, [1, 2], [0, 2])``. More than two operands are contracted in the order
    that keeps intermediate results small.

    Raises:
        RuntimeError: the equation does not fit the operands, or their sizes do not fit each other.

    >>> import kilograd as kg
    >>> a = kg.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> kg.einsum("ij,jk->ik", a, a), kg.einsum("ii", a)
    (tensor([[ 7., 10.],
            [15., 22.]]), tensor(5.))
    """
    if not operands:
        raise ValueError(
            "einsum(): must specify the equation string and at least one operand, or at least one "
            "operand and its subscripts list"
        )
    if isinstance(equation, str):
        if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
            operands = tuple(operands[0])
        tensors = [_operand(x, i) for i, x in enumerate(operands)]
        labels, result = _labels(equation, tuple([x.ndim for x in tensors]))
    else:
        tensors, terms, output = _sublists((equation, *operands))
        labels, result = _without_ellipses([x.ndim for x in tensors], terms, output)
    return contracted(tensors, labels, result)


def _error(message: str) -> ShapeError:
    return ShapeError(f"einsum(): {message}")


# --- reading ------------------------------------------------------------------------------------


def _operand(x: Any, i: int) -> Tensor:
    if not isinstance(x, (Tensor, np.ndarray)):
        raise TypeError(f"einsum(): expected Tensor as operand {i}, but got {type(x).__name__}")
    return tensor_like(x)


@lru_cache(maxsize=1024)
def _labels(equation: str, ndims: tuple[int, ...]) -> tuple[list[list[int]], list[int]]:
    return _without_ellipses(ndims, *_read(equation, len(ndims)))


def _read(equation: str, count: int) -> tuple[list[Term], Term | None]:
    left, arrow, right = equation.partition("->")
    parts = left.split(",")
    if len(parts) != count:
        fewer = "fewer" if count < len(parts) else "more"
        raise _error(f"{fewer} operands were provided than specified in the equation {equation!r}")
    terms = [_term(part, f"operand {i}") for i, part in enumerate(parts)]
    return terms, _term(right, "the output") if arrow else None


def _term(text: str, whose: str) -> Term:
    term: Term = []
    i = 0
    while i < len(text):
        c = text[i]
        if c in _LETTERS:
            term.append(_LETTERS.index(c))
        elif c == ".":
            if Ellipsis in term:
                raise _error(f"found '.' for {whose} for which an ellipsis was already found")
            if text[i : i + 3] != "...":
                raise _error(f"found '.' for {whose} that is not part of any ellipsis")
            term.append(Ellipsis)
            i += 2
        elif c != " ":
            raise _error(f"invalid subscript {c!r} for {whose}, subscripts must be in [a-zA-Z]")
        i += 1
    return term


def _sublists(args: Sequence[Any]) -> tuple[list[Tensor], list[Term], Term | None]:
    pairs = len(args) // 2
    tensors = [_operand(x, i) for i, x in enumerate(args[: 2 * pairs : 2])]
    terms = [_sublist(x) for x in args[1 : 2 * pairs : 2]]
    return tensors, terms, _sublist(args[-1]) if len(args) % 2 else None


def _sublist(labels: Any) -> Term:
    for i in labels:
        if i is not Ellipsis and not (isinstance(i, int) and 0 <= i < 52):
            raise ValueError(
                f"einsum(): subscript {i!r} in subscript list is not within the valid range [0, 52)"
            )
    return list(labels)


def _without_ellipses(
    ndims: Sequence[int], terms: list[Term], output: Term | None
) -> tuple[list[list[int]], list[int]]:
    """Labels for each dimension of each operand, and of the result."""
    longest = 0
    labels = []
    for i, (ndim, term) in enumerate(zip(ndims, terms, strict=True)):
        named = len(term) - (Ellipsis in term)
        rest = ndim - named
        if rest < 0 or (rest and Ellipsis not in term):
            raise _error(
                f"the number of subscripts in the equation ({named}) does not match the number of "
                f"dimensions ({ndim}) for operand {i} and no ellipsis was given"
            )
        longest = max(longest, rest)
        labels.append(_expand(term, rest))
    every = [i for term in labels for i in term]
    if output is None:
        named_once = sorted(i for i in set(every) if i >= 0 and every.count(i) == 1)
        return labels, [*range(-longest, 0), *named_once]
    result = _expand(output, longest)
    for i in result:
        if result.count(i) > 1:
            raise _error(f"output subscript {_name(i)} appears more than once in the output")
        if i not in every:
            raise _error(
                f"output subscript {_name(i)} does not appear in the equation for any input operand"
            )
    return labels, result


def _expand(term: Term, count: int) -> list[int]:
    if Ellipsis not in term:
        return term
    at = term.index(Ellipsis)
    return [*term[:at], *range(-count, 0), *term[at + 1 :]]


def _name(label: int) -> str:
    return _LETTERS[label] if label >= 0 else "..."


# --- contracting --------------------------------------------------------------------------------


def contracted(tensors: list[Tensor], labels: list[list[int]], output: list[int]) -> Tensor:
    """The contraction of operands with one label for each dimension, to the labels of the result."""
    pairs = [_diagonals(x, term) for x, term in zip(tensors, labels, strict=True)]
    size: dict[int, int] = {}
    for k, (x, term) in enumerate(pairs):
        for i, n in zip(term, x.shape, strict=True):
            before = size.get(i, 1)
            if before != n and before != 1 and n != 1:
                raise _error(
                    f"subscript {_name(i)} has size {n} for operand {k} which does not broadcast "
                    f"with previously seen size {before}"
                )
            size[i] = before if n == 1 else n
    pairs = [_squeezed(x, term, size) for x, term in pairs]
    while len(pairs) > 1:
        i, j = _cheapest(pairs, output, size) if len(pairs) > 2 else (0, 1)
        (a, of_a), (b, of_b) = pairs[i], pairs[j]
        rest = [p for k, p in enumerate(pairs) if k not in (i, j)]
        wanted = {label for _, term in rest for label in term} | set(output)
        a, of_a = _summed(a, of_a, wanted | set(of_b))
        b, of_b = _summed(b, of_b, wanted | set(of_a))
        if a.dtype != b.dtype and a.dtype.kind in "iu" and b.dtype.kind in "iu":  # sums are int64
            a, b = (cast(x, dtype=dtypes.int64.dtype) for x in (a, b))
        of_y = [k for k in dict.fromkeys(of_a + of_b) if k in wanted] if rest else output
        y = ops.contract(a, b, labels=(tuple(of_a), tuple(of_b), tuple(of_y)))
        pairs = [*rest, (y, of_y)]
    x, term = pairs[0]
    x, term = _summed(x, term, set(output))
    axes = tuple(term.index(i) for i in output)
    return x if axes == tuple(range(x.ndim)) else shape_ops.permute(x, axes=axes)


def _cheapest(
    pairs: list[tuple[Tensor, list[int]]], output: list[int], size: dict[int, int]
) -> tuple[int, int]:
    """The two operands whose contraction saves most memory (adds least)."""

    def cost(i: int, j: int) -> tuple[int, int]:
        others = {label for k, (_, term) in enumerate(pairs) if k not in (i, j) for label in term}
        both = set(pairs[i][1]) | set(pairs[j][1])
        after = math.prod([size[k] for k in both & (others | set(output))])
        before = math.prod(pairs[i][0].shape) + math.prod(pairs[j][0].shape)
        return after - before, math.prod([size[k] for k in both])

    count = len(pairs)
    return min(((i, j) for i in range(count) for j in range(i + 1, count)), key=lambda p: cost(*p))


def _diagonals(x: Tensor, term: list[int]) -> tuple[Tensor, list[int]]:
    """Labels that occur twice: the diagonal of those dimensions."""
    if len(set(term)) == len(term):
        return x, term
    for label in [i for i in dict.fromkeys(term) if term.count(i) > 1]:
        while term.count(label) > 1:
            i = term.index(label)
            j = term.index(label, i + 1)
            if x.shape[i] != x.shape[j]:
                raise _error(
                    f"subscript {_name(label)} is repeated in a term but the sizes don't match, "
                    f"{x.shape[j]} != {x.shape[i]}"
                )
            x = shape_ops.diagonal(x, offset=0, a=i, b=j)
            term = [*term[:i], *term[i + 1 : j], *term[j + 1 :], label]
    return x, term


def _squeezed(x: Tensor, term: list[int], size: dict[int, int]) -> tuple[Tensor, list[int]]:
    """Without the dimensions of size 1 that broadcast with larger ones of other operands."""
    kept = [k for k, i in enumerate(term) if x.shape[k] != 1 or size[i] == 1]
    if len(kept) == len(term):
        return x, term
    x = shape_ops.reshape(x, shape=tuple(x.shape[k] for k in kept))
    return x, [term[k] for k in kept]


def _summed(x: Tensor, term: list[int], wanted: set[int]) -> tuple[Tensor, list[int]]:
    """Summed over the labels that nothing else has."""
    axes = tuple(k for k, i in enumerate(term) if i not in wanted)
    if not axes:
        return x, term
    return reduce_ops.sum(x, axis=axes), [i for i in term if i in wanted]
