"""The profiler sees what runs, adds it up rightly, and leaves no trace when it is off."""

import gc
import json
import threading
import time
import weakref
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import kilograd as kg
from kilograd.autograd import calls, driver
from kilograd.compile import eager
from kilograd.compile.step import Compiled
from kilograd.kernels.kernel import LARGE
from kilograd.kernels.native import build
from kilograd.nn.module import Module
from kilograd.ops.op import REGISTRY, Op
from kilograd.optim.optimizer import Optimizer
from kilograd.profiler import (
    ProfilerAction,
    ProfilerActivity,
    profile,
    record_function,
    schedule,
    tensorboard_trace_handler,
)
from kilograd.profiler.flops import work_of_gradient
from kilograd.profiler.watch import Observer, watching

nn = kg.nn


def network():
    kg.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def training(model=None):
    model = network() if model is None else model
    optimizer, loss_fn = kg.optim.Adam(model.parameters()), nn.CrossEntropyLoss()
    x, y = kg.rand(10, 6), kg.randint(0, 3, (10,))

    def step():
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def everything():
    """All that is wrapped while somebody watches."""
    classes = {driver.Node, *driver.Node.__subclasses__()}
    return (
        "forward" in vars(Op), LARGE.run, Module.__call__, Compiled.__call__, calls.run,
        {c: vars(c).get("shares") for c in classes},
        {c: vars(c).get("step") for c in (Optimizer, kg.optim.LBFGS, kg.optim.Adam)},
        {name: op.forward for name, op in REGISTRY.items()},
    )  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_stays_wrapped():
    kg.ones(1 << 17) + 1  # the compiler is brought in by the first large op
    before = everything()
    yield
    assert everything() == before


def test_forward_backward_and_optimizer_are_told_apart():
    step = training()
    step()
    with profile() as p:
        step()
    seen = {(e.name, e.kind, e.phase) for e in p.events()}
    assert {
        ("Sequential", "module", "forward"), ("linear", "op", "forward"), ("relu", "op", "forward"),
        ("batch_norm", "op", "forward"), ("cross_entropy", "op", "forward"),
        ("backward pass", "pass", "backward"), ("LinearBackward0", "backward", "backward"),
        ("CrossEntropyBackward0", "backward", "backward"), ("Adam.step", "optimizer", "optimizer"),
    } <= seen  # fmt: skip
    (linear,) = [r for r in p.key_averages() if r.name == "linear" and r.phase == "forward"]
    assert linear.count == 2
    order = [e.name for e in p.events() if e.kind == "backward"]
    assert order == ["CrossEntropyBackward0", "LinearBackward0", "ReluBackward0", "BatchNormBackward0", "LinearBackward0"]  # fmt: skip


def test_times_are_nested_and_add_up():
    step = training()
    with profile() as p:
        step()
    for e in p.events():
        assert 0 <= e.start <= e.end and 0 <= e.self_ns <= e.duration
        if e.parent is not None:
            assert e.parent.start <= e.start and e.end <= e.parent.end
            assert e.thread == e.parent.thread
    tops = [e for e in p.events() if e.parent is None]
    assert sum(e.self_ns for e in p.events()) <= sum(e.duration for e in tops) <= p.wall_ns
    total = p.key_averages().total_average()
    assert total.self_ns == sum(e.self_ns for e in p.events())
    assert total.count == len(p.events())


def test_self_time_is_without_what_lies_inside():
    with profile() as p, record_function("outer"):
        time.sleep(0.01)
        with record_function("inner"):
            time.sleep(0.03)
    outer, inner = p.events()
    assert inner.parent is outer
    assert inner.duration >= 30e6 and outer.duration >= 40e6
    assert 10e6 <= outer.self_ns <= outer.duration - inner.duration


def test_recursion_is_counted_once_in_the_total():
    @record_function("f")
    def f(n):
        time.sleep(0.002)
        if n:
            f(n - 1)

    with profile() as p:
        f(3)
    (row,) = p.key_averages()
    assert row.count == 4 and row.total_ns == p.events()[0].duration
    assert f.__name__ == "f"


def test_results_are_the_same_and_programs_are_not_made_again():
    step = training()
    want = [step().item() for _ in range(4)]
    step = training()
    got = [step().item(), step().item()]
    with profile(record_shapes=True, profile_memory=True, with_flops=True, with_stack=True):
        got += [step().item(), step().item()]
    assert got == want


@pytest.mark.skipif(not build.available(), reason="needs Numba")
def test_native_programs_are_found_again():
    x = kg.rand(300, 400, requires_grad=True)

    def run():
        (kg.softmax(x * 2, -1) + x).exp().sum().backward()

    for _ in range(3):
        run()
    before = set(eager._programs)
    with profile() as p:
        run()
    assert set(eager._programs) == before
    assert {"softmax", "exp", "multiply"} <= {e.name for e in p.events()}
    with profile() as p:
        (kg.rand(500, 301) * 3).exp()  # a new program is made while somebody watches
    n = len(eager._programs)
    (kg.rand(500, 301) * 3).exp()
    assert len(eager._programs) == n
    assert [e.name for e in p.events()].count("exp") == 1


def test_the_first_large_op_may_come_while_watching(monkeypatch):
    ran = []

    def real(fn, args, options, writes=False, small=False):
        ran.append(fn)
        return fn(*args, **options)

    def first(fn, args, options, writes=False, small=False):
        LARGE.run = real
        return real(fn, args, options, writes, small)

    monkeypatch.setattr(LARGE, "limit", 10)
    before = LARGE.run
    try:
        LARGE.run = first
        with profile() as p:
            kg.ones(20).exp()
            kg.ones(20).sin()
        assert [e.name for e in p.events() if e.kind == "op"] == ["exp", "sin"]
        assert LARGE.run is real
        assert REGISTRY["exp"].forward in ran and REGISTRY["sin"].forward in ran
    finally:
        LARGE.run = before


def test_shapes_memory_flops_and_stacks():
    a, b = kg.rand(4, 5, requires_grad=True), kg.rand(5, 6, requires_grad=True)
    with profile(record_shapes=True, profile_memory=True, with_flops=True, with_stack=True) as p:
        y = a @ b  # the product
        y.t().sum().backward()
    by_name = {e.name: e for e in reversed(p.events())}
    product = by_name["matmul"]
    assert product.shapes == [[4, 5], [5, 6]]
    assert product.memory == 4 * 6 * 4 and product.flops == 2 * 4 * 5 * 6
    assert "test_profiler.py" in product.stack[0] and "test_shapes_memory" in product.stack[0]
    transposed = next(e for e in p.events() if e.kind == "op" and e.name in ("permute", "swapaxes"))
    assert transposed.memory == 0 and transposed.flops == 0  # a view
    assert by_name["MatmulBackward0"].flops == 2 * product.flops
    assert by_name["MatmulBackward0"].memory == 0  # the products in its rules have made all of it
    whole = {r.name: r.total_memory for r in p.key_averages()}
    assert whole["MatmulBackward0"] == a.nbytes + b.nbytes
    rows = p.key_averages(group_by_input_shape=True)
    assert [r.shapes for r in rows if r.name == "matmul"][0] == [[4, 5], [5, 6]]
    rows = p.key_averages(group_by_stack_n=1)
    assert all(len(r.stack) <= 1 for r in rows)
    text = rows.table(sort_by="flops")
    assert text.splitlines()[2].startswith("MatmulBackward0") and "FLOPs" in text


@pytest.mark.parametrize("case", ["matmul", "linear", "conv", "contract", "lstm", "attention"])
def test_gradients_of_products_take_as_much_for_each_factor(case):
    def leaf(*shape):
        return kg.rand(*shape, requires_grad=True)

    with profile(with_flops=True) as p:
        if case == "matmul":
            y = leaf(3, 4) @ kg.rand(4, 5)  # one factor has a gradient
        elif case == "linear":
            y = nn.functional.linear(leaf(3, 4), leaf(5, 4))
        elif case == "conv":
            y = nn.functional.conv2d(kg.rand(2, 3, 5, 5), leaf(4, 3, 3, 3))
        elif case == "contract":
            y = kg.einsum("bij,bjk->bik", leaf(2, 3, 4), leaf(2, 4, 5))
        elif case == "lstm":
            y = nn.LSTM(3, 4)(kg.rand(5, 2, 3))[0]
        else:
            q = leaf(1, 2, 5, 4)
            y = nn.functional.scaled_dot_product_attention(q, leaf(1, 2, 6, 4), leaf(1, 2, 6, 4))
        y.sum().backward()
    names = {"attention": ("attention", "tiled_attention"), "contract": ("contract", "matmul")}
    wanted = names.get(case, (case,))
    forward = next(e for e in p.events() if e.name in wanted and e.kind == "op" and e.flops)
    title = "".join(w.title() for w in forward.name.split("_")) + "Backward0"
    back = next(e for e in p.events() if e.name == title)
    extra = {"lstm": 4 * 5 * 2 * 4, "attention": 2 * 5 * 6}.get(case, 0)
    times = 1 if case in ("matmul", "conv") else 2
    assert back.flops == times * (forward.flops - extra)


def test_a_freed_node_and_a_custom_function_have_no_flops():
    class Double(kg.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 2

    x = kg.ones(3, requires_grad=True)
    y = Double.apply(x)
    assert work_of_gradient(y.grad_fn).flops == 0
    with profile(with_flops=True, record_shapes=True, profile_memory=True) as p:
        y.sum().backward()
    assert "DoubleBackward" in [e.name for e in p.events()]


def test_modules():
    model = network()
    step = training(model)
    with profile(profile_memory=True) as p:
        step()
        step()
    times = p.modules()
    paths = [m.path for m in times]
    assert paths == ["Sequential", "Sequential.0", "Sequential.1", "Sequential.2", "Sequential.3", "CrossEntropyLoss"]  # fmt: skip
    whole, *inner = times[:5]
    assert whole.calls == 2 and whole.name == "Sequential" and inner[0].name == "Linear"
    assert whole.forward_ns == whole.self_forward_ns + sum(m.forward_ns for m in inner)
    assert whole.backward_ns == sum(m.backward_ns for m in inner) > 0
    assert all(
        m.self_backward_ns > 0 for m in inner
    )  # derivatives belong to the module of their op
    assert "Sequential.3" in str(times)
    homes = [e.module for e in p.events() if e.name == "LinearBackward0"]
    assert homes == ["Sequential.3", "Sequential.0"] * 2
    with profile(with_modules=False) as p:
        step()
    assert all(e.kind != "module" for e in p.events())
    with pytest.raises(RuntimeError, match="with_modules"):
        p.modules()


def test_compiled_functions_are_one_event():
    step = kg.compile(training())
    for _ in range(4):
        step()
    programs = sum(map(len, step.programs.values()))
    with profile(with_flops=True) as p:
        step()
        step()
    assert [(e.kind, e.parent) for e in p.events()] == [("program", None)] * 2
    assert p.events()[0].flops > 0 and "step" in p.events()[0].name
    assert sum(map(len, step.programs.values())) == programs
    step()
    assert sum(map(len, step.programs.values())) == programs


@pytest.mark.parametrize("backend", ["numpy", "auto"])
def test_programs_run_kernel_by_kernel(backend):
    want = training()
    step = kg.compile(training(), backend=backend)
    for _ in range(4):
        assert step().item() == pytest.approx(want().item(), rel=1e-5)
    launch, runners = step.launch, [p.runner for found in step.programs.values() for p in found]
    with profile(with_kernels=True) as p:
        assert step().item() == pytest.approx(want().item(), rel=1e-5)
        again = step()
    assert again.item() == pytest.approx(want().item(), rel=1e-5)
    (first, second) = [e for e in p.events() if e.kind == "program"]
    kernels = [e for e in p.events() if e.kind == "kernel" and e.parent is first]
    assert len(kernels) > 5
    assert [e.name for e in kernels] == [e.name for e in p.events() if e.parent is second]
    assert any("test_profiler.py" in e.stack[0] for e in kernels if e.stack)
    assert first.self_ns < first.duration
    assert step.launch is launch
    assert [p.runner for found in step.programs.values() for p in found] == runners
    assert step().item() == pytest.approx(want().item(), rel=1e-5)


@pytest.mark.parametrize("backend", ["numpy", "auto"])
def test_the_backward_half_of_a_program_runs_kernel_by_kernel(backend):
    f = kg.compile(lambda x: (x.exp() * kg.nn.functional.dropout(x, 0.5)).tanh(), backend=backend)
    x = kg.rand(40, 30, requires_grad=True)
    for _ in range(3):
        f(x).sum().backward()
    x.grad = None
    kg.manual_seed(1)
    f(x).sum().backward()
    want, x.grad = x.grad, None
    kg.manual_seed(1)
    with profile(with_kernels=True) as p:
        f(x).sum().backward()
    np.testing.assert_array_equal(x.grad.array, want.array)
    above = {e.parent.name for e in p.events() if e.kind == "kernel"}
    assert "CompiledFunctionBackward" in above and len(above) == 2


def test_a_function_compiled_while_watching_is_the_same_program():
    x = kg.rand(5, 4)
    first = kg.compile(lambda x: kg.sort(x.exp() + 1)[0].sum(), backend="numpy")
    second = kg.compile(lambda x: kg.sort(x.exp() + 1)[0].sum(), backend="numpy")
    first(x)
    with profile() as p:
        second(x)
    assert [e.kind for e in p.events()] == ["program"]
    assert str(first.graph) == str(second.graph)
    plain = {type(eq.fn).__name__ for eq in first.graph.equations}
    assert {type(eq.fn).__name__ for eq in second.graph.equations} == plain
    assert first(x).item() == second(x).item()


def test_exceptions_pass_and_are_noted():
    with pytest.raises(kg.errors.ShapeError), profile() as p:
        kg.ones(2) + kg.ones(3)
    assert [(e.name, e.error) for e in p.events()] == [("add", "ValueError")]
    with pytest.raises(ZeroDivisionError), profile() as p, record_function("block"):
        1 / 0
    assert p.events()[0].error == "ZeroDivisionError"


def test_profiles_do_not_nest():
    with profile() as p:
        with pytest.raises(RuntimeError, match="cannot be nested"), profile():
            pass
        kg.ones(2) + 1
    assert [e.name for e in p.events()] == ["add"]
    with profile():
        pass
    with pytest.raises(RuntimeError, match="not on"):
        p.stop()
    with pytest.raises(RuntimeError, match="within"):
        p.step()


def test_start_stop_and_use_again():
    p = profile()
    p.start()
    kg.ones(2).exp()
    p.stop()
    assert [e.name for e in p.events()] == ["exp"]
    with p:
        kg.ones(2).sin()
    assert [e.name for e in p.events()] == ["sin"]


def test_schedule_records_only_its_steps():
    saved = []
    plan = schedule(wait=1, warmup=1, active=2, repeat=2, skip_first=1)
    with profile(
        schedule=plan, on_trace_ready=lambda p: saved.append([e.name for e in p.events()])
    ) as p:
        for name in ("exp", "sin", "cos", "tanh", "sqrt", "neg", "abs", "log", "floor", "ceil"):
            getattr(kg.ones(1), name)()
            p.step()
    assert saved == [["tanh", "sqrt"], ["log", "floor"]]
    actions = [plan(i) for i in range(10)]
    assert actions[:5] == [ProfilerAction.NONE, ProfilerAction.NONE, ProfilerAction.WARMUP,
                           ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE]  # fmt: skip
    assert actions[9] is ProfilerAction.NONE
    with pytest.raises(ValueError, match="active"):
        schedule(wait=0, warmup=0, active=0)
    with pytest.raises(ValueError, match="wait"):
        schedule(wait=-1, warmup=0, active=1)


def test_waiting_steps_are_not_even_wrapped():
    with profile(schedule=schedule(wait=1, warmup=0, active=1, repeat=1)) as p:
        assert "forward" not in vars(Op)
        p.step()
        assert "forward" in vars(Op)
        p.step()
        assert "forward" not in vars(Op)


def test_cycles_follow_each_other_or_are_kept():
    for keep, want in ((False, ["cos"]), (True, ["exp", "sin", "cos"])):
        with profile(schedule=schedule(wait=0, warmup=0, active=1), acc_events=keep) as p:
            kg.ones(1).exp()
            p.step()
            kg.ones(1).sin()
            p.step()
            kg.ones(1).cos()
        assert [e.name for e in p.events()] == want


def test_a_block_around_step_ends_where_recording_ends():
    with profile(schedule=schedule(wait=0, warmup=0, active=1, repeat=1)) as p:
        with record_function("around"):
            kg.ones(1).exp()
            p.step()
            time.sleep(0.02)
        kg.ones(1).sin()
    around, exp = p.events()
    assert exp.parent is around and around.end >= exp.end and around.duration < 20e6
    with profile() as p, record_function("running"):
        assert p.events()[0].duration == 0


def test_two_models_of_one_class():
    one, two, loss = network(), network(), nn.MSELoss()
    with profile() as p:
        x = kg.rand(4, 6)
        loss(two(x), one(x)).backward()
        nn.MSELoss()(one(x), two(x))
    paths = [m.path for m in p.modules() if "." not in m.path]
    assert paths == ["Sequential", "Sequential#2", "MSELoss"]
    assert next(m for m in p.modules() if m.path == "Sequential#2.0").backward_ns > 0


def test_on_trace_ready_at_the_end():
    told = []
    with profile(on_trace_ready=told.append) as p:
        kg.ones(1).exp()
    assert told == [p]
    with pytest.raises(ZeroDivisionError), profile(on_trace_ready=told.append):
        1 / 0
    assert told == [p]


def test_other_threads_have_their_own_events():
    def work():
        with record_function("there"):
            kg.ones(3).exp()

    with profile() as p, record_function("here"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        kg.ones(3).sin()
    by_name = {e.name: e for e in p.events()}
    assert by_name["exp"].parent is by_name["there"] and by_name["there"].parent is None
    assert by_name["sin"].parent is by_name["here"]
    assert by_name["exp"].thread != by_name["sin"].thread
    tids = {e["tid"] for e in p._trace()["traceEvents"] if e["ph"] == "X"}
    assert len(tids) == 2


def test_chrome_trace(tmp_path):
    step = training()
    with profile(record_shapes=True, profile_memory=True, with_flops=True, with_stack=True) as p:
        step()
    path = tmp_path / "trace.json"
    p.export_chrome_trace(path)
    p.export_chrome_trace(str(path))  # one that is there is replaced
    assert [f.name for f in tmp_path.iterdir()] == ["trace.json"]
    trace = json.loads(path.read_text())
    shown = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    assert len(shown) == len(p.events())
    for e, event in zip(shown, p.events(), strict=True):
        assert set(e) == {"ph", "name", "cat", "ts", "dur", "pid", "tid", "args"}
        assert e["name"] == event.name and e["dur"] == pytest.approx(event.cpu_time_total)
        assert isinstance(e["pid"], int) and isinstance(e["tid"], int)
    assert [e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"]
    with pytest.raises(FileNotFoundError):
        p.export_chrome_trace(tmp_path / "no" / "folder.json")


def test_trace_handler_and_stacks(tmp_path):
    with profile(on_trace_ready=tensorboard_trace_handler(tmp_path / "logs", "me")) as p:
        training()()
    (file,) = (tmp_path / "logs").iterdir()
    assert file.name.startswith("me.") and file.name.endswith(".pt.trace.json")
    p.export_stacks(tmp_path / "stacks.txt")
    lines = (tmp_path / "stacks.txt").read_text().splitlines()
    assert any(line.startswith("Sequential;0 Linear;linear ") for line in lines)
    assert all(line.rsplit(" ", 1)[1].isdigit() for line in lines)
    with pytest.raises(ValueError, match="metric"):
        p.export_stacks(tmp_path / "x", "wall")
    with pytest.raises(ValueError, match="use_gzip"):
        tensorboard_trace_handler(tmp_path, use_gzip=True)


def test_flame(tmp_path):
    step = training()
    with profile() as p:
        step()
        with record_function("<a & b>"):
            step()
    text = p.flame(tmp_path / "flame.svg", width=900)
    assert (tmp_path / "flame.svg").read_text() == text
    root = ET.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    groups = root.findall(f"{space}g")
    titles = [g.find(f"{space}title").text for g in groups]
    assert any(t.startswith("<a & b>: ") for t in titles)
    assert any(t.startswith("0 Linear: ") for t in titles)
    for g in groups:
        rect = g.find(f"{space}rect")
        x, w = float(rect.get("x")), float(rect.get("width"))
        assert x >= 10 and x + w <= 891
    with pytest.raises(ValueError, match="width"):
        p.flame(width=10)
    assert p._repr_svg_() is not None


def test_tables():
    with profile() as p:
        training()()
    table = p.key_averages().table(sort_by="count", row_limit=2, header="title")
    lines = table.splitlines()
    assert lines[0] == "title" and lines[-2].startswith("... and ")
    with pytest.raises(ValueError, match="sort_by: 'speed'"):
        p.table(sort_by="speed")
    assert "recorded: " in str(p) and "Adam.step" in str(p)
    assert [r.name for r in sorted(p.key_averages(), key=lambda r: r.name)][0] in p.table(
        "name"
    ).splitlines()[2]
    assert p.events().table() == p.table()
    tops = p.events().table(top_level_events_only=True)
    assert "backward pass" in tops and "LinearBackward0" not in tops
    with pytest.raises(RuntimeError, match="record_shapes"):
        p.key_averages(group_by_input_shape=True)
    with pytest.raises(RuntimeError, match="with_stack"):
        p.key_averages(group_by_stack_n=2)


def test_nothing_recorded():
    with profile() as p:
        pass
    assert str(p) == "<profile: nothing recorded>" and p.events() == []
    assert p.key_averages().total_average() is None
    assert p.modules() == [] and p._repr_svg_() is None
    ET.fromstring(p.flame())
    assert "self time in all" in p.table()


def test_activities():
    with pytest.warns(UserWarning, match="CPU"):
        profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
    with pytest.raises(ValueError, match="CPU"):
        profile(activities=[ProfilerActivity.CUDA])
    with pytest.raises(TypeError, match="ProfilerActivity"):
        profile(activities=["cpu"])


def test_record_function_costs_nothing_when_off_and_refuses_generators():
    with record_function("nobody looks"):
        pass
    with pytest.raises(TypeError, match="generator"):

        @record_function("g")
        def generator():
            yield 1


def test_arrays_do_not_live_longer_for_being_watched():
    with profile(record_shapes=True) as p:
        x = kg.rand(100)
        y = x.exp()
        ref = weakref.ref(y)
        del y
        gc.collect()
        assert ref() is None
    assert len(p.events()) == 1


def test_several_observers_and_one_that_raises():
    seen = []

    class Seen(Observer):
        def begins(self, call):
            seen.append(call.name)

    class Raises(Observer):
        def ends(self, call):
            raise LookupError(call.name)

    with (
        watching(Seen()),
        profile() as p,
        pytest.raises(LookupError, match="exp"),
        watching(Raises()),
    ):
        kg.ones(1).exp()
    assert seen == ["exp"] and [e.name for e in p.events()] == ["exp"]


def test_higher_order_gradients_while_watching():
    x = kg.tensor([0.5], requires_grad=True)
    with profile() as p:
        (g,) = kg.autograd.grad(kg.softmax(x * kg.ones(3), -1)[0], x, create_graph=True)
        (h,) = kg.autograd.grad((x**3).sum(), x, create_graph=True)
        h.backward()
    np.testing.assert_allclose(x.grad.numpy(), [3.0])
    assert g.shape == (1,)
    assert "PowerBackward0" in [e.name for e in p.events()]


def test_optimizers_of_the_users_own():
    class Mine(kg.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {"lr": 0.1})

        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.array -= group["lr"] * p.grad.array

    w = kg.ones(2, requires_grad=True)
    optimizer = Mine([w])
    (w * w).sum().backward()
    with profile(record_shapes=True) as p:
        optimizer.step()
    assert [(e.name, e.shapes) for e in p.events()] == [("Mine.step", [[2]])]


def test_a_method_that_calls_its_parent_class_is_one_call():
    """Nodes of lazy graphs, and optimizers that extend another's step."""

    class Twice(kg.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    w = kg.tensor([1.0, 2.0], requires_grad=True)
    with kg.Graph():
        loss = (w * w).sum()
    optimizer = Twice([w], lr=0.1)
    seen = []

    class Names(Observer):
        def begins(self, call):
            if call.kind in ("backward", "optimizer"):
                seen.append(call.name)

    with watching(Names()):
        loss.backward()
        optimizer.step()
        optimizer.step()
    assert seen == ["sum", "multiply", "Twice.step", "Twice.step"]
