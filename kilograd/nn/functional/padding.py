"""Borders: constants, or the input's own elements reflected, repeated or wrapped around."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kilograd.errors import ShapeError
from kilograd.functions.calling import function
from kilograd.ops.index import getitem
from kilograd.ops.padding import pad_constant
from kilograd.ops.shape import broadcast_to, concatenate, flip
from kilograd.tensor import Tensor

__all__ = ["pad"]


def _extended(x: Tensor, axis: int, a: int, b: int, mode: str) -> Tensor:
    """x with a elements before and b after along an axis, made of its own."""
    before = (slice(None),) * axis

    def part(start: int, stop: int) -> Tensor:
        return getitem(x, index=(*before, slice(start, stop)))

    n = x.array.shape[axis]
    if mode == "replicate":

        def edge(at: int, count: int) -> Tensor:
            shape = (*x.array.shape[:axis], count, *x.array.shape[axis + 1 :])
            return broadcast_to(part(at, at + 1), shape=shape)

        total = n + a + b  # of positions -a, ..., n + b - 1
        parts = [edge(0, min(max(a, 0), total)), part(max(-a, 0), max(n + min(b, 0), 0)),
                 edge(n - 1, min(max(b, 0), total))]  # fmt: skip
    else:
        if a < 0 or b < 0:  # what is cut off does not come back at the other end
            x = part(max(-a, 0), n - max(-b, 0))
            n = x.array.shape[axis]
        a, b = max(a, 0), max(b, 0)
        if mode == "circular":
            parts = [part(n - a, n), x, part(0, b)]
        else:
            parts = [
                flip(part(1, a + 1), axes=(axis,)),
                x,
                flip(part(n - 1 - b, n - 1), axes=(axis,)),
            ]
    parts = [p for p in parts if p.array.shape[axis]] or parts[:1]
    return concatenate(*parts, axis=axis) if len(parts) > 1 else parts[0]


@function(method=False)
def pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """A border around the last dimensions: ``pad`` is (before, after) of the last one first.

    Modes: constant (of ``value``, 0 unless given), reflect, replicate, circular; the latter three pad
    up to three dimensions of an input (N, C, …) or (C, …). Negative sizes cut.

    >>> import kilograd as kg
    >>> x = kg.tensor([[1.0, 2.0, 3.0]])
    >>> kg.nn.functional.pad(x, (1, 2)), kg.nn.functional.pad(x, (2, 0), mode="reflect")
    (tensor([[0., 1., 2., 3., 0., 0.]]), tensor([[3., 2., 1., 2., 3.]]))
    """
    return _padded(input, [int(p) for p in pad], mode, value)


def constant_pad_nd(input: Tensor, pad: Sequence[int], value: Any = 0) -> Tensor:
    """``pad(input, pad, "constant", value)``: PyTorch's ``torch.constant_pad_nd``."""
    return _padded(input, [int(p) for p in pad], "constant", value)


def _padded(input: Tensor, pads: list[int], mode: str, value: Any) -> Tensor:
    ndim, shape = input.array.ndim, input.array.shape
    if len(pads) % 2:
        raise RuntimeError(f"Padding length must be divisible by 2, got {pads}")
    if len(pads) > 2 * ndim:
        raise RuntimeError(
            f"Padding length should be less than or equal to two times the input dimension but got "
            f"padding length {len(pads)} and input of dimension {ndim}"
        )
    count = len(pads) // 2
    pairs = [(pads[2 * i], pads[2 * i + 1]) for i in range(count)][::-1]
    first = ndim - count
    for axis, (a, b) in enumerate(pairs, first):
        n = shape[axis]
        if n + a + b < 0 or n + min(a, 0) + min(b, 0) < 0:
            raise ShapeError(
                f"pad: the input size {n}, plus negative padding {a} and {b} resulted in a negative output "
                f"size, which is invalid. Check dimension {axis} of your input."
            )
    if mode == "constant":
        return pad_constant(
            input, pads=((0, 0),) * first + tuple(pairs), value=0 if value is None else value
        )
    if mode not in ("reflect", "replicate", "circular"):
        raise NotImplementedError(f"Unrecognised padding mode {mode}")
    if value is not None and value != 0:
        raise RuntimeError(f'Padding mode "{mode}" doesn\'t take in value argument')
    if not 1 <= count <= 3 or ndim not in (count + 1, count + 2):
        raise NotImplementedError(
            "Only 2D, 3D, 4D, 5D padding with non-constant padding are supported for now: got padding of "
            f"{count} dimensions of an input of {ndim}"
        )
    for axis, (a, b) in enumerate(pairs, first):
        n = shape[axis]
        if mode == "reflect" and max(a, b) >= n:
            raise RuntimeError(
                f"Padding size should be less than the corresponding input dimension, but got: padding "
                f"({a}, {b}) at dimension {axis} of input {list(shape)}"
            )
        if mode == "circular" and max(a, b) > n:
            raise RuntimeError("Padding value causes wrapping around more than once.")
        if mode == "replicate" and n == 0:
            raise RuntimeError(
                f"pad: expected non-empty padded dimensions, but got input {list(shape)}"
            )
    for axis, (a, b) in enumerate(pairs, first):
        if a or b:
            input = _extended(input, axis, a, b, mode)
    return input
