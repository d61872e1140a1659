"""The trainer: the same numbers as a loop written by hand, for kilograd's models and PyTorch's."""

import copy
import functools
import gc
import itertools
import pickle
import weakref

import numpy as np
import pytest

import kilograd as kg
from kilograd import nn
from kilograd.train import Callback, History, NonFiniteError, Trainer
from kilograd.train.metrics import ROCAUC, Accuracy, ConfusionMatrix, MeanSquaredError
from kilograd.utils.data import DataLoader, TensorDataset


def points(n=50, seed=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    return TensorDataset(kg.tensor(x), kg.tensor((x[:, 0] * x[:, 1] > 0).astype(np.int64)))


def network(lib=nn, **how):
    return lib.Sequential(lib.Linear(4, 8), lib.Tanh(), lib.Linear(8, 2), **how)


def weights(model):
    return [np.array(p.detach().numpy()) for p in model.parameters()]


def same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(params=["kilograd", "PyTorch"])
def lib(request):
    """The modules nn, optim, and the seed, of one library."""
    if request.param == "kilograd":
        return kg
    return pytest.importorskip("torch")


# --- the loop ----------------------------------------------------------------------------------------


def test_it_is_the_loop_one_would_write(lib):
    data = points()

    def begin():
        kg.manual_seed(1)
        lib.manual_seed(1)
        model = network(lib.nn)
        return model, lib.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)

    model, optimizer = begin()
    loss_fn = lib.nn.CrossEntropyLoss()
    losses, right = [], []
    for _ in range(3):
        total = hits = 0.0
        for x, y in DataLoader(data, 8, shuffle=True):
            if lib is not kg:
                x, y = lib.from_numpy(x.numpy()), lib.from_numpy(y.numpy())
            optimizer.zero_grad()
            scores = model(x)
            loss = loss_fn(scores, y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(x)
            hits += (scores.argmax(1) == y).sum().item()
        losses.append(total / 50)
        right.append(hits / 50)
    mine, optimizer = begin()
    trainer = Trainer(mine, loss_fn, optimizer, metrics={"accuracy": Accuracy()})
    history = trainer.fit(DataLoader(data, 8, shuffle=True), epochs=3)
    same(weights(model), weights(mine))
    assert history["train_loss"] == losses
    assert history["train_accuracy"] == right
    assert history["epoch"] == [1, 2, 3] and history["step"] == [7, 14, 21]
    assert "val_loss" not in history
    assert trainer.history is history and (trainer.epoch, trainer.step) == (3, 21)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("clip", [{}, {"clip_norm": 0.05}, {"clip_value": 0.01}])
def test_compiled_is_eager_within_rounding(accumulate, clip):
    found = []
    for compile in (False, True):
        kg.manual_seed(0)
        model = nn.Sequential(  # a bias would have no gradient but rounding, which Adam makes large
            nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 2)
        )  # fmt: skip
        trainer = Trainer(
            model, nn.CrossEntropyLoss(), kg.optim.AdamW(model.parameters(), lr=0.01),
            metrics={"accuracy": Accuracy(), "auc": ROCAUC(logits=True)},
            accumulate=accumulate, compile=compile, **clip,
        )  # fmt: skip
        loader = DataLoader(points(), 8, shuffle=True)
        history = trainer.fit(loader, DataLoader(points(seed=4), 20), epochs=4)
        found.append((history, weights(model), trainer.predict(points().tensors[0]).numpy()))
    (a, wa, pa), (b, wb, pb) = found
    for x, y in zip(wa, wb, strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-6)
    np.testing.assert_allclose(pa, pb, rtol=2e-4, atol=2e-5)
    assert set(a) == set(b)
    for name in set(a) - {"seconds"}:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("compile", [False, True])
def test_accumulated_batches_are_one_large_batch(reduction, compile):
    """Also where the last group has fewer batches and the last batch fewer samples."""
    found = []
    for size, accumulate in ((12, 1), (4, 3)):  # 50 samples: 12, 12, 12, 12, 2
        kg.manual_seed(0)
        model = network().double()
        trainer = Trainer(
            model, nn.CrossEntropyLoss(reduction=reduction),
            kg.optim.SGD(model.parameters(), lr=0.01), accumulate=accumulate, compile=compile,
        )  # fmt: skip
        x, y = points().tensors
        history = trainer.fit(DataLoader(TensorDataset(x.double(), y), size), epochs=2)
        found.append((weights(model), history["train_loss"]))
        assert trainer.step == 10
    for a, b in zip(*(w for w, _ in found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=0.05)  # measured while they change


def test_clipping_by_hand(lib):
    data = points(8)
    for clip, name in (({"clip_norm": 0.01}, "norm"), ({"clip_value": 0.003}, "value")):
        lib.manual_seed(0)
        model = network(lib.nn)
        before = weights(model)
        optimizer = lib.optim.SGD(model.parameters(), lr=1.0)
        Trainer(model, lib.nn.CrossEntropyLoss(), optimizer, **clip).fit(DataLoader(data, 8))
        moved = np.concatenate(
            [(a - b).ravel() for a, b in zip(weights(model), before, strict=True)]
        )
        if name == "norm":
            np.testing.assert_allclose(np.linalg.norm(moved), 0.01, rtol=1e-3)
        else:
            np.testing.assert_allclose(abs(moved).max(), 0.003, rtol=1e-3)


def test_an_optimizer_that_calls_a_closure(lib):
    """LBFGS on a least-squares problem gets to its solution; batches are accumulated in the closure."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(30, 3)), rng.normal(size=(3, 1))
    y = x @ w + 0.5
    batches = [(x[:20], y[:20]), (x[20:], y[20:])]
    lib.manual_seed(0)
    model = lib.nn.Linear(3, 1).double()
    optimizer = lib.optim.LBFGS(model.parameters(), max_iter=30, line_search_fn="strong_wolfe")
    history = Trainer(model, lib.nn.MSELoss(), optimizer, accumulate=2).fit(batches, epochs=4)
    assert history["train_loss"][-1] < 1e-12
    np.testing.assert_allclose(model.weight.detach().numpy(), w.T, atol=1e-6)
    if lib is kg:
        with pytest.raises(ValueError, match="LBFGS calls a closure"):
            Trainer(model, nn.MSELoss(), optimizer, compile=True)


def test_a_second_fit_goes_on():
    model = network()
    trainer = Trainer(model, nn.CrossEntropyLoss(), kg.optim.Adam(model.parameters()))
    loader = DataLoader(points(), 10)
    trainer.fit(loader, epochs=2)
    assert trainer.fit(loader, epochs=3)["epoch"] == [1, 2, 3, 4, 5]
    assert trainer.fit(loader, epochs=0)["epoch"] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("compile", [False, True])
def test_max_steps_and_stop(compile):
    model = network()
    trainer = Trainer(
        model, nn.CrossEntropyLoss(), kg.optim.Adam(model.parameters()), compile=compile
    )
    loader = DataLoader(points(), 10)
    trainer.fit(loader, epochs=9, max_steps=7)
    assert (trainer.step, trainer.epoch) == (7, 2)  # the epoch that was begun counts
    assert trainer.fit(loader, epochs=9, max_steps=7)["step"] == [5, 7]

    class After(Callback):
        def on_step_end(self, trainer):
            if trainer.step == 9:
                trainer.stop()

    trainer.callbacks.append(After())
    trainer.fit(loader, epochs=9)
    assert (trainer.step, trainer.epoch) == (9, 3)
    assert trainer.fit(loader, epochs=1)["step"] == [5, 7, 9, 14]


# --- batches of other forms ----------------------------------------------------------------------------


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(2, 3), nn.Linear(2, 3)

    def forward(self, left, right):
        return self.left(left) + self.right(right)


@pytest.mark.parametrize("compile", [False, True])
def test_several_inputs_and_dicts(compile):
    x, y = points(20).tensors
    a, b = x[:, :2], x[:, 2:]
    found = []
    for batches in (
        [(a, b, y)] * 4, [[a, b, y]] * 4, [{"left": a, "label": y, "right": b}] * 4,
        DataLoader(TensorDataset(a, b, y), 20),
    ):  # fmt: skip
        kg.manual_seed(0)
        model = TwoInputs()
        optimizer = kg.optim.SGD(model.parameters(), lr=0.1)
        trainer = Trainer(
            model, nn.CrossEntropyLoss(), optimizer, metrics=[Accuracy()], compile=compile
        )
        epochs = 1 if isinstance(batches, list) else 4
        trainer.fit(batches, batches, epochs=epochs)
        found.append(weights(model))
        outputs = trainer.predict(batches)
        assert outputs.shape == (20 * len(batches), 3)
        np.testing.assert_allclose(outputs[:20].numpy(), model(a, b).detach().numpy(), rtol=1e-5)
    for other in found[1:]:
        for p, q in zip(found[0], other, strict=True):
            np.testing.assert_allclose(p, q, rtol=1e-5, atol=1e-7)


def test_a_dict_with_two_targets_needs_unpack():
    model = network()
    trainer = Trainer(model, nn.CrossEntropyLoss(), kg.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match=r"which of \['y', 'label'\] is the target.*unpack"):
        trainer.fit([{"y": kg.ones(2), "label": kg.ones(2)}])


@pytest.mark.parametrize("compile", [False, True])
def test_without_targets_the_loss_is_of_the_outputs(compile):
    model = nn.Linear(4, 4)
    optimizer = kg.optim.Adam(model.parameters(), lr=0.05)
    trainer = Trainer(model, lambda out: (out**2).mean(), optimizer, compile=compile)
    x = points(20).tensors[0]
    for batches in ([x], [(x,)], DataLoader(TensorDataset(x), 10)):
        trainer.fit(batches, epochs=30)
    assert trainer.evaluate([x])["loss"] < 0.2 * trainer.history["train_loss"][0]


def test_forward_of_ones_own(torch):
    """An autoencoder with two outputs, whose loss is made in forward."""
    for lib in (kg, torch):

        class Coder(lib.nn.Module):
            def __init__(self, lib=lib):
                super().__init__()
                self.code, self.back = lib.nn.Linear(4, 2), lib.nn.Linear(2, 4)

            def forward(self, x):
                code = self.code(x)
                return {"code": code, "again": self.back(code)}

        class Auto(Trainer):
            def forward(self, batch):
                (x,), _ = self.unpack(batch)
                outputs = self.model(x)
                return ((outputs["again"] - x) ** 2).mean(), outputs

        lib.manual_seed(0)
        model = Coder()
        trainer = Auto(model, None, lib.optim.Adam(model.parameters(), lr=0.05))
        x = points(20).tensors[0].numpy()
        history = trainer.fit([x], epochs=100)
        assert history["train_loss"][-1] < 0.6 * history["train_loss"][0]
        assert set(trainer.evaluate([x])) == {"loss"}
        outputs = trainer.predict([x[:15], x[15:]])
        assert tuple(outputs["code"].shape) == (20, 2) and tuple(outputs["again"].shape) == (20, 4)


def test_batches_of_the_other_library(torch):
    x, y = (t.numpy() for t in points(20).tensors)
    found = []
    for lib in (kg, torch):
        model = network(lib.nn)
        with torch.no_grad(), kg.no_grad():
            for p in model.parameters():
                p.fill_(0.1)
        for batch in ((kg.tensor(x), kg.tensor(y)), (torch.tensor(x), torch.tensor(y)), (x, y)):
            optimizer = lib.optim.SGD(model.parameters(), lr=0.1)
            Trainer(model, lib.nn.CrossEntropyLoss(), optimizer).fit([batch], epochs=2)
        found.append(weights(model))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    model = torch.nn.Linear(2, 1)
    read_only, reversed_ = np.ones((3, 2), np.float32), np.ones((3, 2), np.float32)[::-1]
    read_only.flags.writeable = False
    for array in (read_only, reversed_, np.asfortranarray(read_only)):
        assert Trainer(model).predict(array).shape == (3, 1)


# --- measuring -----------------------------------------------------------------------------------------


def test_evaluate_is_that_of_all_samples(lib):
    data = points(53)
    lib.manual_seed(0)
    model = network(lib.nn)
    trainer = Trainer(
        model, lib.nn.CrossEntropyLoss(),
        metrics={"accuracy": Accuracy(), "worst": lambda t, s: np.abs(s).max()},
    )  # fmt: skip
    found = trainer.evaluate(DataLoader(data, 7))
    scores = trainer.predict(DataLoader(data, 9)).numpy()
    y = data.tensors[1].numpy()
    logp = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    assert list(found) == ["loss", "accuracy", "worst"]
    assert found["loss"] == pytest.approx(-logp[np.arange(53), y].mean(), rel=1e-5)
    assert found["accuracy"] == (scores.argmax(1) == y).mean()
    assert found["worst"] == pytest.approx(abs(scores).max())
    assert type(found["accuracy"]) is float
    more = trainer.evaluate(DataLoader(data, 7), metrics={"table": ConfusionMatrix()})
    assert list(more) == ["loss", "table"]
    assert np.trace(more["table"]) / 53 == found["accuracy"]


def test_sum_and_mean_give_the_same_mean_loss():
    model = network()
    losses = [
        nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="sum"),
        functools.partial(nn.functional.cross_entropy, reduction="sum"),
        functools.partial(nn.functional.cross_entropy),
    ]  # fmt: skip
    values = [Trainer(model, loss).evaluate(DataLoader(points(53), 7))["loss"] for loss in losses]
    assert values == pytest.approx([values[0]] * 4, rel=1e-6)


def test_measuring_leaves_modes_and_statistics(lib):
    model = lib.nn.Sequential(lib.nn.Linear(4, 4), lib.nn.BatchNorm1d(4), lib.nn.Dropout(0.5))
    model[1].eval()
    before = model[1].running_mean.clone()
    trainer = Trainer(model)
    x = points(10).tensors[0]
    a, b = trainer.predict(x), trainer.predict([(x,)])
    assert (a == b).all() and not a.requires_grad
    assert [m.training for m in model.modules()] == [True, True, False, True]
    assert (model[1].running_mean == before).all()

    def stops():
        yield kg.ones(2, 4)
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        trainer.predict(stops())
    assert [m.training for m in model.modules()] == [True, True, False, True]


def test_training_is_in_training_mode_and_back(lib):
    model = lib.nn.Sequential(lib.nn.Linear(4, 4), lib.nn.BatchNorm1d(4), lib.nn.Linear(4, 2))
    model.eval()
    seen = []

    class Look(Callback):
        def on_step_end(self, trainer):
            seen.append(trainer.model[1].training)

    optimizer = lib.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(model, lib.nn.CrossEntropyLoss(), optimizer, callbacks=[Look()])
    loader = DataLoader(points(20), 10)
    trainer.fit(loader, loader, epochs=2)
    assert seen == [True] * 4
    assert not any(m.training for m in model.modules())


def test_evaluating_in_mid_epoch_disturbs_nothing():
    """A callback may measure after any step: training's own sums go on."""
    found = []
    for measure in (False, True):
        kg.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 2))
        other = DataLoader(points(30, seed=9), 10)

        class Now(Callback):
            def on_step_end(self, trainer, measure=measure, other=other):
                if measure:
                    with kg.random.fork_rng():  # a DataLoader draws a seed
                        trainer.evaluate(other)

        trainer = Trainer(
            model, nn.CrossEntropyLoss(), kg.optim.Adam(model.parameters()),
            metrics=[Accuracy(), ROCAUC(logits=True)], callbacks=[Now()],
        )  # fmt: skip
        history = trainer.fit(DataLoader(points(), 8), epochs=2)
        found.append([history[k] for k in ("train_loss", "train_Accuracy", "train_ROCAUC")])
    assert found[0] == found[1]


def test_a_metric_sees_batches_of_any_size(monkeypatch):
    """Small batches are gathered; a loader may fill the same memory again, shapes may change."""
    x, y = np.zeros((5, 3), np.float32), np.zeros((5, 3), np.float32)

    def filled():
        rng = np.random.default_rng(0)
        for _ in range(7):
            x[...] = rng.normal(size=x.shape)
            y[...] = rng.normal(size=y.shape)
            yield x, y

    model = nn.Identity()
    metrics = {"mse": MeanSquaredError()}
    found = Trainer(model, metrics=metrics).evaluate(filled())["mse"]
    want = np.mean([((a - b) ** 2).mean() for a, b in ((a.copy(), b.copy()) for a, b in filled())])
    assert found == pytest.approx(want, rel=1e-6)
    monkeypatch.setattr("kilograd.train.tally.WAITING", 40)
    assert Trainer(model, metrics=metrics).evaluate(filled())["mse"] == pytest.approx(
        want, rel=1e-6
    )
    sizes = [(kg.ones(n, 3), kg.zeros(n, 3)) for n in (1, 40, 2)]
    assert Trainer(model, metrics=metrics).evaluate(sizes)["mse"] == 1.0


def test_predict_joins_nests(lib):
    class Both(lib.nn.Module):
        def forward(self, x):
            return x + 1, [x * 2]

    outputs = Trainer(Both()).predict(iter([kg.ones(2, 3), kg.zeros(1, 3)]))
    assert type(outputs) is tuple and tuple(outputs[0].shape) == (3, 3)
    assert outputs[1][0].numpy().tolist() == [[2.0] * 3] * 2 + [[0.0] * 3]

    class Scalar(lib.nn.Module):
        def forward(self, x):
            return x.sum()

    with pytest.raises(
        TypeError, match="along the first axis of tensors, but the model gave a scalar"
    ):
        Trainer(Scalar()).predict(kg.ones(3))


# --- errors --------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_names_where(lib):
    model = network(lib.nn)
    optimizer = lib.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(model, lib.nn.CrossEntropyLoss(), optimizer)
    x, y = points(8).tensors
    bad = x.clone()
    bad[3, 1] = float("nan")
    before = weights(model)
    with pytest.raises(
        NonFiniteError,
        match=r"the loss is nan at step 1: the input, of shape \(8, 4\), is not finite$",
    ):
        trainer.fit([(bad, y)])
    same(before, weights(model))
    with pytest.raises(NonFiniteError, match=r"the target\['b'\]\[1\], of shape \(8, 2\), is not"):
        trainer.loss = lambda out, t: ((out - t["b"][1]) ** 2).mean()
        trainer.fit([(x, {"a": 3, "b": [x, kg.full((8, 2), float("inf"))]})])
    trainer.loss = lib.nn.CrossEntropyLoss()
    with kg.no_grad():
        model[2].weight.data[0, 0] = float("inf")
    with pytest.raises(
        NonFiniteError, match=r"parameter '2.weight' of shape \(2, 8\) is not finite"
    ):
        trainer.fit([(x, y)])

    class Root(lib.nn.Module):
        def forward(self, x):
            return (x - 100).sqrt() if lib is kg else lib.sqrt(x - 100)

    model = lib.nn.Sequential(lib.nn.Linear(4, 2), Root())
    optimizer = lib.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(model, lib.nn.CrossEntropyLoss(), optimizer)
    with pytest.raises(NonFiniteError, match=r"output of '1' \(Root\) is not finite"):
        trainer.fit([(x, y)])
    assert trainer.history.rows == [] and trainer.epoch == 0
    model[1] = lib.nn.Identity()
    trainer.loss = lambda out, y: out.sum() * float("inf")
    with pytest.raises(NonFiniteError, match="it is the loss itself"):
        trainer.fit([(x, y)])
    assert trainer.fit([], epochs=0) is trainer.history


def test_a_compiled_loss_that_is_not_finite():
    model = network()
    optimizer = kg.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, compile=True)
    x, y = points(8).tensors
    trainer.fit([(x, y)] * 5)
    with pytest.raises(NonFiniteError, match="at step 6: compile=False says where it came from"):
        trainer.fit([(x * float("nan"), y)])


def test_what_does_not_fit_together(torch):
    ours, theirs = network(), network(torch.nn)
    adam = kg.optim.Adam(ours.parameters())
    with pytest.raises(TypeError, match="kilograd or PyTorch Module, but got function"):
        Trainer(lambda x: x)
    with pytest.raises(TypeError, match="the model is PyTorch's, the loss MSELoss not"):
        Trainer(theirs, nn.MSELoss())
    with pytest.raises(TypeError, match="the model is PyTorch's, the optimizer Adam not"):
        Trainer(theirs, torch.nn.MSELoss(), adam)
    with pytest.raises(TypeError, match="the model is kilograd's, the loss MSELoss not"):
        Trainer(ours, torch.nn.MSELoss(), adam)
    with pytest.raises(ValueError, match=r"torch.compile\(model\)"):
        Trainer(theirs, torch.nn.MSELoss(), compile=True)
    for wrong in (
        {"accumulate": 0}, {"accumulate": 1.5}, {"clip_norm": 0}, {"clip_value": -1.0},
        {"clip_norm": float("nan")},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Trainer(ours, nn.MSELoss(), adam, **wrong)
    trainer = Trainer(ours, nn.CrossEntropyLoss(), adam)
    with pytest.raises(ValueError, match="no batch in epoch 1"):
        trainer.fit([])
    with pytest.raises(ValueError, match="no batch in epoch 2.*a generator cannot"):
        trainer.fit((b for b in [points(8).tensors]), epochs=2)
    for nothing in (trainer.evaluate, trainer.predict):
        with pytest.raises(ValueError, match="there are no batches"):
            nothing([])
    for lacking in (Trainer(ours), Trainer(ours, nn.MSELoss()), Trainer(ours, optimizer=adam)):
        with pytest.raises(ValueError, match="needs the loss and the optimizer"):
            lacking.fit([points(8).tensors])
    for wrong in (-1, True, 1.5, "2"):
        with pytest.raises(ValueError, match="epochs"):
            trainer.fit([points(8).tensors], epochs=wrong)
    trainer.fit([points(8).tensors], epochs=np.int64(1))
    with pytest.raises(RuntimeError, match="once fit"):
        Trainer(ours).parts()


# --- the history ---------------------------------------------------------------------------------------


def test_history():
    rows = [
        {"epoch": 1, "val_loss": 0.5, "val_accuracy": 0.7},
        {"epoch": 2, "val_loss": float("nan"), "val_accuracy": 0.9, "lr": 0.1},
        {"epoch": 3, "val_loss": 0.4, "val_accuracy": 0.9, "table": np.eye(2)},
    ]
    history = History(rows)
    assert (
        list(history) == ["epoch", "val_loss", "val_accuracy", "lr", "table"] and len(history) == 5
    )
    assert history["lr"] == [None, 0.1, None]
    assert history.best("val_loss")["epoch"] == 3
    assert history.best("val_accuracy")["epoch"] == 2  # more is better, the first of equals
    assert history.best("val_accuracy", mode="min")["epoch"] == 1
    assert history.best("lr", mode="max")["epoch"] == 2
    with pytest.raises(ValueError, match="is more of 'lr' better, or less"):
        history.best("lr")
    with pytest.raises(KeyError):
        history["other"]
    with pytest.raises(KeyError, match="never measured"):
        history.best("table", "max")
    assert repr(history).splitlines()[0] == "epoch 1, val_loss 0.5, val_accuracy 0.7"
    assert repr(History()) == "History()" and not History()


def test_history_plots():
    pytest.importorskip("matplotlib")
    rows = [
        {
            "epoch": i,
            "step": i,
            "train_loss": 1 / i,
            "val_loss": 2 / i,
            "seconds": 1.0,
            "t": np.eye(2),
        }
        for i in (1, 2, 3)
    ]
    plot = History(rows).plot()
    assert [axes.get_title() for axes in plot.axes] == ["loss"]
    assert len(plot.axes[0].get_lines()) == 2
    trainer = Trainer(nn.Identity())
    trainer.history.rows[:] = rows
    assert [a.get_title() for a in trainer.plot(["train_loss"], title="run").axes] == ["loss"]


def test_it_is_gone_with_its_last_reference():
    """Without the garbage collector, with the model and all."""
    model = network()
    trainer = Trainer(model, nn.CrossEntropyLoss(), kg.optim.Adam(model.parameters()))
    trainer.fit(DataLoader(points(20), 10), DataLoader(points(20), 10))
    found = weakref.ref(model)
    gc.collect()
    gc.disable()
    try:
        del model, trainer
        assert found() is None
    finally:
        gc.enable()


def test_memory_is_flat():
    import tracemalloc

    model = network()
    trainer = Trainer(
        model, nn.CrossEntropyLoss(), kg.optim.Adam(model.parameters()), metrics=[Accuracy()],
        compile=True,
    )  # fmt: skip
    loader = [tuple(t[:16] for t in points().tensors)] * 500
    trainer.fit(loader, epochs=2)
    tracemalloc.start()
    try:
        sizes = []
        for _ in range(3):
            trainer.fit(loader, epochs=2)
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert max(b - a for a, b in itertools.pairwise(sizes)) < 20_000


# --- compiled steps ------------------------------------------------------------------------------------


def test_the_step_is_compiled():
    """Also from arrays, from batches that vary in size, and with all that goes with a step."""
    x, y = (t.numpy() for t in points(40).tensors)
    arrays = [(x[i : i + n], y[i : i + n]) for i, n in ((0, 10), (10, 10), (20, 10), (30, 6))]
    for accumulate, batches in itertools.product((1, 3), (arrays, DataLoader(points(36), 10))):
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 2))
        trainer = Trainer(
            model, nn.CrossEntropyLoss(), kg.optim.Adam(model.parameters()),
            metrics=[Accuracy()], compile=True, clip_norm=1.0, accumulate=accumulate,
        )  # fmt: skip
        trainer.fit(batches, batches, epochs=6)
        for fn in (trainer._learn, trainer._forward):
            assert not fn.eager and sum(p.runs for each in fn.programs.values() for p in each) >= 8
    sizes = np.random.default_rng(0).integers(3, 9, 200)  # all weights differ, programs do not
    trainer.fit([(x[:n], y[:n]) for n in sizes], epochs=1)
    assert trainer._learn.recordings and sum(trainer._learn.recordings.values()) < 60


SCALE = 1.0


def test_what_is_changed_between_fits_is_noticed_by_a_compiled_step():
    def factors(out, y):
        return nn.functional.cross_entropy(out * SCALE, y)

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.scale, self.options = network(), 1.0, {"k": 1.0}

        def forward(self, x):
            return self.inner(x) * self.scale * self.options["k"]

    def renewed(t):
        t.model = Own()
        t.optimizer = kg.optim.SGD(t.model.parameters(), lr=0.1)

    def scaled(t):
        global SCALE
        SCALE = 3.0

    changes = {
        "global": scaled,
        "loss": lambda t: setattr(t, "loss", nn.MultiMarginLoss()),
        "loss's": lambda t: setattr(t.loss, "label_smoothing", 0.3),
        "model's": lambda t: setattr(t.model, "scale", 2.0),
        "model's options": lambda t: t.model.options.update(k=0.5),
        "model": renewed,
        "optimizer": lambda t: setattr(t, "optimizer", kg.optim.SGD(t.model.parameters(), lr=0.01)),
        "clip_norm": lambda t: setattr(t, "clip_norm", 0.01),
        "clip_value": lambda t: setattr(t, "clip_value", 1e-4),
    }
    global SCALE
    for name, change in changes.items():
        found = []
        for compile in (False, True):
            SCALE = 1.0
            kg.manual_seed(0)
            model = Own()
            loss = factors if name == "global" else nn.CrossEntropyLoss()
            trainer = Trainer(
                model, loss, kg.optim.SGD(model.parameters(), lr=0.1), clip_norm=5.0,
                clip_value=1.0, compile=compile,
            )  # fmt: skip
            loader = DataLoader(points(20), 10)
            trainer.fit(loader, loader, epochs=3)
            kg.manual_seed(1)
            change(trainer)
            trainer.fit(loader, loader, epochs=3)
            found.append((trainer.history["train_loss"], trainer.history["val_loss"]))
        np.testing.assert_allclose(*found, rtol=1e-4, err_msg=name)
    SCALE = 1.0


# --- what a batch counts -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["ignore_index", "weight", "both", "partial", "function"])
def test_what_is_ignored_or_weighted_counts_so(lib, how):
    """The loss is a mean over what is not ignored: so are accumulated gradients, and evaluate()."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(30, 4)).astype(np.float32)
    y = rng.integers(0, 2, 30)
    y[rng.random(30) < 0.4] = -100
    y[10:15] = -100  # a batch that counts nothing
    options = {}
    if how in ("weight", "both"):
        options["weight"] = lib.tensor([0.2, 0.7])
    if how in ("ignore_index", "both", "partial"):
        options["ignore_index"] = -100
    if how == "weight":
        y = abs(y) % 2
    if how == "partial":
        loss = functools.partial(lib.nn.functional.cross_entropy, **options)
    elif how == "function":
        loss = lib.nn.functional.cross_entropy
    else:
        loss = lib.nn.CrossEntropyLoss(**options)
    found = []
    for size, accumulate in ((30, 1), (5, 6)):
        lib.manual_seed(0)
        model = network(lib.nn)
        optimizer = lib.optim.SGD(model.parameters(), lr=0.5)
        trainer = Trainer(model, loss, optimizer, accumulate=accumulate)
        batches = [(x[i : i + size], y[i : i + size]) for i in range(0, 30, size)]
        value = trainer.evaluate(batches)["loss"]
        trainer.fit(batches)
        found.append((value, weights(model)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for a, b in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_count_of_ones_own(lib):
    class Words(Trainer):
        def count(self, batch):
            return float(batch[1][0].sum())

    def mean(out, target):
        return (out[:, 0] * target[0]).sum() / target[0].sum()

    model = lib.nn.Linear(4, 1)
    x, kept = np.ones((6, 4), np.float32), np.array([1, 0, 0, 1, 1, 1], np.float32)
    x[3:] = 3
    batches = [(x[:3], [kept[:3]]), (x[3:], [kept[3:]]), (x[:1], [kept[1:2]])]
    out = model(lib.tensor(x)).detach().numpy()[:, 0]
    found = Words(model, mean).evaluate(batches)["loss"]
    assert found == pytest.approx((out * kept).sum() / kept.sum(), rel=1e-5)


def test_how_many_samples_a_batch_has():
    trainer = Trainer(network(), nn.MSELoss())
    image, y = kg.zeros(3, 8, 8), kg.zeros(5)
    for batch, n in (
        ((kg.zeros(4, 2), y), 5), ((["a", "b", "c"], kg.zeros(3, 2)), 3),
        ({"id": ["a"] * 5, "label": y}, 5), (([image] * 5, y), 5), (kg.zeros(7, 2), 7),
        ((kg.zeros(2, 3),), 2), ((kg.zeros(3), kg.tensor(1.0)), 1), ({"x": kg.zeros(6, 2)}, 6),
        ((["a", "b"],), 2),
    ):  # fmt: skip
        assert trainer.count(batch) == n, batch


def test_batches_of_nothing_are_left_out(lib):
    x, y = (t.numpy() for t in points(8).tensors)
    for accumulate in (1, 2):
        lib.manual_seed(0)
        model = network(lib.nn)
        trainer = Trainer(
            model, lib.nn.CrossEntropyLoss(), lib.optim.SGD(model.parameters(), lr=0.1),
            accumulate=accumulate, metrics=[Accuracy()],
        )  # fmt: skip
        batches = [(x, y), (x[:0], y[:0]), (x[:0], y[:0]), (x[:0], y[:0])]
        history = trainer.fit(batches, batches, epochs=2)
        assert trainer.step == 2 and np.isfinite(history["val_loss"]).all()
        assert history["val_loss"][1] == trainer.evaluate([(x, y)])["loss"]
    with pytest.raises(ValueError, match="no samples in them"):
        trainer.evaluate(batches[1:])


def test_arrays_are_copied(lib):
    """A loader may fill the same memory again; a layer may work in place."""
    x, y = (t.numpy() for t in points(16).tensors)

    def run(batches):
        lib.manual_seed(0)
        model = lib.nn.Sequential(lib.nn.ReLU(inplace=True), lib.nn.Linear(4, 2))
        optimizer = lib.optim.SGD(model.parameters(), lr=0.1)
        trainer = Trainer(model, lib.nn.CrossEntropyLoss(), optimizer, accumulate=4)
        return trainer.fit(batches)["train_loss"]

    class Refilled:
        def __iter__(self):
            a, b = np.empty((4, 4), np.float32), np.empty(4, np.int64)
            for i in range(0, 16, 4):
                a[...], b[...] = x[i : i + 4], y[i : i + 4]
                yield a, b

    before = x.copy()
    assert run(Refilled()) == run([(x[i : i + 4], y[i : i + 4]) for i in range(0, 16, 4)])
    np.testing.assert_array_equal(before, x)


# --- more errors ---------------------------------------------------------------------------------------


def test_losses_that_are_no_scalars(lib):
    for loss, said in (
        (lib.nn.CrossEntropyLoss(reduction="none"), r"Tensor of shape \(8,\)"),
        (lambda out, y: 3.0, "float"), (lambda out, y: (out.sum(), 1), "tuple"),
    ):  # fmt: skip
        model = network(lib.nn)
        trainer = Trainer(model, loss, lib.optim.SGD(model.parameters(), lr=0.1))
        with pytest.raises(TypeError, match=f"the loss must be a scalar tensor, got {said}"):
            trainer.fit([tuple(points(8).tensors)])


def test_datasets_are_no_batches(torch):
    data = points(8)
    trainer = Trainer(network(), nn.CrossEntropyLoss(), kg.optim.SGD([kg.zeros(1)], lr=0.1))
    theirs = torch.utils.data.TensorDataset(torch.zeros(3, 4))
    for wrong in (data, theirs):
        for what in (trainer.fit, trainer.evaluate, trainer.predict):
            with pytest.raises(TypeError, match="TensorDataset gives samples, not batches"):
                what(wrong)


def test_an_epoch_counts_when_it_is_measured():
    model = network()
    trainer = Trainer(model, nn.CrossEntropyLoss(), kg.optim.SGD(model.parameters(), lr=0.1))
    loader = DataLoader(points(20), 10)
    with pytest.raises(ValueError, match="batch_size"):
        trainer.fit(loader, [(kg.zeros(2, 4), kg.zeros(3, dtype=kg.int64))])
    assert trainer.epoch == 0 and trainer.history.rows == []
    assert trainer.fit(loader, loader)["epoch"] == [1]


def test_metrics_and_their_names():
    with pytest.raises(ValueError, match="must not be called 'loss'"):
        Trainer(network(), metrics={"loss": Accuracy()})

    class Judge:
        factor = 1.0

        def score(self, targets, outputs):
            return self.factor

    judge = Judge()
    model = network()
    trainer = Trainer(
        model, nn.CrossEntropyLoss(), kg.optim.SGD(model.parameters(), lr=0.1),
        metrics={"judged": judge.score, "accuracy": Accuracy()},
    )  # fmt: skip
    judge.factor = 7.0
    loader = DataLoader(points(20), 10)
    history = trainer.fit(loader, loader)
    assert history["train_judged"] == history["val_judged"] == [7.0]
    ints = kg.zeros(4, dtype=kg.int64)
    lengths = [(kg.zeros(4, 2), ints[:3]), (kg.zeros(3, 2), ints)]
    with pytest.raises(ValueError, match="metric 'accuracy'"):
        Trainer(nn.Identity(), metrics={"accuracy": Accuracy()}).evaluate(lengths)


def test_a_trainer_can_be_copied_and_pickled(lib):
    lib.manual_seed(0)
    model = network(lib.nn)
    trainer = Trainer(
        model, lib.nn.CrossEntropyLoss(), lib.optim.Adam(model.parameters()), metrics=[Accuracy()]
    )
    loader = DataLoader(points(20), 10)
    trainer.fit(loader, loader)
    for other in (copy.deepcopy(trainer), pickle.loads(pickle.dumps(trainer))):
        other.fit(loader, loader)
        assert other.history["epoch"] == [1, 2] and trainer.history["epoch"] == [1]
    trainer.fit(loader, loader)
    same(weights(trainer.model), weights(other.model))


@pytest.mark.parametrize("where", ["class attribute", "loss object", "method"])
def test_what_is_set_beside_a_class_is_noticed_by_a_compiled_step(where):
    """An attribute that the class has until the object gets one of its own."""

    class Scaled:
        k = 1.0

        def __call__(self, outputs, target):
            return nn.functional.cross_entropy(outputs, target) * self.k

    class Mine(Trainer):
        beta = 1.0

        def forward(self, batch):
            loss, outputs = super().forward(batch)
            return loss * self.beta, outputs

    histories = []
    for compile in (False, True):
        kg.manual_seed(0)
        model = network()
        optimizer = kg.optim.SGD(model.parameters(), lr=0.0)
        trainer = Mine(model, Scaled(), optimizer, compile=compile)
        for k in (1.0, 3.0, 5.0):
            if where == "class attribute":
                trainer.beta = k
            elif where == "loss object":
                trainer.loss.k = k
            elif k > 1:
                trainer.forward = functools.partial(
                    lambda k, b: (Mine.forward(trainer, b)[0] * k, None), k
                )
            trainer.fit(DataLoader(points(), 10), epochs=3)
        histories.append(trainer.history["train_loss"])
    eager, compiled = histories
    np.testing.assert_allclose(compiled, eager, rtol=1e-5)
    np.testing.assert_allclose(eager[3] / eager[0], 3.0, rtol=1e-5)


def test_metrics_that_are_measured_once_have_names_too():
    model = network()
    trainer = Trainer(model, nn.CrossEntropyLoss(), kg.optim.SGD(model.parameters(), lr=0.1))
    loader = DataLoader(points(), 10)
    with pytest.raises(ValueError, match="must not be called 'loss'"):
        trainer.evaluate(loader, metrics={"loss": Accuracy()})
    for bad in (Accuracy(), "accuracy", 3):
        with pytest.raises(TypeError, match="metrics is a dict or a list of metrics, got"):
            trainer.evaluate(loader, metrics=bad)
        with pytest.raises(TypeError, match="metrics is a dict or a list of metrics, got"):
            Trainer(model, metrics=bad)
    for bad in (Callback(), 3):
        with pytest.raises(TypeError, match="callbacks is a list, got"):
            Trainer(model, callbacks=bad)


def test_arrays_are_no_batches():
    x, y = points().tensors
    model = network()
    trainer = Trainer(model, nn.CrossEntropyLoss(), kg.optim.SGD(model.parameters(), lr=0.1))
    good = DataLoader(points(), 10)
    for pair in ((x, y), (x.numpy(), y.numpy())):
        for call in (
            lambda pair=pair: trainer.fit(pair),
            lambda pair=pair: trainer.fit(good, pair),
            lambda pair=pair: trainer.evaluate(pair),
        ):
            with pytest.raises(TypeError, match=r"DataLoader\(TensorDataset\(X, y\)"):
                call()
    assert trainer.epoch == 0
    pandas = pytest.importorskip("pandas")
    with pytest.raises(TypeError, match="to_numpy"):
        trainer.predict(pandas.DataFrame(x.numpy()))
    assert trainer.predict([x, x[:3]]).shape == (53, 2)


def test_histories_are_compared_by_what_they_hold():
    rows = [{"epoch": 1, "matrix": np.eye(2), "report": {"a": [1.0, np.ones(2)]}}, {"epoch": 2}]
    a, b = History(rows), History(copy.deepcopy(rows))
    assert a == b
    assert a == {"epoch": [1, 2], "matrix": [np.eye(2), None], "report": [rows[0]["report"], None]}
    for change in (
        lambda rows: rows[0]["matrix"].__setitem__((0, 0), 2.0),
        lambda rows: rows[0]["report"].update(a=[1.0]),
        lambda rows: rows.pop(),
        lambda rows: rows[1].update(loss=1.0),
    ):
        other = copy.deepcopy(rows)
        change(other)
        assert a != History(other)
    assert a != 3


def test_functions_measure_several_outputs_and_targets(lib):
    """They get nests of arrays of all samples, as the model and the batches have them."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(10, 4)).astype(np.float32), rng.normal(size=(10, 2)).astype(np.float32)
    z = rng.integers(0, 2, 10)
    seen = []

    class Two(lib.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = lib.nn.Linear(4, 2)

        def forward(self, x):
            out = self.linear(x)
            return out, {"sum": out.sum(1)}

    class Mine(Trainer):
        def unpack(self, batch):
            return (batch[0],), [batch[1], batch[2]] if len(batch) > 1 else None

    def error(targets, outputs):
        seen.append((targets, outputs))
        return np.abs(targets[0] - outputs[0]).max() + targets[1].sum()

    def largest(targets, outputs):
        assert targets is None
        return outputs[1]["sum"].max()

    def loss(outputs, target=None):
        return outputs[0].sum() if target is None else ((outputs[0] - target[0]) ** 2).mean()

    batches = [(x[i : i + 4], y[i : i + 4], z[i : i + 4]) for i in range(0, 10, 4)]
    trainer = Mine(Two(), loss, metrics=[error])
    out = trainer.predict([b[:1] for b in batches])
    got = trainer.evaluate(batches)["error"]
    ((targets, outputs),) = seen
    np.testing.assert_array_equal(targets[0], y), np.testing.assert_array_equal(targets[1], z)
    np.testing.assert_array_equal(outputs[1]["sum"], out[1]["sum"].detach().numpy())
    assert got == np.abs(y - out[0].detach().numpy()).max() + z.sum()
    alone = [b[:1] for b in batches]
    assert trainer.evaluate(alone, metrics=[largest])["largest"] == out[1]["sum"].max().item()
    with pytest.raises(TypeError, match="'Accuracy': the scores must hold numbers .* got dict"):
        trainer.evaluate(alone, metrics=[Accuracy()])
    plain = Trainer(lib.nn.Linear(4, 2), lambda outputs: outputs.sum(), metrics=[Accuracy()])
    with pytest.raises(TypeError, match="'Accuracy': the targets are missing"):
        plain.evaluate(alone)
    short = [(x, y, z[:5])]
    with pytest.raises(ValueError, match=r"'error'.*\(5,\).*not of as many samples"):
        trainer.evaluate(short)
