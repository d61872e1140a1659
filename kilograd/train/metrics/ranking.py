"""Metrics of scores: how well they order the samples, and how good probabilities they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np

from kilograd.train.metrics.classification import place
from kilograd.train.metrics.inputs import Array, as_in_sklearn, needs_sklearn, true_and_scores


def _steps(
    y: Array, score: Array, pos_label: Any, weight: Array | None
) -> tuple[Array, Array, Array]:
    """False and true positives at each distinct score, from the highest down, and the scores."""
    if score.ndim != 1:
        raise ValueError(f"expected scores (N,) of two classes, got the shape {score.shape}")
    classes = np.unique(y).tolist()
    if y.ndim == 2 or (len(classes) > 2 and pos_label is None):
        raise ValueError("a curve is of two classes: give y_true of two, or pos_label")
    if pos_label is None:
        if classes not in ([0], [1], [-1], [0, 1], [-1, 1]):
            raise ValueError(f"the classes are {classes}: pos_label must say which one is positive")
        pos_label = 1
    positive = (y == pos_label).astype(np.float64)
    if weight is not None:
        there = weight != 0
        positive, score, weight = positive[there], score[there], weight[there]
    order = np.argsort(score, kind="stable")[::-1]
    score, positive = score[order], positive[order]
    last = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)  # of samples that tie
    w = 1.0 if weight is None else weight[order]
    return np.cumsum((1 - positive) * w)[last], np.cumsum(positive * w)[last], score[last]


@as_in_sklearn(true_and_scores)
def roc_curve(
    y_true: Any,
    y_score: Any,
    *,
    pos_label: Any = None,
    sample_weight: Any = None,
    drop_intermediate: bool = True,
) -> tuple[Array, Array, Array]:
    """False positive rate, true positive rate, and the thresholds that give them, each (K,).

    Args:
        y_true: the classes, (N,); two of them.
        y_score: a score of each sample, (N,): probabilities or logits.
        pos_label: the positive class; by default 1, where the classes are 0 and 1, or -1 and 1.
        sample_weight: a weight per sample, (N,).
        drop_intermediate: leave out points on a straight line between others.

    Raises:
        ValueError: shapes that do not fit, no samples, NaN, more than two classes.

    Example:
        >>> fpr, tpr, thresholds = roc_curve([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
        >>> fpr, tpr
        (array([0. , 0. , 0.5, 0.5, 1. ]), array([0. , 0.5, 0.5, 1. , 1. ]))
    """
    return _roc(y_true, y_score, pos_label, sample_weight, drop_intermediate)


def _roc(
    y: Array, s: Array, pos: Any, weight: Array | None, drop: bool
) -> tuple[Array, Array, Array]:
    fps, tps, thresholds = _steps(y, s, pos, weight)
    if drop and len(fps) > 2:
        corner = (np.diff(fps, 2) != 0) | (np.diff(tps, 2) != 0)
        kept = np.concatenate([[True], corner, [True]])
        fps, tps, thresholds = fps[kept], tps[kept], thresholds[kept]
    rates = []
    for counts, name in ((fps, "negative"), (tps, "positive")):
        if counts[-1] <= 0:
            warnings.warn(f"there are no {name} samples: their rate is NaN", stacklevel=4)
        counts = np.append(0.0, counts)
        rates.append(counts / counts[-1] if counts[-1] > 0 else np.full(len(counts), np.nan))
    return rates[0], rates[1], np.append(np.inf, thresholds)


def _area(y: Array, s: Array, weight: Array | None = None) -> float:
    if len(np.unique(y)) != 2:
        warnings.warn("only one class is in y_true: its ROC AUC is NaN", stacklevel=4)
        return float("nan")
    fpr, tpr, _ = _roc(y, s, 1, weight, True)
    return float(np.trapezoid(tpr, fpr))


def _over_labels(
    binary: Callable[[Array, Array, Array | None], float],
    y: Array,
    s: Array,
    average: str | None,
    weight: Array | None,
) -> Any:
    """A metric of two classes for each column of y and s, and its average."""
    if average == "micro":
        w = None if weight is None else np.repeat(weight, y.shape[1])
        return binary(y.reshape(-1), s.reshape(-1), w)
    over: Array | None = None
    if average == "weighted":
        over = (y if weight is None else y * weight[:, None]).sum(0)
        if not over.sum():
            return 0.0
    if average == "samples":
        y, s, over, weight = y.T, s.T, weight, None
    each = np.array([binary(y[:, k], s[:, k], weight) for k in range(y.shape[1])])
    if average is None:
        return each
    if over is not None:
        each[over == 0] = 0  # NaN with no weight
    return float(np.average(each, weights=over))


def _check_average(average: Any) -> None:
    if average not in (None, "micro", "macro", "weighted", "samples"):
        raise ValueError(f"average={average!r}; None, 'micro', 'macro', 'weighted' or 'samples'")


@as_in_sklearn(true_and_scores)
def roc_auc_score(
    y_true: Any,
    y_score: Any,
    *,
    average: str | None = "macro",
    sample_weight: Any = None,
    max_fpr: float | None = None,
    multi_class: str = "raise",
    labels: Any = None,
) -> Any:
    """The area under the ROC curve: how probable a positive sample has a higher score than a negative one.

    Args:
        y_true: classes (N,), or labels (N, L) of 0 and 1.
        y_score: of two classes a score for the larger, (N,); of more, probabilities (N, C) that sum to 1; of
            labels one score each, (N, L).
        average: "macro", "weighted", "micro" (not for "ovo"), "samples" (of labels), or None for all.
        sample_weight: a weight per sample, (N,).
        max_fpr: area up to this false positive rate, standardized (needs scikit-learn).
        multi_class: "ovr", each class against the rest; "ovo", each pair of classes (Hand & Till,
            *A simple generalisation of the area under the ROC curve*, 2001).
        labels: all classes, sorted, where not all occur in ``y_true``.

    Returns:
        The area; NaN with a UserWarning where only one class occurs.

    Raises:
        ValueError: shapes that do not fit, no samples, NaN, more than two classes without ``multi_class``.
        ImportError: ``max_fpr`` without scikit-learn.

    Example:
        >>> roc_auc_score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
        0.75
    """
    _check_average(average)
    if max_fpr not in (None, 1):
        raise needs_sklearn("roc_auc_score(max_fpr=...)")
    if y_true.ndim == 2:
        return _over_labels(_area, y_true, y_score, average, sample_weight)
    classes = np.unique(y_true)
    if len(classes) <= 2 and (y_score.ndim == 1 or y_score.shape[1] == 2):
        if y_score.ndim == 2:
            raise ValueError(
                f"of two classes, expected scores (N,), got {y_score.shape}; give scores[:, 1]"
            )
        return _area((y_true == classes[-1]) & (len(classes) == 2), y_score, sample_weight)
    if multi_class not in ("ovr", "ovo"):
        raise ValueError(
            f"multi_class={multi_class!r}; of more than two classes it is 'ovr' or 'ovo'"
        )
    if y_score.ndim != 2 or not np.allclose(1, y_score.sum(1)):
        raise ValueError(
            f"expected probabilities (N, C) that sum to 1 over the classes, got scores {y_score.shape}"
        )
    code, n = _encoded(y_true, y_score, labels)
    if multi_class == "ovr":
        if average == "samples":
            raise ValueError("average='samples' is for labels (N, L)")
        return _over_labels(_area, np.arange(n) == code[:, None], y_score, average, sample_weight)
    if average not in ("macro", "weighted") or sample_weight is not None:
        raise ValueError(
            "multi_class='ovo' is averaged by 'macro' or 'weighted', without sample_weight"
        )
    if len(classes) < 2:
        warnings.warn("only one class is in y_true: its ROC AUC is NaN", stacklevel=3)
        return float("nan")
    areas, shares = [], []
    for a, b in combinations(np.unique(code), 2):
        pair = (code == a) | (code == b)
        areas.append(
            (_area(code[pair] == a, y_score[pair, a]) + _area(code[pair] == b, y_score[pair, b]))
            / 2
        )
        shares.append(pair.mean())
    return float(np.average(areas, weights=shares if average == "weighted" else None))


def _encoded(y: Array, score: Array, labels: Any) -> tuple[Array, int]:
    """Classes as columns of the scores, and how many there are."""
    classes = np.unique(y) if labels is None else labels
    n = score.shape[1] if score.ndim == 2 else 2
    if len(classes) != n:
        raise ValueError(
            f"{len(classes)} classes, but scores {score.shape}: labels says which there are"
        )
    if (np.unique(classes) != classes).any():
        raise ValueError(f"labels must be sorted, got {classes.tolist()}")
    code = place(y, classes)
    if (code == n).any():
        raise ValueError(f"y_true holds {y[code == n][0]!r}, which is not in labels")
    return code, n


@as_in_sklearn(true_and_scores)
def precision_recall_curve(
    y_true: Any,
    y_score: Any,
    *,
    pos_label: Any = None,
    sample_weight: Any = None,
    drop_intermediate: bool = False,
) -> tuple[Array, Array, Array]:
    """Precision (K+1,) and recall (K+1,) where scores from each threshold (K,) up count as positive.

    The arguments are those of :func:`roc_curve`; the last point is precision 1 and recall 0.

    Example:
        >>> precision, recall, thresholds = precision_recall_curve([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
        >>> recall
        array([1. , 1. , 0.5, 0.5, 0. ])
    """
    return _pr(y_true, y_score, pos_label, sample_weight, drop_intermediate)


def _pr(
    y: Array, s: Array, pos: Any, weight: Array | None, drop: bool
) -> tuple[Array, Array, Array]:
    fps, tps, thresholds = _steps(y, s, pos, weight)
    if drop and len(fps) > 2:
        moves = (np.diff(tps[:-1]) != 0) | (np.diff(tps[1:]) != 0)
        kept = np.concatenate([[True], moves, [True]])
        fps, tps, thresholds = fps[kept], tps[kept], thresholds[kept]
    precision = np.divide(tps, tps + fps, out=np.zeros(len(tps)), where=tps + fps != 0)
    if tps[-1] == 0:
        warnings.warn("there are no positive samples: recall is 1 at each threshold", stacklevel=4)
    recall = tps / tps[-1] if tps[-1] != 0 else np.ones(len(tps))
    return np.append(precision[::-1], 1.0), np.append(recall[::-1], 0.0), thresholds[::-1]


@as_in_sklearn(true_and_scores)
def average_precision_score(
    y_true: Any,
    y_score: Any,
    *,
    average: str | None = "macro",
    pos_label: Any = 1,
    sample_weight: Any = None,
) -> Any:
    """The mean precision over recall: Σ (Rₖ - Rₖ₋₁) Pₖ, without interpolation.

    Args:
        y_true: classes (N,), or labels (N, L) of 0 and 1.
        y_score: scores (N,), of labels (N, L), of more than two classes (N, C).
        average: "macro", "weighted", "micro", "samples", or None for all.
        pos_label: the positive one of two classes.
        sample_weight: a weight per sample, (N,).

    Raises:
        ValueError: shapes that do not fit, no samples, NaN.

    Example:
        >>> round(average_precision_score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 4)
        0.8333
    """
    _check_average(average)

    def binary(y: Array, s: Array, weight: Array | None) -> float:
        precision, recall, _ = _pr(y, s, pos_label, weight, False)
        return float(max(0.0, -(np.diff(recall) * precision[:-1]).sum()))

    classes = np.unique(y_true)
    if y_true.ndim == 1 and len(classes) <= 2:
        if len(classes) == 2 and pos_label not in classes.tolist():
            raise ValueError(
                f"pos_label={pos_label!r} is not one of the classes {classes.tolist()}"
            )
        return binary(y_true, y_score, sample_weight)
    if pos_label != 1:
        raise ValueError("pos_label is for two classes")
    if y_true.ndim == 1:
        code, n = _encoded(y_true, y_score, None)
        y_true = np.arange(n) == code[:, None]
    return _over_labels(binary, y_true, y_score, average, sample_weight)


@as_in_sklearn(true_and_scores)
def top_k_accuracy_score(
    y_true: Any,
    y_score: Any,
    *,
    k: int = 2,
    normalize: bool = True,
    sample_weight: Any = None,
    labels: Any = None,
) -> float:
    """The fraction of samples whose class is among the k with the highest scores.

    Args:
        y_true: the classes, (N,).
        y_score: scores (N, C), or (N,) of two classes.
        k: how many classes may be named; of those that tie, the later ones come first.
        normalize: False gives the number of samples (the sum of their weights).
        sample_weight: a weight per sample, (N,).
        labels: all classes, sorted, where not all occur in ``y_true``.

    Raises:
        ValueError: shapes that do not fit, no samples, NaN.

    Example:
        >>> top_k_accuracy_score([0, 1, 2], [[0.5, 0.3, 0.2], [0.6, 0.3, 0.1], [0.5, 0.4, 0.1]], k=2)
        0.6666666666666666
    """
    if k < 1:
        raise ValueError(f"k={k}; it is at least 1")
    classes = np.unique(y_true)
    two = len(classes) <= 2 and (labels is None or len(labels) <= 2)
    if y_true.ndim == 2 or (two and y_score.ndim == 2) or (not two and y_score.ndim == 1):
        raise ValueError(
            f"top_k_accuracy_score: y_true {y_true.shape} of {len(classes)} classes does not go with scores "
            f"{y_score.shape}: expected (N, C), (N,) of two classes; labels says which classes there are"
        )
    code, n = _encoded(y_true, y_score, labels)
    if k >= n:
        warnings.warn(f"k={k} of {n} classes is always right", stacklevel=3)
    if two:
        threshold = 0.5 if y_score.min() >= 0 and y_score.max() <= 1 else 0
        hits = (y_score > threshold) == code if k == 1 else np.ones(len(code), bool)
    else:
        hits = in_top(code, y_score, k)
    if normalize:
        return float(np.average(hits, weights=sample_weight))
    return float(hits.sum() if sample_weight is None else hits @ sample_weight)


def in_top(code: Array, score: Array, k: int) -> Array:
    """Whether class ``code[i]`` is among the k highest of ``score[i]``, (N,) bool."""
    named = np.argsort(score, axis=1, kind="stable")[:, ::-1][:, :k]
    return (named == code[:, None]).any(1)


@as_in_sklearn(true_and_scores)
def log_loss(
    y_true: Any,
    y_proba: Any,
    *,
    normalize: bool = True,
    sample_weight: Any = None,
    labels: Any = None,
) -> float:
    """The mean of -log p, with p the probability given to the true class (cross-entropy).

    Args:
        y_true: the classes, (N,).
        y_proba: probabilities (N, C), or (N,) of the larger of two classes; clipped by the ε of their dtype.
        normalize: False gives the sum.
        sample_weight: a weight per sample, (N,).
        labels: all classes, sorted, where not all occur in ``y_true``.

    Raises:
        ValueError: shapes that do not fit, no samples, NaN, or values outside [0, 1].

    Example:
        >>> round(log_loss([0, 1], [[0.9, 0.1], [0.2, 0.8]]), 4)
        0.1643
    """
    if y_true.ndim == 2:
        raise ValueError(f"log_loss: expected classes (N,), got labels {y_true.shape}")
    if len(np.unique(y_true)) < 2 and labels is None:
        raise ValueError("log_loss: y_true holds only one class; give all of them in labels")
    code, _ = _encoded(y_true, y_proba, labels)
    loss = minus_log(code, y_proba)
    if normalize:
        return float(np.average(loss, weights=sample_weight))
    return float(loss.sum() if sample_weight is None else loss @ sample_weight)


def minus_log(code: Array, proba: Array) -> Array:
    """-log of the probability of class ``code[i]``, (N,)."""
    if proba.min() < 0 or proba.max() > 1:
        raise ValueError(f"probabilities are in [0, 1], got {proba.min()} to {proba.max()}")
    if proba.ndim == 1:
        proba = np.stack([1 - proba, proba], 1)
    eps = np.finfo(proba.dtype).eps
    if not np.allclose(proba.sum(1), 1, rtol=float(eps) ** 0.5):
        warnings.warn("the probabilities do not sum to one over the classes", stacklevel=4)
    return -np.log(np.clip(np.take_along_axis(proba, code[:, None], 1)[:, 0], eps, 1 - eps))
