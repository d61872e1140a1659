"""Files that appear whole: written in a folder beside their destination, flushed to disk, then renamed.

At every moment the destination holds the old file or the new one, never a part of either.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

TEMPORARY = ".{}.*.tmp"  # what a process that was killed may leave: a folder of this pattern


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write a file to, which replaces ``path`` when the block ends without an exception.

    A file that is replaced keeps its permissions, and a link goes on pointing to where it did.

    Raises:
        OSError: the file cannot be written (disk full, read-only or no folder); ``path`` stays as it was.
    """
    target = Path(os.path.realpath(path))
    folder = None
    try:
        folder = tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
        fresh = Path(folder, target.name)
        fresh.touch()  # with the permissions that the system gives to new files
        mode = stat.S_IMODE(os.stat(target if target.exists() else fresh).st_mode)
        yield fresh
        with open(fresh, "rb+") as f:
            os.fsync(f.fileno())
        with contextlib.suppress(OSError):  # where there are no permissions
            os.chmod(fresh, mode)
        os.replace(fresh, target)
    except OSError as e:
        raise OSError(
            e.errno, f"{path} was not written, and is as it was ({e.strerror or e})"
        ) from e
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    _sync_folder(target.parent)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write to that replaces ``path`` when the block ends, or leaves it as it was."""
    with replacing(path) as fresh, open(fresh, "wb") as f:
        yield f


def clear_leftovers(folder: Path, name: str) -> None:
    """Remove what processes that were killed while writing ``folder/name``, a pattern, have left there."""
    for left in folder.glob(TEMPORARY.format(name)):
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
