"""Claim: the Trainer costs about a tenth of a millisecond a step, or less, beside a loop written by hand.

    python benchmarks/trainer.py                 # both libraries, an MLP on moons and SynapGrad's MNIST MLP
    python benchmarks/trainer.py --threads 2

An epoch of batches from a list, by a loop written by hand and by the Trainer, with the loss and the
accuracy of every batch; with PyTorch's model and kilograd's, eager and compiled. All take turns, an epoch
each; the table says the median time of a step. A loader's own time is left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import kilograd as kg
from kilograd.cli.bench import timing
from kilograd.train import Trainer
from kilograd.train.metrics import Accuracy

NETWORKS = {"moons": ((2, 16, 16, 2), 32, 100), "mnist": ((784, 200, 100, 10), 64, 60)}
TURNS = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", metavar="network", help=", ".join(NETWORKS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if unknown := set(args.networks) - set(NETWORKS):
        parser.error(f"there is no network {', '.join(unknown)}; there are {', '.join(NETWORKS)}")
    timing.fix_threads(args.threads)
    libraries = timing.libraries(args.threads)
    found = {name: measured(libraries, name, args.turns) for name in args.networks or NETWORKS}
    if args.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{'microseconds a step':24}" + "".join(f"{name:>12}" for name in found))
    for way in next(iter(found.values())):
        print(f"{way:24}" + "".join(f"{times[way]:12.1f}" for times in found.values()))


def measured(libraries: dict[str, Any], name: str, turns: int) -> dict[str, float]:
    """Microseconds a step, for each way to train the network."""
    sizes, batch, steps = NETWORKS[name]
    rng = np.random.default_rng(0)
    data = [
        (rng.normal(size=(batch, sizes[0])).astype(np.float32), rng.integers(0, sizes[-1], batch))
        for _ in range(steps)
    ]
    epochs: dict[str, Callable[[], None]] = {}
    ways = [(timing.TITLES[key], lib, False) for key, lib in libraries.items()]
    for library, lib, compiled in (*ways, ("compiled", kg, True)):
        batches = [(lib.tensor(x), lib.tensor(y)) for x, y in data]
        epochs[f"{library}, by hand"] = by_hand(lib, sizes, batches, compiled)
        epochs[f"{library}, Trainer"] = by_trainer(lib, sizes, batches, compiled)
    times: dict[str, list[float]] = {way: [] for way in epochs}
    for turn in range(turns + 3):  # the first ones record and compile
        for way, epoch in epochs.items():
            began = time.perf_counter()
            epoch()
            if turn >= 3:
                times[way].append((time.perf_counter() - began) / steps * 1e6)
    return {way: statistics.median(each) for way, each in times.items()}


def network(lib: Any, sizes: tuple[int, ...]) -> tuple[Any, Any, Any]:
    lib.manual_seed(0)
    layers = []
    for a, b in itertools.pairwise(sizes):
        layers += [lib.nn.Linear(a, b), lib.nn.ReLU()]
    model = lib.nn.Sequential(*layers[:-1])
    return model, lib.nn.CrossEntropyLoss(), lib.optim.Adam(model.parameters(), lr=1e-3)


def by_hand(
    lib: Any, sizes: tuple[int, ...], batches: list[Any], compiled: bool
) -> Callable[[], None]:
    model, loss_fn, optimizer = network(lib, sizes)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        scores = model(x)
        loss = loss_fn(scores, y)
        loss.backward()
        optimizer.step()
        return loss.detach(), scores.detach()

    step = lib.compile(step) if compiled else step

    def epoch() -> None:
        total = right = 0.0
        model.train()
        for x, y in batches:
            loss, scores = step(x, y)
            total += loss.item() * len(x)
            right += (scores.argmax(1) == y).sum().item()

    return epoch


def by_trainer(
    lib: Any, sizes: tuple[int, ...], batches: list[Any], compiled: bool
) -> Callable[[], None]:
    model, loss_fn, optimizer = network(lib, sizes)
    metrics = {"accuracy": Accuracy()}
    trainer = Trainer(model, loss_fn, optimizer, metrics=metrics, compile=compiled)
    return lambda: trainer.fit(batches, progress=False) and None


if __name__ == "__main__":
    main()
