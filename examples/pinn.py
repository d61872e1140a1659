"""A network that solves a differential equation: derivatives of derivatives at work.

    python examples/pinn.py

The damped oscillator  u'' + 2 d u' + w² u = 0,  u(0) = 1,  u'(0) = 0,  is given to the network as a
loss: how far its output is from satisfying the equation at random times. So u' and u'' of the network
with respect to its *input* are taken while the graph is kept (``create_graph=True``), and the loss made
of them is differentiated once more, with respect to the weights. No solution is ever shown to it.

(Physics-informed neural networks: Raissi, Perdikaris and Karniadakis 2019.)
"""

import argparse
import math
import time

import kilograd as kg
from kilograd import nn

D, W = 0.3, 2.0  # damping and frequency
END = 5.0


class Solution(nn.Module):
    """u(t) = 1 + (1 - exp(-t))² N(t): whatever the network N says, the initial conditions hold."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(1, width), nn.Tanh(),
            nn.Linear(width, width), nn.Tanh(),
            nn.Linear(width, 1),
        )  # fmt: skip

    def forward(self, t: kg.Tensor) -> kg.Tensor:  # (N, 1) → (N, 1)
        return 1 + (1 - kg.exp(-t)) ** 2 * self.net(2 * t / END - 1)


def derivative(y: kg.Tensor, t: kg.Tensor) -> kg.Tensor:
    """dy/dt at each time, itself differentiable (row i of y depends on row i of t alone)."""
    return kg.autograd.grad(y, t, kg.ones_like(y), create_graph=True)[0]


def residual(u: nn.Module, t: kg.Tensor) -> kg.Tensor:
    """How far u is from the equation at the times t."""
    y = u(t)
    dy = derivative(y, t)
    return derivative(dy, t) + 2 * D * dy + W**2 * y


def exact(t: kg.Tensor) -> kg.Tensor:
    w = math.sqrt(W**2 - D**2)
    return kg.exp(-D * t) * (kg.cos(w * t) + D / w * kg.sin(w * t))


def worst_error(u: nn.Module) -> float:
    t = kg.linspace(0, END, 200).unsqueeze(1)
    with kg.no_grad():
        return (u(t) - exact(t)).abs().max().item()


def train(steps: int = 2000, lr: float = 1e-2, points: int = 64, seed: int = 0) -> nn.Module:
    kg.manual_seed(seed)
    u = Solution()
    optimizer = kg.optim.Adam(u.parameters(), lr=lr)
    schedule = kg.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    start = time.perf_counter()
    for step in range(1, steps + 1):
        t = (END * kg.rand(points, 1)).requires_grad_()
        optimizer.zero_grad()
        loss = (residual(u, t) ** 2).mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % max(steps // 10, 1) == 0:
            print(
                f"step {step:4d}  residual² {loss.item():.2e}  worst error {worst_error(u):.2e}"
                f"  {(time.perf_counter() - start) / step * 1e3:.2f} ms a step"
            )
    return u


def plot(u: nn.Module, width: int = 72, height: int = 15) -> None:
    """The solution as text."""
    with kg.no_grad():
        values = u(kg.linspace(0, END, width).unsqueeze(1)).flatten().tolist()
    rows = [round((1 - v) / 2 * (height - 1)) for v in values]  # 1 at the top, -1 at the bottom
    for row in range(height):
        blank = "-" if row == height // 2 else " "
        print("".join("*" if r == row else blank for r in rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that it runs")
    args = parser.parse_args()
    u = train(5 if args.smoke else args.steps, args.lr, seed=args.seed)
    plot(u)
    print(f"worst error on [0, {END:g}]: {worst_error(u):.1e}")


if __name__ == "__main__":
    main()
