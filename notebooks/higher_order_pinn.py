# %% [markdown]
# # Derivatives of derivatives, and a network that solves a differential equation
#
# What you learn here:
# - `create_graph=True`: gradients that can be differentiated again, to any order;
# - Hessian-vector products and gradient penalties, two uses of second derivatives;
# - a physics-informed neural network: a loss that is made of derivatives of the network itself.

# %%
import math
import os
import time

import matplotlib.pyplot as plt
import numpy as np

import kilograd as kg
from kilograd import nn
from kilograd.autograd import grad

SMOKE = os.environ.get("KILOGRAD_SMOKE") == "1"  # a quick test: few steps
STEPS = 20 if SMOKE else 10_000

# %% [markdown]
# ## tanh to the fourth order
#
# A backward pass is a computation like any other. With `create_graph=True` it is recorded, so its result has
# derivatives, too. Summing first gives all of them at once: element i of the sum's gradient is the
# derivative at the i-th point.

# %%
x = kg.linspace(-4, 4, 401, dtype=kg.float64, requires_grad=True)
orders = [kg.tanh(x)]
for _ in range(4):
    (slope,) = grad(orders[-1].sum(), x, create_graph=True)
    orders.append(slope)

plt.figure(figsize=(6, 3.5))
for order, values in enumerate(orders):
    plt.plot(x.detach(), values.detach(), label=f"order {order}")
plt.legend()
plt.grid(alpha=0.3)
plt.show()

# %% [markdown]
# With $t = \tanh x$ the derivatives are polynomials in $t$: $1 - t^2$, $-2t(1 - t^2)$, and so on up to
# $8t(1 - t^2)(2 - 3t^2)$ for the fourth.

# %%
t = kg.tanh(x)
fourth = 8 * t * (1 - t**2) * (2 - 3 * t**2)
print(f"largest difference from the formula: {(orders[4] - fourth).abs().max().item():.1e}")

# %% [markdown]
# ## Hessian times vector, without the Hessian
#
# The second derivatives of a function of n numbers are an n×n matrix. Often one needs only its product with
# a vector, which is the gradient of (gradient · vector): two backward passes, whatever n is.


# %%
def rosenbrock(p):
    return (100 * (p[1:] - p[:-1] ** 2) ** 2 + (1 - p[:-1]) ** 2).sum()


def hessian_times(f, p, v):
    (slope,) = grad(f(p), p, create_graph=True)
    return grad(slope @ v, p)[0]


p = kg.zeros(1000, dtype=kg.float64, requires_grad=True)
v = kg.randn(1000, dtype=kg.float64)
product = hessian_times(rosenbrock, p, v)

few = p.detach()[:6].requires_grad_()  # small enough for the whole matrix
matrix = kg.autograd.functional.hessian(rosenbrock, few)
print(
    "same as with the matrix:", kg.allclose(hessian_times(rosenbrock, few, v[:6]), matrix @ v[:6])
)

# %% [markdown]
# This makes Newton's method possible where the matrix would not fit: conjugate gradients solve
# $H d = -\nabla f$ with products alone. In 500 dimensions it takes a dozen steps.


# %%
def newton_step(f, p, most=200):
    (slope,) = grad(f(p), p)
    direction, residual = kg.zeros_like(slope), -slope
    search = residual
    for _ in range(most):
        curved = hessian_times(f, p, search)
        bend = search @ curved
        if bend <= 0:  # uphill curvature only: elsewhere the quadratic model has no minimum
            return direction if direction.any() else -slope
        length = residual @ residual / bend
        direction = direction + length * search
        smaller = residual - length * curved
        if smaller.norm() < 1e-8:
            break
        search = smaller + (smaller @ smaller) / (residual @ residual) * search
        residual = smaller
    return direction


p = kg.full((500,), 0.8, dtype=kg.float64, requires_grad=True)
for k in range(12):
    value = rosenbrock(p).item()
    print(f"step {k:2d}  f = {value:.3e}")
    if value < 1e-20:
        break
    d, length = newton_step(rosenbrock, p), 1.0
    with kg.no_grad():
        while rosenbrock(p + length * d) > value and length > 1e-6:
            length /= 2
        p += length * d

# %% [markdown]
# ## A gradient penalty
#
# A loss may contain gradients. Here a network learns noisy samples of a curve, once as they are, and once
# with a price on the square of its slope, which is a derivative with respect to its *input*. The `backward`
# that follows differentiates that slope again, with respect to the weights.

# %%
kg.manual_seed(0)
inputs = kg.linspace(-3, 3, 40).unsqueeze(1)
targets = kg.sin(inputs) + 0.3 * kg.randn(40, 1)


def fit(price, steps):
    kg.manual_seed(1)
    net = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    optimizer = kg.optim.Adam(net.parameters(), lr=0.01)

    @kg.compile
    def step(anywhere):
        optimizer.zero_grad()
        (slope,) = grad(net(anywhere).sum(), anywhere, create_graph=True)
        loss = ((net(inputs) - targets) ** 2).mean() + price * (slope**2).mean()
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(steps):
        step((6 * kg.rand(64, 1) - 3).requires_grad_())
    return net


fine = kg.linspace(-3, 3, 300).unsqueeze(1)
plt.figure(figsize=(6, 3.5))
plt.scatter(inputs, targets, s=12, color="black", label="samples")
plt.plot(fine, kg.sin(fine), color="gray", linestyle="--", label="the curve behind them")
for price in (0.0, 0.03):
    net = fit(price, 20 if SMOKE else 2000)
    with kg.no_grad():
        plt.plot(fine, net(fine), label=f"price of slope {price:g}")
        error = ((net(fine) - kg.sin(fine)) ** 2).mean().item()
        print(f"price {price:4g}  mean squared distance from the curve {error:.4f}")
plt.legend()
plt.show()

# %% [markdown]
# ## A network that solves Burgers' equation
#
# $$u_t + u\,u_x = \nu\,u_{xx}, \qquad u(x, 0) = -\sin \pi x, \qquad u(\pm 1, t) = 0$$
#
# The wave steepens in the middle, while friction $\nu$ smooths it. No solution is ever shown to the network.
# Its loss is how far it is from satisfying the equation at random points: first and second derivatives of
# the network in its inputs, differentiated once more in its weights.
# (Raissi, Perdikaris and Karniadakis, "Physics-informed neural networks", 2019.)
#
# The start and the edges are built in: $u = -\sin \pi x + t\,(1 - x^2)\,N(x, t)$ satisfies them whatever the
# network $N$ says.

# %%
NU = 0.05


class Solution(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(2, width), nn.Tanh(),
            nn.Linear(width, width), nn.Tanh(),
            nn.Linear(width, width), nn.Tanh(),
            nn.Linear(width, 1),
        )  # fmt: skip

    def forward(self, x, t):  # (N, 1), (N, 1) → (N, 1)
        return -kg.sin(math.pi * x) + t * (1 - x**2) * self.net(kg.cat([x, 2 * t - 1], dim=1))


def residual(u, x, t):
    value = u(x, t)
    u_x, u_t = grad(value.sum(), (x, t), create_graph=True)
    (u_xx,) = grad(u_x.sum(), x, create_graph=True)
    return u_t + value * u_x - NU * u_xx


# %% [markdown]
# A training step takes 256 random points in space and time. The whole of it, three nested derivatives
# included, is compiled to one program.

# %%
kg.manual_seed(0)
u = Solution()
optimizer = kg.optim.Adam(u.parameters(), lr=3e-3)
schedule = kg.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)


@kg.compile
def step(x, t):
    optimizer.zero_grad()
    loss = (residual(u, x, t) ** 2).mean()
    loss.backward()
    optimizer.step()
    return loss


losses = []
start = time.perf_counter()
for k in range(1, STEPS + 1):
    x = (2 * kg.rand(256, 1) - 1).requires_grad_()
    t = kg.rand(256, 1).requires_grad_()
    losses.append(step(x, t).item())
    schedule.step()
    if k % (STEPS // 5) == 0:
        recent = sum(losses[-100:]) / len(losses[-100:])
        print(f"step {k:5d}  mean residual² {recent:.1e}  {time.perf_counter() - start:.1f} s")

# %% [markdown]
# ## Is it right?
#
# This equation has an exact solution, as a ratio of two integrals (Cole and Hopf, 1950 and 1951), which
# Gauss-Hermite quadrature evaluates.


# %%
def exact(x, t):
    """u at the points x and a time t > 0, arrays of shape (N,)."""
    nodes, weights = np.polynomial.hermite.hermgauss(80)
    y = x[:, None] - nodes * math.sqrt(4 * NU * t)  # (N, 80)
    weights = weights * np.exp(-np.cos(math.pi * y) / (2 * math.pi * NU))
    return -(weights * np.sin(math.pi * y)).sum(1) / weights.sum(1)


xs = np.linspace(-1, 1, 201)
worst = 0.0
plt.figure(figsize=(6, 3.5))
for time_, colour in zip((0.1, 0.3, 0.6, 1.0), ("C0", "C1", "C2", "C3"), strict=True):
    column = kg.from_numpy(xs).float().unsqueeze(1)
    with kg.no_grad():
        learned = u(column, kg.full_like(column, time_)).squeeze(1).numpy()
    truth = exact(xs, time_)
    worst = max(worst, np.abs(learned - truth).max())
    plt.plot(xs, learned, color=colour, label=f"t = {time_}")
    plt.plot(xs[::8], truth[::8], ".", color=colour)
plt.xlabel("x")
plt.ylabel("u: network (line), exact (dots)")
plt.legend()
plt.grid(alpha=0.3)
plt.show()
print(f"largest error: {worst:.1e}")

# %%
grid_x, grid_t = kg.meshgrid(kg.linspace(-1, 1, 201), kg.linspace(0, 1, 101), indexing="ij")
with kg.no_grad():
    surface = u(grid_x.reshape(-1, 1), grid_t.reshape(-1, 1)).reshape(grid_x.shape)  # (201, 101)
plt.figure(figsize=(6, 3.5))
plt.imshow(surface, cmap="coolwarm", extent=(0, 1, -1, 1), origin="lower", aspect="auto")
plt.colorbar(label="u")
plt.xlabel("t")
plt.ylabel("x")
plt.show()
