"""Eager ops on large arrays, and often repeated ones on small arrays, run as native programs.

Here every op of the registry is sent there, however small its arrays, and compared with NumPy.
"""

from __future__ import annotations

import gc
import math
import os
import signal
import subprocess
import sys
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import kilograd as kg
from kilograd.compile import eager
from kilograd.kernels import memory
from kilograd.kernels.kernel import LARGE
from kilograd.kernels.native import build
from kilograd.nn import functional as F
from kilograd.ops.op import REGISTRY
from kilograd.tensor import Tensor, wrap
from tests.samples import SAMPLES
from tests.test_registry import active, as_dtype, outputs, samples_of

pytestmark = pytest.mark.skipif(not build.available(), reason=build.why_not())
NAMES = sorted(n for n in REGISTRY if n in SAMPLES)


@pytest.fixture
def native(monkeypatch):
    """All ops run natively that can."""
    monkeypatch.setattr(LARGE, "limit", 0)
    monkeypatch.setattr(LARGE, "run", eager.run)
    monkeypatch.setattr(eager, "OFTEN", 0)
    eager.reset()
    yield
    eager.reset()


def in_numpy(fn: Any) -> Any:
    """What ``fn()`` gives without native programs."""
    limit, run = LARGE.limit, LARGE.run
    LARGE.limit, LARGE.run = math.inf, lambda f, args, options, *how: f(*args, **options)
    try:
        return fn()
    finally:
        LARGE.limit, LARGE.run = limit, run


def programs() -> list[Any]:
    """The programs that there are."""
    return [p.program for p in eager._programs.values() if hasattr(p, "program")]


def compute(op: Any, sample: Any, arrays: list[Any], ups: list[Any] | None) -> tuple[Any, Any]:
    """Outputs and gradients of a sample, as arrays."""
    where = active(op, sample) if op.differentiable else []
    args = []
    for i, a in enumerate(arrays):
        if isinstance(a, np.ndarray):
            a = wrap(a.copy(order="K"))
            a.requires_grad = i in where
        args.append(a)
    found = outputs(sample.fn(op, *args, **sample.options))
    ys = [y for y in found if y.requires_grad]
    xs = [a for a in args if isinstance(a, Tensor) and a.requires_grad]
    grads = []
    if ys and xs and ups is not None:
        grads = kg.autograd.grad(ys, xs, [wrap(u) for u in ups[: len(ys)]], allow_unused=True)
    return [y.detach().numpy() for y in found], [None if g is None else g.numpy() for g in grads]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_every_op_as_in_numpy(native, name, dtype):
    op = REGISTRY[name]
    rng = np.random.default_rng(1)
    for sample in samples_of(name):
        arrays = [as_dtype(a, dtype) for a in sample.args]
        args = (op, sample, arrays)
        shapes = in_numpy(lambda args=args: [(y.shape, y.dtype) for y in compute(*args, None)[0]])
        ups = [rng.standard_normal(s).astype(d) for s, d in shapes if d.kind in "fc"]
        expected = in_numpy(lambda args=args, ups=ups: compute(*args, ups))
        for _ in range(2):  # the second call runs a program that is there
            got = compute(*args, ups)
            for ours, theirs in zip((*got[0], *got[1]), (*expected[0], *expected[1]), strict=True):
                if theirs is None:
                    assert ours is None
                    continue
                assert ours.dtype == theirs.dtype, sample.form
                assert ours.shape == theirs.shape, sample.form
                tolerance = 3e-5 if dtype == np.float32 else 1e-10
                scale = np.abs(theirs[np.isfinite(theirs)]).max(initial=1) if theirs.size else 1
                np.testing.assert_allclose(
                    ours, theirs, rtol=tolerance, atol=tolerance * float(scale), err_msg=sample.form
                )


def test_most_ops_have_a_program(native):
    x = kg.rand(8, 8).requires_grad_()
    for f in (kg.exp, kg.tanh, F.gelu, F.silu, lambda x: x * x, lambda x: F.softmax(x, -1),
              lambda x: F.layer_norm(x, (8,)), lambda x: x.sum(0), lambda x: x.max(1)[0],
              lambda x: x @ x, lambda x: F.linear(x, x)):  # fmt: skip
        y = f(x)
        kg.autograd.grad(y, x, kg.rand(*y.shape))
    left = [k for k, v in eager._programs.items() if v is eager._NUMPY]
    assert len(programs()) > 15
    assert len(left) < 4, left


def test_strided_and_broadcast_arguments(native):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((6, 8, 10)).astype(np.float32)
    views = [a, a.transpose(2, 0, 1).transpose(1, 2, 0), a[::2], a[:, ::-1], a[..., 1:9:3],
             np.asfortranarray(a), np.broadcast_to(a[:, :1], a.shape), a[0], a[:, :, :1]]  # fmt: skip
    for x in views:
        for y in views:
            try:
                np.broadcast_shapes(x.shape, y.shape)
            except ValueError:
                continue
            p, q = wrap(x), wrap(y)
            got = (p * q + p.exp()).numpy()
            np.testing.assert_allclose(got, x * y + np.exp(x), rtol=1e-6, atol=1e-6)


def test_what_is_written_to_may_have_gaps(native):
    """The program is made for the strides that the memory has, not for those of a tidy copy."""
    from kilograd.kernels.kernel import add_to

    rng = np.random.default_rng(0)
    for view in (lambda a: a[::2, 1:9:3], lambda a: a.T, lambda a: a[:, ::-1], lambda a: a[3:]):
        memory_of, g = rng.standard_normal((12, 10)), rng.standard_normal((12, 10))
        expected = memory_of.copy()
        view(expected)[...] += view(g)
        for _ in range(2):
            again = memory_of.copy()
            add_to(view(again), view(g))
            np.testing.assert_array_equal(again, expected)
    index = np.arange(20).reshape(10, 2)[::3, 1] % 10
    x = kg.rand(10, 4)
    for _ in range(2):
        np.testing.assert_array_equal(x[kg.tensor(index)].numpy(), x.numpy()[index])
        np.testing.assert_array_equal(
            x.index_select(0, wrap(index)).numpy(), np.take(x.numpy(), index, 0)
        )


def test_memory_that_is_read_only_is_not_written_to(native):
    p = kg.rand(40000).requires_grad_()
    optimizer = kg.optim.SGD([p], lr=0.1)
    p.grad = kg.rand(40000)
    optimizer.step()
    p.array.flags.writeable = False
    before = p.array.copy()
    with pytest.raises(ValueError, match="read-only"):
        optimizer.step()
    np.testing.assert_array_equal(p.array, before)


def test_numbers_may_change_without_another_program(native):
    x = kg.rand(50)
    for value in (0.25, -0.0, 3.5, float("inf"), float("nan")):
        np.testing.assert_array_equal((x * value).numpy(), x.numpy() * np.float32(value))
    assert len(programs()) == 1


def test_what_is_decided_on_a_number_is_part_of_the_program(native):
    x = kg.linspace(-3, 3, 40)
    for slope in (0.0, 0.1, 1.5, -0.5, 0.1):
        t = x.clone().requires_grad_()
        y = F.leaky_relu(t, slope)
        (g,) = kg.autograd.grad(y, t, x)
        np.testing.assert_allclose(
            y.detach().numpy(), np.where(x.numpy() > 0, x.numpy(), x.numpy() * np.float32(slope))
        )
        np.testing.assert_allclose(
            g.numpy(), x.numpy() * np.where(x.numpy() > 0, 1, np.float32(slope)), rtol=1e-6
        )


def test_numbers_of_different_kinds_are_different(native):
    x = kg.arange(6)
    assert (x * True).dtype == kg.int64
    assert (x * 1).dtype == kg.int64
    assert (x * 1.0).dtype == kg.float32
    assert (x * 0.0).dtype == kg.float32
    y = kg.ones(4)
    assert math.copysign(1, (y * -0.0)[0].item()) == -1
    assert math.copysign(1, (y * 0.0)[0].item()) == 1


def test_errors_are_those_of_numpy(native):
    x = kg.rand(4, 5)
    for f, kind in (
        (lambda: x + kg.rand(3), RuntimeError),
        (lambda: x[:, kg.tensor([7])], IndexError),
        (lambda: F.cross_entropy(x, kg.tensor([0, 1, 2, 9])), (IndexError, RuntimeError)),
        (lambda: F.linear(x, kg.rand(3, 4)), RuntimeError),
        (lambda: F.gelu(kg.arange(4)), NotImplementedError),
    ):
        for _ in range(2):
            with pytest.raises(kind):
                f()
    good = F.cross_entropy(x, kg.tensor([0, 1, 2, 4]))  # a program that refuses is used again
    with pytest.raises((IndexError, RuntimeError)):
        F.cross_entropy(x, kg.tensor([0, 1, 2, -3]))
    assert good.item() == F.cross_entropy(x, kg.tensor([0, 1, 2, 4])).item()


def test_running_statistics_are_moved_once(native):
    kg.manual_seed(0)
    x = kg.rand(16, 3, 4, 4)

    def train() -> Any:
        layer = kg.nn.BatchNorm2d(3)
        for _ in range(3):
            layer(x)
        return layer.running_mean.numpy(), layer.running_var.numpy()

    for ours, theirs in zip(train(), in_numpy(train), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize(
    "name", "SGD Adam AdamW NAdam RAdam Adamax Adagrad Adadelta RMSprop Rprop ASGD".split()
)
def test_large_parameters_are_updated_as_in_numpy(monkeypatch, name):
    """Several groups, a learning rate that changes, and settings that the rule decides on."""

    def train() -> Any:
        kg.manual_seed(3)
        ps = [kg.rand(200, 100).requires_grad_(), kg.rand(20000).requires_grad_()]
        options = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
        groups = [{"params": ps[:1]}, {"params": ps[1:], "lr": 0.003}]
        if name not in ("Rprop",):
            groups[1]["weight_decay"] = 0.1
        optimizer = getattr(kg.optim, name)(groups, lr=0.01, **options)
        for _ in range(8):
            for p in ps:
                p.grad = kg.randn(*p.shape)
            for group in optimizer.param_groups:
                group["lr"] *= 0.9
            optimizer.step()
        return [p.detach().numpy() for p in ps]

    eager.reset()
    monkeypatch.setattr(LARGE, "run", eager.run)
    ours = train()
    if name not in ("NAdam", "ASGD"):  # which are not element by element
        assert any(k[0] is kg.optim.optimizer._update_arrays for k in map(_flat, eager._programs))
    for a, b in zip(ours, in_numpy(train), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


def _flat(key: Any) -> Any:
    while isinstance(key[0], tuple):
        key = key[0]
    return key


def test_gradients_that_meet_are_added_in_place_only_where_they_are_ours(native):
    x = kg.rand(64).requires_grad_()
    g = kg.rand(64)
    before = g.numpy().copy()
    y = x + x + x * 2
    y.backward(g)
    np.testing.assert_allclose(x.grad.numpy(), 4 * before, rtol=1e-6)
    np.testing.assert_array_equal(g.numpy(), before)
    (x * 3).backward(g)
    np.testing.assert_allclose(x.grad.numpy(), 7 * before, rtol=1e-6)
    np.testing.assert_array_equal(g.numpy(), before)


def test_small_arrays_change_over_after_many_calls(monkeypatch):
    monkeypatch.setattr(LARGE, "run", eager.run)
    monkeypatch.setattr(eager, "OFTEN", 5)
    eager.reset()
    x = kg.rand(3, 7)
    first = F.softmax(x, -1)
    for _ in range(4):
        np.testing.assert_array_equal(F.softmax(x, -1).numpy(), first.numpy())
    assert not programs()
    after = F.softmax(x, -1)
    assert len(programs()) == 1
    np.testing.assert_allclose(after.numpy(), first.numpy(), rtol=1e-6)
    np.testing.assert_array_equal(F.softmax(x, -1).numpy(), after.numpy())
    F.softmax(kg.rand(3, 8), -1)  # another shape counts for itself
    assert len(programs()) == 1


def test_deterministic_mode_does_not_change_over(monkeypatch):
    monkeypatch.setattr(LARGE, "run", eager.run)
    monkeypatch.setattr(eager, "OFTEN", 3)
    eager.reset()
    x = kg.rand(5, 9)
    kg.use_deterministic_algorithms(True)
    try:
        first = F.softmax(x, -1).numpy()
        for _ in range(10):
            np.testing.assert_array_equal(F.softmax(x, -1).numpy(), first)
        assert not programs()
    finally:
        kg.use_deterministic_algorithms(False)
    F.softmax(x, -1)
    assert len(programs()) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_goes_on():
    code = """
import os, threading, warnings
import numpy as np, kilograd as kg
warnings.simplefilter("ignore")
kg.set_num_threads(2)
x = kg.rand(600, 600)
expected = (x.exp() + x).numpy()
stop = False
def work():
    while not stop:
        x.exp()
worker = threading.Thread(target=work)
worker.start()
codes = []
for _ in range(20):
    child = os.fork()
    if child == 0:
        same = all(np.allclose((x.exp() + x).numpy(), expected) for _ in range(3))
        os._exit(0 if same else 1)
    codes.append(os.waitpid(child, 0)[1])
stop = True
worker.join()
assert codes == [0] * 20, codes
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=_environment(), timeout=120)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_writes_to_memory_of_its_own():
    code = """
import os, warnings
import numpy as np, kilograd as kg
warnings.simplefilter("ignore")
x = kg.rand(500, 500)
y = x.exp()
before = y.numpy().copy()
z = x.exp()
del z  # its memory is free, in both processes
child = os.fork()
if child == 0:
    y.add_(1)
    w = x * 0
    os._exit(0)
w = x + 1
os.waitpid(child, 0)
assert (y.numpy() == before).all()
assert (w.numpy() == x.numpy() + 1).all()
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=_environment(), timeout=120)


def test_nothing_is_held_on_to(native):
    gc.collect()
    gc.disable()
    try:
        x = kg.rand(1 << 12).requires_grad_()
        h = x.exp()
        refs = [weakref.ref(x.array), weakref.ref(h.array)]
        loss = (h * h).sum()
        loss.backward()
        del x, h, loss
        assert [r() for r in refs] == [None, None]
    finally:
        gc.enable()


def test_memory_is_flat_over_many_steps(native):
    x = kg.rand(1 << 16).requires_grad_()

    def step() -> None:
        x.grad = None
        (F.gelu(x) * x).sum().backward()

    for _ in range(10):
        step()
    gc.collect()
    gc.disable()
    try:
        objects, held = len(gc.get_objects()), sum(memory._bytes[:2])
        for _ in range(500):
            step()
        assert len(gc.get_objects()) - objects < 20
        assert sum(memory._bytes[:2]) == held
    finally:
        gc.enable()


def test_threads_of_the_user(native):
    xs = [kg.rand(1000 + 100 * i) for i in range(4)]
    expected = [in_numpy(lambda x=x: (x.exp() * x + F.gelu(x)).numpy()) for x in xs]
    wrong: list[Any] = []

    def work(i: int) -> None:
        for _ in range(200):
            got = (xs[i].exp() * xs[i] + F.gelu(xs[i])).numpy()
            if not np.allclose(got, expected[i], rtol=1e-5):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_roundings_at_most(native, threads):
    before = kg.get_num_threads()
    kg.manual_seed(0)
    x = kg.randn(300, 1700).requires_grad_()
    g = kg.randn(300, 1700)

    def all_of_it() -> list[Any]:
        y = F.gelu(x) * x
        found = [y, y.sum(), y.sum(0), y.sum(1), y.mean(), (y * y).sum(), (y * y).sum(0)]
        return [t.detach().numpy() for t in (*found, *kg.autograd.grad(y, x, g))]

    expected = in_numpy(lambda: [a.astype(np.float64) for a in all_of_it()])
    try:
        kg.set_num_threads(threads)
        once, again = all_of_it(), all_of_it()
    finally:
        kg.set_num_threads(before)
    for a, b, c in zip(once, again, expected, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, c, rtol=2e-5, atol=2e-6 * np.abs(c).max())


def test_programs_are_forgotten_in_time(native, monkeypatch):
    monkeypatch.setattr(eager, "MOST", 10)
    for n in range(1, 40):
        kg.ones(n).exp()
    assert len(eager._programs) <= 10


def test_it_can_be_switched_off():
    code = (
        "import kilograd as kg, sys; from kilograd.kernels.kernel import LARGE;"
        "x = kg.rand(500, 500); (x.exp() + x).sum();"
        "assert LARGE.limit == float('inf') and 'llvmlite' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**_environment(), "KILOGRAD_EAGER": "numpy"}
    )


def test_a_small_script_does_not_load_the_compiler():
    code = (
        "import kilograd as kg, sys; x = kg.rand(8, 8).requires_grad_();"
        "[kg.nn.functional.softmax(x, -1).sum().backward() for _ in range(50)];"
        "assert 'llvmlite' not in sys.modules and 'kilograd.compile' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=_environment())


def _environment() -> dict[str, str]:
    environment = {k: v for k, v in os.environ.items() if k != "KILOGRAD_EAGER"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    return environment


# --- memory -------------------------------------------------------------------------------------


def test_arrays_of_the_pool_begin_at_a_page_and_come_back():
    a = memory.empty((300, 300), np.dtype(np.float32))
    assert a.flags.c_contiguous
    assert a.ctypes.data % 4096 == 0
    at = a.ctypes.data
    view = a[1:]
    del a
    b = memory.empty((300, 300), np.dtype(np.float32))
    assert b.ctypes.data != at  # the view still looks there
    del view, b
    places = {memory.empty((300, 300), np.dtype(np.float32)).ctypes.data for _ in range(3)}
    assert at in places or len(places) == 1


def test_the_pool_gives_back_what_was_not_used_for_long(monkeypatch):
    monkeypatch.setattr(memory, "FORGET", 3)
    monkeypatch.setattr(memory, "SPARE", 0)
    large = memory.empty((1 << 22,), np.dtype(np.float32))
    del large
    for _ in range(6):
        small = memory.empty((1 << 16,), np.dtype(np.float32))
        del small
    assert memory._bytes[1] <= max(memory._bytes[2] * 5 // 4, 1 << 19)


def test_a_view_of_the_pools_memory_is_a_view():
    a = kg.Tensor(memory.empty((1 << 16,), np.dtype(np.float32)))
    x = wrap(memory.empty((1 << 16,), np.dtype(np.float32)))
    x[...] = 1
    y = x.view(256, 256)
    y.add_(1)
    assert x.sum().item() == 2 * (1 << 16)
    assert x.data_ptr() == y.data_ptr()
    assert a.shape == (1 << 16,)


# --- what a reviewer found ----------------------------------------------------------------------------


def test_numbers_of_numpy_keep_their_dtype(native):
    x = kg.arange(100)
    assert (x * np.float32(0)).dtype == kg.float32
    assert (x * np.int32(0)).dtype == (in_numpy(lambda: x * np.int32(0))).dtype
    assert (kg.arange(100) * np.int32(0)).dtype == kg.int64


def test_memory_maps_are_read_anew(native, tmp_path):
    z = np.memmap(tmp_path / "z.bin", dtype="f4", mode="w+", shape=(30,))
    z[:] = np.arange(30)
    x = kg.rand(30, 30)
    (x + kg.from_numpy(z.reshape(1, 30))).numpy()
    found = (x + kg.from_numpy(z.reshape(30, 1))).numpy()
    np.testing.assert_array_equal(found, x.numpy() + np.asarray(z).reshape(30, 1))


def test_a_slice_of_a_block_does_not_give_its_memory_back():
    x = memory.empty((300, 400), np.dtype(np.float32))
    x[...] = 2
    part = x.base[:8]
    del part
    y = memory.empty((300, 400), np.dtype(np.float32))
    y[...] = 7
    assert (x == 2).all()


def test_what_overlaps_is_added_as_numpy_adds_it(native):
    r = np.random.default_rng(0).standard_normal((70, 70)).astype(np.float32)
    x = kg.tensor(r, requires_grad=True)
    x.grad = kg.tensor(r.copy())
    x.T.backward(x.grad)
    np.testing.assert_array_equal(x.grad.numpy(), r + r.T)


def test_a_users_optimizer_may_look_at_itself():
    class Clip(kg.optim.Optimizer):
        blockwise = True

        def __init__(self, params, lr):
            self.most = 0.5
            super().__init__(params, {"lr": lr})

        def update(self, p, g, state, group):
            p -= group["lr"] * np.clip(g, -self.most, self.most)

    w = kg.zeros(40000, requires_grad=True)
    optimizer = Clip([w], 0.1)
    w.sum().backward()
    optimizer.step()
    np.testing.assert_allclose(w.detach().numpy(), np.float32(-0.05))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals of Unix")
def test_a_signals_handler_may_compute():
    code = """
import signal, time, kilograd as kg
x, y, busy, count = kg.randn(700, 700), kg.randn(700, 700), [0], [0]
x * y
def handler(*_):
    if not busy[0]:
        busy[0] = 1
        x * y
        count[0] += 1
        busy[0] = 0
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
end = time.time() + 1
while time.time() < end:
    x * y
signal.setitimer(signal.ITIMER_REAL, 0)
assert count[0] > 10
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=_environment(), timeout=60)


@pytest.mark.slow
def test_a_handler_may_compute_wherever_it_interrupts():
    """A signal comes between any two instructions: a tracer of instructions stands for all of them."""
    code = """
import sys, kilograd as kg
kg.use_deterministic_algorithms({deterministic})
x, y, w = kg.randn(700, 700), kg.randn(700, 700), kg.randn(300, 300, requires_grad=True)
step = kg.compile(lambda a: (a @ a).sum() * 2)
small = kg.compile(lambda a: (a + 1) * 2)
v = kg.randn(8)
def work():
    gen = kg.Generator().manual_seed(1)
    return [x * y, step(x), small(v), kg.median(x, 1).values, kg.randn(40, generator=gen),
            kg.rand(40, generator=gen), (w * w).sum()]
for _ in range(5):
    want = work()
places, bad = set(), []
rooms = "<kilograd op>", "<kilograd launcher>", "team.py", "threads.py", "draws.py", "native_executor.py"
def trace(frame, event, arg):
    if frame.f_code.co_filename.endswith(rooms):
        frame.f_trace_opcodes = True
        if event == "opcode":
            place = frame.f_code, frame.f_lasti
            if place not in places:
                places.add(place)
                got = work()
                if not all(kg.allclose(a, b) for a, b in zip(got, want)):
                    bad.append((frame.f_code.co_name, frame.f_lineno))
    return trace
sys.settrace(trace)
for _ in range(3):
    got = work()
    if not all(kg.allclose(a, b) for a, b in zip(got, want)):
        bad.append("outside")
sys.settrace(None)
assert not bad, bad
names = {p[0].co_filename for p in places}
assert {"<kilograd op>", "<kilograd launcher>"} <= names, names
assert any(name.endswith("team.py") for name in names), names
"""
    for deterministic in ("True", "False"):
        text = code.replace("{deterministic}", deterministic)
        subprocess.run([sys.executable, "-c", text], check=True, env=_environment(), timeout=300)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals of Unix")
def test_what_a_handler_raises_ends_a_compiled_step_and_does_not_repeat_it():
    """A time limit is no refusal of the program, after which the step would run again, eagerly."""

    def late(*_):
        raise TimeoutError("enough")

    def interrupt(frame, event, arg):
        if frame.f_code.co_name == "_go":
            if event == "return":  # the native code has run
                sys.settrace(None)
                signal.raise_signal(signal.SIGUSR1)
            return interrupt
        return interrupt if event == "call" else None

    x, target = kg.randn(5, 3), kg.tensor([0, 1, 1, 0, 1])
    weights = {}
    for interrupted in (False, True):
        kg.manual_seed(0)
        model = kg.nn.Linear(3, 2)
        optimizer = kg.optim.SGD(model.parameters(), lr=0.1)

        @kg.compile
        def step(x, target, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), target)
            loss.backward()
            optimizer.step()
            return loss

        for _ in range(4):
            step(x, target)
        before = signal.signal(signal.SIGUSR1, late)
        try:
            if interrupted:
                sys.settrace(interrupt)
                with pytest.raises(TimeoutError, match="enough"):
                    step(x, target)
            else:
                step(x, target)
        finally:
            sys.settrace(None)
            signal.signal(signal.SIGUSR1, before)
        weights[interrupted] = model.weight.detach().numpy().copy()
    np.testing.assert_array_equal(weights[True], weights[False])
