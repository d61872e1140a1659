"""Training steps compiled with ``check=True``: every layer, loss and optimizer, and the examples.

Each call of a checked program is also run eagerly from the same state and compared: results,
parameters, buffers, optimizer state, gradients.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import itertools
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kilograd as kg
from kilograd import nn
from kilograd.errors import TraceError
from kilograd.nn import functional as F
from tests.nn.test_module_db import INFOS, NAMES, build, samples, tensors, to_kg

torch = pytest.importorskip("torch")
BACKENDS = ["numpy", "numba"]


@pytest.fixture(autouse=True, scope="module")
def quick_collections():
    """A recording looks for tensors that outlive it: PyTorch's hundred thousand objects are not."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def programs(step: Any) -> list[Any]:
    return [p for found in step.programs.values() for p in found]


def compiled(fn: Any, backend: str, fullgraph: bool = True, check: bool = True) -> Any:
    return kg.compile(fn, check=check, fullgraph=fullgraph, backend=backend)


# --- layers -------------------------------------------------------------------------------------

CANNOT_SOMETIMES = {"CTCLoss": "lengths in a tensor decide how much of the targets counts"}


MOST = 8  # samples of a layer, spread over all of them


def layers(name: str, training: bool) -> Any:
    """(what, layer, args, kwargs) for PyTorch's own samples of a layer."""
    dtype = torch.float64 if name.startswith("Fractional") else torch.float32
    seen = set()
    for sample in samples(name, dtype, training):
        if sample.forward_input is None:
            continue
        c = sample.constructor_input
        what = (name, sample.desc, str(c.args), str(c.kwargs))
        args, kwargs = to_kg((sample.forward_input.args, sample.forward_input.kwargs))
        shapes = tuple((tuple(t.shape), str(t.dtype)) for t in tensors((args, kwargs)))
        if (what, shapes) in seen:
            continue
        seen.add((what, shapes))
        kg.manual_seed(3)
        layer = build(getattr(nn, name), to_kg(c.args),
                      to_kg({k: v for k, v in c.kwargs.items() if k != "device"}))  # fmt: skip
        layer.to(to_kg(dtype)).train(training)
        yield what, layer, args, kwargs


def train_layer(layer: Any, args: Any, kwargs: Any, backend: str, what: Any) -> None:
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in layer.parameters()):
        layer(*args, **kwargs)  # lazy: its first call makes the parameters
    optimizer = None
    if list(layer.parameters()):
        optimizer = kg.optim.SGD(layer.parameters(), lr=0.01, momentum=0.9)

    def step(args: Any, kwargs: Any) -> Any:
        if optimizer is not None:
            optimizer.zero_grad()
        outs = tensors(layer(*args, **kwargs))
        live = [y for y in outs if y.requires_grad]
        leaves = [t for t in tensors((args, kwargs)) if t.requires_grad]
        if not live:
            return outs
        loss = sum((y * y).mean() if y.numel() else y.sum() for y in live)
        inputs = (
            kg.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True) if leaves else ()
        )
        if optimizer is not None:
            loss.backward()
            nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
            optimizer.step()
        return [y.detach() for y in outs], inputs

    step = compiled(step, backend)
    for _ in range(4):
        step(args, kwargs)
    assert sum(p.runs for p in programs(step)) >= 2, f"{what}: no program ran"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_layer(name: str, training: bool, backend: str) -> None:
    assert name in INFOS
    cases = list(layers(name, training))
    for what, layer, args, kwargs in cases[:: max(1, len(cases) // MOST)]:
        with contextlib.suppress(*(TraceError,) if name in CANNOT_SOMETIMES else ()):
            train_layer(layer, args, kwargs, backend, what)


# --- optimizers ---------------------------------------------------------------------------------

LR = {"Adadelta": 0.5}


def settings(name: str) -> list[dict[str, Any]]:
    """PyTorch's samples of an optimizer's settings."""
    from tests.optim.test_optim_db import INFOS as OPTIMIZERS

    found: list[dict[str, Any]] = []
    for sample in OPTIMIZERS[name].optim_inputs_func("cpu"):
        kwargs = dict(sample.kwargs)
        if kwargs.pop("differentiable", False) or kwargs.pop("capturable", False):
            continue
        found.append(kwargs)
    return found


def optimizers() -> list[str]:
    from tests.optim.test_optim_db import INFOS as OPTIMIZERS

    return [n for n in OPTIMIZERS if n != "LBFGS"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", optimizers())
@pytest.mark.filterwarnings("ignore")
def test_optimizer(name: str, backend: str) -> None:
    for kwargs in settings(name):
        kg.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4, bias=name != "Muon"), nn.Tanh(),
                              nn.Linear(4, 2, bias=name != "Muon"))  # fmt: skip
        options = {"lr": LR.get(name, 0.02), **kwargs}
        if isinstance(options["lr"], torch.Tensor):
            options["lr"] = kg.tensor(options["lr"].item())
        elif options["lr"] is None:
            del options["lr"]
        optimizer = getattr(kg.optim, name)(model.parameters(), **options)
        scheduler = kg.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)

        def step(x: Any, y: Any, model: Any = model, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        step = compiled(step, backend)
        losses = []
        for k in range(6):
            if k == 5:
                count = len(programs(step))
            losses.append(step(kg.randn(5, 3), kg.randn(5, 2)).item())
            scheduler.step()
        assert np.isfinite(losses).all(), (name, kwargs)
        assert len(programs(step)) == count <= 3, (name, kwargs, len(programs(step)))
        assert sum(p.runs for p in programs(step)) >= 3, (name, kwargs)


def test_lbfgs_runs_eagerly_with_one_warning() -> None:
    model = nn.Linear(3, 1)
    optimizer = kg.optim.LBFGS(model.parameters(), max_iter=3)
    x, y = kg.randn(8, 3), kg.randn(8, 1)

    @kg.compile(backend="numpy")
    def step() -> Any:
        def closure() -> Any:
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            return loss

        return optimizer.step(closure)

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        losses = [step().item() for _ in range(4)]
    assert len([w for w in seen if "kg.compile" in str(w.message)]) == 1
    assert losses[-1] < losses[0]
    assert not programs(step)


# --- the networks of the benchmarks and examples --------------------------------------------------

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def benchmark(name: str) -> Any:
    """A module of benchmarks/, which import each other by name."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


def steps_of(name: str, backend: str, monkeypatch: Any) -> tuple[Any, Any]:
    """The training step of a workload as a function of a batch, and its batches."""
    module = benchmark("workloads")
    found: list[Any] = []

    def stepper(model: Any, criterion: Any, optimizer: Any, data: Any) -> Any:
        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            return loss

        found[:] = compiled(step, backend, check=name not in ROUNDING), data
        return step

    monkeypatch.setattr(module, "stepper", stepper)
    module.WORKLOADS[name](kg)
    return found[0], found[1]


# The gradient of a bias before a batch norm is 0 but for rounding, of which Adam makes a whole step: there
# the losses are compared, not each parameter. In a ResNet a unit close to 0 may be on in one and off in the
# other, which changes single gradients by more than rounding.
ROUNDING = ("mnist_mlp", "mnist_cnn", "resnet8")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [n for n in benchmark("workloads").WORKLOADS if n != "digits_gan"])
def test_workload(name: str, backend: str, monkeypatch: Any) -> None:
    step, data = steps_of(name, backend, monkeypatch)
    kg.manual_seed(3)
    losses = [step(*next(data)).item() for _ in range(4)]
    if name in ROUNDING:
        twin, data = steps_of(name, backend, monkeypatch)
        kg.manual_seed(3)
        np.testing.assert_allclose(
            losses, [twin.fn(*next(data)).item() for _ in range(4)], rtol=1e-3
        )
    assert np.isfinite(losses).all()
    assert len(programs(step)) <= 2 and sum(p.runs for p in programs(step)) >= 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_gan(backend: str) -> None:
    def mlp(*last: Any) -> Any:
        return nn.Sequential(nn.Linear(8, 6), nn.LeakyReLU(0.01), *last)

    generator, critic = mlp(nn.Linear(6, 8)), mlp(nn.Linear(6, 1), nn.Sigmoid())
    g_optimizer = kg.optim.Adam(generator.parameters(), lr=5e-3)
    c_optimizer = kg.optim.Adam(critic.parameters(), lr=5e-3)
    criterion, yes, no = nn.BCELoss(), kg.ones(10, 1), kg.zeros(10, 1)

    def step(real: Any) -> Any:
        fake = generator(kg.randn(10, 8))
        c_optimizer.zero_grad()
        loss = criterion(critic(real), yes) + criterion(critic(fake.detach()), no)
        loss.backward()
        c_optimizer.step()
        critic.requires_grad_(False)
        g_optimizer.zero_grad()
        criterion(critic(fake), yes).backward()
        g_optimizer.step()
        critic.requires_grad_(True)
        return loss

    step = compiled(step, backend)
    for _ in range(5):
        step(kg.randn(10, 8))
    assert sum(p.runs for p in programs(step)) >= 2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", list(benchmark("compiled_workloads").WORKLOADS))
def test_timed_network(name: str, backend: str) -> None:
    workload = benchmark("compiled_workloads").WORKLOADS[name](kg)
    step = compiled(workload.function, backend, check=name not in ROUNDING)
    batches = list(itertools.islice(itertools.cycle(workload.data), 4))
    with workload.mode():
        kg.manual_seed(3)
        found = [step(*batch) for batch in batches]
        if name in ROUNDING:
            twin = benchmark("compiled_workloads").WORKLOADS[name](kg)
            kg.manual_seed(3)
            for a, batch in zip(found, batches, strict=True):
                np.testing.assert_allclose(a.item(), twin.function(*batch).item(), rtol=1e-3)
    assert 1 <= len(programs(step)) <= 2 and sum(p.runs for p in programs(step)) >= 1


def test_dropout_of_a_transposed_input_is_recorded():
    layer = kg.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    step = kg.compile(lambda x: layer(x).sum(), fullgraph=True, check=True)
    for _ in range(3):
        step(kg.randn(2, 5, 8))
