"""A dataset that is two arrays: sample ``i`` is row ``i`` of each, and a batch is one fancy index.

Every dataset here is one of these. Read next: ``toy.py`` (computed), ``digits.py`` (shipped), ``mnist.py``
(downloaded).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kilograd.tensor import Tensor, wrap
from kilograd.utils.data.dataset import Dataset

Transform = Callable[[Any], Any]


class ArrayDataset(Dataset[tuple[Any, Any]]):
    """Inputs and class labels held as two whole arrays.

    ``dataset[i]`` is ``(input, label)``: a float32 Tensor and an ``int``. ``dataset.gather(indices)`` is a
    whole batch, the inputs stacked along a new first dimension and the labels as an int64 Tensor, by one
    NumPy index each. ``DataLoader`` uses it, so an epoch has no per-sample Python loop, unless a transform
    asks for one.

    ``data`` and ``targets`` are plain attributes; assigning shorter ones makes a shorter dataset.

    Args:
        data: array ``(N, *)``, any real dtype.
        targets: integer array ``(N,)``.
        transform: called on each input (a float32 Tensor); what it returns is the input.
        target_transform: called on each label (an ``int``).

    Attributes:
        data: the inputs as stored, a Tensor ``(N, *)`` of the array's own dtype.
        targets: the labels, an int64 Tensor ``(N,)``.
        classes: the names of the classes, label 0 first.

    Raises:
        ValueError: if the two lengths differ.

    Example:
        >>> points = ArrayDataset(np.eye(3), np.array([0, 1, 1]))
        >>> x, label = points[2]
        >>> x.tolist(), label
        ([0.0, 0.0, 1.0], 1)
        >>> x, labels = points.gather([2, 0])
        >>> tuple(x.shape), labels.tolist()
        ((2, 3), [1, 0])
    """

    classes: Sequence[str] = ()

    def __init__(
        self,
        data: np.ndarray,
        targets: np.ndarray,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
    ) -> None:
        if len(data) != len(targets):
            raise ValueError(
                f"{type(self).__name__}: {len(data)} inputs but {len(targets)} labels; each needs its own"
            )
        self.data: Tensor = wrap(np.ascontiguousarray(data))
        self.targets: Tensor = wrap(np.ascontiguousarray(targets, dtype=np.int64))
        self.transform = transform
        self.target_transform = target_transform

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The label of each class name."""
        return {name: label for label, name in enumerate(self.classes)}

    def features(self, rows: np.ndarray) -> np.ndarray:
        """What the network sees of stored rows: ``(B, *)`` as stored → ``(B, *)`` float32.

        Image datasets override it to add the channel dimension and scale to [0, 1]; it works on whole
        batches. ``rows`` is a fresh copy, never the dataset's own memory.
        """
        return rows.astype(np.float32, copy=False)

    def __len__(self) -> int:
        return len(self.data.array)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        i = operator.index(index)
        if not -len(self) <= i < len(self):
            raise IndexError(
                f"{type(self).__name__}: index {i} is out of range for {len(self)} samples"
            )
        x: Any = wrap(self.features(self.data.array.take([i], axis=0))[0])
        label: Any = int(self.targets.array[i])
        if self.transform is not None:
            x = self.transform(x)
        if self.target_transform is not None:
            label = self.target_transform(label)
        return x, label

    def gather(self, indices: Sequence[int] | np.ndarray) -> list[Tensor] | None:
        """The batch ``[inputs (B, *) float32, labels (B,) int64]``, already collated.

        None where there is a transform: that is a function of one sample and may return anything.
        """
        if self.transform is not None or self.target_transform is not None:
            return None
        rows = np.asarray(indices, dtype=np.intp)
        inputs = self.features(self.data.array.take(rows, axis=0))
        return [wrap(inputs), wrap(self.targets.array.take(rows))]

    def extra_repr(self) -> list[str]:
        """The lines of ``repr`` that only this dataset has."""
        return []

    def __repr__(self) -> str:
        lines = [f"Dataset {type(self).__name__}", f"Number of datapoints: {len(self)}"]
        return "\n    ".join([*lines, *self.extra_repr()])
