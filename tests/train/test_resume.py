"""Training that goes on from a checkpoint gives the numbers of training that never stopped."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest

import kilograd as kg
from kilograd import nn
from kilograd.optim import lr_scheduler as lrs
from kilograd.train import Batches, Checkpoint, rng_state, set_rng_state
from kilograd.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from kilograd.utils.data.resumable import all_states

OPTIMIZERS = {
    "Adadelta": {}, "Adafactor": {}, "Adagrad": {}, "Adam": {"amsgrad": True}, "AdamW": {},
    "Adamax": {}, "ASGD": {"t0": 5.0}, "LBFGS": {"max_iter": 3}, "Muon": {}, "NAdam": {},
    "RAdam": {}, "RMSprop": {"momentum": 0.9, "centered": True}, "Rprop": {},
    "SGD": {"momentum": 0.9, "nesterov": True},
}  # fmt: skip
SCHEDULES = {
    "StepLR": lambda o: lrs.StepLR(o, 3),
    "MultiStepLR": lambda o: lrs.MultiStepLR(o, [2, 5, 5, 7]),
    "ConstantLR": lambda o: lrs.ConstantLR(o, 0.3, 6),
    "LinearLR": lambda o: lrs.LinearLR(o, 0.2, 0.9, 9),
    "ExponentialLR": lambda o: lrs.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: lrs.PolynomialLR(o, 12, 1.5),
    "CosineAnnealingLR": lambda o: lrs.CosineAnnealingLR(o, 7),
    "CosineAnnealingWarmRestarts": lambda o: lrs.CosineAnnealingWarmRestarts(o, 3, 2),
    "CyclicLR": lambda o: lrs.CyclicLR(o, 0.01, 0.1, 4),
    "CyclicLR custom": lambda o: lrs.CyclicLR(o, 0.01, 0.1, 4, scale_fn=lambda x: 0.9**x),
    "OneCycleLR": lambda o: lrs.OneCycleLR(o, 0.1, 50),
    "LambdaLR": lambda o: lrs.LambdaLR(o, lambda e: 0.9**e),
    "MultiplicativeLR": lambda o: lrs.MultiplicativeLR(o, lambda e: 0.9),
    "SequentialLR": lambda o: lrs.SequentialLR(
        o, [lrs.LinearLR(o, 0.1, 1.0, 4), lrs.MultiStepLR(o, [2, 3])], [5]
    ),
    "ChainedScheduler": lambda o: lrs.ChainedScheduler(
        [lrs.ExponentialLR(o, 0.9), lrs.MultiStepLR(o, [4, 6])]
    ),
    "ReduceLROnPlateau": lambda o: lrs.ReduceLROnPlateau(o, patience=1),
}


@pytest.fixture(autouse=True)
def deterministic():
    """Without it, a small op that has been done often becomes native, and may round differently."""
    kg.use_deterministic_algorithms(True)
    yield
    kg.use_deterministic_algorithms(False)


def test_no_optimizer_or_schedule_is_forgotten():
    made = {k for k, v in vars(kg.optim).items() if isinstance(v, type) and k != "Optimizer"}
    assert made == set(OPTIMIZERS)
    assert {k.split()[0] for k in SCHEDULES} == set(lrs.__all__) - {"LRScheduler"}


class Run:
    """A small network with dropout, batch norm, a schedule, and an order of its own."""

    def __init__(
        self, optimizer="Adam", schedule="StepLR", dtype=kg.float32, compiled=False, **how
    ):
        kg.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        flat = optimizer == "Muon"  # takes matrices only
        layers = [nn.Linear(4, 6, bias=not flat), nn.Tanh(), nn.Dropout(0.2)]
        layers += [] if flat else [nn.BatchNorm1d(6)]
        self.model = nn.Sequential(*layers, nn.Linear(6, 2, bias=not flat)).to(dtype)
        settings = {"lr": 0.02, **OPTIMIZERS[optimizer]}
        self.optimizer = getattr(kg.optim, optimizer)(self.model.parameters(), **settings)
        self.schedule = SCHEDULES[schedule](self.optimizer)
        g = kg.Generator().manual_seed(5)
        data = TensorDataset(
            kg.randn(20, 4, generator=g).to(dtype), kg.randint(0, 2, (20,), generator=g)
        )
        self.batches = Batches(DataLoader(data, 4, shuffle=True, **how))
        self.step = kg.compile(self.plain_step) if compiled else self.plain_step
        self.losses = []
        self.checkpoint = Checkpoint(
            model=self.model, optimizer=self.optimizer, schedule=self.schedule, batches=self.batches
        )

    def plain_step(self, x, y):
        def closure():
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(x), y)
            loss.backward()
            return loss

        if isinstance(self.optimizer, kg.optim.LBFGS):
            return self.optimizer.step(closure)
        loss = closure()
        self.optimizer.step()
        return loss

    def train(self, epochs, stop_after=None, path=None):
        while self.batches.epoch < epochs:
            for x, y in self.batches:
                noise = random.random() + np.random.rand()  # augmentation of the user's own
                self.losses.append(float(self.step(x + 0.01 * noise, y)))
                if len(self.losses) == stop_after:
                    self.checkpoint.save(path, losses=self.losses)
                    return
            if isinstance(self.schedule, lrs.ReduceLROnPlateau):
                self.schedule.step(self.losses[-1])
            else:
                self.schedule.step()

    def bits(self):
        arrays = [t.array for t in self.model.state_dict().values()]
        return [a.tobytes() for a in arrays] + [kg.get_rng_state().array.tobytes()]


def resumed(tmp_path, stop_after, epochs, **settings):
    """(a run that never stopped, one that was stopped, the one that went on after it)."""
    whole = Run(**settings)
    whole.train(epochs)
    first = Run(**settings)
    first.train(epochs, stop_after, tmp_path / "c.kg")
    kg.manual_seed(99)
    second = Run(**settings)
    random.seed(77)
    np.random.seed(77)
    second.losses = second.checkpoint.load(tmp_path / "c.kg")["losses"]
    return whole, first, second


@pytest.mark.parametrize("dtype", [kg.float32, kg.float64], ids=str)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_goes_on_bit_for_bit(tmp_path, optimizer, dtype):
    whole, _, second = resumed(tmp_path, 13, 5, optimizer=optimizer, dtype=dtype)
    before = whole.bits()[:-1]
    second.train(5)
    assert second.losses == whole.losses and second.bits()[:-1] == before


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_goes_on_bit_for_bit(tmp_path, schedule):
    with warnings.catch_warnings():
        whole, _, second = resumed(tmp_path, 17, 9, schedule=schedule, optimizer="SGD")
        second.train(9)
    assert second.losses == whole.losses and second.bits()[:-1] == whole.bits()[:-1]
    assert [g["lr"] for g in second.optimizer.param_groups] == [
        g["lr"] for g in whole.optimizer.param_groups
    ]


@pytest.mark.parametrize("optimizer", [o for o in OPTIMIZERS if o != "LBFGS"])
def test_compiled_steps_go_on_bit_for_bit(tmp_path, optimizer):
    whole = Run(optimizer, compiled=True)
    whole.train(5)
    first = Run(optimizer, compiled=True)
    first.train(5, 13, tmp_path / "c.kg")
    second = Run(optimizer, compiled=True)
    for _ in range(3):  # the steps of a new program are eager at first, and round differently
        second.step(kg.randn(4, 4), kg.randint(0, 2, (4,)))
    second.losses = second.checkpoint.load(tmp_path / "c.kg")["losses"]
    second.train(5)
    assert second.losses == whole.losses and second.bits()[:-1] == whole.bits()[:-1]
    assert "programs: 1," in second.step.explain()


PROGRAM = """
import hashlib, os, signal, sys
import numpy as np
import kilograd as kg
from kilograd import nn
from kilograd.train import Batches, Checkpoint, CheckpointManager
from kilograd.utils.data import DataLoader, TensorDataset

folder, compiled, die = sys.argv[1], sys.argv[2] == "compiled", int(sys.argv[3])
kg.use_deterministic_algorithms(True)
kg.manual_seed(0 if die >= 0 else 1)
model = nn.Sequential(nn.Linear(20, 150), nn.ReLU(), nn.Dropout(0.1), nn.Linear(150, 150), nn.Tanh(), nn.Linear(150, 3))
optimizer = kg.optim.AdamW(model.parameters())
schedule = kg.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, 60)
g = np.random.default_rng(0)
data = TensorDataset(kg.tensor(g.random((48, 20), np.float32)), kg.tensor(g.integers(0, 3, 48)))
batches = Batches(DataLoader(data, 8, shuffle=True))


def step(x, y):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


if compiled:
    step = kg.compile(step)
    if die < 0:
        for _ in range(3):
            step(kg.randn(8, 20), kg.zeros(8, dtype=kg.int64))
manager = CheckpointManager(
    folder, Checkpoint(model=model, optimizer=optimizer, schedule=schedule, batches=batches), keep_last=1
)
values = manager.resume() or {"losses": []}
losses = values["losses"]
while batches.epoch < 10:
    for x, y in batches:
        losses.append(step(x, y).item())
        schedule.step()
        if len(losses) == die:
            manager.save(losses=losses)
            os.kill(os.getpid(), signal.SIGKILL)
bits = b"".join(t.array.tobytes() for t in model.state_dict().values())
print(losses, hashlib.sha256(bits).hexdigest(), kg.rand(()).item())
"""


@pytest.mark.parametrize("how", ["eager", "compiled"])
@pytest.mark.parametrize("die", [30, 33])  # after an epoch's last batch, and in the middle of one
def test_a_process_that_was_killed_goes_on_in_another(tmp_path, how, die):
    def run(folder, die):
        return subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / folder), how, str(die)],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    whole = run("a", 10**6)
    assert whole.returncode == 0, whole.stderr
    assert run("b", die).returncode == -signal.SIGKILL
    resumed = run("b", -1)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout == whole.stdout


# --- places in an epoch ---------------------------------------------------------------------------


class Noisy(Dataset):
    """Samples that are augmented with all three global generators, and counted."""

    def __init__(self):
        self.loaded = 0

    def __len__(self):
        return 11

    def __getitem__(self, i):
        self.loaded += 1
        return kg.tensor([i, random.random(), np.random.rand(), float(kg.rand(()))])


class Stream(IterableDataset):
    def __iter__(self):
        return iter([i + random.random() for i in range(11)])


class Shuffled:
    """A loader of the user's own, that shuffles with Python's generator."""

    def __iter__(self):
        order = list(range(6))
        random.shuffle(order)
        return iter(order)

    def __len__(self):
        return 6


class Shared(Noisy):
    """Augmentation with the generator that draws the order."""

    def __init__(self, generator):
        super().__init__()
        self.generator = generator

    def __getitem__(self, i):
        return kg.rand(2, generator=self.generator) + i


class Skipping(DataLoader):
    """A loader whose iteration is not the one that its base class counts."""

    def __iter__(self):
        order = list(self.batch_sampler)
        return (self.dataset[i] for batch in order for i in batch if i % 3)

    def __len__(self):
        return 7


def shared():
    generator = own()
    return DataLoader(Shared(generator), 2, shuffle=True, generator=generator)


def own(seed=3):
    return kg.Generator().manual_seed(seed)


LOADERS = {
    "shuffle": lambda: DataLoader(Noisy(), 2, shuffle=True),
    "shuffle, own generator": lambda: DataLoader(Noisy(), 2, shuffle=True, generator=own()),
    "one by one": lambda: DataLoader(Noisy(), None, sampler=RandomSampler(Noisy())),
    "replacement": lambda: DataLoader(
        Noisy(), 2, sampler=RandomSampler(Noisy(), True, 70, generator=own())
    ),
    "more than all": lambda: DataLoader(Noisy(), 2, sampler=RandomSampler(Noisy(), False, 25)),
    "some": lambda: DataLoader(Noisy(), 2, sampler=SubsetRandomSampler([1, 3, 5, 7], own())),
    "weighted": lambda: DataLoader(
        Noisy(), 2, sampler=WeightedRandomSampler([1.0] * 11, 9, generator=own())
    ),
    "in order": lambda: DataLoader(Noisy(), 3, drop_last=True),
    "stream": lambda: DataLoader(Stream(), 2),
    "not ours": Shuffled,
    "Python's generator": lambda: DataLoader(Noisy(), 2, sampler=Shuffled()),
    "one generator for all": shared,
    "an iteration of its own": lambda: Skipping(Noisy(), 2, shuffle=True),
}  # fmt: skip


def drawn(batches, epochs, seen, stop=None):
    """What training for some epochs sees: the batches, and draws of its own between them."""
    while batches.epoch < epochs:
        for batch in batches:
            values = np.asarray(getattr(batch, "array", batch)).tolist()
            seen.append(
                (batches.epoch, values, random.random(), np.random.rand(), float(kg.rand(())))
            )
            if len(seen) == stop:
                return seen
    return seen


def seeded():
    kg.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


@pytest.mark.parametrize("loader", LOADERS)
def test_batches_go_on_after_the_last_one_given_out(tmp_path, loader):
    seeded()
    n = len(LOADERS[loader]()) if loader != "stream" else 6
    whole = drawn(Batches(LOADERS[loader]()), 3, [])
    assert len(whole) == 3 * n
    seeded()
    plain = LOADERS[loader]()
    mine = []
    for epoch in range(3):  # Batches(loader) gives what the loader gives
        for batch in plain:
            values = np.asarray(getattr(batch, "array", batch)).tolist()
            mine.append((epoch, values, random.random(), np.random.rand(), float(kg.rand(()))))
    assert mine == whole
    for stop in (1, 2, n - 1, n, n + 1, 2 * n + 2):
        seeded()
        first = Batches(LOADERS[loader]())
        seen = drawn(first, 3, [], stop)
        Checkpoint(batches=first).save(tmp_path / "c")
        random.seed(5)
        second = Batches(LOADERS[loader]())
        Checkpoint(batches=second).load(tmp_path / "c")
        assert second.position == first.position and second.epoch == first.epoch
        Checkpoint(batches=second).save(
            tmp_path / "c"
        )  # a place that was not used is the same place
        third = Batches(LOADERS[loader]())
        Checkpoint(batches=third).load(tmp_path / "c")
        assert drawn(third, 3, seen) == whole, stop


def test_batches_already_seen_are_not_loaded_again():
    first = Batches(DataLoader(Noisy(), 2, shuffle=True))
    drawn(first, 1, [], 4)
    second = Batches(DataLoader(Noisy(), 2, shuffle=True))
    second.load_state_dict(first.state_dict())
    assert len(second) == 6 and len(list(second)) == 2
    assert second.loader.dataset.loaded == 3


def test_a_loop_left_early_begins_anew():
    batches = Batches(DataLoader(TensorDataset(kg.arange(6)), 2))
    for _ in range(2):
        for (x,) in batches:
            assert x.tolist() == [0, 1]
            break
    assert batches.position == 1 and batches.epoch == 0
    assert len(list(batches)) == 3 and batches.epoch == 1


def test_a_place_in_a_file_of_an_earlier_version():
    seeded()
    whole = drawn(Batches(LOADERS["shuffle, own generator"]()), 2, [])
    seeded()
    first = Batches(LOADERS["shuffle, own generator"]())
    began = all_states(first.loader)
    seen = drawn(first, 2, [], 2)
    state = {"epoch": 0, "position": 2, "began": began, "now": all_states(first.loader)}
    kg.manual_seed(9)
    second = Batches(LOADERS["shuffle, own generator"]())
    second.load_state_dict(state)
    set_rng_state(state["now"]["global"])
    assert drawn(second, 2, seen) == whole


def without_sizes(state):
    """A place as that of a loader without a length."""
    return {**state, "sizes": {}, "loader": {**state["loader"], "sizes": {}}}


def test_the_generators_of_a_place_that_is_not_there_are_left_alone():
    first = Batches(DataLoader(TensorDataset(kg.arange(6)), 1, shuffle=True))
    drawn(first, 1, [], 5)
    second = Batches(DataLoader(TensorDataset(kg.arange(4)), 1, shuffle=True))
    second.load_state_dict(without_sizes(first.state_dict()))
    before = rng_state()
    with pytest.raises(RuntimeError, match="after 5 batches"):
        next(iter(second))
    np.testing.assert_equal(rng_state(), before)


def test_another_loader_is_refused():
    state = Batches(DataLoader(Noisy(), 2, shuffle=True, generator=own())).state_dict()
    with pytest.raises(ValueError, match="generators of its own"):
        Batches(DataLoader(Noisy(), 2, shuffle=True)).load_state_dict(state)


def test_a_place_that_the_loader_does_not_have():
    first = Batches(DataLoader(TensorDataset(kg.arange(6)), 1))
    assert len([x for x, _ in zip(first, range(4), strict=False)]) == 4
    second = Batches(DataLoader(TensorDataset(kg.arange(4)), 1))
    with pytest.raises(ValueError, match="with batches 6; the loader now has 4"):
        second.load_state_dict(first.state_dict())
    second.load_state_dict(without_sizes(first.state_dict()))
    with pytest.raises(RuntimeError, match="after 5 batches"):
        list(second)


def test_batches_of_worker_processes_go_on(tmp_path):
    def loader():
        data = TensorDataset(kg.arange(12))
        return Batches(DataLoader(data, 2, shuffle=True, num_workers=1))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seeded()
        whole = drawn_values(loader(), 2)
        seeded()
        first = loader()
        seen = drawn_values(first, 2, 9)
        Checkpoint(batches=first).save(tmp_path / "c")
        second = loader()
        Checkpoint(batches=second).load(tmp_path / "c")
        assert seen + drawn_values(second, 2) == whole


class Noise(IterableDataset):
    """What a worker draws, with generators that start at its seed."""

    def __iter__(self):
        for i in range(8):
            yield [i + random.random(), float(kg.rand(())), np.random.rand()]


def test_a_stream_in_a_worker_process_draws_the_same_again():
    def loader():
        return Batches(DataLoader(Noise(), 2, num_workers=1))

    def seen(batches):
        return [[column.tolist() for column in batch] for batch in batches]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seeded()
        whole = seen(loader())
        seeded()
        first = loader()
        next(iter(first))
        second = loader()
        second.load_state_dict(first.state_dict())
        assert seen(second) == whole[1:]


def drawn_values(batches, epochs, stop=None):
    seen = []
    while batches.epoch < epochs:
        for (x,) in batches:
            seen.append((x.tolist(), float(kg.rand(()))))
            if len(seen) == stop:
                return seen
    return seen
