"""A compiled program run one kernel after another, so that each can be timed.

A native program is one table that machine code walks through; here each line of it is a table of its
own. A NumPy program's equations are called one by one. The results are the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from kilograd.compile.graph import Graph, name_of
from kilograd.compile.native_executor import Function, NativeProgram
from kilograd.compile.numpy_executor import _Writer, check, shape_may_change
from kilograd.errors import TraceError
from kilograd.kernels.native import team

_NAMELESS = ("kernel", "")
Told = Callable[
    [str, str, Callable[[], Any]], Any
]  # (name, the user's line, what to run) → its result


@contextmanager
def one_by_one(compiled: Any, told: Told) -> Iterator[None]:
    """Calls of a compiled function run its programs kernel by kernel."""
    programs = [p for found in list(compiled.programs.values()) for p in found]
    launch, runners = compiled.launch, [(p, p.runner) for p in programs]
    compiled.launch = None  # the quick way does not stop between kernels
    for p in programs:
        p.runner = _stepwise(p.runner, p.graph, told)
    try:
        yield
    finally:
        for p, runner in runners:
            p.runner = runner
        if compiled.launch is None:
            compiled.launch = launch


@contextmanager
def backward_one_by_one(backward: Any, told: Told) -> Iterator[None]:
    """The same for the second half of a program, which a backward pass outside of it runs."""
    run = backward.run
    backward.run = _stepwise(run, backward.graph, told)
    try:
        yield
    finally:
        backward.run = run


def _stepwise(runner: Any, graph: Graph, told: Told) -> Any:
    if not isinstance(runner, (NativeProgram, Function)):
        code = getattr(runner, "__code__", None)
        if code is None or code.co_filename != "<kilograd program>":
            return runner  # somebody's own
        return lambda *values: _run_equations(graph, values, told)

    def run(*values: Any) -> Any:
        native: Any = runner.program if isinstance(runner, Function) else runner
        if native is None:  # its first call lays it out
            return runner(*values)
        native._go = lambda: _go(native, told)
        try:
            return native(*values)
        finally:
            del native._go

    return run


def _run_equations(graph: Graph, values: Any, told: Told) -> tuple[list[Any], list[Any]]:
    """What a NumPy program computes, in its own words: (outputs, new values of what is written)."""
    writer = _Writer()
    lines = [writer.equation(eq) for eq in graph.equations]
    space = writer.space | {v.name: value for v, value in graph.constants.items()}
    space |= {v.name: value for v, value in zip(graph.inputs, values, strict=True)}
    keep = {*graph.results(), *graph.inputs, *graph.constants}
    last = {v: k for k, eq in enumerate(graph.equations) for v in (*eq.inputs(), *eq.outs)}
    for k, (eq, line) in enumerate(zip(graph.equations, lines, strict=True)):
        code = compile(line, "<kilograd program>", "exec")
        told(name_of(eq.fn), eq.line, functools.partial(exec, code, space))
        if shape_may_change(eq):
            for v in eq.outs:
                if not v.number:
                    check(space[v.name], v.shape)
        for v in {*eq.inputs(), *eq.outs} - keep:
            if last[v] == k:
                del space[v.name]
    return [space[v.name] for v in graph.outputs], [space[v.name] for _, v in graph.writes]


def _go(native: Any, told: Told) -> None:
    """What ``NativeProgram._go`` does, line by line."""
    labels = iter(_labels(native))  # all of them first: once it runs, memory is written
    status = native.status_array
    status[0] = 0
    for part in native.stretches:
        if type(part) is not int:
            told(*next(labels, _NAMELESS), part)
            continue
        head, code = native.heads[part], native.codes[part]
        for i in range(int(head[0])):
            alone = head.copy()
            alone[0], alone[1] = 1, code[i:].ctypes.data
            told(*next(labels, _NAMELESS), functools.partial(_run_line, native, alone))
        for generator in native.drawn[part]:
            generator._untouched = False
        if status[0]:
            raise TraceError("a kernel refused its arguments")


def _run_line(native: Any, head: np.ndarray) -> None:
    if native.parallel:
        team.run(head, native.interpret, native.blas)
    elif native.blas:
        team.alone(native.interpret, head.ctypes.data, 0, 1)
    else:
        native.interpret(head.ctypes.data, 0, 1)


def _labels(native: Any) -> list[tuple[str, str]]:
    """A name and the user's line for each line of the table, and for each step left to Python."""
    labels = []
    for step, plan in zip(native.steps, native.plans, strict=True):
        names = list(dict.fromkeys(name_of(eq.fn) for eq in step.equations))
        line = step.equations[0].line if step.equations else ""
        if step.kind == "python":
            labels.append((f"{names[0]} (Python)", line))
            continue
        for call in plan.calls if plan is not None else ():
            name = call.kernel.name
            if step.kind == "loop":
                name = f"loop: {', '.join(names) or 'copy'}"
            elif names and names[0] != name:
                name = f"{names[0]}: {name}"
            labels.append((name, line))
    return labels
