"""MNIST with a convolutional network of 20,586 parameters: 98.5 % of the test digits and more.

    python examples/mnist_cnn.py

SynapGrad's third example with its published network: two convolutions, each with batch normalisation,
ReLU, dropout and pooling, then one linear layer; Adam, batches of 128, 5 epochs of 48,000 images.
"""

import argparse
import sys
import time
from itertools import islice

import kilograd as kg
from kilograd import nn
from kilograd.datasets import MNIST
from kilograd.utils.data import DataLoader, Subset


def cnn() -> nn.Module:
    return nn.Sequential(  # (N, 1, 28, 28)
        nn.Conv2d(1, 16, 3, padding="same"), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.3),
        nn.MaxPool2d(2),  # (N, 16, 14, 14)
        nn.Conv2d(16, 32, 3, padding="same"), nn.BatchNorm2d(32), nn.ReLU(), nn.Dropout(0.3),
        nn.MaxPool2d(2),  # (N, 32, 7, 7)
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 10),
    )  # fmt: skip


def accuracy(model: nn.Module, loader: DataLoader, batches: int | None = None) -> float:
    """The share of right answers, with dropout off and batch norm on its running statistics."""
    model.eval()
    right = seen = 0
    with kg.no_grad():
        for images, labels in islice(loader, batches):
            right += (model(images).argmax(dim=1) == labels).sum().item()
            seen += len(labels)
    model.train()
    return right / seen


def run(
    train_set: MNIST,
    test_set: MNIST,
    epochs: int = 5,
    lr: float = 0.01,
    seed: int = 1337,
    batches: int | None = None,
) -> float:
    """Train and return the test accuracy; ``batches`` cuts each pass over the data short."""
    validation = DataLoader(Subset(train_set, range(12_000)), 256)
    train = DataLoader(Subset(train_set, range(12_000, 60_000)), 128)
    test = DataLoader(test_set, 256)

    kg.manual_seed(seed)
    model = cnn()
    criterion = nn.CrossEntropyLoss()
    optimizer = kg.optim.Adam(model.parameters(), lr=lr)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")

    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        total = 0.0
        steps = 0
        for x, y in islice(train, batches):
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item()
            steps += 1
        seconds = time.perf_counter() - start
        print(
            f"epoch {epoch:2d}  loss {total / steps:.4f}"
            f"  validation {accuracy(model, validation, batches):.4f}"
            f"  {seconds:.1f} s, {seconds / steps * 1e3:.1f} ms a step"
        )
    result = accuracy(model, test, batches)
    print(f"test accuracy {result:.4f}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("--download", action="store_true", help="fetch MNIST if it is not here")
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that it runs")
    args = parser.parse_args()
    try:
        data = [MNIST(train=train, download=args.download) for train in (True, False)]
    except (RuntimeError, ImportError) as missing:
        if not args.smoke:
            sys.exit(f"{missing}. Or run this script with --download")
        print(f"skipped: {missing}")
        return
    epochs, batches = (1, 3) if args.smoke else (args.epochs, None)
    run(*data, epochs, args.lr, args.seed, batches)


if __name__ == "__main__":
    main()
