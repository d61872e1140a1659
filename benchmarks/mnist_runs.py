"""Claim: SynapGrad's whole MNIST runs take less time than with PyTorch running the same script.

    python benchmarks/mnist_runs.py                       # 20 epochs of the MLP, 5 of the CNN: some minutes
    python benchmarks/mnist_runs.py cnn --epochs 1 --threads 1
    python benchmarks/mnist_runs.py --slices              # batches cut from the arrays, no DataLoader

The script is written once, for both libraries: reading MNIST, DataLoader, training with the loss and the
accuracy of every batch, validation in evaluation mode after each epoch, the test at the end. Models,
batch sizes, the split and the optimizers are those of SynapGrad's notebooks (Adam with 0.01 for the CNN,
SGD with momentum for the MLP). The libraries take turns, an epoch each; what is compared is the sum over
the epochs, validation included. The same seed gives both the same initial weights and dropout masks.

MNIST is read from $KILOGRAD_DATA/mnist or the cache folder (--download fetches it).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from kilograd.cli.bench import timing
from kilograd.datasets import MNIST

BATCHES = {"mlp": (64, 256), "cnn": (128, 256)}  # training, validation
EPOCHS = {"mlp": 20, "cnn": 5}
VALIDATION = 12_000  # the first of the 60,000, as in the notebooks


def model_of(name: str, nn: Any) -> Any:
    if name == "mlp":
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(784, 200), nn.BatchNorm1d(200), nn.ReLU(), nn.Dropout(0.2),
            nn.Linear(200, 100), nn.BatchNorm1d(100), nn.ReLU(),
            nn.Linear(100, 10), nn.LogSoftmax(dim=1),
        )  # fmt: skip
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding="same"), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.3),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding="same"), nn.BatchNorm2d(32), nn.ReLU(), nn.Dropout(0.3),
        nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 10),
    )  # fmt: skip


class Run:
    """One library's run: its model, its loaders, its history."""

    def __init__(self, name: str, lib: Any, arrays: Any, compile: bool, slices: bool) -> None:
        self.name, self.lib, self.slices = name, lib, slices
        (x, y), (test_x, test_y) = [(lib.tensor(a), lib.tensor(b)) for a, b in arrays]
        small, large = BATCHES[name]
        self.train_data = self.batches(x[VALIDATION:], y[VALIDATION:], small)
        self.val_data = self.batches(x[:VALIDATION], y[:VALIDATION], large)
        self.test_data = self.batches(test_x, test_y, large)
        lib.manual_seed(42)
        self.model = model_of(name, lib.nn)
        parameters = self.model.parameters()
        if name == "mlp":
            self.loss = lib.nn.NLLLoss()
            self.optimizer = lib.optim.SGD(parameters, lr=0.01, momentum=0.9)
        else:
            self.loss = lib.nn.CrossEntropyLoss()
            self.optimizer = lib.optim.Adam(parameters, lr=0.01)
        self.step = lib.compile(self.train_step) if compile else self.train_step
        self.history: list[dict[str, float]] = []

    def batches(self, x: Any, y: Any, size: int) -> Any:
        """As SynapGrad: in order, without the last partial batch."""
        if self.slices:
            return Slices(x, y, size)
        data = self.lib.utils.data
        return data.DataLoader(data.TensorDataset(x, y), batch_size=size, drop_last=True)

    def train_step(self, x: Any, y: Any) -> tuple[Any, Any]:
        self.optimizer.zero_grad()
        out = self.model(x)
        loss = self.loss(out, y)
        loss.backward()
        self.optimizer.step()
        return loss, (out.argmax(1) == y).float().mean()

    def evaluate(self, data: Any) -> tuple[float, float]:
        self.model.eval()
        losses, rights = [], []
        with self.lib.no_grad():
            for x, y in data:
                out = self.model(x)
                losses.append(self.loss(out, y).item())
                rights.append((out.argmax(1) == y).float().mean().item())
        self.model.train()
        return float(np.mean(losses)), float(np.mean(rights))

    def epoch(self) -> float:
        """Seconds of one epoch: training, its metrics, validation."""
        start = time.perf_counter()
        losses, rights = [], []
        for x, y in self.train_data:
            loss, right = self.step(x, y)
            losses.append(loss.item())
            rights.append(right.item())
        val_loss, val_accuracy = self.evaluate(self.val_data)
        seconds = time.perf_counter() - start
        self.history.append(
            {"loss": float(np.mean(losses)), "accuracy": float(np.mean(rights)),
             "val_loss": val_loss, "val_accuracy": val_accuracy, "seconds": seconds}
        )  # fmt: skip
        return seconds


class Slices:
    """Batches as slices of the arrays: what a loader costs is left out."""

    def __init__(self, x: Any, y: Any, size: int) -> None:
        self.x, self.y, self.size = x, y, size

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for i in range(0, len(self.x) - self.size + 1, self.size):
            yield self.x[i : i + self.size], self.y[i : i + self.size]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="mlp, cnn")
    parser.add_argument("--epochs", type=int, help="instead of 20 and 5")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--slices", action="store_true", help="without a DataLoader")
    parser.add_argument("--download", action="store_true", help="fetch MNIST if it is not here")
    parser.add_argument("--json", metavar="FILE", help="write the histories there")
    args = parser.parse_args()
    if unknown := set(args.names) - set(EPOCHS):
        parser.error(f"no run {', '.join(unknown)}; there are {', '.join(EPOCHS)}")
    timing.fix_threads(args.threads)
    libraries = timing.libraries(args.threads)
    arrays = []
    for train in (True, False):
        data = MNIST(train=train, download=args.download)
        pixels = data.data.numpy()[:, None].astype(np.float32) / 255
        arrays.append((pixels, data.targets.numpy()))

    slower, report = [], {}
    for name in args.names or EPOCHS:
        runs = {
            lib: Run(name, module, arrays, False, args.slices) for lib, module in libraries.items()
        }
        runs["compiled"] = Run(name, libraries["kilograd"], arrays, True, args.slices)
        seconds = dict.fromkeys(runs, 0.0)
        epochs = args.epochs or EPOCHS[name]
        print(f"{name}: {epochs} epochs, {args.threads} thread(s); seconds of each epoch")
        for epoch in range(epochs):
            line = f"{epoch + 1:4}"
            for kind, run in runs.items():
                seconds[kind] += run.epoch()
                last = run.history[-1]
                line += f"   {kind} {last['seconds']:6.2f} (val {last['val_accuracy']:.4f})"
            print(line, flush=True)
        for kind, run in runs.items():
            faster = (
                f", {seconds['torch'] / seconds[kind]:.2f} x PyTorch's speed"
                if "torch" in runs
                else ""
            )
            accuracy = run.evaluate(run.test_data)[1]
            print(f"{name} {kind:9}{seconds[kind]:8.1f} s, test accuracy {accuracy:.4f}{faster}")
            if seconds[kind] > seconds.get("torch", float("inf")):
                slower.append(f"{name}, {kind}")
        report[name] = {kind: run.history for kind, run in runs.items()}
    if args.json:
        with open(args.json, "w") as f:
            json.dump(report, f, indent=1)
    if slower:
        sys.exit(f"slower than PyTorch: {'; '.join(slower)}")


if __name__ == "__main__":
    main()
