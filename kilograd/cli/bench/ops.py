"""``kilograd bench ops``: the table of ops, checked, then timed."""

from __future__ import annotations

from typing import Any

from kilograd.cli.bench.cases import Case, JaxCase, Op, differences
from kilograd.cli.bench.rows import Row
from kilograd.cli.bench.timing import TITLES, Step
from kilograd.compile import compile


def measure(
    op: Op, libraries: dict[str, Any], rounds: int, burst: float, part: str = "both",
    check: bool = True, compiled: bool = False,
) -> Row:  # fmt: skip
    """One row: what each library needs for the op, and what they disagree on."""
    row = Row(op.group, op.name, op.size, {})
    steps: dict[str, Step] = {}
    ours = None
    for name, library in libraries.items():
        try:
            case = JaxCase(op, library) if name == "jax" else Case(op, library)
            values = case.values() if check or name == "jax" else None
            steps[name] = case.step(part)
        except Exception as error:  # another version of a library may lack an op
            if name != "jax":
                row.error(TITLES[name], error)
                row.failed |= name == "kilograd"
            continue
        if name == "kilograd":
            ours = values
            if compiled:
                steps["compiled"] = compile(case.step(part))
        elif ours is not None and values is not None:
            notes = differences(ours, values, ("kilograd", TITLES[name]))
            if name == "jax" and notes:  # the same name, another meaning
                del steps[name]
            elif notes:
                row.notes += notes
                row.failed = True
    row.time(steps, rounds, burst)
    return row
