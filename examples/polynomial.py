"""Fit a parabola: gradient descent with no network, no optimizer class, nothing but ``backward``.

    python examples/polynomial.py

Macrograd's smallest example: 100 points of y = x² + 2x - 1, and three numbers to find.
"""

import argparse

import kilograd as kg


def fit(steps: int = 200, lr: float = 0.1) -> kg.Tensor:
    """The coefficients (3, 1) of 1, x and x² after so many steps down the gradient."""
    x = kg.linspace(-2, 2, 100).unsqueeze(1)
    y = x**2 + 2 * x - 1
    powers = kg.cat([kg.ones_like(x), x, x**2], dim=1)  # (100, 3)

    w = kg.zeros(3, 1, requires_grad=True)
    for step in range(steps):
        loss = ((powers @ w - y) ** 2).mean()
        loss.backward()
        with kg.no_grad():  # the update is not part of what is differentiated
            w -= lr * w.grad
        w.grad = None
        if step % max(steps // 10, 1) == 0:
            print(f"step {step:3d}  loss {loss.item():.2e}")
    return w.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that it runs")
    args = parser.parse_args()
    c, b, a = fit(5 if args.smoke else args.steps, args.lr).flatten().tolist()
    print(f"y = {a:.4f} x² {b:+.4f} x {c:+.4f}")


if __name__ == "__main__":
    main()
