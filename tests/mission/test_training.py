"""Training: the trainer and what goes along with it."""

from __future__ import annotations

import csv

import numpy as np
import pytest

import kilograd as kg
from kilograd import nn
from kilograd.train import metrics
from kilograd.utils.data import DataLoader, TensorDataset
from tests.mission.rows import close, numbers, row


def batches(n=40, size=8):
    """Points of a plane, and which side of a line they are on."""
    x = kg.tensor(numbers(n, 2).astype(np.float32))
    return DataLoader(TensorDataset(x, (x[:, 0] > x[:, 1]).long()), batch_size=size)


def trainer(lib=kg, **options):
    """A trainer of a small network that begins with the same weights in every library."""
    lib.manual_seed(0)
    model = lib.nn.Sequential(lib.nn.Linear(2, 8), lib.nn.Tanh(), lib.nn.Linear(8, 2))
    optimizer = lib.optim.Adam(model.parameters(), lr=0.05)
    options.setdefault("metrics", {"accuracy": metrics.Accuracy()})
    return kg.train.Trainer(model, lib.nn.CrossEntropyLoss(), optimizer, **options)


@row(
    "Training utilities",
    "Trainer compile/fit/test/plot/history",
    ancestors="synapgrad, simple_autograd",
)
def test_trainer():
    """`kg.train.Trainer(model, loss, optimizer, metrics=…)`: `fit`, `evaluate`, `predict`, `history`, `plot`."""
    pytest.importorskip("matplotlib")
    run, train, test = trainer(), batches(), batches(20)
    history = run.fit(train, test, epochs=12)
    assert history is run.history and len(history["train_loss"]) == 12
    assert history["val_loss"][-1] < history["val_loss"][0]
    measured = run.evaluate(test)
    x, y = test.dataset.tensors
    scores = run.model(x)
    assert measured["loss"] == pytest.approx(
        nn.functional.cross_entropy(scores, y).item(), rel=1e-5
    )
    assert measured["accuracy"] == (scores.argmax(1) == y).float().mean() > 0.8
    close(run.predict(test), scores.detach().numpy(), 1e-6)
    assert {ax.get_title() for ax in run.plot().axes} == {"loss", "accuracy"}


@row("Training utilities", "engine-agnostic trainer (torch or own)", ancestors="synapgrad")
def test_engine_agnostic_trainer():
    """A PyTorch model, loss and optimizer are driven by the same `Trainer`, with the same numbers."""
    torch = pytest.importorskip("torch")
    train, test = batches(), batches(20)
    losses = []
    for lib in (kg, torch):
        run = trainer(lib)
        history = run.fit(train, test, epochs=3)
        losses.append([*history["train_loss"], *history["val_loss"], *history["val_accuracy"]])
        assert isinstance(run.predict(test), lib.Tensor)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


@row("Training utilities", "epoch callbacks", ancestors="synapgrad")
def test_epoch_callbacks():
    """`callbacks=[…]`: a function after each epoch, or `Callback`s; `EarlyStopping`, `BestModel`, `Schedule`."""
    seen = []
    stop = kg.train.EarlyStopping(patience=2, monitor="worse_loss")

    def watch(run):
        run.row["worse_loss"] = 1.0 + run.epoch % 5  # best in the fifth epoch
        seen.append((run.epoch, run.step, run.model[0].weight.detach().clone()))

    run = trainer(callbacks=[watch, stop])
    run.fit(batches(), epochs=50)
    assert [s[:2] for s in seen] == [(1, 5), (2, 10), (3, 15)]  # the first is not bettered twice
    assert stop.best == 2.0 and kg.equal(run.model[0].weight, seen[0][2])
    run = trainer()
    decay = kg.optim.lr_scheduler.ExponentialLR(run.optimizer, 0.5)
    run = kg.train.Trainer(run.model, run.loss, run.optimizer, callbacks=[kg.train.Schedule(decay)])
    assert run.fit(batches(), epochs=3)["lr"] == pytest.approx([0.05, 0.025, 0.0125])


@row(
    "Training utilities",
    "Evaluator: accuracy, modes, custom metrics",
    ancestors="synapgrad, simple_autograd",
)
def test_evaluator():
    """`trainer.evaluate(batches, metrics=…)`: metrics of classes, labels and numbers, or functions of one's own."""
    run, test = trainer(), batches(20, size=7)
    x, y = test.dataset.tensors
    got = run.evaluate(
        test,
        metrics={
            "right": metrics.Accuracy(),
            "f1": metrics.F1Score(),
            "half": lambda targets, outputs: float((targets == 1).mean()),
        },
    )
    predicted, y = run.model(x).argmax(1).numpy(), y.numpy()
    assert got["right"] == (predicted == y).mean() and got["half"] == pytest.approx((y == 1).mean())
    hits = ((predicted == 1) & (y == 1)).sum()
    assert got["f1"] == pytest.approx(2 * hits / ((predicted == 1).sum() + (y == 1).sum()))
    binary, labels = metrics.Accuracy(logits=True), metrics.Accuracy(average=None)
    binary.update(kg.tensor([-1.0, 2.0, 0.5]), kg.tensor([0, 1, 0]))
    labels.update([[0.9, 0.2], [0.4, 0.1]], [[1, 0], [1, 0]])
    assert binary.compute() == pytest.approx(2 / 3) and labels.compute().tolist() == [0.5, 1]


@row(
    "Training utilities", "report: ROC-AUC, confusion matrix, classification report",
    ancestors="synapgrad, neograd",
)  # fmt: skip
def test_report():
    """`metrics.roc_auc_score`, `confusion_matrix`, `classification_report`; `kg.viz.confusion_matrix` draws."""
    y, scores = kg.tensor([0, 0, 1, 1, 1]), kg.tensor([0.1, 0.7, 0.7, 0.8, 0.3])
    pairs = [(b > a) + 0.5 * (a == b) for a in (0.1, 0.7) for b in (0.7, 0.8, 0.3)]
    assert metrics.roc_auc_score(y, scores) == pytest.approx(np.mean(pairs))
    predicted = (scores > 0.5).long()
    assert metrics.confusion_matrix(y, predicted).tolist() == [[1, 1], [1, 2]]
    report = metrics.classification_report(y, predicted, output_dict=True)
    assert report["1"]["precision"] == pytest.approx(2 / 3) and report["accuracy"] == 0.6
    assert "macro avg" in metrics.classification_report(y, predicted, target_names=["a", "b"])
    pytest.importorskip("matplotlib")
    plot = kg.viz.confusion_matrix(y.numpy(), predicted.numpy())
    assert [t.get_text() for t in plot.axes[0].texts] == ["1", "1", "1", "2"]


@row("Training utilities", "progress bar", ancestors="synapgrad, simple_autograd")
def test_progress_bar(capsys):
    """`fit` shows a bar where a person is looking; `kilograd.train.progress.progress` is one around any loop."""
    pytest.importorskip("tqdm")
    from kilograd.train.progress import progress

    bar = progress([3, 4, 5], desc="counting", show=True)
    for value in bar:
        bar.set_postfix(loss=kg.tensor(value / 2))
    shown = capsys.readouterr().err
    assert "counting" in shown and "3/3" in shown and "loss=2.5" in shown
    trainer().fit(batches(), epochs=1, progress=True)
    assert "epoch 1" in capsys.readouterr().err
    trainer().fit(batches(), epochs=1)  # nobody is looking
    assert capsys.readouterr().err == ""


@row("Training utilities", "experiment log", ancestors="neograd")
def test_experiment_log(tmp_path):
    """`CSVLog(path)` and `TensorBoardLog(folder)` as callbacks; `CheckpointManager` keeps values with each epoch."""
    pytest.importorskip("tensorboardX")
    table, board = (
        kg.train.CSVLog(tmp_path / "log.csv"),
        kg.train.TensorBoardLog(tmp_path / "board"),
    )
    history = trainer(callbacks=[table, board]).fit(batches(), batches(20), epochs=3)
    with open(tmp_path / "log.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert [float(r["val_loss"]) for r in rows] == history["val_loss"]
    events = b"".join(p.read_bytes() for p in (tmp_path / "board").rglob("events*"))
    assert b"loss/val" in events and b"accuracy/train" in events


@row("Training utilities", "training-curve plot", ancestors="synapgrad, neograd")
def test_training_curve_plot(tmp_path):
    """`trainer.plot()`, or `kg.viz.curves(history)` of any list or dict of numbers: a panel for each metric."""
    pytest.importorskip("matplotlib")
    history = {"train_loss": [0.9, 0.5], "val_loss": [1.0, 0.7], "val_accuracy": [0.5, 0.75]}
    plot = kg.viz.curves(history)
    assert [ax.get_title() for ax in plot.axes] == ["loss", "accuracy"]
    lines = {line.get_label(): line.get_ydata().tolist() for line in plot.axes[0].get_lines()}
    assert lines == {"train": [0.9, 0.5], "val": [1.0, 0.7]}
    plot.save(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


@row("Training utilities", "CLI training script", ancestors="simple_autograd")
def test_command_line_training(tmp_path):
    """`kilograd train DATASET --model … --epochs … --optimizer … --resume …`: weights, checkpoint and curves."""
    for package in ("click", "rich", "matplotlib", "safetensors"):
        pytest.importorskip(package)
    from click.testing import CliRunner

    from kilograd.cli.commands import cli

    options = f"train moons --epochs 2 --batch-size 100 --optimizer sgd --lr 0.1 --out {tmp_path}"
    done = CliRunner().invoke(cli, options.split(), catch_exceptions=False)
    assert done.exit_code == 0 and "accuracy" in done.output, done.output
    assert {"weights.safetensors", "curves.png"} <= {p.name for p in tmp_path.iterdir()}
    before = kg.load(tmp_path / "weights.safetensors")
    more = f"train moons --epochs 3 --resume {tmp_path / 'checkpoint.kg'}"
    assert CliRunner().invoke(cli, more.split(), catch_exceptions=False).exit_code == 0
    after = kg.load(tmp_path / "weights.safetensors")
    assert list(after) == list(before) and not kg.equal(
        *(next(iter(w.values())) for w in (before, after))
    )
