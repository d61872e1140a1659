"""Metrics of predicted numbers: errors, and how much of the variance is explained."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from kilograd.train.metrics.inputs import Array, as_in_sklearn, two_values

OVER_OUTPUTS = ("uniform_average", "raw_values", "variance_weighted")  # the last of R² only


def _over_outputs(values: Array, multioutput: Any, variance: Array | None = None) -> Any:
    """One number from one per output (D,), as ``multioutput`` says."""
    if isinstance(multioutput, str):
        if multioutput == "raw_values":
            return values
        if multioutput == "variance_weighted" and variance is not None:
            return float(np.average(values, weights=variance if variance.any() else None))
        if multioutput != "uniform_average":
            raise ValueError(
                f"multioutput={multioutput!r}; it is one of {OVER_OUTPUTS[:2]}, or weights"
            )
        return float(values.mean())
    return float(np.average(values, weights=multioutput))


def _mean_error(error: Array, weight: Array | None) -> Array:
    return np.asarray(np.average(error.reshape(len(error), -1), axis=0, weights=weight))


@as_in_sklearn(two_values)
def mean_squared_error(
    y_true: Any, y_pred: Any, *, sample_weight: Any = None, multioutput: Any = "uniform_average"
) -> Any:
    """The mean of (y - ŷ)².

    Args:
        y_true: the targets, (N,) or (N, D).
        y_pred: the predictions, of the same shape.
        sample_weight: a weight per sample, (N,).
        multioutput: "uniform_average" is the mean over the D outputs, "raw_values" gives all, (D,); or D weights.

    Raises:
        ValueError: the shapes differ, there are no samples, NaN or infinity.

    Example:
        >>> import kilograd as kg
        >>> mean_squared_error([1.0, 2.0], kg.tensor([1.0, 4.0]))
        2.0
    """
    return _over_outputs(_mean_error((y_true - y_pred) ** 2, sample_weight), multioutput)


@as_in_sklearn(two_values)
def root_mean_squared_error(
    y_true: Any, y_pred: Any, *, sample_weight: Any = None, multioutput: Any = "uniform_average"
) -> Any:
    """√ of :func:`mean_squared_error`, of each output before they are averaged.

    Example:
        >>> root_mean_squared_error([0.0, 0.0], [3.0, 3.0])
        3.0
    """
    return _over_outputs(np.sqrt(_mean_error((y_true - y_pred) ** 2, sample_weight)), multioutput)


@as_in_sklearn(two_values)
def mean_absolute_error(
    y_true: Any, y_pred: Any, *, sample_weight: Any = None, multioutput: Any = "uniform_average"
) -> Any:
    """The mean of |y - ŷ|; see :func:`mean_squared_error`.

    Example:
        >>> mean_absolute_error([1.0, 2.0], [1.0, 4.0])
        1.0
    """
    return _over_outputs(_mean_error(np.abs(y_true - y_pred), sample_weight), multioutput)


@as_in_sklearn(two_values)
def r2_score(
    y_true: Any,
    y_pred: Any,
    *,
    sample_weight: Any = None,
    multioutput: Any = "uniform_average",
    force_finite: bool = True,
) -> Any:
    """R² = 1 - Σ(y - ŷ)² / Σ(y - ȳ)², the fraction of the variance that is predicted.

    Args:
        y_true: the targets, (N,) or (N, D).
        y_pred: the predictions, of the same shape.
        sample_weight: a weight per sample, (N,).
        multioutput: as :func:`mean_squared_error`; "variance_weighted" weights the outputs by their variance.
        force_finite: for a constant target give 1.0 if the prediction is perfect and 0.0 if not; False gives NaN
            and -inf.

    Returns:
        The score; NaN with a UserWarning for a single sample.

    Raises:
        ValueError: as :func:`mean_squared_error`.

    Example:
        >>> r2_score([1.0, 2.0, 3.0], [1.0, 2.0, 2.0])
        0.5
    """
    true, pred = y_true.reshape(len(y_true), -1), y_pred.reshape(len(y_true), -1)
    weight = np.ones((len(true), 1)) if sample_weight is None else sample_weight[:, None]
    center = np.average(true, axis=0, weights=sample_weight)
    error, spread = (weight * (true - pred) ** 2).sum(0), (weight * (true - center) ** 2).sum(0)
    return explained(len(true), error, spread, multioutput, force_finite)


def explained(n: int, error: Array, spread: Array, multioutput: Any, force_finite: bool) -> Any:
    """R² from the sums of squares of each output."""
    if isinstance(multioutput, str) and multioutput not in OVER_OUTPUTS:
        raise ValueError(f"multioutput={multioutput!r}; it is one of {OVER_OUTPUTS}, or weights")
    if n < 2:
        warnings.warn("R² is not defined for fewer than two samples", stacklevel=3)
        return float("nan")
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = 1 - error / spread
    if force_finite:
        scores = np.where(spread != 0, scores, np.where(error == 0, 1.0, 0.0))
    return _over_outputs(scores, multioutput, spread)
