"""Claim: ``import kilograd`` costs at most 0.15 s beyond NumPy's own import.

    python benchmarks/import_time.py

Each figure is the median of ten fresh processes, which take turns; modules are compiled beforehand, as
those of an installed package are.
"""

from __future__ import annotations

import argparse
import statistics
import sys

from kilograd.cli.bench.imports import import_seconds, installed

LIMIT = 0.15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=10)
    args = parser.parse_args()
    names = installed(("torch",))
    for name in names:
        import_seconds(name)  # compiles to .pyc and warms the disk cache
    runs = [{name: import_seconds(name) for name in names} for _ in range(args.processes)]
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
