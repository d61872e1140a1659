"""Files that appear whole: written in a folder beside their destination, flushed to disk, then renamed.

At every moment the destination holds the old file or the new one, never a part of either.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

TEMPORARY = ".{}.*.tmp"  # what a process that was killed may leave: a folder of this pattern


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write a file to, which replaces ``path`` when the block ends without an exception.

    Raises:
        OSError: the file cannot be written (disk full, read-only or no folder); ``path`` stays as it was.
    """
    path = Path(path)
    folder = None
    try:
        folder = tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        fresh = Path(folder, path.name)
        yield fresh
        with open(fresh, "rb+") as f:
            os.fsync(f.fileno())
        with contextlib.suppress(OSError):  # a file of the user's, not a private one
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(fresh, 0o666 & ~umask)
        os.replace(fresh, path)
    except OSError as e:
        raise OSError(
            e.errno, f"{path} was not written, and is as it was ({e.strerror or e})"
        ) from e
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    _sync_folder(path.parent)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write to that replaces ``path`` when the block ends, or leaves it as it was."""
    with replacing(path) as fresh, open(fresh, "wb") as f:
        yield f


def clear_leftovers(path: Path, name: str = "*") -> None:
    """Remove what processes that were killed while writing ``path/name`` have left there."""
    for left in path.glob(TEMPORARY.format(name)):
        shutil.rmtree(left, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    """The rename itself, onto the disk, where a folder can be synced."""
    with contextlib.suppress(OSError, AttributeError):
        handle = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def as_os_error(error: Exception) -> Exception:
    """An error of the safetensors package as the OSError it speaks of, if it does."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else error
