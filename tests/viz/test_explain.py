"""``explain`` tells what backward() does, and changes nothing; ``trace_nan`` finds the first bad op."""

import numpy as np
import pytest

import kilograd as kg
from kilograd.autograd import driver
from kilograd.viz.explain import BadNumber, explain, first_bad, norm, recording, trace_nan


def gradients_of(loss, leaves, gradient=None):
    return [g.numpy() for g in kg.autograd.grad(loss, leaves, gradient, retain_graph=True)]


def network():
    kg.manual_seed(0)
    return kg.nn.Sequential(
        kg.nn.Linear(3, 4), kg.nn.Tanh(), kg.nn.LayerNorm(4), kg.nn.Linear(4, 2)
    )


def test_the_leaves_get_what_backward_gives_them():
    model = network()
    loss = kg.nn.CrossEntropyLoss()(model(kg.rand(5, 3)), kg.tensor([0, 1, 0, 1, 1]))
    told = explain(loss, model=model)
    want = dict(zip([n for n, _ in model.named_parameters()],
                    gradients_of(loss, list(model.parameters())), strict=True))  # fmt: skip
    assert {leaf.name for leaf in told.leaves} == set(want)
    for leaf in told.leaves:
        np.testing.assert_array_equal(leaf.gradient, want[leaf.name])
        assert leaf.norm == pytest.approx(float(np.linalg.norm(want[leaf.name])), rel=1e-6)
    assert [s.op for s in told.steps] == ["cross_entropy", "linear", "layer_norm", "tanh", "linear"]
    assert [s.number for s in told.steps] == [1, 2, 3, 4, 5]
    assert all(p.grad is None for p in model.parameters())
    loss.backward()  # the graph is still there
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(p.grad.numpy(), want[name])


def test_it_neither_adds_to_grad_nor_to_retained_gradients():
    x = kg.rand(3, requires_grad=True)
    y = x.exp()
    y.retain_grad()
    loss = (y * y).sum()
    loss.backward(retain_graph=True)
    before = x.grad, x.grad.numpy().copy(), y.grad, y.grad.numpy().copy()
    explain(loss)
    assert x.grad is before[0] and y.grad is before[2]
    np.testing.assert_array_equal(x.grad.numpy(), before[1])
    np.testing.assert_array_equal(y.grad.numpy(), before[3])
    loss.backward()
    np.testing.assert_array_equal(y.grad.numpy(), 2 * before[3])


def test_a_backward_within_the_backward_adds_to_no_grad():
    model = network()
    x = kg.rand(5, 3, requires_grad=True)
    model[0].weight.grad = grad = kg.ones(4, 3)
    loss = kg.utils.checkpoint.checkpoint(model, x).sum()
    explain(loss)
    first_bad(loss)
    assert model[0].weight.grad is grad and (grad.numpy() == 1).all()
    assert x.grad is None and all(p.grad is None for p in list(model.parameters())[1:])


def test_rules_arguments_and_small_values():
    x = kg.tensor([0.0, 1.0], requires_grad=True)
    told = explain(x.exp().sum(), names={"x": x})
    step = told.steps[1]
    (rule,) = step.rules
    assert (rule.inputs, rule.source) == ("x", "lambda g, y: g * y")
    assert rule.arguments[0].name == "y" and "2.7183" in rule.arguments[0].text
    assert step.gradient.text == "[1., 1.]"
    told = explain(x.exp().sum(), values=0)
    assert told.steps[1].rules[0].arguments[0].text == "float32[2]"


def test_broadcasting_is_undone_in_words():
    b = kg.zeros(10, requires_grad=True)
    g = kg.randn(32, 10)
    told = explain(kg.ones(32, 10) + b, gradient=g)
    (share,) = told.steps[0].shares
    assert share.fitted == "summed over axis 0: [32, 10] → [10]"
    assert share.norm == pytest.approx(float(np.linalg.norm(g.numpy().sum(0))), rel=1e-5)
    c = kg.zeros(4, 1, 3, requires_grad=True)
    told = explain((kg.ones(2, 4, 5, 3) * c).sum())
    assert told.steps[1].shares[0].fitted == "summed over axes 0, 2: [2, 4, 5, 3] → [4, 1, 3]"


def test_another_dtype_is_told():
    x = kg.ones(2, requires_grad=True)
    told = explain((x * kg.ones(2, dtype=kg.float64)).sum())
    fitted = [s.fitted for step in told.steps for s in step.shares]
    assert "converted from float64 to float32" in fitted


def test_shares_are_counted():
    x = kg.rand(3, requires_grad=True)
    y = x * 2
    told = explain((y + y.exp() + y).sum(), names={"x": x})
    told_of_y = [
        s for step in told.steps for s in step.shares if s.to == f"step {told.steps[-1].number}"
    ]
    assert sorted(s.earlier for s in told_of_y) == [0, 1, 2]
    assert "added to 2 earlier shares" in str(told)
    assert told.leaves[0].shares == 1


def test_the_lines_are_the_users():
    x = kg.rand(3, requires_grad=True)
    with recording():
        y = x.exp()  # this line
    loss = y.sum()
    told = explain(loss)
    assert "this line" in told.steps[1].line and "test_explain.py" in told.steps[1].line
    assert told.steps[0].line == ""
    with kg.autograd.detect_anomaly():
        z = x.sin().sum()
    assert "x.sin()" in explain(z).steps[0].line


def test_several_outputs():
    x = kg.rand(4, 6, requires_grad=True)
    a, b = x.split(3, dim=1)
    told = explain((a * b).sum(), names={"x": x})
    assert told.steps[-1].op == "split" and told.steps[-1].shape == [(4, 3), (4, 3)]
    targets = [s.to for s in told.steps[1].shares]
    assert targets == ["step 3 (output 0)", "step 3 (output 1)"]
    unused = explain((a * a).sum())
    np.testing.assert_array_equal(unused.leaves[0].gradient, gradients_of((a * a).sum(), [x])[0])


def test_custom_functions():
    class Cube(kg.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x * x

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * 3 * x * x

    x = kg.tensor(2.0, requires_grad=True)
    told = explain(Cube.apply(x))
    assert told.steps[0].name == "CubeBackward" and told.steps[0].op == "" and len(told.steps) == 1
    assert told.leaves[0].gradient == 12
    assert "own backward()" in str(told)


def test_hooks_are_called_and_told():
    x = kg.ones(2, requires_grad=True)
    y = x * 3
    y.register_hook(lambda g: g * 10)
    x.register_hook(lambda g: g + 1)
    told = explain(y.sum())
    assert told.steps[1].hooks == 1 and "(after 1 hook)" in str(told)
    np.testing.assert_array_equal(told.leaves[0].gradient, [31, 31])


def test_fused_ops_name_their_composition():
    x = kg.rand(2, 3, requires_grad=True)
    told = explain(kg.nn.functional.layer_norm(x, (3,)).sum())
    assert told.steps[1].composition == "_layer_norm_composition"


def test_a_leaf_a_constant_and_a_freed_graph():
    x = kg.ones((), requires_grad=True)
    told = explain(x, names={"x": x})
    assert told.steps == [] and told.leaves[0].name == "x" and told.leaves[0].gradient == 1
    with pytest.raises(RuntimeError, match="does not require grad"):
        explain(kg.ones(()))
    with pytest.raises(RuntimeError, match="only for scalar outputs"):
        explain(kg.ones(2, requires_grad=True) * 2)
    loss = x.exp()
    loss.backward()
    with pytest.raises(RuntimeError, match="a second time"):
        explain(loss)
    y = kg.ones(2, requires_grad=True)
    changed = y.exp()
    loss = changed.sum()
    changed.data[0] = 5  # a version counter of its own
    with kg.no_grad():
        changed.add_(1)
    with pytest.raises(RuntimeError, match="inplace"):
        explain(loss)


def test_wrong_arguments():
    x = kg.ones((), requires_grad=True)
    with pytest.raises(TypeError, match="takes a tensor"):
        explain(3.0)
    with pytest.raises(ValueError, match="max_steps"):
        explain(x, max_steps=0)
    with pytest.raises(ValueError, match="values"):
        explain(x, values=-1)
    with pytest.raises(TypeError, match="names: 'w'"):
        explain(x, names={"w": 3})
    with pytest.raises(ValueError, match="Mismatch in shape"):
        explain(x.exp(), gradient=kg.ones(3))


def test_long_graphs_leave_out_the_middle_and_say_so():
    x = kg.ones((), requires_grad=True)
    y = x
    for _ in range(100):
        y = y.sin()
    told = explain(y, max_steps=5)
    text = str(told)
    assert len(told.steps) == 100 and "... 95 steps left out" in text
    shown = [line.split(".")[0] for line in text.splitlines() if "SinBackward0" in line]
    assert shown == ["1", "2", "3", "99", "100"]
    assert "left out" not in str(explain(y, max_steps=None))
    assert "95 steps left out" in told._repr_html_()
    assert str(explain(y, max_steps=1)).count("SinBackward0") == 1


def test_file_and_html(tmp_path):
    x = kg.rand(2, requires_grad=True)
    told = explain((x < 1) * x.exp(), tmp_path / "told.txt", gradient=kg.ones(2))
    assert (tmp_path / "told.txt").read_text() == f"{told}\n"
    assert [p.name for p in tmp_path.iterdir()] == ["told.txt"]
    html = told._repr_html_()
    assert html.count("<details") == html.count("</details>") == len(told.steps)


def test_anomaly_mode_does_not_stop_it_and_nan_is_shown():
    x = kg.tensor([-1.0], requires_grad=True)
    with kg.autograd.detect_anomaly():
        told = explain(x.sqrt().sum())
    assert np.isnan(told.steps[1].shares[0].norm)


def test_nothing_stays_wrapped():
    before = vars(driver.Node)["shares"]
    x = kg.ones(2, requires_grad=True)
    explain(x.sum())
    with pytest.raises(FloatingPointError), trace_nan():
        kg.tensor([-1.0]).log()
    assert vars(driver.Node)["shares"] is before


def test_norm():
    assert norm(np.float32([3, 4])) == 5
    assert norm(np.zeros((0, 3))) == 0
    assert norm(np.float16([60000, 60000])) == pytest.approx(84852.8, rel=1e-3)  # no overflow
    assert norm(np.complex64([3j, 4])) == 5


# --- NaN ---------------------------------------------------------------------------------------------


def test_forward_nan_is_found_at_its_op():
    with (
        pytest.raises(FloatingPointError, match="log made nan: its inputs were finite") as e,
        trace_nan(),
    ):
        x = kg.tensor([1.0, -2.0])
        x.exp()
        (x * 2).log()  # here
    found = e.value.found
    assert isinstance(found, BadNumber)
    assert (found.op, found.phase, found.kind, found.made_here) == ("log", "forward", "nan", True)
    assert "# here" in found.line
    assert (found.inputs[0].low, found.inputs[0].high, found.inputs[0].shape) == (-4.0, 2.0, (2,))
    assert found.output[0].nans == 1


def test_what_came_in_is_told_apart_from_what_was_made():
    with trace_nan(raise_=False) as t:
        kg.tensor([float("nan"), 1.0]) + 1
    assert (t.first.op, t.first.made_here) == ("add", False)
    with trace_nan(raise_=False) as t:
        kg.tensor([float("inf")]) - float("inf")
    assert t.first.made_here and "hold inf, but no nan" in str(t.first)


def test_overflow_and_division_make_inf():
    with trace_nan(raise_=False) as t:
        kg.tensor([1.0]) / 0.0
    assert (t.first.op, t.first.kind) == ("divide", "inf")
    with trace_nan(raise_=False, inf=False) as t:
        kg.tensor([1.0]) / 0.0
    assert t.first is None
    with pytest.raises(ValueError, match="nothing to look for"):
        trace_nan(nan=False, inf=False)


def test_infinity_on_purpose_is_no_finding():
    q = kg.rand(1, 1, 4, 8, requires_grad=True)
    with trace_nan():
        mask = kg.ones(4, 4).tril() == 0
        scores = (q @ q.transpose(-1, -2)).masked_fill(mask, -float("inf"))
        (kg.softmax(scores, -1) @ q).sum().backward()
        kg.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True).sum().backward()
        kg.nn.functional.max_pool2d(kg.rand(1, 1, 4, 4), 3, padding=1)


def test_backward_is_watched_with_the_forward_line_module_and_rule():
    model = network()
    with trace_nan(raise_=False) as t:
        x = model(kg.rand(2, 3))
        y = (x - x).abs().sqrt()  # the forward line
        y.sum().backward()
    found = t.first
    assert (found.op, found.phase, found.kind, found.made_here) == ("sqrt", "backward", "inf", True)
    assert "# the forward line" in found.line and found.rules[0][1] == "lambda g, y: g / (y * 2)"
    assert [r.name for r in found.inputs] == ["g", "y"]
    assert all(p.grad is not None for p in model.parameters())  # it went on


def test_the_module_is_named():
    class Log(kg.nn.Module):
        def forward(self, x):
            return (x - x).log() - 1

    model = kg.nn.Sequential(kg.nn.Linear(3, 3), kg.nn.ModuleDict({"a": Log()})["a"], kg.nn.ReLU())
    with pytest.raises(FloatingPointError, match=r"in module Sequential\.1\n"), trace_nan():
        model(kg.rand(2, 3))
    with trace_nan(raise_=False, inf=False) as t:
        (model[1](kg.rand(2, requires_grad=True)) * 0).sum()
    assert (t.first.op, t.first.module) == ("multiply", "")


def test_compiled_functions_run_eagerly_while_traced():
    f = kg.compile(lambda x: (x * 2).log().sum())
    x = kg.ones(3)
    f(x), f(x)
    with pytest.raises(FloatingPointError, match="log made nan"), trace_nan():
        f(-x)
    assert np.isnan(f(-x).item())


def test_results_are_the_same_while_traced():
    model, x = network(), kg.rand(4, 3)
    want = gradients_of(model(x).sum(), list(model.parameters()))
    with trace_nan():
        got = gradients_of(model(x).sum(), list(model.parameters()))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


def test_first_bad_of_functions_and_graphs():
    x = kg.tensor([1.0, -1.0], requires_grad=True)
    assert first_bad(lambda: x.exp().sum()) is None
    found = first_bad(lambda a: a.sqrt(), x)
    assert (found.op, found.phase) == ("sqrt", "forward")
    assert first_bad(x.exp().sum()) is None
    with recording():
        loss = (x.log() * 2).sum()
    found = first_bad(loss)
    assert (found.op, found.kind) == ("log", "nan") and found.made_here is not False
    assert "x.log()" in found.line
    zero = kg.zeros(2, requires_grad=True)
    loss = zero.sqrt().sum()
    found = first_bad(loss)
    assert (found.op, found.phase) == ("sqrt", "backward")
    assert zero.grad is None
    loss.backward()
    bad = kg.tensor([float("nan")], requires_grad=True)
    assert first_bad((bad * 2).sum()).made_here is False
    with pytest.raises(TypeError, match="function or a tensor"):
        first_bad(3)
    with pytest.raises(TypeError, match="arguments belong"):
        first_bad(loss, 3)


def test_only_once_open():
    t = trace_nan()
    with t, pytest.raises(RuntimeError, match="open already"):
        t.__enter__()
    with t:
        pass


# --- what an optimizer makes --------------------------------------------------------------------------


def test_a_step_that_overflows():
    w = kg.ones(2, requires_grad=True)
    w.grad = kg.tensor([1e5, 1.0])
    optimizer = kg.optim.SGD([("w", w)], lr=1e38)
    with trace_nan(raise_=False) as t:
        optimizer.step()
    found = t.first
    assert (found.op, found.phase, found.kind, found.made_here) == (
        "SGD.step", "optimizer", "inf", True,
    )  # fmt: skip
    assert "test_explain.py" in found.line and "SGD.step made inf" in str(found)
    assert [r.name for r in found.inputs] == ["w", "w.grad"]
    assert [(r.name, r.infs) for r in found.output] == [("w", 1)]
    w.data = kg.ones(2)
    with pytest.raises(FloatingPointError, match=r"SGD\.step made inf"), trace_nan():
        optimizer.step()


def test_what_an_optimizer_remembers_is_checked():
    w = kg.ones(2, requires_grad=True)
    w.grad = kg.tensor([1e25, 1.0])  # its square is no float32: w would never move again
    with trace_nan(raise_=False) as t:
        kg.optim.Adam([w], lr=0.1).step()
    assert t.first.made_here and [r.name for r in t.first.output if r.infs] == [
        "parameter 0: exp_avg_sq"
    ]


def test_a_step_that_was_given_nan():
    w = kg.ones(1, requires_grad=True)
    w.grad = kg.tensor([float("nan")])
    with trace_nan(raise_=False) as t:
        kg.optim.SGD([w], lr=0.1).step()
    assert (t.first.op, t.first.kind, t.first.made_here) == ("SGD.step", "nan", False)


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "RMSprop", "LBFGS"])
def test_good_steps_are_no_finding(kind):
    model = kg.nn.Linear(3, 1)
    optimizer = getattr(kg.optim, kind)(model.parameters(), lr=0.01)

    def closure():
        optimizer.zero_grad()
        loss = model(kg.ones(2, 3)).square().sum()
        loss.backward()
        return loss

    with trace_nan() as t:
        optimizer.step(closure)
        optimizer.step(closure)
    assert t.first is None


# --- lazy graphs --------------------------------------------------------------------------------------


def test_explain_and_first_bad_while_a_block_is_open():
    w, x = kg.tensor([1.0, -2.0], requires_grad=True), kg.tensor([3.0, 4.0])
    want = str(explain((w * x).sum(), names={"w": w}))
    with kg.Graph() as g:
        loss = (w * x).sum()
        steps = len(g)
        assert str(explain(loss, names={"w": w})) == want
        assert len(g) == steps
        found = first_bad(lambda: (w * x).log().sum())
        assert (found.op, found.made_here) == ("log", True) and len(g) == steps
        assert first_bad(loss.log()).op == "log"
    x.fill_(1)
    assert loss.item() == -1
