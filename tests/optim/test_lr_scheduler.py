"""Every schedule against PyTorch's: the same rates to the last bit, states, resuming, errors."""

from __future__ import annotations

import math
import warnings

import pytest

import kilograd as kg

torch = pytest.importorskip("torch")

A = [("StepLR", (3,), {}), ("StepLR", (2, 0.5), {}), ("MultiStepLR", ([2, 5, 5, 9],), {"gamma": 0.3}),
     ("ConstantLR", (), {}), ("ConstantLR", (0.1, 4), {}), ("LinearLR", (), {}),
     ("LinearLR", (0.2, 0.7, 9), {}), ("ExponentialLR", (0.87,), {}),
     ("PolynomialLR", (7, 1.5), {}), ("PolynomialLR", (), {}), ("CosineAnnealingLR", (7,), {}),
     ("CosineAnnealingLR", (5, 0.01), {}), ("LambdaLR", (lambda e: 0.95**e,), {}),
     ("LambdaLR", ([lambda e: 0.95**e, lambda e: 1 / (1 + e)],), {}),
     ("MultiplicativeLR", (lambda e: 0.9 + 0.01 * e,), {}),
     ("CosineAnnealingWarmRestarts", (3,), {}), ("CosineAnnealingWarmRestarts", (3, 2, 0.001), {}),
     ("CyclicLR", (0.01, 0.2, 4), {}), ("CyclicLR", (0.01, [0.2, 0.3], 3, 5), {"mode": "triangular2"}),
     ("CyclicLR", (0.01, 0.2, 4), {"mode": "exp_range", "gamma": 0.97}),
     ("CyclicLR", (0.01, 0.2, 4), {"scale_fn": lambda x: 1 / (5**x), "scale_mode": "iterations"}),
     ("CyclicLR", (0.01, 0.2, 4), {"cycle_momentum": False}),
     ("OneCycleLR", (0.3, 25), {}), ("OneCycleLR", ([0.3, 0.2],), {"epochs": 5, "steps_per_epoch": 5}),
     ("OneCycleLR", (0.3, 25), {"anneal_strategy": "linear", "three_phase": True, "pct_start": 0.4}),
     ("OneCycleLR", (0.3, 25), {"cycle_momentum": False, "div_factor": 5.0})]  # fmt: skip
IDS = [f"{name}{i}" for i, (name, _, _) in enumerate(A)]


def optimizers(kind="SGD", **settings):
    settings = {"lr": 0.1, **({"momentum": 0.9} if kind == "SGD" else {}), **settings}
    made = []
    for module, p in ((torch, torch.zeros), (kg, kg.zeros)):
        params = [
            {"params": [p(1, requires_grad=True)]},
            {"params": [p(1, requires_grad=True)], "lr": 0.05},
        ]
        made.append(getattr(module.optim, kind)(params, **settings))
    return made


def visible(optimizer):
    return [
        {k: v for k, v in g.items() if "lr" in k or "moment" in k or k == "betas"}
        for g in optimizer.param_groups
    ]


def plain(state):
    """A state without the functions in it."""
    return {
        k: [plain(s) for s in v] if k == "_schedulers" else v
        for k, v in state.items()
        if not callable(v) and k not in ("_is_initial", "_get_lr_called_within_step")
    }


def walk(schedules, optimizers, steps):
    for _ in range(steps):
        for s, o in zip(schedules, optimizers, strict=True):
            o.step()
            s.step()
        (t, k), (a, b) = schedules, optimizers
        assert k.get_last_lr() == t.get_last_lr()
        assert visible(b) == visible(a)
        assert plain(k.state_dict()) == plain(t.state_dict())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize(("name", "args", "kwargs"), A, ids=IDS)
def test_rates(name, args, kwargs, kind):
    both = optimizers(kind)
    schedules = [
        getattr(m.optim.lr_scheduler, name)(o, *args, **kwargs)
        for m, o in zip((torch, kg), both, strict=True)
    ]
    assert visible(both[1]) == visible(both[0])
    walk(schedules, both, 24)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "args", "kwargs"), A, ids=IDS)
def test_resuming(name, args, kwargs):
    both = optimizers()
    for o in both:
        for group in o.param_groups:
            group.update(
                initial_lr=group["lr"],
                max_lr=0.3,
                min_lr=0.001,
                max_momentum=0.9,
                base_momentum=0.8,
            )
    schedules = [
        getattr(m.optim.lr_scheduler, name)(o, *args, last_epoch=4, **kwargs)
        for m, o in zip((torch, kg), both, strict=True)
    ]
    walk(schedules, both, 12)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "args", "kwargs"), A, ids=IDS)
def test_given_epochs_and_states(name, args, kwargs):
    both = optimizers()
    made = [getattr(m.optim.lr_scheduler, name) for m in (torch, kg)]
    schedules = [c(o, *args, **kwargs) for c, o in zip(made, both, strict=True)]
    for epoch in (0, 5, 2, 11):
        for s in schedules:
            s.step(epoch)
        assert schedules[1].get_last_lr() == schedules[0].get_last_lr(), epoch
    walk(schedules, both, 3)
    again = optimizers()
    fresh = [c(o, *args, **kwargs) for c, o in zip(made, again, strict=True)]
    for f, s in zip(fresh, schedules, strict=True):
        f.load_state_dict(s.state_dict())
    assert fresh[1].last_epoch == fresh[0].last_epoch
    walk(fresh, again, 3)


@pytest.mark.filterwarnings("ignore")
def test_joint_schedules():
    for build in (
        lambda m, o: m.SequentialLR(o, [m.ConstantLR(o, 0.1, 2), m.ExponentialLR(o, 0.9)], [3]),
        lambda m, o: m.SequentialLR(o, [m.LinearLR(o, 0.1), m.CosineAnnealingLR(o, 5), m.StepLR(o, 2)], [4, 9]),
        lambda m, o: m.ChainedScheduler([m.ConstantLR(o, 0.1, 2), m.ExponentialLR(o, 0.9)]),
        lambda m, o: m.ChainedScheduler([m.LinearLR(o), m.StepLR(o, 3, 0.5), m.MultiStepLR(o, [5])], o),
        lambda m, o: m.SequentialLR(o, [m.SequentialLR(o, [m.ConstantLR(o), m.StepLR(o, 2)], [3]), m.LinearLR(o)], [6]),
    ):  # fmt: skip
        both = optimizers()
        schedules = [build(m.optim.lr_scheduler, o) for m, o in zip((torch, kg), both, strict=True)]
        assert visible(both[1]) == visible(both[0])
        walk(schedules, both, 15)


@pytest.mark.parametrize("kwargs", [
    {"patience": 2}, {"mode": "max", "patience": 1, "factor": 0.5}, {"patience": 0, "cooldown": 2},
    {"threshold": 0.1, "patience": 1}, {"threshold": 0.1, "threshold_mode": "abs", "patience": 1},
    {"patience": 0, "min_lr": [0.01, 0.02]}, {"patience": 0, "min_lr": 0.03, "eps": 1e-2},
    {"mode": "max", "threshold_mode": "abs", "threshold": 0.05, "patience": 0},
])  # fmt: skip
def test_plateau(kwargs):
    both = optimizers()
    schedules = [
        m.optim.lr_scheduler.ReduceLROnPlateau(o, **kwargs)
        for m, o in zip((torch, kg), both, strict=True)
    ]
    for i in range(25):
        metric = math.sin(i / 3) + 1.5 - i * 0.02
        for s in schedules:
            s.step(metric)
        assert schedules[1].get_last_lr() == schedules[0].get_last_lr()
        assert schedules[1].state_dict() == schedules[0].state_dict()


def happens(f):
    """The exception and the kinds of warnings of a call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        error = None
        try:
            f()
        except Exception as e:
            error = e
    return error, [w.category for w in caught]


@pytest.mark.parametrize("f", [
    lambda m, o: m.StepLR(o, 2, last_epoch=3), lambda m, o: m.StepLR(3, 2),
    lambda m, o: m.StepLR(o, 2).step(), lambda m, o: m.StepLR(o, 2).get_lr(),
    lambda m, o: m.StepLR(o, 2, verbose=True), lambda m, o: m.LambdaLR(o, [abs]),
    lambda m, o: m.MultiplicativeLR(o, [abs]), lambda m, o: m.ConstantLR(o, factor=1.5),
    lambda m, o: m.ConstantLR(o, factor=-1), lambda m, o: m.LinearLR(o, start_factor=0),
    lambda m, o: m.LinearLR(o, start_factor=1.5), lambda m, o: m.LinearLR(o, end_factor=-0.1),
    lambda m, o: m.CosineAnnealingWarmRestarts(o, 0), lambda m, o: m.CosineAnnealingWarmRestarts(o, 2, 0),
    lambda m, o: m.CosineAnnealingWarmRestarts(o, 2).step(-1), lambda m, o: m.CyclicLR(o, 0.1, 0.2, mode="x"),
    lambda m, o: m.CyclicLR(o, [0.1], 0.2), lambda m, o: m.OneCycleLR(o, 0.1),
    lambda m, o: m.OneCycleLR(o, 0.1, -1), lambda m, o: m.OneCycleLR(o, 0.1, epochs=0, steps_per_epoch=2),
    lambda m, o: m.OneCycleLR(o, 0.1, epochs=2, steps_per_epoch=-2),
    lambda m, o: m.OneCycleLR(o, 0.1, 10, pct_start=2), lambda m, o: m.OneCycleLR(o, 0.1, 10, anneal_strategy="x"),
    lambda m, o: [m.OneCycleLR(o, 0.1, 1), m.OneCycleLR(o, 0.1, 1)],
    lambda m, o: m.ReduceLROnPlateau(o, mode="x"), lambda m, o: m.ReduceLROnPlateau(o, factor=1.0),
    lambda m, o: m.ReduceLROnPlateau(o, threshold_mode="x"), lambda m, o: m.ReduceLROnPlateau(o, min_lr=[1]),
    lambda m, o: m.SequentialLR(o, [], []), lambda m, o: m.SequentialLR(o, [m.StepLR(o, 2)], [3]),
    lambda m, o: m.SequentialLR(o, [m.StepLR(o, 2), m.ReduceLROnPlateau(o)], [3]),
    lambda m, o: m.ChainedScheduler([]), lambda m, o: m.ChainedScheduler([m.ReduceLROnPlateau(o)]),
])  # fmt: skip
def test_errors_and_warnings(f):
    both = optimizers()
    (a, v), (b, w) = (
        happens(lambda: f(m.optim.lr_scheduler, o)) for m, o in zip((torch, kg), both, strict=True)
    )
    assert type(b) is type(a), (a, b)
    assert w == v


@pytest.mark.filterwarnings("ignore")
def test_tensor_learning_rate_stays_the_same_tensor():
    lr = kg.tensor(0.5)
    optimizer = kg.optim.SGD([kg.zeros(1, requires_grad=True)], lr=lr)
    schedule = kg.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    schedule.step()
    assert optimizer.param_groups[0]["lr"] is lr
    assert lr.item() == 0.25
