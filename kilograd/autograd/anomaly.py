"""Anomaly mode: the first gradient that turns NaN names its operation and the user's line."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING, Any

import numpy as np

from kilograd.autograd.modes import MODE, ModeContext
from kilograd.errors import GradError

if TYPE_CHECKING:
    from kilograd.autograd.driver import Edge, Node

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


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


def users_lines() -> str:
    """Where in the user's code an operation is called."""
    frames = [f for f in traceback.extract_stack() if not f.filename.startswith(_PACKAGE)]
    return "".join(traceback.format_list(frames[-3:]))


def check_nan(node: Node, shares: list[tuple[Edge, Any]]) -> None:
    """Raise if a share of a node's gradient is NaN."""
    for i, (_, share) in enumerate(shares):
        array: Any = getattr(share, "array", share)
        if MODE.get().check_nan and array.dtype.kind in "fc" and np.isnan(array).any():
            made = f"\nThe operation was called here:\n{node.made_at}" if node.made_at else ""
            raise GradError(
                f"Function '{node.name()}' returned nan values in its {i}th output.{made}"
            )
