"""Losses against their formulas, and initial values against their statistics."""

from __future__ import annotations

import numpy as np
import pytest

import kilograd as kg
from kilograd import nn
from tests.mission.rows import close, numbers, rng, row, slopes

F = nn.functional
LABELS = np.array([2, 0, 1, 2])


def log_softmax(x):
    return x - np.log(np.exp(x).sum(1, keepdims=True))


@row("Losses", "MSE", ancestors="synapgrad, neograd, pygrad")
def test_mse():
    """`nn.MSELoss`, `F.mse_loss`: the mean of squares, with gradients for the input and the target."""
    a, b = numbers(4, 3), numbers(4, 3)
    close(slopes(nn.MSELoss(), a, b), ((a - b) ** 2).mean())
    with pytest.warns(UserWarning, match="size"):  # broadcast by mistake
        F.mse_loss(kg.ones(4, 1), kg.ones(4))


@row("Losses", "BCE", ancestors="synapgrad, neograd")
def test_bce():
    """`nn.BCELoss` of probabilities: logarithms are cut at -100, and values outside of [0, 1] are refused."""
    p, t = rng.uniform(0.05, 0.95, (2, 4, 3))
    close(slopes(nn.BCELoss(), p, t), -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean())
    assert nn.BCELoss()(kg.tensor([0.0, 1.0]), kg.tensor([1.0, 1.0])).item() == 50
    with pytest.raises(RuntimeError, match="between 0 and 1"):
        nn.BCELoss()(kg.tensor([1.5]), kg.tensor([1.0]))


@row("Losses", "BCEWithLogits", ancestors="synapgrad")
def test_bce_with_logits():
    """`nn.BCEWithLogitsLoss`, finite for logits of any size, with `pos_weight`."""
    x, t = numbers(4, 3), rng.uniform(0, 1, (4, 3))
    s = 1 / (1 + np.exp(-x))
    close(slopes(nn.BCEWithLogitsLoss(), x, t), -(t * np.log(s) + (1 - t) * np.log(1 - s)).mean())
    loss = nn.BCEWithLogitsLoss(pos_weight=kg.tensor(3.0, dtype=kg.float64))
    close(loss(kg.tensor(x), kg.tensor(t)), -(3 * t * np.log(s) + (1 - t) * np.log(1 - s)).mean())
    assert nn.BCEWithLogitsLoss()(kg.tensor([1000.0, -1000.0]), kg.tensor([0.0, 0.0])).item() == 500


@row("Losses", "NLL", ancestors="synapgrad")
def test_nll():
    """`nn.NLLLoss` of log-probabilities and class numbers, with class weights and `ignore_index`."""
    logp, w = log_softmax(numbers(4, 3)), np.array([1.0, 2.0, 0.5])
    y = kg.tensor(LABELS)
    picked = logp[np.arange(4), LABELS]
    close(slopes(lambda x: F.nll_loss(x, y), logp), -picked.mean())
    weighted = -(w[LABELS] * picked).sum() / w[LABELS].sum()
    close(slopes(lambda x: F.nll_loss(x, y, weight=kg.tensor(w)), logp), weighted)
    close(F.nll_loss(kg.tensor(logp), y, ignore_index=2), -picked[[1, 2]].mean())


@row(
    "Losses", "cross entropy from logits, class indices",
    ancestors="synapgrad, pygrad, simple_autograd",
)  # fmt: skip
def test_cross_entropy_of_class_numbers():
    """`nn.CrossEntropyLoss` of logits and class numbers: exact and finite for logits of any size."""
    x, y = numbers(4, 3), kg.tensor(LABELS)
    close(
        slopes(lambda x: nn.CrossEntropyLoss()(x, y), x), -log_softmax(x)[range(4), LABELS].mean()
    )
    huge = kg.tensor([[1000.0, -1000.0]], requires_grad=True)
    loss = F.cross_entropy(huge, kg.tensor([1]))
    loss.backward()
    assert loss.item() == 2000 and huge.grad.tolist() == [[1, -1]]
    with pytest.raises(IndexError, match="bounds"):
        F.cross_entropy(kg.ones(1, 3), kg.tensor([3]))


@row("Losses", "cross entropy on probabilities / one-hot", ancestors="neograd")
def test_cross_entropy_of_probabilities():
    """Of probabilities: `F.nll_loss(p.log(), y)`; targets may be one-hot or soft in `nn.CrossEntropyLoss`."""
    x, soft = numbers(4, 3), rng.dirichlet(np.ones(3), 4)
    close(slopes(nn.CrossEntropyLoss(), x, soft), -(soft * log_softmax(x)).sum(1).mean())
    p = np.exp(log_softmax(x))
    got = slopes(lambda p: F.nll_loss(p.log(), kg.tensor(LABELS)), p)
    close(got, -np.log(p[range(4), LABELS]).mean())


@row("Losses", "fused softmax CE one-hot", ancestors="neograd")
def test_fused_softmax_cross_entropy_of_one_hot():
    """`nn.CrossEntropyLoss` is softmax and cross entropy in one: the slope is (softmax - one_hot) / N."""
    x = numbers(4, 3)
    one_hot = F.one_hot(kg.tensor(LABELS), 3).double()
    z = kg.tensor(x, requires_grad=True)
    loss = nn.CrossEntropyLoss()(z, one_hot)
    (loss * 2.5).backward()
    assert kg.allclose(loss, F.cross_entropy(z, kg.tensor(LABELS)))
    close(z.grad, 2.5 * (np.exp(log_softmax(x)) - one_hot.numpy()) / 4)


@row("Losses", "reduction mean/sum/none", ancestors="synapgrad, simple_autograd")
def test_reductions():
    """`reduction="mean"`, `"sum"` or `"none"` in every loss; other words are refused."""
    a, b, y = numbers(4, 3), numbers(4, 3), kg.tensor(LABELS)
    for loss, each in (
        (lambda x, r: F.mse_loss(x, kg.tensor(b), reduction=r), (a - b) ** 2),
        (lambda x, r: F.cross_entropy(x, y, reduction=r), -log_softmax(a)[range(4), LABELS]),
    ):
        for name, expected in (("none", each), ("sum", each.sum()), ("mean", each.mean())):
            close(slopes(lambda x, r=name, loss=loss: loss(x, r), a), expected)
    with pytest.raises(ValueError, match="average"):
        F.mse_loss(kg.ones(2), kg.ones(2), reduction="average")


# --- initial values -----------------------------------------------------------------------------


@row("Inits", "xavier/kaiming uniform", ancestors="synapgrad")
def test_xavier_and_kaiming_uniform():
    """`nn.init.xavier_uniform_` and `kaiming_uniform_`: symmetric, with the bounds of the papers."""
    w = kg.empty(200, 300)
    for fill, bound in (
        (nn.init.xavier_uniform_, np.sqrt(6 / 500)),
        (lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu"), np.sqrt(6 / 300)),
        (lambda w: nn.init.kaiming_uniform_(w, mode="fan_out", a=1), np.sqrt(3 / 200)),
    ):
        a = fill(w).array
        assert abs(a.max() / bound - 1) < 0.01 and abs(a.min() / bound + 1) < 0.01
        assert abs(a.mean()) < 0.02 * bound and abs(a.std() / bound - 3**-0.5) < 0.01


@row("Inits", "xavier/kaiming normal", ancestors="synapgrad")
def test_xavier_and_kaiming_normal():
    """`nn.init.xavier_normal_` and `kaiming_normal_`, with the standard deviations of the papers."""
    w, k = kg.empty(200, 300), kg.empty(40, 30, 5, 3)
    for fill, t, std in (
        (nn.init.xavier_normal_, w, np.sqrt(2 / 500)),
        (nn.init.xavier_normal_, k, np.sqrt(2 / (15 * 70))),
        (lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"), w, np.sqrt(2 / 300)),
        (lambda w: nn.init.kaiming_normal_(w, mode="fan_out", a=1), k, np.sqrt(1 / 600)),
    ):
        a = fill(t).array
        assert abs(a.mean()) < 0.03 * std and abs(a.std() / std - 1) < 0.02
        assert a.max() > 3 * std  # no uniform distribution has that


@row(
    "Inits", "uniform_ normal_ constant_ ones_ zeros_ calculate_gain", ancestors="synapgrad"
)  # fmt: skip
def test_simple_initial_values():
    """`nn.init.uniform_`, `normal_`, `constant_`, `ones_`, `zeros_`, in place; `calculate_gain`."""
    w = nn.Parameter(kg.empty(100, 200))
    init = nn.init
    assert init.constant_(w, 0.5) is w and w.requires_grad and (w == 0.5).all()
    assert (init.ones_(w) == 1).all() and not init.zeros_(w).any()
    a = init.uniform_(w, 2, 4).detach().numpy()
    assert a.min() >= 2 and a.max() <= 4 and abs(a.mean() - 3) < 0.02
    a = init.normal_(w, -1, 0.5).detach().numpy()
    assert abs(a.mean() + 1) < 0.02 and abs(a.std() - 0.5) < 0.01
    gains = [init.calculate_gain(n) for n in ("linear", "tanh", "relu")]
    assert gains == [1, 5 / 3, np.sqrt(2)] and init.calculate_gain("leaky_relu", 1.0) == 1


@row("Inits", "reset_parameters", ancestors="synapgrad, simple_autograd")
def test_reset_parameters():
    """`layer.reset_parameters()` draws anew, in place: weights and biases within 1/sqrt(inputs)."""
    for layer, fan in ((nn.Linear(50, 40), 50), (nn.Conv2d(3, 8, 5), 75)):
        weight, before = layer.weight, layer.weight.detach().clone()
        layer.reset_parameters()
        assert layer.weight is weight and not kg.equal(weight, before)
        assert all(p.abs().max() <= fan**-0.5 for p in layer.parameters())
    norm = nn.BatchNorm1d(3)
    norm(kg.randn(5, 3))
    norm.reset_parameters()
    assert norm.running_mean.tolist() == [0, 0, 0] and norm.running_var.tolist() == [1, 1, 1]
