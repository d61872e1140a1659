"""Tensors on disk: ``kg.save``, ``kg.load`` and a model's ``save`` and ``load``. No file runs code.

The name's ending decides: ``.safetensors`` (read by many programs), ``.npz`` and ``.npy`` (NumPy's).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from kilograd.nn.module import Module
from kilograd.nn.state import IncompatibleKeys
from kilograd.tensor import Tensor, wrap
from kilograd.train import archive
from kilograd.train.archive import DamagedError, Stored, realised
from kilograd.train.nest import pack, waits
from kilograd.train.replacing import atomic_write

Path_ = str | os.PathLike[str]
_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")


def save(obj: Any, path: Path_, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors to a file, in the form that its ending names.

    ``.safetensors`` (also without an ending) and ``.npz``: a ``state_dict``, or any nest of dicts,
    lists, tuples, tensors (PyTorch's too), arrays, numbers, strings and None. Each tensor's name in
    the file is the dotted path to it. Tensors on the same memory (tied weights) are written once;
    views that only overlap are written in full. ``.npy``: one tensor. complex128 goes into NumPy's
    files only.

    The file is written beside its destination, flushed to disk and renamed, so that at every moment
    ``path`` is the old file or the new one.

    Args:
        obj: what to save; it is read, never changed, and a contiguous tensor is not copied.
        path: where to; the folder must exist.
        metadata: short texts to go with it (:func:`read_metadata`), not for ``.npy``.

    Raises:
        TypeError: something that cannot be saved (functions, objects, whole modules, masked arrays).
        ValueError: an ending that is not one of these.
        OSError: the file cannot be written. What was at ``path`` is still there.
        ImportError: a ``.safetensors`` file without the package safetensors.

    >>> import kilograd as kg, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "weights.npz")
    >>> save({"layer.weight": kg.ones(2), "epoch": 3}, path)
    >>> load(path)
    {'layer.weight': tensor([1., 1.]), 'epoch': 3}
    """
    form = file_form(path)
    if isinstance(obj, Module):
        raise TypeError(
            f"kg.save writes tensors, not the code of {type(obj).__name__}: model.save(path), or "
            "kg.save(model.state_dict(), path)"
        )
    if form != "npy":
        archive.write(path, obj, metadata, form)
        return
    if metadata:
        raise ValueError("an .npy file holds no metadata: save as .npz or .safetensors")
    a = obj.array if isinstance(obj, Tensor) else obj
    if hasattr(a, "detach"):  # PyTorch's
        a = a.detach().cpu().numpy()
    if not isinstance(a, (np.ndarray, np.generic, bool, int, float, complex)):
        raise TypeError(f"an .npy file holds one tensor, not {type(obj).__name__}: save as .npz")
    (a,) = pack(np.asanyarray(a))[1].values()  # in the machine's byte order, of a dtype we have
    with atomic_write(path) as f:
        # by f.write, whose errors say what the matter is; NumPy's way with real files does not
        np.lib.format.write_array(SimpleNamespace(write=f.write), a, allow_pickle=False)


def load(path: Path_) -> Any:
    """Read what :func:`save` wrote, or another program's ``.safetensors``, ``.npz`` or ``.npy``.

    PyTorch's tensors come back as such (without PyTorch, as kilograd's). Those of dtypes that NumPy
    does not have lie in the file as float32, exactly.

    A file of another program's gives a dictionary of its tensors (``.npy``: one tensor), bfloat16
    widened to float32, which loses nothing. Nothing in a file is executed.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: (a ValueError and RuntimeError) it is damaged, cut short, or of another kind, or
            has tensors of a dtype that NumPy does not have.
        ValueError: an ending that is not one of these; pickles (``.pt``, ``.pth``, ``.bin``) among them.
        ImportError: a ``.safetensors`` file without the package safetensors.
    """
    form = file_form(path)
    if form == "npy":
        with open(path, "rb") as f:
            try:
                return wrap(archive.read_npy(f, os.fstat(f.fileno()).st_size))
            except Exception as e:
                raise DamagedError(f"{path} is not a whole .npy file of numbers ({e})") from e
    with archive.opened(path) as found:
        found.check()
        return found.nest()


def read_metadata(path: Path_) -> dict[str, str]:
    """The texts that go with a ``.safetensors`` or ``.npz`` file; the tensors are not read.

    >>> import kilograd as kg, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "weights.npz")
    >>> save({"w": kg.ones(2)}, path, metadata={"dataset": "digits"})
    >>> read_metadata(path)["dataset"]
    'digits'
    """
    with archive.opened(path) as found:
        return {k: v for k, v in found.text.items() if k not in (archive.TREE, archive.CHECKSUM)}


def file_form(path: Path_) -> str:
    """What the ending of a name stands for: "safetensors", "npz" or "npy".

    Raises:
        ValueError: it is none of these.
    """
    ending = Path(path).suffix.lower()
    if ending in (".npy", ".npz"):
        return ending[1:]
    if ending in ("", ".safetensors"):
        return "safetensors"
    if ending in _PICKLES:
        raise ValueError(
            f"{path}: {ending} files are pickles, which can run code when they are read; kilograd does "
            "not read or write them yet. In PyTorch, safetensors.torch.save_file(model.state_dict(), "
            "'model.safetensors') writes a file that kg.load reads, and load_file reads kg.save's."
        )
    raise ValueError(f"{path}: the ending must be .safetensors, .npz or .npy, not {ending!r}")


# --- a model's weights --------------------------------------------------------------------------


def save_weights(model: Module, path: Path_, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write ``model.state_dict()`` to a ``.safetensors`` or ``.npz`` file, as :func:`save` does."""
    save(dict(model.state_dict()), path, metadata=metadata)


def load_weights(model: Module, path: Path_, strict: bool = True) -> IncompatibleKeys:
    """Load the weights in a file into a model, whose parameters stay the same objects.

    The whole file is checked before the first value is changed: if this raises, the model is as it
    was. Tensors are read one at a time, so that the model's own memory and one tensor are all that
    is needed. Tied weights may be in the file under any one of their names.

    Args:
        model: the model to load into.
        path: a ``.safetensors`` or ``.npz`` file, of :func:`save_weights` or another program's.
        strict: every name on both sides must be on the other one, and every dtype be the same. If
            false, what is missing stays as it is, what is unexpected is left out, and dtypes are
            converted. Shapes must always be equal.

    Returns:
        ``(missing_keys, unexpected_keys)``, both empty if ``strict``.

    Raises:
        RuntimeError: one message with everything that is missing, unexpected or does not fit.
        DamagedError: the file is damaged.

    >>> import kilograd as kg, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "weights.npz")
    >>> save_weights(kg.nn.Linear(3, 2), path)
    >>> load_weights(kg.nn.Linear(3, 2), path)
    <All keys matched successfully>
    >>> load_weights(kg.nn.Linear(4, 2, bias=False), path)
    Traceback (most recent call last):
    ...
    RuntimeError: ...weights.npz does not fit Linear, which was left as it was:
        unexpected: bias
        weight: shape (2, 3) in the file, (2, 4) in the model
    """
    if file_form(path) == "npy":
        raise ValueError(f"{path}: an .npy file holds one tensor, not a model's weights")
    with archive.opened(path) as found:
        found.check()
        state = found.nest(stored=True)
        if not isinstance(state, dict):
            raise RuntimeError(f"{path} holds a {type(state).__name__}, not a state_dict")
        return load_stored(model, state, strict, f"{path}")


def load_stored(model: Any, state: dict[str, Any], strict: bool, where: str) -> IncompatibleKeys:
    """Load a state_dict whose tensors may still lie in a file; nothing changes unless all of it fits.

    The module may be PyTorch's, too.
    """
    if isinstance(model, Module):
        others = realised({k: v for k, v in state.items() if not _is_entry(k, v)})
        state = _with_twins(model, state | others)
    else:  # PyTorch's, which takes its own tensors only
        state = {k: v.of(f"torch.{v.dtype}") if _is_entry(k, v) else v for k, v in state.items()}
        state = realised(state)
    if has_hooks(model):  # that may rename entries: only loading tells what fits
        with or_as_it_was(model):
            return model.load_state_dict(state, strict)
    missing, unexpected, wrong = misfits(model, state)
    lines = [f"{k}: {text}" for k, text, kind in wrong if strict or kind == "shape"]
    if strict:
        named = (("unexpected", unexpected), ("missing", missing))
        lines = [f"{what}: {', '.join(names)}" for what, names in named if names] + lines
    if lines:
        raise RuntimeError(
            f"{where} does not fit {type(model).__name__}, which was left as it was:\n    "
            + "\n    ".join(lines)
        )
    return model.load_state_dict(state, strict)


def _is_entry(name: str, value: Any) -> bool:
    return isinstance(value, Stored) and not name.endswith("_extra_state")


def misfits(
    model: Any, state: dict[str, Any]
) -> tuple[list[str], list[str], list[tuple[str, str, str]]]:
    """Names the state lacks, names the model lacks, and (name, what is wrong, "shape" or "dtype")."""
    mine = model.state_dict()
    wrong = []
    for name, t in mine.items():
        if name not in state or not _is_tensor(t) or name.endswith("_extra_state"):
            continue
        there = state[name]
        if not _is_tensor(there):
            wrong.append((name, f"{type(there).__name__} in the file, not a tensor", "shape"))
            continue
        shapes = tuple(there.shape), tuple(t.shape)
        if shapes[0] != shapes[1] and shapes != ((1,), ()):
            wrong.append((name, "shape {} in the file, {} in the model".format(*shapes), "shape"))
        dtypes = [str(x.dtype).rpartition(".")[2] for x in (there, t)]  # "torch.float32", "float32"
        if dtypes[0] != dtypes[1]:
            wrong.append((name, "dtype {} in the file, {} in the model".format(*dtypes), "dtype"))
    return [k for k in mine if k not in state], [k for k in state if k not in mine], wrong


def _is_tensor(x: Any) -> bool:
    return not waits(x) and hasattr(x, "shape") and hasattr(x, "dtype")


def _with_twins(model: Module, state: dict[str, Any]) -> dict[str, Any]:
    """The state, with tied weights that it has under one name under the others too."""
    places: dict[Any, str] = {}
    full = dict(state)
    mine = {
        k: (np.asarray(t.array).__array_interface__["data"][0], t.array.shape, t.array.strides)
        for k, t in model.state_dict().items()
        if isinstance(t, Tensor) and not waits(t) and t.array.size
    }
    for name, place in mine.items():
        if name in state:
            places.setdefault(place, name)
    for name, place in mine.items():
        if name not in state and place in places:
            full[name] = state[places[place]]
    return full


def has_hooks(model: Any) -> bool:
    """Whether the model has a say of its own in what an entry's name means."""
    return any(
        m._load_state_dict_pre_hooks
        or not type(m)._load_from_state_dict.__module__.startswith(("kilograd.", "torch."))
        for m in model.modules()
    )


class or_as_it_was:
    """A block after which, if it raises, a model's values are those from before."""

    def __init__(self, model: Any) -> None:
        tensors = (*model.parameters(), *model.buffers())
        self.before = [(t, t.detach().clone()) for t in tensors if not waits(t)]

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is not None:
            for t, before in self.before:
                t.detach().copy_(before)
