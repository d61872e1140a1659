# %% [markdown]
# # What `kg.compile` does to your step
#
# What you learn here:
# - how to see the program that a training step becomes, and the code that runs;
# - which operations were joined into loops, and what they cost;
# - what is compiled anew and when, and what cannot be compiled;
# - how long a step takes eagerly, compiled, and in PyTorch.

# %%
import importlib.util
import os
import time
import warnings

import matplotlib.pyplot as plt

import kilograd as kg
from kilograd import nn

SMOKE = os.environ.get("KILOGRAD_SMOKE") == "1"  # a quick test: few repetitions
SECONDS = 0.02 if SMOKE else 0.5  # for each time measured

# %% [markdown]
# ## A step
#
# A small classifier, trained on one batch. The whole step is one function: zero the gradients, forward,
# backward, update. Nothing else is needed than `@kg.compile` above it.

# %%
kg.manual_seed(0)
model = nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 5))
optimizer = kg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def eager_step(x, y):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


step = kg.compile(eager_step)
x, y = kg.randn(64, 20), kg.randint(0, 5, (64,))
for call in range(1, 6):
    start = time.perf_counter()
    loss = step(x, y)
    print(f"call {call}: loss {loss.item():.4f}  {(time.perf_counter() - start) * 1e3:8.3f} ms")

# %% [markdown]
# The first call is the eager step: it does its work, and the optimizer makes its momentum. The second is
# recorded while it runs. From the third call on, the program runs in place of the Python above. The machine
# code of its loops is kept on disk, so another process begins faster.
#
# ## The program
#
# `step.graph` is what was recorded, after simplification, as the NumPy function that it is: the forward
# pass, the derivative rules in reverse order, and the optimizer's update. `x` are the arguments of the step, `w`
# what it reads and writes in place: parameters and the optimizer's momentum.

# %%
print(step.graph)

# %% [markdown]
# ## What became of it
#
# Elementwise operations and sums over one index space become one loop; matrix products and kernels such as
# the loss have native versions. `explain()` says which were joined, what is left to Python and why, and what
# the memory costs.

# %%
print(step.explain())

# %% [markdown]
# ## The code that runs
#
# `step.source` is the code of the loops, and then the step as a list of calls. Sizes and strides are
# arguments of a loop: other batch sizes need no new machine code. The loop of the first layer adds the bias,
# takes the tanh and, while it is at hand, computes the $1 - \tanh^2$ that the backward pass will need.

# %%
print(step.source)

# %% [markdown]
# ## Where the time goes
#
# The same step eagerly, compiled, and in PyTorch where it is installed, on 64 and on 2,048 rows. Small
# arrays show what it costs to call operations one by one; large arrays show what fusion saves in memory
# traffic.


# %%
def seconds(step, *arguments):
    """The median time of a call."""
    times, end = [], time.perf_counter() + SECONDS
    for _ in range(3):
        step(*arguments)
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        step(*arguments)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def make_step(kg):
    """The step above in either engine."""
    nn = kg.nn
    kg.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 5))
    optimizer = kg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x, y):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


engines = {"kilograd, eager": (kg, lambda f: f), "kilograd, compiled": (kg, kg.compile)}
if importlib.util.find_spec("torch"):
    import torch

    torch.set_num_threads(kg.get_num_threads())
    engines["PyTorch"] = (torch, lambda f: f)

measured = {}
for rows in (64, 2048):
    for name, (engine, prepare) in engines.items():
        engine.manual_seed(0)
        batch = engine.randn(rows, 20), engine.randint(0, 5, (rows,))
        measured[rows, name] = seconds(prepare(make_step(engine)), *batch) * 1e6
        print(f"{rows:5d} rows  {name:20s} {measured[rows, name]:8.1f} µs")

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 2.2))
for axis, rows in zip(axes, (64, 2048), strict=True):
    axis.barh(list(engines), [measured[rows, name] for name in engines])
    axis.invert_yaxis()
    axis.set(title=f"{rows} rows", xlabel="µs a step")
figure.tight_layout()
plt.show()

# %% [markdown]
# ## One program for each kind of call
#
# Programs are chosen by the shapes and dtypes of tensors and by the values of everything else. A learning
# rate is read anew in every call, and `train()` and `eval()` each have their program.

# %%
step(kg.randn(16, 20), y[:16])  # a smaller batch: recorded, then a program of its own
optimizer.param_groups[0]["lr"] = 0.01  # nothing to record
step(x, y)
model.eval()  # a guard no longer holds: recorded anew
step(x, y)
print(step.explain().splitlines()[1].strip())

# %% [markdown]
# ## What cannot be compiled
#
# A program is the same list of operations in every call. Python that asks for a value is no part of such a
# list: the function then runs eagerly, as a whole, and says once why. With `fullgraph=True` it is an error.


# %%
@kg.compile
def clipped(x):
    if x.norm().item() > 1:
        x = x / x.norm()
    return x


with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    clipped(kg.ones(4))
for warning in said:
    print(warning.message)

# %% [markdown]
# Said in tensors, it compiles:


# %%
@kg.compile(fullgraph=True)
def clipped_by_tensors(x):
    return x / x.norm().clamp(min=1)


print(clipped_by_tensors(kg.ones(4)), clipped_by_tensors(kg.ones(4)))
print(clipped_by_tensors.graph)

# %% [markdown]
# ## In doubt
#
# `check=True` runs every call both ways and compares everything: results, gradients, parameters, random
# numbers. It is slow, and meant for tests.

# %%
checked = kg.compile(make_step(kg), check=True)
for _ in range(4):
    loss = checked(x, y)
print(f"four steps checked, loss {loss.item():.4f}")
