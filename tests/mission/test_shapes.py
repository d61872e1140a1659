"""Shapes and indices."""

from __future__ import annotations

import numpy as np
import pytest

import kilograd as kg
from tests.mission.rows import close, numbers, row, slopes


@row("Shape and index", "reshape, -1", ancestors="all")
def test_reshape():
    """`x.reshape(2, -1)` or `x.reshape((2, -1))`, and `x.view`; one size may be -1."""
    a = numbers(2, 3, 4)
    for shape in ((6, 4), (-1,), (4, -1), (2, 1, 12)):
        close(slopes(lambda x, s=shape: x.reshape(*s), a), a.reshape(shape))
        close(kg.tensor(a).reshape(shape), a.reshape(shape))
    with pytest.raises(RuntimeError, match="invalid for input of size 24"):
        kg.tensor(a).reshape(5, 5)


@row("Shape and index", "flatten(start,end)", ancestors="synapgrad, neograd")
def test_flatten():
    """`x.flatten(start_dim, end_dim)`, with negative dimensions as well."""
    a = numbers(2, 3, 4, 2)
    for ends, shape in (
        ((0, -1), (48,)),
        ((1, 2), (2, 12, 2)),
        ((-3, -2), (2, 12, 2)),
        ((1, -1), (2, 24)),
    ):
        close(slopes(lambda x, e=ends: x.flatten(*e), a), a.reshape(shape))
    assert kg.tensor(1.0).flatten().shape == (1,)


@row("Shape and index", "transpose two dims", ancestors="synapgrad, simple_autograd")
def test_transpose_of_two_dims():
    """`x.transpose(i, j)`, also called `swapaxes` and `swapdims`."""
    a = numbers(2, 3, 4)
    close(slopes(lambda x: x.transpose(0, -1), a), a.swapaxes(0, -1))
    close(kg.tensor(a).swapaxes(1, 2), a.swapaxes(1, 2))


@row("Shape and index", "transpose/permute axes", ancestors="synapgrad, neograd, macrograd, pygrad")
def test_permute_axes():
    """`x.permute(2, 0, 1)`, `kg.movedim`, `kg.moveaxis`; the gradient takes the inverse permutation."""
    a = numbers(2, 3, 4)
    for axes in ((2, 0, 1), (1, 2, 0), (-1, 0, 1)):
        close(slopes(lambda x, d=axes: x.permute(*d), a), a.transpose(axes))
    close(slopes(lambda x: kg.movedim(x, 0, 2), a), np.moveaxis(a, 0, 2))
    close(kg.moveaxis(kg.tensor(a), (0, 1), (1, 2)), np.moveaxis(a, (0, 1), (1, 2)))


@row("Shape and index", ".T", ancestors="neograd, macrograd, pygrad, simple_autograd")
def test_capital_t():
    """`x.T` and `x.t()` of a matrix, `x.mT` of the last two dimensions."""
    a, b = numbers(2, 3), numbers(5, 2, 3)
    close(slopes(lambda x: x.T, a), a.T)
    close(kg.tensor(a).t(), a.T)
    close(slopes(lambda x: x.mT, b), b.swapaxes(1, 2))


@row("Shape and index", "squeeze / unsqueeze", ancestors="synapgrad, simple_autograd")
def test_squeeze_and_unsqueeze():
    """`x.squeeze()` drops all dimensions of size 1, or the ones named; `x.unsqueeze(dim)` adds one."""
    a = numbers(1, 3, 1, 2)
    close(slopes(lambda x: x.squeeze(), a), a.squeeze())
    close(slopes(lambda x: x.squeeze(2).unsqueeze(-1), a), a.reshape(1, 3, 2, 1))
    assert kg.tensor(a).squeeze(1).shape == a.shape  # not of size 1: left as it is
    close(kg.tensor(a)[None, ..., None], a[None, ..., None])


@row("Shape and index", "concat / stack / unbind", ancestors="synapgrad, simple_autograd")
def test_concat_stack_unbind():
    """`kg.cat` (or `concat`), `kg.stack`, `kg.unbind`; also `split` and `chunk`."""
    a, b = numbers(2, 3), numbers(2, 3)
    close(slopes(lambda x, y: kg.concat([x, y, x], 1), a, b), np.concatenate([a, b, a], 1))
    close(slopes(lambda x, y: kg.stack([x, y], -1), a, b), np.stack([a, b], -1))
    close(slopes(lambda x: kg.unbind(x, 1)[2] * kg.unbind(x)[1][0], a), a[:, 2] * a[1, 0])
    assert [p.shape[0] for p in kg.arange(7).split(3)] == [3, 3, 1]


@row("Shape and index", "unfold (sliding window on a dim)", ancestors="synapgrad")
def test_unfold_of_a_dimension():
    """`x.unfold(dim, size, step)`: windows of a dimension, in a new last one; overlaps add up."""
    a = numbers(2, 7)
    got = slopes(lambda x: x.unfold(1, 3, 2), a)
    close(got, np.lib.stride_tricks.sliding_window_view(a, 3, 1)[:, ::2])


@row("Shape and index", "broadcast_to / sum_to", ancestors="pygrad, simple_autograd")
def test_broadcast_to_and_sum_to():
    """`kg.broadcast_to` (and `expand`), and back: `x.sum_to_size`."""
    a, b = numbers(3, 1), numbers(4, 3, 2)
    close(slopes(lambda x: kg.broadcast_to(x, (4, 3, 2)), a), np.broadcast_to(a, (4, 3, 2)))
    close(slopes(lambda x: x.sum_to_size(3, 1), b), b.sum((0, 2))[:, None])
    close(kg.tensor(a).expand(-1, 2), np.broadcast_to(a, (3, 2)))


@row("Shape and index", "basic slicing", ancestors="synapgrad, neograd, pygrad, simple_autograd")
def test_basic_slicing():
    """`x[1, ::2, ...]`: views with the memory of `x`, and with its graph."""
    a = numbers(4, 5, 2)
    for index in (1, slice(1, 3), (slice(None), slice(None, None, 2)), (..., 0), (-1, 2, 1)):
        close(slopes(lambda x, i=index: x[i], a), a[index])
    x = kg.tensor(a)
    x[1:3].zero_()
    assert not x[1:3].any() and x[0].any()


@row(
    "Shape and index",
    "integer-array / repeated / bool / None index",
    ancestors="synapgrad, pygrad, simple_autograd",
)
def test_advanced_indices():
    """Lists, arrays, tensors, masks and None as indices; an element taken twice gets both gradients."""
    a = numbers(4, 5)
    for index in (
        [0, 0, 1],
        ([0, 3, 0], [1, 1, 1]),
        a > 0,
        (slice(None), None, [2, 2]),
        a[:, 0] > 0,
    ):
        close(slopes(lambda x, i=index: x[i], a), a[index])
    x = kg.tensor(a, requires_grad=True)
    x[kg.tensor([0, 0, 1])].backward(kg.ones(3, 5, dtype=kg.float64))
    close(x.grad[:, 0], [2, 1, 0, 0])


@row("Shape and index", "get_2D_patches", ancestors="simple_autograd")
def test_2d_patches():
    """`kg.nn.functional.unfold(x, size, stride=)`: the patches of images as columns."""
    a = numbers(2, 3, 6, 4)
    got = slopes(lambda x: kg.nn.functional.unfold(x, 2, stride=2), a)
    patches = a.reshape(2, 3, 3, 2, 2, 2).transpose(0, 1, 3, 5, 2, 4)  # n, c, row, column, place
    close(got, patches.reshape(2, 12, 6))
