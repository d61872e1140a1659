"""``kilograd bench import``: how long an import takes, and how much is installed for it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import kilograd
from kilograd.cli.bench.rows import Row
from kilograd.cli.bench.timing import TITLES

# What kilograd asks for, as in pyproject.toml: a source tree is no distribution with requirements.
SIZES = {"on disk": ("numpy",), "on disk, with [fast]": ("numpy", "numba", "scipy")}
PACKAGE = Path(kilograd.__file__).parent
PROGRAM = """
import sys, time
sys.path.append({folder!r})
start = time.perf_counter()
import numpy
middle = time.perf_counter()
import {library}
print(middle - start, time.perf_counter() - middle)
"""


def import_seconds(library: str) -> tuple[float, float]:
    """Seconds for NumPy, and for the library after it, in a fresh process."""
    folder = str(PACKAGE.parent)  # for a source tree that is not installed
    command = [sys.executable, "-c", PROGRAM.format(library=library, folder=folder)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    numpy, rest = run.stdout.split()[-2:]
    return float(numpy), float(rest)


def installed(names: tuple[str, ...]) -> list[str]:
    """kilograd, and those of the names that could be imported."""
    return ["kilograd", *(name for name in names if importlib.util.find_spec(name))]


def import_row(libraries: list[str], rounds: int) -> Row:
    """Import times beyond NumPy's own; the libraries take turns."""
    row = Row("import", "import", "ms, beyond NumPy's", {}, scale=("ms", 1e3))
    for name in libraries:
        try:
            import_seconds(name)  # compiles to .pyc and warms the disk cache
        except subprocess.CalledProcessError as error:
            row.error(TITLES[name], error)
        else:
            row.values[name] = []
    for _ in range(rounds):
        for name in row.values:
            row.values[name].append(import_seconds(name)[1])
    return row


def size_row(name: str, needs: tuple[str, ...], libraries: list[str]) -> Row:
    """Megabytes on disk of each library with all that it requires; kilograd's with ``needs``."""
    row = Row("import", name, "MB, with requirements", {}, scale=("MB", 1e-6))
    for library in libraries:
        size = installed_bytes(needs if library == "kilograd" else (library,))
        if size is None:
            row.notes.append(
                f"{TITLES[library]}: a part is not installed, or does not list its files"
            )
        else:
            row.values[library] = [size + (own_bytes() if library == "kilograd" else 0.0)]
    return row


def own_bytes() -> float:
    """kilograd's own files, with the bytecode of this Python."""
    tag = f".{sys.implementation.cache_tag}"
    return sum(
        path.stat().st_size
        for path in PACKAGE.rglob("*")
        if path.is_file() and (path.suffix != ".pyc" or path.stem.endswith(tag))
    )


def installed_bytes(names: tuple[str, ...]) -> float | None:
    """The files of these distributions and of all they require; None where one cannot be counted."""
    found: dict[str, float] = {}
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            return None
        if not distribution.files:  # some package managers leave no list
            return None
        paths = (Path(str(file.locate())) for file in distribution.files)
        found[name] = sum(path.stat().st_size for path in paths if path.is_file())
        waiting += requirements(distribution)
    return sum(found.values())


def requirements(distribution: importlib.metadata.Distribution) -> list[str]:
    """The names of what a distribution requires on this machine, without its extras."""
    try:
        from packaging.requirements import Requirement
    except ImportError as e:
        raise ImportError("sizes on disk need packaging: pip install 'kilograd[cli]'") from e

    all_of_them = map(Requirement, distribution.requires or ())
    return [r.name for r in all_of_them if r.marker is None or r.marker.evaluate({"extra": ""})]
