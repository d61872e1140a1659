# %% [markdown]
# # Two moons: a first network, in kilograd and in PyTorch
#
# What you learn here:
# - the five lines of a training step;
# - what a small network makes of the plane;
# - that the same code trains in PyTorch, with the same numbers, and how long each takes.

# %%
ENGINE = "kilograd"  # or "torch": nothing else changes

if ENGINE == "torch":
    import torch as kg
else:
    import kilograd as kg

# %%
import importlib.util
import os
import time

import matplotlib.pyplot as plt

from kilograd import viz
from kilograd.datasets import make_moons

SMOKE = os.environ.get("KILOGRAD_SMOKE") == "1"  # a quick test: two epochs
EPOCHS = 2 if SMOKE else 50

# %% [markdown]
# ## The data
#
# 150 points on two interleaving half circles, with a little noise. `make_moons` gives NumPy arrays, the
# same as scikit-learn's for the same `random_state`.

# %%
points, labels = make_moons(150, noise=0.1, random_state=42)  # (150, 2) float32, (150,) int64
plt.scatter(*points.T, c=labels, cmap="coolwarm", edgecolors="black")
plt.axis("equal")
plt.show()

# %% [markdown]
# ## The model
#
# Two hidden layers of 16 units and one number as output: 337 parameters. The functions below take the
# engine `kg` as an argument, so that the last section can run them with both.


# %%
def mlp(kg):
    nn = kg.nn
    return nn.Sequential(
        nn.Linear(2, 16), nn.ReLU(),
        nn.Linear(16, 16), nn.ReLU(),
        nn.Linear(16, 1),
    )  # fmt: skip


print(sum(p.numel() for p in mlp(kg).parameters()), "parameters")

# %% [markdown]
# ## Training
#
# Each step takes four points: forget the old gradients, compute the loss, let it flow backwards, and move
# every parameter a little against its gradient. The output is compared with the label, 0 or 1, by the mean
# squared error.
#
# `kg.compile` turns the whole step into one program. Without it the step runs operation by operation.


# %%
def train(kg, epochs, compiled=False):
    """Returns the model, the mean loss of each epoch, and the median of the seconds per step."""
    kg.manual_seed(42)
    data = kg.utils.data.TensorDataset(kg.from_numpy(points), kg.from_numpy(labels).float())
    loader = kg.utils.data.DataLoader(data, batch_size=4, drop_last=True)  # 37 batches
    model = mlp(kg)
    criterion = kg.nn.MSELoss()
    optimizer = kg.optim.SGD(model.parameters(), lr=0.1)

    def step(x, y):
        optimizer.zero_grad()
        loss = criterion(model(x).squeeze(1), y)  # (4, 1) → (4,): one number a point
        loss.backward()
        optimizer.step()
        return loss

    if compiled:
        step = kg.compile(step)

    history, times = [], []
    for _ in range(epochs):
        total = 0.0
        for x, y in loader:
            start = time.perf_counter()
            loss = step(x, y)
            times.append(time.perf_counter() - start)
            total += loss.item()
        history.append(total / len(loader))
    return model, history, sorted(times)[len(times) // 2]


model, history, _ = train(kg, EPOCHS)
with kg.no_grad():
    decision = model(kg.from_numpy(points)).squeeze(1) > 0.5
accuracy = (decision == kg.from_numpy(labels).bool()).float().mean().item()
print(f"{ENGINE}: loss {history[-1]:.4f}, accuracy {accuracy:.4f} after {EPOCHS} epochs")

# %%
viz.curves({"mean squared error": history})

# %% [markdown]
# ## What the network has learned
#
# Ask it about every point of a grid. The line is where its output crosses 0.5: ReLU networks are piecewise
# linear, so the boundary consists of straight pieces.

# %%
xs, ys = kg.linspace(-1.5, 2.5, 161), kg.linspace(-1.0, 1.5, 101)
grid_y, grid_x = kg.meshgrid(ys, xs, indexing="ij")
with kg.no_grad():
    output = model(kg.stack([grid_x, grid_y], dim=-1)).squeeze(-1)  # (101, 161, 2) → (101, 161)

plt.contourf(xs, ys, output, levels=20, cmap="coolwarm", alpha=0.6)
plt.contour(xs, ys, output, levels=[0.5], colors="black")
plt.scatter(*points.T, c=labels, cmap="coolwarm", edgecolors="black")
plt.show()

# %% [markdown]
# ## Side by side
#
# The same functions, with both engines and the same number of threads. `manual_seed` gives the same random
# numbers in both, so both start from the same weights, and the losses agree up to rounding. The times are
# medians over all steps, without the loading of data. Arrays as small as 4×16 take next to no arithmetic:
# what is measured is what an operation costs to call, and a compiled step calls none.

# %%
import kilograd

runs = {
    "kilograd": train(kilograd, EPOCHS),
    "kilograd, compiled": train(kilograd, EPOCHS, compiled=True),
}
if importlib.util.find_spec("torch"):
    import torch

    torch.set_num_threads(kilograd.get_num_threads())
    runs["PyTorch"] = train(torch, EPOCHS)

for name, (_, losses, seconds) in runs.items():
    print(f"{name:20s} {seconds * 1e6:7.1f} µs a step   final loss {losses[-1]:.6f}")
