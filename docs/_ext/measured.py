"""``{measured} steps``: a table of benchmarks/results.json, with bars where it compares speeds.

The figures of the performance page are read from that file when the page is built, so that the page
says what was measured last. ``benchmarks/collect.py`` writes the file.
"""

from __future__ import annotations

import html
import json
import math
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results.json"
KINDS = {"kilograd": "kilograd, eager", "compiled": "kilograd, compiled"}
THIN = "\u202f"  # a narrow space at which no line breaks
Row = dict[str, Any]


class Measured(SphinxDirective):
    """When and where a table was measured, its bars, and its figures."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(RESULTS))
        name = self.arguments[0]
        tables = load()
        if name not in tables:
            raise self.error(f"no table {name} in {RESULTS.name}; there are {', '.join(tables)}")
        table = tables[name]
        node = nodes.container()
        self.parse(circumstances(table), node)
        if name in ("steps", "runs"):
            chart = bars(table["rows"])
            node += nodes.raw("", chart, format="html")
        self.parse(TABLES[name](table), node)
        return node.children

    def parse(self, lines: list[str], node: nodes.Element) -> None:
        """Markdown, as if it stood on the page."""
        self.state.nested_parse(StringList(lines, str(RESULTS)), self.content_offset, node)


def load() -> dict[str, Any]:
    """The tables of the results file."""
    tables: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))["tables"]
    return tables


def circumstances(table: dict[str, Any]) -> list[str]:
    """A line that says when, where, with what, and how to repeat it."""
    about, versions = table["machine"], table["versions"]
    threads = about.get("threads")
    titles = {"torch": "PyTorch", "numpy": "NumPy", "numba": "Numba"}
    words = [
        f"Measured {table['date']} on {about['cores']} cores of an {about['processor']}",
        f"{threads} thread{'s' if threads != 1 else ''} for each library",
        *[f"{titles.get(k, k)} {v}" for k, v in versions.items()],
    ]
    lines = [", ".join(words) + "."]
    if "command" in table:
        lines[0] += f" To repeat it: `{table['command']}`."
    return [*lines, ""]


def steps_table(table: dict[str, Any]) -> list[str]:
    """Times and ratios of training steps, and their means."""
    rows = [
        [
            f"`{row['name']}`<br>{row['what']}",
            *[duration(row["us"].get(k)) for k in ("torch", "kilograd", "compiled")],
            *[times(row["speed"].get(k)) for k in KINDS],
        ]
        for row in table["rows"]
    ]
    rows.append(["geometric mean", "", "", "", *[times(table["mean"].get(k)) for k in KINDS]])
    head = ["network", "PyTorch", "eager", "compiled", "speed-up, eager", "speed-up, compiled"]
    lines = pipe(head, rows)
    if "first_step" in table:
        cold, warm = (span(table["first_step"][k]) for k in ("cold", "warm"))
        lines += [
            f"The first compiled step takes {cold} s the first time on a machine, "
            f"and {warm} s in later processes.",
            "",
        ]
    return lines


def ops_table(table: dict[str, Any]) -> list[str]:
    """Mean ratios of groups of operations, and those that are slower."""
    rows = [
        [row["what"], speeds(row) + spread(row), f"`{row['command']}`"] for row in table["rows"]
    ]
    lines = pipe(["what", "speed-up", "to repeat it"], rows)
    slower = [[one["what"], f"{span(one['speed'])}{THIN}×"] for one in table.get("slower", ())]
    for row in table["rows"]:
        slower += [
            [f"`{name}` ({row['name']})", times(r)] for name, r in row.get("slowest", {}).items()
        ]
    return [*lines, "Slower than PyTorch:", "", *pipe(["what", "speed-up"], slower)]


def runs_table(table: dict[str, Any]) -> list[str]:
    """Ratios of whole runs."""
    rows = [
        [row["what"], *[times(row["speed"].get(k)) for k in KINDS], f"`{row['command']}`"]
        for row in table["rows"]
    ]
    return pipe(["what", "eager", "compiled", "to repeat it"], rows)


def footprint_table(table: dict[str, Any]) -> list[str]:
    """Seconds, megabytes, and whether memory grows."""
    rows = [
        [
            row["what"],
            amounts(row, "kilograd"),
            amounts(row, "torch"),
            f"`{row['command']}`",
        ]
        for row in table["rows"]
    ]
    return pipe(["what", "kilograd", "PyTorch", "to repeat it"], rows)


def accuracy_table(table: dict[str, Any]) -> list[str]:
    """Accuracies on test sets."""
    rows = [
        [row["what"], f"{row['accuracy'] * 100:.1f}{THIN}%", f"`{row['command']}`"]
        for row in table["rows"]
    ]
    return pipe(["network", "test accuracy", "to repeat it"], rows)


TABLES = {
    "steps": steps_table, "ops": ops_table, "runs": runs_table,
    "footprint": footprint_table, "accuracy": accuracy_table,
}  # fmt: skip


def pipe(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


def duration(us: float | None) -> str:
    """Microseconds with three digits, as milliseconds from a thousand on."""
    if us is None:
        return "–"
    return f"{us:.3g}{THIN}µs" if us < 999.5 else f"{us / 1e3:.3g}{THIN}ms"


def times(ratio: float | None) -> str:
    """A ratio with two or three digits."""
    if ratio is None:
        return "–"
    return f"{ratio:.2f}{THIN}×" if ratio < 1.995 else f"{ratio:.2g}{THIN}×"


def speeds(row: Row) -> str:
    """A row's ratios in words."""
    eager = times(row["speed"].get("kilograd"))
    compiled = row["speed"].get("compiled")
    return eager if compiled is None else f"{eager}; compiled {times(compiled)}"


def spread(row: Row) -> str:
    """Between which ratios the rows of a group lie, where that is told."""
    return f" ({span(row['range'])})" if "range" in row else ""


def span(values: list[float]) -> str:
    """One number, or from which to which."""
    return " to ".join(f"{v:.3g}" for v in values)


def amounts(row: Row, library: str) -> str:
    """Figures with their unit, each with its label."""
    values = row.get(library)
    if values is None or isinstance(values, str):
        return values or "–"
    labels = row.get("labels", [""] * len(values))
    found = [
        f"{v:.3g}{THIN}{row['unit']} {label}".strip()
        for v, label in zip(values, labels, strict=False)
    ]
    return "; ".join(found)


def bars(rows: list[Row]) -> str:
    """Ratios as bars on a logarithmic axis, from 1 to the right (faster) or to the left."""
    every = [v for row in rows for v in row["speed"].values()]
    low, high = min(0.7, *every) / 1.05, max(every) * 1.5

    def place(v: float) -> float:
        return 100 * math.log(v / low) / math.log(high / low)

    one = place(1)
    lines = ['<div class="kg-bars" role="img" aria-label="Speed-up over PyTorch">']
    lines.append('<div class="kg-legend">')
    for kind, title in KINDS.items():
        lines.append(f'<span><span class="kg-swatch kg-{kind}"></span>{title}</span>')
    lines.append("<span>the line: PyTorch, eager (logarithmic axis)</span></div>")
    for row in rows:
        lines.append(f'<div class="kg-row"><div>{html.escape(row["name"])}</div><div>')
        for kind in KINDS:
            if (v := row["speed"].get(kind)) is None:
                continue
            left, right = sorted((one, place(v)))
            lines.append(
                f'<div class="kg-track"><div class="kg-bar kg-{kind}" '
                f'style="left:{left:.2f}%;width:{right - left:.2f}%"></div>'
                f'<div class="kg-one" style="left:{one:.2f}%"></div>'
                f'<div class="kg-value" style="left:{right:.2f}%">{times(v)}</div></div>'
            )
        lines.append("</div></div>")
    return "\n".join([*lines, "</div>"])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("measured", Measured)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
