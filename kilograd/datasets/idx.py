"""The IDX file format of MNIST: a magic number, the sizes, then one big-endian array. It is read in one gulp.

::

    byte 0, 1   zero
    byte 2      the number type (table below)
    byte 3      the number of dimensions D
    4·D bytes   the sizes, big-endian uint32
    the rest    the values, row-major, big-endian
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
REMEDY = "Replace it with a good copy (in a dataset's own root, `download=True` does so)."


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in an IDX file, gzip-compressed or not (told by content, not by name).

    Returns:
        An array of the file's shape in the machine's byte order.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is corrupt, truncated, too long or not IDX; the message names the file and
            what is wrong with it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "three-bytes.idx"
        >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
        >>> read_idx(path).tolist()
        [7, 8, 9]
    """
    path = Path(path)
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path} is damaged: {error}. {REMEDY}") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in DTYPES:
        raise ValueError(
            f"{path} is not an IDX file: it begins with {content[:4].hex(' ') or 'nothing'}, where two zero "
            f"bytes, a number type ({', '.join(f'{code:02x}' for code in DTYPES)}) and a number of "
            f"dimensions belong. {REMEDY}"
        )
    dtype, ndim = DTYPES[content[2]], content[3]
    start = 4 + 4 * ndim
    if len(content) < start:
        raise ValueError(f"{path} is truncated: it ends within its {start}-byte header. {REMEDY}")
    shape = tuple(np.frombuffer(content, ">u4", ndim, offset=4).tolist())
    expected = math.prod(shape) * dtype.itemsize
    if len(content) - start != expected:
        raise ValueError(
            f"{path} has the wrong length: its header promises {expected} bytes of data (shape {shape}), "
            f"and {len(content) - start} follow. {REMEDY}"
        )
    values = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return values.astype(dtype.newbyteorder("="), copy=True)  # ours to write to; the bytes are not
