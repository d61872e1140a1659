# %% [markdown]
# # Graphs: see what is computed
#
# What you learn here:
# - `tensor.draw_graph()`: what `backward()` will walk, with values and gradients;
# - `kg.explain`: the same in words, with the rule of each operation;
# - `kg.viz.graph(fn, ...)`: a whole training step, forward, backward and update;
# - `model.plot(...)` and `kg.summary(...)`: layers, shapes, parameters and work;
# - how to save a drawing as SVG, PNG, an interactive page, or text.

# %%
import tempfile
from pathlib import Path

import kilograd as kg
from kilograd import nn

# %% [markdown]
# ## The graph of a computation
#
# Every operation on a tensor that requires grad is written down. `draw_graph` draws that record: blue are the
# leaves that gradients go to, red is other data that an operation keeps for its derivative, green are
# constants. Intermediate results that you still hold show their values, too, and under `retain_grads` also
# their gradients.

# %%
with kg.retain_grads():
    w = kg.tensor([[1.0, -2.0], [0.5, 1.0]], requires_grad=True)
    b = kg.tensor([0.1, 0.2], requires_grad=True)
    x = kg.tensor([[3.0, 4.0]])
    scores = x @ w + b
    squashed = kg.tanh(scores)
    z = squashed.sum()
    z.backward(retain_graph=True)  # else the graph is freed, and there is nothing to draw

z.draw_graph(names={"w": w, "b": b, "x": x})

# %% [markdown]
# `values=False` leaves the numbers out, `direction="LR"` goes from left to right. A value that is used twice
# has two arrows; the gradients that come back along them are added.

# %%
x = kg.tensor(3.0, requires_grad=True)
y = x * x + 2 * x
y.draw_graph(names={"x": x}, direction="LR", values=False)

# %% [markdown]
# ## The backward pass in words
#
# `kg.explain` tells what `backward()` does, step by step: which gradient arrives at an operation, the rule that
# it has, what the names in that rule stand for, and what it hands on to which input. Nothing is changed.

# %%
kg.explain(y, names={"x": x})

# %% [markdown]
# ## The layers of a model
#
# `plot` runs the model once, on random numbers of the given shape (the first number is the batch), and draws
# its layers with the shapes between them. Parts of a model open and close in the interactive page; `depth`
# says how far they are open in a picture.


# %%
class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return kg.relu(x + self.conv2(kg.relu(self.conv1(x))))


kg.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(),
    Residual(8),
    nn.MaxPool2d(2), nn.Flatten(),
    nn.Linear(8 * 4 * 4, 10),
)  # fmt: skip
model.plot(input_size=(32, 1, 8, 8))

# %%
model.plot(input_size=(32, 1, 8, 8), depth=0, direction="LR")

# %% [markdown]
# The same as a table, with the multiplications and the memory that a forward pass takes:

# %%
kg.summary(model, input_size=(32, 1, 8, 8))

# %% [markdown]
# ## A whole training step
#
# `viz.graph` takes any function of tensors. Here it is a training step, so the drawing has three phases:
# forward, backward, update. The function is run once to record it, and what it changed is put back: the
# parameters are as before.

# %%
mlp = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
optimizer = kg.optim.SGD(mlp.parameters(), lr=0.1)


def step(x, label):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(mlp(x), label)
    loss.backward()
    optimizer.step()
    return loss


batch = kg.randn(16, 4), kg.randint(0, 3, (16,))
before = mlp[0].weight.detach().clone()
drawing = kg.viz.graph(step, *batch)
assert kg.equal(mlp[0].weight, before)
drawing

# %% [markdown]
# `depth` opens the groups down to the operations within layers and phases. `optimised=True` draws what
# `kg.compile` has left after its simplifications.

# %%
kg.viz.graph(step, *batch, depth=0, direction="LR")

# %%
kg.viz.graph(step, *batch, optimised=True)

# %% [markdown]
# ## Saving
#
# The suffix says how. `.html` is a page with everything in it, to zoom, search and step through in a browser;
# `.mmd` is Mermaid, which Markdown pages on many sites show as a picture; `.dot` is Graphviz's language.

# %%
with tempfile.TemporaryDirectory() as folder:
    for suffix in ("svg", "png", "html", "mmd", "dot"):
        path = drawing.save(Path(folder) / f"step.{suffix}")
        print(f"{path.name:10s} {path.stat().st_size:9,d} bytes")

# %%
print(y.draw_graph(names={"x": x}).mermaid)
