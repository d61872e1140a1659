"""Metrics of predicted classes over batches: what they keep is a few counts for each class."""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.train.metrics.batches import Reader
from kilograd.train.metrics.classification import check_options, from_counts, normalized
from kilograd.train.metrics.inputs import Array
from kilograd.train.metrics.metric import Metric
from kilograd.train.metrics.ranking import in_top


class _Counts(Metric):
    """For each class: samples rightly taken for it, taken for it, and of it; and samples that are all right."""

    def __init__(
        self,
        task: str | None = None,
        *,
        threshold: float = 0.5,
        logits: bool = False,
        num_classes: int | None = None,
        ignore_index: int | None = None,
    ) -> None:
        self.reader = Reader(
            type(self).__name__, task, threshold=threshold, logits=logits, num_classes=num_classes,
            ignore_index=ignore_index,
        )  # fmt: skip
        super().__init__()

    def reset(self) -> None:
        self.reader.reset()
        self.counts = np.zeros((3, self.reader.num_classes or 0), np.int64)
        self.samples = self.right = 0

    def update(self, scores: Any, targets: Any) -> None:
        """Count a batch; :class:`Accuracy` says what scores and targets may be."""
        batch = self.reader.read(scores, targets)
        t, p = batch.targets, self.reader.predicted(batch)
        if not len(t):
            return
        if batch.task == "multilabel":
            counts = np.stack([(t & p).sum(0), p.sum(0), t.sum(0)])
            right = (t == p).all(1)
        else:
            right = t == p
            width = batch.scores.shape[1] if batch.form == "rows" else 0
            n = max(width, int(t.max()) + 1, int(p.max()) + 1)
            counts = np.stack([np.bincount(x, minlength=n) for x in (t[right], p, t)])
        self._check(batch.task, max(counts.shape[1], self.counts.shape[1]))
        self.reader.accept(batch)
        grown = np.zeros((3, max(counts.shape[1], self.counts.shape[1])), np.int64)
        grown[:, : self.counts.shape[1]] = self.counts
        grown[:, : counts.shape[1]] += counts
        self.counts = grown
        self.samples += len(t)
        self.right += int(right.sum())

    def _check(self, task: str, n: int) -> None:
        """Whether n classes, or labels, can be counted."""

    def _classes(self) -> Array:
        """The counts of the classes to average over: all of ``num_classes``, else those that occur."""
        self._some(self.samples)
        if self.reader.num_classes is not None or self._task() == "multilabel":
            return self.counts
        return self.counts[:, self.counts[1:].any(0)]

    def _task(self) -> str | None:
        return self.reader.seen and self.reader.seen[0]


class Accuracy(_Counts):
    """The fraction of samples that are right: :func:`accuracy_score` over batches.

    What a batch may be, and what follows from it where ``task`` is not given:

    ================================  ====================  ============================================
    scores                            targets               task
    ================================  ====================  ============================================
    floats (N,) or (N, 1)             (N,) or (N, 1)        "binary": class 1 where above the threshold
    floats (N, C) or (N, C, d₁, …)    (N,) or (N, d₁, …)    "multiclass": the largest score, the first of ties
    whole numbers (N,)                (N,)                  "multiclass": they are the predicted classes
    floats (N, L)                     (N, L)                "multilabel": each label above the threshold
    ================================  ====================  ============================================

    Other shapes need the task said: "binary" takes any shape that both have, "multiclass" whole numbers of any
    shape, "multilabel" whole numbers (N, L). Targets are 0 and 1, or class numbers from 0; floats may hold them.

    Args:
        task: "binary", "multiclass", "multilabel", or None.
        average: "samples": of labels all must be right, as in scikit-learn. "macro": the mean over labels, or over
            classes of their recall (the balanced accuracy). None: one value for each label or class.
        threshold: a class or label is predicted where its probability is above.
        logits: the scores are logits (their threshold is log(p / (1 - p)), 0 for one half); without it, scores
            outside of [0, 1] are an error.
        num_classes: of classes or labels; with it classes that do not occur are counted too, with recall 0.
        ignore_index: a target that is not counted, such as -100 or 255 (not for labels).

    Example:
        >>> import kilograd as kg
        >>> accuracy = Accuracy()
        >>> accuracy.update(kg.tensor([[2.0, 1.0], [0.0, 3.0]]), kg.tensor([0, 0]))
        >>> accuracy.update(kg.tensor([[0.0, 1.0], [4.0, 3.0]]), kg.tensor([1, 0]))
        >>> accuracy.compute()
        0.75
    """

    def __init__(
        self, task: str | None = None, *, average: str | None = "samples", **options: Any
    ) -> None:
        if average not in ("samples", "macro", None):
            raise ValueError(f"Accuracy: average={average!r}; it is 'samples', 'macro' or None")
        self.average = average
        super().__init__(task, **options)

    def compute(self) -> Any:
        hits, predicted, true = self._classes()
        if self.average == "samples":
            return self.right / self.samples
        if self._task() == "multilabel":
            each = 1 - (predicted + true - 2 * hits) / self.samples
        else:
            if self.average == "macro" and self.reader.num_classes is None:
                hits, true = (
                    hits[true > 0],
                    true[true > 0],
                )  # as in scikit-learn: of the true classes
            each = np.divide(hits, true, out=np.zeros(len(true)), where=true != 0)
        return each if self.average is None else float(each.mean())


class FBetaScore(_Counts):
    """:func:`fbeta_score` over batches.

    Args:
        beta: the weight of recall against precision.
        task: as of :class:`Accuracy`, like the other options.
        average: "binary" (the default; the value of ``pos_label``), "micro", "macro", "weighted", or None for an
            array with the value of each class or label.
        pos_label: the class that ``average="binary"`` is about, 0 or 1.
        zero_division: the value of 0/0: 0.0, 1.0, NaN (left out of averages), or "warn" (0.0 and a UserWarning).
        options: ``threshold``, ``logits``, ``num_classes`` and ``ignore_index``. Without ``num_classes`` the classes
            that occur are averaged over, as in scikit-learn.

    Example:
        >>> f2 = FBetaScore(2.0)
        >>> f2.update([0, 1, 1, 1], [0, 0, 1, 1])
        >>> round(f2.compute(), 4)
        0.9091
    """

    which = 2

    def __init__(
        self,
        beta: float,
        task: str | None = None,
        *,
        average: str | None = "binary",
        pos_label: int = 1,
        zero_division: Any = 0.0,
        **options: Any,
    ) -> None:
        check_options(beta, average, zero_division)
        name = type(self).__name__
        if average == "samples":
            raise ValueError(f"{name}: average='samples' is there in the function only")
        if pos_label not in (0, 1):
            raise ValueError(f"{name}: pos_label={pos_label!r}; it is 0 or 1")
        self.beta, self.average, self.pos_label = beta, average, pos_label
        self.zero_division = zero_division
        super().__init__(task, **options)

    def _check(self, task: str, n: int) -> None:
        if self.average == "binary" and (task == "multilabel" or n > 2):
            raise ValueError(
                f"{type(self).__name__}: average='binary', but there are several labels or more than two "
                "classes: give average='macro', 'micro', 'weighted' or None"
            )

    def compute(self) -> Any:
        tp, predicted, true = self._classes()
        if self.average == "binary":
            only = self.counts[:, self.pos_label : self.pos_label + 1]
            tp, predicted, true = only if only.size else np.zeros((3, 1), np.int64)
        warn_for = ("precision", "recall", "f-score")[self.which]
        average = "macro" if self.average == "binary" else self.average
        found = from_counts(
            tp, predicted, true, self.beta, average, self.zero_division, (warn_for,)
        )
        return found[self.which]


class F1Score(FBetaScore):
    """:func:`f1_score` over batches: :class:`FBetaScore` with β = 1, and its options.

    Example:
        >>> f1 = F1Score("multiclass", average=None)
        >>> f1.update([0, 1, 1, 2], [0, 0, 1, 2])
        >>> f1.compute()
        array([0.66666667, 0.66666667, 1. ])
    """

    def __init__(self, task: str | None = None, **options: Any) -> None:
        super().__init__(1.0, task, **options)


class Precision(F1Score):
    """:func:`precision_score` over batches, with the options of :class:`FBetaScore`.

    Example:
        >>> precision = Precision(threshold=0.7)
        >>> precision.update([0.9, 0.8, 0.6], [1, 0, 1])
        >>> precision.compute()
        0.5
    """

    which = 0


class Recall(F1Score):
    """:func:`recall_score` over batches, with the options of :class:`FBetaScore`.

    Example:
        >>> recall = Recall("binary", logits=True)
        >>> recall.update([2.0, -1.0, -3.0], [1, 1, 0])
        >>> recall.compute()
        0.5
    """

    which = 1


class ConfusionMatrix(Metric):
    """:func:`confusion_matrix` over batches: row i, column j counts the samples of class i taken for j.

    Its size is ``num_classes``, or else the number of columns of the scores, or the largest class number + 1 (2 at
    least). Labels have one matrix each, (L, 2, 2).

    Args:
        task: as of :class:`Accuracy`, like ``threshold``, ``logits``, ``num_classes`` and ``ignore_index``.
        normalize: None gives counts, int64; "true", "pred" and "all" fractions of a row, of a column, of all.

    Example:
        >>> matrix = ConfusionMatrix(num_classes=3)
        >>> matrix.update([0, 1, 1], [0, 0, 1])
        >>> matrix.compute()
        array([[1, 1, 0], [0, 1, 0], [0, 0, 0]])
    """

    LARGEST = 10_000  # classes without num_classes: a matrix of them is 800 MB

    def __init__(
        self, task: str | None = None, *, normalize: str | None = None, **options: Any
    ) -> None:
        if normalize not in (None, "true", "pred", "all"):
            raise ValueError(
                f"ConfusionMatrix: normalize={normalize!r}; None, 'true', 'pred' or 'all'"
            )
        self.normalize = normalize
        self.reader = Reader("ConfusionMatrix", task, **options)
        super().__init__()

    def reset(self) -> None:
        self.reader.reset()
        self.counts = np.zeros((0, 0), np.int64)

    def update(self, scores: Any, targets: Any) -> None:
        """Count a batch; :class:`Accuracy` says what scores and targets may be."""
        batch = self.reader.read(scores, targets)
        t, p = batch.targets, self.reader.predicted(batch)
        if not len(t):
            return
        if batch.task == "multilabel":
            n = t.shape[1]
            new = np.bincount((np.arange(n) * 4 + t * 2 + p).reshape(-1), minlength=4 * n)
            new = new.reshape(n, 2, 2)
            self.counts = new + (self.counts if self.counts.size else 0)
        else:
            known = self.reader.num_classes if batch.task == "multiclass" else 2
            width = batch.scores.shape[1] if batch.form == "rows" else 2
            n = known or max(width, int(t.max()) + 1, int(p.max()) + 1, len(self.counts))
            if not known and n > self.LARGEST:
                raise ValueError(
                    f"ConfusionMatrix: a class number is {n - 1}; give num_classes if it is one"
                )
            new = np.bincount(t * n + p, minlength=n * n).reshape(n, n)
            new[: len(self.counts), : len(self.counts)] += self.counts
            self.counts = new
        self.reader.accept(batch)

    def compute(self) -> Array:
        self._some(self.counts.size)
        if self.counts.ndim == 3:
            return np.stack([normalized(c, self.normalize) for c in self.counts])
        return normalized(self.counts.copy(), self.normalize)


class TopKAccuracy(Metric):
    """:func:`top_k_accuracy_score` over batches of scores (N, C) or (N, C, d₁, …).

    Args:
        k: how many classes may be named; of those that tie, the later ones come first.
        num_classes: C, where it shall be checked.
        ignore_index: a target that is not counted.

    Example:
        >>> top2 = TopKAccuracy(k=2)
        >>> top2.update([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1]], [1, 2])
        >>> top2.compute()
        0.5
    """

    def __init__(
        self, k: int = 2, *, num_classes: int | None = None, ignore_index: int | None = None
    ) -> None:
        if k < 1:
            raise ValueError(f"TopKAccuracy: k={k}; it is at least 1")
        self.k = k
        self.reader = Reader(
            "TopKAccuracy", "multiclass", num_classes=num_classes, ignore_index=ignore_index
        )
        super().__init__()

    def reset(self) -> None:
        self.reader.reset()
        self.samples = self.right = 0

    def update(self, scores: Any, targets: Any) -> None:
        """Count a batch of scores for each class, and of class numbers."""
        batch = self.reader.read(scores, targets)
        if not len(batch.targets):
            return
        if batch.form != "rows":
            raise ValueError("TopKAccuracy: expected scores (N, C), got predicted classes (N,)")
        self.reader.accept(batch)
        self.right += int(in_top(batch.targets, batch.scores, self.k).sum())
        self.samples += len(batch.targets)

    def compute(self) -> float:
        self._some(self.samples)
        return self.right / self.samples
