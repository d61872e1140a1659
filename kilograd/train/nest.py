"""A nest of dicts, lists, numbers and tensors as two things a file can hold: JSON text and named arrays.

The text says how things nest and where each array belongs. Arrays get the dotted path to them as
their name, so that another program that reads the file knows what is what. The same memory under
two names (tied weights) is one array, and one memory again when it is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd.dtypes import FROM_NUMPY
from kilograd.nn.module import Module
from kilograd.nn.parameter import is_lazy
from kilograd.tensor import Tensor

Arrays = dict[str, np.ndarray[Any, Any]]
Leaf = Callable[[str, str], Any]  # ("tensor", "array" or "scalar"; name) → value
_RESERVED = ("", "__metadata__")


def pack(obj: Any) -> tuple[Any, Arrays]:
    """The tree (for JSON) and the arrays of a nest.

    Raises:
        TypeError: something in it is not a dict, list, tuple, tensor, array, number, string or None.
        ValueError: a parameter of a lazy module has no shape yet.

    >>> import kilograd as kg
    >>> pack({"a": kg.zeros(2), "b": [1, 2.5]})
    ({'dict': [['a', {'tensor': 'a'}], ['b', {'list': [1, {'float': '0x1.4000000000000p+1'}]}]]},
     {'a': array([0., 0.], dtype=float32)})
    """
    arrays: Arrays = {}
    known: dict[Any, str] = {}

    def array(a: np.ndarray[Any, Any], path: tuple[str, ...]) -> str:
        if a.dtype.newbyteorder("=") not in FROM_NUMPY:
            raise TypeError(f"{_said(path)} has dtype {a.dtype}, which cannot be saved")
        place = (a.__array_interface__["data"][0], a.shape, a.strides, a.dtype)
        if a.size and place in known:
            return known[place]
        name = ".".join(path).replace("\0", "_")
        while name in arrays or name in _RESERVED:
            name += "_"
        arrays[name] = a
        known[place] = name
        return name

    def walk(x: Any, path: tuple[str, ...]) -> Any:
        if x is None or isinstance(x, (bool, str)):
            return x
        if isinstance(x, np.generic):  # before float: a NumPy float64 is one
            return {"scalar": array(np.asarray(x), path)}
        if isinstance(x, int):
            return x
        if isinstance(x, float):
            return {"float": x.hex()}
        if isinstance(x, complex):
            return {"complex": [x.real.hex(), x.imag.hex()]}
        if isinstance(x, Tensor):
            if is_lazy(x):
                raise ValueError(
                    f"{_said(path)} has no shape yet: show the lazy module one batch, then save it"
                )
            return {"tensor": array(x.array, path)}
        if isinstance(x, np.ndarray):
            return {"array": array(np.asarray(x), path)}
        if isinstance(x, (list, tuple)):
            kind = "list" if isinstance(x, list) else "tuple"
            return {kind: [walk(v, (*path, str(i))) for i, v in enumerate(x)]}
        if isinstance(x, dict):
            kind = "counter" if isinstance(x, Counter) else "dict"
            return {kind: [[walk(k, path), walk(v, (*path, str(k)))] for k, v in x.items()]}
        hint = ": save its state_dict()" if isinstance(x, Module) else ""
        raise TypeError(f"{_said(path)} is {type(x).__name__}, which cannot be saved{hint}")

    return walk(obj, ()), arrays


def unpack(tree: Any, leaf: Leaf) -> Any:
    """What :func:`pack` was given; ``leaf`` fetches what stands for an array."""
    if not isinstance(tree, dict):
        return tree
    ((kind, value),) = tree.items()
    if kind in ("tensor", "array", "scalar"):
        return leaf(kind, value)
    if kind == "float":
        return float.fromhex(value)
    if kind == "complex":
        return complex(*map(float.fromhex, value))
    if kind == "list":
        return [unpack(v, leaf) for v in value]
    if kind == "tuple":
        return tuple([unpack(v, leaf) for v in value])
    if kind in ("dict", "counter"):
        pairs = {unpack(k, leaf): unpack(v, leaf) for k, v in value}
        return Counter(pairs) if kind == "counter" else pairs
    raise ValueError(f"unknown entry {kind!r}")


def _said(path: tuple[str, ...]) -> str:
    return "state" + "".join(f"[{p!r}]" for p in path)
