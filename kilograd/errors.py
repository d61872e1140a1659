"""Exceptions: each derives from the built-in type that PyTorch raises in the same place.

A message says what went wrong, where (the op and the shapes), and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from kilograd.ops.op import Op


class ShapeError(RuntimeError, ValueError):
    """Shapes that do not fit an operation (PyTorch raises ``RuntimeError``, NumPy ``ValueError``)."""


class GradError(RuntimeError):
    """Autograd asked for what it cannot give: freed graphs, changed values, no grad_fn."""


class DtypeError(NotImplementedError, TypeError):
    """A dtype for which an operation is not defined (a ``NotImplementedError`` is a RuntimeError)."""


class DimError(IndexError, ValueError):
    """A dimension number out of range."""


class TraceError(RuntimeError):
    """A function that cannot be compiled: what it does that a recorded program cannot."""


class LinAlgError(RuntimeError, np.linalg.LinAlgError):
    """A matrix that cannot be inverted or factored."""


def is_from_signal(e: BaseException) -> bool:
    """Whether a signal's handler raised this, in the middle of whatever ran (a time limit, say).

    >>> is_from_signal(ValueError())
    False
    """
    import signal

    handlers = map(signal.getsignal, signal.valid_signals())
    codes = {getattr(handler, "__code__", None) for handler in handlers}
    frames = e.__traceback__
    while frames is not None:
        if frames.tb_frame.f_code in codes:
            return True
        frames = frames.tb_next
    return False


def explain(op: Op, arrays: list[Any], e: Exception) -> Exception:
    """An exception of NumPy's, as PyTorch's type with the op's name and all shapes."""
    if isinstance(e, np.exceptions.AxisError):
        return DimError(f"{op.name}: {e}")
    if type(e) not in (ValueError, TypeError) and not isinstance(e, TypeError):
        return e  # ours already
    numbers = (np.ndarray, np.generic, bool, int, float, complex, type(None))
    strangers = [type(a).__name__ for a in arrays if not isinstance(a, numbers)]
    if strangers:
        return TypeError(f"{op.name}(): expected tensors or numbers, got {', '.join(strangers)}")
    what = ", ".join(
        f"{list(a.shape)} {a.dtype}" if hasattr(a, "shape") else repr(a) for a in arrays
    )
    kind = DtypeError if isinstance(e, TypeError) else ShapeError
    return e if isinstance(e, kind) else kind(f"{op.name}({what}): {e}")
