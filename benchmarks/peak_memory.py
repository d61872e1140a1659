"""Claim: a training step needs no more memory at its peak than PyTorch's.

    python benchmarks/peak_memory.py                  # the nine networks
    python benchmarks/peak_memory.py mnist_cnn --steps 30

Each network runs in fresh processes, one for each library and way (PyTorch, kilograd eager and compiled). What
is given is by how much the resident memory of the process rises above what it was before the model was
made, when the library's own code had been loaded by a few steps of a tiny network: parameters, optimizer
state, activations, gradients, scratch memory and what the allocator keeps. The peak is the kernel's own (VmHWM), so nothing is missed between two looks. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import subprocess
import sys

from kilograd.cli.bench import timing
from kilograd.cli.bench.networks import WORKLOADS

KINDS = ("torch", "kilograd", "compiled")


def megabytes(field: str) -> float:
    with open("/proc/self/status") as f:
        found = re.search(rf"{field}:\s+(\d+) kB", f.read())
    assert found is not None
    return int(found[1]) / 1024


def measure(name: str, kind: str, steps: int, threads: int) -> float:
    """MiB that the process has grown by at its peak."""
    timing.fix_threads(threads)
    lib = timing.libraries(threads)["torch" if kind == "torch" else "kilograd"]

    def run(name: str, steps: int) -> None:
        workload = WORKLOADS[name](lib)
        function = workload.function
        if kind == "compiled":
            function = lib.compile(function)
        with workload.mode():
            step = workload.step(function)
            for _ in range(steps):
                step()

    run("basic_mlp", 3)
    x = lib.rand(300, 300).requires_grad_()
    (x @ x).exp().mean().backward()
    del x
    gc.collect()
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")  # the peak begins anew
    before = megabytes("VmRSS")
    run(name, steps)
    return megabytes("VmHWM") - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(WORKLOADS))
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", choices=KINDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.names) - set(WORKLOADS):
        parser.error(f"no network {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    if not os.path.exists("/proc/self/clear_refs"):
        sys.exit("this needs Linux's /proc")
    if args.one:
        print(json.dumps(measure(args.names[0], args.one, args.steps, args.threads)))
        return
    kinds = KINDS if "torch" in timing.libraries(args.threads) else KINDS[1:]
    print(f"MiB above the start, {args.steps} steps, {args.threads} thread(s)\n")
    print(f"{'network':12}" + "".join(f"{kind:>12}" for kind in kinds))
    more = []
    for name in args.names or WORKLOADS:
        figures = {}
        for kind in kinds:
            command = [sys.executable, __file__, name, "--one", kind, "--steps", str(args.steps)]
            for attempt in range(2):  # the first may compile: Numba stays in memory
                done = subprocess.run(
                    [*command, "--threads", str(args.threads)],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                if kind == "torch" or attempt:
                    figures[kind] = json.loads(done.stdout.splitlines()[-1])
                    break
        print(f"{name:12}" + "".join(f"{figures[kind]:12.1f}" for kind in kinds), flush=True)
        more += [f"{name}, {k}" for k in kinds if figures[k] > figures.get("torch", float("inf"))]
    if more:
        sys.exit(f"more than PyTorch: {'; '.join(more)}")


if __name__ == "__main__":
    main()
