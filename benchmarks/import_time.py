"""Claim: ``import kilograd`` costs at most 0.15 s beyond NumPy's own import.

    python benchmarks/import_time.py

Each figure is the median of ten fresh processes, which take turns; modules are compiled beforehand, as
those of an installed package are.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys

LIMIT = 0.15
PROGRAM = """
import time
start = time.perf_counter()
import numpy
middle = time.perf_counter()
import {library}
print(middle - start, time.perf_counter() - middle)
"""


def measure(library: str) -> tuple[float, float]:
    """Seconds for NumPy, and for the library after it, in a fresh process."""
    command = [sys.executable, "-c", PROGRAM.format(library=library)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    numpy, rest = run.stdout.split()
    return float(numpy), float(rest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=10)
    args = parser.parse_args()
    names = [n for n in ("kilograd", "torch") if importlib.util.find_spec(n)]
    for name in names:
        measure(name)  # compiles to .pyc and warms the disk cache
    runs = [{name: measure(name) for name in names} for _ in range(args.processes)]
    numpy = statistics.median(run["kilograd"][0] for run in runs)
    print(f"{'numpy':10}{numpy:8.3f} s")
    for name in names:
        beyond = [run[name][1] for run in runs]
        print(
            f"{name:10}{statistics.median(beyond):8.3f} s beyond NumPy"
            f"  ({min(beyond):.3f} to {max(beyond):.3f})"
        )
    ours = statistics.median(run["kilograd"][1] for run in runs)
    print(f"limit     {LIMIT:8.3f} s: {'kept' if ours <= LIMIT else 'BROKEN'}")
    sys.exit(ours > LIMIT)


if __name__ == "__main__":
    main()
