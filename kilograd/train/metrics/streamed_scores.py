"""Metrics of scores over batches: those that order the samples keep all of them, the log loss a sum."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from kilograd.train.metrics.batches import Reader
from kilograd.train.metrics.inputs import Array
from kilograd.train.metrics.metric import Metric
from kilograd.train.metrics.ranking import average_precision_score, minus_log, roc_auc_score


def _below_top(s: Array, name: str) -> Array:
    """Logits (n, C) in float64, less the largest of each row: their exponentials do not overflow."""
    s = s.astype(np.float64)
    top = s.max(1, keepdims=True)
    if not np.isfinite(top).all():
        raise ValueError(f"{name}: a row of logits holds inf, or nothing but -inf")
    return s - top


def _softmax(s: Array, name: str) -> Array:
    e = np.exp(_below_top(s, name))
    return e / e.sum(1, keepdims=True)


class _Kept(Metric):
    """Scores and targets of all batches."""

    def __init__(
        self,
        task: str | None = None,
        *,
        average: str | None = "macro",
        logits: bool = False,
        num_classes: int | None = None,
        ignore_index: int | None = None,
    ) -> None:
        name = type(self).__name__
        if average not in ("macro", "micro", "weighted", None):
            raise ValueError(
                f"{name}: average={average!r}; it is 'macro', 'micro', 'weighted' or None"
            )
        self.average, self.logits = average, logits
        # Any number orders samples: one score each is never asked whether it is a probability.
        self.reader = Reader(
            name, task, logits=True, num_classes=num_classes, ignore_index=ignore_index
        )
        super().__init__()

    def reset(self) -> None:
        self.reader.reset()
        self.kept: list[tuple[Array, Array]] = []

    def update(self, scores: Any, targets: Any) -> None:
        """Keep a copy of a batch."""
        batch = self.reader.read(scores, targets)
        name = type(self).__name__
        if not len(batch.targets):
            return
        if batch.form == "classes" and batch.task == "multiclass":
            raise ValueError(f"{name}: expected scores, got predicted classes")
        rows = batch.form == "rows"
        s = _softmax(batch.scores, name) if rows and self.logits else batch.scores
        if not np.isfinite(s).all():
            raise ValueError(f"{name}: the scores hold infinity")
        if rows and not np.allclose(1, s.sum(1)):
            raise ValueError(
                f"{name}: the scores do not sum to 1 over the classes; for logits say {name}(logits=True)"
            )
        self.reader.accept(batch)
        self.kept.append((s.copy(), batch.targets.copy()))

    def _all(self) -> tuple[Array, Array]:
        """Scores and targets, the former (n,) for two classes."""
        self._some(len(self.kept))
        s, t = (np.concatenate(x) for x in zip(*self.kept, strict=True))
        two = s.ndim == 2 and s.shape[1] == 2 and t.ndim == 1
        return (s[:, 1] if two else s), t


class ROCAUC(_Kept):
    """:func:`roc_auc_score` over batches. It keeps all scores: memory grows with the samples.

    Args:
        task: as of :class:`Accuracy`, like ``num_classes`` and ``ignore_index``.
        average: "macro", "weighted", "micro" (not for "ovo"), or None for one value per class or label.
        multi_class: "ovr", each class against the rest, or "ovo", each pair of classes.
        logits: scores (N, C) are logits, of which the softmax is taken; without it their rows must sum to 1. Scores
            (N,) or (N, L) may be either, as only their order matters.

    Example:
        >>> auc = ROCAUC()
        >>> auc.update([0.1, 0.4], [0, 0])
        >>> auc.update([0.35, 0.8], [1, 1])
        >>> auc.compute()
        0.75
    """

    def __init__(
        self,
        task: str | None = None,
        *,
        average: str | None = "macro",
        multi_class: str = "ovr",
        **options: Any,
    ) -> None:
        if multi_class not in ("ovr", "ovo"):
            raise ValueError(f"ROCAUC: multi_class={multi_class!r}; it is 'ovr' or 'ovo'")
        if multi_class == "ovo" and average not in ("macro", "weighted"):
            raise ValueError(
                f"ROCAUC: multi_class='ovo' with average={average!r}; 'macro' or 'weighted'"
            )
        self.multi_class = multi_class
        super().__init__(task, average=average, **options)

    def compute(self) -> Any:
        s, t = self._all()
        if s.ndim == 2 and t.ndim == 1:
            labels = np.arange(s.shape[1])
            if self.multi_class == "ovo" and (t == t[0]).all():  # scikit-learn divides by zero
                warnings.warn("ROCAUC: only one class was seen, the value is NaN", stacklevel=2)
                return float("nan")
            return roc_auc_score(
                t, s, average=self.average, multi_class=self.multi_class, labels=labels
            )
        return roc_auc_score(t, s, average=self.average)


class AveragePrecision(_Kept):
    """:func:`average_precision_score` over batches. It keeps all scores: memory grows with the samples.

    Args:
        task: as of :class:`Accuracy`, like ``num_classes`` and ``ignore_index``.
        average: "macro", "weighted", "micro", or None for one value per class or label.
        logits: as of :class:`ROCAUC`.

    Example:
        >>> precision = AveragePrecision()
        >>> precision.update([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
        >>> round(precision.compute(), 4)
        0.8333
    """

    def compute(self) -> Any:
        s, t = self._all()
        if s.ndim == 2 and t.ndim == 1:
            t = (np.arange(s.shape[1]) == t[:, None]).astype(
                np.int64
            )  # also classes that do not occur
        return average_precision_score(t, s, average=self.average)


class LogLoss(Metric):
    """:func:`log_loss` over batches: the mean of -log of the probability of the true class.

    Args:
        task: "binary" or "multiclass"; as of :class:`Accuracy`, like ``num_classes`` and ``ignore_index``.
        logits: the scores are logits; nothing is clipped then. Without it they must be probabilities.

    Example:
        >>> loss = LogLoss()
        >>> loss.update([[0.9, 0.1], [0.2, 0.8]], [0, 1])
        >>> round(loss.compute(), 4)
        0.1643
    """

    def __init__(
        self,
        task: str | None = None,
        *,
        logits: bool = False,
        num_classes: int | None = None,
        ignore_index: int | None = None,
    ) -> None:
        if task == "multilabel":
            raise ValueError("LogLoss: task='multilabel'; it is 'binary' or 'multiclass'")
        self.logits = logits
        self.reader = Reader(
            "LogLoss", task, logits=logits, num_classes=num_classes, ignore_index=ignore_index
        )
        super().__init__()

    def reset(self) -> None:
        self.reader.reset()
        self.total, self.samples = 0.0, 0

    def update(self, scores: Any, targets: Any) -> None:
        """Count a batch; scores (N, C), or (N,) of class 1."""
        batch = self.reader.read(scores, targets)
        s, t = batch.scores, batch.targets
        if not len(t):
            return
        if batch.form == "classes" or batch.task == "multilabel":
            raise ValueError(f"LogLoss: expected scores (N, C) or (N,), got {batch.form} {s.shape}")
        if not self.logits:
            loss = minus_log(t, s if s.dtype.kind == "f" else s.astype(np.float64))
        elif batch.form == "rows":
            s = _below_top(s, "LogLoss")
            loss = np.log(np.exp(s).sum(1)) - np.take_along_axis(s, t[:, None], 1)[:, 0]
        else:  # softplus of the logit against the true class
            loss = np.logaddexp(0, np.where(t == 1, -1.0, 1.0) * s.astype(np.float64))
        self.reader.accept(batch)
        self.total += float(loss.sum(dtype=np.float64))
        self.samples += len(t)

    def compute(self) -> float:
        self._some(self.samples)
        return self.total / self.samples
