"""Two interleaving moons and a network of 337 parameters: the whole of supervised learning on one page.

    python examples/moons_mlp.py

SynapGrad's first example: 150 points, batches of 4, mean squared error against 0 and 1, plain SGD.
The arrays are so small that all of the time goes into calling operations, not into arithmetic.
"""

import argparse
import time

import kilograd as kg
from kilograd import nn
from kilograd.datasets import Moons
from kilograd.utils.data import DataLoader


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(2, 16), nn.ReLU(),
        nn.Linear(16, 16), nn.ReLU(),
        nn.Linear(16, 1),
    )  # fmt: skip


def train(epochs: int = 50, lr: float = 0.1, batch_size: int = 4, seed: int = 42) -> nn.Module:
    kg.manual_seed(seed)
    moons = Moons(150, noise=0.1, random_state=seed)
    loader = DataLoader(moons, batch_size, drop_last=True)  # 37 batches; two points are left over
    model = mlp()
    optimizer = kg.optim.SGD(model.parameters(), lr=lr)
    criterion = nn.MSELoss()

    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        total = right = seen = 0
        for points, label in loader:
            optimizer.zero_grad()
            output = model(points).squeeze(1)  # (4, 1) → (4,): one number a point
            loss = criterion(output, label.float())
            loss.backward()
            optimizer.step()
            total += loss.item() * len(label)
            right += ((output > 0.5) == (label == 1)).sum().item()
            seen += len(label)
        if epoch % 10 == 0 or epoch == epochs:
            seconds = time.perf_counter() - start
            print(
                f"epoch {epoch:3d}  loss {total / seen:.4f}  accuracy {right / seen:.3f}"
                f"  {seconds / len(loader) * 1e6:.0f} µs a step"
            )
    return model


def draw(model: nn.Module, width: int = 60, height: int = 20) -> None:
    """What the network thinks of every point of the plane: # upper moon, . lower, + undecided."""
    y, x = kg.meshgrid(kg.linspace(1.5, -1, height), kg.linspace(-1.5, 2.5, width), indexing="ij")
    with kg.no_grad():
        output = model(kg.stack([x, y], dim=-1))  # (height, width, 2) → (height, width, 1)
    for row in output.squeeze(-1).tolist():
        print("".join("#" if v < 0.3 else "." if v > 0.7 else "+" for v in row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--smoke", action="store_true", help="two epochs, to see that it runs")
    args = parser.parse_args()
    model = train(2 if args.smoke else args.epochs, args.lr, args.batch_size, args.seed)
    print(f"\n{sum(p.numel() for p in model.parameters())} parameters have learned this:")
    draw(model)


if __name__ == "__main__":
    main()
