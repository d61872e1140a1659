"""Callbacks of the trainer: early stopping, the best model, schedules, checkpoints and resuming, logs."""

import csv
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import kilograd as kg
from kilograd import nn
from kilograd.train import (
    BestModel,
    Callback,
    CheckpointManager,
    Checkpoints,
    CSVLog,
    EarlyStopping,
    ProgressBar,
    Schedule,
    TensorBoardLog,
    Trainer,
    load_checkpoint,
)
from kilograd.train.metrics import ROCAUC, Accuracy, LogLoss
from kilograd.utils.data import DataLoader, TensorDataset
from tests.train.test_trainer import points, same, weights


@pytest.fixture(params=["kilograd", "PyTorch"])
def lib(request):
    if request.param == "kilograd":
        return kg
    return pytest.importorskip("torch")


@pytest.fixture(params=["eager", "compiled", "PyTorch"])
def engine(request):
    """A library, and whether steps are compiled."""
    lib = pytest.importorskip("torch") if request.param == "PyTorch" else kg
    return lib, request.param == "compiled"


def trainer_of(*callbacks, lib=kg, lr=0.1, **how):
    lib.manual_seed(0)
    model = lib.nn.Sequential(lib.nn.Linear(4, 8), lib.nn.Tanh(), lib.nn.Linear(8, 2))
    optimizer = lib.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return Trainer(model, lib.nn.CrossEntropyLoss(), optimizer, callbacks=callbacks, **how)


class Script(Callback):
    """Says what an epoch has measured."""

    def __init__(self, **values):
        self.values = values

    def on_epoch_end(self, trainer):
        for name, values in self.values.items():
            trainer.row[name] = values[trainer.epoch - 1]


LOADER = DataLoader(points(20), 10)


# --- when they are called ------------------------------------------------------------------------------


def test_when_callbacks_are_called():
    told = []

    class Tell(Callback):
        def __init__(self, name):
            self.name = name

        def __getattribute__(self, name):
            if name.startswith("on_") or name == "close":
                return lambda t: told.append((self.name, name, t.epoch, t.step, t.batch))
            return super().__getattribute__(name)

        def on_step_end(self, trainer):  # so that it is known to be there
            raise AssertionError

    last = Tell("last")
    last.order = 5
    epochs = []
    trainer = trainer_of(last, Tell("a"), Tell("b"), lambda t: epochs.append(t.epoch), accumulate=2)
    trainer.fit(DataLoader(points(30), 10), epochs=2)
    assert epochs == [1, 2]
    assert [t[0] for t in told[:3]] == ["a", "b", "last"]
    assert [t[1:] for t in told if t[0] == "a"] == [
        ("on_fit_start", 0, 0, 0),
        ("on_epoch_start", 0, 0, 0), ("on_step_end", 0, 1, 2), ("on_step_end", 0, 2, 3),
        ("on_epoch_end", 1, 2, 0),
        ("on_epoch_start", 1, 2, 0), ("on_step_end", 1, 3, 2), ("on_step_end", 1, 4, 3),
        ("on_epoch_end", 2, 4, 0),
        ("on_fit_end", 2, 4, 0), ("close", 2, 4, 0),
    ]  # fmt: skip


def test_close_is_called_after_exceptions():
    closed = []

    class Bad(Callback):
        def __init__(self, error=None):
            self.error = error

        def on_step_end(self, trainer):
            if self.error is not None:
                raise self.error

        def on_fit_end(self, trainer):
            closed.append("end")

        def close(self, trainer):
            closed.append("close")
            if self.error is not None:
                raise OSError("and again")

    trainer = trainer_of(Bad(), Bad(KeyboardInterrupt()), Bad())
    with pytest.raises(OSError, match="and again") as info:
        trainer.fit(LOADER)
    assert isinstance(info.value.__context__, KeyboardInterrupt)
    assert closed == ["close"] * 3
    trainer.callbacks.pop(1)
    assert trainer.fit(LOADER, epochs=2)["epoch"] == [1, 2]  # the broken one did not count


def test_what_is_no_callback():
    scheduler = kg.optim.lr_scheduler.StepLR(kg.optim.SGD([kg.zeros(1)], lr=1.0), 1)
    for wrong, hint in ((3, ""), (EarlyStopping, ""), (scheduler, r"Schedule\(scheduler\)")):
        with pytest.raises(TypeError, match=f"a callback is a Callback or a function.*{hint}"):
            trainer_of(wrong)


# --- the best epoch ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "how", "epochs", "best"),
    [
        ([3, 2, 2, 2, 1], {"patience": 2}, 4, (2, 2)),
        ([3, 2, 2, 1, 1, 1], {"patience": 2}, 6, (1, 4)),
        ([3, 2.5, 2.2, 2.0], {"patience": 1, "min_delta": 0.5}, 2, (3, 1)),
        ([3, 2.4, 2.2, 2.0], {"patience": 2, "min_delta": 0.5}, 4, (2.4, 2)),
        ([1, 2, 3, 2, 2], {"patience": 2, "mode": "max"}, 5, (3, 3)),
        ([float("nan"), 2, float("nan"), float("nan"), 1], {"patience": 2}, 4, (2, 2)),
        ([float("nan")] * 5, {"patience": 3}, 3, (None, 0)),
        ([float("inf"), 2, float("-inf"), 1, 1], {"patience": 2}, 5, (float("-inf"), 3)),
        ([None, 1, None, 2, 0], {"patience": 3}, 5, (0, 5)),
    ],
)
def test_early_stopping(lib, values, how, epochs, best):
    stopping = EarlyStopping(monitor="val_loss", **how)
    kept = []
    trainer = trainer_of(
        Script(val_loss=values), stopping, lambda t: kept.append(weights(t.model)), lib=lib
    )
    trainer.fit(LOADER, epochs=len(values))
    assert trainer.epoch == epochs
    assert (stopping.best, stopping.epoch) == best
    same(weights(trainer.model), kept[(stopping.epoch or epochs) - 1])


def test_early_stopping_again_and_without_restoring():
    stopping = EarlyStopping(1, monitor="speed", mode="max", restore=False)
    kept = []
    trainer = trainer_of(
        Script(speed=[5, 4, 3, 2, 9, 9]), stopping, lambda t: kept.append(weights(t.model))
    )
    trainer.fit(LOADER, epochs=10)
    assert trainer.epoch == 2
    same(weights(trainer.model), kept[-1])
    trainer.fit(LOADER, epochs=2)  # begins anew
    assert trainer.epoch == 4 and stopping.best == 3


def test_the_best_model_in_memory_and_in_a_file(tmp_path, lib):
    path = tmp_path / "best.safetensors"
    best = BestModel(path, monitor="val_accuracy")
    kept = []
    trainer = trainer_of(
        Script(val_accuracy=[0.1, 0.7, 0.7, 0.3]),
        best,
        lambda t: kept.append(weights(t.model)),
        lib=lib,
    )
    trainer.fit(LOADER, epochs=4)
    assert best.epoch == 2 and best.best == 0.7
    same(weights(trainer.model), kept[1])
    saved = kg.load(path)
    same([np.array(saved[k].numpy()) for k in trainer.model.state_dict()], kept[1])
    assert "0.7" in kg.train.files.read_metadata(path)["val_accuracy"]


def test_values_to_watch():
    with pytest.raises(ValueError, match="is more of 'val_speed' better, or less"):
        EarlyStopping(monitor="val_speed")
    for name in ("val_loss", "train_loss", "val_mse", "val_log_loss"):
        assert BestModel(monitor=name).sign == -1
    for name in ("val_accuracy", "val_f1", "val_roc_auc_score", "val_ROCAUC", "val_R2Score"):
        assert BestModel(monitor=name).sign == 1
    for wrong in ({"patience": 0}, {"min_delta": -1.0}, {"mode": "large"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            EarlyStopping(**wrong)
    with pytest.raises(
        ValueError, match=r"EarlyStopping watches 'val_loss', which was not measured; give fit\(\)"
    ):
        trainer_of(EarlyStopping()).fit(LOADER)
    with pytest.raises(
        ValueError, match="'lr', which was not measured. There are epoch, step, train_loss"
    ):
        trainer_of(BestModel(monitor="lr", mode="max")).fit(LOADER)


# --- schedules -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", ["epoch", "step"])
def test_a_schedule_is_that_of_a_loop(engine, every):
    lib, compile = engine
    data = DataLoader(points(30), 10)

    def loop():
        t = trainer_of(lib=lib)
        scheduler = lib.optim.lr_scheduler.ExponentialLR(t.optimizer, 0.5)
        rates = []
        for _ in range(4):
            for x, y in data:
                if lib is not kg:
                    x, y = lib.from_numpy(x.numpy()), lib.from_numpy(y.numpy())
                t.optimizer.zero_grad()
                t.loss(t.model(x), y).backward()
                t.optimizer.step()
                if every == "step":
                    scheduler.step()
            rates.append(float(t.optimizer.param_groups[0]["lr"]))
            if every == "epoch":
                scheduler.step()
        return weights(t.model), rates

    want, rates = loop()
    trainer = trainer_of(lib=lib, compile=compile)
    trainer.callbacks.append(
        Schedule(lib.optim.lr_scheduler.ExponentialLR(trainer.optimizer, 0.5), every)
    )
    history = trainer.fit(data, epochs=4)
    assert history["lr"] == pytest.approx(rates, rel=1e-6)
    for a, b in zip(weights(trainer.model), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4 if compile else 0, atol=1e-6 if compile else 0)


def test_a_plateau_schedule_watches_a_value(lib):
    values = [3.0, 2.0, 2.0, 2.0, 2.0, 1.0]
    trainer = trainer_of(Script(val_loss=values), lib=lib)
    plateau = lib.optim.lr_scheduler.ReduceLROnPlateau(trainer.optimizer, patience=1)
    trainer.callbacks.append(Schedule(plateau))
    history = trainer.fit(LOADER, epochs=6)
    assert history["lr"] == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.01, 0.01])
    with pytest.raises(ValueError, match="each epoch"):
        Schedule(plateau, "step")
    with pytest.raises(ValueError, match="'epoch' or 'step'"):
        Schedule(plateau, "batch")
    trainer = trainer_of(lib=lib)
    trainer.callbacks.append(Schedule(lib.optim.lr_scheduler.ReduceLROnPlateau(trainer.optimizer)))
    with pytest.raises(ValueError, match="ReduceLROnPlateau watches 'val_loss'"):
        trainer.fit(LOADER)


def test_the_learning_rate_in_the_history_is_that_of_the_epoch(lib):
    trainer = trainer_of(lib=lib)
    schedules = lib.optim.lr_scheduler
    trainer.callbacks += [
        Schedule(schedules.StepLR(trainer.optimizer, 1, gamma=0.1)),
        Schedule(schedules.ExponentialLR(trainer.optimizer, 1.0)),
    ]
    assert trainer.fit(LOADER, epochs=3)["lr"] == pytest.approx([0.1, 0.01, 0.001])


# --- checkpoints ---------------------------------------------------------------------------------------


@pytest.fixture
def deterministic():
    kg.use_deterministic_algorithms(True)
    yield
    kg.use_deterministic_algorithms(False)


def new_run(lib, folder=None, every="epoch", compile=False, seed=1, accumulate=1):
    """A run with everything that has a state.

    Under compile, batches of a size are computed eagerly at first: the last one, smaller, would still
    be in the third epoch, and rounded otherwise when the run is resumed there.
    """
    kg.manual_seed(seed)
    lib.manual_seed(seed)
    np.random.seed(seed)
    model = lib.nn.Sequential(
        lib.nn.Linear(4, 8),
        lib.nn.BatchNorm1d(8),
        lib.nn.Tanh(),
        lib.nn.Dropout(0.2),
        lib.nn.Linear(8, 2),
    )
    optimizer = lib.optim.Adam(model.parameters(), lr=0.05)
    callbacks = [
        Schedule(lib.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40), "step"),
        Schedule(lib.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)),
        BestModel(monitor="val_accuracy"),
    ]
    if folder is not None:
        callbacks.append(Checkpoints(folder, every=every))
    trainer = Trainer(
        model, lib.nn.CrossEntropyLoss(), optimizer, callbacks=callbacks, compile=compile,
        accumulate=accumulate,
        metrics={"accuracy": Accuracy(), "auc": ROCAUC(logits=True), "log_loss": LogLoss(logits=True)},
    )  # fmt: skip
    samples, tests = (50, 27) if compile else (46, 24)
    train = DataLoader(points(samples), 10, shuffle=True)
    return trainer, train, DataLoader(points(tests, 7), 9)


def compared(trainer):
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in trainer.history.rows]
    return rows, weights(trainer.model), trainer.callbacks[2].best, trainer.callbacks[2].epoch


class Killed(Exception):
    pass


class Kill(Callback):
    order = 11

    def __init__(self, step):
        self.step = step

    def on_step_end(self, trainer):
        if trainer.step == self.step:
            raise Killed


@pytest.mark.parametrize(
    ("every", "kill", "accumulate"),
    [("epoch", 11, 1), ("epoch", 15, 1), (1, 12, 1), (3, 14, 1), (1, 15, 1), (1, 8, 2), (1, 9, 2)],
)
def test_a_run_that_was_killed_goes_on_bit_for_bit(
    tmp_path, deterministic, engine, every, kill, accumulate
):
    """Also between the last step of an epoch and its evaluation (15 steps; 9 of two batches)."""
    lib, compile = engine
    whole, train, test = new_run(lib, compile=compile, accumulate=accumulate)
    whole.fit(train, test, epochs=6)
    folder = tmp_path / "run"
    first, train, test = new_run(lib, folder, every, compile, accumulate=accumulate)
    first.callbacks.append(Kill(kill))
    with pytest.raises(Killed):
        first.fit(train, test, epochs=6)
    second, train, test = new_run(lib, folder, every, compile, 77, accumulate)  # another seed
    second.fit(train, test, epochs=6)
    (rows, last, *best), (rows2, last2, *best2) = compared(whole), compared(second)
    assert rows == rows2
    same(last, last2)
    assert best == best2


def test_a_run_that_has_ended_is_not_trained_again(tmp_path):
    def run():
        trainer = trainer_of(
            Script(val_loss=[3, 2, 2, 2, 2, 2]), EarlyStopping(2), Checkpoints(tmp_path / "run")
        )
        trainer.fit(LOADER, epochs=5)
        return trainer

    first = run()
    assert first.epoch == 4  # stopped early
    saved = sorted(p.name for p in (tmp_path / "run").iterdir())
    second = run()
    assert second.epoch == 4 and second.history.rows == first.history.rows
    same(weights(first.model), weights(second.model))  # the best ones, again
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == saved
    third = trainer_of(
        Script(val_loss=[1] * 9), EarlyStopping(9), Checkpoints(tmp_path / "run", resume=False)
    )
    assert third.fit(LOADER, epochs=1)["epoch"] == [1]


def test_an_epoch_that_was_ended_early_is_over(tmp_path, deterministic, lib):
    """A run stopped in mid-epoch goes on with a new epoch, in this process or in another one."""

    def run(name, *steps):
        trainer, train, test = new_run(lib, tmp_path / name)
        trainer.callbacks[2].restore = False  # the best weights would be those of the second run
        for limit in steps:
            trainer.fit(train, test, epochs=4, max_steps=limit)
        return trainer

    whole, _ = run("one", 7, None), run("two", 7)
    again = run("two", None)
    assert whole.history["step"] == [5, 7, 12, 17, 22, 27]  # 4 epochs more than the two
    assert again.history["step"] == [5, 7, 12, 17]  # 4 in all
    assert whole.history["train_loss"][:4] == again.history["train_loss"]


def test_the_best_and_the_last_are_kept(tmp_path):
    values = [5, 1, 4, 3, 2]
    keep = Checkpoints(tmp_path / "run", keep_last=2, keep_best=1)
    trainer = trainer_of(Script(val_loss=values), keep)
    trainer.fit(LOADER, epochs=5)
    assert [e.epoch for e in keep.manager.entries] == [2, 4, 5]
    assert keep.manager.best() == keep.manager.folder / keep.manager.entries[0].file
    assert (
        load_checkpoint(keep.manager.latest())["values"]["train_loss"] == trainer.row["train_loss"]
    )
    accuracy = Checkpoints(tmp_path / "other", monitor="val_accuracy")
    assert accuracy.manager.mode == "max"
    mine = CheckpointManager(tmp_path / "mine", keep_last=None)
    assert Checkpoints(mine).manager is mine
    for wrong in (0, "step", 1.5):
        with pytest.raises(ValueError, match="every is 'epoch' or a number of steps"):
            Checkpoints(tmp_path / "x", every=wrong)


def test_more_parts(tmp_path):
    own = np.random.default_rng(3)
    first = trainer_of(Checkpoints(tmp_path / "run", parts={"own": own}))
    first.fit(LOADER)
    after = own.random()
    own = np.random.default_rng(4)
    trainer_of(Checkpoints(tmp_path / "run", parts={"own": own})).fit(LOADER)
    assert own.random() == after


def test_a_run_of_another_make_is_refused(tmp_path):
    trainer_of(Checkpoints(tmp_path / "run"), Script(val_loss=[1])).fit(LOADER)
    other = trainer_of(Checkpoints(tmp_path / "run"), EarlyStopping(), Script(val_loss=[1]))
    before = weights(other.model)
    with pytest.raises(ValueError, match=r"has the callbacks \[\], this one \['EarlyStopping'\]"):
        other.fit(LOADER)
    same(before, weights(other.model))
    with pytest.raises(Killed):
        trainer_of(Checkpoints(tmp_path / "mid", every=1), Kill(1), metrics=[Accuracy()]).fit(
            LOADER
        )
    with pytest.raises(ValueError, match=r"the metrics saved are \['Accuracy'\], those here \[\]"):
        trainer_of(Checkpoints(tmp_path / "mid")).fit(LOADER)


def test_a_run_killed_by_the_system_goes_on(tmp_path):
    """A process, SIGKILL in mid-epoch, the same command again: the numbers of one that was not killed."""
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, signal, sys
            import numpy as np
            import kilograd as kg
            from kilograd.train import Checkpoints, Trainer
            from kilograd.utils.data import DataLoader, TensorDataset

            kg.use_deterministic_algorithms(True)
            kg.manual_seed(0)
            model = kg.nn.Sequential(kg.nn.Linear(3, 8), kg.nn.Dropout(0.5), kg.nn.Linear(8, 1))
            data = TensorDataset(kg.randn(40, 3), kg.randn(40, 1))
            folder, kill = sys.argv[1], int(sys.argv[2])

            class Kill:
                pass

            def forward(out, target):
                forward.calls += 1
                if forward.calls == kill:
                    os.kill(os.getpid(), signal.SIGKILL)
                return ((out - target) ** 2).mean()

            forward.calls = 0
            trainer = Trainer(model, forward, kg.optim.Adam(model.parameters()),
                              callbacks=[Checkpoints(folder, every=1, monitor="train_loss")])
            trainer.fit(DataLoader(data, 4, shuffle=True), epochs=3)
            print(repr([(r["step"], r["train_loss"]) for r in trainer.history.rows]),
                  [float(p.sum().item()) for p in model.parameters()])
            """
        )
    )

    def run(folder, kill=0):
        return subprocess.run(
            [sys.executable, str(script), str(tmp_path / folder), str(kill)],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    whole = run("whole")
    assert whole.returncode == 0, whole.stderr
    assert run("killed", 14).returncode == -signal.SIGKILL
    again = run("killed", 9)  # 13 steps are done; killed once more at its ninth
    assert again.returncode == -signal.SIGKILL
    last = run("killed")
    assert last.returncode == 0, last.stderr
    assert last.stdout == whole.stdout


# --- logs ----------------------------------------------------------------------------------------------


def test_csv(tmp_path):
    path = tmp_path / "log.csv"
    late = Script(val_loss=[1.5, None, 0.25], note=["a,b", 'say "hi"', ""])
    trainer = trainer_of(CSVLog(path), late, lambda t: t.row.update(table=np.eye(2)))
    trainer.fit(LOADER, epochs=3)
    with open(path, newline="") as f:
        rows = list(csv.DictReader(f))
    assert list(rows[0]) == ["epoch", "step", "train_loss", "seconds", "val_loss", "note"]
    assert [r["val_loss"] for r in rows] == ["1.5", "", "0.25"]
    assert [r["note"] for r in rows] == ["a,b", 'say "hi"', ""]
    assert [float(r["train_loss"]) for r in rows] == trainer.history["train_loss"]


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    from tests.test_tensorboard import events

    trainer = trainer_of(Script(val_loss=[2.0, 1.0]), TensorBoardLog(tmp_path / "tb", every=2))
    trainer.fit(LOADER, epochs=2)
    found = {}
    for event in events(tmp_path / "tb"):
        for v in event.summary.value:
            found.setdefault(v.tag, []).append((event.step, v.simple_value))
    assert found["loss/val"] == [(1, 2.0), (2, 1.0)]
    assert [v for _, v in found["loss/train"]] == pytest.approx(trainer.history["train_loss"])
    assert [step for step, _ in found["loss/step"]] == [2, 4]
    assert "epoch" not in found
    with pytest.raises(ValueError, match="every"):
        TensorBoardLog(tmp_path, every=0)


def test_progress_bars(capfd):
    pytest.importorskip("tqdm")
    trainer_of().fit(LOADER, epochs=2)
    assert capfd.readouterr().err == ""  # nobody is looking
    trainer_of(Script(val_loss=[0.5, 0.25]), accumulate=2).fit(LOADER, epochs=2, progress=True)
    text = capfd.readouterr().err
    assert "epoch 1/2" in text and "epoch 2/2" in text
    assert "2/2" in text.rsplit("epoch 2/2", 1)[1] and "val_loss=0.25" in text
    trainer_of(ProgressBar(show=True)).fit(
        iter_twice(), epochs=1, progress=True
    )  # of unknown length
    text = capfd.readouterr().err
    assert "epoch 1" in text and "epoch 1/1" not in text  # one bar, the one that was given


class iter_twice:
    def __iter__(self):
        return iter(LOADER)


def test_a_loader_of_pytorch_drives_a_run(tmp_path, deterministic):
    """Its own DataLoader, with its shuffle: the order, too, is found again."""
    torch = pytest.importorskip("torch")
    x, y = (torch.from_numpy(t.numpy()) for t in points(30).tensors)
    data = torch.utils.data.TensorDataset(x, y)

    def run(folder, kill=None, seed=0):
        torch.manual_seed(seed)
        model = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2)
        )
        callbacks = [Checkpoints(tmp_path / folder, every=1)]
        if kill:
            callbacks.append(Kill(kill))
        trainer = Trainer(
            model,
            torch.nn.CrossEntropyLoss(),
            torch.optim.Adam(model.parameters()),
            callbacks=callbacks,
        )
        trainer.fit(torch.utils.data.DataLoader(data, 8, shuffle=True), epochs=3)
        return trainer

    whole = run("a")
    with pytest.raises(Killed):
        run("b", kill=6)
    again = run("b", seed=9)
    assert whole.history["train_loss"] == again.history["train_loss"]
    same(weights(whole.model), weights(again.model))


def test_datasets_of_arrays_too():
    """Batches as a plain list of arrays."""
    data = TensorDataset(kg.randn(8, 4), kg.randint(0, 2, (8,)))
    arrays = [tuple(t.numpy() for t in batch) for batch in DataLoader(data, 4)]
    trainer = trainer_of(EarlyStopping(3, monitor="train_loss"))
    assert trainer.fit(arrays, epochs=2)["epoch"] == [1, 2]
    assert isinstance(trainer.model, nn.Module)


# --- what a run may not do, or must notice -------------------------------------------------------------


def test_a_second_fit_goes_on_from_where_the_trainer_is(tmp_path):
    """Not from the newest checkpoint: what was changed in between stays changed."""
    stopping = EarlyStopping(1, monitor="train_loss", min_delta=100.0, restore=False)
    trainer = trainer_of(stopping, Checkpoints(tmp_path / "run"))
    own = DataLoader(points(20), 10, shuffle=True, generator=kg.Generator())
    trainer.fit(own, epochs=4)
    assert trainer.epoch == 2
    trainer.optimizer.param_groups[0]["lr"] = 1e-12
    with kg.no_grad():
        trainer.model[0].weight.fill_(0.5)
    trainer.fit(LOADER, epochs=1)  # another loader, too
    assert trainer.epoch == 3 and trainer.optimizer.param_groups[0]["lr"] == 1e-12
    np.testing.assert_allclose(trainer.model[0].weight.detach().numpy(), 0.5, atol=1e-6)


def test_parameters_of_the_loss_are_saved(tmp_path, lib):
    class Weighted(lib.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = lib.nn.Parameter(lib.ones(2))

        def forward(self, out, target):
            return lib.nn.functional.cross_entropy(out * self.scale, target)

    def run(epochs):
        trainer = trainer_of(Checkpoints(tmp_path / "run"), lib=lib)
        trainer.loss = Weighted()
        trainer.optimizer.add_param_group({"params": [*trainer.loss.parameters()]})
        trainer.fit(LOADER, epochs=epochs)
        return weights(trainer.loss)

    first = run(2)
    assert abs(first[0] - 1).max() > 0.01
    same(run(2), first)
    lost = trainer_of(Checkpoints(tmp_path / "other"), lib=lib)
    free = lib.nn.Parameter(lib.ones(3))
    lost.optimizer.add_param_group({"params": [free]})
    with pytest.raises(ValueError, match="a parameter that is neither the model's nor the loss's"):
        lost.fit(LOADER)
    holder = lib.nn.ParameterList([free])
    lost.callbacks = [Checkpoints(tmp_path / "other", parts={"more": holder})]
    lost.fit(LOADER)


def test_a_place_in_an_epoch_of_other_batches_is_refused(tmp_path, lib):
    def run(*given, kill=None):
        callbacks = [Checkpoints(tmp_path / "run", every=1), *([Kill(kill)] if kill else [])]
        trainer_of(*callbacks, lib=lib).fit(DataLoader(*given), epochs=2)

    with pytest.raises(Killed):
        run(points(40), 4, kill=3)
    for other, what in (
        ((points(40), 8), "batch_size 4; the loader now has 8"),
        ((points(38), 4), "samples 40; the loader now has 38"),
    ):
        with pytest.raises(ValueError, match=f"in the middle of an epoch, with {what}"):
            run(*other)
    trainer = trainer_of(Checkpoints(tmp_path / "run", every=1), lib=lib)
    with pytest.raises(ValueError, match="with batches 10; the loader now has 2"):
        trainer.fit([tuple(points(8).tensors)] * 2)
    run(points(40), 4)  # to its end
    run(points(38), 8)  # between epochs, other batches are no matter


def test_callbacks_of_another_kind_are_refused(tmp_path):
    trainer_of(EarlyStopping(9, monitor="train_loss"), Checkpoints(tmp_path / "a")).fit(LOADER)
    for other, match in (
        (EarlyStopping(9, monitor="lr", mode="min"), "has watched 'train_loss' in the run saved"),
        (EarlyStopping(9, monitor="train_loss", mode="max"), "the other way"),
    ):
        with pytest.raises(ValueError, match=match):
            trainer_of(other, Checkpoints(tmp_path / "a")).fit(LOADER)
    for kind in ("StepLR", "CosineAnnealingLR"):
        trainer = trainer_of(Checkpoints(tmp_path / "b"))
        scheduler = getattr(kg.optim.lr_scheduler, kind)(trainer.optimizer, 5)
        trainer.callbacks.append(Schedule(scheduler))
        if kind == "StepLR":
            trainer.fit(LOADER)
        else:
            with pytest.raises(ValueError, match="schedule StepLR, this one CosineAnnealingLR"):
                trainer.fit(LOADER)


def test_a_refused_compiled_run_is_as_it_was(tmp_path):
    trainer_of(Checkpoints(tmp_path / "a")).fit(LOADER)
    other = trainer_of(
        EarlyStopping(monitor="train_loss"), Checkpoints(tmp_path / "a"), compile=True
    )
    before = weights(other.model)
    with pytest.raises(ValueError, match="callbacks"):
        other.fit(LOADER)
    same(before, weights(other.model))
    assert not other.optimizer.state


def test_scalars_in_a_row_are_numbers(tmp_path):
    values = [1.0, 0.9, 0.8, 0.7]
    for kind in (np.float32, kg.tensor, np.array):
        stopping = EarlyStopping(2, monitor="speed", mode="min")
        speed = Script(speed=[kind(v) for v in values])
        trainer = trainer_of(speed, stopping, CSVLog(tmp_path / "x.csv"))
        history = trainer.fit(LOADER, epochs=4)
        assert history["speed"] == pytest.approx(values) and type(history["speed"][0]) is float
        assert stopping.best == pytest.approx(0.7) and history.best("speed", "min")["epoch"] == 4
        assert "speed" in (tmp_path / "x.csv").read_text().splitlines()[0]


def test_files_that_cannot_be_written_are_known_at_once(tmp_path):
    with pytest.raises(ValueError, match="pickles"):
        BestModel(tmp_path / "x.pt")
    with pytest.raises(ValueError, match="one tensor"):
        BestModel(tmp_path / "x.npy")
    for c in (BestModel(tmp_path / "no" / "x.npz"), CSVLog(tmp_path / "no" / "x.csv")):
        trainer = trainer_of(c)
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            trainer.fit(LOADER)
        assert trainer.step == 0
