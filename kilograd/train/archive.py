"""Named arrays and some text in one file that cannot run code: a safetensors file, or an ``.npz``.

Reading is by pieces: opening a file reads and checks what it says it holds, and a tensor is read when
it is asked for. The size of the file bounds what is allocated: an array is there once for each kind of
tensor that it stands for (a compressed ``.npz`` member: as large as deflate can have packed it).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from kilograd.dtypes import FROM_NUMPY
from kilograd.tensor import Tensor
from kilograd.train.nest import Arrays, as_sparse, as_tensor, can_be, pack, unpack
from kilograd.train.replacing import as_os_error, replacing

TREE, CHECKSUM, TEXT = "kilograd.tree", "kilograd.checksum", "kilograd.json"
_NUMPY = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "F16": "float16",
    "U32": "uint32", "I32": "int32", "F32": "float32", "U64": "uint64", "I64": "int64",
    "F64": "float64", "C64": "complex64", "BF16": "float32",
}  # fmt: skip
_EMPTY_ZIP = 22  # bytes
_DEFLATE = 1100  # no deflated byte stands for more than 1032


class DamagedError(RuntimeError, ValueError):
    """A file that cannot be read: damaged, cut short, or of another kind. It was left untouched."""


# --- writing ------------------------------------------------------------------------------------


def write(
    path: str | os.PathLike[str], obj: Any, metadata: Mapping[str, str] | None, form: str
) -> None:
    """Write a nest as one file; ``form`` is "safetensors" or "npz".

    Raises:
        TypeError, ValueError: something in the nest cannot be saved in this form.
        OSError: the file cannot be written (an older one at ``path`` stays).
        ImportError: the package safetensors is not there.
    """
    tree, arrays = pack(obj)
    text = dict(metadata or {})
    for key, value in text.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata must be text by text, but got {key!r}: {value!r}")
    plain = not text and tree == {"dict": [[k, {"tensor": k}] for k in arrays]}
    text = {"format": "kilograd"} | text | {TREE: json.dumps(tree)}
    text[CHECKSUM] = f"{_text_checksum(text):08x} {_data_checksum(arrays):08x}"
    if form == "safetensors":
        _write_safetensors(path, arrays, text)
    else:  # without the text where NumPy's own reader would find nothing but arrays then
        _write_npz(path, arrays, {} if plain else text)


def _write_safetensors(path: str | os.PathLike[str], arrays: Arrays, text: dict[str, str]) -> None:
    package = safetensors()
    for name, a in arrays.items():
        if a.dtype.name not in map(str.lower, _NUMPY.values()):
            raise TypeError(
                f"{name!r} has dtype {a.dtype}, which safetensors files cannot hold: save it as .npz"
            )
    ready = {k: np.asarray(a, a.dtype.newbyteorder("="), order="C") for k, a in arrays.items()}
    with replacing(path) as fresh:
        from safetensors.numpy import save_file

        try:
            save_file(ready, fresh, text)
        except package.SafetensorError as e:
            raise as_os_error(e) from e


def _write_npz(path: str | os.PathLike[str], arrays: Arrays, text: dict[str, str]) -> None:
    with replacing(path) as fresh, open(fresh, "wb") as f, zipfile.ZipFile(f, "w") as z:
        if text:
            z.writestr(TEXT, json.dumps(text))
        for name, a in arrays.items():
            with z.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(a), allow_pickle=False)


def safetensors() -> Any:
    """The package, which is optional."""
    try:
        import safetensors as package
    except ImportError as e:
        raise ImportError(
            "safetensors files need the package safetensors: pip install 'kilograd[train]' "
            "(or save as .npz, which NumPy reads and writes)"
        ) from e
    return package


def _text_checksum(text: Mapping[str, str]) -> int:
    said = sorted((k, v) for k, v in text.items() if k != CHECKSUM)
    return zlib.crc32(json.dumps(said).encode())


def _data_checksum(arrays: Mapping[str, Any]) -> int:
    """CRC-32 of all names, dtypes, shapes and bytes; arrays may still lie in a file."""
    found = 0
    for name in sorted(arrays):
        a = np.asarray(arrays[name], order="C")
        found = zlib.crc32(f"{name}|{a.dtype.name}|{a.shape}|".encode("utf-8", "replace"), found)
        found = zlib.crc32(a.reshape(-1).view(np.uint8).data, found) if a.size else found
    return found


# --- reading ------------------------------------------------------------------------------------


class Stored:
    """A tensor that still lies in its file: shape and dtype are known, the values are read when asked.

    ``kind`` is "tensor", or "torch.bfloat16" and the like: its dtype is what it was saved as.
    """

    def __init__(
        self, archive: Archive, name: str, shape: tuple[int, ...], dtype: Any, kind: str = "tensor"
    ) -> None:
        self.archive, self.name, self.shape, self.dtype = archive, name, shape, dtype
        self.kind = kind

    def of(self, kind: str) -> Stored:
        """The same values as another kind of tensor."""
        dtype = self.dtype if kind == "tensor" else kind.removeprefix("torch.")
        return Stored(self.archive, self.name, self.shape, dtype, kind)

    def tensor(self) -> Any:
        """It, read: kilograd's, or PyTorch's if it was one and PyTorch is installed."""
        with _or_damaged(self.archive.path):
            return as_tensor(self.kind, self.archive.read(self.name))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        with _or_damaged(self.archive.path):
            a = self.archive.read(self.name)
        return a if dtype is None else a.astype(dtype, copy=False)


class StoredSparse:
    """A sparse tensor of PyTorch's, likewise: its indices and values are two tensors in the file."""

    def __init__(self, indices: Any, values: Any, shape: Sequence[int], coalesced: bool) -> None:
        self.indices, self.values, self.coalesced = indices, values, coalesced
        self.archive, self.shape, self.dtype = values.archive, tuple(shape), values.dtype


def realised(nest: Any) -> Any:
    """The nest with tensors for all that was still in the file."""
    tensors: dict[tuple[str, str], Any] = {}

    def walk(x: Any) -> Any:
        if isinstance(x, Stored):
            place = (x.kind, x.name)
            if place in tensors:  # tied: another tensor on the same memory
                return tensors[place].detach()
            return tensors.setdefault(place, x.tensor())
        if isinstance(x, StoredSparse):
            file, parts = x.archive, (walk(x.indices), walk(x.values))
            with _or_damaged(file.path):
                made = as_sparse(*parts, x.shape, x.coalesced, file.room)
            file.room -= made.array.nbytes if isinstance(made, Tensor) else 0
            return made
        if isinstance(x, (list, tuple)):
            return type(x)([walk(v) for v in x])
        return type(x)({k: walk(v) for k, v in x.items()}) if isinstance(x, dict) else x

    return walk(nest)


class Archive:
    """An open file: ``tensors`` by name, and ``text``."""

    path: Path
    tensors: dict[str, Stored]
    text: dict[str, str]
    room: int  # bytes that its sparse tensors may still take where they are read as dense ones

    def read(self, name: str) -> np.ndarray[Any, Any]:
        """The values of one tensor."""
        raise NotImplementedError

    def check(self) -> None:
        """Read everything once and compare it with the checksum, if the file has one.

        Raises:
            DamagedError: they differ.
        """
        said = self.text.get(CHECKSUM)
        if said and f"{_data_checksum(self.tensors):08x}" != said.split()[-1]:
            raise _damaged(self.path, "the checksum of its values is wrong")

    def nest(self, stored: bool = False) -> Any:
        """What was saved; with ``stored``, tensors stay in the file and are read when needed.

        In a file of another program's: a dictionary of its tensors.
        """
        arrays: Arrays = {}

        def leaf(kind: str, name: Any) -> Any:
            if kind == "torch.sparse":
                indices, values, *rest = name
                return StoredSparse(unpack(indices, leaf), unpack(values, leaf), *rest)
            if kind not in ("array", "scalar"):
                if not can_be(kind, self.tensors[name].dtype):
                    raise ValueError(f"{name!r}, {self.tensors[name].dtype}, is said to be {kind}")
                return self.tensors[name].of(kind)
            if name not in arrays:
                arrays[name] = np.asarray(self.tensors[name])
            return arrays[name][()] if kind == "scalar" else arrays[name]

        with _or_damaged(self.path):
            if TREE in self.text:
                found = unpack(json.loads(self.text[TREE]), leaf)
            else:
                found = dict(self.tensors)
            return found if stored else realised(found)


class _Safetensors(Archive):
    def __init__(self, path: Path, file: IO[bytes], inside: Any) -> None:
        self.path, self.file, self.inside = path, file, inside
        self.text = inside.metadata() or {}
        self.tensors = {}
        halves = set()
        for name in inside.offset_keys() if hasattr(inside, "offset_keys") else inside.keys():
            kept = inside.get_slice(name)
            dtype = str(kept.get_dtype())
            if dtype not in _NUMPY:
                raise DamagedError(
                    f"{path} cannot be read: {name!r} has dtype {dtype}, which NumPy does not have "
                    "(in the program that wrote it, convert it to float32)"
                )
            if dtype == "BF16":
                halves.add(name)
            self.tensors[name] = Stored(
                self, name, tuple(kept.get_shape()), np.dtype(_NUMPY[dtype])
            )
        self.halves = self._begin(halves) if halves else {}

    def _begin(self, names: set[str]) -> dict[str, int]:
        """Where tensors begin in the file; the package has checked what the header says."""
        self.file.seek(0)
        length = int.from_bytes(self.file.read(8), "little")
        header = json.loads(self.file.read(length))
        return {name: 8 + length + header[name]["data_offsets"][0] for name in names}

    def read(self, name: str) -> np.ndarray[Any, Any]:
        if name not in self.halves:
            return self.inside.get_tensor(name)
        self.file.seek(self.halves[name])  # NumPy has no bfloat16: the upper half of a float32
        shape = self.tensors[name].shape
        bits = np.fromfile(self.file, "<u2", math.prod(shape)).astype(np.uint32)
        bits <<= np.uint32(16)
        return bits.view(np.float32).reshape(shape)


class _Npz(Archive):
    def __init__(self, path: Path, z: zipfile.ZipFile, size: int) -> None:
        self.path, self.z = path, z
        members = z.infolist()
        if sum(m.compress_size for m in members) > size or any(
            m.file_size > _DEFLATE * m.compress_size for m in members
        ):
            raise ValueError("it says it holds more than it has bytes")
        if min([m.header_offset for m in members], default=size - _EMPTY_ZIP):
            raise ValueError("its table of contents does not begin with its first member")
        self.members = {m.filename.removesuffix(".npy"): m for m in members if m.filename != TEXT}
        text = json.loads(z.read(TEXT)) if TEXT in z.namelist() else {}
        if not isinstance(text, dict) or not all(isinstance(v, str) for v in text.values()):
            raise ValueError("its metadata are not text")
        self.text = text
        self.tensors = {}
        for name, m in self.members.items():
            with z.open(m) as f:
                shape, _, dtype = npy_header(f, m.file_size)
                self.tensors[name] = Stored(self, name, shape, dtype)

    def read(self, name: str) -> np.ndarray[Any, Any]:
        with self.z.open(self.members[name]) as f:
            return read_npy(f, self.members[name].file_size)


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Archive]:
    """The file at ``path``, told by its first bytes; what it says it holds is checked.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: it is damaged, cut short, or something else.
    """
    path = Path(path)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(path, "rb"))
        size = os.fstat(file.fileno()).st_size
        archive: Archive
        zipped = file.read(2) == b"PK"
        package = None if zipped else safetensors()
        with _or_damaged(path):  # whatever a damaged file makes the readers say
            if package is None:
                archive = _Npz(path, stack.enter_context(zipfile.ZipFile(file)), size)
            else:
                inside = stack.enter_context(package.safe_open(path, framework="np"))
                archive = _Safetensors(path, file, inside)
            said = archive.text.get(CHECKSUM)
            if _ours(archive.text) and not (said and TREE in archive.text):
                raise ValueError("a part of its metadata is missing")
            if said and f"{_text_checksum(archive.text):08x}" != said.split()[0]:
                raise ValueError("the checksum of its metadata is wrong")
        archive.room = _DEFLATE * size
        yield archive


def _ours(text: Mapping[str, str]) -> bool:
    """Whether anything says that kilograd wrote it; of what is damaged, some may be left to say so."""
    form = text.get("format", "")
    return form == "kilograd" or form.startswith("kilograd-") or any("kilograd." in k for k in text)


def read_npy(file: Any, size: int) -> np.ndarray[Any, Any]:
    """An ``.npy`` stream of ``size`` bytes in all, whose header is believed only if it fits them."""
    shape, fortran, dtype = npy_header(file, size)
    array: np.ndarray[Any, Any] = np.empty(math.prod(shape), dtype)
    place = array.view(np.uint8).data if array.size else memoryview(b"")
    done = 0
    while done < len(place):
        chunk = file.read(min(1 << 20, len(place) - done))
        if not chunk:
            raise ValueError("an array is cut short")
        place[done : done + len(chunk)] = chunk
        done += len(chunk)
    if file.read(1):  # at its end a zip member compares its checksum
        raise ValueError("an array has more data than its header says")
    array = array.reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


def npy_header(file: Any, size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether the order is Fortran's, and dtype; ValueError unless they fit ``size`` bytes."""
    before = file.tell()
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the .npy format")
    one = np.lib.format.read_array_header_1_0
    shape, fortran, dtype = (one if version == (1, 0) else np.lib.format.read_array_header_2_0)(
        file
    )
    if dtype.newbyteorder("=") not in FROM_NUMPY:
        raise ValueError(f"an array has dtype {dtype}, which no tensor can have")
    if any(n < 0 for n in shape):
        raise ValueError(f"an array has shape {shape}")
    if math.prod(shape) * dtype.itemsize != size - (file.tell() - before):
        raise ValueError("an array has more or less data than its header says")
    return shape, fortran, dtype


class _or_damaged:
    """A block whose exceptions mean that the file is damaged, if it is still there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, *_: Any) -> None:
        kept = DamagedError, FileNotFoundError
        if isinstance(error, Exception) and not isinstance(error, kept):
            raise _damaged(self.path, error) from error


def _damaged(path: Path, why: Any) -> DamagedError:
    return DamagedError(
        f"{path} is not a whole file of tensors ({why or type(why).__name__}); it was left untouched"
    )
