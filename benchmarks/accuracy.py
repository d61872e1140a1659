"""Claim: real networks learn real data, as well as the ancestors' did or better.

    python benchmarks/accuracy.py                     # everything: some minutes on one core
    python benchmarks/accuracy.py digits_conv

Runs the examples' own functions with their default settings and compares the accuracy on the test set
with what is promised. MNIST is read from $KILOGRAD_DATA/mnist or the cache folder (--download fetches it).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import workloads

workloads.fix_threads(1)
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

# ruff: isort: off
# ruff: noqa: E402 - the examples are found, and NumPy limited to one thread, by the lines above
import digits_conv
import macrograd_mnist
import mnist_cnn
import mnist_mlp

import kilograd as kg
from kilograd.datasets import MNIST


def digits() -> float:
    kg.manual_seed(0)
    return digits_conv.run(digits_conv.cnn(), epochs=30, lr=3e-3, batch_size=64, augment=True)


# name: (how to run it, does it need MNIST, promised, what the ancestor published)
CLAIMS = {
    "digits_conv": (digits, False, 0.98, "0.931, of a smaller network"),
    "mnist_mlp": (mnist_mlp.run, True, 0.978, "0.9786"),
    "mnist_cnn": (mnist_cnn.run, True, 0.985, "0.9814"),
    "macrograd_mnist": (macrograd_mnist.run, True, 0.97, "0.97"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CLAIMS))
    parser.add_argument("--download", action="store_true", help="fetch MNIST if it is not here")
    args = parser.parse_args()
    unknown = set(args.names) - set(CLAIMS)
    if unknown:
        parser.error(f"no claim {', '.join(unknown)}; there are {', '.join(CLAIMS)}")

    table, kept = [], True
    for name in args.names or CLAIMS:
        run, on_mnist, promised, published = CLAIMS[name]
        print(f"--- {name}", flush=True)
        data = (MNIST(train=t, download=args.download) for t in (True, False)) if on_mnist else ()
        start = time.perf_counter()
        result = run(*data)
        seconds = time.perf_counter() - start
        kept &= result >= promised
        table.append(f"{name:18}{result:>10.4f}{promised:>10.4f}{seconds:>8.0f} s  {published}")
    print(f"\n{'':18}{'accuracy':>10}{'promised':>10}{'time':>10}  the ancestor's")
    print("\n".join(table))
    print("all promises kept" if kept else "A PROMISE IS BROKEN")
    sys.exit(not kept)


if __name__ == "__main__":
    main()
