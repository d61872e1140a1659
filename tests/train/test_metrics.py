"""Metrics give scikit-learn's numbers, with it and without it; batches give what all samples at once give."""

import re
import sys
import warnings
from itertools import pairwise

import numpy as np
import pytest

import kilograd as kg
from kilograd.train import Checkpoint
from kilograd.train import metrics as M

BINARY, TWO = ["precision_score", "recall_score", "f1_score"], ["macro", "micro", "weighted", None]


def outcome(fn, *args, **options):
    """(value or kind of error, whether a UserWarning came)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            value = fn(*args, **options)
        except (ValueError, NotImplementedError) as e:  # their ovo without average
            assert str(e)
            return ValueError, False
    caught = [w for w in caught if w.category is not RuntimeWarning]  # 0 / 0 of theirs
    assert all(issubclass(w.category, UserWarning) for w in caught), [str(w) for w in caught]
    return value, bool(caught)


def whole(report):
    """Where nothing was right, scikit-learn writes the supports as 3.0 in place of 3."""
    return re.sub(r" *(\d+)(\.0)?$", r" \1", report, flags=re.MULTILINE)


def assert_same(ours, theirs, rtol=1e-12):
    if isinstance(theirs, tuple):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b, rtol)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key], rtol)
    elif isinstance(theirs, str):
        assert ours == theirs or whole(ours) == whole(theirs)
    elif isinstance(theirs, (type, type(None))):
        assert ours == theirs
    else:
        assert np.shape(ours) == np.shape(theirs)
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=1e-15)


@pytest.fixture
def check(monkeypatch):
    """Compare a function with scikit-learn's, and what it gives where that is not installed."""
    theirs = pytest.importorskip("sklearn.metrics")

    def compare(name, *args, rtol=1e-12, **options):
        expected = outcome(getattr(theirs, name), *args, **options)
        with_it = outcome(getattr(M, name), *args, **options)
        with monkeypatch.context() as hidden:
            hidden.setitem(sys.modules, "sklearn", None)
            without = outcome(getattr(M, name), *args, **options)
        said = f"{name}{args}{options}: {expected} with {with_it} without {without}"
        assert with_it[1] == without[1] == expected[1], said
        assert_same(with_it[0], expected[0], 1e-15 if rtol == 1e-12 else rtol)
        assert_same(without[0], expected[0], rtol)
        return expected[0]

    return compare


@pytest.fixture(params=["with scikit-learn", "without"])
def either(request, monkeypatch):
    if request.param == "without":
        monkeypatch.setitem(sys.modules, "sklearn", None)
    else:
        pytest.importorskip("sklearn")


def classes(rng, n, c, kind):
    y = rng.integers(0, c, n)
    if kind == "str":
        return np.array(["ant", "bee", "cat", "dog", "eel", "fox"])[y]
    return {"int": y, "gaps": y * 3 - 2, "float": y.astype(np.float32), "bool": y > 0}[kind]


# --- functions of classes -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["int", "gaps", "float", "bool", "str"])
@pytest.mark.parametrize("seed", range(2))
def test_classes_as_scikit_learn(check, seed, kind):
    rng = np.random.default_rng(seed)
    n, c = int(rng.integers(1, 40)), int(rng.integers(2, 6))
    true, pred = classes(rng, n, c, kind), classes(rng, n, c + (kind != "bool"), kind)
    for weight in (None, rng.integers(1, 9, n) / 8, rng.integers(1, 5, n)):  # exact sums
        w = {"sample_weight": weight}
        check("accuracy_score", true, pred, **w)
        check("accuracy_score", true, pred, normalize=False, **w)
        check("hamming_loss", true, pred, **w)
        for normalize in (None, "true", "pred", "all"):
            check("confusion_matrix", true, pred, normalize=normalize, **w)
        check("confusion_matrix", true, pred, labels=np.unique(true)[::-1], **w)
        for zero in ("warn", 0.0, 1.0, np.nan):
            for average in (*TWO, "samples"):
                options = {"average": average, "zero_division": zero, **w}
                check("precision_recall_fscore_support", true, pred, **options)
                if weight is not None or kind not in ("int", "str"):
                    continue
                for name in BINARY:
                    check(name, true, pred, **options)
                for beta in (0.5, 0, np.inf):
                    check("fbeta_score", true, pred, beta=beta, **options)
                check("f1_score", true, pred, labels=np.unique(pred)[:2], **options)
            check("classification_report", true, pred, zero_division=zero, output_dict=True, **w)
            check("classification_report", true, pred, zero_division=zero, digits=4, **w)


@pytest.mark.parametrize("seed", range(3))
def test_labels_as_scikit_learn(check, seed):
    rng = np.random.default_rng(seed)
    n, c = int(rng.integers(1, 20)), int(rng.integers(2, 5))
    true, pred = (rng.random((n, c)) > 0.7).astype(int), rng.random((n, c)) > 0.6
    pred[:, 0] = False
    for weight in (None, rng.random(n)):
        w = {"sample_weight": weight}
        check("accuracy_score", true, pred, **w)
        check("hamming_loss", true, pred, **w)
        check("confusion_matrix", true, pred, **w)  # an error
        for zero in ("warn", 0.0, 1.0, np.nan):
            for average in (*TWO, "samples", "binary"):
                for name in [*BINARY, "precision_recall_fscore_support"]:
                    check(name, true, pred, average=average, zero_division=zero, **w)
                check(
                    "recall_score", true, pred, average=average, zero_division=zero, labels=[1], **w
                )
            check("classification_report", true, pred, zero_division=zero, output_dict=True, **w)
            check("classification_report", true, pred, zero_division=zero, **w)


@pytest.mark.parametrize(
    ("true", "pred"),
    [
        ([0, 0, 0], [0, 0, 0]),
        ([1, 1, 1], [1, 1, 1]),
        ([0, 0, 0], [1, 1, 1]),
        ([1], [1]),
        ([0], [1]),
        ([0, 2], [2, 2]),
        (["a", "a"], ["a", "a"]),
        (["a", "b"], ["a", "a"]),
        ([True, False], [1, 0]),
        ([[1], [0]], [1, 0]),
        ([0.0, 1.0], [1, 1]),
        ([0, 1], [1.0, 1.0]),
        ([True, False], [1, 2]),
        (np.array([3, 1], np.uint8), [-1, 3]),
        ([2, 2], [2, 2]),
    ],
)  # fmt: skip
def test_degenerate_classes(check, true, pred):
    for name in BINARY:
        for zero in ("warn", 0.0, 1.0, np.nan):
            check(name, true, pred, zero_division=zero)
            check(name, true, pred, zero_division=zero, average="macro")
        check(name, true, pred, pos_label=0)
        check(name, true, pred, pos_label="b")
        check(name, true, pred, average="other")
        check(name, true, pred, zero_division=0.5)
    check("accuracy_score", true, pred)
    check("confusion_matrix", true, pred)
    check("confusion_matrix", true, pred, labels=[7, 8])
    check("classification_report", true, pred)
    check("classification_report", true, pred, target_names=["x", "y"])
    check("fbeta_score", true, pred, beta=-1.0)


def test_report_with_names_and_labels(check):
    true, pred = [0, 1, 2, 2, 1], [0, 2, 2, 2, 1]
    names = ["ant", "a very long name indeed", "cat"]
    check("classification_report", true, pred, target_names=names)
    check("classification_report", true, pred, target_names=names, digits=0)
    check("classification_report", true, pred, labels=[2, 0])
    check(
        "classification_report",
        true,
        pred,
        labels=[2, 0],
        target_names=["x", "y"],
        output_dict=True,
    )
    check("classification_report", true, pred, labels=[0, 1, 2, 3], zero_division=0)


# --- functions of scores ------------------------------------------------------------------------


def scores(rng, n, c, ties):
    s = rng.random((n, c)) + 1e-3
    if ties:
        s = np.ceil(s * 3)
    return s / s.sum(1, keepdims=True)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_scores_of_several_classes(check, seed, ties):
    rng = np.random.default_rng(seed)
    n, c = int(rng.integers(1, 50)), int(rng.integers(3, 6))
    true, s = rng.integers(0, c, n), scores(rng, n, c, ties)
    letters = np.array(list("abcdef"))[true]
    for weight in (None, rng.random(n)):
        w = {"sample_weight": weight}
        for labels in (None, np.arange(c)):
            check("log_loss", true, s, labels=labels, **w)
            check("log_loss", true, s.astype(np.float32), labels=labels, rtol=1e-6, **w)
            check("log_loss", true, s, labels=labels, normalize=False, **w)
            for k in (1, 2, c):
                check("top_k_accuracy_score", true, s, k=k, labels=labels, **w)
                check("top_k_accuracy_score", true, s, k=k, labels=labels, normalize=False, **w)
            for average in (*TWO, "samples"):
                for way in ("ovr", "ovo", "raise"):
                    options = {"average": average, "multi_class": way, **w}
                    check("roc_auc_score", true, s, labels=labels, **options)
        check("roc_auc_score", letters, s, multi_class="ovr", labels=list("abcdef")[:c], **w)
        check("log_loss", letters, s, labels=list("abcdef")[:c], **w)
        for average in (*TWO, "samples"):
            check("average_precision_score", true, s, average=average, **w)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_scores_of_two_classes(check, seed, ties):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 50))
    true, s = rng.integers(0, 2, n), scores(rng, n, 2, ties)[:, 1]
    weights = rng.random(n) * (rng.random(n) > 0.2)
    weights[0] = 1
    for weight in (None, weights):
        w = {"sample_weight": weight}
        for y in (
            true,
            true > 0,
            true * 2 - 1,
            true.astype(float),
            true + 1,
            np.array(["n", "y"])[true],
        ):
            for logits in (s, np.log(s), (s * 10).astype(int), s.astype(np.float32)):
                check("roc_auc_score", y, logits, **w)
                check("top_k_accuracy_score", y, logits, k=1, **w)
            for pos in (None, "y", 1, 2):
                for drop in (False, True):
                    options = {"pos_label": pos, "drop_intermediate": drop, **w}
                    check("roc_curve", y, s, **options)
                    check("precision_recall_curve", y, s, **options)
                if pos is not None:
                    check("average_precision_score", y, s, pos_label=pos, **w)
            check("log_loss", y, s, **w)
            check("log_loss", y, np.stack([1 - s, s], 1), **w)
        check("log_loss", true, np.where(s > 0.5, 1.0, 0.0), labels=[0, 1], **w)  # clipped
        check("roc_curve", true + 2 * (s > 0.7), s, pos_label=2, **w)


@pytest.mark.parametrize("seed", range(3))
def test_scores_of_labels(check, seed):
    rng = np.random.default_rng(seed)
    n, c = 12, 3
    true, s = (rng.random((n, c)) > 0.5).astype(int), rng.standard_normal((n, c))
    for weight in (None, rng.random(n)):
        for average in (*TWO, "samples", "other"):
            for y in (true, true * [1, 0, 1]):  # a label that never is there
                check("roc_auc_score", y, s, average=average, sample_weight=weight)
                check("average_precision_score", y, s, average=average, sample_weight=weight)


def test_part_of_the_area_needs_scikit_learn(monkeypatch):
    sk = pytest.importorskip("sklearn.metrics")
    y, s = [0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]
    assert M.roc_auc_score(y, s, max_fpr=0.5) == sk.roc_auc_score(y, s, max_fpr=0.5)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"pip install 'kilograd\[data\]'"):
        M.roc_auc_score(y, s, max_fpr=0.5)


# --- functions of numbers -----------------------------------------------------------------------

ERRORS = ["mean_squared_error", "root_mean_squared_error", "mean_absolute_error", "r2_score"]


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("shape", [(1,), (2,), (30,), (30, 1), (1, 3), (30, 3)])
def test_numbers_as_scikit_learn(check, name, shape):
    rng = np.random.default_rng(0)
    true, pred = rng.standard_normal(shape), rng.standard_normal(shape)
    outputs = [
        "uniform_average",
        "raw_values",
        "variance_weighted",
        "other",
        [0.2, 0.5, 0.3],
        [1.0],
    ]
    for weight in (None, rng.random(shape[0])):
        for over in outputs:
            options = {"sample_weight": weight, "multioutput": over}
            if isinstance(over, list) and not shape[1:] == (3,) == (len(over),):
                with pytest.raises(ValueError, match="weights"):
                    getattr(M, name)(true, pred, **options)
                continue
            check(name, true, pred, **options)
            check(name, (true * 5).astype(int), (pred * 5).astype(int), **options)
            check(name, np.ones(shape), pred, **options)  # a constant target
            check(name, np.ones(shape), np.ones(shape), **options)
    if name == "r2_score":
        for y, p in ((true, pred), (np.ones(shape), pred), (np.ones(shape), np.ones(shape))):
            check(name, y, p, force_finite=False)


@pytest.mark.parametrize("name", ERRORS[:3])
def test_half_precision_does_not_overflow(either, name):
    ours = getattr(M, name)(kg.tensor([0.0, 0.0]).half(), kg.tensor([300.0, 300.0]).half())
    assert ours == (90_000 if name == "mean_squared_error" else 300)


# --- what may be handed over --------------------------------------------------------------------


def test_tensors_arrays_and_lists(either):
    x = kg.tensor([[0.2, 0.8], [0.9, 0.1], [0.4, 0.6]], requires_grad=True)
    p, y = x * 1.0, kg.tensor([1, 0, 0])
    expected = M.log_loss([1, 0, 0], p.detach().numpy())
    assert M.log_loss(y, p) == M.log_loss(y, list(p)) == expected
    assert M.accuracy_score(y, p.argmax(1)) == pytest.approx(2 / 3)
    assert M.mean_squared_error(kg.ones(3, 1), [1.0, 1.0, 1.0]) == 0
    loss = M.LogLoss()
    loss.update(p, y)
    assert loss.compute() == pytest.approx(expected, rel=1e-6)


def test_torch_tensors(either):
    torch = pytest.importorskip("torch")
    s = torch.tensor([[2.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 3.0]], requires_grad=True) * 1
    y = torch.tensor([0, 1, 1, 1])
    assert M.accuracy_score(y, s.argmax(1)) == 0.75
    for scores in (s, s.to(torch.bfloat16), s.detach().numpy(), kg.tensor(s.detach().numpy())):
        metrics = M.MetricCollection([M.Accuracy(), M.LogLoss(logits=True), M.ROCAUC(logits=True)])
        metrics.update(scores, y)
        expected = torch.nn.functional.cross_entropy(s.double(), y).item()
        assert metrics.compute() == pytest.approx(
            {"Accuracy": 0.75, "LogLoss": expected, "ROCAUC": 2 / 3}
        )


def test_objects_with_array(either):
    class Series:  # as pandas' are
        def __init__(self, values):
            self.values = values

        def __array__(self, dtype=None, copy=None):
            return np.array(self.values, dtype=dtype)

    assert M.accuracy_score(Series([0, 1]), np.array(["0", "1"]).astype(int)) == 1
    assert M.accuracy_score(Series(np.array(["a", "b"], object)), ["a", "a"]) == 0.5


TWO_CLASSES = [
    M.accuracy_score, M.precision_score, M.recall_score, M.f1_score, M.confusion_matrix,
    M.classification_report, M.hamming_loss, M.precision_recall_fscore_support,
]  # fmt: skip
OF_SCORES = [
    M.roc_auc_score, M.average_precision_score, M.log_loss, M.top_k_accuracy_score, M.roc_curve,
    M.precision_recall_curve,
]  # fmt: skip
OF_NUMBERS = [getattr(M, name) for name in ERRORS]


@pytest.mark.parametrize("fn", TWO_CLASSES + OF_SCORES + OF_NUMBERS, ids=lambda f: f.__name__)
def test_bad_input(either, fn):
    with pytest.raises(ValueError, match=r"\(3,\).*\(2,\)"):
        fn([0, 1, 1], [0, 1])
    with pytest.raises(ValueError, match="no samples"):
        fn([], [])
    with pytest.raises(ValueError, match="nan.*first at 1"):
        fn([0, 1], [0.0, np.nan])
    with pytest.raises(ValueError, match="nan"):
        fn([0, np.nan], [0, 1])
    with pytest.raises(ValueError, match="inf"):
        fn([0, 1], [0, np.inf])
    with pytest.raises(ValueError, match="shape"):
        fn(np.zeros((2, 2, 2)), np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match="shape"):
        fn(1, 1)
    with pytest.raises(ValueError, match=r"sample_weight has the shape \(3,\)"):
        fn([0, 1], [0, 1], sample_weight=[1, 2, 3])
    with pytest.raises(ValueError, match="zero for all"):
        fn([0, 1], [0, 1], sample_weight=[0, 0])
    with pytest.raises(TypeError, match="NoneType"):
        fn([0, 1], None)
    with pytest.raises(TypeError, match="complex"):
        fn([0, 1], [0j, 1j])
    with pytest.raises(ValueError, match="y_true cannot be made an array"):
        fn([[0], [1, 2]], [0, 1])
    with pytest.raises((TypeError, ValueError), match="strings"):
        fn([0, 1], ["a", "b"])
    with pytest.raises(TypeError, match="argument"):
        fn([0, 1], [0, 1], nonsense=1)


@pytest.mark.parametrize("fn", TWO_CLASSES, ids=lambda f: f.__name__)
def test_scores_are_no_classes(either, fn):
    with pytest.raises(ValueError, match=r"y_pred > 0.5"):
        fn([0, 1], [0.2, 0.8])
    with pytest.raises(ValueError, match=r"y_pred.argmax\(1\)"):
        fn([0, 1], [[0.2, 0.8], [0.1, 0.9]])
    with pytest.raises(ValueError, match="0 or 1"):
        fn([[0, 2], [1, 1]], [[0, 1], [1, 1]])


def test_a_class_twice_in_labels(either):
    with pytest.raises(ValueError, match="twice"):
        M.confusion_matrix([0, 1], [0, 1], labels=[0, 0])


# --- over batches -------------------------------------------------------------------------------

RNG = np.random.default_rng(3)
LOGITS, TARGETS = RNG.standard_normal((97, 4)), RNG.integers(0, 4, 97)
PROBA = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
PREDICTED = LOGITS.argmax(1)
ONE, TWO_TARGETS = RNG.random(97), RNG.integers(0, 2, 97)
MANY, MANY_TARGETS = RNG.random((97, 3)), RNG.integers(0, 2, (97, 3))
NUMBERS, REAL = RNG.standard_normal((97, 2)) + 1e4, RNG.standard_normal((97, 2)) + 1e4

STREAMED = [
    (M.Accuracy, {}, LOGITS, TARGETS, M.accuracy_score(TARGETS, PREDICTED)),
    (M.Accuracy, {}, PREDICTED, TARGETS, M.accuracy_score(TARGETS, PREDICTED)),
    (M.Accuracy, {"average": None}, LOGITS, TARGETS, M.recall_score(TARGETS, PREDICTED, average=None)),
    (M.Accuracy, {"average": "macro"}, LOGITS, TARGETS, M.recall_score(TARGETS, PREDICTED, average="macro")),
    (M.Accuracy, {"threshold": 0.3}, ONE, TWO_TARGETS, M.accuracy_score(TWO_TARGETS, ONE > 0.3)),
    (M.Accuracy, {"logits": True, "threshold": 0.3}, np.log(ONE / (1 - ONE)), TWO_TARGETS,
     M.accuracy_score(TWO_TARGETS, ONE > 0.3)),
    (M.Accuracy, {}, MANY, MANY_TARGETS, M.accuracy_score(MANY_TARGETS, MANY > 0.5)),
    (M.Accuracy, {"average": "macro"}, MANY, MANY_TARGETS, 1 - M.hamming_loss(MANY_TARGETS, MANY > 0.5)),
    (M.Accuracy, {"average": None}, MANY, MANY_TARGETS, ((MANY > 0.5) == MANY_TARGETS).mean(0)),
    (M.Accuracy, {"task": "multilabel"}, MANY > 0.5, MANY_TARGETS, M.accuracy_score(MANY_TARGETS, MANY > 0.5)),
    (M.TopKAccuracy, {"k": 2}, LOGITS, TARGETS, M.top_k_accuracy_score(TARGETS, LOGITS, k=2)),
    (M.TopKAccuracy, {"k": 1}, np.round(LOGITS), TARGETS, M.top_k_accuracy_score(TARGETS, np.round(LOGITS), k=1)),
    (M.Precision, {}, ONE, TWO_TARGETS, M.precision_score(TWO_TARGETS, ONE > 0.5)),
    (M.Precision, {"pos_label": 0}, ONE, TWO_TARGETS, M.precision_score(TWO_TARGETS, ONE > 0.5, pos_label=0)),
    (M.Recall, {"task": "binary"}, np.stack([1 - ONE, ONE], 1), TWO_TARGETS, M.recall_score(TWO_TARGETS, ONE > 0.5)),
    (M.ConfusionMatrix, {}, LOGITS, TARGETS, M.confusion_matrix(TARGETS, PREDICTED)),
    (M.ConfusionMatrix, {"normalize": "true"}, PREDICTED, TARGETS,
     M.confusion_matrix(TARGETS, PREDICTED, normalize="true")),
    (M.ConfusionMatrix, {"num_classes": 6}, PREDICTED, TARGETS,
     M.confusion_matrix(TARGETS, PREDICTED, labels=range(6))),
    (M.ConfusionMatrix, {}, ONE, TWO_TARGETS, M.confusion_matrix(TWO_TARGETS, ONE > 0.5)),
    (M.ConfusionMatrix, {}, MANY, MANY_TARGETS,
     np.stack([M.confusion_matrix(MANY_TARGETS[:, k], MANY[:, k] > 0.5) for k in range(3)])),
    (M.ROCAUC, {}, ONE, TWO_TARGETS, M.roc_auc_score(TWO_TARGETS, ONE)),
    (M.ROCAUC, {}, np.stack([1 - ONE, ONE], 1), TWO_TARGETS, M.roc_auc_score(TWO_TARGETS, ONE)),
    (M.ROCAUC, {}, PROBA, TARGETS, M.roc_auc_score(TARGETS, PROBA, multi_class="ovr")),
    (M.ROCAUC, {"logits": True, "multi_class": "ovo", "average": "weighted"}, LOGITS, TARGETS,
     M.roc_auc_score(TARGETS, PROBA, multi_class="ovo", average="weighted")),
    (M.ROCAUC, {"average": None}, MANY * 9 - 4, MANY_TARGETS, M.roc_auc_score(MANY_TARGETS, MANY, average=None)),
    (M.AveragePrecision, {}, ONE, TWO_TARGETS, M.average_precision_score(TWO_TARGETS, ONE)),
    (M.AveragePrecision, {"logits": True, "average": "micro"}, LOGITS, TARGETS,
     M.average_precision_score(TARGETS, PROBA, average="micro")),
    (M.AveragePrecision, {}, MANY, MANY_TARGETS, M.average_precision_score(MANY_TARGETS, MANY)),
    (M.LogLoss, {}, PROBA, TARGETS, M.log_loss(TARGETS, PROBA)),
    (M.LogLoss, {"logits": True}, LOGITS, TARGETS, M.log_loss(TARGETS, PROBA)),
    (M.LogLoss, {}, ONE, TWO_TARGETS, M.log_loss(TWO_TARGETS, ONE)),
    (M.LogLoss, {"logits": True}, np.log(ONE / (1 - ONE)), TWO_TARGETS, M.log_loss(TWO_TARGETS, ONE)),
    (M.MeanSquaredError, {}, NUMBERS, REAL, M.mean_squared_error(REAL, NUMBERS)),
    (M.MeanAbsoluteError, {}, NUMBERS, REAL, M.mean_absolute_error(REAL, NUMBERS)),
    (M.RootMeanSquaredError, {}, NUMBERS[:, :1], REAL[:, 0], M.root_mean_squared_error(REAL[:, :1], NUMBERS[:, :1])),
    *((M.R2Score, {"multioutput": o}, NUMBERS, REAL, M.r2_score(REAL, NUMBERS, multioutput=o))
      for o in ("uniform_average", "raw_values", "variance_weighted")),
    *((cls, {"average": a, **o}, s, y, fn(y, p, average=a))
      for a in TWO
      for cls, fn in ((M.Precision, M.precision_score), (M.Recall, M.recall_score), (M.F1Score, M.f1_score))
      for o, s, y, p in (({}, LOGITS, TARGETS, PREDICTED), ({"num_classes": 3}, MANY, MANY_TARGETS, MANY > 0.5))),
    (M.FBetaScore, {"beta": 2, "average": "macro"}, LOGITS, TARGETS,
     M.fbeta_score(TARGETS, PREDICTED, beta=2, average="macro")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("cls", "options", "scores", "targets", "expected"),
    STREAMED,
    ids=lambda x: x.__name__ if isinstance(x, type) else None,
)
def test_batches_equal_all_at_once(cls, options, scores, targets, expected):
    metric = cls(**options)
    with pytest.raises(ValueError, match="no sample"):
        metric.compute()
    for sizes in ([97], [1] * 97, [50, 0, 40, 7], [3, 94]):
        at = np.cumsum([0, *sizes])
        for i, (a, b) in enumerate(pairwise(at)):
            hand = (np.asarray, kg.tensor, np.asarray)[i % 3]
            metric.update(hand(scores[a:b]), hand(targets[a:b]))
            if b:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # a single sample has no area and no R²
                    metric.compute()  # changes nothing
        result = metric.compute()
        assert type(result) in (float, np.ndarray)
        assert_same(result, expected, 1e-9 if cls is M.R2Score else 1e-12)
        metric.reset()
    with pytest.raises(ValueError, match="no sample"):
        metric.compute()


@pytest.mark.parametrize(
    "cls", [M.Accuracy, M.ConfusionMatrix, M.ROCAUC, M.LogLoss, M.TopKAccuracy]
)
def test_a_batch_that_raises_changes_nothing(cls):
    metric = cls()
    metric.update(PROBA, TARGETS)
    before = metric.compute()
    for scores, targets, match in (
        (np.where(PROBA[5, 2] == PROBA, np.nan, PROBA), TARGETS, r"nan.*\(5, 2\)"),
        (PROBA, TARGETS[:50], r"\(97, 4\).*\(50,\)"),
        (PROBA[:, :3], TARGETS % 3, "4 columns"),
        (PROBA, TARGETS + 1, "expected 0 to 3"),
        (PROBA, TARGETS - 1, "expected 0 to 3"),
        (PROBA, TARGETS + 0.5, "whole"),
        (PROBA, np.eye(4)[TARGETS], "multilabel|argmax"),
        (ONE, TWO_TARGETS, "binary|multiclass"),
    ):
        with pytest.raises(ValueError, match=match):
            metric.update(scores, targets)
        np.testing.assert_array_equal(metric.compute(), before)
    with pytest.raises(TypeError, match="strings"):
        metric.update(["a"], ["a"])
    metric.update(PROBA, TARGETS)
    np.testing.assert_allclose(
        metric.compute() * 1.0, before * (2 if cls is M.ConfusionMatrix else 1)
    )


@pytest.mark.parametrize("cls", [M.MeanSquaredError, M.MeanAbsoluteError, M.R2Score])
def test_numbers_that_raise_change_nothing(cls):
    metric = cls()
    metric.update(NUMBERS, REAL)
    before = metric.compute()
    for scores, targets, match in (
        (NUMBERS, REAL[:, 0], r"\(97, 2\).*\(97,\)"),
        (NUMBERS, REAL * np.nan, "nan"),
        (NUMBERS * np.inf, REAL, "inf"),
        (3.0, 3.0, "shape"),
    ):
        with pytest.raises(ValueError, match=match):
            metric.update(scores, targets)
    if cls is M.R2Score:
        with pytest.raises(ValueError, match="1 outputs"):
            metric.update(REAL[:, 0], REAL[:, 0])
    assert metric.compute() == before


def test_logits_are_not_taken_for_probabilities():
    for cls in (M.Accuracy, M.Precision, M.F1Score, M.ConfusionMatrix):
        with pytest.raises(ValueError, match=rf"{cls.__name__}\(logits=True\)"):
            cls().update([-1.0, 2.0], [0, 1])
    for cls in (M.ROCAUC, M.AveragePrecision):
        for logits in (LOGITS, LOGITS[:, :2]):
            with pytest.raises(ValueError, match=rf"{cls.__name__}\(logits=True\)"):
                cls().update(logits, TARGETS % 2)
    with pytest.raises(ValueError, match="logits=True|in .0, 1."):
        M.LogLoss().update(LOGITS, TARGETS)
    with pytest.raises(ValueError, match="-inf"):
        M.LogLoss(logits=True).update([[-np.inf, -np.inf]], [0])
    loss = M.LogLoss(logits=True)
    loss.update([[1000.0, -np.inf], [0.0, 800.0]], [0, 0])
    assert loss.compute() == 400
    loss.reset()
    loss.update([1000.0, -1000.0], [1, 1])
    assert loss.compute() == 500


def test_ambiguous_shapes_ask_for_the_task():
    tokens, n = RNG.integers(0, 5, (6, 7)), RNG.integers(0, 5, (6, 7))
    with pytest.raises(ValueError, match="task='binary', 'multiclass' or 'multilabel'"):
        M.Accuracy().update(tokens, n)
    metric = M.Accuracy("multiclass")
    metric.update(tokens, n)
    assert metric.compute() == (tokens == n).mean()
    with pytest.raises(ValueError, match=r"argmax\(1\)"):
        metric.update(RNG.random((6, 5)), np.eye(5)[:5].repeat(2, 0)[:6])
    images = M.Accuracy("binary")
    images.update(RNG.random((2, 1, 4, 4)) * 0, np.zeros((2, 4, 4)))
    assert images.compute() == 1


def test_shapes_that_are_nothing():
    for scores, targets in (
        ([0.5], 1), (0.5, 1), (0.5, [1]), (np.zeros((3, 0)), [0, 0, 0]), (np.zeros((3, 0)), np.zeros((3, 0))),
        (np.zeros((3, 2, 2)), [0, 0, 0]), ([0.5, 0.5], np.zeros((2, 2))),
    ):  # fmt: skip
        for task in (None, "binary", "multiclass", "multilabel"):
            for cls in (M.Accuracy, M.ConfusionMatrix, M.ROCAUC):
                with pytest.raises(ValueError, match="the scores have the shape"):
                    cls(task).update(scores, targets)


def test_one_label():
    s, t = MANY[:, :1], MANY_TARGETS[:, :1]
    for cls, expected in (
        (M.Accuracy, M.accuracy_score(t, s > 0.5)),
        (M.ROCAUC, M.roc_auc_score(t, s)),
    ):
        for task in (None, "binary", "multilabel"):
            metric = cls(task)
            metric.update(s, t)
            assert metric.compute() == expected


def test_thresholds_are_of_the_dtype_of_the_scores():
    for options, score in (
        ({"threshold": 0.3}, 0.3),
        ({"threshold": 0.3, "logits": True}, np.log(0.3 / 0.7)),
    ):
        for dtype in (np.float32, np.float64):
            metric = M.Accuracy(**options)
            metric.update(np.array([score], dtype), [0])  # not above it
            assert metric.compute() == 1


def test_dimensions_after_the_classes_and_ignored_targets():
    scores, targets = RNG.standard_normal((2, 5, 3, 4)), RNG.integers(0, 5, (2, 3, 4))
    targets[0, 0, :3] = -100
    counted = targets != -100
    for cls in (M.Accuracy, M.ConfusionMatrix):
        metric = cls(ignore_index=-100)
        metric.update(kg.tensor(scores), kg.tensor(targets))
        plain = cls()
        plain.update(np.moveaxis(scores, 1, -1)[counted], targets[counted])
        np.testing.assert_array_equal(metric.compute(), plain.compute())
    with pytest.raises(ValueError, match="-100"):
        M.Accuracy().update(scores, targets)
    nothing = M.Accuracy(ignore_index=-100)
    nothing.update(scores, np.full_like(targets, -100))
    with pytest.raises(ValueError, match="no sample"):
        nothing.compute()


def test_classes_that_do_not_occur():
    metric = M.F1Score(average="macro")
    metric.update(PROBA[TARGETS < 2][:, :], TARGETS[TARGETS < 2])
    pred = PREDICTED[TARGETS < 2]
    assert metric.compute() == pytest.approx(
        M.f1_score(TARGETS[TARGETS < 2], pred, average="macro")
    )
    seen, all_five = (
        M.Recall(average=None),
        M.Recall(average=None, num_classes=5, zero_division=1.0),
    )
    for metric in (seen, all_five):
        metric.update([0, 4], [0, 2])
    np.testing.assert_array_equal(seen.compute(), [1, 0, 0])
    np.testing.assert_array_equal(all_five.compute(), [1, 1, 0, 1, 1])
    warned = M.Recall(zero_division="warn")
    warned.update([0.9], [0])
    with pytest.warns(UserWarning, match="recall is 0.0"):
        assert warned.compute() == 0
    positive = M.Precision()
    positive.update([0.1], [0])  # class 1 was never seen
    assert positive.compute() == 0
    area = M.ROCAUC(average=None)
    area.update([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]], [1, 0])
    with pytest.warns(UserWarning, match="[oO]nly one class"):
        np.testing.assert_array_equal(area.compute(), [1, 1, np.nan])


def test_binary_average_is_of_two_classes():
    metric = M.Precision()
    with pytest.raises(ValueError, match="average='macro'"):
        metric.update(PROBA, TARGETS)
    with pytest.raises(ValueError, match="no sample"):
        metric.compute()
    with pytest.raises(ValueError, match="average='macro'"):
        metric.update(MANY, MANY_TARGETS)
    metric.update([0, 1], [1, 1])
    assert metric.compute() == 1


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: M.Accuracy("two"), "task='two'"),
        (lambda: M.Accuracy(average="micro"), "average"),
        (lambda: M.Accuracy(threshold=1.5), "threshold"),
        (lambda: M.Accuracy(num_classes=0), "num_classes"),
        (lambda: M.F1Score(average="samples"), "function"),
        (lambda: M.F1Score(average="all"), "average"),
        (lambda: M.FBetaScore(-1), "beta"),
        (lambda: M.Recall(zero_division=0.5), "zero_division"),
        (lambda: M.Recall(pos_label=2), "pos_label"),
        (lambda: M.ConfusionMatrix(normalize="rows"), "normalize"),
        (lambda: M.TopKAccuracy(0), "k=0"),
        (lambda: M.ROCAUC(multi_class="raise"), "multi_class"),
        (lambda: M.ROCAUC(multi_class="ovo", average=None), "ovo"),
        (lambda: M.AveragePrecision(average="samples"), "average"),
        (lambda: M.LogLoss("multilabel"), "task"),
        (lambda: M.R2Score(multioutput="other"), "multioutput"),
    ],
)  # fmt: skip
def test_options_that_are_not_there(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_large_class_numbers_are_asked_about():
    with pytest.raises(ValueError, match="num_classes"):
        M.Accuracy().update([0], [10**12])
    with pytest.raises(ValueError, match="num_classes"):
        M.ConfusionMatrix().update([0], [20_000])


def test_means_far_from_zero():
    rng = np.random.default_rng(0)
    true = rng.standard_normal(1000) + 1e8
    pred = true + rng.standard_normal(1000) * 0.3
    metric = M.R2Score()
    for a in range(0, 1000, 7):
        metric.update(pred[a : a + 7], true[a : a + 7])
    assert metric.compute() == pytest.approx(M.r2_score(true, pred), rel=1e-9)


def test_constant_targets():
    for prediction, value in ((1.0, 1.0), (2.0, 0.0)):
        metric = M.R2Score()
        for _ in range(2):
            metric.update([prediction] * 2, [1.0] * 2)
        assert metric.compute() == value
    metric = M.R2Score()
    metric.update([1.0], [1.0])
    with pytest.warns(UserWarning, match="two samples"):
        assert np.isnan(metric.compute())


def test_mean():
    mean = M.Mean()
    with pytest.raises(ValueError, match="no sample"):
        mean.compute()
    mean.update(kg.tensor(2.0, requires_grad=True) * 1, weight=3)
    mean.update([1.0, 4.0], weight=[1.0, 0.0])
    mean.update([])
    assert mean.compute() == 7 / 4
    mean.update(np.inf, weight=0)
    for value, weight, match in (
        (np.nan, 1, "nan"),
        (1, -1, "negative"),
        ([1, 2], [1, 2, 3], r"\(2,\).*\(3,\)"),
    ):
        with pytest.raises(ValueError, match=match):
            mean.update(value, weight)
    assert mean.compute() == 7 / 4
    mean.update(np.inf)
    with pytest.raises(ValueError, match="-inf"):
        mean.update(-np.inf)
    assert mean.compute() == np.inf
    mean.reset()
    mean.update(1.0)
    assert mean.compute() == 1.0


def test_collection():
    metrics = M.MetricCollection({"a": M.Accuracy(), "f": M.F1Score(average="macro")})
    assert list(metrics) == ["a", "f"] and len(metrics) == 2 and isinstance(metrics["f"], M.F1Score)
    for a in range(0, 97, 10):
        metrics.update(
            kg.tensor(LOGITS[a : a + 10], requires_grad=True), kg.tensor(TARGETS[a : a + 10])
        )
    assert metrics.compute() == pytest.approx(
        {
            "a": M.accuracy_score(TARGETS, PREDICTED),
            "f": M.f1_score(TARGETS, PREDICTED, average="macro"),
        }
    )
    with pytest.raises(ValueError, match="metric 'a'.*NaN|metric 'a'.*nan"):
        metrics.update(LOGITS * np.nan, TARGETS)
    metrics.reset()
    with pytest.raises(ValueError, match="no sample"):
        metrics.compute()
    with pytest.raises(ValueError, match="names"):
        M.MetricCollection([M.Accuracy(), M.Accuracy(average=None)])
    with pytest.raises(TypeError, match="'x' is int"):
        M.MetricCollection({"x": 3})


def several():
    return M.MetricCollection({
        "accuracy": M.Accuracy(threshold=0.3), "f1": M.F1Score(threshold=0.8, ignore_index=-1),
        "matrix": M.ConfusionMatrix(num_classes=2), "auc": M.ROCAUC(), "loss": M.LogLoss(),
        "worst": lambda targets, scores: float(np.abs(targets - scores).max()),
    })  # fmt: skip


def test_a_collection_is_a_part_of_a_checkpoint(tmp_path):
    metrics = several()
    first, second = ([0.2, 0.4, 0.9], [0, 1, 1]), ([0.35, 0.7], [0, 1])
    metrics.update(*first)
    Checkpoint(metrics=metrics).save(tmp_path / "c")
    expected = metrics.compute()
    metrics.update(*second)
    other = several()
    other.update([0.9], [0])  # forgotten
    Checkpoint(metrics=other).load(tmp_path / "c")
    assert_same_values(other.compute(), expected)
    other.update(*second)
    assert_same_values(other.compute(), metrics.compute())
    assert other["f1"].reader.ignore_index == -1


def assert_same_values(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_a_metric_goes_on_with_the_options_that_were_saved():
    first, second = M.Accuracy(threshold=0.3), M.Accuracy(threshold=0.5, ignore_index=7)
    first.update([0.4, 0.1], [1, 0])
    second.load_state_dict(first.state_dict())
    for metric in (first, second):
        metric.update([0.4, 0.1], [1, 0])
        assert metric.compute() == 1.0
    assert second.reader.ignore_index is None


def test_the_state_of_another_metric_is_refused():
    accuracy, f1 = M.Accuracy(), M.F1Score()
    accuracy.update([0.9], [1])
    with pytest.raises(ValueError, match="state is of the metric Accuracy, this one is F1Score"):
        f1.load_state_dict(accuracy.state_dict())
    assert f1.average == "binary"
    with pytest.raises(ValueError, match="no sample"):
        f1.compute()
    metrics = M.MetricCollection({"first": M.Accuracy(), "second": M.F1Score()})
    swapped = {"first": accuracy.state_dict(), "second": accuracy.state_dict()}
    with pytest.raises(ValueError, match="metric 'second': the state is of the metric Accuracy"):
        metrics.load_state_dict(swapped)
    with pytest.raises(ValueError, match="no sample"):  # the first is as it was, too
        metrics["first"].compute()
    with pytest.raises(
        ValueError, match=r"saved are \['first'\], those here \['first', 'second'\]"
    ):
        metrics.load_state_dict({"first": accuracy.state_dict()})


def test_states_of_older_versions_can_be_loaded():
    metric = M.Accuracy()
    metric.update([0.9, 0.2], [1, 1])
    state = metric.state_dict()
    older = {"own": state["own"], "seen": state["reader"]["seen"]}
    metric = M.Accuracy(threshold=0.3)
    metric.load_state_dict(older)
    assert metric.compute() == 0.5 and metric.reader.threshold == 0.3
    with pytest.raises(ValueError, match="the batches before were binary"):
        metric.update([[0.9, 0.1]], [0])


def test_a_collection_of_metrics_without_states():
    class Duck:
        def reset(self):
            pass

        update = compute = reset

    with pytest.raises(TypeError, match="metric 'duck': Duck has no state_dict"):
        M.MetricCollection({"duck": Duck()}).state_dict()


def test_one_class_has_no_area(either):
    for multi_class in ("ovr", "ovo"):
        for average in ("macro", "weighted"):
            metric = M.ROCAUC(multi_class=multi_class, average=average)
            metric.update([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]], [1, 1])
            with pytest.warns(UserWarning, match="[oO]nly one class"):
                assert np.isnan(metric.compute())


def test_kept_scores_are_copies():
    metric, s = M.ROCAUC(), np.array([0.1, 0.9])
    metric.update(s, [0, 1])
    s[:] = [0.9, 0.1]
    assert metric.compute() == 1


def test_a_metric_of_ones_own_says_three_methods():
    class Empty(M.Metric):
        def reset(self):
            pass

    with pytest.raises(NotImplementedError, match="Empty has no update"):
        Empty().update([], [])
    with pytest.raises(NotImplementedError, match="Empty has no compute"):
        Empty().compute()
    with pytest.raises(NotImplementedError, match="reset"):
        M.Metric()
