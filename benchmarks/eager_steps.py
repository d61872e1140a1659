"""Claim: on models of CPU size, an eager training step is quicker than PyTorch's.

    python benchmarks/eager_steps.py                  # basic_mlp, then the other networks
    python benchmarks/eager_steps.py basic_mlp --rounds 31

Times whole steps (zero_grad, forward, loss, backward, optimizer) through nn.Module and optim, in one
process, in alternating bursts, with the same number of threads. `ratio` is PyTorch's time divided by
kilograd's, the median over the rounds. Before it times, it checks that both compute the same losses.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import workloads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(workloads.WORKLOADS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--burst", type=float, default=0.1, help="seconds a turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="processor time: for a machine that is busy with others",
    )
    args = parser.parse_args()
    if args.cpu_time and args.threads > 1:
        parser.error("--cpu-time adds up the threads; use it with one")
    unknown = set(args.names) - set(workloads.WORKLOADS)
    if unknown:
        parser.error(
            f"no workload {', '.join(unknown)}; there are {', '.join(workloads.WORKLOADS)}"
        )

    workloads.fix_threads(args.threads)
    libraries = workloads.libraries(args.threads)
    print(
        f"{args.threads} thread(s), {args.rounds} rounds of {args.burst} s; µs a step (best round)\n"
    )
    print(
        f"{'workload':14}{'parameters':>11}{'batch':>6}{'kilograd':>10}{'(best)':>10}"
        f"{'torch':>10}{'(best)':>10}{'ratio':>8}"
    )
    for name in args.names or workloads.WORKLOADS:
        steps = {lib: workloads.WORKLOADS[name](module) for lib, module in libraries.items()}
        note = agreement(name, libraries)
        clock = time.process_time if args.cpu_time else time.perf_counter
        seconds = workloads.alternate(steps, args.rounds, args.burst, clock)
        ours = steps["kilograd"]
        line = f"{name:14}{ours.parameters:>11,}{ours.batch:>6}"
        for lib in libraries:
            line += (
                f"{statistics.median(seconds[lib]) * 1e6:>10,.0f}{min(seconds[lib]) * 1e6:>10,.0f}"
            )
        if "torch" in libraries:
            line += f"{workloads.ratio(seconds):>7.2f}x"
        print(line + note, flush=True)


def agreement(name: str, libraries: dict) -> str:
    """Empty if the first losses of both libraries agree."""
    curves = []
    for module in libraries.values():
        step = workloads.WORKLOADS[name](module)
        module.manual_seed(7)  # dropout draws from here
        curves.append([step().item() for _ in range(3)])
    same = all(math.isclose(*pair, rel_tol=1e-3) for pair in zip(*curves, strict=True) if pair[1:])
    return "" if same else f"  losses differ: {curves}"


if __name__ == "__main__":
    main()
