"""Two libraries are compared in short turns, one after the other: what disturbs one disturbs the other.

A time by itself says little on a machine that does other things as well. So every round gives each library
a burst of some milliseconds, and what counts is the ratio within a round; of the rounds, the median.
"""

from __future__ import annotations

import gc
import importlib
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import kilograd as kg
from kilograd.kernels.threads import cores

Step = Callable[[], Any]
WARM_UP, WARM_UP_SECONDS = 310, 0.5
TITLES = {"kilograd": "kilograd", "compiled": "compiled", "torch": "PyTorch", "jax": "JAX"}
VARIABLES = ("KILOGRAD", "OMP", "OPENBLAS", "MKL", "NUMBA", "VECLIB_MAXIMUM")


def fix_threads(threads: int) -> None:
    """The same number of threads for everything: what is loaded already, and what will be.

    PyTorch reads the variables when it is first imported; `libraries` tells it again.
    """
    for library in VARIABLES:
        os.environ[f"{library}_NUM_THREADS"] = str(threads)
    kg.set_num_threads(threads)


def libraries(threads: int, names: tuple[str, ...] = ("torch",)) -> dict[str, Any]:
    """kilograd, and those of the names that are installed."""
    found: dict[str, Any] = {"kilograd": kg}
    for name in names:
        try:
            found[name] = importlib.import_module(name)
        except (ImportError, OSError):  # OSError: installed, but one of its own libraries is not
            continue
        if name == "torch":
            found[name].set_num_threads(threads)
    return found


def machine(threads: int) -> dict[str, Any]:
    """What the times were measured on."""
    return {
        "processor": processor(),
        "cores": cores(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,  # before we begin
    }


def processor() -> str:
    """The processor's name; ``platform`` knows only its family on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions(found: dict[str, Any]) -> dict[str, str]:
    """Python, NumPy and the libraries that are compared."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        **{name: str(library.__version__) for name, library in found.items()},
    }


def calls_in(burst: float, step: Step, clock: Callable[[], float] = time.perf_counter) -> int:
    """How many calls take about ``burst`` seconds, at least one.

    The first calls are not counted: they compile, and touch memory for the first time; kilograd runs what
    is done 300 times on small arrays natively from then on. Calls are doubled until they take a good part
    of the burst, since the clock itself takes as long as a tiny step.
    """
    start = time.perf_counter()
    for k in range(WARM_UP):
        step()
        if k > 4 and time.perf_counter() - start > WARM_UP_SECONDS:
            break
    count = 1
    while True:
        start = clock()
        for _ in range(count):
            step()
        seconds = clock() - start
        if seconds > burst / 4:
            return max(round(count * burst / seconds), 1)
        count *= 2


def alternate(
    steps: dict[str, Step],
    rounds: int = 15,
    burst: float = 0.1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds a step, round by round: in each round every library runs for about ``burst`` seconds.

    Turns this short are hit alike by whatever else the machine does, so that the ratio of two libraries
    within a round means something even where the times do not. ``clock`` may be ``time.process_time``,
    which stands still while other processes have the processor.
    """
    counts = {name: calls_in(burst, step, clock) for name, step in steps.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    gc.collect()
    gc.freeze()  # the modules of all libraries: the collector would walk them before every burst
    try:
        for _ in range(rounds):
            for name, step in steps.items():
                gc.collect()
                start = clock()
                for _ in range(counts[name]):
                    step()
                seconds[name].append((clock() - start) / counts[name])
    finally:
        gc.unfreeze()
    return seconds


def ratio(seconds: dict[str, list[float]], slow: str = "torch", fast: str = "kilograd") -> float:
    """How many times faster ``fast`` is than ``slow``: the median over the rounds."""
    pairs = zip(seconds[slow], seconds[fast], strict=True)
    return statistics.median(theirs / ours for theirs, ours in pairs)
