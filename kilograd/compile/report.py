"""``step.explain()``: what became of a function, in words and numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from kilograd.compile.graph import Equation, Graph, Var, name_of

_PRODUCTS = (np.matmul, np.ndarray.dot, np.dot)


def flops(graph: Graph) -> int:
    """Multiplications and additions of the matrix products, convolutions and elementwise steps."""
    return sum(_flops(eq) for eq in graph.equations)


def _flops(eq: Equation) -> int:
    out = eq.outs[0].size if eq.outs else 0
    name = name_of(eq.fn)
    arrays = [v for v in eq.inputs() if not v.number]
    if eq.fn in _PRODUCTS and arrays:
        return 2 * out * (arrays[0].shape[-1] if arrays[0].shape else 1)
    if name == "conv_forward":
        return 2 * out * _inside(arrays[1])
    if name == "conv_input_grad":
        return 2 * arrays[0].size * _inside(arrays[1])
    if name == "conv_weight_grad":
        return 2 * arrays[0].size * _inside(eq.outs[0])
    if name in ("reshape", "transpose", "broadcast_to", "getitem", "copy"):
        return 0
    return max([out, *[v.size for v in arrays]], default=0)


def _inside(w: Var) -> int:
    """How many products make one number of a convolution with these weights (O, C, …)."""
    return w.size // max(w.shape[0], 1)


def nbytes(v: Var) -> int:
    """The bytes of a value."""
    return v.size * (8 if v.number else v.dtype.itemsize)


def _amount(n: float, unit: str) -> str:
    for prefix in ("", "k", "M", "G"):
        if n < 1000 or prefix == "G":
            return f"{n:.3g} {prefix}{unit}"
        n /= 1000
    return ""


def explain(compiled: Any) -> str:
    """The report on a compiled function's last program."""
    lines = [
        f"compiled function {getattr(compiled.fn, '__qualname__', type(compiled.fn).__name__)}"
    ]
    programs = sum(len(p) for p in compiled.programs.values())
    lines.append(f"  programs: {programs}, for {len(compiled.programs)} signature(s)")
    for why in compiled.eager.values():
        lines.append("  runs eagerly for a signature: " + why.replace("\n", "\n    "))
    program = compiled.last
    if program is None:
        lines.append("  nothing was compiled yet")
        return "\n".join(lines)
    graph = program.graph
    kinds = Counter(s.kind for s in program.sources)
    names = {"argument": "arguments", "tensor": "tensors read by reference", "grad": ".grad tensors",
             "setting": "optimizer settings"}  # fmt: skip
    lines.append("  inputs: " + ", ".join(f"{n} {names[k]}" for k, n in kinds.items()))
    lines.append(f"  written: {len(graph.writes)} tensors; results: {len(graph.outputs)}")
    lines.append(f"  random draws: {sum(eq.effect and bool(eq.outs) for eq in graph.equations)}")
    lines.append(f"  equations: {len(graph.equations)}, {_amount(flops(graph), 'FLOP')}")
    runner = program.runner
    if not hasattr(runner, "steps"):
        moved = sum(nbytes(v) for eq in graph.equations for v in (*eq.inputs(), *eq.outs))
        lines.append(
            f"  executor: NumPy; each equation is a call; {_amount(moved, 'B')} read and written"
        )
        return "\n".join(lines)
    lines += _native(runner)
    return "\n".join(lines)


def _native(runner: Any) -> list[str]:
    """The part of the report on a native program."""
    lines = []
    loops = [s for s in runner.steps if s.kind == "loop"]
    python = [s for s in runner.steps if s.kind == "python"]
    calls = sum(len(p.calls) for p in runner.plans if p is not None)
    kernels = {c.kernel for p in runner.plans if p is not None for c in p.calls}
    moved = 0
    for step in runner.steps:
        moved += sum(nbytes(v) for v in step.reads())
        moved += sum(nbytes(v) for v in step.gives() if v in runner.needed)
    lines.append(
        f"  executor: native; {len(runner.steps)} steps in {calls} calls of {len(kernels)} kernels"
        f"{', shared by threads' if runner.parallel else ''}"
    )
    lines.append(
        f"  memory: {_amount(runner.block_bytes, 'B')} for all intermediate values; {_amount(moved, 'B')} "
        "read and written between steps"
    )
    fused = sum(len(s.equations) for s in loops)
    lines.append(f"  fused: {fused} equations in {len(loops)} loops")
    shown: Counter[str] = Counter()
    for s in loops:
        words = ", ".join(name_of(eq.fn) for eq in s.equations)
        shown[f"{list(s.shape)}: {words}"] += 1
    for text, times in shown.items():
        lines.append(f"    {f'{times} x ' if times > 1 else ''}{text}")
    others = Counter(
        name_of(s.equations[0].fn) for s in runner.steps if s.kind == "call" and s.equations
    )
    if others:
        lines.append(
            "  native kernels: "
            + ", ".join(f"{n} x {k}" if n > 1 else k for k, n in others.items())
        )
    if python:
        lines.append("  left to Python:")
        for s in python:
            eq = s.equations[0]
            lines.append(f"    {name_of(eq.fn)}: {s.why} (at {eq.line})")
    else:
        lines.append("  left to Python: nothing")
    return lines
