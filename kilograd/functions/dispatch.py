"""NumPy's functions called on tensors (``__array_function__``): ours, or a refusal; never a silent detach."""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.tensor import Tensor, wrap

_OTHER_NAMES = {
    "concatenate": "cat", "absolute": "abs", "expand_dims": "unsqueeze", "copy": "clone",
    "swapaxes": "transpose", "transpose": "permute", "ndim": "dim",
}  # fmt: skip


def numpy_function(func: Any, args: Any, kwargs: Any) -> Any:
    """``np.func(tensor, …)``: our function of that name, or NumPy's where no gradient is lost."""
    from kilograd import functions

    name = _OTHER_NAMES.get(func.__name__, func.__name__)
    ours = getattr(functions, name, None) if name in functions.__all__ else None
    if func is np.transpose:
        t = args[0]
        axes = args[1] if len(args) > 1 else kwargs.get("axes")
        return t.permute(tuple(range(t.ndim))[::-1] if axes is None else axes)
    if ours is not None:
        try:
            return ours(*args, **kwargs)
        except TypeError as e:
            raise TypeError(f"np.{func.__name__} on tensors goes to kilograd.{name}: {e}") from e

    def plain(a: Any) -> Any:
        if isinstance(a, Tensor):
            if a.requires_grad:
                raise TypeError(
                    f"np.{func.__name__} has no derivative in kilograd and would drop the graph: "
                    "detach() the tensor first"
                )
            return a.array
        if isinstance(a, (list, tuple)):
            return type(a)(plain(b) for b in a)
        return a

    result = func(*[plain(a) for a in args], **{k: plain(v) for k, v in kwargs.items()})
    return wrap(result) if isinstance(result, np.ndarray) else result
