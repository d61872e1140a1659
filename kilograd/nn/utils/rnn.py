"""Sequences of different lengths: padded into one tensor, or packed without the padding.

A packed sequence holds, step after step, the rows of the sequences that are still running, longest
first; ``batch_sizes[t]`` says how many they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from kilograd import functions as fn
from kilograd.tensor import Tensor, wrap

__all__ = [
    "PackedSequence", "pack_padded_sequence", "pack_sequence", "pad_packed_sequence",
    "pad_sequence", "unpack_sequence", "unpad_sequence",
]  # fmt: skip


class _Packed(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_Packed):
    """What :func:`pack_padded_sequence` makes and the recurrent layers take and return."""

    __slots__ = ()

    def __new__(
        cls, data: Tensor, batch_sizes: Any = None, sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ) -> PackedSequence:  # fmt: skip
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The same with the data converted, as ``Tensor.to`` does."""
        return self._replace(data=self.data.to(*args, **kwargs))

    def double(self) -> PackedSequence:
        """The same in float64."""
        return self._replace(data=self.data.double())

    def float(self) -> PackedSequence:
        """The same in float32."""
        return self._replace(data=self.data.float())

    def half(self) -> PackedSequence:
        """The same in float16."""
        return self._replace(data=self.data.half())

    def cpu(self) -> PackedSequence:
        """The same: everything is on the CPU."""
        return self

    @property
    def is_cuda(self) -> bool:
        """False."""
        return False


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes one."""
    if permutation is None:
        return None
    inverse = np.empty_like(permutation.array)
    inverse[permutation.array] = np.arange(len(inverse))
    return wrap(inverse)


def _lengths(lengths: Any) -> np.ndarray:
    array = lengths.array if isinstance(lengths, Tensor) else np.asarray(lengths)
    return array.astype(np.int64)


def pack_padded_sequence(
    input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Pack a padded batch, (T, B, *) or with ``batch_first`` (B, T, *).

    ``lengths`` (B) must fall, unless ``enforce_sorted=False``: then they are sorted here.

    >>> import kilograd as kg
    >>> x = kg.tensor([[1, 2, 0], [3, 0, 0], [4, 5, 6]])
    >>> p = kg.nn.utils.rnn.pack_padded_sequence(x, [2, 1, 3], True, enforce_sorted=False)
    >>> p.data, p.batch_sizes
    (tensor([4, 1, 3, 5, 2, 6]), tensor([3, 2, 1]))
    """
    lens = _lengths(lengths)
    order = None
    if not enforce_sorted:
        order = fn.argsort(wrap(lens), descending=True, stable=True)
        lens = lens[order.array]
        input = input.index_select(0 if batch_first else 1, order)
    if batch_first:
        input = input.transpose(0, 1)
    if input.array.size == 0:
        raise RuntimeError("Cannot pack empty tensors.")
    if lens.ndim != 1 or len(lens) != input.shape[1]:
        raise RuntimeError(
            f"Expected `len(lengths)` to be equal to batch_size, but got {lens.size} "
            f"(batch_size={input.shape[1]})"
        )
    if lens[-1] <= 0:
        raise RuntimeError(
            "Length of all samples has to be greater than 0, but found an element in 'lengths' "
            "that is <= 0"
        )
    if (lens[1:] > lens[:-1]).any():
        raise RuntimeError(
            "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You "
            "can pass `enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to "
            "sidestep this requirement."
        )
    if lens[0] > input.shape[0]:
        raise RuntimeError(f"Expected lengths of at most {input.shape[0]} steps, got {lens[0]}")
    sizes = (lens > np.arange(lens[0])[:, None]).sum(axis=1)
    data = fn.cat([input[t, :n] for t, n in enumerate(sizes.tolist())])
    return PackedSequence(data, wrap(sizes), order, None)


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Undo packing: the padded batch (T, B, *) and the lengths (B).

    >>> import kilograd as kg
    >>> p = kg.nn.utils.rnn.pack_sequence([kg.tensor([1, 2]), kg.tensor([3])])
    >>> kg.nn.utils.rnn.pad_packed_sequence(p, batch_first=True)
    (tensor([[1, 2],
            [3, 0]]), tensor([2, 1]))
    """
    data, batch_sizes, _, unsorted = sequence
    sizes = batch_sizes.array
    steps, batch = len(sizes), int(sizes[0])
    if total_length is not None:
        if total_length < steps:
            raise ValueError(
                "Expected total_length to be at least the length of the longest sequence in "
                f"input, but got total_length={total_length} and max sequence length being {steps}"
            )
        steps = total_length
    step = np.repeat(np.arange(len(sizes)), sizes)
    column = np.concatenate([np.arange(n) for n in sizes])
    padded = fn.full((steps, batch, *data.shape[1:]), padding_value, dtype=data.dtype)
    padded[step, column] = data
    lengths = (sizes[:, None] > np.arange(batch)).sum(axis=0)
    if unsorted is not None:
        padded = padded.index_select(1, unsorted)
        lengths = lengths[unsorted.array]
    return (padded.transpose(0, 1) if batch_first else padded), wrap(lengths)


def pad_sequence(
    sequences: Any, batch_first: bool = False, padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:  # fmt: skip
    """Tensors (L_i, *) of different lengths as one, (T, B, *) or (B, T, *).

    >>> import kilograd as kg
    >>> kg.nn.utils.rnn.pad_sequence([kg.tensor([1, 2]), kg.tensor([3])], batch_first=True)
    tensor([[1, 2],
            [3, 0]])
    """
    if padding_side not in ("left", "right"):
        raise RuntimeError(
            f"Expected padding_side to be one of left or right, but got {padding_side}."
        )
    if isinstance(sequences, Tensor):
        sequences = sequences.unbind(0)
    if not isinstance(sequences, Iterable):
        raise RuntimeError(
            f"pad_sequence: Expected iterable for input sequences, but got arg of type: {type(sequences)}"
        )
    sequences = tuple(sequences)
    if not sequences:
        raise RuntimeError("received an empty list of sequences")
    longest = max(s.shape[0] for s in sequences)
    rest = sequences[0].shape[1:]
    padded = []
    for s in sequences:
        gap = longest - s.shape[0]
        if gap:
            pad = fn.full((gap, *rest), padding_value, dtype=s.dtype)
            s = fn.cat([s, pad] if padding_side == "right" else [pad, s])
        padded.append(s)
    return fn.stack(padded, 0 if batch_first else 1)


def unpad_sequence(
    padded_sequences: Tensor, lengths: Any, batch_first: bool = False
) -> list[Tensor]:
    """Undo :func:`pad_sequence`: each sequence with its own length.

    >>> import kilograd as kg
    >>> kg.nn.utils.rnn.unpad_sequence(kg.tensor([[1, 2], [3, 0]]), kg.tensor([2, 1]), True)
    [tensor([1, 2]), tensor([3])]
    """
    if not batch_first:
        padded_sequences = padded_sequences.transpose(0, 1)
    return [padded_sequences[i, :n] for i, n in enumerate(_lengths(lengths).tolist())]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Pack tensors (L_i, *); longest first, unless ``enforce_sorted=False``.

    >>> import kilograd as kg
    >>> kg.nn.utils.rnn.pack_sequence([kg.tensor([1, 2, 3]), kg.tensor([4, 5])]).data
    tensor([1, 4, 2, 5, 3])
    """
    lengths = [s.shape[0] for s in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """Undo :func:`pack_sequence`."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
