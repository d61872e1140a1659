"""Every name in the "kilograd" column of the Coming-from tables exists; every "not yet" does not, yet."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import kilograd as kg

PAGES = sorted((Path(__file__).parents[1] / "docs" / "coming_from").glob("*.md"))
# What the short names in the tables stand for.
ROOTS = {
    "kg": kg,
    "x": kg.Tensor,
    "model": kg.nn.Module,
    "optimizer": kg.optim.Optimizer,
    "loader": kg.utils.data.DataLoader,
}
IN_INSTANCES = {
    ("x", "array"), ("optimizer", "state"), ("optimizer", "param_groups"), ("model", "training"),
}  # fmt: skip


class Cell(NamedTuple):
    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def cells() -> list[Cell]:
    """The kilograd column of all tables."""
    found = []
    for page in PAGES:
        column = None
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            if not line.startswith("|"):
                column = None
                continue
            row = [c.strip() for c in line.strip().strip("|").split(" | ")]
            if column is None:
                column = row.index("kilograd") if "kilograd" in row else -1
            elif column >= 0 and not set(line) <= set("|-: "):
                assert len(row) > column, f"{page.name}:{number}: too few cells"
                found.append(Cell(page.name, number, row[column]))
    return found


def lookup(path: list[str]) -> Any:
    """What a dotted name stands for; AttributeError where it does not exist."""
    root, *names = path
    if root == "kilograd":
        return imported("kilograd", names)
    what: Any = ROOTS[root]
    for name in names:
        if (root, name) in IN_INSTANCES:
            return None
        if inspect.ismodule(what) and not hasattr(what, name):
            return imported("kilograd", names)
        what = getattr(what, name)
    return what


def imported(where: str, names: list[str]) -> Any:
    """A name below a package, whose modules are imported on the way."""
    what: Any = importlib.import_module(where)
    for name in names:
        where += f".{name}"
        try:
            what = getattr(what, name)
        except (AttributeError, ImportError):
            try:
                what = importlib.import_module(where)
            except ImportError:
                raise AttributeError(f"there is no {where}") from None
    return what


def dotted(node: ast.AST) -> list[str] | None:
    """``a.b.c`` as a list of names."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name) and (node.id in ROOTS or node.id == "kilograd"):
        return [node.id, *names[::-1]]
    return None


class Names(ast.NodeVisitor):
    """The dotted names of an expression, and the keywords that each is called with."""

    def __init__(self) -> None:
        self.found: list[tuple[list[str], list[str]]] = []

    def visit_Call(self, node: ast.Call) -> None:
        if (path := dotted(node.func)) is not None:
            self.found.append((path, [k.arg for k in node.keywords if k.arg]))
        else:
            self.visit(node.func)
        for child in (*node.args, *(k.value for k in node.keywords)):
            self.visit(child)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if (path := dotted(node)) is not None:
            self.found.append((path, []))
        else:
            self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        assert node.id in ROOTS, f"{node.id} is none of {', '.join(ROOTS)}"
        self.found.append(([node.id], []))


def names_in(code: str) -> list[tuple[list[str], list[str]]]:
    """The names that an expression (or an assignment) uses."""
    visitor = Names()
    visitor.visit(ast.parse(code))
    assert visitor.found, f"{code}: no name of kilograd's in it"
    return visitor.found


ALIASES = {"axis": "dim", "keepdims": "keepdim"}  # NumPy's names, which tensor functions take


def check_keywords(code: str, what: Any, keywords: list[str]) -> None:
    try:
        parameters = inspect.signature(what).parameters
    except (TypeError, ValueError):
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for keyword in keywords:
        known = keyword in parameters or ALIASES.get(keyword) in parameters
        assert known, f"{code}: there is no argument {keyword}"


def problem(cell: Cell) -> str | None:
    """What is wrong with a cell; None where nothing is."""
    codes = re.findall(r"`([^`]+)`", cell.text)
    if cell.text.startswith("not needed"):
        return None if not codes else "say nothing more than `not needed`"
    if cell.text.startswith("not yet:"):
        if not codes:
            return "name what is not there yet"
        for code in codes:
            try:
                lookup(code.split("."))
            except (AttributeError, ImportError):
                continue
            return f"{code} exists by now: update the table"
        return None
    if not codes:
        return "no name of kilograd's"
    for code in codes:
        try:
            for path, keywords in names_in(code):
                check_keywords(code, lookup(path), keywords)
        except (AttributeError, ImportError, AssertionError, SyntaxError) as e:
            return f"{code}: {e}"
    return None


def test_there_are_tables_on_every_page():
    pages = {cell.page for cell in cells()}
    assert pages == {p.name for p in PAGES} - {"index.md"}
    assert len(cells()) > 200


@pytest.mark.parametrize("page", [p.name for p in PAGES])
def test_names_exist(page):
    wrong = {str(cell): p for cell in cells() if cell.page == page and (p := problem(cell))}
    assert wrong == {}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("`kg.no_such_thing`", "no_such_thing"),
        ("`kg.nn.Conv2D`", "Conv2D"),
        ("`x.no_such_method()`", "no_such_method"),
        ("`kg.sum(x, dims=0)`", "no argument dims"),
        ("`kilograd.train.nothing`", "nothing"),
        ("`y.sum()`", "none of"),
        ("`2 + 2`", "no name"),
        ("not yet: `kg.no_grad`", "exists by now"),
        ("not yet: `kilograd.train.Trainer`", "exists by now"),
        ("not yet", "no name"),
        ("not yet: soon", "name what"),
    ],
)
def test_the_check_finds_mistakes(text, word):
    found = problem(Cell("test", 1, text))
    assert found is not None and word in found


@pytest.mark.parametrize(
    "text",
    [
        "`kg.sum(x, axis=0, keepdims=True)`", "`x.grad = None`", "`x ** 2`, `kg.exp`",
        "`kilograd.train.Trainer`", "not yet: `kg.no_such_thing`", "not needed",
        "`kg.optim.SGD(model.parameters(), lr=0.1)`",
    ],
)  # fmt: skip
def test_the_check_lets_right_lines_through(text):
    assert problem(Cell("test", 1, text)) is None


def test_pytorch_example_gives_pytorchs_numbers():
    """The worked example with its own imports, and with PyTorch's."""
    pytest.importorskip("torch")
    page = next(p for p in PAGES if p.name == "pytorch.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    original = re.sub(r"^(import|from) kilograd", r"\1 torch", block, flags=re.MULTILINE)
    original = original.replace("import torch as torch", "import torch")
    ours: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    exec(block, ours)
    exec(original, theirs)
    assert ours["torch"] is kg and theirs["torch"].__name__ == "torch"
    assert len(ours["losses"]) == 20
    assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-4)
    assert ours["accuracy"] == theirs["accuracy"]
