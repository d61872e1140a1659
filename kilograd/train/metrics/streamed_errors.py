"""Metrics of predicted numbers over batches: sums of errors, and the variance put together from parts."""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.train.metrics.inputs import Array, array_of, column, no_nan
from kilograd.train.metrics.metric import Metric
from kilograd.train.metrics.regression import OVER_OUTPUTS, explained


def _values(scores: Any, targets: Any, name: str) -> tuple[Array, Array]:
    """Predictions and targets of one shape, in float64."""
    s, t = (
        column(array_of(x, f"{name}: {w}")) for x, w in ((scores, "scores"), (targets, "targets"))
    )
    if "U" in (s.dtype.kind, t.dtype.kind):
        raise TypeError(f"{name}: scores and targets must be numbers, got strings")
    if s.shape != t.shape or s.ndim == 0:
        raise ValueError(
            f"{name}: the scores have the shape {s.shape}, the targets {t.shape}; expected one shape (N, ...)"
        )
    no_nan(s, f"{name}: scores")
    no_nan(t, f"{name}: targets")
    return s.astype(np.float64), t.astype(np.float64)


class MeanSquaredError(Metric):
    """The mean of (y - ŷ)² over all elements of all batches: :func:`mean_squared_error`.

    Scores and targets have one shape, (N, ...); (N,) and (N, 1) are one shape.

    Example:
        >>> mse = MeanSquaredError()
        >>> mse.update([1.0, 4.0], [1.0, 2.0])
        >>> mse.compute()
        2.0
    """

    def reset(self) -> None:
        self.total, self.elements = 0.0, 0

    def update(self, scores: Any, targets: Any) -> None:
        """Count a batch of predictions and targets.

        Raises:
            ValueError: the shapes differ, NaN or infinity.
        """
        s, t = _values(scores, targets, type(self).__name__)
        self.total += float(self._error(s - t).sum())
        self.elements += s.size

    def _error(self, difference: Array) -> Array:
        return difference**2

    def compute(self) -> float:
        self._some(self.elements)
        return self.total / self.elements


class RootMeanSquaredError(MeanSquaredError):
    """√ of :class:`MeanSquaredError`, of all elements together (not of each output, as the function).

    Example:
        >>> rmse = RootMeanSquaredError()
        >>> rmse.update([3.0, 3.0], [0.0, 0.0])
        >>> rmse.compute()
        3.0
    """

    def compute(self) -> float:
        return float(np.sqrt(super().compute()))


class MeanAbsoluteError(MeanSquaredError):
    """The mean of |y - ŷ| over all elements of all batches: :func:`mean_absolute_error`.

    Example:
        >>> mae = MeanAbsoluteError()
        >>> mae.update([1.0, 4.0], [1.0, 2.0])
        >>> mae.compute()
        1.0
    """

    def _error(self, difference: Array) -> Array:
        return np.abs(difference)


class R2Score(Metric):
    """:func:`r2_score` over batches of (N,) or (N, D).

    The means and the sums of squares of the batches are put together as Chan, Golub & LeVeque do (*Updating
    formulae and a pairwise algorithm for computing sample variances*, 1979): Σy² - (Σy)²/n would lose all digits
    where the mean is large.

    Args:
        multioutput: "uniform_average", "variance_weighted", or "raw_values" for one value per output, (D,).
        force_finite: as in :func:`r2_score`.

    Example:
        >>> r2 = R2Score()
        >>> r2.update([1.0, 2.0], [1.0, 2.0])
        >>> r2.update([2.0], [3.0])
        >>> r2.compute()
        0.5
    """

    def __init__(self, *, multioutput: str = "uniform_average", force_finite: bool = True) -> None:
        if multioutput not in OVER_OUTPUTS:
            raise ValueError(f"R2Score: multioutput={multioutput!r}; it is one of {OVER_OUTPUTS}")
        self.multioutput, self.force_finite = multioutput, force_finite
        super().__init__()

    def reset(self) -> None:
        self.samples = 0
        self.error = self.center = self.spread = np.zeros(0)  # Σ(y - ŷ)², ȳ, Σ(y - ȳ)², each (D,)

    def update(self, scores: Any, targets: Any) -> None:
        """Count a batch of predictions and targets.

        Raises:
            ValueError: the shapes differ from each other or from those before, NaN or infinity.
        """
        s, t = _values(scores, targets, "R2Score")
        if s.ndim > 2:
            raise ValueError(f"R2Score: expected the shape (N,) or (N, D), got {s.shape}")
        if not s.size:
            return
        s, t = s.reshape(len(s), -1), t.reshape(len(t), -1)
        center = t.mean(0)
        error, spread = ((s - t) ** 2).sum(0), ((t - center) ** 2).sum(0)
        if self.samples:
            if error.shape != self.error.shape:
                raise ValueError(
                    f"R2Score: {len(error)} outputs, the batches before had {len(self.error)}"
                )
            n, m = self.samples, len(t)
            apart = center - self.center
            error = error + self.error
            spread = spread + self.spread + apart**2 * (n * m / (n + m))
            center = self.center + apart * (m / (n + m))
        self.samples += len(t)
        self.error, self.center, self.spread = error, center, spread

    def compute(self) -> Any:
        self._some(self.samples)
        return explained(self.samples, self.error, self.spread, self.multioutput, self.force_finite)
