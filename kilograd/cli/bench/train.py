"""``kilograd bench train``: whole training steps of nine networks, eager and compiled."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

from kilograd.cli.bench.networks import WORKLOADS, disagreements, first_losses
from kilograd.cli.bench.rows import Row
from kilograd.cli.bench.timing import TITLES, Step
from kilograd.compile import compile


def measure(
    name: str, libraries: dict[str, Any], rounds: int, burst: float, check: bool = True,
    compiled: bool = True,
) -> Row:  # fmt: skip
    """One network: zero_grad, forward, loss, backward and optimizer (the policy: one call)."""
    row = Row("train", name, "", {})
    steps: dict[str, Step] = {}
    first: dict[str, list[list[float]]] = {}
    kinds = ["kilograd", *(["compiled"] if compiled else []), *list(libraries)[1:]]
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings(
            "ignore", message="kg.compile"
        )  # what it leaves to Python runs there
        for kind in kinds:
            library = libraries["kilograd" if kind == "compiled" else kind]
            try:
                workload = WORKLOADS[name](library)
                row.size = f"{workload.parameters:,} parameters"
                stack.enter_context(workload.mode())
                step = workload.step(compile(workload.function) if kind == "compiled" else None)
                if check:
                    first[kind] = first_losses(library, step)
            except Exception as error:  # another version of PyTorch may lack what a network needs
                row.error(TITLES[kind], error)
                row.failed |= kind in ("kilograd", "compiled")
            else:
                steps[kind] = step
        if notes := disagreements(first):
            row.notes += notes
            row.failed = True
        row.time(steps, rounds, burst)
    return row
