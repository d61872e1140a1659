"""Checking gradients, and looking at graphs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import kilograd as kg
from kilograd import nn
from tests.mission.rows import numbers, row


class Wrong(kg.autograd.Function):
    """A square whose derivative is wrong by a third."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0] * g


@row("Gradient check", "model grad_check / fn_grad_check", ancestors="neograd")
def test_gradient_check_of_models_and_functions():
    """`kg.autograd.gradcheck(function_or_model, inputs)`, of a model's parameters too; `gradgradcheck`."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x = kg.tensor(numbers(5, 3), requires_grad=True)
    assert kg.autograd.gradcheck(model, x) and kg.autograd.gradgradcheck(kg.sin, x)
    assert kg.autograd.gradcheck(lambda x: nn.MSELoss()(model(x), x[:, :2]), x, fast_mode=True)
    model.append(nn.Module())[-1].forward = Wrong.apply
    assert not kg.autograd.gradcheck(model, x, raise_exception=False)


def test_gradient_checks_in_either_order():
    code = (
        "import kilograd as kg; kg.autograd.gradgradcheck; assert callable(kg.autograd.gradcheck)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@row("Gradient check", "numerical_grad of a function", ancestors="pygrad")
def test_numerical_gradient_of_a_function():
    """`kg.autograd.gradcheck` takes central differences and shows both numbers where they differ."""
    x = kg.tensor([2.0], dtype=kg.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="numerical 4, analytical 6"):
        kg.autograd.gradcheck(Wrong.apply, x)
    a = numbers(3)  # of any function, elementwise or not
    x = kg.tensor(a, requires_grad=True)
    assert kg.autograd.gradcheck(lambda x: (x.outer(x) @ x).cumsum(0), x)
    assert kg.equal(x, kg.tensor(a)) and x.grad is None


@row("Visualisation", "tensor graph drawing (data, grad)", ancestors="synapgrad, macrograd")
def test_tensor_graph_drawing(tmp_path):
    """`x.draw_graph(direction="LR")`: values and gradients, a colour for each kind; svg, png, pdf, dot, html."""
    pytest.importorskip("pygraphviz")
    pytest.importorskip("matplotlib")
    x = kg.tensor([1.0, 2.0], requires_grad=True)
    with kg.retain_grads():
        y = (x * 3).sum()
    y.backward(retain_graph=True)
    drawing = y.draw_graph(direction="LR", names={"x": x})
    blocks = {b.title: b for b in drawing.diagram.blocks.values()}
    assert blocks["x"].lines[1:] == ["data [1., 2.]", "grad [3., 3.]"]
    assert [blocks[n].kind for n in ("x", "3", "sum")] == ["parameter", "constant", "op"]
    assert "rankdir=LR" in drawing.dot and "rankdir=TB" in y.draw_graph().dot
    for ending, start in (
        (".svg", b"<svg"),
        (".png", b"\x89PNG"),
        (".pdf", b"%PDF"),
        (".dot", b"digraph"),
        (".html", b"<!"),
    ):
        drawing.save(tmp_path / f"graph{ending}")
        assert start in (tmp_path / f"graph{ending}").read_bytes()[:200]


@row("Visualisation", "model plot with layer in/out shapes", ancestors="pygrad")
def test_model_plot_with_shapes(tmp_path):
    """`model.plot(input_size=…, to_file=…, dpi=…)`: layers with the shapes that go in and come out."""
    pytest.importorskip("pygraphviz")
    pytest.importorskip("matplotlib")
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(36, 2))
    drawing = model.plot(input_size=(7, 1, 5, 5), to_file=tmp_path / "model.png", dpi=60)
    shown = {p.title: p.lines for p in drawing.diagram.visible() if p.kind == "module"}
    assert shown["0: Conv2d"] == ["7×1×5×5 → 7×4×3×3", "40 parameters"]
    assert shown["1: Flatten"] == ["7×4×3×3 → 7×36"] and "2: Linear" in shown
    small = (tmp_path / "model.png").read_bytes()
    model.plot(kg.ones(7, 1, 5, 5), to_file=tmp_path / "model.png", dpi=120)

    def width(png):
        return int.from_bytes(png[16:20], "big")

    assert abs(width((tmp_path / "model.png").read_bytes()) / width(small) - 2) < 0.1
    assert np.all(model[2].weight.array != 0) and model[2].weight.grad is None  # nothing changed


@row("Visualisation", "textual formula of a graph", ancestors="macrograd")
def test_textual_formula():
    """`kg.viz.formula(y, names=…)`: what was computed, as text; values used twice have a line of their own."""
    x, w = (kg.tensor(v, requires_grad=True) for v in (2.0, 3.0))
    h = (x * w + x).exp()
    text = kg.viz.formula(h * h, names={"x": x, "w": w})
    assert text == "a = exp(x * w + x)\na * a"
    assert kg.viz.formula((x - w) * x, names={"x": x, "w": w}) == "(x - w) * x"
