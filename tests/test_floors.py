"""The plan of the house (docs/architecture.md), held by parsing the imports: they only go down."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "kilograd"

FLOORS = {
    0: ("kernels",),
    1: ("ops", "dtypes", "errors"),
    2: tuple("tensor value size indexing autograd random functions printing linalg cuda".split()),
    3: ("nn", "optim", "utils", "datasets", "func", "compile"),
    4: ("interop", "viz", "profiler", "train", "distributed"),
    5: ("cli", "__main__"),
}
LOBBY = 3  # `import kilograd` brings in everything up to this floor, so only this floor and above may say it
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}

# Neighbours on one floor that must not know each other, and why.
STRANGERS = {
    ("compile", "nn"): "a traced program knows arrays, not layers",
    ("compile", "optim"): "an optimizer step is traced like anything else",
    ("optim", "nn"): "an optimizer updates arrays, wherever they live",
    ("nn", "optim"): "a layer does not know how it is trained",
}
AT_MODULE_LEVEL = {"numpy", "kilograd"}  # plus the standard library; cli may import its own toolkit

# Modules whose classes inherit from those of an optional package, which must be there when the class
# statement runs. In return, nobody may import such a module at module level.
HEIRS = {"kilograd.train.estimators": "sklearn"}


class Import(NamedTuple):
    where: str  # file:line
    room: str  # first name below kilograd of the importing file, "" for the lobby itself
    target: str  # dotted name imported
    lazy: bool  # inside a function


def imports_of(path: Path, source: str | None = None) -> Iterator[Import]:
    """Every import that happens at run time; what stands under ``if TYPE_CHECKING`` does not."""
    relative = path.relative_to(PACKAGE)
    room = "" if relative == Path("__init__.py") else relative.parts[0].removesuffix(".py")
    package = ("kilograd", *relative.parts[:-1])

    def visit(node: ast.AST, lazy: bool) -> Iterator[Import]:
        where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            children: list[ast.AST] = list(node.orelse)
        else:
            children = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(where, room, alias.name, lazy)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            for alias in node.names:
                inside = module == "kilograd" and alias.name in FLOOR  # `from kilograd import nn`
                yield Import(where, room, f"kilograd.{alias.name}" if inside else module, lazy)
        lazy = lazy or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in children:
            yield from visit(child, lazy)

    yield from visit(
        ast.parse(source if source is not None else path.read_text(encoding="utf-8")), False
    )


def complaints(found: Import) -> Iterator[str]:
    top, _, below = found.target.partition(".")
    mine = FLOOR.get(found.room, LOBBY)
    if top != "kilograd":
        foreign = top not in sys.stdlib_module_names and top not in AT_MODULE_LEVEL
        inherits = HEIRS.get(found.where.partition(".py:")[0].replace("/", ".")) == top
        if foreign and not inherits and not found.lazy and found.room != "cli":
            yield f"{found.where} imports {top} at module level; import it where it is used"
        return
    if found.target in HEIRS and not found.lazy:
        yield f"{found.where} imports {found.target} at module level; import it where it is used"
    room = below.partition(".")[0]
    theirs = FLOOR.get(room, LOBBY)
    if theirs > mine:
        yield f"{found.where} (floor {mine}) imports {found.target} (floor {theirs}); imports only go down"
    if why := STRANGERS.get((found.room, room)):
        yield f"{found.where} imports {found.target}: {why}"


SOURCES = sorted(PACKAGE.rglob("*.py"))


def test_every_file_is_on_a_floor():
    rooms = {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in SOURCES}
    assert sorted(rooms - FLOOR.keys() - {"__init__"}) == []


def test_imports_only_go_down():
    assert [text for path in SOURCES for i in imports_of(path) for text in complaints(i)] == []


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        ("ops/exp.py", "from kilograd.tensor import Tensor", "only go down"),
        ("ops/exp.py", "def f():\n    import kilograd as kg", "only go down"),
        ("ops/exp.py", "from ..nn import Module", "only go down"),
        ("nn/linear.py", "from kilograd import cli", "only go down"),
        ("compile/graph.py", "from kilograd.nn import Module", "not layers"),
        ("nn/linear.py", "import scipy.special", "at module level"),
        (
            "nn/linear.py",
            "try:\n    from numba import njit\nexcept ImportError: pass",
            "at module level",
        ),
        ("nn/linear.py", "def f():\n    import scipy", None),
        ("cli/__init__.py", "import click", None),
        ("ops/exp.py", "if TYPE_CHECKING:\n    from kilograd.tensor import Tensor", None),
        ("ops/exp.py", "from kilograd.ops.op import ufunc\nfrom . import op\nimport math", None),
        ("nn/linear.py", "import kilograd as kg", None),
        ("train/estimators.py", "from sklearn.base import BaseEstimator", None),
        ("train/estimators.py", "import scipy.special", "at module level"),
        ("train/trainer.py", "from sklearn.base import BaseEstimator", "at module level"),
        ("train/trainer.py", "from kilograd.train.estimators import x", "at module level"),
        ("train/trainer.py", "def f():\n    import kilograd.train.estimators", None),
    ],
)
def test_the_floors_test_sees(file, source, complaint):
    found = [text for i in imports_of(PACKAGE / file, source) for text in complaints(i)]
    assert len(found) == (complaint is not None), found
    assert complaint is None or complaint in found[0]


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank lines, comments or docstrings."""
    source = path.read_text(encoding="utf-8")
    prose: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
            node
        ):
            text = node.body[0]
            prose.update(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    code: set[int] = set()
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in (*layout, tokenize.ENDMARKER):
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - prose)


def test_the_core_can_be_read_in_an_afternoon():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    path = re.findall(r"^\d+\. \[`(kilograd/\S+\.py)`\]", readme, re.MULTILINE)
    assert len(path) >= 6, "README's reading order: a numbered list of [`kilograd/….py`] links"
    lines = {name: code_lines(ROOT / name) for name in path}
    assert sum(lines.values()) < 2500, lines


def test_import_brings_in_numpy_only():
    program = (
        "import sys, kilograd; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True, text=True, cwd=ROOT, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    optional = (
        "click cupy joblib matplotlib numba onnx pandas PIL pooch pytest requests rich safetensors scipy"
        " pygraphviz sklearn tensorboard tensorboardX torch tqdm"
    )
    assert set(run.stdout.split()) & set(optional.split()) == set()
