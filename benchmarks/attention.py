"""Claim: attention takes less time than PyTorch's, and like it no memory for the matrix of scores.

    python benchmarks/attention.py
    python benchmarks/attention.py --shapes 1,8,2048,64 --rounds 31

Times `scaled_dot_product_attention` of float32 (batch, heads, length, width), alone and with its backward
pass, in one process and in alternating bursts with the same number of threads. A ratio is PyTorch's time
divided by kilograd's, the median over the rounds: above 1, kilograd is quicker. `MiB` is by how much the
resident memory of a fresh process rises at its peak while it runs forward and backward, beyond the inputs;
results and gradients are in it. `scores` is what one matrix of scores (batch, heads, length, length) would
take. Memory is measured on Linux only.
"""

from __future__ import annotations

import argparse
import gc
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd.cli.bench import timing

Shape = tuple[int, ...]
CASES = (
    ((1, 2, 16, 16), True), ((12, 4, 64, 32), True), ((4, 8, 256, 64), True),
    ((4, 8, 256, 64), False), ((2, 8, 1024, 64), True), ((2, 8, 1024, 64), False),
)  # fmt: skip


def inputs(lib: Any, shape: Shape) -> list[Any]:
    """q, k and v, which need gradients, and the gradient of the result."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for _ in range(4)]
    tensors = [lib.from_numpy(a) for a in arrays]
    for t in tensors[:3]:
        t.requires_grad = True
    return tensors


def step(lib: Any, shape: Shape, causal: bool, backward: bool) -> Callable[[], None]:
    *given, g = inputs(lib, shape)
    attend = lib.nn.functional.scaled_dot_product_attention

    def run() -> None:
        y = attend(*given, is_causal=causal)
        if backward:
            y.backward(g)
            for t in given:
                t.grad = None

    return run


def megabytes(field: str) -> float:
    with open("/proc/self/status") as f:
        found = re.search(rf"{field}:\s+(\d+) kB", f.read())
    assert found is not None
    return int(found[1]) / 1024


def growth(library: str, shape: Shape, causal: bool, threads: int) -> float:
    """MiB by which this process grows at its peak."""
    timing.fix_threads(threads)
    lib = timing.libraries(threads)[library]
    for _ in range(3):  # code is loaded
        step(lib, (1, 2, 64, 64), causal, True)()
    run = step(lib, shape, causal, True)
    gc.collect()
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")  # the peak begins anew
    before = megabytes("VmRSS")
    for _ in range(3):
        run()
    return megabytes("VmHWM") - before


def growth_elsewhere(library: str, shape: Shape, causal: bool, threads: int) -> float:
    """The same of a fresh process; nan where there is no /proc."""
    sizes = ",".join(map(str, shape))
    given = ["--growth", library, "--shapes", sizes, "--threads", str(threads)]
    command = [sys.executable, __file__, *given, *["--causal"] * causal]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else float("nan")


def shape_of(text: str) -> Shape:
    return tuple(map(int, text.split(",")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="*", type=shape_of, metavar="B,H,L,E")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--burst", type=float, default=0.05, help="seconds a turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--growth", help=argparse.SUPPRESS)
    parser.add_argument("--causal", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.growth:
        print(growth(args.growth, args.shapes[0], args.causal, args.threads))
        return
    timing.fix_threads(args.threads)
    libraries = timing.libraries(args.threads)
    given = args.shapes or []
    cases = [(s, causal) for s in given for causal in (True, False)] or CASES
    titles = [f"{timing.TITLES[n]} {w}" for w in ("fwd µs", "fwd+bwd µs", "MiB") for n in libraries]
    widths = [max(12, len(t) + 2) for t in titles]
    head = "".join(f"{t:>{w}}" for t, w in zip(titles, widths, strict=True))
    print(f"{'shape':<20}{head}{'fwd':>8}{'fwd+bwd':>9}{'scores MiB':>12}")
    for shape, causal in cases:
        figures, ratios = [], []
        for backward in (False, True):
            steps = {n: step(lib, shape, causal, backward) for n, lib in libraries.items()}
            seconds = timing.alternate(steps, args.rounds, args.burst)
            figures += [statistics.median(s) * 1e6 for s in seconds.values()]
            ratios.append(timing.ratio(seconds) if "torch" in seconds else float("nan"))
        figures += [growth_elsewhere(n, shape, causal, args.threads) for n in libraries]
        line = "".join(f"{x:>{w},.1f}" for x, w in zip(figures, widths, strict=True))
        name = ",".join(map(str, shape)) + " causal" * causal
        scores = float(np.prod(shape[:3])) * shape[2] * 4 / 2**20
        print(f"{name:<20}{line}{ratios[0]:8.2f}{ratios[1]:9.2f}{scores:12.1f}", flush=True)


if __name__ == "__main__":
    main()
