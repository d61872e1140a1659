"""``summary``: shapes, parameters and operations are what they are, and the model is left alone."""

import io

import numpy as np
import pytest

import kilograd as kg
from kilograd.kernels.kernel import LARGE
from kilograd.nn.module import Module
from kilograd.ops.op import Op
from kilograd.viz.summary import summary

nn = kg.nn


def mnist_mlp():
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 200), nn.BatchNorm1d(200), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(200, 100), nn.BatchNorm1d(100), nn.ReLU(),
        nn.Linear(100, 10), nn.LogSoftmax(dim=1),
    )  # fmt: skip


def mnist_cnn():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding="same"), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.3),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding="same"), nn.BatchNorm2d(32), nn.ReLU(), nn.Dropout(0.3),
        nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1568, 10),
    )  # fmt: skip


def row(found, path):
    (it,) = [r for r in found.rows if r.path == path and not r.recursive]
    return it


def test_the_example_networks():
    found = summary(mnist_mlp(), (64, 1, 28, 28))
    assert found.total_params == found.trainable_params == 178_710
    assert found.total_mult_adds == 64 * (784 * 200 + 200 * 100 + 100 * 10)
    assert [r.name for r in found.rows[:3]] == ["Sequential", "Flatten", "Linear"]
    found = summary(mnist_cnn(), (128, 1, 28, 28))
    assert found.total_params == 20_586
    conv = row(found, "5")
    assert conv.input_size == [128, 16, 14, 14] and conv.output_size == [128, 32, 14, 14]
    assert conv.total.mult_adds == 128 * 32 * 14 * 14 * 16 * 9
    assert found.input_bytes == 128 * 784 * 4
    assert found.param_bytes == 4 * (20_586 + 2 * (16 + 32)) + 2 * 8  # and the running statistics
    assert found.total_bytes == found.input_bytes + 2 * found.output_bytes + found.param_bytes


@pytest.mark.parametrize(("layer", "size"), [
    (nn.Linear(7, 5), (3, 7)), (nn.Linear(7, 5, bias=False), (3, 7)), (nn.Linear(4, 2), (2, 3, 4)),
    (nn.Conv2d(4, 6, 3, groups=2, bias=False), (2, 4, 9, 8)), (nn.Conv1d(2, 3, 2, stride=2), (1, 2, 8)),
    (nn.ConvTranspose2d(3, 2, 2, bias=False), (2, 3, 4, 4)),
], ids=lambda v: repr(v))  # fmt: skip
def test_products_agree_with_the_compiler(layer, size):
    from kilograd.compile.report import flops

    step = kg.compile(lambda x: layer(x), backend="numpy")
    with kg.no_grad():
        step(kg.rand(*size))
    assert summary(layer, size).total_flops == flops(step.graph)


def test_ops_are_counted_where_they_run_not_by_layer_type():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(kg.rand(5, 3))
            self.inner = nn.Linear(3, 2)

        def forward(self, x):
            x = kg.einsum("ni,io->no", x, self.a)
            return self.inner(x) @ kg.ones(2, 2)

    found = summary(Functional(), (4, 5))
    model, inner = found.rows
    assert inner.total.mult_adds == 4 * 3 * 2
    assert model.own.mult_adds == 4 * 5 * 3 + 4 * 2 * 2
    assert model.total.mult_adds == found.total_mult_adds == 4 * 5 * 3 + 4 * 3 * 2 + 4 * 2 * 2
    assert model.own_params == 15 and found.total_params == 15 + 8


def test_columns_add_up_to_the_totals():
    model = nn.Transformer(16, 2, 1, 1, 32, batch_first=True)
    sizes = [(2, 5, 16), (2, 4, 16)]
    for depth in range(5):
        found = summary(model, sizes, depth=depth)
        assert max(r.depth for r in found.rows) == depth
        assert sum(r.own_params for r in found.rows) == found.total_params == model.num_params()
        assert sum(r.own.flops for r in found.rows) == found.total_flops
        assert sum(r.own_memory for r in found.rows) == found.output_bytes
    assert found.rows[0].input_size == [[2, 5, 16], [2, 4, 16]]


def test_recurrent_layers_and_attention():
    found = summary(nn.LSTM(4, 8, batch_first=True), (2, 5, 4))
    assert found.rows[0].output_size == [[2, 5, 8], [[1, 2, 8], [1, 2, 8]]]
    assert found.total_mult_adds == 2 * 5 * (4 * 32 + 8 * 32)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    found = summary(attention, [(3, 5, 8), (3, 7, 8), (3, 7, 8)], depth=2)
    projections = 3 * (5 * 64 + 7 * 64 + 7 * 64 + 5 * 64)
    assert found.total_mult_adds == projections + 3 * 2 * 5 * 7 * (4 + 4)
    out = row(found, "out_proj")  # its weights are used without a call
    assert out.output_size is None and out.own_params == 72
    assert found.rows[0].own_params == attention.num_params() - 72


def test_shared_modules_count_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.b = self.a
            self.tied = nn.Linear(3, 3)
            self.tied.weight = self.a.weight

        def forward(self, x):
            return self.tied(self.b(self.a(x)))

    model = Twice()
    found = summary(model, (2, 3))
    assert found.total_params == 12 + 3
    assert [r.recursive for r in found.rows] == [False, False, True, False]
    assert sum(r.own_params for r in found.rows) == 15
    assert found.total_mult_adds == 3 * 2 * 9
    assert "(recursive)" in str(found)
    assert len(summary(model, (2, 3), row_settings=["hide_recursive_layers"]).rows) == 3
    assert [r.name for r in summary(model).rows] == ["Twice", "Linear", "Linear", "Linear"]


def test_frozen_parameters_and_no_parameters():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].freeze()
    found = summary(model, (1, 3))
    assert (found.trainable_params, found.non_trainable_params) == (10, 16)
    assert [r.trainable for r in found.rows] == ["Partial", "False", "True"]
    found = summary(nn.ReLU(), (2, 3))
    assert found.total_params == 0 and found.total_flops == 6 and found.total_mult_adds == 0
    assert "0%" not in str(summary(nn.ReLU(), (2, 3), col_names=["params_percent"]))


def test_without_an_input():
    found = summary(mnist_cnn())
    assert found.total_params == 20_586 and found.total_flops == 0 and not found.ran
    text = str(found)
    assert "Output Shape" not in text and "FLOPs" not in text and "20,586" in text


def test_several_inputs_outputs_and_keywords():
    class Both(nn.Module):
        def forward(self, a, b, *, scale=1.0):
            return {"sum": a.float() + b, "parts": (a, b * scale)}

    found = summary(Both(), [(2, 3), (3,)], dtypes=[kg.int64, kg.float64])
    assert found.rows[0].output_size == {"sum": [2, 3], "parts": [[2, 3], [3]]}
    assert found.input_bytes == 2 * 3 * 8 + 3 * 8
    same = summary(Both(), input_data={"a": kg.ones(2, 3), "b": kg.ones(3)}, scale=2.0)
    assert same.rows[0].input_size == [[2, 3], [3]]
    assert summary(Both(), input_data=[np.ones((2, 3)), kg.ones(3)]).total_flops > 0
    assert summary(Both(), {"a": (2, 3), "b": (3,)}).rows[0].output_size["sum"] == [2, 3]


def test_batch_sizes():
    model = nn.Linear(3, 2)
    assert summary(model, (-1, 3)).rows[0].input_size == [1, 3]
    assert summary(model, (None, 3)).rows[0].input_size == [1, 3]
    assert summary(model, (3,), batch_dim=0).rows[0].input_size == [1, 3]
    assert summary(nn.Linear(5, 2), (4, 5), batch_dim=1).rows[0].input_size == [4, 1, 5]
    assert summary(model, (0, 3)).total_flops == 0


def test_the_model_is_as_before():
    model = mnist_mlp()
    model[3].eval()  # of mixed modes
    modes = [m.training for m in model.modules()]
    buffers = {n: (b, b.array, b.array.copy(), b._version) for n, b in model.named_buffers()}
    kg.manual_seed(5)
    state = np.array(kg.random.get_rng_state())
    found = summary(model, (8, 1, 28, 28), mode="train")
    assert found.total_params == 178_710
    assert [m.training for m in model.modules()] == modes
    for n, b in model.named_buffers():
        before, array, values, version = buffers[n]
        assert b is before and b.array is array and b._version == version
        np.testing.assert_array_equal(b.array, values)
    np.testing.assert_array_equal(np.array(kg.random.get_rng_state()), state)
    assert all(not m._forward_hooks and not m._hooked for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_parameters_that_the_forward_pass_writes_are_as_before():
    model = nn.Embedding(5, 3, max_norm=0.1)
    before = model.weight.array.tobytes(), model.weight._version
    summary(model, input_data=kg.tensor([1, 2]))
    assert (model.weight.array.tobytes(), model.weight._version) == before


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_parametrized_layers_are_rows_and_their_parametrizations_below(mode):
    layer = nn.utils.parametrizations.spectral_norm(nn.Conv1d(2, 3, 4))
    before = [t.array.tobytes() for t in (*layer.parameters(), *layer.buffers())]
    for size in ((1, 2, 6), None):
        found = summary(layer, size, mode=mode)
        assert found.rows[0].module is layer and found.rows[0].kernel_size == [4]
        assert sum(row.own_params for row in found.rows) == found.total_params == 3 * 2 * 4 + 3
    assert summary(layer, (1, 2, 6), mode=mode).total_mult_adds >= 3 * 2 * 4 * 3
    assert [t.array.tobytes() for t in (*layer.parameters(), *layer.buffers())] == before


def test_a_failing_forward_leaves_nothing_behind():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(3)
            self.last = nn.Linear(5, 2)

        def forward(self, x):
            return self.last(self.norm(x))

    model = Fails()
    before = Module.__call__, LARGE.run, vars(Op).get("forward")
    with pytest.raises(
        RuntimeError, match=r"failed in Fails\.last, given \[4, 3\]: ShapeError"
    ) as e:
        summary(model, (4, 3), mode="train")
    assert isinstance(e.value.__cause__, kg.errors.ShapeError)
    assert (Module.__call__, LARGE.run, vars(Op).get("forward")) == before
    assert model.training and model.norm.training
    assert model.norm.num_batches_tracked.item() == 0 and (model.norm.running_mean == 0).all()


def test_lazy_modules_stay_lazy():
    model = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(2))
    found = summary(model, (3, 5))
    assert found.total_params == 5 * 4 + 4 + 4 * 2 + 2
    assert found.rows[1].output_size == [3, 4] and found.rows[1].name == "Linear"
    assert model[0].has_uninitialized_params()
    without = summary(model)
    assert without.total_params == 0 and "no shape before" in str(without)


def test_compiled_models_are_run_eagerly():
    model = kg.compile(nn.Sequential(nn.Linear(3, 4), nn.ReLU()))
    x = kg.rand(2, 3)
    want = model(x)
    model(x)
    assert summary(model, (2, 3)).total_mult_adds == 24
    np.testing.assert_array_equal(model(x).array, want.array)


def test_modules_called_several_times():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.Linear(3, 3)

        def forward(self, x):
            for _ in range(3):
                x = self.cell(x)
            return x

    found = summary(Loop(), (2, 3))
    assert [r.recursive for r in found.rows] == [False, False, True, True]
    assert found.total_mult_adds == 3 * 18 and found.total_params == 12


def test_module_lists_show_the_names_below():
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(2)])
            self.unused = nn.Linear(2, 2)

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    found = summary(Listed(), (1, 2))
    assert [r.path for r in found.rows] == ["", "layers.0", "layers.1", "unused"]
    assert row(found, "unused").output_size is None and found.total_params == 18
    assert [r.path for r in summary(Listed()).rows] == [
        "",
        "layers",
        "layers.0",
        "layers.1",
        "unused",
    ]


def test_a_model_with_its_own_call():
    class Other(nn.Module):
        def __call__(self, x):
            return x

    with pytest.raises(RuntimeError, match="does not go through Module.__call__"):
        summary(Other(), (1,))


def test_columns_rows_and_text():
    model = mnist_cnn()
    found = summary(model, (1, 1, 28, 28), col_names=["kernel_size", "flops", "params_percent"],
                    row_settings=["ascii_only"])  # fmt: skip
    text = str(found)
    assert text.isascii() and "Kernel Shape" in text and "[3, 3]" in text and "76.22%" in text
    lines = str(summary(model, (1, 1, 28, 28), depth=0)).splitlines()
    assert len([line for line in lines if line.startswith("Sequential")]) == 1
    narrow = str(summary(model, (1, 1, 28, 28), col_width=8))
    assert "…" in narrow
    assert "Conv2d (0): 1-1" in str(summary(model, (1, 1, 28, 28)))
    assert "var_name" not in str(summary(model, row_settings=("depth",)))


def test_html_and_rich():
    found = summary(mnist_cnn(), (1, 1, 28, 28))
    html = found._repr_html_()
    assert html.count("<tr>") == html.count("</tr>") and "20,586" in html and "Conv2d (0)" in html
    pytest.importorskip("rich")
    from rich.console import Console

    console = Console(width=160, record=True, file=io.StringIO())
    console.print(found)
    text = console.export_text()
    assert "Conv2d (0): 1-1" in text and "Total params: 20,586" in text


def test_verbose_prints(capsys):
    found = summary(nn.Linear(2, 3), (1, 2), verbose=2)
    out = capsys.readouterr().out
    assert str(found) in out and "weight: [3, 2]" in out
    summary(nn.Linear(2, 3), (1, 2))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("how", "error"), [
    ({"input_size": "3"}, TypeError), ({"input_size": (2.0, 3)}, TypeError),
    ({"input_size": (-2, 3)}, TypeError), ({"input_size": (2, 3), "input_data": kg.ones(2, 3)}, ValueError),
    ({"mode": "test"}, ValueError), ({"depth": -1}, ValueError), ({"depth": True}, ValueError),
    ({"verbose": 3}, ValueError), ({"col_names": ["shape"]}, ValueError), ({"row_settings": "x"}, ValueError),
    ({"device": "cuda"}, ValueError), ({"col_width": 1}, ValueError),
    ({"input_size": (3,), "batch_dim": 5}, ValueError),
    ({"input_size": [(2, 3), (2, 3)], "dtypes": [kg.float32]}, ValueError),
], ids=repr)  # fmt: skip
def test_wrong_arguments(how, error):
    with pytest.raises(error):
        summary(nn.Linear(3, 2), **how)
    with pytest.raises(TypeError, match="takes a Module"):
        summary(lambda x: x)


def test_the_input_is_as_before():
    net = kg.nn.ReLU(inplace=True)
    w, given = -kg.ones(2, 3), -np.ones((2, 3), np.float32)
    for data in (w, given, [w], {"input": w}):
        summary(net, input_data=data, verbose=0)
    summary(net, verbose=0, input=w)
    assert w.tolist() == given.tolist() == [[-1.0] * 3] * 2 and w._cell[0] == 0


def test_while_a_lazy_block_is_open():
    net, x = (
        kg.nn.Sequential(kg.nn.Linear(3, 4), kg.nn.Dropout(), kg.nn.Linear(4, 1)),
        kg.ones(2, 3),
    )
    want = str(summary(net, input_data=x, verbose=0))
    with kg.Graph() as g:
        y = x * 1
        before = len(g), len(g._recorder.decisions)
        for given in (x, y):
            assert str(summary(net, input_data=given, verbose=0)) == want
        assert str(summary(net, (2, 3), verbose=0)) == want
        assert (len(g), len(g._recorder.decisions)) == before
    kg.set_default_graph(kg.Graph())
    try:
        assert str(summary(net, (2, 3), verbose=0)) == want
    finally:
        kg.set_default_graph(None)
    x.fill_(2)
    assert y.tolist() == [[2.0] * 3] * 2
