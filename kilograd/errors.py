"""Exceptions: each derives from the built-in type that PyTorch raises in the same place.

A message says what went wrong, where (the op and the shapes), and what to do.
"""

from __future__ import annotations

import numpy as np


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
