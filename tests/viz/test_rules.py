"""Every rule can be read, and what is read is the rule."""

import ast
import functools
import math

import numpy as np
import pytest

import kilograd as kg
from kilograd.ops import elementwise as ew
from kilograd.ops.op import REGISTRY
from kilograd.viz.rules import composition_of, kept_by, rule_source, rules_of

DIFFERENTIABLE = [
    op
    for op in REGISTRY.values()
    if op.derivatives and op.forward.__module__.startswith("kilograd")
]


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=lambda op: op.name)
def test_every_rule_has_a_text_with_its_own_arguments(op):
    rules = rules_of(op)
    assert len(rules) == len(op.derivatives)
    for (inputs, text), d in zip(rules, op.derivatives, strict=True):
        assert inputs == ", ".join(d.inputs)
        (node,) = ast.parse(text).body
        function = node.value if isinstance(node, ast.Expr) else node
        assert [a.arg for a in function.args.args] == ["g", *d.wants]
        assert not getattr(function, "decorator_list", [])


@pytest.mark.parametrize(
    "op", [op for op in DIFFERENTIABLE if op in vars(ew).values()], ids=lambda op: op.name
)
def test_a_lambda_of_the_table_computes_what_the_rule_computes(op):
    rng = np.random.default_rng(0)
    for d in op.derivatives:
        text = rule_source(d.rule)
        if not text.startswith("lambda"):
            continue
        again = eval(text, vars(ew))
        given = [rng.uniform(0.1, 0.9, 5) for _ in ("g", *d.wants)]
        np.testing.assert_array_equal(again(*given), d.rule(*given))


def test_lambdas_on_one_line_are_told_apart_by_what_they_do():
    pair = (lambda g, x: g * x, lambda g, x: g / x, lambda g: g)
    assert [rule_source(f) for f in pair] == [
        "lambda g, x: g * x",
        "lambda g, x: g / x",
        "lambda g: g",
    ]
    scale = 3.0
    free = (lambda g: g * scale, lambda g: g / scale, lambda g: g * 2.0, lambda g: g * 3.0)
    texts = ["lambda g: g * scale", "lambda g: g / scale", "lambda g: g * 2.0", "lambda g: g * 3.0"]
    assert [rule_source(f) for f in free] == texts


def test_a_lambda_over_several_lines_becomes_one():
    # fmt: off
    (rule,) = [lambda g, x: g *
            np.cos(x)]
    # fmt: on
    assert rule_source(rule) == "lambda g, x: g * np.cos(x)"


def test_wrappers_are_looked_through():
    def rule(g, x):
        return g * x

    @functools.wraps(rule)
    def wrapper(*args):
        return rule(*args)

    assert rule_source(wrapper) == rule_source(rule) == "def rule(g, x):\n    return g * x\n"[:-1]
    assert rule_source(functools.partial(rule, x=2)) == rule_source(rule)


def test_no_source_is_an_empty_text():
    space = {}
    exec("def rule(g):\n    return g", space)
    assert rule_source(space["rule"]) == ""
    assert rule_source(math.sqrt) == ""
    assert rule_source(eval("lambda g: g")) == ""


def test_fused_ops_name_their_composition():
    fused = [op for op in DIFFERENTIABLE if op.composition is not None]
    assert len(fused) > 10
    assert all(composition_of(op).isidentifier() for op in fused)
    assert composition_of(ew.exp) == ""


def test_kept_by_is_what_a_node_keeps():
    x = kg.rand(3, requires_grad=True)
    y = (x / 2.0).grad_fn
    assert kept_by(ew.divide) == ("b", "y")
    assert len(y.kept) == 1  # only the rule of x is needed: it wants b
    assert kept_by(ew.add) == ()
    assert kept_by(REGISTRY["layer_norm"])[:2] == REGISTRY["layer_norm"].inputs[:2]
    assert kept_by(ew.greater) == ()
