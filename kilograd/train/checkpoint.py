"""Checkpoints: a nest of dicts, lists, numbers and arrays in one file that cannot run code.

The file is a zip of ``.npy`` arrays and one JSON text that says how they nest; zip's checksums catch
damage. It is written to a temporary file beside its destination, flushed to disk and renamed: at
every moment the path holds the old checkpoint or the new one, whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from kilograd.tensor import Tensor, wrap

FORMAT = "kilograd-checkpoint-1"


class CheckpointError(RuntimeError, ValueError):
    """A file that is not a whole checkpoint of ours."""


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write to that replaces ``path`` when the block ends, or leaves it as it was."""
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        with contextlib.suppress(OSError):  # a file of the user's, not a private one
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    with contextlib.suppress(OSError, AttributeError):  # the rename itself, where it can be synced
        folder = os.open(path.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def save_checkpoint(path: str | os.PathLike[str], state: Any) -> None:
    """Write a nest of dicts, lists, tuples, tensors, arrays, numbers, strings and None.

    Raises:
        TypeError: something else is in the nest (nothing is written).
        OSError: the file cannot be written (an older one at ``path`` stays).
    """
    arrays: list[np.ndarray[Any, Any]] = []

    def pack(x: Any, where: str) -> Any:
        if x is None or isinstance(x, (bool, int, str)):
            return x
        if isinstance(x, float):
            return {"float": x.hex()}
        if isinstance(x, Tensor):
            arrays.append(x.array)
            return {"tensor": len(arrays) - 1}
        if isinstance(x, (np.ndarray, np.generic)):
            arrays.append(np.asarray(x))
            return {"array": len(arrays) - 1}
        if isinstance(x, (list, tuple)):
            kind = "list" if isinstance(x, list) else "tuple"
            return {kind: [pack(v, f"{where}[{i}]") for i, v in enumerate(x)]}
        if isinstance(x, dict):
            return {"dict": [[pack(k, where), pack(v, f"{where}[{k!r}]")] for k, v in x.items()]}
        raise TypeError(f"save_checkpoint: {where} is {type(x).__name__}, which cannot be saved")

    tree = {"format": FORMAT, "tree": pack(state, "state")}
    for a in arrays:
        if a.dtype.kind not in "biufc":
            raise TypeError(f"save_checkpoint: an array of dtype {a.dtype} cannot be saved")
    with atomic_write(path) as f, zipfile.ZipFile(f, "w") as z:
        z.writestr("tree.json", json.dumps(tree))
        for i, a in enumerate(arrays):
            with z.open(f"{i}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(a), allow_pickle=False)


def load_checkpoint(path: str | os.PathLike[str]) -> Any:
    """Read what :func:`save_checkpoint` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged, cut short, or something else. It is not touched.
    """
    path = Path(path)
    with open(path, "rb") as f:
        limit = os.fstat(f.fileno()).st_size
        try:
            with zipfile.ZipFile(f) as z:
                return _read(z, limit)
        except Exception as e:  # whatever a damaged file makes zip, JSON or NumPy say
            raise CheckpointError(
                f"{path} is not a whole kilograd checkpoint ({e}); it was left untouched. "
                "Resume from another one, or start without --resume."
            ) from e


def _read(z: zipfile.ZipFile, limit: int) -> Any:
    if sum(m.file_size for m in z.infolist()) > limit:
        raise CheckpointError("it says it holds more than it has bytes")
    tree = json.loads(z.read("tree.json"))
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise CheckpointError("it is not a kilograd checkpoint")

    def read(i: int) -> np.ndarray[Any, Any]:
        with z.open(f"{int(i)}.npy") as member:
            array: np.ndarray[Any, Any] = np.lib.format.read_array(member, allow_pickle=False)
            if member.read(1):
                raise CheckpointError("an array has more data than its header says")
        return array

    return _unpack(tree["tree"], read)


def _unpack(x: Any, read: Callable[[int], Any]) -> Any:
    if not isinstance(x, dict):
        return x
    ((kind, value),) = x.items()
    if kind == "float":
        return float.fromhex(value)
    if kind == "tensor":
        return wrap(read(value))
    if kind == "array":
        return read(value)
    if kind == "list":
        return [_unpack(v, read) for v in value]
    if kind == "tuple":
        return tuple(_unpack(v, read) for v in value)
    if kind == "dict":
        return {_unpack(k, read): _unpack(v, read) for k, v in value}
    raise CheckpointError(f"unknown entry {kind!r}")
