"""Derivative rules as text: what was written in ``kilograd/ops`` is what a person gets to read.

A rule is a lambda of a table or a small function, so its explanation is its own source. A function is
found by its first line. Several lambdas may stand on one line: the right one has the rule's argument
names, and lies where the rule's bytecode says that it was made.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import textwrap
from collections.abc import Callable
from types import CodeType
from typing import Any, NamedTuple

from kilograd.autograd.driver import Node
from kilograd.ops.op import Derivative, Op


def rule_source(rule_function: Callable[..., Any]) -> str:
    """The source text of one derivative rule: a lambda alone, or a function without its decorators.

    Returns:
        Text that is valid Python, or "" where the source is not available (a builtin, a function made
        by ``exec``, an installation without ``.py`` files).

    >>> from kilograd.ops.elementwise import exp, where
    >>> rule_source(exp.derivatives[0].rule)
    'lambda g, y: g * y'
    >>> print(rule_source(where.derivatives[0].rule))
    def _(g, condition):
        return where(condition, g, 0.0)
    """
    function: Any = rule_function
    while True:  # a wrapper (a kernel, say) stands before the function a person wrote
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            break
    code = getattr(function, "__code__", None)
    return _text_of(code) if isinstance(code, CodeType) else ""


def rules_of(op: Op) -> list[tuple[str, str]]:
    """What each derivative of an op is: (the inputs it serves, the source of its rule).

    >>> from kilograd.ops.elementwise import multiply
    >>> rules_of(multiply)
    [('a', 'lambda g, b: g * b'), ('b', 'lambda g, a: g * a')]
    """
    return [(", ".join(d.inputs), rule_source(d.rule)) for d in op.derivatives]


def composition_of(op: Op) -> str:
    """The name of the function that says a fused op in terms of others; "" for an op that is not fused.

    >>> from kilograd.ops.norm import layer_norm
    >>> composition_of(layer_norm)
    '_layer_norm_composition'
    """
    return "" if op.composition is None else getattr(op.composition, "__name__", "composition")


def kept_by(op: Op) -> tuple[str, ...]:
    """What an op keeps alive for its rules: inputs, ``y``, shapes and residuals by name.

    A fused op keeps its inputs as well, for derivatives of higher order.

    >>> from kilograd.ops.elementwise import divide
    >>> kept_by(divide)
    ('b', 'y')
    """
    kept = dict.fromkeys(op.inputs if op.composition is not None and op.derivatives else ())
    kept |= dict.fromkeys(w for d in op.derivatives for w in d.wants if w not in op.options)
    return tuple(kept)


class Use(NamedTuple):
    """A rule as one node of a graph uses it."""

    derivative: Derivative
    where: tuple[int, ...]  # the inputs that it serves
    values: dict[str, Any]  # what its names mean there, ``g`` aside; {} once the node was freed


def uses_of(node: Node) -> list[Use]:
    """The rules that a node's backward pass will run, and what their names mean.

    >>> import kilograd as kg
    >>> x = kg.tensor([1.0, 2.0], requires_grad=True)
    >>> [(use.where, use.values) for use in uses_of((x * 3.0).grad_fn)]
    [((0,), {'b': 3.0})]
    """
    if node.plan is None or node.op is None:
        return []
    found, kept, taken = [], node.kept, set()
    for where, rule, pick in node.plan.rules:
        i, d = next(
            (i, d)
            for i, d in enumerate(node.op.derivatives)
            if d.rule is rule and i not in taken and _serves(node.op, d, where)
        )
        taken.add(i)
        values = {} if kept is None else dict(zip(d.wants, pick(kept), strict=True))
        found.append(Use(d, where if isinstance(where, tuple) else (where,), values))
    return found


def _serves(op: Op, d: Derivative, where: Any) -> bool:
    if d.inputs == (op.variadic,):
        return isinstance(where, tuple)
    places = tuple(op.inputs.index(name) for name in d.inputs)
    return places == (where if isinstance(where, tuple) else (where,))


@functools.cache
def _text_of(code: CodeType) -> str:
    """The text of the function or lambda that compiles to ``code``."""
    lines = linecache.getlines(code.co_filename)
    tree, text = _tree(code.co_filename), "".join(lines)
    if tree is None:
        return ""
    if code.co_name != "<lambda>":
        for node in ast.walk(tree):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            if first == code.co_firstlineno and node.name == code.co_name:
                return textwrap.dedent(ast.get_source_segment(text, node, padded=True) or "")
        return ""
    found = {
        _on_one_line(ast.get_source_segment(text, node) or "", node): node
        for node in ast.walk(tree)
        if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno
    }
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    found = {k: node for k, node in found.items() if _arguments(node) == names}
    if len(found) > 1:
        found = {k: node for k, node in found.items() if _is_made_of(code, node)}
    return next(iter(found), "") if len(found) == 1 else ""


@functools.lru_cache(maxsize=64)
def _tree(filename: str) -> ast.Module | None:
    try:
        return ast.parse("".join(linecache.getlines(filename)))
    except (SyntaxError, ValueError):
        return None


def _arguments(node: ast.Lambda) -> tuple[str, ...]:
    """The names of a lambda's arguments, in the order in which a code object has them."""
    a = node.args
    return tuple([x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs)])


def _on_one_line(text: str, node: ast.Lambda) -> str:
    """A lambda that goes over several lines is no expression without the parentheses around it."""
    return text if "\n" not in text else ast.unparse(node)


def _is_made_of(code: CodeType, node: ast.Lambda) -> bool:
    """Whether ``code`` is this lambda's: its last instruction returns the value of the whole body."""
    body = node.body
    place = (body.lineno, body.end_lineno, body.col_offset, body.end_col_offset)
    positions = set(code.co_positions()) if hasattr(code, "co_positions") else set()
    if any(None not in p for p in positions):
        return place in positions
    # Python 3.10, or without debug ranges: compiled by itself it gives the same bytecode
    around = f"def f({', '.join(code.co_freevars)}):\n return {ast.unparse(node)}"
    outer = next(c for c in compile(around, "<rule>", "exec").co_consts if inspect.iscode(c))
    inner = next(c for c in outer.co_consts if inspect.iscode(c))
    return _what_it_does(inner) == _what_it_does(code)


def _what_it_does(code: CodeType) -> tuple[object, ...]:
    return code.co_code, code.co_consts, code.co_names, code.co_varnames, code.co_freevars
