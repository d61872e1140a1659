"""Modules: parameters, modes, names; and what goes to disk and comes back."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator

import pytest

import kilograd as kg
from kilograd import nn
from kilograd.utils.data import DataLoader, TensorDataset
from tests.mission.rows import close, numbers, row


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


@row("Module", "parameters()", ancestors="all")
def test_parameters():
    """`model.parameters()` and `named_parameters()`: iterators; a shared parameter comes once."""
    model = network()
    assert isinstance(model.parameters(), Iterator)
    assert [n for n, _ in model.named_parameters()] == [
        "0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias",
    ]  # fmt: skip
    model[3].weight = model[1].weight
    assert len(list(model.parameters())) == 5


@row("Module", "num_params / count_parameters", ancestors="synapgrad, simple_autograd")
def test_num_params():
    """`model.num_params(trainable=None)`, also called `count_parameters`; `kg.summary(model)` for a table."""
    model = network()
    assert model.num_params() == model.count_parameters() == 16 + 8 + 10
    model[0].freeze()
    assert model.num_params(trainable=True) == 18 and model.num_params(trainable=False) == 16
    assert kg.summary(model, input_size=(5, 3)).total_params == 34


@row("Module", "train/eval modes", ancestors="synapgrad, neograd, pygrad, simple_autograd")
def test_train_and_eval_modes():
    """`model.train()` and `model.eval()` reach every module below, in lists and dictionaries too."""
    model = nn.Sequential(
        nn.ModuleList([nn.Dropout()]), nn.ModuleDict({"a": nn.Sequential(nn.Dropout())})
    )
    assert model.eval() is model and not any(m.training for m in model.modules())
    x = kg.ones(20)
    assert kg.equal(model[1]["a"](model[0][0](x)), x)
    model.train()
    assert all(m.training for m in model.modules()) and not kg.equal(model[0][0](x), x)


@row("Module", "eval context also disables tracking", ancestors="neograd")
def test_eval_context_also_disables_tracking():
    """`with model.evaluating():` is evaluation without gradients, and puts every module's mode back."""
    model = network()
    model[2].eval()
    with pytest.raises(KeyError), model.evaluating():
        y = model(kg.randn(5, 3))
        assert not y.requires_grad and not model[1].training
        raise KeyError
    assert model.training and model[1].training and not model[2].training
    assert model[1].num_batches_tracked == 0 and kg.is_grad_enabled()


@row("Module", "freeze / unfreeze", ancestors="synapgrad, neograd")
def test_freeze_and_unfreeze():
    """`freeze()` and `unfreeze()` of a model, a layer, or (`requires_grad_`) a parameter."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].freeze()
    model(kg.randn(5, 3)).sum().backward()
    assert model[0].weight.grad is None and model[1].weight.grad is not None
    model.unfreeze()
    model[1].bias.requires_grad_(False)
    model.zero_grad()
    model(kg.randn(5, 3)).sum().backward()
    assert model[0].weight.grad is not None and model[1].bias.grad is None


@row("Module", "apply(fn)", ancestors="synapgrad")
def test_apply():
    """`model.apply(fn)` calls a function on every module, children first."""
    model, seen = network(), []
    assert model.apply(lambda m: seen.append(type(m).__name__)) is model
    assert seen == ["Linear", "BatchNorm1d", "Dropout", "Linear", "Sequential"]
    model.apply(lambda m: nn.init.zeros_(m.weight) if isinstance(m, nn.Linear) else None)
    assert not model[0].weight.any() and not model[3].weight.any() and model[1].weight.all()


@row("Module", "register_module / register_parameter", ancestors="synapgrad, simple_autograd")
def test_register_module_and_parameter():
    """`register_module` (or `add_module`), `register_parameter`, or simply an attribute."""
    model = nn.Module()
    model.register_module("first", nn.Linear(2, 1, bias=False))
    model.register_parameter("scale", nn.Parameter(kg.ones(1)))
    model.register_parameter("absent", None)
    model.last = nn.Linear(1, 1, bias=False)
    assert [n for n, _ in model.named_parameters()] == ["scale", "first.weight", "last.weight"]
    with pytest.raises(TypeError):
        model.register_parameter("plain", kg.ones(1))
    with pytest.raises(KeyError):
        model.register_parameter("a.b", nn.Parameter(kg.ones(1)))


@row("Module", "buffers", ancestors="simple_autograd")
def test_buffers():
    """`register_buffer(name, tensor, persistent=True)`: state that is saved and not trained."""
    model = nn.Module()
    model.register_buffer("mean", kg.zeros(2))
    model.register_buffer("cache", kg.ones(1), persistent=False)
    assert [n for n, _ in model.named_buffers()] == ["mean", "cache"]
    assert list(model.state_dict()) == ["mean"] and list(model.parameters()) == []
    assert model.double().mean.dtype == kg.float64
    model.mean = kg.ones(2)
    assert model.state_dict()["mean"].tolist() == [1, 1]


@row("Module", "nested repr, extra_repr", ancestors="synapgrad, neograd, pygrad, simple_autograd")
def test_nested_repr():
    """`print(model)` shows the modules in each other; `extra_repr` says what stands in the brackets."""

    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(2, 3))

        def extra_repr(self):
            return "size=7"

    assert repr(Mine()) == (
        "Mine(\n  size=7\n  (inner): Sequential(\n"
        "    (0): Linear(in_features=2, out_features=3, bias=True)\n  )\n)"
    )


@row("Module", "guards against re-assigning params/layers", ancestors="neograd")
def test_guards_against_re_assigning():
    """A parameter's or layer's name takes another of its kind or None; anything else is a TypeError."""
    layer, model = nn.Linear(2, 1), network()
    weight = layer.weight
    for bad in (kg.ones(1, 2), 3.0, "text"):
        with pytest.raises(TypeError, match="weight"):
            layer.weight = bad
        with pytest.raises(TypeError, match="child module"):
            model[0] = bad
    assert layer.weight is weight and isinstance(model[0], nn.Linear)
    with pytest.raises(KeyError, match="already exists"):
        layer.register_buffer("weight", kg.ones(1))


# --- to disk and back ---------------------------------------------------------------------------


@row(
    "Save / load", "weights: state_dict, dotted keys", ancestors="neograd, pygrad, simple_autograd"
)
def test_state_dict():
    """`model.state_dict()`: parameters and buffers by dotted names, in the memory of the model."""
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 1)), nn.BatchNorm1d(1))
    state = model.state_dict()
    assert list(state) == [
        "0.0.weight", "0.0.bias", "1.weight", "1.bias",
        "1.running_mean", "1.running_var", "1.num_batches_tracked",
    ]  # fmt: skip
    assert state["0.0.weight"].array is model[0][0].weight.array
    assert not state["0.0.weight"].requires_grad


@row(
    "Save / load",
    "load_state_dict / load_weight_dict",
    ancestors="neograd, pygrad, simple_autograd",
)
def test_load_state_dict():
    """`model.load_state_dict(state, strict=True)` lists all that does not fit; parameters stay the same objects."""
    one, other = network(), network()
    weight = other[0].weight
    optimizer = kg.optim.SGD(other.parameters(), lr=1.0)
    assert other.load_state_dict(one.state_dict()).missing_keys == []
    assert other[0].weight is weight and kg.equal(weight, one[0].weight)
    other[0](kg.ones(1, 3)).sum().backward()
    optimizer.step()  # still trains what was loaded
    close(other[0].weight, one[0].weight.detach().numpy() - 1, 1e-6)
    with pytest.raises(
        RuntimeError, match=r"(?s)size mismatch.*0\.weight|0\.weight.*size mismatch"
    ):
        other.load_state_dict({**one.state_dict(), "0.weight": kg.ones(1, 1)})
    with pytest.raises(RuntimeError, match="extra"):
        other.load_state_dict({**one.state_dict(), "extra": kg.ones(1)})


@row("Save / load", "model.save/load file", ancestors="neograd, pygrad, simple_autograd")
def test_model_save_and_load(tmp_path):
    """`model.save(path)` and `model.load(path)`: .safetensors or .npz, whole or not at all, under that very name."""
    pytest.importorskip("safetensors")
    model, x = network().eval(), kg.randn(5, 3)
    for name in ("weights.safetensors", "weights.npz", "no_ending"):
        path, other = tmp_path / name, network().eval()
        model.save(path)
        other.load(path)
        assert kg.equal(other(x), model(x))
    assert {p.name for p in tmp_path.iterdir()} == {
        "weights.safetensors",
        "weights.npz",
        "no_ending",
    }
    small = nn.Linear(2, 1)
    before = small.weight.detach().clone()
    with pytest.raises(RuntimeError, match="unexpected"):
        small.load(path)
    assert kg.equal(small.weight, before)


@row("Save / load", "whole-model pickling", ancestors="neograd")
def test_whole_model_pickling(tmp_path):
    """Modules and tensors can be pickled and copied; `kg.save` and `kg.load` write and read data, never code."""
    model, x = network().eval(), kg.randn(5, 3)
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert kg.equal(twin(x), model(x)) and twin[0].weight is not model[0].weight
        assert twin[0].weight.requires_grad
    nest = {"weights": dict(model.state_dict()), "epoch": 3, "names": ["a", ("b", None)]}
    kg.save(nest, tmp_path / "all.npz")
    back = kg.load(tmp_path / "all.npz")
    assert back["names"] == nest["names"] and kg.equal(back["weights"]["0.weight"], model[0].weight)
    with pytest.raises(TypeError, match="model.save"):
        kg.save(model, tmp_path / "model.npz")


def run(folder):
    """The checkpoints of a run, of which two and the best are kept."""
    parts = kg.train.Checkpoint(model=nn.Linear(3, 1))
    return kg.train.CheckpointManager(folder, parts, keep_last=2, keep_best=1, monitor="val")


@row(
    "Save / load",
    "checkpoints with index, sessions, tracked values",
    ancestors="neograd, simple_autograd",
)
def test_checkpoints_with_index(tmp_path):
    """`kg.train.CheckpointManager`: a folder with an index of epochs, runs and values; keeps the last and the best."""
    for val in (0.5, 0.1, 0.7, 0.6):  # each is another process's run
        manager = run(tmp_path)
        manager.save({"time": "noon", "e": 2.5}, epoch=len(manager.entries), val=val)
    index = json.loads((tmp_path / "index.json").read_text())
    assert [e["values"]["val"] for e in index["checkpoints"]] == [0.1, 0.7, 0.6]
    assert len({e["run"] for e in index["checkpoints"]}) == 3
    assert manager.best().name == "checkpoint-000002.kg"
    values = manager.resume()
    assert values["val"] == 0.6 and values["time"] == "noon" and values["e"] == 2.5


@row("Save / load", "auto-resume", ancestors="neograd, simple_autograd")
def test_auto_resume(tmp_path):
    """`callbacks=[kg.train.Checkpoints(folder)]`: a run that is begun again goes on where it was killed."""
    data = TensorDataset(kg.tensor(numbers(20, 3)).float(), kg.tensor(numbers(20, 1)).float())

    def fit(folder, *callbacks):
        model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        optimizer = kg.optim.Adam(model.parameters(), lr=0.1)
        saving = kg.train.Checkpoints(tmp_path / folder, monitor="train_loss")
        trainer = kg.train.Trainer(model, nn.MSELoss(), optimizer, callbacks=[saving, *callbacks])
        trainer.fit(DataLoader(data, 6, shuffle=True), epochs=4)
        return trainer

    def killed(trainer):
        if trainer.epoch == 3:
            raise KeyboardInterrupt

    kg.use_deterministic_algorithms(True)
    try:
        kg.manual_seed(1)
        whole = fit("whole")
        kg.manual_seed(1)
        with pytest.raises(KeyboardInterrupt):
            fit("parts", killed)
        kg.manual_seed(99)  # another process
        parts = fit("parts")
    finally:
        kg.use_deterministic_algorithms(False)
    assert parts.history["train_loss"] == whole.history["train_loss"] and parts.epoch == 4
    assert kg.equal(parts.model[0].weight, whole.model[0].weight)
