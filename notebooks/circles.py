# %% [markdown]
# # Two circles: gradients checked, optimizers compared
#
# What you learn here:
# - how to see for yourself that gradients are right;
# - a classifier with a probability as its output, and its decision boundary;
# - how gradient descent, momentum, RMSprop and Adam differ on the same problem.

# %%
import os

import matplotlib.pyplot as plt

import kilograd as kg
from kilograd import nn, viz
from kilograd.datasets import make_circles

SMOKE = os.environ.get("KILOGRAD_SMOKE") == "1"  # a quick test: few steps
STEPS, COMPARED = (5, 5) if SMOKE else (100, 100)

# %% [markdown]
# ## The data
#
# One circle inside another: no straight line separates them. 750 points to learn from, 250 to test on;
# the labels are columns of 0 and 1.

# %%
points, labels = make_circles(1000, noise=0.05, random_state=100)
x, y = kg.from_numpy(points), kg.from_numpy(labels).float().unsqueeze(1)  # (1000, 2), (1000, 1)
x_train, y_train, x_test, y_test = x[:750], y[:750], x[750:], y[750:]

plt.figure(figsize=(4, 4))
plt.scatter(*x_train.T, c=y_train[:, 0], cmap="coolwarm", s=8)
plt.axis("equal")
plt.show()

# %% [markdown]
# ## The model
#
# One hidden layer of 100 units; the sigmoid at the end makes a probability. 401 parameters.


# %%
def mlp(hidden=100):
    return nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, 1), nn.Sigmoid())


print(sum(p.numel() for p in mlp().parameters()), "parameters")

# %% [markdown]
# ## Are the gradients right?
#
# `gradcheck` moves each number a little up and down, sees how much the output changes, and compares that
# with the gradients from `backward`. It does so for the inputs and for every parameter of a module, in
# float64, since finite differences in float32 are mostly rounding.

# %%
kg.manual_seed(0)
small = mlp(hidden=5).double()
inputs = kg.randn(4, 2, dtype=kg.float64, requires_grad=True)
print("gradients agree with finite differences:", kg.autograd.gradcheck(small, (inputs,)))

# %% [markdown]
# What it compares can be done by hand for one number, here the first weight:

# %%
weight, eps = small[0].weight, 1e-6
small(inputs).sum().backward()
with kg.no_grad():
    weight[0, 0] += eps
    above = small(inputs).sum()
    weight[0, 0] -= 2 * eps
    below = small(inputs).sum()
print(
    f"backward {weight.grad[0, 0].item():.9f}   difference {(above - below).item() / (2 * eps):.9f}"
)

# %% [markdown]
# ## Training
#
# Binary cross entropy over the whole training set at once, 100 steps of Adam.


# %%
def fit(model, optimizer, steps):
    """Full-batch training; returns the loss before each step."""
    criterion = nn.BCELoss()
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = criterion(model(x_train), y_train)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def accuracy(model):
    """The share of right answers on the test points."""
    with kg.no_grad():
        return ((model(x_test) > 0.5) == (y_test > 0.5)).float().mean().item()


kg.manual_seed(0)
model = mlp()
untrained = model[0].weight.detach().clone()
losses = fit(model, kg.optim.Adam(model.parameters(), lr=0.05), STEPS)
print(f"loss {losses[0]:.3f} → {losses[-1]:.3f}, test accuracy {accuracy(model):.3f}")

# %% [markdown]
# ## The decision boundary
#
# The model's probability everywhere in the plane. Each of the 100 ReLU units bends the surface along one
# straight line; together they make something round.

# %%
viz.decision_boundary(model, x_test, y_test, labels=["outer", "inner"])

# %% [markdown]
# The weights of the first layer have moved apart: they began between $-1/\sqrt 2$ and $1/\sqrt 2$.

# %%
viz.histograms({"before": untrained, "after": model[0].weight}, bins=30)

# %% [markdown]
# ## Four optimizers
#
# The same network, from the same start, with the same learning rate of 0.005.
#
# - **SGD** goes against the gradient: far where it is steep, and hardly at all where it is flat.
# - **Momentum** keeps 9/10 of its last step, which amounts to ten times the speed along a steady slope.
# - **RMSprop** divides each parameter's gradient by its usual size, so all move equally fast.
# - **Adam** does both.

# %%
contenders = {
    "SGD": lambda p: kg.optim.SGD(p, lr=0.005),
    "momentum": lambda p: kg.optim.SGD(p, lr=0.005, momentum=0.9),
    "RMSprop": lambda p: kg.optim.RMSprop(p, lr=0.005),
    "Adam": lambda p: kg.optim.Adam(p, lr=0.005),
}
curves = {}
for name, make in contenders.items():
    kg.manual_seed(0)
    model = mlp()
    curves[name] = fit(model, make(model.parameters()), COMPARED)
    print(f"{name:9s} loss {curves[name][-1]:.3f}   test accuracy {accuracy(model):.3f}")

# %%
steps = range(1, COMPARED + 1)
viz.curves({name: {"step": steps, "loss": losses} for name, losses in curves.items()})

# %% [markdown]
# ## The learning rate
#
# The comparison at one learning rate is not the whole story: each optimizer has its own range of good ones.
# SGD does best at a rate at which Adam and RMSprop break, whose steps are about as long as the rate itself,
# however small the gradient is. (The 44 is what it costs to be sure of the wrong answer for 44 points of a
# hundred: `BCELoss` counts at most 100 for each.)

# %%
rates = [0.001, 0.01, 0.1, 1.0, 10.0]
makers = {
    "SGD": kg.optim.SGD,
    "momentum": lambda p, lr: kg.optim.SGD(p, lr=lr, momentum=0.9),
    "RMSprop": kg.optim.RMSprop,
    "Adam": kg.optim.Adam,
}
print("loss after training at", *(f"{rate:>8g}" for rate in rates))
for name, make in makers.items():
    finals = []
    for rate in rates:
        kg.manual_seed(0)
        model = mlp()
        finals.append(fit(model, make(model.parameters(), lr=rate), COMPARED)[-1])
    print(f"{name:>22s}", *(f"{loss:8.3f}" for loss in finals))
