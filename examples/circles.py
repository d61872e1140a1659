"""One circle inside another: gradients checked, then four optimizers side by side.

    python examples/circles.py

Neograd's second example: 1,000 points, a network of 401 parameters, binary cross entropy over the
whole training set at once, Adam for 50 steps. Then the same network from the same start with Adam,
momentum, RMSprop and plain gradient descent, at one learning rate.
"""

import argparse

import kilograd as kg
from kilograd import nn
from kilograd.datasets import make_circles


def mlp(hidden: int = 100) -> nn.Module:
    return nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, 1), nn.Sigmoid())


def load() -> tuple[kg.Tensor, kg.Tensor, kg.Tensor, kg.Tensor]:
    """750 points to train on and 250 to test on; labels are columns of 0.0 and 1.0."""
    points, labels = make_circles(1000, noise=0.05, random_state=100)
    x, y = kg.from_numpy(points), kg.from_numpy(labels).float().unsqueeze(1)  # (1000, 2), (1000, 1)
    return x[:750], y[:750], x[750:], y[750:]


def fit(
    model: nn.Module, optimizer: kg.optim.Optimizer, x: kg.Tensor, y: kg.Tensor, steps: int
) -> list[float]:
    """Full-batch training; returns the loss before each step."""
    criterion = nn.BCELoss()
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def accuracy(model: nn.Module, x: kg.Tensor, y: kg.Tensor) -> float:
    with kg.no_grad():
        return ((model(x) > 0.5) == (y > 0.5)).float().mean().item()


def check_gradients() -> bool:
    """Every derivative of a smaller model against finite differences, in float64."""
    model = mlp(5).double()
    x = kg.randn(4, 2, dtype=kg.float64, requires_grad=True)
    return kg.autograd.gradcheck(model, (x,))  # of a module: its parameters as well


def sparkline(losses: list[float], width: int = 50) -> str:
    """A curve in one line of text; the tallest bar is a loss of 0.75."""
    every = max(len(losses) // width, 1)
    return "".join("▁▂▃▄▅▆▇█"[min(int(v / 0.75 * 8), 7)] for v in losses[::every])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50, help="of Adam at 0.05")
    parser.add_argument("--compare-steps", type=int, default=100, help="of each optimizer")
    parser.add_argument("--lr", type=float, default=0.005, help="of the comparison")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that it runs")
    args = parser.parse_args()
    if args.smoke:
        args.steps = args.compare_steps = 3

    x, y, x_test, y_test = load()
    kg.manual_seed(args.seed)
    print("gradients agree with finite differences:", check_gradients())

    kg.manual_seed(args.seed)
    model = mlp()
    losses = fit(model, kg.optim.Adam(model.parameters(), lr=0.05), x, y, args.steps)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, Adam at 0.05:")
    print(f"  loss {losses[0]:.3f} → {losses[-1]:.3f} in {len(losses)} steps")
    print(f"  test accuracy {accuracy(model, x_test, y_test):.3f}")

    contenders = {
        "Adam": lambda p: kg.optim.Adam(p, lr=args.lr),
        "momentum": lambda p: kg.optim.SGD(p, lr=args.lr, momentum=0.9),
        "RMSprop": lambda p: kg.optim.RMSprop(p, lr=args.lr),
        "SGD": lambda p: kg.optim.SGD(p, lr=args.lr),
    }
    print(f"\n{args.compare_steps} steps of each at {args.lr}:")
    for name, make in contenders.items():
        kg.manual_seed(args.seed)  # the same start for all
        model = mlp()
        losses = fit(model, make(model.parameters()), x, y, args.compare_steps)
        print(f"  {name:9s} {losses[-1]:.3f} {sparkline(losses)}")


if __name__ == "__main__":
    main()
