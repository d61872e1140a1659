"""``@kernel``: a function of arrays that another kind of array may take over whole.

NumPy's own functions ask their arguments before they run (``__array_ufunc__``); a kernel does the
same with ``__array_kernel__(kernel, args, kwargs)``. An array class that records programs, or
lives on another device, so sees one step "conv_forward" instead of the loops inside.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

F = TypeVar("F", bound=Callable[..., Any])
KERNELS: dict[str, Callable[..., Any]] = {}


def kernel(fn: F) -> F:
    """Declare a kernel: plain arrays run ``fn``, others are asked first.

    >>> @kernel
    ... def double(x):
    ...     return x * 2
    >>> class Recorder:
    ...     def __array_kernel__(self, kernel, args, kwargs):
    ...         return f"recorded {kernel.__name__}"
    >>> double(np.ones(2)), double(Recorder())
    (array([2., 2.]), 'recorded double')
    """

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        for a in args:
            if type(a) is not np.ndarray:
                take_over = getattr(type(a), "__array_kernel__", None)
                if take_over is not None:
                    return take_over(a, call, args, kwargs)
        return fn(*args, **kwargs)

    call.nin = getattr(fn, "nin", fn.__code__.co_argcount)  # type: ignore[attr-defined]  # as ufuncs say it
    KERNELS[fn.__name__] = call
    return call  # type: ignore[return-value]
