"""KilogradClassifier and KilogradRegressor: scikit-learn's own checks, and what those do not ask."""

from __future__ import annotations

import copy
import functools
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import kilograd as kg
from kilograd import nn
from kilograd.nn import functional as F
from kilograd.train import (
    Callback,
    Checkpoints,
    CSVLog,
    EarlyStopping,
    History,
    NonFiniteError,
    Schedule,
)
from kilograd.train.metrics import Accuracy

pytest.importorskip("sklearn")
import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import (
    load_diabetes,
    load_digits,
    make_blobs,
    make_moons,
    make_multilabel_classification,
    make_regression,
)
from sklearn.ensemble import AdaBoostClassifier, StackingRegressor, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator

from kilograd.train import KilogradClassifier, KilogradRegressor

SMALL = {"hidden": (16,), "lr": 0.02, "epochs": 30}
BOTH = pytest.mark.parametrize("Estimator", [KilogradClassifier, KilogradRegressor])


def classifier(**how):
    return KilogradClassifier(**(SMALL | {"random_state": 0} | how))


def regressor(**how):
    return KilogradRegressor(**(SMALL | {"random_state": 0} | how))


def moons(n=200):
    return make_moons(n, noise=0.15, random_state=0)


def line(n=100, targets=1, seed=0):
    X, y = make_regression(n, 5, n_targets=targets, noise=1.0, random_state=seed)
    return scale(X), scale(y)


# --- scikit-learn's own checks ------------------------------------------------------------------------


def name_of(x):
    while isinstance(x, functools.partial):
        x = x.func
    return getattr(x, "__name__", type(x).__name__)


@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pair
        for small in (KilogradClassifier(**SMALL), KilogradRegressor(**SMALL))
        for pair in estimator_checks_generator(small)
    ],
    ids=name_of,
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def wider(n, k, width=8):
    return nn.Sequential(nn.Linear(n, width), nn.ReLU(), nn.Linear(width, k))


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator",
    [
        KilogradClassifier(),
        KilogradRegressor(),
        KilogradClassifier(compile=True, **SMALL),
        KilogradClassifier(functools.partial(wider, width=30), **SMALL),
        KilogradRegressor(
            patience=20, clip_norm=1.0, **(SMALL | {"optimizer": "adamw", "weight_decay": 1e-3})
        ),
    ],
    ids=["classifier", "regressor", "compiled", "function", "options"],
)
def test_scikit_learn_checks_with_defaults(estimator):
    results = check_estimator(estimator, on_fail="raise", on_skip=None)
    assert {r["status"] for r in results} <= {"passed", "skipped"}


# --- how well they learn ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_digits_as_well_as_sklearns_network(dtype):
    X, y = load_digits(return_X_y=True)
    Xa, Xb, ya, yb = train_test_split(X / 16, y, random_state=0)
    mine = KilogradClassifier(epochs=30, random_state=0, dtype=dtype).fit(Xa, ya)
    theirs = MLPClassifier(max_iter=200, tol=1e-3, random_state=0).fit(Xa, ya)
    assert mine.score(Xb, yb) > theirs.score(Xb, yb) - 0.01 > 0.95


def test_diabetes_as_well_as_a_linear_model_and_sklearns_network():
    X, y = load_diabetes(return_X_y=True)
    Xa, Xb, ya, yb = train_test_split(scale(X), scale(y), random_state=0)
    mine = KilogradRegressor(epochs=100, validation_fraction=0.2, patience=5, random_state=0)
    ridge = Ridge().fit(Xa, ya).score(Xb, yb)
    theirs = MLPRegressor(early_stopping=True, n_iter_no_change=5, random_state=0).fit(Xa, ya)
    score = mine.fit(Xa, ya).score(Xb, yb)
    assert score > ridge - 0.08 and score > theirs.score(Xb, yb) - 0.08
    assert ridge > 0.3


def test_without_hidden_layers_it_is_logistic_regression():
    X, y = make_blobs(200, centers=3, cluster_std=2.0, random_state=0)
    X = scale(X)
    mine = classifier(hidden=(), epochs=400, batch_size=200, lr=0.1).fit(X, y)
    theirs = LogisticRegression(C=np.inf, tol=1e-8, solver="newton-cg").fit(X, y)
    np.testing.assert_allclose(mine.predict_proba(X), theirs.predict_proba(X), atol=2e-3)


# --- targets ------------------------------------------------------------------------------------------


def test_classes_may_be_strings_and_are_sorted():
    X, y = moons()
    names = np.array(["no", "maybe"])[y]
    model = classifier().fit(X, names)
    assert model.classes_.tolist() == ["maybe", "no"]
    assert set(model.predict(X)) == {"maybe", "no"}
    assert model.score(X, names) > 0.9
    numbers = classifier().fit(X, 1 - y)  # the same order of classes
    np.testing.assert_allclose(model.predict_proba(X), numbers.predict_proba(X), rtol=1e-8)


@pytest.mark.parametrize(
    "loss", [nn.BCEWithLogitsLoss(), F.binary_cross_entropy_with_logits, nn.BCELoss(), nn.NLLLoss(),
             F.cross_entropy, nn.MultiMarginLoss(), functools.partial(F.cross_entropy, label_smoothing=0.1)],
    ids=["bce logits", "bce logits function", "bce", "nll", "function", "margin", "smoothed"],
)  # fmt: skip
def test_what_scores_mean_follows_from_the_loss(loss):
    X, y = moons()
    last = {nn.BCELoss: [nn.Sigmoid()], nn.NLLLoss: [nn.LogSoftmax(1)]}.get(type(loss), [])

    def network(n, k):
        return nn.Sequential(nn.Linear(n, 32), nn.ReLU(), nn.Linear(32, k), *last)

    model = classifier(module=network, loss=loss, epochs=60).fit(X, y)
    binary = "binary" in getattr(loss, "__name__", "") or isinstance(
        loss, (nn.BCELoss, nn.BCEWithLogitsLoss)
    )
    assert model.n_outputs_ == (1 if binary else 2)
    assert model.score(X, y) > 0.93
    scores = model.decision_function(X)
    assert scores.shape == (200,) and ((scores > 0) == model.predict(X)).all()
    if isinstance(loss, nn.MultiMarginLoss):
        assert not hasattr(model, "predict_proba") and not hasattr(model, "predict_log_proba")
        return
    p = model.predict_proba(X)
    np.testing.assert_allclose(p.sum(1), 1)
    np.testing.assert_allclose(p[:, 1], 1 / (1 + np.exp(-scores)), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(np.log(p), model.predict_log_proba(X), atol=1e-9)
    output = model.module_(kg.tensor(X)).detach().numpy()
    if isinstance(loss, nn.BCELoss):
        np.testing.assert_allclose(p[:, 1], output[:, 0], rtol=1e-6)
    if isinstance(loss, nn.NLLLoss):
        np.testing.assert_allclose(p, np.exp(output), rtol=1e-9)


def test_sure_probabilities_have_finite_scores():
    X, y = np.array([[0.0], [1.0]] * 5), np.array([0, 1] * 5)
    model = nn.Sequential(nn.Linear(1, 1), nn.Sigmoid())
    with kg.no_grad():
        model[0].weight.fill_(1e4)
        model[0].bias.fill_(-5e3)
    sure = classifier(module=model, loss=nn.BCELoss(), epochs=1, lr=0.0).fit(X, y)
    assert np.isfinite(sure.decision_function(X)).all()
    assert np.isfinite(sure.predict_log_proba(X)).all()
    assert sure.score(X, y) == 1.0


def test_several_labels():
    X, y = make_multilabel_classification(200, 5, n_classes=4, random_state=0)
    X = scale(X)
    model = classifier(epochs=60, hidden=(64,)).fit(X, y)
    assert model.classes_.tolist() == [0, 1, 2, 3]
    p, predicted = model.predict_proba(X), model.predict(X)
    assert p.shape == predicted.shape == (200, 4)
    np.testing.assert_array_equal(predicted, p > 0.5)
    assert model.score(X, y) > 0.6  # all four labels right
    with pytest.raises(ValueError, match="class_weight is for one class"):
        classifier(class_weight="balanced").fit(X, y)
    with pytest.raises(ValueError, match="softmax|several columns"):
        classifier().fit(X, y * 2 + np.arange(4))


def test_one_class_only():
    model = classifier().fit(np.eye(4), ["a"] * 4)
    assert model.predict(np.eye(4)).tolist() == ["a"] * 4
    np.testing.assert_array_equal(model.predict_proba(np.eye(4)), np.ones((4, 1)))


@pytest.mark.parametrize("shape", [(100,), (100, 1), (100, 3)])
def test_predictions_have_the_shape_of_the_targets(shape):
    X, y = line(targets=3)
    y = y[:, 0].reshape(shape) if len(shape) == 1 else y[:, : shape[1]]
    model = regressor().fit(X, y)
    assert model.predict(X).shape == shape
    assert model.score(X, y) > 0.9
    assert model.n_outputs_ == (shape[1] if len(shape) > 1 else 1)


@pytest.mark.parametrize(
    "loss", [nn.L1Loss(), nn.HuberLoss(), F.mse_loss, lambda p, t: ((p - t) ** 4).mean()]
)
def test_other_losses_of_regression(loss):
    X, y = line()
    assert regressor(loss=loss, epochs=60).fit(X, y).score(X, y) > 0.9


# --- samples ------------------------------------------------------------------------------------------


@BOTH
def test_dtypes(Estimator):
    X, y = moons(50)
    for dtype, given, result in [
        (None, "float32", "float32"), (None, "float64", "float64"), (None, "int64", "float64"),
        (None, "float16", "float64"), ("float32", "float64", "float32"), (kg.float64, "float32", "float64"),
    ]:  # fmt: skip
        model = Estimator(**SMALL, dtype=dtype).fit(X.astype(given), y)
        assert model.dtype_ == result
        assert {p.detach().numpy().dtype for p in model.module_.parameters()} == {np.dtype(result)}
        if Estimator is KilogradRegressor:
            assert model.predict(X).dtype == result
        else:
            assert model.predict_proba(X).dtype == result
    with pytest.raises(ValueError, match="float32"):
        Estimator(dtype="int64").fit(X, y)
    with pytest.raises(ValueError, match="float32"):
        Estimator(dtype="float16").fit(X, y)


@BOTH
def test_the_data_is_not_changed_even_by_a_model_that_works_in_place(Estimator):
    class InPlace(nn.Module):
        def __init__(self, n, k):
            super().__init__()
            self.last = nn.Linear(n, k)

        def forward(self, x):
            x -= 0.5
            return self.last(x)

    X, y = moons(50)
    before = X.copy(), y.copy()
    model = Estimator(InPlace, epochs=2).fit(X, y)
    model.predict(X)
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(y, before[1])


def test_images_are_samples_of_a_module():
    X, y = load_digits(return_X_y=True)
    X = (X / 16).reshape(-1, 1, 8, 8).astype(np.float32)[:400]
    y = y[:400]

    def network(channels, classes):
        return nn.Sequential(
            nn.Conv2d(channels, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.LazyLinear(classes),
        )

    model = KilogradClassifier(network, lr=0.01, epochs=8, batch_size=57, random_state=0).fit(X, y)
    assert model.score(X, y) > 0.97
    assert model.n_features_in_ == 1
    with pytest.raises(ValueError, match="dim 4"):
        KilogradClassifier().fit(X, y)  # an MLP wants a table


@BOTH
def test_no_batch_has_a_single_sample(Estimator):
    sizes = []

    def network(n, k):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = nn.Sequential(nn.Linear(n, 4), nn.BatchNorm1d(4), nn.Linear(4, k))

            def forward(self, x):
                sizes.append(len(x))
                return self.net(x)

        return Net()

    X, y = moons(65)
    Estimator(network, epochs=2, batch_size=16).fit(X, y)
    assert sizes == [13] * 10


def test_dataframes_give_the_names_of_features():
    pd = pytest.importorskip("pandas")
    X, y = moons()
    frame = pd.DataFrame(X, columns=["left", "right"])
    model = classifier().fit(frame, pd.Series(y))
    assert model.feature_names_in_.tolist() == ["left", "right"]
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename(columns={"left": "up"}))


@BOTH
def test_bad_data(Estimator):
    sparse = pytest.importorskip("scipy.sparse")
    X, y = moons(50)
    model = Estimator(**SMALL)
    with pytest.raises(NotFittedError):
        model.predict(X)
    with pytest.raises(TypeError, match="[Ss]parse"):
        model.fit(sparse.csr_matrix(X), y)
    with pytest.raises(ValueError, match="NaN"):
        model.fit(np.where(X > 1, np.nan, X), y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(X, y[:-1])
    with pytest.raises(ValueError, match="requires y to be passed"):
        model.fit(X, None)
    with pytest.raises(ValueError, match="0 sample"):
        model.fit(X[:0], y[:0])
    model.fit(X, y)
    with pytest.raises(ValueError, match="3 features"):
        model.predict(np.zeros((2, 3)))


@BOTH
def test_after_a_fit_that_failed_there_is_no_half_of_an_older_one(Estimator):
    X, y = moons(50)
    model = Estimator(**SMALL).fit(X, y)
    with pytest.raises(NonFiniteError, match="learning rate"):
        model.set_params(lr=1e200, optimizer="sgd").fit(X, y)
    with pytest.raises(NotFittedError):
        model.predict(X)


@BOTH
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"epochs": 0}, "epochs must be an integer"), ({"epochs": 2.5}, "epochs must be an integer"),
        ({"batch_size": 0}, "batch_size must"), ({"batch_size": "auto"}, "batch_size must"),
        ({"patience": 0}, "patience must"), ({"validation_fraction": 1.0}, "validation_fraction must be in"),
        ({"dropout": -0.1}, "dropout must be in"), ({"optimizer": "Adam"}, "there are .*adam"),
        ({"activation": "swish"}, "there are .*silu"), ({"lr": -1.0}, "learning rate"),
        ({"clip_norm": 0.0}, "clip_norm must be positive"), ({"hidden": (8, 0)}, "hidden must be positive"),
        ({"module": nn.Linear(2, 7)}, r"shape \(\d+, 7\), but for these targets"),
        ({"module": lambda n, k: nn.Sequential(nn.Linear(n, k), nn.Flatten(0))}, "but for these targets"),
        ({"compile": True, "optimizer": "lbfgs"}, "closure"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)  # fmt: skip
def test_bad_parameters_are_named_when_fit_sees_them(Estimator, how, message):
    X, y = moons(50)
    if "module" in how:
        y = np.arange(50) % 3 if Estimator is KilogradClassifier else np.c_[y, y]
    model = Estimator(**how)  # says nothing
    with pytest.raises(ValueError, match=message):
        model.fit(X, y)
    assert not hasattr(model, "module_")


@BOTH
@pytest.mark.parametrize("module", [3, "mlp", lambda n, k: None])
def test_what_is_no_module(Estimator, module):
    with pytest.raises(TypeError, match="module must be"):
        Estimator(module).fit(*moons(50))


def test_bad_losses():
    X, y = make_blobs(60, centers=3, random_state=0)
    with pytest.raises(ValueError, match="y has 3 classes"):
        classifier(loss=nn.BCEWithLogitsLoss()).fit(X, y)
    with pytest.raises(ValueError, match="Unknown label type"):
        classifier().fit(X, X[:, 0])


# --- parameters ---------------------------------------------------------------------------------------


@BOTH
def test_a_template_is_copied(Estimator):
    X, y = moons(50)
    template = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    y = y if Estimator is KilogradClassifier else np.c_[y, 1 - y]
    before = {k: v.numpy().copy() for k, v in template.state_dict().items()}
    model = Estimator(template, lr=0.1, epochs=3, random_state=0).fit(X, y)
    for k, v in template.state_dict().items():
        np.testing.assert_array_equal(v.numpy(), before[k])
        assert v.dtype is kg.float32
    assert model.module is template and template.training
    assert not model.module_.training
    again = Estimator(template, lr=1e-300, epochs=1).fit(X, y)  # begins with its weights
    for k, v in again.module_.state_dict().items():
        np.testing.assert_allclose(v.numpy(), before[k])


def test_layers_that_learn_their_sizes():
    X, y = moons()
    template = nn.Sequential(nn.LazyLinear(16), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(2))
    model = classifier(module=template).fit(X, y)
    assert model.score(X, y) > 0.9
    assert isinstance(template[0], nn.LazyLinear)
    assert (
        model.module_[1].num_batches_tracked.item() == 30 * 4
    )  # the first look counts for nothing


def test_parameters_are_stored_as_they_are_and_found_by_name():
    callbacks, metrics = [EarlyStopping(3, monitor="train_loss")], {"accuracy": Accuracy()}
    hidden, network = [4, 4], functools.partial(nn.Linear, bias=False)
    model = classifier(module=network, hidden=hidden, callbacks=callbacks, metrics=metrics)
    found = model.get_params()
    assert found["callbacks"] is callbacks and found["metrics"] is metrics
    assert found["hidden"] is hidden and found["module"] is network
    assert set(found) == set(KilogradRegressor().get_params()) | {"class_weight"}
    copied = clone(model)
    assert copied.callbacks[0] is not callbacks[0] and copied.lr == model.lr
    model.fit(*moons())
    assert callbacks[0].best is None and metrics["accuracy"].reader.seen is None  # fit uses copies
    assert model.callbacks_[0].best is not None
    assert "KilogradClassifier" in repr(model) and "lr=0.02" in repr(model)


@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsprop", "nadam", "adagrad", "lbfgs"])
def test_optimizers_by_name(name):
    lr = {"sgd": 0.3, "adagrad": 0.1, "lbfgs": 0.5}.get(name, 0.02)
    X, y = moons()
    how = {"batch_size": 1000} if name == "lbfgs" else {}  # which wants the same loss in each step
    model = classifier(optimizer=name, lr=lr, **how).fit(X, y)
    assert type(model.optimizer_).__name__.lower() == name
    assert model.optimizer_.param_groups[0]["lr"] == lr
    assert model.score(X, y) > 0.85


def test_an_optimizer_of_ones_own():
    model = classifier(
        optimizer=functools.partial(kg.optim.SGD, momentum=0.9), lr=0.1, weight_decay=0.01
    ).fit(*moons())
    group = model.optimizer_.param_groups[0]
    assert (group["momentum"], group["lr"], group["weight_decay"]) == (0.9, 0.1, 0.01)


def test_hidden_activation_and_dropout_make_the_network():
    X, y = moons(50)
    layers = regressor(hidden=[4, 3], activation="gelu", dropout=0.5).fit(X, y).module_
    names = ["Linear", "GELU", "Dropout", "Linear", "GELU", "Dropout", "Linear"]
    assert [type(m).__name__ for m in layers] == names
    one = regressor(hidden=np.int64(4), activation=functools.partial(nn.ELU, alpha=2.0)).fit(X, y)
    assert len(one.module_) == 3 and one.module_[1].alpha == 2.0


def test_schedules():
    X, y = moons()
    halve = functools.partial(kg.optim.lr_scheduler.StepLR, step_size=10, gamma=0.5)
    model = classifier(schedule=halve).fit(X, y)
    assert model.history_["lr"] == [0.02] * 10 + [0.01] * 10 + [0.005] * 10
    slow = functools.partial(kg.optim.lr_scheduler.ReduceLROnPlateau, patience=0, threshold=10.0)
    for how in ({}, {"validation_fraction": 0.2}):
        rates = classifier(schedule=slow, epochs=4, **how).fit(X, y).history_["lr"]
        np.testing.assert_allclose(rates, [0.02, 0.002, 0.0002, 0.00002])

    def each_step(optimizer):
        return Schedule(kg.optim.lr_scheduler.ExponentialLR(optimizer, 0.5), every="step")

    rates = classifier(schedule=each_step, epochs=3, batch_size=100).fit(X, y).history_["lr"]
    np.testing.assert_allclose(rates, [0.02 / 4, 0.02 / 16, 0.02 / 64])


def test_clipping_and_metrics_and_callbacks():
    class Norms(Callback):
        def __init__(self):
            self.largest = 0.0

        def on_step_end(self, trainer):
            squares = [(p.grad.numpy() ** 2).sum() for p in trainer.model.parameters()]
            self.largest = max(self.largest, float(np.sqrt(sum(squares))))

    X, y = moons()
    model = classifier(clip_norm=0.01, callbacks=[Norms()], metrics={"accuracy": Accuracy()},
                       validation_fraction=0.25).fit(X, y)  # fmt: skip
    assert 0.009 < model.callbacks_[0].largest < 0.01 + 1e-6
    names = ["epoch", "step", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds"]
    assert list(model.history_) == names and isinstance(model.history_, History)
    assert model.history_["val_accuracy"][-1] > 0.7
    assert len(model.history_.rows) == model.n_iter_ == 30


def test_callbacks_that_write_files(tmp_path):
    X, y = moons()
    callbacks = [Checkpoints(tmp_path / "run", resume=False), CSVLog(tmp_path / "log.csv")]
    model = classifier(epochs=3, callbacks=callbacks, validation_fraction=0.2).fit(X, y)
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,step,train_loss,val_loss") and len(lines) == 4
    assert [e.epoch for e in model.callbacks_[0].manager.entries] == [1, 2, 3]
    with pytest.raises(ValueError, match="resume=False"):
        model.set_params(callbacks=[Checkpoints(tmp_path / "run")]).fit(X, y)


def test_compiled_steps_give_the_same():
    X, y = moons(120)
    plain, compiled = (classifier(compile=c).fit(X, y) for c in (False, True))
    np.testing.assert_allclose(plain.predict_proba(X), compiled.predict_proba(X), rtol=1e-6)
    again = pickle.loads(pickle.dumps(compiled))
    np.testing.assert_array_equal(again.predict_proba(X), compiled.predict_proba(X))


def test_verbose_draws_a_bar(capsys):
    pytest.importorskip("tqdm")
    classifier(epochs=2, verbose=1).fit(*moons())
    assert "epoch 2/2" in capsys.readouterr().err
    classifier(epochs=2).fit(*moons())
    assert capsys.readouterr().err == ""


# --- early stopping -----------------------------------------------------------------------------------


@BOTH
def test_patience_restores_the_best_epoch(Estimator):
    X, y = moons(100)
    y = y if Estimator is KilogradClassifier else y.astype(float)
    noise = np.random.RandomState(0).normal(size=(100, 50))  # so that it overfits
    model = Estimator(lr=0.02, epochs=200, validation_fraction=0.3, patience=4, random_state=0).fit(
        np.c_[X, noise], y
    )
    losses = model.history_["val_loss"]
    assert 4 < model.n_iter_ < 200 and model.n_iter_ == int(np.argmin(losses)) + 1 + 4
    rows, held = train_test_split(
        np.arange(100), test_size=0.3, random_state=np.random.RandomState(0),
        stratify=y if Estimator is KilogradClassifier else None,
    )  # fmt: skip
    outputs = model.module_(kg.tensor(np.c_[X, noise][held]))
    target = kg.tensor(y[held])
    loss = (
        F.cross_entropy(outputs, target)
        if Estimator is KilogradClassifier
        else F.mse_loss(outputs[:, 0], target)
    )
    assert loss.item() == pytest.approx(min(losses), rel=1e-6)


def test_patience_without_validation_watches_the_training_loss():
    X, y = moons()
    model = classifier(epochs=500, patience=3, lr=0.1).fit(X, y)
    assert "val_loss" not in model.history_
    losses = model.history_["train_loss"]
    assert model.n_iter_ < 500 and int(np.argmin(losses)) == model.n_iter_ - 4


def test_validation_data_that_is_given():
    X, y = moons(150)
    names = np.array(["no", "maybe"])[y]
    model = classifier(metrics={"accuracy": Accuracy()}, validation_fraction=0.3)
    model.fit(X[:100], names[:100], X_val=X[100:], y_val=names[100:])
    assert model.history_["step"][0] == 2  # 100 samples, not 70
    assert model.history_["val_accuracy"][-1] == pytest.approx(model.score(X[100:], names[100:]))
    loss = -model.predict_log_proba(X[100:])[
        np.arange(50), np.searchsorted(model.classes_, names[100:])
    ]
    assert model.history_["val_loss"][-1] == pytest.approx(loss.mean())
    weights = np.random.RandomState(0).randint(0, 5, 50)
    model.fit(X[:100], names[:100], X_val=X[100:], y_val=names[100:], sample_weight_val=weights)
    loss = -model.predict_log_proba(X[100:])[
        np.arange(50), np.searchsorted(model.classes_, names[100:])
    ]
    assert model.history_["val_loss"][-1] == pytest.approx(np.average(loss, weights=weights))
    for bad in ({"X_val": X}, {"y_val": names}, {"sample_weight_val": weights}):
        with pytest.raises(ValueError, match="together"):
            model.fit(X, names, **bad)
    with pytest.raises(ValueError, match="unseen"):
        model.fit(X, names, X_val=X, y_val=y)
    with pytest.raises(ValueError, match="features"):
        model.fit(X, names, X_val=X[:, :1], y_val=names)


def test_validation_data_goes_through_a_pipeline():
    X, y = moons(150)
    with sklearn.config_context(enable_metadata_routing=True):
        model = classifier().set_fit_request(X_val=True, y_val=True)
        pipeline = make_pipeline(StandardScaler(), model, transform_input=["X_val"])
        pipeline.fit(100 + 10 * X[:100], y[:100], X_val=100 + 10 * X[100:], y_val=y[100:])
    loss = -pipeline.predict_log_proba(100 + 10 * X[100:])[np.arange(50), y[100:]]
    assert pipeline[-1].history_["val_loss"][-1] == pytest.approx(loss.mean())


def test_validation_data_has_each_class():
    y = np.array([0] * 90 + [1] * 10)
    X = np.c_[y + 0.0, np.zeros(100)]
    seen = []

    def count(targets, outputs):
        seen.append(int(targets.sum()))
        return 0.0

    classifier(validation_fraction=0.2, metrics={"count": count}, epochs=1).fit(X, y)
    assert seen == [8, 2]
    with pytest.raises(ValueError, match="least populated class"):
        classifier(validation_fraction=0.2).fit(X[:91], y[:91])


# --- weights ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss", [None, F.cross_entropy, nn.BCEWithLogitsLoss(), nn.CrossEntropyLoss(reduction="sum")]
)
def test_weights_of_samples_are_repetitions(loss):
    X, y = moons(60)
    times = np.random.RandomState(0).randint(0, 4, 60)
    how = {"batch_size": 1000, "loss": loss, "lr": 0.005}
    weighted = classifier(**how).fit(X, y, sample_weight=times)
    repeated = classifier(**how).fit(X.repeat(times, 0), y.repeat(times))
    ones = classifier(**how).fit(X, y, sample_weight=np.full(60, 7.0))
    none = classifier(**how).fit(X, y)
    scores = [m.decision_function(X) for m in (weighted, repeated, ones, none)]
    if getattr(loss, "reduction", "mean") == "mean":
        np.testing.assert_allclose(scores[0], scores[1], rtol=1e-7)
    np.testing.assert_allclose(scores[2], scores[3], rtol=1e-7)
    assert np.abs(scores[0] - scores[3]).max() > 0.01


def test_weights_of_samples_in_regression():
    X, y = line(60, targets=2)
    times = np.random.RandomState(0).randint(0, 4, 60)
    weighted = regressor(batch_size=1000).fit(X, y, sample_weight=times)
    repeated = regressor(batch_size=1000).fit(X.repeat(times, 0), y.repeat(times, 0))
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-7)
    losses = weighted.history_["train_loss"], repeated.history_["train_loss"]
    np.testing.assert_allclose(*losses, rtol=1e-7)


def test_the_loss_of_an_epoch_is_the_weighted_mean_over_all_batches():
    X, y = line(60)
    weights = np.random.RandomState(0).uniform(0, 3, 60)
    model = regressor(batch_size=10, lr=0.0, optimizer="sgd", epochs=1).fit(
        X, y, sample_weight=weights
    )
    expected = np.average((model.predict(X) - y) ** 2, weights=weights)
    assert model.history_["train_loss"] == [pytest.approx(expected)]


@pytest.mark.parametrize("loss", [None, nn.BCEWithLogitsLoss()])
def test_weights_of_classes_are_weights_of_samples(loss):
    X, y = moons(90)
    X, y = X[(y == 0) | (np.arange(90) % 3 == 0)], y[(y == 0) | (np.arange(90) % 3 == 0)]
    few, many = np.bincount(y).min(), np.bincount(y).max()
    names = np.array(["a", "b"])[y]
    vector = np.where(y == y[np.argmin(np.bincount(y)[y])], many / few, 1.0)
    a = classifier(class_weight="balanced", loss=loss).fit(X, names)
    b = classifier(class_weight={"b": many / few}, loss=loss).fit(X, names)
    c = classifier(loss=loss).fit(X, names, sample_weight=vector)
    d = classifier(loss=loss).fit(X, names)
    scores = [m.decision_function(X) for m in (a, b, c, d)]
    np.testing.assert_allclose(scores[0], scores[2], rtol=1e-7)
    np.testing.assert_allclose(scores[1], scores[2], rtol=1e-7)
    assert np.abs(scores[0] - scores[3]).max() > 0.01


def test_balanced_counts_weights_of_samples():
    X, y = moons(60)
    times = np.random.RandomState(0).randint(0, 4, 60)
    how = {"batch_size": 1000, "class_weight": "balanced"}
    a = classifier(**how).fit(X, y, sample_weight=times)
    b = classifier(**how).fit(X.repeat(times, 0), y.repeat(times))
    np.testing.assert_allclose(a.decision_function(X), b.decision_function(X), rtol=1e-7)


def test_bad_weights():
    X, y = moons(50)
    for bad, message in [
        (-np.ones(50), "negative"), (np.zeros(50), "zero"), (np.ones(49), "shape"),
        (np.ones((50, 1)), "shape"), (np.full(50, np.nan), "NaN"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            classifier().fit(X, y, sample_weight=bad)
    for class_weight in ("even", {7: 1.0}, {0: 0.0, 1: 0.0}):
        with pytest.raises(ValueError, match="class_weight"):
            classifier(class_weight=class_weight).fit(X, y)
    with pytest.raises(ValueError, match="loss of each sample"):
        classifier(loss=lambda p, t: F.cross_entropy(p, t)).fit(X, y, sample_weight=np.ones(50))
    with pytest.raises(ValueError, match="all weights to the estimator"):
        own = nn.CrossEntropyLoss(weight=kg.tensor([1.0, 2.0]))
        classifier(loss=own).fit(X, y, sample_weight=np.ones(50))
    assert classifier(loss=own).fit(X, y).score(X, y) > 0.8


# --- random numbers -----------------------------------------------------------------------------------


@BOTH
def test_random_state(Estimator):
    X, y = moons(100)
    how = SMALL | {"dropout": 0.2, "validation_fraction": 0.2, "epochs": 5}
    kg.manual_seed(5)
    before = kg.random.get_rng_state()
    one, same, other = (Estimator(**how, random_state=s).fit(X, y) for s in (3, 3, 4))
    as_state = Estimator(**how, random_state=np.random.RandomState(3)).fit(X, y)
    np.testing.assert_array_equal(kg.random.get_rng_state(), before)

    def weights(model):
        return np.concatenate([p.detach().numpy().ravel() for p in model.module_.parameters()])

    np.testing.assert_allclose(weights(one), weights(same), rtol=1e-9)
    np.testing.assert_allclose(weights(one), weights(as_state), rtol=1e-9)
    assert np.abs(weights(one) - weights(other)).max() > 0.01
    np.random.seed(0)
    first = Estimator(**how).fit(X, y)
    second = Estimator(**how).fit(X, y)  # None goes on with NumPy's generator
    np.random.seed(0)
    again = Estimator(**how).fit(X, y)
    np.testing.assert_allclose(weights(first), weights(again), rtol=1e-9)
    assert np.abs(weights(first) - weights(second)).max() > 0.01


def test_fits_in_threads_do_not_disturb_each_other():
    X, y = moons(100)

    def fit(seed):
        return classifier(dropout=0.3, random_state=seed, epochs=10).fit(X, y).predict_proba(X)

    alone = [fit(s) for s in range(4)]
    before = kg.random.get_rng_state()
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(fit, range(4)))
    np.testing.assert_array_equal(kg.random.get_rng_state(), before)
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


# --- going on -----------------------------------------------------------------------------------------


def test_warm_start_is_one_long_fit():
    X, y = moons()
    long = classifier(epochs=12, dropout=0.1).fit(X, y)
    short = classifier(epochs=4, dropout=0.1, warm_start=True)
    for _ in range(3):
        short.fit(X, y)
        short = pickle.loads(pickle.dumps(short))
    np.testing.assert_allclose(short.predict_proba(X), long.predict_proba(X), rtol=1e-9)
    assert short.n_iter_ == 12
    assert short.history_["epoch"] == long.history_["epoch"]
    assert short.history_["step"] == long.history_["step"]
    np.testing.assert_allclose(short.history_["train_loss"], long.history_["train_loss"], rtol=1e-9)
    with pytest.raises(ValueError, match="unseen"):
        short.fit(X, y + 1)
    with pytest.raises(ValueError, match="features"):
        short.fit(X[:, :1], y)
    assert short.set_params(warm_start=False).fit(X, y).n_iter_ == 4


def test_partial_fit_is_one_epoch():
    X, y = moons()
    whole = classifier(epochs=3).fit(X, y)
    bits = classifier(epochs=100, patience=2, validation_fraction=0.5)
    with pytest.raises(ValueError, match="classes must be passed"):
        bits.partial_fit(X, y)
    for _ in range(3):
        bits.partial_fit(X, y, classes=[0, 1])
    np.testing.assert_allclose(bits.predict_proba(X), whole.predict_proba(X), rtol=1e-9)
    assert bits.n_iter_ == 3
    bits.partial_fit(X[y == 1], y[y == 1])  # a part without one of the classes
    assert bits.classes_.tolist() == [0, 1]
    with pytest.raises(ValueError, match="before"):
        bits.partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="unseen"):
        bits.partial_fit(X, y + 1)
    with pytest.raises(ValueError, match="balanced"):
        bits.set_params(class_weight="balanced").partial_fit(X, y)
    few = classifier().partial_fit(X[y == 0], y[y == 0], classes=[0, 1, 2])
    assert few.predict_proba(X).shape == (200, 3)


def test_partial_fit_of_several_labels_and_targets():
    X, y = make_multilabel_classification(50, 5, n_classes=3, random_state=0)
    model = classifier().partial_fit(X, y, classes=[0, 1, 2]).partial_fit(X, y)
    assert model.predict(X).shape == (50, 3)
    with pytest.raises(ValueError, match="labels"):
        model.partial_fit(X, y[:, :2])
    with pytest.raises(ValueError, match="multilabel"):
        model.partial_fit(X, y[:, 0])
    X, y = line(targets=3)
    numbers = regressor().partial_fit(X, y).partial_fit(X, y, sample_weight=np.ones(100))
    assert numbers.predict(X).shape == y.shape
    with pytest.raises(ValueError, match="targets"):
        numbers.partial_fit(X, y[:, :2])


# --- among scikit-learn's tools -----------------------------------------------------------------------


def test_grid_search_in_processes():
    X, y = moons(150)
    pipeline = make_pipeline(StandardScaler(), classifier(epochs=8))
    grid = {
        "kilogradclassifier__lr": [1e-6, 0.05],
        "kilogradclassifier__module": [None, wider, functools.partial(wider, width=32)],
    }
    search = GridSearchCV(pipeline, grid, cv=3, n_jobs=2, error_score="raise").fit(X, y)
    assert search.best_params_["kilogradclassifier__lr"] == 0.05
    assert search.score(X, y) > 0.85
    assert len(set(np.round(search.cv_results_["mean_test_score"], 6))) > 2
    alone = GridSearchCV(pipeline, grid, cv=3).fit(X, y)
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"]
    )


def test_grids_of_numpys_numbers():
    X, y = moons(60)
    grid = {"epochs": np.array([1, 2]), "batch_size": np.array([16]), "patience": np.array([2])}
    assert GridSearchCV(classifier(), grid, cv=2, error_score="raise").fit(X, y).best_score_ > 0.3


def test_cross_validation_ensembles_and_calibration():
    X, y = moons(150)
    assert cross_val_score(classifier(), X, y, cv=3, scoring="roc_auc").mean() > 0.9
    voters = [("net", classifier()), ("linear", LogisticRegression(solver="newton-cg"))]
    assert VotingClassifier(voters, voting="soft").fit(X, y).score(X, y) > 0.85
    calibrated = CalibratedClassifierCV(classifier(), cv=2).fit(X, y)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(1), 1)
    boosted = AdaBoostClassifier(classifier(epochs=3), n_estimators=3).fit(X, y)
    assert boosted.score(X, y) > 0.8
    several = MultiOutputClassifier(classifier(epochs=3)).fit(X, np.c_[y, 2 * y])
    assert several.predict(X).shape == (150, 2)
    X, y = line()
    stacked = StackingRegressor([("net", regressor()), ("ridge", Ridge())], cv=2).fit(X, y)
    assert stacked.score(X, y) > 0.9
    scaled = TransformedTargetRegressor(regressor(), transformer=StandardScaler())
    assert scaled.fit(X, 1e6 + 1e4 * y).score(X, 1e6 + 1e4 * y) > 0.9


def test_set_output_of_the_steps_before():
    pytest.importorskip("pandas")
    X, y = moons()
    pipeline = make_pipeline(StandardScaler(), classifier()).set_output(transform="pandas")
    pipeline.fit(X, y)
    assert pipeline[-1].feature_names_in_.tolist() == ["x0", "x1"]
    assert pipeline.score(X, y) > 0.9


@BOTH
@pytest.mark.parametrize("way", ["pickle", "joblib", "deepcopy"])
def test_copies_predict_the_same_and_go_on(Estimator, way, tmp_path):
    import joblib

    X, y = moons(100)
    model = Estimator(**SMALL, random_state=0, validation_fraction=0.2, patience=20).fit(X, y)
    if way == "pickle":
        other = pickle.loads(pickle.dumps(model))
    elif way == "joblib":
        joblib.dump(model, tmp_path / "model.joblib")
        other = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    else:
        other = copy.deepcopy(model)
    np.testing.assert_array_equal(model.predict(X), other.predict(X))
    assert other.history_.rows == model.history_.rows
    if way != "joblib":  # arrays mapped from a file cannot be trained
        model.partial_fit(X, y)
        other.partial_fit(X, y)
        np.testing.assert_allclose(model.predict(X), other.predict(X), rtol=1e-9)


def test_a_pickle_is_not_much_larger_than_weights_and_optimizer():
    X, y = moons(100)
    model = classifier(hidden=(200, 200), epochs=2, validation_fraction=0.2, patience=2).fit(X, y)
    weights = sum(p.detach().numpy().nbytes for p in model.module_.parameters())
    assert len(pickle.dumps(model)) < 3 * weights + 30_000  # Adam has two numbers for each weight


# --- where scikit-learn is missing --------------------------------------------------------------------


def test_scikit_learn_is_loaded_when_it_is_needed():
    program = (
        "import sys, kilograd.train as t; assert 'sklearn' not in sys.modules;"
        "assert 'KilogradClassifier' in dir(t) and not hasattr(t, 'nonsense');"
        "from kilograd.train import KilogradRegressor; assert 'sklearn' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.parametrize("missing", ["sklearn", "sklearn.utils.validation"])
def test_without_scikit_learn_the_message_says_what_to_install(missing):
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "import kilograd.train\n"
        "try:\n    kilograd.train.KilogradClassifier\n"
        "except ImportError as e:\n    print(e)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "scikit-learn 1.6" in run.stdout and "pip install 'kilograd[data]'" in run.stdout


@pytest.mark.parametrize(
    ("known", "given", "kind"),
    [
        (["ca", "do"], ["cat", "dog"], None),  # as arrays, cut to the length of the known ones
        (["ca", "do"], ["cat", "dog"], object),
        ([0, 1], ["0", "1"], None),
        ([False, True], [0, 5], None),
        (["0", "1"], [0, 1], None),
    ],
)
def test_other_classes_are_not_taken_for_known_ones(known, given, kind):
    X, y = moons(40)
    old, new = np.array(known, kind)[y], np.array(given, kind)[y]
    model = classifier(epochs=1, warm_start=True).fit(X, old)
    for again in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match="unseen classes"):
            again(X, new)
    with pytest.raises(ValueError, match="unseen classes"):
        model.fit(X, old, X_val=X, y_val=new)
    with pytest.raises(ValueError, match="unseen classes"):
        classifier().partial_fit(X, new, classes=known)
    assert model.partial_fit(X, old).predict(X).dtype == model.classes_.dtype


def test_labels_of_another_number_than_the_classes():
    X, y = moons(40)
    with pytest.raises(ValueError, match="y has 3 labels, but classes"):
        classifier().partial_fit(X, np.eye(3, dtype=int)[y], classes=[0, 1])
    labels = np.column_stack([y, 1 - y, y])
    assert classifier().partial_fit(X, labels, classes=[0, 1, 2]).predict(X).shape == (40, 3)


def test_what_is_changed_before_a_warm_start_is_heard_or_refused():
    X, y = moons(60)
    model = classifier(epochs=2, warm_start=True, hidden=(4,)).fit(X, y)
    before = [p.detach().numpy().copy() for p in model.module_.parameters()]
    model.set_params(lr=0.0, weight_decay=0.5, hidden=[4]).fit(X, y)  # [4] is (4,)
    assert [model.optimizer_.param_groups[0][k] for k in ("lr", "weight_decay")] == [0.0, 0.5]
    for a, p in zip(before, model.module_.parameters(), strict=True):
        np.testing.assert_array_equal(a, p.detach().numpy())
    model.set_params(lr=0.1).partial_fit(X, y)
    assert model.optimizer_.param_groups[0]["lr"] == 0.1
    others = {
        "hidden": (5,), "activation": "tanh", "dropout": 0.5, "loss": kg.nn.BCEWithLogitsLoss(),
        "optimizer": "sgd", "dtype": "float32", "module": kg.nn.Linear(2, 2),
    }  # fmt: skip
    for name, value in others.items():
        was = getattr(model, name)
        model.set_params(**{name: value})
        for again in (model.fit, model.partial_fit):
            with pytest.raises(ValueError, match=f"{name}: changed since the fit"):
                again(X, y)
        model.set_params(**{name: was})
    model.set_params(hidden=(5,), warm_start=False).fit(X, y)
    assert model.module_[0].out_features == 5


def test_a_schedules_learning_rate_stays_in_a_warm_start():
    X, y = moons(60)
    schedule = lambda o: kg.optim.lr_scheduler.ExponentialLR(o, 0.5)  # noqa: E731
    model = classifier(epochs=2, warm_start=True, lr=0.1, schedule=schedule).fit(X, y)
    assert model.optimizer_.param_groups[0]["lr"] == pytest.approx(0.025)
    model.set_params(schedule=None).fit(X, y)
    assert model.optimizer_.param_groups[0]["lr"] == pytest.approx(0.025)
    model.set_params(lr=0.2).fit(X, y)
    assert model.optimizer_.param_groups[0]["lr"] == pytest.approx(0.2)
