"""Drawings: what is drawn, where it is placed, how it is saved, and that drawing changes nothing."""

from __future__ import annotations

import gc
import sys
import weakref
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import kilograd as kg
from kilograd import nn
from kilograd.errors import TraceError
from kilograd.viz.arrange import Arrangement, size_of, text_width
from kilograd.viz.diagram import ROOT, Block, Diagram, Group, wiring
from kilograd.viz.drawing import Drawing

pygraphviz = pytest.importorskip("pygraphviz")


def titles(drawing, kind="op"):
    """The titles of blocks of a kind; of operations that are several steps, that of their group."""
    found = {}
    for b in drawing.diagram.blocks.values():
        group = drawing.diagram.groups[b.parent]
        if b.kind == kind:
            of_group = kind == "op" and group.kind == "op"
            found[group.id if of_group else b.id] = group.title if of_group else b.title
    return list(found.values())


def small_model():
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))


def a_step(model, optimizer):
    def step(x, y):
        optimizer.zero_grad()
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    return step


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a = nn.Conv2d(width, width, 3, padding=1)
        self.n = nn.BatchNorm2d(width)

    def forward(self, x):
        return (self.n(self.a(x)) + x).relu()


# --- the graph of a tensor ------------------------------------------------------------------------


def test_the_tape_of_an_expression():
    x = kg.tensor([1.0, 2.0], requires_grad=True)
    data = kg.tensor([3.0, 4.0])
    z = ((x * data).exp() * 2 + x).sum()
    drawing = z.draw_graph(names={"x": x})
    assert titles(drawing) == ["multiply", "exp", "multiply", "add", "sum"]
    assert titles(drawing, "parameter") == ["x"]
    assert titles(drawing, "data") == ["data"]
    assert titles(drawing, "constant") == ["2"]
    by_title = {b.title: b for b in drawing.diagram.blocks.values()}
    assert "data [3., 4.]" in by_title["data"].lines
    arrows = {(u, v) for u, v in drawing.diagram.arrows}
    assert (by_title["x"].id, by_title["add"].id) in arrows
    rules = dict(by_title["exp"].details)
    assert rules["derivative: x"] == "lambda g, y: g * y"


def test_data_is_named_too():
    x, w = kg.randn(3, 2), kg.randn(2, requires_grad=True)
    drawing = (x @ w).sum().draw_graph(names={"x": x, "w": w})
    assert titles(drawing, "data") == ["x"] and titles(drawing, "parameter") == ["w"]


def test_values_and_gradients_of_small_tensors_are_shown():
    x = kg.tensor([1.0, 2.0], requires_grad=True)
    with kg.retain_grads():
        y = x * x
        y.sum().backward(retain_graph=True)
    drawing = y.draw_graph()
    leaf = next(b for b in drawing.diagram.blocks.values() if b.kind == "parameter")
    assert leaf.lines == ["2", "data [1., 2.]", "grad [2., 4.]"]
    op = next(b for b in drawing.diagram.blocks.values() if b.kind == "op")
    assert op.lines == ["2", "data [1., 4.]", "grad [1., 1.]"]
    assert all("data" not in line for b in y.draw_graph(values=False).diagram.blocks.values() for line in b.lines)  # fmt: skip


def test_tapes_of_every_kind_of_node():
    x = kg.randn(3, 4, requires_grad=True)
    values, _ = x.max(dim=1)  # one of several outputs

    class Double(kg.autograd.Function):
        @staticmethod
        def forward(ctx, a):
            return a * 2

        @staticmethod
        def backward(ctx, g):
            return g * 2

    z = Double.apply(values).sum() + x[kg.tensor([0, 0])].sum()
    z.backward(retain_graph=True)
    assert "Double" in "".join(titles(z.draw_graph()))
    z.backward()  # frees what the nodes kept: still drawn
    assert len(titles(z.draw_graph())) == len(titles(z.draw_graph()))
    y = kg.zeros(3, requires_grad=True) * 1
    y[0] = 5.0
    y += 1
    assert titles(y.draw_graph()) == ["multiply", "index_put", "add"]


def test_a_leaf_a_plain_tensor_and_something_else():
    leaf = kg.ones(2, requires_grad=True)
    assert [b.kind for b in leaf.draw_graph().diagram.blocks.values()] == ["parameter"]
    assert [b.kind for b in kg.ones(2).draw_graph().diagram.blocks.values()] == ["output"]
    with pytest.raises(TypeError, match="tensors, not int"):
        kg.viz.draw_graph(3)
    with pytest.raises(ValueError, match="direction"):
        leaf.draw_graph(direction="up")


def test_parameters_are_named_by_the_model():
    model = small_model()
    drawing = model(kg.randn(5, 2)).sum().draw_graph(model=model)
    assert set(titles(drawing, "parameter")) == set(dict(model.named_parameters()))


def test_formula():
    x, w = kg.randn(2, 3, requires_grad=True), kg.randn(3, requires_grad=True)
    names = {"x": x, "w": w}
    assert kg.viz.formula((x @ w - 2 * w.sum()).relu().sum(), names=names) == (
        "sum(relu(x @ w - 2 * sum(w)))"
    )
    assert kg.viz.formula(-((x + x) ** 2), names=names) == "-(x + x) ** 2"
    assert kg.viz.formula((x - (x - x)) / (x * x), names=names) == "(x - (x - x)) / (x * x)"
    h = x.exp()
    assert kg.viz.formula(h * h, names=names) == "a = exp(x)\na * a"
    assert kg.viz.formula(x, names=names) == "x"
    assert kg.viz.formula(kg.ones(2)) == "·"
    assert kg.viz.formula((x**2) ** 3 - x ** (x**2), names=names) == "(x ** 2) ** 3 - x ** (x ** 2)"
    assert kg.viz.formula((-2.0) ** x, names=names) == "(-2) ** x"


def test_a_formula_grows_with_the_graph_and_no_faster():
    x = y = kg.ones(2, 2, requires_grad=True)
    for _ in range(30):  # one of several outputs, used twice
        row = y.unbind(0)[0]
        y = (row * row).reshape(1, 2)
    assert len(kg.viz.formula(y)) < 2000
    y = x
    for _ in range(3000):
        y = (y + 1).sin()
    text = kg.viz.formula(y)
    assert text.count("sin") == 3000 and len(text) < 60_000


# --- the graph of a program -----------------------------------------------------------------------


def test_a_training_step_has_its_three_phases_and_leaves_no_trace():
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    optimizer = kg.optim.Adam(model.parameters(), lr=0.1)
    step = a_step(model, optimizer)
    x, y = kg.randn(8, 2), kg.randn(8, 1)
    step(x, y)

    def everything():
        found = [p.array.copy() for p in model.parameters()]
        found += [b.array.copy() for b in model.buffers()]
        found += [p.grad.array.copy() for p in model.parameters()]
        for p in model.parameters():
            found += [t.array.copy() for t in optimizer.state[p].values()]
        return [*found, kg.default_generator.get_state()]

    before, versions = everything(), [p._version for p in model.parameters()]
    drawing = kg.viz.graph(step, x, y)
    for a, b in zip(before, everything(), strict=True):
        assert np.array_equal(a, b)
    assert versions == [p._version for p in model.parameters()]
    groups = {g.title: g for g in drawing.diagram.groups.values()}
    assert {"forward", "backward", "update", "0: Linear", "2: Dropout", "0.weight"} <= set(groups)
    phases = [b.phase for b in drawing.diagram.blocks.values() if b.order is not None]
    assert sorted(set(phases), key=phases.index) == ["forward", "backward", "update"]
    assert phases == sorted(phases, key=["forward", "backward", "update"].index)
    assert set(titles(drawing, "gradient")) == {f"{n}.grad" for n, _ in model.named_parameters()}
    kinds = {b.title: b.kind for b in drawing.diagram.blocks.values()}
    assert kinds["0.weight"] == kinds["0.weight, new"] == "parameter"
    assert kinds["x"] == kinds["y"] == "data"
    assert kinds["lr = 0.1"] == kinds["betas[1] = 0.999"] == "constant"
    assert kinds["1.running_mean"] == "state"
    assert "random" in kinds.values() and kinds["result"] == "output"


def test_a_first_step_leaves_no_optimizer_state_behind():
    model = small_model()
    optimizer = kg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    weights = [p.array.copy() for p in model.parameters()]
    kg.viz.graph(a_step(model, optimizer), kg.randn(4, 2), kg.randn(4, 1))
    assert len(optimizer.state) == 0 and all(p.grad is None for p in model.parameters())
    assert all(np.array_equal(a, p.array) for a, p in zip(weights, model.parameters(), strict=True))


@pytest.mark.parametrize("how", [kg.optim.Adam, kg.optim.LBFGS])
def test_optimizers_and_schedules_are_as_before(how):
    model = small_model()
    optimizer = how(model.parameters(), lr=0.1)
    schedule = kg.optim.lr_scheduler.StepLR(optimizer, 1)
    x = kg.randn(4, 2)

    def step(x):
        def closure():
            optimizer.zero_grad()
            loss = model(x).square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        schedule.step()

    def everything():
        return [
            dict(optimizer.__dict__),
            [dict(group) for group in optimizer.param_groups],
            {p: dict(state) for p, state in optimizer.state.items()},
            dict(schedule.__dict__),
            [(p.array.tobytes(), p.grad, p._version) for p in model.parameters()],
        ]

    before = everything()
    if how is kg.optim.LBFGS:  # it reads the loss
        with pytest.raises(TraceError, match="reads the value"):
            kg.viz.graph(step, x, time=False)
    else:
        kg.viz.graph(step, x, time=False)
    assert everything() == before


def test_buffers_that_a_layer_replaces_are_as_before():
    class Average(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", kg.zeros(2))
            self.register_buffer("last", None)

        def forward(self, x):
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
            self.last = kg.ones(2)
            return x - self.mean

    layer = Average()
    mean = layer.mean
    kg.viz.graph(layer, kg.randn(4, 2), time=False)
    assert layer.mean is mean and mean.tolist() == [0, 0] and layer.last is None


def test_what_could_not_be_undone_is_refused():
    w = kg.ones(3, requires_grad=True)
    array = w.array

    def exchange(x):
        w.data = kg.zeros(3)
        return x * w

    with pytest.raises(TraceError, match="memory of a tensor is exchanged"):
        kg.viz.graph(exchange, kg.ones(3))
    assert w.__dict__["array"] is array and w.tolist() == [1, 1, 1]

    def detach(x):
        return (x * 2, x.detach_())

    kg.viz.graph(detach, w)
    assert w.requires_grad and w.is_leaf


def test_nothing_is_kept_alive():
    model, x = small_model(), kg.randn(4, 2)
    optimizer = kg.optim.Adam(model.parameters())
    drawing = kg.viz.graph(a_step(model, optimizer), x, kg.randn(4, 1))
    gone = [weakref.ref(t) for t in (model, x, optimizer)]
    del model, x, optimizer
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3 and len(drawing)


def test_calls_around_the_drawing_are_no_part_of_it():
    class Draws(nn.Module):
        def forward(self, x):
            return kg.viz.graph(lambda x: x * 2, x, time=False)

    groups = Draws()(kg.ones(3)).diagram.groups.values()
    assert [g.title for g in groups if g.kind == "module"] == []


def test_backward_steps_lie_in_the_modules_they_belong_to():
    model = small_model()

    def loss_and_gradients(x):
        loss = model(x).sum()
        loss.backward()
        return loss

    diagram = kg.viz.graph(loss_and_gradients, kg.randn(4, 2)).diagram
    backward = [b for b in diagram.blocks.values() if b.phase == "backward" and b.order is not None]
    around = {}
    for b in backward:
        path = [diagram.groups[g].title for g in diagram.path(b.id)]
        around.setdefault(path[-1] if path[-1].endswith("′") else b.title, path)
    assert "1: ReLU" in around["relu ′"]
    first = [
        b for b in backward if "0: Linear" in [diagram.groups[g].title for g in diagram.path(b.id)]
    ]
    assert first and all("Sequential" in [diagram.groups[g].title for g in diagram.path(b.id)] for b in first)  # fmt: skip


def test_a_function_that_cannot_be_recorded_says_where_and_changes_nothing():
    w = kg.ones(3, requires_grad=True)
    seen = kg.zeros(3)

    def reads(x):
        seen.add_(1)
        return (x * w).sum().item()

    with pytest.raises(TraceError, match=r"test_drawing\.py:\d+ in reads"):
        kg.viz.graph(reads, kg.ones(3))
    assert seen.tolist() == [0, 0, 0]

    def fails(x):
        seen.add_(1)
        return x * (1 // 0)

    with pytest.raises(ZeroDivisionError):
        kg.viz.graph(fails, kg.ones(3))
    assert seen.tolist() == [0, 0, 0]
    constant = np.ones(3, np.float32)
    constant.flags.writeable = False
    with pytest.raises(TraceError, match="in reads"):
        kg.viz.graph(reads, kg.from_numpy(constant))
    assert seen.tolist() == [0, 0, 0]
    with pytest.raises(TypeError, match="not int"):
        kg.viz.graph(3)
    with pytest.raises(TypeError, match="takes no arguments"):
        kg.viz.graph(w, w)
    for depth in (-1, "2", True):
        with pytest.raises(ValueError, match="depth"):
            kg.viz.graph(w, depth=depth)


def test_what_can_be_drawn():
    model = small_model()
    x = kg.randn(4, 2)
    assert "linear" in titles(kg.viz.graph(model, x))
    compiled = kg.compile(lambda x: (x * 2).relu().sum())
    assert titles(kg.viz.graph(compiled, x)) == ["multiply", "relu", "sum"]
    compiled(x)
    assert len(kg.viz.graph(compiled.graph)) >= 3
    assert titles(kg.viz.graph((x.requires_grad_() * 2).sum())) == ["multiply", "sum"]
    assert len(kg.viz.graph(lambda: kg.ones(3))) == 2  # a constant and the result
    raw, optimised = (kg.viz.graph(lambda a: (a + 0 * a) + (a + 0 * a), x.detach(), optimised=o) for o in (False, True))  # fmt: skip
    assert len(optimised) < len(raw)


def test_each_block_says_where_it_comes_from():
    drawing = kg.viz.graph(lambda x: x.exp().sum(), kg.ones(2, 3))
    block = next(b for b in drawing.diagram.blocks.values() if b.title == "exp")
    details = dict(block.details)
    assert details["derivative: x"] == "lambda g, y: g * y"
    assert details["shape"] == "(2, 3)" and details["dtype"] == "float32"
    assert details["memory"] == "24 B" and details["time"].endswith("s")
    assert "test_drawing.py:" in details["line"] and "np.exp(" in details["code"]
    assert 0 < block.heat <= 1
    assert "time" not in dict(next(iter(kg.viz.graph(lambda x: x.exp(), kg.ones(2), time=False).diagram.blocks.values())).details)  # fmt: skip


def test_a_module_called_twice_is_two_groups_and_shares_its_parameters():
    layer = nn.Linear(3, 3)
    diagram = kg.viz.graph(lambda x: layer(layer(x)), kg.randn(2, 3)).diagram
    assert [g.title for g in diagram.groups.values() if g.kind == "module"] == ["Linear", "Linear"]
    assert [b.title for b in diagram.blocks.values() if b.kind == "parameter"] == ["weight", "bias"]


# --- models ---------------------------------------------------------------------------------------


def test_plot_shows_layers_with_shapes():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(4 * 4 * 4, 10),
    )  # fmt: skip
    state = kg.default_generator.get_state()
    buffers = [b.array.copy() for b in model.buffers()]
    drawing = model.plot(input_size=(2, 1, 8, 8))
    shown = {p.title: p.lines for p in drawing.diagram.visible() if p.kind == "module"}
    assert shown["0: Conv2d"] == ["2×1×8×8 → 2×4×8×8", "40 parameters"]
    assert shown["4: Flatten"] == ["2×4×4×4 → 2×64"]
    assert set(shown) == {"0: Conv2d", "1: BatchNorm2d", "2: ReLU", "3: MaxPool2d", "4: Flatten", "5: Linear"}  # fmt: skip
    assert np.array_equal(state, kg.default_generator.get_state())
    assert all(np.array_equal(a, b.array) for a, b in zip(buffers, model.buffers(), strict=True))
    assert "conv" in {p.title for p in model.plot(kg.randn(2, 1, 8, 8), show_ops=True).diagram.visible()}  # fmt: skip


def test_plot_of_two_inputs_and_to_a_file(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(5, 4)

        def forward(self, left, right):
            return self.a(left) + self.b(right)

    drawing = Two().plot(input_size=[(2, 3), (2, 5)], to_file=tmp_path / "two.svg")
    assert {"left", "right", "a: Linear", "b: Linear", "add"} <= {p.title for p in drawing.diagram.visible()}  # fmt: skip
    assert (tmp_path / "two.svg").read_text().startswith("<svg")
    with pytest.raises(TypeError, match="input_size"):
        Two().plot()


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (lambda: nn.LSTM(4, 5), (3, 2, 4)),
        (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (2, 5, 8)),
        (lambda: nn.Sequential(nn.LazyLinear(4), nn.Tanh()), (2, 3)),
        (lambda: nn.Identity(), (2, 3)),
    ],
)
def test_plots_of_many_kinds_of_layers(model, shape):
    model = model()
    drawing = model.plot(input_size=shape)
    assert ET.fromstring(drawing.svg) is not None


# --- places ---------------------------------------------------------------------------------------


def all_layouts(diagram, nested):
    return Arrangement(diagram, nested=nested).layouts


def drawings():
    kg.manual_seed(0)
    deep = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *[Residual(4) for _ in range(20)])
    model = small_model()
    optimizer = kg.optim.Adam(model.parameters())
    yield kg.viz.graph(deep, kg.randn(2, 3, 8, 8), time=False)
    yield kg.viz.graph(deep, kg.randn(2, 3, 8, 8), time=False, direction="LR", depth=9)
    yield kg.viz.graph(a_step(model, optimizer), kg.randn(4, 2), kg.randn(4, 1), time=False)
    yield deep(kg.randn(1, 3, 8, 8)).sum().draw_graph(model=deep)


@pytest.mark.parametrize("nested", [True, False])
def test_nothing_overlaps_and_arrows_meet_what_they_connect(nested):
    for drawing in drawings():
        assert len(drawing) > 30
        for group, layout in all_layouts(drawing.diagram, nested).items():
            boxes = list(layout.boxes.items())
            if boxes:
                x, y, w, h = np.array([b for _, b in boxes]).T
                assert (x >= -0.6).all() and (y >= -0.6).all(), group
                assert (x + w <= layout.width + 0.6).all() and (y + h <= layout.height + 0.6).all()
                beside = (x[:, None] + w[:, None] <= x + 0.6) | (x + w <= x[:, None] + 0.6)
                above = (y[:, None] + h[:, None] <= y + 0.6) | (y + h <= y[:, None] + 0.6)
                assert (beside | above | np.eye(len(boxes), dtype=bool)).all()
            for edge in layout.edges:
                assert len(edge.points) % 3 == 1
                for end, point in ((edge.source, edge.points[0]), (edge.target, edge.points[-1])):
                    if end in layout.ports:
                        assert point == layout.ports[end]
                    else:
                        left, top, wide, high = layout.boxes[end]
                        assert left - 2 <= point[0] <= left + wide + 2
                        assert top - 2 <= point[1] <= top + high + 2


def test_texts_fit_their_boxes_as_matplotlib_measures_them():
    pytest.importorskip("matplotlib")
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    for text in ("BatchNorm2d", "2×8×14×14 → 2×8×14×14", "0.weight, new", "linear ′", "WWWiiilll_()"):  # fmt: skip
        for size, weight in ((13, "bold"), (11, "normal")):
            path = TextPath((0, 0), text, size=size, prop=FontProperties(family="DejaVu Sans", weight=weight))  # fmt: skip
            real = path.get_extents().width
            ours = text_width(text, size, bold=weight == "bold")
            assert real <= ours * 1.06 + 2 and ours <= real * 1.3 + 6


def test_wires_are_cut_at_the_borders_of_groups():
    d = Diagram("t")
    d.add_group(Group("g", "g"))
    d.add_group(Group("h", "h", parent="g"))
    d.add(Block("a", "a"))
    d.add(Block("b", "b", parent="h"))
    d.add(Block("c", "c", parent="g"))
    d.arrow("a", "b")
    d.arrow("b", "c")
    d.arrow("b", "a")
    wires = wiring(d)
    assert list(wires[ROOT]) == [("a", "a", "g"), ("g", "b", "a")]
    assert list(wires["g"]) == [("in:a", "a", "h"), ("h", "b", "c"), ("h", "b", "out:b")]
    assert list(wires["h"]) == [("in:a", "a", "b"), ("b", "b", "out:b")]


def test_values_for_the_backward_pass_run_in_one_strand():
    model = small_model()
    drawing = kg.viz.graph(a_step(model, kg.optim.SGD(model.parameters())), kg.randn(4, 2), kg.randn(4, 1))  # fmt: skip
    groups = {g.title: g.id for g in drawing.diagram.groups.values() if g.kind == "phase"}
    layouts = all_layouts(drawing.diagram, nested=True)
    for phase, side in (("forward", "out:"), ("backward", "in:"), ("update", "in:")):
        ports = [p for end, p in layouts[groups[phase]].ports.items() if end.startswith(side)]
        assert len(ports) > 3
        assert len(set(ports)) <= 2, phase  # the strand, and for the forward pass the result
    ports = layouts[groups["forward"]].ports
    assert len({p for end, p in ports.items() if end.startswith("in:")}) == 2  # x and y


def test_new_values_keep_to_their_own_arrows():
    diagram = kg.viz.graph(nn.BatchNorm1d(3), kg.randn(4, 3), depth=9, time=False).diagram
    norm = next(g.id for g in diagram.groups.values() if g.title == "batch_norm")
    ports = all_layouts(diagram, nested=True)[norm].ports
    gone = [p for end, p in ports.items() if end.startswith("out:")]
    assert len(set(gone)) == len(gone) == 3  # the result, the mean, the variance


def test_long_lists_are_folded_into_runs():
    x = kg.ones(2, requires_grad=True)
    y = x
    for _ in range(5000):
        y = y * 1.0001
    drawing = y.sum().draw_graph()
    assert len(drawing) > 5000
    assert sum(1 for _ in drawing.diagram.visible()) < 240
    assert drawing.svg.count("<rect") < 300
    data = drawing.data()
    assert sum(len(g["layout"]["boxes"]) for g in data["groups"].values()) >= len(drawing)


def test_depth_opens_groups():
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Linear(2, 1))
    shown = []
    for depth in range(5):
        drawing = kg.viz.graph(model, kg.randn(3, 2), depth=depth, time=False)
        shown.append(sum(1 for _ in drawing.diagram.visible()))
    assert shown[0] < shown[1] < shown[2] < shown[3]
    assert drawing.open_to(0).svg.count("<rect") < kg.viz.graph(model, kg.randn(3, 2)).svg.count("<rect")  # fmt: skip


# --- files ----------------------------------------------------------------------------------------


def hostile():
    d = Diagram('<script>alert("1")</script> & "quotes" \\ back]]>')
    d.add(Block("a", "</text><script>", ['"];\nx -> y', "a\x00b", "$x^2$ {curly} | <b>"]))
    d.add(Block("b", "ünïcødé 汉字 ′", ["#quot; `code`", "end"], kind="data", order=1))
    d.arrow("a", "b")
    return Drawing(d)


def test_every_format_survives_hostile_names(tmp_path):
    drawing = hostile()
    root = ET.fromstring(drawing.svg)
    texts = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "</text><script>" in texts
    graph = pygraphviz.AGraph(string=drawing.dot)
    assert len(graph.nodes()) == 2 and len(graph.edges()) == 1
    assert graph.get_node("n1").attr["label"].startswith("ünïcødé")
    mermaid = drawing.mermaid
    assert mermaid.count("[") == mermaid.count("]") == 2 and "<script" not in mermaid
    pytest.importorskip("matplotlib")
    for suffix, magic in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<svg"), ("json", b"{")):
        path = drawing.save(tmp_path / f"x.{suffix}")
        assert path.read_bytes().startswith(magic)


def test_titles_may_hold_any_character():
    drawing = kg.viz.graph(lambda x: x * 2, kg.ones(2), title="a\x00<b>\ud800]]>", time=False)
    ET.fromstring(drawing.svg)
    for text in (drawing.svg, drawing.html, drawing.dot, drawing.mermaid):
        assert text.encode()


def test_pictures_are_the_same_each_time():
    pytest.importorskip("matplotlib")
    x = kg.tensor([1.0, 2.0], requires_grad=True)
    one, two = (x * 2).sum().draw_graph(), (x * 2).sum().draw_graph()
    assert one.svg == two.svg and one.pdf() == two.pdf() and one.png() == two.png()


def test_saving(tmp_path):
    drawing = kg.ones(2, requires_grad=True).exp().draw_graph()
    with pytest.raises(ValueError, match=r"\.svg, \.png, \.pdf"):
        drawing.save(tmp_path / "x.jpeg")
    with pytest.raises(FileNotFoundError):
        drawing.save(tmp_path / "nowhere" / "x.svg")
    (tmp_path / "x.svg").write_text("old")
    assert drawing.save(str(tmp_path / "x.svg")).read_text() == drawing.svg == drawing._repr_svg_()
    assert [p.name for p in tmp_path.iterdir()] == ["x.svg"]
    assert drawing.save(tmp_path / "x.DOT").read_text() == drawing.dot
    assert drawing.save(tmp_path / "x.mmd").read_text() == drawing.mermaid


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    drawing = kg.ones(2, requires_grad=True).exp().draw_graph()
    path = drawing.save(tmp_path / "x.svg")
    old = path.read_text()
    monkeypatch.setattr("os.replace", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        (drawing.open_to(0)).save(path)
    assert path.read_text() == old and [p.name for p in tmp_path.iterdir()] == ["x.svg"]


def test_without_the_packages(monkeypatch, tmp_path):
    drawing = kg.ones(2, requires_grad=True).exp().draw_graph()
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    monkeypatch.setitem(sys.modules, "graphviz", None)
    with pytest.raises(ImportError, match=r"pip install 'kilograd\[viz\]'"):
        drawing.save(tmp_path / "x.svg")
    assert not list(tmp_path.iterdir())
    drawing.save(tmp_path / "x.dot")
    drawing.save(tmp_path / "x.mmd")


def test_the_graphviz_package_does_where_dot_is(monkeypatch):
    pytest.importorskip("graphviz")
    import shutil

    if shutil.which("dot") is None:
        pytest.skip("no dot program here")
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    drawing = kg.ones(2, requires_grad=True).exp().draw_graph()
    assert ET.fromstring(drawing.svg) is not None


def test_sizes_grow_with_texts():
    short, long = Block("a", "x"), Block("b", "x", ["a much longer line than the title"])
    assert size_of(short)[0] < size_of(long)[0] and size_of(short)[1] < size_of(long)[1]
    assert size_of(Block("c", "y" * 500))[0] < 500  # cut, not endless


# --- lazy graphs --------------------------------------------------------------------------------------


def test_a_lazy_tensor_is_drawn_and_nothing_is_computed():
    x, w = kg.tensor([[1.0, 2.0]]), kg.ones(2, requires_grad=True)
    with kg.Graph() as g:
        z = (x * w * x).tanh()
        inside = z.draw_graph(names={"x": x, "w": w})
    steps = len(g)
    for drawing in (inside, z.draw_graph(names={"x": x, "w": w}), kg.viz.graph(z)):
        assert sorted(titles(drawing)) == ["multiply", "multiply", "tanh"]
    assert titles(inside, "parameter") == ["w"]
    assert titles(inside, "data") == ["x"]  # once, though it is read twice
    assert not g._recorder.values and len(g) == steps
    result = lambda d: next(b for b in d.diagram.blocks.values() if b.kind == "output")  # noqa: E731
    assert result(inside).lines == ["1×2"]
    x.fill_(0)
    z.realize()
    after = z.draw_graph(names={"x": x})
    assert any("0., 0." in line for line in result(after).lines)
    assert ("values", "min 0, mean 0, max 0") in result(after).details
    assert "2×2" not in str(result((z + 1).draw_graph()).lines)
    assert kg.viz.formula(z, names={"w": w}).count("tanh") == 1


def test_the_operations_of_a_lazy_graph():
    x = kg.ones(4)
    with kg.Graph() as g:
        y = (x * 2).tanh().sum()
    for _ in range(2):
        assert titles(kg.viz.graph(g))[:2] == titles(kg.viz.graph(g.operations))[:2]
        assert "tanh" in kg.viz.graph(g).dot
        y.realize()


def test_models_are_drawn_while_a_block_is_open():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU()), kg.ones(2, 3)
    want = {b.title for b in kg.viz.graph(model, x, time=False).diagram.blocks.values()}
    with kg.Graph() as g:
        y = x * 1
        before = len(g), len(g._recorder.decisions)
        for given in (x, y):
            drawing = kg.viz.graph(model, given, time=False)
            assert {b.title for b in drawing.diagram.blocks.values()} >= want - {"x0", "input"}
            assert "2×3 → 2×4" in str(
                [
                    part.lines
                    for part in model.plot(given).diagram.visible()
                    if part.kind == "module"
                ]
            )
        assert (len(g), len(g._recorder.decisions)) == before
    x.fill_(2)
    assert y.tolist() == [[2.0] * 3] * 2  # nothing was decided by what was looked at
