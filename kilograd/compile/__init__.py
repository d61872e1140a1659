"""``kg.compile``: a whole training step as one program.

    @kg.compile
    def train_step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

The first call runs eagerly and is recorded; later calls with arguments of the same shapes and dtypes
run the recorded program, optimised. Parameters, buffers and optimizer state are found by
themselves. Read ``tracer.py`` first, then ``graph.py``, ``passes.py``, ``step.py``.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

from kilograd.compile.step import Compiled, constant, disable

__all__ = ["Compiled", "compile", "constant", "disable"]


def compile(
    fn: Callable[..., Any] | None = None, *, fullgraph: bool = False, dynamic: bool | None = None,
    backend: str = "auto", mode: str | None = None, options: Any = None, disable: bool = False,
    check: bool = False,
) -> Any:  # fmt: skip
    """Compile a function of tensors, a whole training step, or a Module.

    Args:
        fn: the function or Module; left out in ``@kg.compile(check=True)``.
        fullgraph: raise :class:`~kilograd.errors.TraceError` where the function cannot be recorded,
            in place of running it eagerly with one warning.
        dynamic: PyTorch's argument; another size is another recording, which is quick, whatever it says.
        backend: ``"numba"`` native code, ``"numpy"`` Python source; ``"auto"``: the first if Numba is there.
        mode, options: PyTorch's arguments, without meaning here.
        disable: return the function as it is.
        check: run every call eagerly too and compare all results (slow: for tests and for doubts).

    Returns:
        A callable with ``graph``, ``source``, ``explain()``, ``reset()``. A Module is changed in
        place: its ``forward`` is compiled, and the Module is returned.

    >>> import kilograd as kg
    >>> @kg.compile
    ... def squares(x):
    ...     return (x * x).sum()
    >>> squares(kg.ones(3)), squares(2 * kg.ones(3))
    (tensor(3.), tensor(12.))
    """
    if disable:
        return fn if fn is not None else lambda f: f
    how: dict[str, Any] = {
        "check": check,
        "backend": backend,
        "dynamic": dynamic,
        "fullgraph": fullgraph,
    }
    if fn is None:
        return lambda f: compile(f, **how)
    if not callable(fn):
        raise TypeError(f"compile() takes a function or a Module, not {type(fn).__name__}")
    if hasattr(fn, "forward") and hasattr(fn, "parameters"):  # a Module
        fn.forward = Compiled(fn.forward, **how)
        return fn
    return Compiled(fn, **how)


class _Callable(types.ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return compile(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
