"""Runs and tensors of PyTorch's, in kilograd's checkpoints and files."""

from __future__ import annotations

import copy
import itertools
import json
import random
import subprocess
import sys

import numpy as np
import pytest

import kilograd as kg
from kilograd.train import (
    Batches,
    Checkpoint,
    CheckpointManager,
    load_checkpoint,
    rng_state,
    set_rng_state,
)
from kilograd.train.files import load, save

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

OPTIMIZERS = {
    "Adadelta": {}, "Adafactor": {}, "Adagrad": {}, "Adam": {"amsgrad": True}, "AdamW": {},
    "Adamax": {}, "ASGD": {"t0": 5.0}, "LBFGS": {"max_iter": 3}, "NAdam": {}, "RAdam": {},
    "RMSprop": {"momentum": 0.9, "centered": True}, "Rprop": {}, "SGD": {"momentum": 0.9},
}  # fmt: skip
lrs = torch.optim.lr_scheduler
SCHEDULES = {
    "StepLR": lambda o: lrs.StepLR(o, 3),
    "MultiStepLR": lambda o: lrs.MultiStepLR(o, [2, 5, 5, 7]),
    "CosineAnnealingLR": lambda o: lrs.CosineAnnealingLR(o, 7),
    "CosineAnnealingWarmRestarts": lambda o: lrs.CosineAnnealingWarmRestarts(o, 3, 2),
    "CyclicLR": lambda o: lrs.CyclicLR(o, 0.01, 0.1, 4),
    "OneCycleLR": lambda o: lrs.OneCycleLR(o, 0.1, 50),
    "LambdaLR": lambda o: lrs.LambdaLR(o, lambda e: 0.9**e),
    "PolynomialLR": lambda o: lrs.PolynomialLR(o, 12, 1.5),
    "SequentialLR": lambda o: lrs.SequentialLR(
        o, [lrs.LinearLR(o, 0.1, 1.0, 4), lrs.MultiStepLR(o, [2, 3])], [5]
    ),
    "ReduceLROnPlateau": lambda o: lrs.ReduceLROnPlateau(o, patience=1),
    "ExponentialLR": lambda o: lrs.ExponentialLR(o, 0.9),
    "ConstantLR": lambda o: lrs.ConstantLR(o, 0.3, 6),
    "MultiplicativeLR": lambda o: lrs.MultiplicativeLR(o, lambda e: 0.9),
    "CyclicLR custom": lambda o: lrs.CyclicLR(o, 0.01, 0.1, 4, scale_fn=lambda x: 0.9**x),
    "ChainedScheduler": lambda o: lrs.ChainedScheduler(
        [lrs.ExponentialLR(o, 0.9), lrs.MultiStepLR(o, [4, 6])]
    ),
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, 0.01),
}


class Noisy(torch.utils.data.Dataset):
    """Samples that are augmented with the global generators of all four libraries."""

    def __len__(self):
        return 20

    def __getitem__(self, i):
        noise = random.random() + np.random.rand() + torch.rand(()).item() + float(kg.rand(()))
        g = torch.Generator().manual_seed(i)
        return torch.randn(4, generator=g) + 0.01 * noise, i % 2


class Run:
    def __init__(
        self, optimizer="Adam", schedule="StepLR", dtype=torch.float32, own=False, workers=0
    ):
        torch.manual_seed(0)
        kg.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        self.dtype = dtype
        self.model = torch.nn.Sequential(
            torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Tanh(), torch.nn.Dropout(0.2),
            torch.nn.Linear(6, 2),
        ).to(dtype)  # fmt: skip
        self.optimizer = getattr(torch.optim, optimizer)(
            self.model.parameters(), lr=0.02, **OPTIMIZERS[optimizer]
        )
        self.schedule = SCHEDULES[schedule](self.optimizer)
        generator = torch.Generator().manual_seed(5) if own else None
        self.batches = Batches(torch.utils.data.DataLoader(
            Noisy(), 4, shuffle=True, generator=generator, num_workers=workers,
        ))  # fmt: skip
        self.losses = []
        self.checkpoint = Checkpoint(
            model=self.model, optimizer=self.optimizer, schedule=self.schedule, batches=self.batches
        )

    def step(self, x, y):
        def closure():
            self.optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(self.model(x.to(self.dtype)), y)
            loss.backward()
            return loss

        return self.optimizer.step(closure).detach()

    def train(self, epochs, stop_after=None, path=None):
        while self.batches.epoch < epochs:
            for x, y in self.batches:
                self.losses.append(self.step(x, y).item())
                if len(self.losses) == stop_after:
                    self.checkpoint.save(path, losses=self.losses)
                    return
            plateau = isinstance(self.schedule, lrs.ReduceLROnPlateau)
            self.schedule.step(*([self.losses[-1]] if plateau else []))

    def bits(self):
        tensors = [*self.model.state_dict().values(), torch.get_rng_state()]
        draws = random.random(), np.random.rand(), float(kg.rand(()))
        return [t.clone().reshape(-1).view(torch.uint8).tolist() for t in tensors], draws


def goes_on(tmp_path, stop_after, epochs, **settings):
    whole = Run(**settings)
    whole.train(epochs)
    expected = whole.bits()
    Run(**settings).train(epochs, stop_after, tmp_path / "c.kg")
    second = Run(**settings)
    torch.manual_seed(99)
    kg.manual_seed(98)
    random.seed(77)
    np.random.seed(77)
    second.losses = second.checkpoint.load(tmp_path / "c.kg")["losses"]
    second.train(epochs)
    assert second.losses == whole.losses and second.bits() == expected
    rates = [[g["lr"] for g in run.optimizer.param_groups] for run in (whole, second)]
    assert rates[0] == rates[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_goes_on_bit_for_bit(tmp_path, optimizer, dtype):
    goes_on(tmp_path, 13, 4, optimizer=optimizer, dtype=dtype)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_goes_on_bit_for_bit(tmp_path, schedule):
    goes_on(tmp_path, 17, 6, schedule=schedule, optimizer="SGD")


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")  # sic
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("stop_after", [1, 4, 5, 6])  # 5: after an epoch's last batch
def test_every_place_of_an_epoch(tmp_path, stop_after, own):
    goes_on(tmp_path, stop_after, 3, own=own)


@pytest.mark.slow
def test_worker_processes_of_pytorchs(tmp_path):
    goes_on(tmp_path, 7, 3, workers=2)


def test_a_folder_of_checkpoints(tmp_path):
    run = Run()
    manager = CheckpointManager(tmp_path, run.checkpoint, keep_last=1)
    for epoch, loss in enumerate([0.5, 0.25, float("nan")]):
        manager.save(epoch=epoch, val_loss=torch.tensor(loss), matrix=torch.ones(2, 2))
    assert [e.values for e in manager.entries] == [{"val_loss": 0.25}, {"val_loss": "nan"}]
    assert manager.best().name == "checkpoint-000002.kg"
    (tmp_path / "index.json").unlink()
    again = CheckpointManager(tmp_path, run.checkpoint, keep_last=1)
    assert again.entries == manager.entries and again.resume()["epoch"] == 2


def test_scaler_and_generators(tmp_path):
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    generator = torch.Generator().manual_seed(3)
    torch.rand(3, generator=generator)
    Checkpoint(scaler=scaler, g=generator).save(tmp_path / "c")
    after = torch.rand(4, generator=generator)
    other, g = torch.amp.GradScaler("cpu"), torch.Generator()
    Checkpoint(scaler=other, g=g).load(tmp_path / "c")
    assert other.state_dict() == scaler.state_dict() and other.get_scale() == 8.0
    assert torch.equal(torch.rand(4, generator=g), after)
    with pytest.raises(ValueError, match=r"g: torch\.Generator in the file, Generator here"):
        Checkpoint(scaler=other, g=kg.Generator()).load(tmp_path / "c")


def test_what_does_not_fit_changes_nothing(tmp_path):
    nn = torch.nn
    made = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 6).double())
    Checkpoint(model=made).save(tmp_path / "c")
    model = nn.Sequential(
        nn.Linear(3, 4, bias=False), nn.Linear(4, 7), nn.Linear(5, 6), nn.ReLU(), nn.Linear(2, 2)
    )
    other = torch.optim.Adam(model.parameters())
    before = copy.deepcopy(model.state_dict())
    place = torch.get_rng_state()
    with pytest.raises(ValueError, match="nothing was changed") as e:
        Checkpoint(model=model).load(tmp_path / "c")
    assert str(e.value).splitlines()[1:] == [
        "    model.1.weight: shape (5, 4) in the file, (7, 4) in the model",
        "    model.1.bias: shape (5,) in the file, (7,) in the model",
        "    model.2.weight: dtype float64 in the file, float32 in the model",
        "    model.2.bias: dtype float64 in the file, float32 in the model",
        "    model.4.weight: is not in the file",
        "    model.4.bias: is not in the file",
        "    model.0.bias: is not in the model",
    ]
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())
    assert torch.equal(torch.get_rng_state(), place)
    Checkpoint(optimizer=other).save(tmp_path / "c")
    ours = kg.optim.Adam(kg.nn.Linear(1, 1).parameters())
    with pytest.raises(ValueError, match=r"optimizer: torch\.Adam in the file, Adam here"):
        Checkpoint(optimizer=ours).load(tmp_path / "c")


def test_an_optimizer_of_other_parameters_does_not_fit(tmp_path):
    def adam(inputs):
        layer = torch.nn.Linear(inputs, 2)
        optimizer = torch.optim.Adam(layer.parameters())
        layer(torch.ones(1, inputs)).sum().backward()
        optimizer.step()
        return optimizer

    Checkpoint(o=adam(3)).save(tmp_path / "c")
    made = adam(4)
    before = copy.deepcopy(made.state_dict())
    with pytest.raises(
        ValueError, match=r"o: parameter 0: shape \(2, 3\) in the file, \(2, 4\) here"
    ):
        Checkpoint(o=made).load(tmp_path / "c")
    same(before, made.state_dict())
    Checkpoint(o=torch.optim.Adam([torch.nn.UninitializedParameter(), torch.zeros(2)])).load(
        tmp_path / "c", rng=False
    )


def test_a_part_that_fails_undoes_the_others(tmp_path):
    class Refuses:
        def state_dict(self):
            return {"n": 1}

        def load_state_dict(self, state):
            raise KeyError("n")

    def parts():
        model = torch.nn.Sequential(torch.nn.LazyLinear(3), torch.nn.Linear(3, 1))
        model(torch.randn(2, 4)).sum().backward()
        optimizer = torch.optim.Adam(model.parameters())
        optimizer.step()
        return {"model": model, "optimizer": optimizer, "z": Refuses()}

    Checkpoint(**parts()).save(tmp_path / "c")
    made = parts()
    before = copy.deepcopy([made["model"].state_dict(), made["optimizer"].state_dict()])
    with pytest.raises(ValueError, match="z in .* does not fit: KeyError"):
        Checkpoint(**made).load(tmp_path / "c")
    same(before, [made["model"].state_dict(), made["optimizer"].state_dict()])


def test_weights_go_from_one_library_to_the_other(tmp_path):
    theirs, ours = torch.nn.Linear(3, 2), kg.nn.Linear(3, 2)
    Checkpoint(model=theirs).save(tmp_path / "c")
    Checkpoint(model=ours).load(tmp_path / "c")
    assert (ours.weight.array == theirs.weight.detach().numpy()).all()
    ours = kg.nn.Linear(3, 2)
    Checkpoint(model=ours).save(tmp_path / "c")
    Checkpoint(model=theirs).load(tmp_path / "c")
    assert (ours.weight.array == theirs.weight.detach().numpy()).all()
    Checkpoint(model=theirs.bfloat16()).save(tmp_path / "c")
    with pytest.raises(ValueError, match="dtype bfloat16 in the file, float32 in the model"):
        Checkpoint(model=ours).load(tmp_path / "c")


def test_lazy_and_hooked_models(tmp_path):
    first = torch.nn.Sequential(torch.nn.LazyLinear(3))
    with pytest.raises(ValueError, match="no shape yet"):
        Checkpoint(model=first).save(tmp_path / "c")
    first(torch.randn(2, 4))
    Checkpoint(model=first).save(tmp_path / "c")
    second = torch.nn.Sequential(torch.nn.LazyLinear(3))
    Checkpoint(model=second).load(tmp_path / "c")
    assert torch.equal(first[0].weight, second[0].weight)
    third = torch.nn.Sequential(torch.nn.LazyLinear(2))
    third(torch.randn(2, 4))
    third.register_load_state_dict_pre_hook(lambda *_: None)
    before = third[0].weight.clone()
    with pytest.raises(RuntimeError, match="size mismatch"):
        Checkpoint(model=third).load(tmp_path / "c")
    assert torch.equal(third[0].weight, before)


# --- tensors in files -------------------------------------------------------------------------------


def same(a, b):
    assert type(a) is type(b), (a, b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for k in a:
            same(a[k], b[k])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and a.shape == b.shape and a.layout == b.layout
        if a.layout is torch.sparse_coo:
            assert a.is_coalesced() == b.is_coalesced()
            same([a._indices(), a._values()], [b._indices(), b._values()])
        else:
            wide = torch.complex64 if a.dtype is torch.complex32 else a.dtype
            assert repr(a.to(wide).tolist()) == repr(b.to(wide).tolist())  # -0.0 and nan, too
    elif isinstance(a, kg.Tensor):
        assert a.dtype == b.dtype and a.tolist() == b.tolist()
    else:
        assert a == b


DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16,
    torch.uint32, torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64,
    torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex32,
]  # fmt: skip


@pytest.mark.parametrize("ending", [".safetensors", ".npz"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.filterwarnings("ignore:ComplexHalf support:UserWarning")
def test_every_dtype_and_shape(tmp_path, dtype, ending):
    t = {str(s): (torch.rand(s) * 5).to(dtype) for s in [(), (0,), (3,), (2, 0, 3), (2, 3)]}
    save(t, tmp_path / f"x{ending}")
    same(t, load(tmp_path / f"x{ending}"))


def state():
    tied = torch.randn(3, 2)
    half = torch.randn(4).bfloat16()
    indices, values = [[0, 1, 0], [2, 0, 2]], torch.tensor([1.0, 2.0, 3.0])
    sparse = torch.sparse_coo_tensor(indices, values, (2, 3), check_invariants=True)
    return {
        "a": tied, "again": tied, "turned": tied.T, "part": tied[0], "h": half, "h again": half,
        "sparse": [sparse, sparse.coalesce(), sparse.bfloat16()], "size": torch.Size([2, 3]),
        "dtypes": [torch.float32, torch.bfloat16, kg.float32], "device": torch.device("cpu"),
        "state": {0: {"step": torch.tensor(3.0)}, 1: {"betas": (0.9, 0.999)}},
        "conj": torch.randn(3, dtype=torch.complex64).conj(), "ours": kg.ones(2),
        "nan": torch.tensor([float("nan"), float("inf"), -0.0], dtype=torch.bfloat16),
    }  # fmt: skip


@pytest.mark.parametrize("ending", [".safetensors", ".npz"])
def test_what_is_saved_comes_back(tmp_path, ending):
    before = state()
    save(before, tmp_path / f"x{ending}")
    got = load(tmp_path / f"x{ending}")
    same(before, got)
    got["a"][0, 0] = 5
    assert got["again"][0, 0] == 5 and got["part"][0] != 5
    got["h"][0] = 7
    assert got["h again"][0] == 7
    save(
        {"p": torch.nn.Parameter(torch.ones(2)), "v": torch.ones(2).requires_grad_() * 2},
        tmp_path / "y.npz",
    )
    same(load(tmp_path / "y.npz"), {"p": torch.ones(2), "v": torch.ones(2) * 2})


def test_one_tensor_as_npy(tmp_path):
    save(torch.arange(3.0).requires_grad_(), tmp_path / "x.npy")
    assert load(tmp_path / "x.npy").tolist() == [0, 1, 2]
    with pytest.raises(TypeError):
        save(torch.ones(2).bfloat16(), tmp_path / "x.npy")


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_what_cannot_be_saved(tmp_path):
    for x in (
        torch.ones(2, device="meta"), torch.eye(2).to_sparse_csr(),
        torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=r"state\['x'\] is a PyTorch tensor .* cannot be saved"):
            save({"x": x}, tmp_path / "x.npz")
    with pytest.raises(TypeError, match="save its state_dict"):
        save({"x": torch.nn.Linear(1, 1)}, tmp_path / "x.npz")
    assert list(tmp_path.iterdir()) == []


def test_other_programs_read_the_values(tmp_path):
    from safetensors.torch import load_file

    w, h = torch.randn(2, 3), torch.randn(3).bfloat16()
    save({"w": w, "h": h}, tmp_path / "x.safetensors")
    got = load_file(tmp_path / "x.safetensors")
    assert torch.equal(got["w"], w) and torch.equal(got["h"], h.float())


def test_generators_with_and_without_pytorch():
    torch.manual_seed(3)
    place = rng_state()
    expected = torch.rand(3)
    torch.manual_seed(4)
    set_rng_state(place)
    assert torch.equal(torch.rand(3), expected)
    now = torch.get_rng_state()
    del place["torch"]  # of a program that had not imported it
    set_rng_state(place)
    assert torch.equal(torch.get_rng_state(), now)


WITHOUT = """
import sys, json
if sys.argv[2] == "absent":
    sys.modules["torch"] = None
import kilograd as kg
from kilograd.train import Checkpoint
assert sys.argv[2] == "absent" or "torch" not in sys.modules
found = kg.load(sys.argv[1] + "/x.safetensors")
assert all(isinstance(x, kg.Tensor) for x in (found["a"], *found["sparse"])), found
print(json.dumps([found["a"].tolist(), found["h"].tolist(), str(found["h"].dtype),
    [x.tolist() for x in found["sparse"]], found["size"], found["dtypes"][:2], found["device"]]))
"""
UNTOUCHED = """
import sys
import kilograd as kg
from kilograd.train import Checkpoint, rng_state
kg.save({"a": kg.ones(2), "n": [1, None, "x", (2.5,)]}, sys.argv[1] + "/y.npz")
kg.load(sys.argv[1] + "/y.npz")
model = kg.nn.Linear(2, 1)
Checkpoint(model=model).load(sys.argv[1] + "/c.kg")
assert "torch" not in rng_state() and "torch" not in sys.modules
"""


def test_without_pytorch_tensors_are_kilograds(tmp_path):
    before = state()
    save({k: v for k, v in before.items() if k != "nan"}, tmp_path / "x.safetensors")
    Checkpoint(model=kg.nn.Linear(2, 1)).save(tmp_path / "c.kg")  # with PyTorch's generator in it
    assert "torch" in load_checkpoint(tmp_path / "c.kg")["rng"]

    def run(script, *args):
        r = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path), *args],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert r.returncode == 0, r.stderr
        return r.stdout

    a, h, dtype, sparse, size, dtypes, device = json.loads(run(WITHOUT, "absent"))
    assert a == before["a"].tolist() and h == before["h"].tolist() and dtype == "kilograd.float32"
    assert sparse == [t.to_dense().tolist() for t in before["sparse"]]
    assert (size, dtypes, device) == ([2, 3], ["float32", "bfloat16"], "cpu")
    run(UNTOUCHED)


def test_a_loader_with_a_state_of_its_own(tmp_path):
    """As torchdata's StatefulDataLoader: Batches leaves the place to it."""

    class Counts:
        def __init__(self):
            self.at, self.skip = 0, 0

        def __iter__(self):
            first, self.skip = self.skip, 0
            for self.at in range(first + 1, 6):
                yield self.at
            self.at = 0

        def state_dict(self):
            return {"at": self.at, "position": torch.tensor(self.at)}

        def load_state_dict(self, state):
            assert isinstance(state["position"], torch.Tensor)
            self.at = self.skip = state["at"]

    first = Batches(Counts())
    assert list(itertools.islice(first, 2)) == [1, 2]
    Checkpoint(batches=first).save(tmp_path / "c")
    second = Batches(Counts())
    Checkpoint(batches=second).load(tmp_path / "c")
    assert (second.epoch, second.position) == (0, 2)
    assert list(second) == [3, 4, 5] and second.epoch == 1 and list(second) == [1, 2, 3, 4, 5]
