"""``{ancestors} Arithmetic``: a section of the table of what the ancestors had, from the tests that prove it.

The rows are read from the decorators and docstrings in ``tests/mission``, without importing anything: what
the page says of a row is the first line of its test. ``{ancestors} names`` is the table of old names, and
``{ancestors} counts`` a sentence with the numbers.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

PROOFS = Path(__file__).parents[2] / "tests" / "mission"
WIDTHS = {2: (30, 70), 3: (25, 20, 55)}  # of columns, in percent
TITLES = {
    "synapgrad": "SynapGrad", "neograd": "Neograd", "macrograd": "Macrograd", "pygrad": "PyGrad",
    "simple_autograd": "simple_autograd", "all": "all five",
}  # fmt: skip


class Row(NamedTuple):
    """A row of the table, as its test says it."""

    section: str
    name: str
    ancestors: str
    says: str  # the docstring's first line
    file: str
    test: str
    missing: str  # why the test is expected to fail; empty where it passes


class Name(NamedTuple):
    """Names that ancestors used, and what they are called here."""

    names: tuple[str, ...]
    says: str


def rows() -> list[Row]:
    """All rows, in the order of the files."""
    found = []
    for file, function, call in decorated("row"):
        section, name = (ast.literal_eval(a) for a in call.args)
        ancestors = ast.literal_eval(call.keywords[0].value)
        found.append(
            Row(
                section, name, ancestors, first_line(function), file, function.name, lacks(function)
            )
        )
    return found


def names() -> list[Name]:
    """All old names."""
    return [
        Name(tuple(ast.literal_eval(a) for a in call.args), first_line(function))
        for _, function, call in decorated("old_name")
    ]


def decorated(by: str) -> Iterator[tuple[str, ast.FunctionDef, ast.Call]]:
    """The functions with a decorator of that name: (file, function, the decorator's call)."""
    for path in sorted(PROOFS.glob("test_*.py")):
        for function in ast.parse(path.read_text(encoding="utf-8")).body:
            for call in calls(function):
                if ast.unparse(call.func) == by:
                    assert isinstance(function, ast.FunctionDef)
                    yield path.name, function, call


def calls(statement: ast.stmt) -> list[ast.Call]:
    """The decorators of a statement that are calls."""
    return [d for d in getattr(statement, "decorator_list", ()) if isinstance(d, ast.Call)]


def first_line(function: ast.FunctionDef) -> str:
    """What a test says of itself."""
    return (ast.get_docstring(function) or "").partition("\n")[0]


def lacks(function: ast.FunctionDef) -> str:
    """The reason of an xfail mark, or nothing."""
    for call in calls(function):
        if ast.unparse(call.func) == "pytest.mark.xfail":
            return next(str(ast.literal_eval(k.value)) for k in call.keywords if k.arg == "reason")
    return ""


class Ancestors(SphinxDirective):
    """One section as a table; or the names; or how many rows there are."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        for path in [Path(__file__), *PROOFS.glob("*.py")]:
            self.env.note_dependency(str(path))
        what = self.arguments[0]
        if what == "names":
            lines = names_table()
        elif what == "counts":
            lines = counts()
        else:
            found = [row for row in rows() if row.section == what]
            if not found:
                known = ", ".join(dict.fromkeys(row.section for row in rows()))
                raise self.error(f"no test has a row of {what!r}; there are {known}")
            lines = section_table(found)
        node = nodes.container()
        self.state.nested_parse(StringList(lines, str(PROOFS)), self.content_offset, node)
        for table in node.findall(nodes.table):
            table["classes"] = ["colwidths-given"]
            columns = list(table.findall(nodes.colspec))
            for column, width in zip(columns, WIDTHS[len(columns)], strict=True):
                column["colwidth"] = width
        return node.children


def section_table(found: list[Row]) -> list[str]:
    """The rows of a section, and the files that prove them."""
    files = ", ".join(f"`tests/mission/{file}`" for file in dict.fromkeys(r.file for r in found))
    had = "wrong in" if found[0].section == "Traps" else "had by"
    cells = [[row.name, had_by(row.ancestors), f"{says(row)}<br>`{row.test}`"] for row in found]
    return [f"Proved in {files}.", "", *pipe(["what", had, "in kilograd, and the test"], cells)]


def had_by(ancestors: str) -> str:
    """The ancestors' names as they write them."""
    return ", ".join(TITLES[name] for name in ancestors.split(", "))


def says(row: Row) -> str:
    """What kilograd does, or does not do yet."""
    return f"*Not yet* ({row.missing}): {row.says}" if row.missing else row.says


def names_table() -> list[str]:
    """Old names and ours."""
    cells = [[", ".join(f"`{n}`" for n in found.names), found.says] for found in names()]
    return pipe(["name", "in kilograd"], cells)


def counts() -> list[str]:
    """How many rows there are, and how many of them are true."""
    found = rows()
    traps = sum(row.section == "Traps" for row in found)
    open_ones = sum(bool(row.missing) for row in found)
    proved = (
        "each has a test" if not open_ones else f"all but {open_ones} work, and each has a test"
    )
    return [f"{len(found) - traps} rows and {traps} traps: {proved}.", ""]


def pipe(head: list[str], cells: list[list[str]]) -> list[str]:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *[[c.replace("|", "\\|") for c in row] for row in cells]]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("ancestors", Ancestors)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
