"""Names that the ancestors' users know: a page "Coming from …" says each, and here it is used."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import kilograd as kg
from kilograd import nn
from kilograd.utils.data import DataLoader, TensorDataset, random_split
from tests.mission.rows import NAMES, close, numbers, old_name

F = nn.functional
PAGES = Path(__file__).parents[2] / "docs" / "coming_from"


def squares():
    """A leaf and a value made from it: (w, sum of w²)."""
    w = kg.tensor([1.0, 2.0], requires_grad=True)
    return w, (w * w).sum()


@old_name("zero_", "zero_grad", "clear_grad")
def zero_grad():
    """`x.grad = None`, or `optimizer.zero_grad()` and `model.zero_grad()`."""
    w, y = squares()
    y.backward()
    kg.optim.SGD([w], lr=1.0).zero_grad()
    assert w.grad is None


@old_name("backprop")
def backprop():
    """`y.backward()`."""
    w, y = squares()
    y.backward()
    assert w.grad.tolist() == [2, 4]


@old_name("realize")
def realize():
    """`y.realize()` and `graph.realize()`."""
    with kg.Graph():
        y = kg.ones(3).sum()
    assert y.realize().item() == 3


@old_name("no_track")
def no_track():
    """`kg.no_grad()`."""
    with kg.no_grad():
        assert not squares()[1].requires_grad


@old_name("new_graph")
def new_graph():
    """Not needed: a graph belongs to its result. `kg.Graph()` is a new lazy one."""
    (w, _), (v, y) = squares(), squares()
    y.backward()
    assert v.grad is not None and w.grad is None and len(kg.Graph()) == 0


@old_name("get_params", "params", "parameters")
def parameters():
    """`model.parameters()`."""
    assert [p.shape for p in nn.Linear(3, 2).parameters()] == [(2, 3), (2,)]


@old_name("GD")
def gd():
    """`kg.optim.SGD(parameters, lr)`."""
    w, y = squares()
    y.backward()
    kg.optim.SGD([w], lr=0.25).step()
    assert w.tolist() == [0.5, 1.0]


@old_name("Momentum")
def momentum():
    """`kg.optim.SGD(parameters, lr, momentum=0.9, dampening=0.9)`: a moving average, but for its first step."""
    w = kg.tensor([0.0], requires_grad=True)
    optimizer = kg.optim.SGD([w], lr=1.0, momentum=0.9, dampening=0.9)
    for g in (1.0, 2.0):
        w.grad = kg.tensor([g])
        optimizer.step()
    assert w.item() == pytest.approx(-1.0 - (0.9 * 1 + 0.1 * 2))


@old_name("dot")
def dot():
    """`kg.matmul`, `x @ y`; `kg.dot` is for vectors."""
    a, b = numbers(2, 3), numbers(3, 2)
    close(kg.matmul(kg.tensor(a), kg.tensor(b)), a @ b)
    close(kg.dot(kg.tensor(a[0]), kg.tensor(a[1])), a[0] @ a[1])


@old_name("Conv2D", "Conv3D")
def convolutions():
    """`nn.Conv2d`: 2 is the number of axes that are walked along; (N, H, W) gets a channel by `unsqueeze(1)`."""
    assert nn.Conv2d(1, 1, 3)(kg.ones(2, 8, 7).unsqueeze(1)).shape == (2, 1, 6, 5)
    assert nn.Conv2d(3, 8, 3)(kg.ones(2, 3, 8, 7)).shape == (2, 8, 6, 5)


@old_name("MaxPool2D", "MaxPool3D")
def max_pools():
    """`nn.MaxPool2d`."""
    assert nn.MaxPool2d(2)(kg.arange(16.0).reshape(1, 4, 4)).tolist() == [[[5, 7], [13, 15]]]


@old_name("mean_squared_error", "MSE")
def mean_squared_error():
    """`F.mse_loss`, `nn.MSELoss`: the mean, which Neograd divides by two."""
    a, b = numbers(4), numbers(4)
    close(F.mse_loss(kg.tensor(a), kg.tensor(b)), ((a - b) ** 2).mean())


@old_name("softmax_cross_entropy", "SoftmaxCE")
def softmax_cross_entropy():
    """`F.cross_entropy`, `nn.CrossEntropyLoss`, of class numbers or of one-hot targets."""
    x, y = kg.tensor(numbers(4, 3)), kg.tensor([0, 2, 1, 1])
    loss = F.cross_entropy(x, y)
    assert kg.allclose(loss, nn.CrossEntropyLoss()(x, F.one_hot(y, 3).double()))
    assert kg.allclose(loss, -x.log_softmax(1)[range(4), y.tolist()].mean())


@old_name("CE")
def cross_entropy_of_probabilities():
    """`nn.NLLLoss()(probabilities.log(), y)`."""
    p = kg.tensor([[0.5, 0.25, 0.25]])
    assert nn.NLLLoss()(p.log(), kg.tensor([1])).item() == pytest.approx(np.log(4))


@old_name("BCE")
def bce():
    """`nn.BCELoss`, and `nn.BCEWithLogitsLoss` of logits."""
    x, t = kg.tensor(numbers(5)), kg.tensor([0.0, 1, 1, 0, 1], dtype=kg.float64)
    assert kg.allclose(nn.BCELoss()(x.sigmoid(), t), nn.BCEWithLogitsLoss()(x, t))


@old_name("weight_dict", "load_weight_dict")
def weight_dict():
    """`model.state_dict()` and `model.load_state_dict(…)`."""
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    other.load_state_dict(one.state_dict())
    assert kg.equal(one.weight, other.weight)


@old_name("keepdims", "keepdim", "axis", "dim")
def dims_and_axes():
    """Both names of both arguments, everywhere."""
    x = kg.tensor(numbers(2, 3))
    one, other = x.sum(axis=1, keepdims=True), kg.sum(x, dim=1, keepdim=True)
    assert one.shape == (2, 1) and kg.equal(one, other)


@old_name("draw_graph", "visualize")
def draw_graph():
    """`y.draw_graph()`; `kg.viz.graph(function, …)` of all that a function computes."""
    w, y = squares()
    assert "sum" in y.draw_graph().dot
    assert "sum" in kg.viz.graph(lambda w: (w * w).sum(), w, time=False).dot


@old_name("plot")
def plot():
    """`model.plot(input_size=…)`."""
    drawing = nn.Sequential(nn.Linear(3, 2)).plot(input_size=(5, 3))
    assert "5×3 → 5×2" in drawing.dot


@old_name("save", "load")
def save_and_load(tmp_path):
    """`kg.save` and `kg.load` of tensors, `model.save` and `model.load` of weights."""
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    kg.save({"w": model.weight}, tmp_path / "w.npz")
    assert kg.equal(kg.load(tmp_path / "w.npz")["w"], model.weight)
    model.save(tmp_path / "model.npz")
    other.load(tmp_path / "model.npz")
    assert kg.equal(other.bias, model.bias)


@old_name("Checkpoint")
def checkpoint(tmp_path):
    """`kg.train.Checkpoint` of one file, `kg.train.CheckpointManager` of a folder."""
    manager = kg.train.CheckpointManager(tmp_path, kg.train.Checkpoint(model=nn.Linear(3, 2)))
    manager.save(epoch=1, accuracy=0.5)
    assert manager.resume() == {"epoch": 1, "accuracy": 0.5}


@old_name("ratio_split", "split_dataset")
def splits():
    """`kg.utils.data.random_split(dataset, [0.8, 0.2])`."""
    train, test = random_split(range(10), [0.8, 0.2])
    assert len(train) == 8 and sorted([*train, *test]) == list(range(10))


@old_name("get_batches", "as_batched")
def batches():
    """`kg.utils.data.DataLoader(TensorDataset(x, y), batch_size)`."""
    loader = DataLoader(TensorDataset(kg.arange(5), kg.arange(5) * 2), batch_size=2)
    assert [y.tolist() for _, y in loader] == [[0, 2], [4, 6], [8]]


def trainer():
    """A trainer of a model that knows the answer."""
    model = nn.Linear(2, 2, bias=False)
    model.weight.data = kg.eye(2)
    optimizer = kg.optim.SGD(model.parameters(), lr=0.1)
    metrics = {"accuracy": kg.train.metrics.Accuracy()}
    return kg.train.Trainer(model, nn.CrossEntropyLoss(), optimizer, metrics=metrics)


@old_name("Trainer")
def train_with_a_trainer():
    """`kg.train.Trainer(model, loss, optimizer).fit(batches, validation, epochs=…)`."""
    batches = [(kg.eye(2), kg.tensor([0, 1]))]
    history = trainer().fit(batches, epochs=3)
    assert len(history["train_loss"]) == 3 and history["train_loss"][2] < history["train_loss"][0]


@old_name("Evaluator")
def evaluate():
    """`trainer.evaluate(batches)` with `kg.train.metrics`."""
    measured = trainer().evaluate([(kg.eye(2), kg.tensor([0, 1])), (kg.eye(2), kg.tensor([1, 1]))])
    assert measured["accuracy"] == 0.75


@old_name("Neuron")
def neuron():
    """`nn.Neuron(n)`."""
    assert nn.Neuron(3)(kg.ones(5, 3)).shape == (5, 1)


@old_name("GlobalAvgPool2d", "MinPool2d")
def pools():
    """`nn.GlobalAvgPool2d` and `nn.MinPool2d`."""
    x = kg.arange(4.0).reshape(1, 1, 2, 2)
    assert nn.GlobalAvgPool2d()(x).tolist() == [[1.5]] and nn.MinPool2d(2)(x).item() == 0


@old_name("compute_graph", "train")
def record_once():
    """`@kg.compile`."""
    double = kg.compile(lambda x: x * 2)
    assert [double(kg.tensor([v])).item() for v in (1.0, 2.0, 3.0)] == [2, 4, 6]


@pytest.mark.parametrize("name", list(NAMES))
def test_names_of_the_ancestors(name, tmp_path):
    proof = NAMES[name]
    proof(tmp_path) if proof.__code__.co_argcount else proof()


@pytest.mark.parametrize("name", NAMES)
def test_the_pages_say_what_is_called_otherwise(name):
    pages = "".join(p.read_text(encoding="utf-8") for p in PAGES.glob("*.md"))
    assert any(name in re.findall(r"\w+", code) for code in re.findall(r"`([^`\n]+)`", pages))
