"""Every optimizer against PyTorch's: its ``optim_db`` samples and errors, then all options together."""

from __future__ import annotations

import itertools
import re
import warnings

import numpy as np
import pytest

import kilograd as kg

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_optimizers import optim_db

INFOS = {i.name: i for i in optim_db if i.name != "SparseAdam"}
SHAPES = [(4, 3), (3,), (), (2, 3, 2)]


def to_kg(value):
    if isinstance(value, torch.Tensor):
        t = kg.nn.Parameter(kg.tensor(value.detach().numpy().copy()), requires_grad=False)
        return t.requires_grad_() if value.requires_grad else kg.tensor(t.array)
    if isinstance(value, (tuple, list)):
        return type(value)(to_kg(v) for v in value)
    if isinstance(value, dict):
        return {k: to_kg(v) for k, v in value.items()}
    return value


def parameters(shapes, dtype="float64"):
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(s).astype(dtype) for s in shapes]
    goal = [rng.standard_normal(s).astype(dtype) for s in shapes]
    theirs = [torch.nn.Parameter(torch.tensor(a)) for a in start]
    ours = [kg.nn.Parameter(kg.tensor(a.copy())) for a in start]
    return theirs, ours, goal


def closure_of(params, goal, optimizer, like):
    def closure():
        optimizer.zero_grad()
        loss = sum((((p - like(g)) ** 2 + 0.1 * (p - like(g)) ** 4) * (i + 1)).sum()
                   for i, (p, g) in enumerate(zip(params, goal, strict=True)))  # fmt: skip
        loss.backward()
        return loss

    return closure


def compare(name, kwargs, steps=100, dtype="float64", tolerance=1e-10):
    shapes = [(4, 3), (2, 5)] if name == "Muon" else SHAPES
    theirs, ours, goal = parameters(shapes, dtype)
    # two groups with their own learning rates, but for LBFGS
    lr = 0.5 if name in ("Adadelta", "LBFGS") else 0.02
    lr = kwargs.get("lr", lr)
    scale = 1.0 if isinstance(lr, torch.Tensor) else 0.5
    rest = {k: v for k, v in kwargs.items() if k != "lr"}
    if name == "LBFGS":
        t = torch.optim.LBFGS(theirs, lr=lr, **rest)
        k = kg.optim.LBFGS(ours, lr=to_kg(lr), **to_kg(rest))
        steps = min(steps, 5)
    else:
        t, k = (
            getattr(module.optim, name)(
                [{"params": ps[:1]}, {"params": ps[1:], "lr": convert(lr * scale)}],
                lr=convert(lr), **convert(rest),
            )
            for module, ps, convert in ((torch, theirs, lambda v: v), (kg, ours, to_kg))
        )  # fmt: skip
    t_closure = closure_of(theirs, goal, t, torch.tensor)
    k_closure = closure_of(ours, goal, k, kg.tensor)
    for step in range(steps):
        a, b = t.step(t_closure), k.step(k_closure)
        np.testing.assert_allclose(
            b.item(), a.item(), rtol=tolerance, atol=tolerance, err_msg=str((name, kwargs, step))
        )
    for p, q in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(
            q.array, p.detach().numpy(), rtol=tolerance, atol=tolerance, err_msg=str((name, kwargs))
        )
    same_state(k.state_dict(), t.state_dict(), (name, kwargs), tolerance)
    return t, k


def same_state(ours, theirs, what, tolerance):
    assert list(ours) == list(theirs), what
    assert [list(g) for g in ours["param_groups"]] == [list(g) for g in theirs["param_groups"]], (
        what
    )
    for g, h in zip(ours["param_groups"], theirs["param_groups"], strict=True):
        for key, value in h.items():
            if isinstance(value, torch.Tensor):
                assert g[key].item() == value.item(), (what, key)
            else:
                assert g[key] == value, (what, key)
    assert list(ours["state"]) == list(theirs["state"]), what
    if what[0] == "LBFGS":
        return  # the same numbers, but it leaves out PyTorch's scratch memory
    for number, state in theirs["state"].items():
        mine = ours["state"][number]
        assert set(mine) == set(state), (what, set(mine), set(state))
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                a, b = mine[key].array, value.numpy()
                assert a.shape == b.shape, (what, key, a.dtype, b.dtype)
                np.testing.assert_allclose(
                    a, b, rtol=max(tolerance, 1e-6), atol=1e-7, err_msg=str((what, key))
                )
            else:
                assert mine[key] == value, (what, key)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(INFOS))
def test_samples(name):
    for sample in INFOS[name].optim_inputs_func("cpu"):
        if sample.kwargs.get("differentiable") or sample.kwargs.get("capturable"):
            continue
        loose = name == "Muon" or isinstance(sample.kwargs.get("lr"), torch.Tensor)
        compare(
            name,
            sample.kwargs,
            20 if name == "Muon" else 100,
            tolerance=2e-2 if name == "Muon" else 1e-5 if loose else 1e-8,
        )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(INFOS))
def test_errors(name):
    for case in INFOS[name].optim_error_inputs_func("cpu", torch.float32):
        sample = case.optimizer_error_input
        params = (
            to_kg(sample.params) if sample.params is not None else [kg.nn.Parameter(kg.zeros(2, 2))]
        )
        if case.error_type is UserWarning:
            p = kg.nn.Parameter(kg.zeros(1, 1))
            with pytest.warns(UserWarning, match=case.error_regex):
                getattr(kg.optim, name)([p, p])
            continue
        if "more than one parameter group" in case.error_regex:
            p = kg.nn.Parameter(kg.zeros(1, 1))
            params = [{"params": p}, {"params": p}]
        with pytest.raises(case.error_type, match=case.error_regex):
            getattr(kg.optim, name)(params, **to_kg(sample.kwargs))


def grid(**options):
    return [
        dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())
    ]


GRIDS = {
    "SGD": [
        g for g in grid(momentum=[0, 0.9], dampening=[0, 0.3], weight_decay=[0, 0.1], nesterov=[False, True], maximize=[False, True])
        if not (g["nesterov"] and (not g["momentum"] or g["dampening"]))
    ],
    "Adam": grid(betas=[(0.9, 0.999), (0.5, 0.8)], eps=[1e-8, 1e-2], weight_decay=[0, 0.1], amsgrad=[False, True], maximize=[False, True], decoupled_weight_decay=[False, True]),
    "AdamW": grid(weight_decay=[0, 0.1], amsgrad=[False, True], maximize=[False, True]),
    "RMSprop": grid(alpha=[0.99, 0.5], momentum=[0, 0.9], centered=[False, True], weight_decay=[0, 0.1], maximize=[False, True]),
    "Adagrad": grid(lr_decay=[0, 0.1], weight_decay=[0, 0.1], initial_accumulator_value=[0, 0.5], maximize=[False, True]),
    "Adadelta": grid(rho=[0.9, 0.5], weight_decay=[0, 0.1], maximize=[False, True]),
    "Adamax": grid(betas=[(0.9, 0.999), (0.5, 0.8)], weight_decay=[0, 0.1], maximize=[False, True]),
    "NAdam": grid(momentum_decay=[4e-3, 0.1], weight_decay=[0, 0.1], decoupled_weight_decay=[False, True], maximize=[False, True]),
    "RAdam": grid(betas=[(0.9, 0.999), (0.5, 0.8)], weight_decay=[0, 0.1], decoupled_weight_decay=[False, True], maximize=[False, True]),
    "Rprop": grid(etas=[(0.5, 1.2), (0.2, 1.5)], step_sizes=[(1e-6, 50), (1e-3, 0.1)], maximize=[False, True]),
    "ASGD": grid(lambd=[1e-4, 0.1], t0=[1e6, 10], weight_decay=[0, 0.1], maximize=[False, True]),
    "Adafactor": grid(eps=[(None, 1e-3), (1e-3, 1e-2)], d=[1.0, 1.5], weight_decay=[0.0, 0.1], maximize=[False, True]),
    "LBFGS": grid(line_search_fn=[None, "strong_wolfe"], history_size=[3, 100], max_iter=[5, 20], lr=[0.1, 1]),
    "Muon": grid(nesterov=[False, True], adjust_lr_fn=[None, "match_rms_adamw"], weight_decay=[0.0, 0.1]),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(GRIDS))
def test_options_together(name):
    for kwargs in GRIDS[name]:
        steps = 10 if kwargs.get("maximize") or name == "Muon" else 60
        compare(name, kwargs, steps, tolerance=2e-2 if name == "Muon" else 1e-8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(GRIDS))
def test_state_dict_goes_over_and_back(name):
    """Half of the steps, then PyTorch's state into ours: the other half is the same."""
    theirs, k = compare(name, GRIDS[name][-1], 5, tolerance=2e-2 if name == "Muon" else 1e-8)
    state = theirs.state_dict()
    k.load_state_dict(to_kg(state))
    if name != "LBFGS":
        same_state(k.state_dict(), state, (name, "loaded"), 1e-7)
    assert re.sub(r"\s+", " ", repr(k)) == re.sub(r"\s+", " ", repr(theirs))
