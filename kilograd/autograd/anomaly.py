"""Anomaly mode: the first gradient that turns NaN names its operation and the user's line."""

from __future__ import annotations

from typing import Any

from kilograd.autograd.modes import MODE, ModeContext


class detect_anomaly(ModeContext):
    """Remember where each operation was called; raise when its gradient is NaN.

    It costs a stack walk per operation: for debugging only.

    >>> import kilograd as kg
    >>> x = kg.tensor(-1.0, requires_grad=True)
    >>> with kg.autograd.detect_anomaly():
    ...     x.sqrt().backward()
    Traceback (most recent call last):
        ...
    kilograd.errors.GradError: Function 'SqrtBackward0' returned nan values in its 0th output...
    """

    def __init__(self, check_nan: bool = True) -> None:
        super().__init__(anomaly=True, check_nan=check_nan)


class set_detect_anomaly(ModeContext):
    """Turn anomaly mode on or off: at once when called, for the block when entered."""

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        super().__init__(anomaly=bool(mode), check_nan=check_nan)
        self._before = MODE.get()
        MODE.set(self._before._replace(anomaly=bool(mode), check_nan=check_nan))

    def __enter__(self) -> Any:
        MODE.set(self._before)
        return super().__enter__()


def is_anomaly_enabled() -> bool:
    """Whether anomaly mode is on."""
    return MODE.get().anomaly
