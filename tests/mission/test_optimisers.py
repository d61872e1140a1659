"""Optimizers and schedules, step by step beside their formulas."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import kilograd as kg
from kilograd import optim
from tests.mission.rows import close, numbers, row


def follows(make, rule, steps=8):
    """The optimizer's parameter is, step by step, what ``rule(p, g, k, state)`` makes of the last one."""
    p, state = numbers(4), {}
    w = kg.tensor(p, requires_grad=True)
    optimizer = make([w])
    for k in range(1, steps + 1):
        g = numbers(4)
        w.grad = kg.tensor(g)
        optimizer.step()
        p = rule(p, g, k, state)
        close(w, p)


@row("Optimisers", "SGD / GD", ancestors="all")
def test_sgd():
    """`kg.optim.SGD(parameters, lr)`; settings that make no sense are refused."""
    follows(lambda ws: optim.SGD(ws, lr=0.1), lambda p, g, k, s: p - 0.1 * g)
    for bad in ({"lr": -1.0}, {"momentum": -0.5}, {"nesterov": True}):
        with pytest.raises(ValueError):
            optim.SGD([kg.ones(1, requires_grad=True)], **bad)


@row(
    "Optimisers", "momentum / dampening / nesterov / weight decay / maximize", ancestors="all"
)  # fmt: skip
def test_sgd_options():
    """`momentum`, `dampening`, `nesterov`, `weight_decay`, `maximize`, in every combination."""

    def rule(p, g, k, s, m, d, n, wd, up):
        g = (-g if up else g) + wd * p
        s["v"] = g if k == 1 else m * s["v"] + (1 - d) * g
        return p - 0.1 * (g + m * s["v"] if n else s["v"] if m else g)

    for m, d, n in ((0, 0, False), (0.9, 0, False), (0.9, 0.5, False), (0.9, 0, True)):
        for wd in (0, 0.3):
            for up in (False, True):
                settings = {"momentum": m, "dampening": d, "nesterov": n, "weight_decay": wd}
                follows(
                    lambda ws, k=settings, up=up: optim.SGD(ws, lr=0.1, maximize=up, **k),
                    lambda p, g, k, s, o=(m, d, n, wd, up): rule(p, g, k, s, *o),
                )


class SignDescent(optim.Optimizer):
    """An optimizer of one's own: where to, and how far."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, {"lr": lr})

    def update(self, p, g, state, group):
        p -= group["lr"] * np.sign(g)


@row("Optimisers", "custom step function", ancestors="macrograd")
def test_custom_step_function():
    """`class Mine(kg.optim.Optimizer)` with one method, `update(p, g, state, group)`."""
    follows(lambda ws: SignDescent(ws, lr=0.5), lambda p, g, k, s: p - 0.5 * np.sign(g))


@row("Optimisers", "RMSProp", ancestors="neograd")
def test_rmsprop():
    """`kg.optim.RMSprop(parameters, lr, alpha, eps)`, also with momentum and centered."""

    def rule(p, g, k, s):
        s["v"] = 0.9 * s.get("v", 0) + 0.1 * g * g
        return p - 0.01 * g / (np.sqrt(s["v"]) + 1e-8)

    follows(lambda ws: optim.RMSprop(ws, lr=0.01, alpha=0.9), rule)


@row("Optimisers", "AdaGrad / AdaDelta", ancestors="pygrad")
def test_adagrad_and_adadelta():
    """`kg.optim.Adagrad` and `kg.optim.Adadelta`."""

    def adagrad(p, g, k, s):
        s["v"] = s.get("v", 0) + g * g
        return p - 0.1 * g / (np.sqrt(s["v"]) + 1e-10)

    def adadelta(p, g, k, s):
        s["v"] = 0.9 * s.get("v", 0) + 0.1 * g * g
        move = np.sqrt(s.get("u", 0) + 1e-6) / np.sqrt(s["v"] + 1e-6) * g
        s["u"] = 0.9 * s.get("u", 0) + 0.1 * move**2
        return p - 0.5 * move

    follows(lambda ws: optim.Adagrad(ws, lr=0.1), adagrad)
    follows(lambda ws: optim.Adadelta(ws, lr=0.5, rho=0.9), adadelta)


def adam(p, g, k, s):
    """Adam with bias correction (Kingma and Ba, 2014)."""
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.999 * s.get("v", 0) + 0.001 * g * g
    return p - 0.01 * (s["m"] / (1 - 0.9**k)) / (np.sqrt(s["v"] / (1 - 0.999**k)) + 1e-8)


@row("Optimisers", "Adam", ancestors="synapgrad, neograd, pygrad, simple_autograd")
def test_adam():
    """`kg.optim.Adam(parameters, lr, betas, eps, weight_decay, amsgrad)`, with bias correction."""
    follows(lambda ws: optim.Adam(ws, lr=0.01), adam)
    follows(
        lambda ws: optim.Adam(ws, lr=0.01, weight_decay=0.2, maximize=True),
        lambda p, g, k, s: adam(p, -g + 0.2 * p, k, s),
    )


@row("Optimisers", "AdamW", ancestors="synapgrad")
def test_adamw():
    """`kg.optim.AdamW`: the weights decay by themselves, not through the gradient."""
    follows(
        lambda ws: optim.AdamW(ws, lr=0.01, weight_decay=0.2),
        lambda p, g, k, s: adam(p * (1 - 0.01 * 0.2), g, k, s),
    )


@row("Optimisers", "hooks before step", ancestors="pygrad")
def test_hooks_before_step():
    """`optimizer.register_step_pre_hook(hook)`; what it returns has `remove()`."""
    w = kg.tensor([1.0, 1.0], requires_grad=True)
    optimizer = optim.SGD([w], lr=1.0)

    def clip(optimizer, args, kwargs):
        kg.nn.utils.clip_grad_value_([w], 0.5)

    handle = optimizer.register_step_pre_hook(clip)
    (w * kg.tensor([0.25, 9.0])).sum().backward()
    optimizer.step()
    assert w.tolist() == [0.75, 0.5]
    handle.remove()
    w.grad.fill_(2.0)
    optimizer.step()
    assert w.tolist() == [-1.25, -1.5]


@row("Optimisers", "skips params without grad", ancestors="neograd, pygrad, simple_autograd")
def test_skips_parameters_without_gradient():
    """A parameter whose `.grad` is None is left as it is, without state; a frozen one can come back."""
    w, frozen = (kg.nn.Parameter(kg.ones(2)) for _ in range(2))
    optimizer = optim.Adam([w, frozen], lr=0.1, weight_decay=0.5)
    frozen.requires_grad_(False)
    (w * frozen).sum().backward()
    optimizer.step()
    assert frozen.tolist() == [1, 1] and frozen not in optimizer.state and w[0] < 1
    frozen.requires_grad_(True)
    (w * frozen).sum().backward()
    optimizer.step()
    assert frozen[0] < 1 and optimizer.state[frozen]["step"] == 1


@row("Optimisers", "optimiser state_dict", ancestors="simple_autograd")
def test_optimiser_state_dict():
    """`optimizer.state_dict()` and `load_state_dict`: moments, settings, and step counts too."""
    w = kg.tensor(numbers(3), requires_grad=True)
    v = w.detach().clone().requires_grad_()
    one, other = optim.Adam([w], lr=0.1), optim.Adam([v], lr=7.0)
    for k in range(6):
        if k == 3:
            other.load_state_dict(copy.deepcopy(one.state_dict()))
            assert other.state[v]["step"] == 3 and other.param_groups[0]["lr"] == 0.1
            v.data = w.detach().clone()
        w.grad = v.grad = kg.tensor(numbers(3))
        one.step()
        if k >= 3:
            other.step()
    assert kg.equal(w, v)


@row("Optimisers", "Adam.reset_iter", ancestors="neograd")
def test_adam_from_the_beginning():
    """`optimizer.state.clear()`: the next step is again the first, also for the bias correction."""
    w = kg.tensor([1.0], requires_grad=True)
    optimizer = optim.Adam([w], lr=0.1)
    for _ in range(3):
        w.grad = kg.tensor([5.0])
        optimizer.step()
    optimizer.state.clear()
    before = w.item()
    w.grad = kg.tensor([-0.01])
    optimizer.step()
    assert w.item() - before == pytest.approx(0.1, rel=1e-5)  # the first step's length is lr


def rates(make, epochs, *metrics):
    """The learning rate of each epoch."""
    optimizer = optim.SGD([kg.ones(1, requires_grad=True)], lr=0.8)
    schedule, found = make(optimizer), []
    for k in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step(*[m[k] for m in metrics])
    return found


@row("Schedulers", "linear / step", ancestors="macrograd")
def test_linear_and_step_schedules():
    """`lr_scheduler.LinearLR` and `lr_scheduler.StepLR`."""
    s = optim.lr_scheduler
    found = rates(lambda o: s.LinearLR(o, start_factor=0.25, end_factor=1.0, total_iters=3), 5)
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    found = rates(lambda o: s.StepLR(o, step_size=2, gamma=0.5), 6)
    assert found == pytest.approx([0.8, 0.8, 0.4, 0.4, 0.2, 0.2])


@row("Schedulers", "exponential / plateau", ancestors="macrograd")
def test_exponential_and_plateau_schedules():
    """`lr_scheduler.ExponentialLR`, and `ReduceLROnPlateau`, which is given the metric."""
    s = optim.lr_scheduler
    assert rates(lambda o: s.ExponentialLR(o, 0.5), 4) == pytest.approx([0.8, 0.4, 0.2, 0.1])
    losses = [1.0, 0.5, 0.5, 0.6, 0.5, 0.4]
    found = rates(lambda o: s.ReduceLROnPlateau(o, factor=0.1, patience=1), 6, losses)
    assert found == pytest.approx([0.8, 0.8, 0.8, 0.8, 0.08, 0.08])
