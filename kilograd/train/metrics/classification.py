"""Metrics of predicted classes: all of them are ratios of counts."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from kilograd.train.metrics.inputs import Array, as_in_sklearn, same_kind, two_classes

AVERAGES = (None, "binary", "micro", "macro", "weighted", "samples")
WARN = ("precision", "recall", "f-score")
NOTHING = {"precision": "predicted", "recall": "true", "f-score": "true or predicted"}


@as_in_sklearn(two_classes)
def accuracy_score(
    y_true: Any, y_pred: Any, *, normalize: bool = True, sample_weight: Any = None
) -> float:
    """The fraction of samples whose class is right; of several labels, all must be right.

    Args:
        y_true: the true classes, (N,) integers, whole floats, bools or strings; or labels (N, L) of 0 and 1.
        y_pred: the predicted ones, of the same shape.
        normalize: False gives the number of samples (the sum of their weights), not the fraction.
        sample_weight: a weight per sample, (N,).

    Raises:
        ValueError: the shapes differ, there are no samples, NaN, or scores in place of classes.

    Example:
        >>> import kilograd as kg
        >>> scores = kg.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.5]])
        >>> accuracy_score([0, 1, 1], scores.argmax(1))
        0.6666666666666666
    """
    right = (y_true == y_pred).reshape(len(y_true), -1).all(1)
    if normalize:
        return float(np.average(right, weights=sample_weight))
    return float(right.sum() if sample_weight is None else right @ sample_weight)


@as_in_sklearn(two_classes)
def hamming_loss(y_true: Any, y_pred: Any, *, sample_weight: Any = None) -> float:
    """The fraction of wrong labels: one minus the accuracy per label. See :func:`accuracy_score`.

    Example:
        >>> hamming_loss([[1, 0], [1, 1]], [[1, 0], [0, 1]])
        0.25
    """
    wrong = (y_true != y_pred).reshape(len(y_true), -1).mean(1)
    return float(np.average(wrong, weights=sample_weight))


@as_in_sklearn(two_classes)
def confusion_matrix(
    y_true: Any,
    y_pred: Any,
    *,
    labels: Any = None,
    sample_weight: Any = None,
    normalize: str | None = None,
) -> Array:
    """How many samples of each true class (down) were taken for which (across), (C, C).

    Args:
        y_true: the true classes, (N,).
        y_pred: the predicted classes, (N,).
        labels: the classes to count, in this order; by default all that occur, sorted.
        sample_weight: a weight per sample, (N,).
        normalize: "true" divides by the sum of each row, "pred" of each column, "all" of everything.

    Raises:
        ValueError: as :func:`accuracy_score`; labels (N, L); no true class is in ``labels``.

    Example:
        >>> confusion_matrix(["cat", "dog", "dog"], ["dog", "dog", "dog"])
        array([[0, 1], [0, 2]])
    """
    if y_true.ndim == 2:
        raise ValueError(f"confusion_matrix: expected classes (N,), got labels {y_true.shape}")
    if normalize not in (None, "true", "pred", "all"):
        raise ValueError(
            f"confusion_matrix: normalize={normalize!r}; None, 'true', 'pred' or 'all'"
        )
    if labels is None:
        labels = np.unique(np.concatenate([y_true, y_pred]))
    elif not np.isin(y_true, labels).any():
        raise ValueError("confusion_matrix: none of the labels is in y_true")
    n = len(labels)
    i, j = place(y_true, labels), place(y_pred, labels)
    known = (i < n) & (j < n)
    weight = None if sample_weight is None else sample_weight[known]
    counts = np.bincount(i[known] * n + j[known], weight, n * n).reshape(n, n)
    if n == 1:
        warnings.warn("confusion_matrix: only one class; give all of them in labels", stacklevel=3)
    if weight is not None and weight.dtype.kind in "iu":
        counts = counts.astype(np.int64)
    return normalized(counts, normalize)


def normalized(counts: Array, normalize: str | None) -> Array:
    """A confusion matrix as fractions; 0 where there is nothing to divide by."""
    if normalize is None:
        return counts
    total = counts.sum({"true": 1, "pred": 0, "all": None}[normalize], keepdims=True)
    return np.divide(counts, total, out=np.zeros(counts.shape), where=total != 0)


def place(values: Array, labels: Array) -> Array:
    """The position of each value in ``labels``, or their number for one that is not there."""
    same_kind(values, labels, "y_true and labels")
    order = np.argsort(labels, kind="stable")
    at = order[np.minimum(np.searchsorted(labels, values, sorter=order), len(labels) - 1)]
    return np.where(labels[at] == values, at, len(labels))


@as_in_sklearn(two_classes)
def precision_recall_fscore_support(
    y_true: Any,
    y_pred: Any,
    *,
    beta: float = 1.0,
    labels: Any = None,
    pos_label: Any = 1,
    average: str | None = None,
    warn_for: Collection[str] = WARN,
    sample_weight: Any = None,
    zero_division: Any = "warn",
) -> tuple[Any, Any, Any, Any]:
    """Precision, recall, F-score, and the number of samples of each class.

    With TP the samples rightly taken for a class, P = TP / all taken for it, R = TP / all that are of it, and
    F = (1 + β²) P R / (β² P + R) (van Rijsbergen, *Information Retrieval*, 1979, chapter 7).

    Args:
        y_true: the true classes, (N,), or labels (N, L) of 0 and 1.
        y_pred: the predicted ones, of the same shape.
        beta: the weight of recall against precision, 0 to infinity.
        labels: the classes (or numbers of labels) to look at; by default all that occur.
        pos_label: the class that ``average="binary"`` is about.
        average: None gives an array with one value per class; "binary" the value of ``pos_label``; "macro"
            the mean over the classes, "weighted" weighted by their true samples; "micro" counts all classes
            together; "samples" is the mean over samples, of labels (N, L).
        warn_for: which of "precision", "recall" and "f-score" warn.
        sample_weight: a weight per sample, (N,).
        zero_division: the value of 0/0: 0.0, 1.0 or NaN (left out of averages); "warn" is 0.0 and a UserWarning.

    Returns:
        (precision, recall, F-score, support); the support is None with an average.

    Raises:
        ValueError: as :func:`accuracy_score`; ``average="binary"`` of more than two classes; an unknown option.

    Example:
        >>> p, r, f, support = precision_recall_fscore_support([0, 0, 1, 1], [0, 1, 1, 1], average="binary")
        >>> round(p, 4), r, round(f, 4)
        (0.6667, 1.0, 0.8)
    """
    return prf(
        y_true, y_pred, beta, labels, pos_label, average, warn_for, sample_weight, zero_division
    )


def prf(
    true: Array,
    pred: Array,
    beta: float = 1.0,
    labels: Any = None,
    pos_label: Any = 1,
    average: str | None = None,
    warn_for: Collection[str] = WARN,
    weight: Array | None = None,
    zero_division: Any = "warn",
) -> tuple[Any, Any, Any, Any]:
    """:func:`precision_recall_fscore_support` in NumPy."""
    present = (
        np.arange(true.shape[1]) if true.ndim == 2 else np.unique(np.concatenate([true, pred]))
    )
    if average == "binary":
        if true.ndim == 2 or len(present) > 2:
            raise ValueError(
                "average='binary', but there are several labels or more than two classes: give average=None, "
                "'micro', 'macro' or 'weighted'"
            )
        if len(present) == 2 and pos_label not in present.tolist():
            raise ValueError(
                f"pos_label={pos_label!r} is not one of the classes {present.tolist()}"
            )
        labels = np.asarray([pos_label])
    elif pos_label not in (None, 1):
        warnings.warn(f"pos_label={pos_label!r} is used by average='binary' only", stacklevel=4)
    if labels is None:
        labels = present
    if true.ndim == 2:
        if not np.isin(labels, present).all():
            raise ValueError(
                f"labels must be numbers of labels, 0 to {true.shape[1] - 1}, got {labels}"
            )
        axis = 1 if average == "samples" else 0
        w = np.int64(1) if weight is None else weight[:, None]
        t, p = true[:, labels].astype(bool), pred[:, labels].astype(bool)
        tp, taken, of_it = ((x * w).sum(axis) for x in (t & p, p, t))
    else:
        if average == "samples":
            raise ValueError("average='samples' is for labels (N, L)")
        n = len(labels)
        if average == "binary" and true.dtype.kind != labels.dtype.kind and "U" in (
            true.dtype.kind, labels.dtype.kind
        ):  # fmt: skip
            i = j = np.full(len(true), n)  # one class only, and pos_label is of another kind
        else:
            i, j = place(true, labels), place(pred, labels)
        hit = i == j
        hits = np.bincount(i[hit], None if weight is None else weight[hit], n + 1)
        tp, taken, of_it = hits[:n], *(np.bincount(k, weight, n + 1)[:n] for k in (j, i))
    return from_counts(tp, taken, of_it, beta, average, zero_division, warn_for, weight)


def from_counts(
    tp: Array,
    predicted: Array,
    true: Array,
    beta: float,
    average: str | None,
    zero_division: Any,
    warn_for: Collection[str] = WARN,
    weight: Array | None = None,
) -> tuple[Any, Any, Any, Any]:
    """Precision, recall, F-score and support from what was counted for each class (or sample)."""
    check_options(beta, average, zero_division)
    if average == "micro":
        tp, predicted, true = (c.sum(keepdims=True) for c in (tp, predicted, true))

    def ratio(a: Array, b: Array, name: str) -> Array:
        warn = isinstance(zero_division, str)
        if warn and name in warn_for and (b == 0).any():
            warnings.warn(
                f"{name} is 0.0 where there are no {NOTHING[name]} samples; zero_division sets another value",
                stacklevel=2,
            )
        empty = np.full(len(b), 0.0 if warn else float(zero_division))
        return np.divide(a, b, out=empty, where=b != 0)

    precision, recall = ratio(tp, predicted, "precision"), ratio(tp, true, "recall")
    if beta == 0 or np.isposinf(beta):
        f_score = precision if beta == 0 else recall
    else:
        b2 = float(beta) ** 2
        f_score = ratio((1 + b2) * tp, b2 * true + predicted, "f-score")
    if average is None:
        return precision, recall, f_score, true
    w = true if average == "weighted" else weight if average == "samples" else None
    return mean(precision, w), mean(recall, w), mean(f_score, w), None


def check_options(beta: float, average: str | None, zero_division: Any) -> None:
    """Raise ValueError for an option that is not known."""
    if average not in AVERAGES:
        raise ValueError(f"average={average!r}; it is one of {AVERAGES}")
    if not beta >= 0:
        raise ValueError(f"beta={beta}; it is a number from 0 to infinity")
    if zero_division != "warn" and (
        isinstance(zero_division, (str, bool))
        or not (zero_division in (0, 1) or np.isnan(zero_division))
    ):
        raise ValueError(f"zero_division={zero_division!r}; it is 'warn', 0.0, 1.0 or NaN")


def mean(values: Array, weight: Array | None) -> float:
    """The average without NaN; unweighted where all weights are zero."""
    there = ~np.isnan(values)
    if not there.any():
        return float("nan")
    w = None if weight is None else weight[there]
    return float(np.average(values[there], weights=None if w is None or w.sum() == 0 else w))


@as_in_sklearn(two_classes)
def precision_score(
    y_true: Any,
    y_pred: Any,
    *,
    labels: Any = None,
    pos_label: Any = 1,
    average: str | None = "binary",
    sample_weight: Any = None,
    zero_division: Any = "warn",
) -> Any:
    """Of the samples taken for a class, the fraction that is of it; see :func:`precision_recall_fscore_support`.

    Example:
        >>> precision_score([0, 0, 1, 1], [0, 1, 1, 1], average=None)
        array([1. , 0.66666667])
    """
    return prf(
        y_true, y_pred, 1.0, labels, pos_label, average, WARN[:1], sample_weight, zero_division
    )[0]  # fmt: skip


@as_in_sklearn(two_classes)
def recall_score(
    y_true: Any,
    y_pred: Any,
    *,
    labels: Any = None,
    pos_label: Any = 1,
    average: str | None = "binary",
    sample_weight: Any = None,
    zero_division: Any = "warn",
) -> Any:
    """Of the samples of a class, the fraction taken for it; see :func:`precision_recall_fscore_support`.

    Example:
        >>> recall_score([0, 0, 1, 1], [0, 1, 1, 1], average="macro")
        0.75
    """
    return prf(
        y_true, y_pred, 1.0, labels, pos_label, average, WARN[1:2], sample_weight, zero_division
    )[1]  # fmt: skip


@as_in_sklearn(two_classes)
def fbeta_score(
    y_true: Any,
    y_pred: Any,
    *,
    beta: float,
    labels: Any = None,
    pos_label: Any = 1,
    average: str | None = "binary",
    sample_weight: Any = None,
    zero_division: Any = "warn",
) -> Any:
    """Precision and recall in one number; see :func:`precision_recall_fscore_support`.

    Example:
        >>> round(fbeta_score([0, 0, 1, 1], [0, 1, 1, 1], beta=2), 4)
        0.9091
    """
    return prf(
        y_true, y_pred, beta, labels, pos_label, average, WARN[2:], sample_weight, zero_division
    )[2]  # fmt: skip


@as_in_sklearn(two_classes)
def f1_score(
    y_true: Any,
    y_pred: Any,
    *,
    labels: Any = None,
    pos_label: Any = 1,
    average: str | None = "binary",
    sample_weight: Any = None,
    zero_division: Any = "warn",
) -> Any:
    """The harmonic mean of precision and recall; see :func:`precision_recall_fscore_support`.

    Example:
        >>> f1_score([0, 0, 1, 1], [0, 1, 1, 1])
        0.8
    """
    return prf(
        y_true, y_pred, 1.0, labels, pos_label, average, WARN[2:], sample_weight, zero_division
    )[2]  # fmt: skip


@as_in_sklearn(two_classes)
def classification_report(
    y_true: Any,
    y_pred: Any,
    *,
    labels: Any = None,
    target_names: Sequence[str] | None = None,
    sample_weight: Any = None,
    digits: int = 2,
    output_dict: bool = False,
    zero_division: Any = "warn",
) -> str | dict[str, Any]:
    """Precision, recall and F1 of every class and on average, as a table or as a dict.

    Args:
        y_true: the true classes, (N,), or labels (N, L) of 0 and 1.
        y_pred: the predicted ones, of the same shape.
        labels: the classes to list; by default all that occur.
        target_names: their names, in the same order.
        sample_weight: a weight per sample, (N,).
        digits: digits after the point in the text.
        output_dict: give a dict of dicts of unrounded floats.
        zero_division: see :func:`precision_recall_fscore_support`.

    Raises:
        ValueError: as :func:`accuracy_score`; more or fewer names than classes.

    Example:
        >>> report = classification_report([0, 0, 1], [0, 1, 1], target_names=["cat", "dog"], output_dict=True)
        >>> report["cat"]
        {'precision': 1.0, 'recall': 0.5, 'f1-score': 0.6666666666666666, 'support': 2.0}
    """
    several = y_true.ndim == 2
    present = np.arange(y_true.shape[1]) if several else np.unique(np.concatenate([y_true, y_pred]))
    listed = present if labels is None else labels
    if target_names is not None and len(target_names) != len(listed):
        message = f"{len(target_names)} target_names for {len(listed)} classes"
        if labels is None:
            raise ValueError(
                f"classification_report: {message}; labels says which classes there are"
            )
        warnings.warn(message, stacklevel=3)
    names = [str(c) for c in listed] if target_names is None else list(target_names)

    def values(average: str | None) -> tuple[Any, Any, Any, Any]:
        return prf(
            y_true, y_pred, 1.0, listed, 1, average, WARN, sample_weight, zero_division
        )  # fmt: skip

    *scores, support = values(None)
    rows: dict[str, tuple[Any, ...]] = dict(
        zip(names, zip(*scores, support, strict=True), strict=False)
    )
    averages = {a: (*values(a)[:3], support.sum()) for a in ("micro", "macro", "weighted")}
    if several:
        averages["samples"] = (*values("samples")[:3], support.sum())
    one = not several and np.isin(present, listed).all()  # then micro is the accuracy
    last = {"accuracy" if one and a == "micro" else f"{a} avg": v for a, v in averages.items()}
    heads = ("precision", "recall", "f1-score", "support")
    if output_dict:
        found: dict[str, Any] = {
            name: dict(zip(heads, map(float, row), strict=True))
            for name, row in (rows | last).items()
        }
        if one:
            found["accuracy"] = found["accuracy"]["precision"]
        return found

    wide = max(*map(len, names), len("weighted avg"), digits)
    lines = [f"{'':>{wide}} " + "".join(f" {h:>9}" for h in heads), ""]
    for part in (rows, last):
        for name, row in part.items():
            cells = [f"{v:>9.{digits}f}" for v in row[:3]]
            if name == "accuracy" and part is last:
                cells[:2] = [" " * 9] * 2
            lines.append(f"{name:>{wide}}  " + " ".join([*cells, f"{row[3]:>9}"]))
        lines.append("")
    return "\n".join(lines)
