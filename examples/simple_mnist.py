"""MNIST with either of two plain networks: an MLP of 109,386 parameters or a CNN of 5,130.

    python examples/simple_mnist.py                            # the MLP, SGD at 0.1
    python examples/simple_mnist.py --optimizer adam --batch-norm
    python examples/simple_mnist.py --model cnn --optimizer adam

simple_autograd's training script: batches of 64 in the file's order, the last one smaller, a
checkpoint of the best epoch, 10 epochs. The CNN took it three hours an epoch; global average pooling
instead of a big linear layer is why it has so few parameters, and why it learns slowly.
"""

import argparse
import sys
import time
from itertools import islice

import kilograd as kg
from kilograd import nn
from kilograd.datasets import MNIST
from kilograd.utils.data import DataLoader


def mlp(batch_norm: bool = False) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in ((784, 128), (128, 64)):
        layers.append(nn.Linear(inputs, outputs))
        if batch_norm:
            layers.append(nn.BatchNorm1d(outputs))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(64, 10))


def cnn(batch_norm: bool = False) -> nn.Module:
    layers: list[nn.Module] = []  # (N, 1, 28, 28)
    for inputs, outputs in ((1, 16), (16, 32)):
        layers.append(nn.Conv2d(inputs, outputs, 3))
        if batch_norm:
            layers.append(nn.BatchNorm2d(outputs))
        layers += [nn.ReLU(), nn.MaxPool2d(2)]  # (N, 16, 13, 13), then (N, 32, 5, 5)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def evaluate(model: nn.Module, loader: DataLoader, batches: int | None = None) -> float:
    model.eval()
    right = seen = 0
    with kg.no_grad():
        for images, labels in islice(loader, batches):
            right += (model(images).argmax(dim=1) == labels).sum().item()
            seen += len(labels)
    model.train()
    return right / seen


def run(
    model: nn.Module,
    optimizer: kg.optim.Optimizer,
    train_set: MNIST,
    test_set: MNIST,
    epochs: int = 10,
    batches: int | None = None,
) -> float:
    """Train; leave the model with the weights of its best epoch and return that accuracy."""
    train, test = DataLoader(train_set, 64), DataLoader(test_set, 64)
    criterion = nn.CrossEntropyLoss()
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    best, best_weights = -1.0, {}
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        total = right = seen = 0
        for images, labels in islice(train, batches):
            optimizer.zero_grad()
            scores = model(images)
            loss = criterion(scores, labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
            right += (scores.argmax(dim=1) == labels).sum().item()
            seen += len(labels)
        seconds = time.perf_counter() - start
        accuracy = evaluate(model, test, batches)
        print(
            f"epoch {epoch:2d}  loss {total / seen:.4f}  train {right / seen:.4f}"
            f"  test {accuracy:.4f}  {seconds:.1f} s"
        )
        if accuracy > best:
            best = accuracy
            best_weights = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(best_weights)
    print(f"best test accuracy {best:.4f}")
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=["mlp", "cnn"], default="mlp")
    parser.add_argument("--optimizer", choices=["sgd", "adam"], default="sgd")
    parser.add_argument("--lr", type=float, help="default: 0.1 for sgd, 0.001 for adam")
    parser.add_argument("--batch-norm", action="store_true")
    parser.add_argument("--epochs", type=int, default=10)
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
    kg.manual_seed(0)
    model = (mlp if args.model == "mlp" else cnn)(args.batch_norm)
    make, lr = {"sgd": (kg.optim.SGD, 0.1), "adam": (kg.optim.Adam, 1e-3)}[args.optimizer]
    optimizer = make(model.parameters(), lr=args.lr or lr)
    epochs, batches = (1, 3) if args.smoke else (args.epochs, None)
    run(model, optimizer, *data, epochs, batches)


if __name__ == "__main__":
    main()
