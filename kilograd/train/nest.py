"""A nest of dicts, lists, numbers and tensors as two things a file can hold: JSON text and named arrays.

The text says how things nest and where each array belongs. Arrays get the dotted path to them as
their name, so that another program that reads the file knows what is what. The same memory under
two names (tied weights) is one array, and one memory again when it is read. PyTorch's tensors are
such arrays too; of what kind a tensor was, the text says.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd.dtypes import FROM_NUMPY
from kilograd.dtypes import dtype as our_dtype
from kilograd.tensor import Tensor, wrap

Arrays = dict[str, np.ndarray[Any, Any]]
# ("tensor", "array", "scalar" or "torch.<dtype>"; name) → value; also ("torch.sparse"; its parts)
Leaf = Callable[[str, Any], Any]
_RESERVED = ("", "__metadata__")
_LONGEST = 16_000  # characters in a name: in UTF-8 what a zip file's names can be, 65535 bytes
_NAMES = {d.name for d in FROM_NUMPY.values()}


def pack(obj: Any) -> tuple[Any, Arrays]:
    """The tree (for JSON) and the arrays of a nest.

    Raises:
        TypeError: something in it is not a dict, list, tuple, tensor, array, number, string or None;
            an array with a mask, or of a dtype that no tensor has.
        ValueError: a parameter of a lazy module has no shape yet.

    >>> import kilograd as kg
    >>> pack({"a": kg.zeros(2), "b": [1, 2.5]})
    ({'dict': [['a', {'tensor': 'a'}], ['b', {'list': [1, {'float': '0x1.4000000000000p+1'}]}]]},
     {'a': array([0., 0.], dtype=float32)})
    """
    arrays: Arrays = {}
    known: dict[Any, str] = {}

    def array(a: np.ndarray[Any, Any], path: tuple[str, ...], place: Any = None) -> str:
        native = a.dtype.newbyteorder("=")
        if native not in FROM_NUMPY:
            raise TypeError(f"{_said(path)} has dtype {a.dtype}, which cannot be saved")
        place = place or (a.__array_interface__["data"][0], a.shape, a.strides, a.dtype)
        if a.size and place in known:
            return known[place]
        name = ".".join(path).replace("\0", "_")[:_LONGEST]
        while name in arrays or name in _RESERVED:
            name += "_"
        arrays[name] = a.astype(native, copy=False)  # files are read on other machines too
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
        if waits(x):
            raise ValueError(
                f"{_said(path)} has no shape yet: show the lazy module one batch, then save it"
            )
        if isinstance(x, Tensor):
            return {"tensor": array(np.asarray(x.array), path)}  # of a lazy graph: its value
        if isinstance(x, np.ndarray):
            if hasattr(x, "filled"):  # asked so, since to import np.ma takes long
                raise TypeError(
                    f"{_said(path)} is a masked array, whose mask no file holds: fill it first "
                    "(x.filled(value)); np.ma.getmaskarray(x) can be saved beside it"
                )
            return {"array": array(np.asarray(x), path)}
        if isinstance(x, our_dtype):
            return {"dtype": x.name}
        if (torch := sys.modules.get("torch")) and (found := torchs(torch, x, path)):
            return found
        if isinstance(x, (list, tuple)):
            kind = "list" if isinstance(x, list) else "tuple"
            return {kind: [walk(v, (*path, str(i))) for i, v in enumerate(x)]}
        if isinstance(x, dict):
            kind = "counter" if isinstance(x, Counter) else "dict"
            return {kind: [[walk(k, path), walk(v, (*path, str(k)))] for k, v in x.items()]}
        hint = ": save its state_dict()" if hasattr(x, "state_dict") else ""
        raise TypeError(f"{_said(path)} is {type(x).__name__}, which cannot be saved{hint}")

    def torchs(torch: Any, x: Any, path: tuple[str, ...]) -> Any:
        """The entry of something of PyTorch's; None if it is not."""
        if isinstance(x, torch.Size):
            return {"torch.Size": list(x)}
        if isinstance(x, (torch.dtype, torch.device)):
            return {f"torch.{type(x).__name__}": str(x).removeprefix("torch.")}
        if not isinstance(x, torch.Tensor):
            return None
        x, dtype = x.detach(), str(x.dtype).removeprefix("torch.")
        if x.layout is torch.sparse_coo:
            indices = walk(x._indices(), (*path, "indices"))
            values = walk(x._values(), (*path, "values"))
            return {"torch.sparse": [indices, values, list(x.shape), x.is_coalesced()]}
        try:
            a = _widened(torch, x).resolve_conj().resolve_neg().cpu().numpy()
        except (RuntimeError, TypeError) as e:
            raise TypeError(
                f"{_said(path)} is a PyTorch tensor ({dtype}, {x.layout}, on {x.device}) that cannot "
                f"be saved: {e}"
            ) from e
        place = (str(x.device), x.data_ptr(), x.shape, x.stride(), x.is_conj(), x.is_neg(), dtype)
        return {f"torch.{dtype}": array(a, path, place)}

    return walk(obj, ()), arrays


def unpack(tree: Any, leaf: Leaf) -> Any:
    """What :func:`pack` was given; ``leaf`` fetches what stands for an array."""
    if not isinstance(tree, dict):
        return tree
    ((kind, value),) = tree.items()
    if kind in ("tensor", "array", "scalar", "torch.sparse"):
        return leaf(kind, value)
    if kind.startswith("torch."):
        return _unpack_torchs(kind, value, leaf)
    if kind == "dtype":
        return FROM_NUMPY[np.dtype(value)]
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


def _widened(torch: Any, x: Any) -> Any:
    """A PyTorch tensor of a dtype that NumPy has: bfloat16 and smaller floats as float32, exactly."""
    if str(x.dtype).removeprefix("torch.") in _NAMES:
        return x
    if not (x.is_floating_point() or x.is_complex()):
        raise TypeError(f"NumPy has no {x.dtype}")
    return x.to(torch.float32 if x.is_floating_point() else torch.complex64)


def _unpack_torchs(kind: str, value: Any, leaf: Leaf) -> Any:
    name = kind.removeprefix("torch.")
    if name == "Size":
        return torch.Size(value) if (torch := _torch()) else tuple(value)
    if name == "dtype":
        return _dtype_of(torch, value) if (torch := _torch()) else value
    if name == "device":
        return torch.device(value) if (torch := _torch()) else value
    return leaf(kind, value)


def can_be(kind: str, dtype: np.dtype[Any]) -> bool:
    """Whether a tensor of a kind is saved as an array of this dtype: its own, or the wider one."""
    name = kind.removeprefix("torch.")
    if kind == "tensor" or name == dtype.name:
        return True
    return name not in _NAMES and dtype.name == (
        "complex64" if name.startswith("complex") else "float32"
    )


def as_tensor(kind: str, array: np.ndarray[Any, Any]) -> Any:
    """The tensor that an array stands for, on its memory: PyTorch's where it is installed, or ours."""
    if kind == "tensor" or (torch := _torch()) is None:
        return wrap(array)
    return torch.from_numpy(array).to(_dtype_of(torch, kind.removeprefix("torch.")))


def _dtype_of(torch: Any, name: str) -> Any:
    """PyTorch's dtype of this name (``torch.double`` is a dtype of another)."""
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype) or str(found) != f"torch.{name}":
        raise ValueError(f"PyTorch has no dtype {name!r}")
    return found


def as_sparse(indices: Any, values: Any, shape: tuple[int, ...], coalesced: bool, room: int) -> Any:
    """A sparse tensor of PyTorch's; where that is not installed, kilograd's dense one.

    Raises:
        ValueError: the dense one has more than ``room`` bytes.
    """
    if torch := _torch():
        return torch.sparse_coo_tensor(
            indices, values, shape, is_coalesced=coalesced, check_invariants=True
        )
    size = math.prod(shape) * values.array.itemsize
    if size > room:
        raise ValueError(
            f"without PyTorch a sparse tensor of shape {shape} would take {size} bytes: install it"
        )
    dense = np.zeros(shape, values.array.dtype)
    np.add.at(dense, tuple(indices.array), values.array)
    return wrap(dense)


def waits(x: Any) -> bool:
    """Whether it is a parameter or buffer, ours or PyTorch's, that waits for its shape."""
    return type(x).__name__ in ("UninitializedParameter", "UninitializedBuffer")


def _torch() -> Any:
    """PyTorch, which something in a file asks for, if it is installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch


def _said(path: tuple[str, ...]) -> str:
    return "state" + "".join(f"[{p!r}]" for p in path)
