"""Tables looked up by index: embeddings, bags of them, one-hot vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.functions.calling import function
from kilograd.kernels import place
from kilograd.ops import embedding as ops
from kilograd.ops.elementwise import where
from kilograd.ops.index import index_add_zeros
from kilograd.tensor import Tensor, wrap

__all__ = ["embedding", "embedding_bag", "one_hot"]


def _checked_indices(name: str, indices: Any) -> Any:
    array = getattr(indices, "array", indices)
    if array.dtype != np.int64 and array.dtype != np.int32:
        raise RuntimeError(
            f"{name}: expected indices of type int64 or int32, but got {array.dtype} instead"
        )
    return array


def _renormalise(weight: Tensor, indices: Any, max_norm: float, norm_type: float) -> None:
    """Scale the rows that are looked up down to a norm of at most ``max_norm``, in place."""
    indices = indices.reshape(-1)
    rows = place.embedding(weight.array, indices)
    norms = np.linalg.norm(rows, norm_type, axis=1)
    scale = np.where(norms > max_norm, max_norm / (norms + 1e-7), 1.0)
    weight.array[indices] = rows * scale[:, None].astype(rows.dtype)
    weight._cell[0] += 1


@function(method=False)
def embedding(
    input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Tensor:  # fmt: skip
    """Rows of ``weight`` (V, D) at the indices ``input`` (any shape): (*input.shape, D).

    Args:
        input: the indices, int64 or int32.
        weight: the table.
        padding_idx: this row gets no gradient.
        max_norm: rows looked up are first scaled down to this norm, in place.
        norm_type: the p of that norm.
        scale_grad_by_freq: divide a row's gradient by how often it was looked up.
        sparse: accepted; gradients are dense.

    >>> import kilograd as kg
    >>> kg.nn.functional.embedding(kg.tensor([2, 0]), kg.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]))
    tensor([[4., 5.],
            [0., 1.]])

    Raises:
        IndexError: an index out of range.
    """
    table = weight.array
    if table.ndim != 2:
        raise RuntimeError("'weight' must be 2-D")
    rows = len(table)
    if padding_idx is not None:
        if not -rows <= padding_idx < rows:
            raise AssertionError("Padding_idx must be within num_embeddings")
        padding_idx %= rows
    indices = _checked_indices("embedding", input)
    if max_norm is not None:
        _renormalise(weight, indices, max_norm, norm_type)
    return ops.embedding(
        weight, indices, padding_idx=padding_idx, scale_grad_by_freq=scale_grad_by_freq
    )


@function(method=False)
def embedding_bag(
    input: Tensor, weight: Tensor, offsets: Tensor | None = None, max_norm: float | None = None,
    norm_type: float = 2, scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
    per_sample_weights: Tensor | None = None, include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:  # fmt: skip
    """The sum, mean or max of each bag of embeddings: (bags, D).

    Bags are the rows of ``input`` (B, L), or the parts of ``input`` (K,) that start at ``offsets``.
    """
    x = input.array
    if per_sample_weights is not None and x.shape != tuple(per_sample_weights.shape):
        raise ValueError(
            f"embedding_bag: If per_sample_weights ({list(per_sample_weights.shape)}) is not None, then it "
            f"must have the same shape as the input ({list(x.shape)})"
        )
    if weight.array.ndim != 2:
        raise ValueError(
            f"weight has to be a 2D Tensor, but got Tensor of dimension {weight.array.ndim}"
        )
    if x.ndim == 2:
        if offsets is not None:
            raise ValueError(
                "if input is 2D, then offsets has to be None, as input is treated is a mini-batch of fixed "
                f"length sequences. However, found offsets of type {type(offsets).__name__}"
            )
        starts = np.arange(len(x)) * x.shape[1]
        include_last_offset = False
    elif x.ndim == 1:
        if offsets is None or offsets.ndim != 1:
            raise ValueError(
                "offsets has to be a 1D Tensor" + (" but got None" if offsets is None else "")
            )
        starts = getattr(offsets, "array", offsets)
    else:
        raise ValueError(f"input has to be 1D or 2D Tensor, but got Tensor of dimension {x.ndim}")
    if mode not in ("sum", "mean", "max"):
        raise ValueError("mode has to be one of sum, mean or max")
    if mode == "max" and scale_grad_by_freq:
        raise ValueError("max mode does not support scaling the gradient by the frequency")
    if mode == "max" and sparse:
        raise ValueError("max mode does not support sparse weights")
    rows, width = weight.array.shape
    indices = _checked_indices("embedding_bag", x.reshape(-1))
    if max_norm is not None:
        _renormalise(weight, indices, max_norm, norm_type)
    if per_sample_weights is not None and mode != "sum":
        raise NotImplementedError(
            "embedding_bag: per_sample_weights was not None. per_sample_weights is only supported for "
            f"mode='sum' (got mode='{mode}')."
        )
    if starts.size and starts[0] != 0:
        raise RuntimeError(
            "offsets[0] has to be 0, i.e., the first sequence in the mini-batch has to start "
            f"from position 0. However, got {starts[0]}"
        )
    if starts.size and starts[-1] > len(indices):
        raise RuntimeError(
            f"offsets[-1] can not be greater than input's length {len(indices)} but got "
            f"offsets[-1] of {starts[-1]}"
        )
    if include_last_offset:
        starts = starts[:-1]
    bags = len(starts)
    if padding_idx is not None:
        if not -rows <= padding_idx < rows:
            raise RuntimeError("padding_idx must be within the number of embeddings")
        padding_idx %= rows
    bag = np.repeat(np.arange(bags), np.diff(np.append(starts, len(indices))))
    indices = indices[: len(bag)]
    flat_weights = (
        None if per_sample_weights is None else per_sample_weights.reshape((-1, 1))[: len(bag)]
    )
    if padding_idx is not None:
        counted = indices != padding_idx
        indices, bag = indices[counted], bag[counted]
        flat_weights = None if flat_weights is None else flat_weights[counted]
    if mode == "max":
        return _bag_max(weight, indices, bag, bags)
    each = ops.embedding(weight, indices, padding_idx=None, scale_grad_by_freq=scale_grad_by_freq)
    if flat_weights is not None:
        each = each * flat_weights
    y = index_add_zeros(each, bag, shape=(bags, width), axis=0)
    if mode == "mean":
        counts = np.maximum(np.bincount(bag, minlength=bags), 1)
        y = y / wrap(counts.astype(weight.array.dtype)[:, None])
    return y


def _bag_max(weight: Tensor, indices: Any, bag: Any, bags: int) -> Tensor:
    table = weight.array
    winner = np.full((bags, table.shape[1]), -1, np.int64)
    best = np.full((bags, table.shape[1]), -np.inf, table.dtype)
    for b, row in zip(bag, indices, strict=True):
        better = (table[row] > best[b]) | (winner[b] < 0)
        best[b] = np.where(better, table[row], best[b])
        winner[b] = np.where(better, row, winner[b])
    chosen = weight[(np.maximum(winner, 0), np.arange(table.shape[1]))]
    return where(winner >= 0, chosen, 0.0)


@function(method=False)
def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Zeros with a one at each class number, as int64: (*tensor.shape, num_classes).

    >>> import kilograd as kg
    >>> kg.nn.functional.one_hot(kg.tensor([0, 2]))
    tensor([[1, 0, 0],
            [0, 0, 1]])
    """
    t = tensor.array
    if t.dtype != np.int64:
        raise RuntimeError("one_hot is only applicable to index tensor of type LongTensor.")
    if not t.size and num_classes <= 0:
        raise RuntimeError("Can not infer total number of classes from empty tensor.")
    if num_classes == -1:
        num_classes = max(int(t.max()) + 1, 1)
    elif num_classes < 1:
        raise RuntimeError("num_classes should be positive")
    return wrap(place.one_hot(t, num_classes))
