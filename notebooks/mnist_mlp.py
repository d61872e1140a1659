# %% [markdown]
# # MNIST with a multi-layer perceptron, in kilograd and in PyTorch
#
# What you learn here:
# - a network with batch normalisation and dropout, and what `train()` and `eval()` do to it;
# - mini-batches, validation and test;
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

import numpy as np

from kilograd import viz
from kilograd.datasets import MNIST, Digits

SMOKE = os.environ.get("KILOGRAD_SMOKE") == "1"  # a quick test: few images, no download
EPOCHS = 1 if SMOKE else 5

# %% [markdown]
# ## The data
#
# 60,000 handwritten digits to learn from, 10,000 to test on. The first 12,000 of the former are kept for
# validation. The files are looked for in `$KILOGRAD_DATA/mnist`, then in the user's cache folder, where they
# are downloaded to if need be (11 MB).


# %%
def load(train):
    """Images (N, 1, 28, 28) float32 in [0, 1] and labels (N,) int64, as NumPy arrays."""
    if SMOKE:  # small digits that ship with scikit-learn, enlarged
        small, labels = Digits(train).data.numpy()[:400] / 16, Digits(train).targets.numpy()[:400]
        images = np.pad(np.kron(small, np.ones((3, 3))), [(0, 0), (2, 2), (2, 2)])
    else:
        mnist = MNIST(train=train, download=True)
        images, labels = mnist.data.numpy() / 255, mnist.targets.numpy()
    return images[:, None].astype(np.float32), labels


images, labels = load(train=True)
parts = np.split(
    np.arange(len(images)), [len(images) // 5]
)  # a fifth to validate, the rest to train
datasets = {"validation": (images[parts[0]], labels[parts[0]])}
datasets["train"] = images[parts[1]], labels[parts[1]]
datasets["test"] = load(train=False)
print({name: images.shape for name, (images, _) in datasets.items()})

# %%
images, labels = datasets["train"]
viz.images(images[:20], titles=labels[:20], columns=10)

# %% [markdown]
# ## The model
#
# 784 pixels → 200 → 100 → 10 log-probabilities: 178,710 parameters. Batch normalisation keeps the inputs of
# each layer at mean 0 and deviation 1; dropout zeroes a fifth of the units at random, so that none can rely
# on a single other. Functions take the engine `kg` as an argument, so that the last section can run them
# with both.


# %%
def mlp(kg):
    nn = kg.nn
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 200), nn.BatchNorm1d(200), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(200, 100), nn.BatchNorm1d(100), nn.ReLU(),
        nn.Linear(100, 10), nn.LogSoftmax(dim=1),
    )  # fmt: skip


print(f"{sum(p.numel() for p in mlp(kg).parameters()):,} parameters")

# %% [markdown]
# ## Training
#
# SGD with momentum, batches of 64. In `eval()` mode dropout is off and batch normalisation uses the averages
# that it collected while training; `no_grad` records nothing.


# %%
def loader(kg, name, batch_size):
    data = kg.utils.data.TensorDataset(*map(kg.from_numpy, datasets[name]))
    return kg.utils.data.DataLoader(data, batch_size)


def accuracy(kg, model, name):
    model.eval()
    with kg.no_grad():
        right = [(model(x).argmax(dim=1) == y).sum().item() for x, y in loader(kg, name, 256)]
    model.train()
    return sum(right) / len(datasets[name][0])


def train(kg, epochs, compiled=False):
    """Returns the model, the loss of each step, and the median of the seconds per step."""
    kg.manual_seed(42)
    model = mlp(kg)
    criterion = kg.nn.NLLLoss()
    optimizer = kg.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step(x, y):
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    if compiled:
        step = kg.compile(step)

    losses, times = [], []
    for epoch in range(1, epochs + 1):
        for x, y in loader(kg, "train", 64):
            start = time.perf_counter()
            loss = step(x, y)
            times.append(time.perf_counter() - start)
            losses.append(loss.item())
        print(f"epoch {epoch}  validation accuracy {accuracy(kg, model, 'validation'):.4f}")
    return model, losses, sorted(times)[len(times) // 2]


model, losses, _ = train(kg, EPOCHS)
print(f"{ENGINE}: test accuracy {accuracy(kg, model, 'test'):.4f}")

# %%
window = max(len(losses) // 100, 1)
smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
viz.curves({"step": range(len(smooth)), "loss": smooth.tolist()}, log=True)

# %% [markdown]
# ## Where it is wrong
#
# The confusion matrix of the test images. Beside the diagonal are the mistakes: in row 4 and column 9, for
# one, the fours that it takes for nines.

# %%
model.eval()
images, labels = datasets["test"]
with kg.no_grad():
    said = model(kg.from_numpy(images)).argmax(dim=1).numpy()
viz.confusion_matrix(labels, said)

# %% [markdown]
# Some of the wrong answers: above each image, what the network said and what it is.

# %%
wrong = np.flatnonzero(said != labels)[:20]
titles = [f"{said[i]} not {labels[i]}" for i in wrong]
viz.images(images[wrong], titles=titles, columns=10)

# %% [markdown]
# ## Side by side
#
# One epoch each, with the same number of threads. `manual_seed` gives the same random numbers in both, so
# both start from the same weights and drop the same units: the first losses are equal, and what separates the
# later ones is rounding, which grows from step to step. The times are medians over all steps, without the
# loading of data.

# %%
import kilograd

print("kilograd")
runs = {"kilograd": train(kilograd, 1)}
print("kilograd, compiled")
runs["kilograd, compiled"] = train(kilograd, 1, compiled=True)
if importlib.util.find_spec("torch"):
    import torch

    torch.set_num_threads(kilograd.get_num_threads())
    print("PyTorch")
    runs["PyTorch"] = train(torch, 1)

print(f"\n{kilograd.get_num_threads()} thread(s)")
for name, (_, losses, seconds) in runs.items():
    print(f"{name:20s} {seconds * 1e3:6.2f} ms a step   losses {losses[0]:.4f} … {losses[-1]:.4f}")
