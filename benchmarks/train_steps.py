"""Claim: a compiled training step is several times quicker than PyTorch's on a CPU.

    python benchmarks/train_steps.py                           # all networks
    python benchmarks/train_steps.py basic_mlp pinn --rounds 31 --json steps.json
    python benchmarks/train_steps.py --first-steps             # and how long the first step takes
    python benchmarks/train_steps.py --eager                   # without kg.compile

Times whole steps (zero_grad, forward, loss, backward, optimizer step) in one process, in alternating
bursts, with the same number of threads: PyTorch eager, kilograd eager and `kg.compile` of the same
function. `policy` is a forward pass of one row, which measures what a call costs. `speed-up` is PyTorch's
eager time divided by the compiled one's, the median over the rounds; `goal` is what it shall be. Before it
times, it checks that all compute the same losses.

`floor` is the time that the machine alone would need: the FLOPs of the step's matrix products and
convolutions at the rate of a 1024³ matrix product measured in the same run, plus the bytes that have to
move (see `Work` in `kilograd/cli/bench/networks.py`) at the rate of `np.copyto` over as many bytes as the step keeps alive,
64 MB at most. `x floor` is our time divided by it. It is an estimate: small matrix products do not reach
the rate of large ones, and what stays in cache within a step moves faster than a copy. The rates are those of
NumPy, whose BLAS kilograd calls; PyTorch brings its own, which may be quicker: its rate is printed, too.

`--first-steps` starts each network in a process of its own with an empty cache directory (`cold`), then in
a second process with the cache that the first one left (`warm`), and gives the seconds until the first
step that runs at the speed of the later ones.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import workloads
from compiled_workloads import GOALS

from kilograd.cli.bench.networks import WORKLOADS, Workload, disagreements, first_losses

FORMATS = {
    "workload": "<11", "parameters": ">10,", "torch µs": ">10,.1f", "kilograd µs": ">12,.1f",
    "compiled µs": ">12,.1f", "torch.compile µs": ">17,.1f", "speed-up": ">9.2f", "goal": ">5g",
    "floor µs": ">9,.1f", "x floor": ">8.1f", "cold s": ">7.2f", "warm s": ">7.2f",
    "torch.compile cold s": ">21.2f", "torch.compile warm s": ">21.2f",
}  # fmt: skip

BUSY = "uneven times: is the machine busy with others?"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--burst", type=float, default=0.1, help="seconds a turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--eager", action="store_true", help="time kilograd without kg.compile")
    parser.add_argument("--backend", help="of kg.compile: auto, numpy or numba")
    parser.add_argument("--torch-compile", action="store_true", help="time torch.compile too")
    parser.add_argument("--first-steps", action="store_true", help="seconds of the first step, too")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument("--first-step-of", metavar="COMPILER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.names = args.names or list(WORKLOADS)
    if unknown := set(args.names) - set(WORKLOADS):
        parser.error(f"no workload {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    return args


def main() -> None:
    args = parse()
    workloads.fix_threads(args.threads)
    if args.first_step_of:
        print(json.dumps(first_step(args.names[0], args.first_step_of, args)))
        return
    libraries = workloads.libraries(args.threads)
    if not args.eager and not hasattr(libraries["kilograd"], "compile"):
        sys.exit("this kilograd has no kg.compile: use --eager")
    gemm = gemm_rate()
    theirs = ""
    if "torch" in libraries:
        theirs = f" (PyTorch's BLAS: {torch_gemm_rate(libraries['torch']) / 1e9:.0f})"
    print(
        f"{args.threads} thread(s), {args.rounds} rounds of {args.burst} s; medians\n"
        f"1024³ float32 matmul {gemm / 1e9:.0f} GFLOP/s{theirs}, "
        f"copy of 64 MB {copy_rate(64e6, args.threads) / 1e9:.1f} GB/s (read + written)\n"
    )
    columns = [c for c in FORMATS if wanted(c, args)]
    print("".join(f"{c:{FORMATS[c][0]}{width(c)}}" for c in columns), flush=True)
    rows = []
    for name in args.names:
        gemm = max(gemm, gemm_rate())  # the machine may have been busy with others before
        row, notes = measure(name, libraries, gemm, args)
        if args.first_steps:
            first_steps(row, notes, args, "torch" in libraries)
        rows.append(row | {"notes": notes})
        print("".join(cell(row.get(c), c) for c in columns) + "".join(f"  {n}" for n in notes))
        sys.stdout.flush()
    if speed_ups := [row["speed-up"] for row in rows if "speed-up" in row]:
        print(f"\ngeometric mean of the speed-ups: {statistics.geometric_mean(speed_ups):.2f}")
    if args.json:
        with open(args.json, "w") as f:
            json.dump(report(rows, gemm, args, libraries), f, indent=1)
    harmless = BUSY, "torch.compile"
    if any(not note.startswith(harmless) for row in rows for note in row["notes"]):
        sys.exit(1)


def wanted(column: str, args: argparse.Namespace) -> bool:
    if column.endswith(" s") and not args.first_steps:
        return False
    if column.startswith("torch.compile"):
        return args.torch_compile
    return not (args.eager and column == "compiled µs")


def width(column: str) -> int:
    return int(FORMATS[column][1:].split(".")[0].rstrip(",g"))


def cell(value: Any, column: str) -> str:
    return (
        f"{'-':{FORMATS[column][0]}{width(column)}}"
        if value is None
        else f"{value:{FORMATS[column]}}"
    )


def report(rows: list, gemm: float, args: argparse.Namespace, libraries: dict) -> dict:
    return {
        "options": vars(args),
        "machine": {"processor": platform.processor(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version()}
        | {name: module.__version__ for name, module in libraries.items()},
        "GEMM FLOP/s": gemm,
        "rows": rows,
    }


# Timing -----------------------------------------------------------------------------------------------


def compiler(kind: str, backend: str | None = None) -> tuple[str, Callable]:
    """The library that a kind of step is written in, and what makes it of the workload's function."""
    if kind == "compiled":
        import kilograd as kg

        options = {"backend": backend} if backend else {}
        return "kilograd", lambda function: kg.compile(function, **options)
    if kind == "torch.compile":
        import torch

        return "torch", torch.compile
    return kind, lambda function: function


def measure(name: str, libraries: dict, gemm: float, args: argparse.Namespace) -> tuple[dict, list]:
    """One row of the table, and what went wrong."""
    kinds = [lib for lib in ("torch", "kilograd") if lib in libraries]
    kinds += [] if args.eager else ["compiled"]
    kinds += ["torch.compile"] if args.torch_compile and "torch" in libraries else []
    steps, first, notes = {}, {}, []
    with contextlib.ExitStack() as stack:
        for kind in kinds:
            lib, compiling = compiler(kind, args.backend)
            workload = WORKLOADS[name](libraries[lib])
            stack.enter_context(workload.mode())
            try:
                step = workload.step(compiling(workload.function))
                first[kind] = first_losses(libraries[lib], step)
            except Exception as error:
                if kind not in ("compiled", "torch.compile"):
                    raise
                line = (str(error).splitlines() or [""])[0]
                notes.append(f"{kind}: {type(error).__name__}: {line}")
            else:
                steps[kind] = step
        notes += disagreements(first)
        seconds = workloads.alternate(steps, args.rounds, args.burst)
    row = {"workload": name, "parameters": workload.parameters, "goal": GOALS[name]}
    row["best µs"] = {kind: min(times) * 1e6 for kind, times in seconds.items()}
    if any(statistics.median(times) > 1.5 * min(times) for times in seconds.values()):
        notes.append(BUSY)
    row |= {f"{kind} µs": statistics.median(times) * 1e6 for kind, times in seconds.items()}
    ours = "kilograd" if args.eager else "compiled"
    if ours in seconds:
        floor = floor_seconds(workload, gemm, args.threads)
        row["floor µs"] = floor * 1e6
        row["x floor"] = statistics.median(seconds[ours]) / floor
        if "torch" in seconds:
            row["speed-up"] = workloads.ratio(seconds, "torch", ours)
    return row, notes


# The floor --------------------------------------------------------------------------------------------


def best(call: Callable[[], Any], repeats: int) -> float:
    """The least seconds of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def gemm_rate(n: int = 1024) -> float:
    """FLOP/s of a large matrix product; NumPy's BLAS takes the number of threads of `fix_threads`."""
    import numpy as np

    a, b = np.random.default_rng(0).random((2, n, n), dtype=np.float32)
    c = np.empty_like(a)
    return 2 * n**3 / best(lambda: np.matmul(a, b, out=c), 15)


def torch_gemm_rate(torch: Any, n: int = 1024) -> float:
    a, b = torch.rand(2, n, n)
    c = torch.empty_like(a)
    return 2 * n**3 / best(lambda: torch.mm(a, b, out=c), 15)


def copy_rate(size: float, threads: int) -> float:
    """Bytes a second, read and written, of copies within ``size`` bytes (256 KB to 64 MB).

    Every thread copies one half of its share to the other half; small copies are left to one thread.
    """
    import numpy as np

    size = min(max(size, 256e3), 64e6)
    threads = threads if size > 8e6 else 1
    shares = [np.ones((2, int(size / threads / 8)), np.float32) for _ in range(threads)]
    repeats = int(256e6 / size)

    def copy(share: np.ndarray) -> None:
        source, target = share
        for _ in range(repeats):
            np.copyto(target, source)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(copy, shares))  # the threads start here
        return size * repeats / best(lambda: list(pool.map(copy, shares)), 15)


def floor_seconds(workload: Workload, gemm: float, threads: int) -> float:
    work = workload.work
    return work.flops / gemm + 4 * work.words / copy_rate(4 * work.kept, threads)


# The first step ---------------------------------------------------------------------------------------


def first_step(name: str, kind: str, args: argparse.Namespace) -> float:
    """Seconds until a step has run at the speed of the later ones, in this process.

    Whether the first call records and the second one compiles is the compiler's affair: the calls up to
    the last slow one count.
    """
    lib, compiling = compiler(kind, args.backend)
    workload = WORKLOADS[name](workloads.libraries(args.threads)[lib])
    with workload.mode():
        step = workload.step(compiling(workload.function))
        times = [best(step, 1) for _ in range(12)]
    usual = statistics.median(times[6:])
    slow = [i for i, t in enumerate(times[:6]) if t > 3 * usual + 1e-3]
    return sum(times[: max(slow, default=0) + 1])


def first_steps(row: dict, notes: list, args: argparse.Namespace, torch: bool) -> None:
    """Fill in the columns of the first step, each measured in a process of its own."""
    kinds = {"kilograd" if args.eager else "compiled": ""}
    if args.torch_compile and torch:
        kinds["torch.compile"] = "torch.compile "
    command = [sys.executable, __file__, row["workload"], "--threads", str(args.threads)]
    command += ["--backend", args.backend] if args.backend else []
    for kind, prefix in kinds.items():
        with tempfile.TemporaryDirectory() as cache:
            caches = {"KILOGRAD_CACHE": cache, "TORCHINDUCTOR_CACHE_DIR": cache}
            for temperature in ("cold", "warm"):
                done = subprocess.run(
                    [*command, "--first-step-of", kind],
                    env=os.environ | caches, capture_output=True, text=True,
                )  # fmt: skip
                if done.returncode:
                    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                    notes.append(f"first step of {kind}, {temperature}: {last}")
                else:
                    row[f"{prefix}{temperature} s"] = json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
