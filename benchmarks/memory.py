"""Claim: training does not leak: memory is flat over 10,000 steps, without the garbage collector.

    python benchmarks/memory.py

Runs basic_mlp with Python's cyclic collector switched off, so that a single reference cycle a step would
show as 10,000 of them. `objects` are those that the collector tracks, `traced` what tracemalloc counts,
`resident` what the operating system has given the process. PyTorch runs beside it where it is installed.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tracemalloc

import workloads


def resident() -> float:
    """MiB of memory that the process holds now; NaN where there is no /proc."""
    try:
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--workload", choices=workloads.WORKLOADS, default="basic_mlp")
    args = parser.parse_args()
    workloads.fix_threads(1)
    flat = True
    for name, module in workloads.libraries(1).items():
        step = workloads.WORKLOADS[args.workload](module)
        for _ in range(200):
            step()
        gc.collect()
        gc.disable()
        objects, memory = len(gc.get_objects()), resident()
        for _ in range(args.steps // 2):
            step()
        more_objects, more_memory = len(gc.get_objects()) - objects, resident() - memory
        tracemalloc.start()
        step()
        traced = tracemalloc.get_traced_memory()[0]
        for _ in range(args.steps // 2):
            step()
        more_traced = tracemalloc.get_traced_memory()[0] - traced
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        gc.enable()
        print(
            f"{name:9} {args.workload}, {args.steps:,} steps: objects {more_objects:+d},"
            f" traced {more_traced / 1024:+.1f} KiB (peak {peak / 1024:.0f} KiB),"
            f" resident {more_memory:+.2f} MiB"
        )
        if name == "kilograd":
            flat = more_objects < 50 and more_traced < 16 * 1024 and not more_memory > 2
    print("flat" if flat else "NOT FLAT")
    sys.exit(not flat)


if __name__ == "__main__":
    main()
