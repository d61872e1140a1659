import json
import math
import os
import sys
import types

import numpy as np
import pytest

pytest.importorskip("click")
pytest.importorskip("rich")
pytest.importorskip("packaging")

from click.testing import CliRunner

import kilograd as kg
from kilograd.cli.bench import imports, timing
from kilograd.cli.bench.cases import Case, JaxCase, differences
from kilograd.cli.bench.networks import WORKLOADS, disagreements
from kilograd.cli.bench.ops import measure
from kilograd.cli.bench.table import OPS
from kilograd.cli.commands import cli

SMALL = [op for op in OPS if op.group == "small"]
QUICK = ("--rounds", 1, "--burst", 1e-5, "--threads", 1)


@pytest.fixture(autouse=True)
def same_threads_afterwards(monkeypatch):
    for name in timing.VARIABLES:
        monkeypatch.setenv(f"{name}_NUM_THREADS", "1")
    ours = kg.get_num_threads()
    torch = sys.modules.get("torch")
    theirs = torch and torch.get_num_threads()
    yield
    kg.set_num_threads(ours)
    if torch:
        torch.set_num_threads(theirs)


def run(*args):
    return CliRunner().invoke(cli, ["bench", *map(str, args)], catch_exceptions=False)


def decoded(picture):
    return pytest.importorskip("matplotlib.image").imread(picture)


# --- the command ----------------------------------------------------------------------------------


def test_ops(tmp_path):
    pytest.importorskip("torch")
    table, picture = tmp_path / "ops.json", tmp_path / "ops.png"
    r = run(
        "ops", "--group", "small", "--only", "soft", "--json", table, "--picture", picture, *QUICK
    )
    assert r.exit_code == 0, r.output
    assert "PyTorch/kilograd" in r.output and "geometric mean" in r.output
    report = json.loads(table.read_text(encoding="utf-8"))
    assert [row["name"] for row in report["rows"]] == ["softplus", "softmax", "log_softmax"]
    for row in report["rows"]:
        assert row["group"] == "small" and row["size"] == "32x32" and row["notes"] == []
        ours, theirs = row["us"]["kilograd"], row["us"]["torch"]
        assert ours > 0 and math.isclose(row["ratio"]["torch/kilograd"], theirs / ours)
    assert report["machine"]["threads"] == 1 and report["machine"]["processor"]
    assert report["versions"]["kilograd"] == kg.__version__ and "torch" in report["versions"]
    assert report["options"]["rounds"] == 1 and report["options"]["groups"] == ["small"]
    assert decoded(picture).ndim == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ops.json", "ops.png"]


@pytest.mark.parametrize("part", ["forward", "backward"])
def test_parts_of_an_op(part):
    r = run("ops", "--only", "where", "--group", "small", "--part", part, *QUICK)
    assert r.exit_code == 0 and "where" in r.output


def test_compiled_ops(tmp_path):
    table = tmp_path / "ops.json"
    r = run("ops", "--only", "neg", "--group", "small", "--compiled", "--json", table, *QUICK)
    assert r.exit_code == 0, r.output
    assert json.loads(table.read_text(encoding="utf-8"))["rows"][0]["us"]["compiled"] > 0


def test_train(tmp_path):
    pytest.importorskip("torch")
    table, picture = tmp_path / "train.json", tmp_path / "train.svg"
    r = run("train", "--only", "basic", "--json", table, "--picture", picture, *QUICK)
    assert r.exit_code == 0, r.output
    (row,) = json.loads(table.read_text(encoding="utf-8"))["rows"]
    assert row["name"] == "basic_mlp" and set(row["us"]) == {"kilograd", "compiled", "torch"}
    assert set(row["ratio"]) == {"torch/kilograd", "torch/compiled"}
    assert "<svg" in picture.read_text(encoding="utf-8")


def test_import(tmp_path):
    table = tmp_path / "import.json"
    r = run("import", "--rounds", 1, "--json", table)
    assert r.exit_code == 0, r.output
    time, size, fast = json.loads(table.read_text(encoding="utf-8"))["rows"]
    assert 0 < time["ms"]["kilograd"] < 30_000
    if "kilograd" in fast["MB"]:
        assert 1 < size["MB"]["kilograd"] < fast["MB"]["kilograd"]


def test_everything(tmp_path, monkeypatch):
    for name, few in (("OPS", SMALL[:2]), ("WORKLOADS", {"policy": WORKLOADS["policy"]})):
        monkeypatch.setattr(f"kilograd.cli.bench.command.{name}", few)
    table = tmp_path / "all.json"
    r = run("--threads", 1, "--json", table)
    assert r.exit_code == 0, r.output
    rows = json.loads(table.read_text(encoding="utf-8"))["rows"]
    assert [row["group"] for row in rows] == ["import"] * 3 + ["train"] + ["small"] * 2


def test_a_long_table_names_the_lowest_ratios():
    pytest.importorskip("torch")
    r = run("ops", "--only", "co", "--group", "small", *QUICK)
    assert r.exit_code == 0 and "the lowest:" in r.output


def test_without_pytorch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    table = tmp_path / "ops.json"
    r = run("ops", "--only", "exp", "--group", "small", "--json", table, *QUICK)
    assert r.exit_code == 0 and "kilograd alone" in r.output, r.output
    rows = json.loads(table.read_text(encoding="utf-8"))["rows"]
    assert rows and all(set(row["us"]) == {"kilograd"} and not row["ratio"] for row in rows)
    assert run("train", "--only", "policy", *QUICK).exit_code == 0
    r = run("ops", "--picture", tmp_path / "x.png", *QUICK)
    assert r.exit_code == 1 and "PyTorch is not installed" in r.output


# --- what may go wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["opps"], ["opps", "No such command"]),
        (["ops", "--group", "medium"], ["small", "large", "synapgrad", "conv"]),
        (["ops", "--only", "frobnicate"], ["frobnicate", "softmax", "add"]),
        (["train", "--only", "frobnicate"], ["frobnicate", "basic_mlp", "resnet8"]),
        (["ops", "--part", "sideways"], ["forward", "backward"]),
        (["ops", "--compiled", "--part", "backward"], ["forward"]),
        (["ops", "--rounds", "0"], ["--rounds"]),
        (["ops", "--burst", "0"], ["--burst"]),
        (["ops", "--threads", "0"], ["--threads"]),
        (["ops", "--picture", "x.bmp"], [".png", ".svg", ".pdf"]),
        (["ops", "--picture", "nowhere/x.png"], ["nowhere"]),
        (["ops", "--json", "nowhere/x.json"], ["nowhere"]),
        (["ops", "--json", "."], ["directory"]),
        (["--threads", "2", "ops"], ["--threads", "ops"]),
    ],
)
def test_wrong_arguments(args, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    r = run(*args)
    assert r.exit_code == 2, r.output
    assert all(word in r.output for word in words), r.output
    assert not list(tmp_path.iterdir())


def test_a_picture_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    r = run("ops", "--only", "exp", "--picture", tmp_path / "x.png", *QUICK)
    assert r.exit_code == 1 and "pip install 'kilograd[cli]'" in r.output


def test_a_disagreement_is_told(monkeypatch):
    other = types.SimpleNamespace(
        **{name: getattr(kg, name) for name in ("tensor", "manual_seed", "autograd")},
        exp=lambda x: kg.exp(x) * 1.01,
        __version__="1",
    )
    monkeypatch.setattr(
        "kilograd.cli.bench.command.libraries", lambda *_: {"kilograd": kg, "torch": other}
    )
    options = ("ops", "--only", "exp", "--group", "small", *QUICK)
    r = run(*options)
    assert r.exit_code == 1 and "the result differs by" in r.output
    assert "Error: not as it should be: exp [small]" in " ".join(r.output.split())
    assert run(*options, "--no-check").exit_code == 0


def test_an_op_that_a_library_lacks_costs_one_cell():
    class Old:
        def __getattr__(self, name):
            if name == "sin":
                raise AttributeError("no sin here")
            return getattr(kg, name)

    (sin,) = (op for op in SMALL if op.name == "sin")
    row = measure(sin, {"kilograd": kg, "torch": Old()}, 1, 1e-5)
    assert row.notes == ["PyTorch: AttributeError: no sin here"] and not row.failed
    assert list(row.values) == ["kilograd"]


def test_differences():
    one = np.ones(3, np.float32)
    assert differences([one], [one * (1 + 1e-6)], ("a", "b")) == []
    assert differences([one * np.nan], [one * np.nan], ("a", "b")) == []
    for other in (one * 1.01, one.astype(np.float64), one[:2], one * np.nan):
        assert len(differences([one], [other], ("a", "b"))) == 1
    assert len(differences([one], [one, one], ("a", "b"))) == 1
    assert disagreements({"a": [[1.0]], "b": [[1.0001]]}) == []
    assert len(disagreements({"a": [[1.0]], "b": [[1.1]]})) == 1


# --- the table of ops -----------------------------------------------------------------------------


def elements(case):
    """The numbers of elements of all tensors that an op reads or writes."""
    first = case.arguments[0] if case.op.setup else None
    layer = list(first.parameters()) if hasattr(first, "parameters") else []
    results = [case.result] if hasattr(case.result, "shape") else list(case.result)
    return [math.prod(x.shape) for x in [*case.inputs, *layer, *results]]


def test_there_are_enough_ops():
    names = {group: [op.name for op in OPS if op.group == group] for group in ("small", "large")}
    assert names["small"] == names["large"] and len(set(names["small"])) == len(names["small"]) > 60
    keys = [(op.group, op.name, op.size) for op in OPS]
    assert len(set(keys)) == len(keys)
    assert len([op for op in OPS if op.group == "conv"]) == 14


@pytest.mark.parametrize("op", SMALL, ids=lambda op: op.name)
def test_small_op(op):
    ours = Case(op, kg)
    assert max(elements(ours)) <= 1024
    before = ours.values()
    for part in ("forward", "backward", "both"):
        ours.step(part)()
    assert all(x.grad is None for x in ours.inputs)
    torch = pytest.importorskip("torch")
    assert differences(before, Case(op, torch).values(), ("kilograd", "PyTorch")) == []


@pytest.mark.parametrize("op", [op for op in OPS if op.group == "large"], ids=lambda op: op.name)
def test_large_op_touches_a_million(op):
    if sum(math.prod(i.shape) for i in op.inputs) < 1_000_000:
        assert sum(elements(Case(op, kg))) >= 1_000_000


class FakeJax(types.ModuleType):
    """As much of JAX as the ops see, computed by kilograd."""

    __version__ = "0"
    numpy = types.SimpleNamespace(asarray=kg.tensor, exp=kg.exp, sin=kg.cos)

    @staticmethod
    def jit(function):
        return function

    @staticmethod
    def block_until_ready(x):
        return x

    @staticmethod
    def vjp(function, *inputs):
        inputs = [x.detach().requires_grad_() for x in inputs]
        y = function(*inputs)
        return y.detach(), lambda g: kg.autograd.grad(y, inputs, g)


def test_jax_is_timed_where_it_means_the_same(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", FakeJax("jax"))
    table = tmp_path / "ops.json"
    options = ("ops", "--group", "small", "--json", table, *QUICK)
    for only, there in (("exp", True), ("sin", False), ("relu", False), ("dropout", False)):
        assert run(*options, "--only", only).exit_code == 0
        rows = json.loads(table.read_text(encoding="utf-8"))["rows"]
        (row,) = (row for row in rows if row["name"] == only)
        assert ("jax" in row["us"]) == there and row["notes"] == []
    (exp,) = (op for op in SMALL if op.name == "exp")
    with pytest.raises(TypeError, match="together"):
        JaxCase(exp, FakeJax("jax")).step("backward")


# --- timing ---------------------------------------------------------------------------------------


def test_turns_alternate_and_calls_fill_a_burst():
    now = [0.0]
    order = []

    def step(name, seconds):
        def call():
            now[0] += seconds
            order.append(name)

        return call

    steps = {"torch": step("torch", 0.5), "kilograd": step("kilograd", 0.25)}
    seconds = timing.alternate(steps, rounds=3, burst=2.5, clock=lambda: now[0])
    assert order[-45:] == 3 * (5 * ["torch"] + 10 * ["kilograd"])
    assert seconds == {"torch": [0.5] * 3, "kilograd": [0.25] * 3}
    assert timing.ratio(seconds) == 2


def test_threads_are_fixed_everywhere():
    timing.fix_threads(1)
    assert kg.get_num_threads() == 1 and os.environ["OMP_NUM_THREADS"] == "1"


def test_sizes_follow_requirements():
    assert imports.own_bytes() > 500_000
    numpy = imports.installed_bytes(("numpy",))
    assert numpy is None or numpy > 1_000_000
    assert imports.installed_bytes(("numpy", "NumPy")) == numpy
    assert imports.installed_bytes(("no-such-package-as-this",)) is None
