"""Where in the Python program we are: the user's line, the op being run, who gave an array."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

from kilograd.autograd.driver import Node
from kilograd.compile.graph import leaves
from kilograd.ops.op import Op
from kilograd.tensor import apply

_HERE = os.path.dirname(os.path.abspath(__file__))
_PACKAGE = os.path.dirname(_HERE) + os.sep
_NUMPY = os.path.dirname(np.__file__) + os.sep
_TRACING = {os.path.join(_HERE, name) for name in ("tracer.py", "trace_state.py")}
_STEP = os.path.join(_HERE, "step.py")
_OPS = {apply.__code__, Node.shares.__code__, Op.__call__.__code__}  # in these an op is running


def users_line() -> str:
    """Where in the user's code we are: ``file:line in function``."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith((_PACKAGE, _NUMPY)):
        frame = frame.f_back
    if frame is None:
        return ""
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


def running_op() -> Any:
    """The frame of the op in the middle of which we are; None in the user's or a function's code."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        if frame.f_code in _OPS:
            return frame
        if frame.f_code is Node._through_composition.__code__:
            return None
        frame = frame.f_back
    return _op_around(frame)


def _op_around(frame: Any) -> Any:
    """The frame of the op whose forward function or rule, declared outside of kilograd, we are in."""
    while frame is not None and not frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return frame if frame is not None and frame.f_code in _OPS else None


def given_by_user() -> bool:
    """Whether the user has called the library with a NumPy array: what comes of it is no constant."""
    frame: Any = sys._getframe(1)
    last = None
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        if frame.f_code.co_filename == _STEP and frame.f_code.co_name == "_record":
            return False  # what is recorded is a function of the library's own, as the Trainer's
        last, frame = frame, frame.f_back
    if last is None or _op_around(frame) is not None:
        return False
    code = last.f_code
    if code.co_filename in _TRACING and code.co_name != "__array_ufunc__":
        return False
    count = code.co_argcount + code.co_kwonlyargcount
    count += bool(code.co_flags & 4) + bool(code.co_flags & 8)  # *args, **kwargs
    given = (last.f_locals.get(name) for name in code.co_varnames[:count])
    return any(type(x) is np.ndarray for tree in given for x in leaves(tree))
