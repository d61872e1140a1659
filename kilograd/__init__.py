"""kilograd: PyTorch you can read. An autograd tensor engine and deep-learning library on NumPy.

>>> import kilograd as kg
>>> x = kg.tensor([1.0, 2.0, 3.0], requires_grad=True)
>>> loss = (x**2).sum()
>>> loss.backward()
>>> x.grad
tensor([2., 4., 6.])
"""

import warnings as _warnings
from itertools import count as _count
from math import e, inf, nan, pi
from os import environ as _environ
from typing import Any as _Any

__version__ = "0.1.0"

# log(0) is -inf and 0/0 is nan, without a word, as in PyTorch; other modules' warnings stay theirs.
_warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"kilograd\.")

from kilograd import autograd, cuda, datasets, linalg, nn, optim, random, utils
from kilograd.autograd.modes import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    retain_grads,
    set_grad_enabled,
)
from kilograd.dtypes import (
    bool_ as bool,
)
from kilograd.dtypes import (
    cdouble,
    cfloat,
    complex64,
    complex128,
    double,
    dtype,
    float16,
    float32,
    float64,
    get_default_dtype,
    half,
    int8,
    int16,
    int32,
    int64,
    long,
    set_default_dtype,
    short,
    uint8,
    uint16,
    uint32,
    uint64,
)
from kilograd.dtypes import (
    float_ as float,
)
from kilograd.dtypes import (
    int_ as int,
)
from kilograd.functions import *
from kilograd.functions import special
from kilograd.kernels.kernel import LARGE as _LARGE
from kilograd.kernels.kernel import simply as _simply
from kilograd.kernels.threads import (
    are_deterministic_algorithms_enabled,
    get_num_threads,
    set_num_threads,
    use_deterministic_algorithms,
)
from kilograd.printing import set_printoptions
from kilograd.random import Generator, default_generator, fork_rng
from kilograd.size import Size, device
from kilograd.tensor import Tensor


def _run_large(
    fn: _Any, args: _Any, options: _Any, writes: _Any = False, small: _Any = False
) -> _Any:
    """The first op on a large array, or the 300th of many steps: bring in the compiler."""
    if small and next(_calls) < 300:
        return fn(*args, **options)
    from kilograd.kernels.native import build

    _LARGE.run = _simply
    if not build.available():
        _LARGE.limit = inf
    else:
        from kilograd.compile import eager

        _LARGE.run = eager.run
    return _LARGE.run(fn, args, options, writes, small)


_calls = _count()
if _environ.get("KILOGRAD_EAGER", "native").lower() == "numpy":
    _LARGE.limit = inf
else:
    _LARGE.run = _run_large


# Names of the rooms above, loaded when they are first used: (module, name in it, or None for the module).
_ABOVE = {
    "compile": ("kilograd.compile", None),
    "Graph": ("kilograd.compile.lazy", "Graph"),
    "lazy": ("kilograd.compile.lazy", "lazy"),
    "get_default_graph": ("kilograd.compile.lazy", "get_default_graph"),
    "set_default_graph": ("kilograd.compile.lazy", "set_default_graph"),
    "viz": ("kilograd.viz", None),
    "summary": ("kilograd.viz.summary", "summary"),
    "explain": ("kilograd.viz.explain", "explain"),
    "trace_nan": ("kilograd.viz.explain", "trace_nan"),
    "profiler": ("kilograd.profiler", None),
    "train": ("kilograd.train", None),
    "save": ("kilograd.train.files", "save"),
    "load": ("kilograd.train.files", "load"),
}


def __getattr__(name: str) -> object:
    if name not in _ABOVE:
        raise AttributeError(f"module 'kilograd' has no attribute {name!r}")
    from importlib import import_module

    where, what = _ABOVE[name]
    module = import_module(where)
    return module if what is None else getattr(module, what)


def _above(where: str, name: str) -> _Any:
    """A method that a room above knows how to do: it is handed on when it is called."""

    def method(self: _Any, *args: _Any, **kwargs: _Any) -> _Any:
        from importlib import import_module

        return getattr(import_module(where), name)(self, *args, **kwargs)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"See :func:`{where}.{name}`."
    return method


Tensor.draw_graph = _above("kilograd.viz", "draw_graph")  # type: ignore[attr-defined]
Tensor.realize = _above("kilograd.compile.lazy", "realize")  # type: ignore[attr-defined]
nn.Module.plot = _above("kilograd.viz", "plot")  # type: ignore[attr-defined]
nn.Module.save = _above("kilograd.train.files", "save_weights")  # type: ignore[attr-defined]
nn.Module.load = _above("kilograd.train.files", "load_weights")  # type: ignore[attr-defined]
