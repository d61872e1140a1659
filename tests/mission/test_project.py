"""What stands around the code: notebooks, examples, documentation, checks, packages."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kilograd as kg
from kilograd.utils.tensorboard import SummaryWriter
from tests.mission.rows import row

tomllib = pytest.importorskip("tomllib")  # Python 3.11
ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]


@row("Examples, docs, quality", "notebooks", ancestors="synapgrad, neograd")
def test_notebooks():
    """`notebooks/`: the ancestors' moons, MNIST and circles and more, as scripts with cells that tests run."""
    found = {p.stem: p.read_text(encoding="utf-8") for p in (ROOT / "notebooks").glob("*.py")}
    assert {"moons_mlp", "mnist_mlp", "mnist_cnn", "circles", "gan", "graphs"} <= set(found)
    for name, text in found.items():
        ast.parse(text)
        assert text.count("\n# %%") > 4 and "# %% [markdown]" in text, name
        assert f"`{name}.py`" in (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    assert "notebooks" in (ROOT / "tests" / "test_notebooks.py").read_text(encoding="utf-8")


@row("Examples, docs, quality", "example scripts", ancestors="simple_autograd")
def test_example_scripts():
    """`examples/`: scripts with options and a `--smoke` run, which tests and `.ci/run` start."""
    found = {p.stem: p.read_text(encoding="utf-8") for p in (ROOT / "examples").glob("*.py")}
    assert {"macrograd_mnist", "simple_mnist", "vit_mnist", "moons_mlp", "polynomial"} <= set(found)
    for name, text in found.items():
        tree = ast.parse(text)
        assert ast.get_docstring(tree) and '"--smoke"' in text, name
        imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        assert "kilograd" in imported and "torch" not in imported, name


@row("Examples, docs, quality", "docs site", ancestors="neograd, pygrad, simple_autograd")
def test_docs_site():
    """`docs/`: a Sphinx site with quickstart, tutorial and reference, whose code is run and links are followed."""
    docs = ROOT / "docs"
    trees = re.findall(r"```\{toctree\}(.*?)```", (docs / "index.md").read_text("utf-8"), re.DOTALL)
    listed = re.findall(r"^[\w/]+$", "\n".join(trees), re.MULTILINE)
    assert {"quickstart", "tutorial/index", "coming_from/index", "api/index"} <= set(listed)
    assert all((docs / f"{name}.md").exists() for name in listed)
    assert '"sphinx.ext.autodoc"' in (docs / "conf.py").read_text("utf-8")
    assert "test_code_blocks_run" in (ROOT / "tests" / "test_docs.py").read_text("utf-8")


@row(
    "Examples, docs, quality", "CI", ancestors="neograd, macrograd, pygrad, simple_autograd"
)  # fmt: skip
def test_ci():
    """`.ci/run`: install, format, lint, types, tests, documentation, examples; the first failure ends it."""
    script = ROOT / ".ci" / "run"
    text = script.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text
    commands = ["ruff format --check .", "ruff check .", "\nmypy\n", "sphinx -q -W", "--smoke"]
    places = [text.index(command) for command in commands]
    assert places == sorted(places)
    readme = re.findall(
        r"^python -m pip .*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M
    )
    assert "run_readme_command 2" in text and "python -m pytest" in readme[1]
    if bash := shutil.which("bash"):
        assert subprocess.run([bash, "-n", str(script)], check=False).returncode == 0


@row("Examples, docs, quality", "type annotations", ancestors="all")
def test_type_annotations():
    """Every function is annotated, mypy is strict, and `py.typed` tells type checkers; rules of ops are lambdas."""
    assert (ROOT / "kilograd" / "py.typed").exists() and PROJECT["tool"]["mypy"]["strict"]
    bare = []
    for path in (ROOT / "kilograd").rglob("*.py"):
        if path.relative_to(ROOT / "kilograd").parts[0] in ("ops", "kernels"):
            continue  # derivative rules, which run on arrays and tensors alike
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name != "_":  # a rule of an op
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                free = [
                    a.arg for a in given if a.annotation is None and a.arg not in ("self", "cls")
                ]
                if free or (node.returns is None and node.name != "__init__"):
                    bare.append(f"{path.name}:{node.lineno} {node.name}")
    assert bare == []


@row("Examples, docs, quality", "tests (functions)", ancestors="all")
def test_tests():
    """`tests/`: more functions than all five had, most with parameters; values, gradients and second gradients beside PyTorch."""
    functions = []
    for path in (ROOT / "tests").rglob("test_*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions += [
            n.name for n in ast.walk(tree)
            if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")
        ]  # fmt: skip
    assert len(functions) > 5 * (93 + 27 + 24 + 3 + 32)
    assert PROJECT["tool"]["pytest"]["ini_options"]["filterwarnings"][0] == "error"
    assert any(r.startswith("torch==") for r in EXTRAS["oracle"])


@row(
    "Examples, docs, quality", "per-op timing against torch in tests",
    ancestors="synapgrad, simple_autograd",
)  # fmt: skip
def test_timing_of_single_ops(tmp_path):
    """`kilograd bench ops` times every op beside PyTorch, checks the numbers first, and writes them as JSON."""
    pytest.importorskip("torch")
    pytest.importorskip("click")
    pytest.importorskip("rich")
    from click.testing import CliRunner

    from kilograd.cli.bench.command import bench

    options = (
        "ops --group synapgrad --only addmm --rounds 1 --burst 0.001 --threads 1 --json".split()
    )
    done = CliRunner().invoke(bench, [*options, str(tmp_path / "b.json")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert rows and [r["name"] for r in rows] == ["addmm"]
    assert all(r["us"]["kilograd"] > 0 and r["ratio"]["torch/kilograd"] > 0 for r in rows)


@row(
    "Examples, docs, quality", "packaging extras",
    ancestors="synapgrad, neograd, macrograd, pygrad",
)  # fmt: skip
def test_packaging_extras():
    """NumPy is the one dependency; `[fast]`, `[data]`, `[train]`, `[cli]`, `[viz]` and more are extras."""
    assert [re.match(r"[\w-]+", d)[0] for d in PROJECT["project"]["dependencies"]] == ["numpy"]
    assert {"fast", "data", "train", "cli", "viz", "docs", "test", "dev"} <= set(EXTRAS)
    assert any(d.startswith("scikit-learn") for d in EXTRAS["data"])
    assert any(d.startswith("matplotlib") for d in EXTRAS["viz"])
    assert PROJECT["project"]["scripts"]["kilograd"] == "kilograd.cli:main"
    others = ["scipy", "numba", "matplotlib", "torch", "sklearn"]
    code = f"import sys, kilograd; print(*(m for m in {others} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


@row(
    "Examples, docs, quality", "optional dependency handling",
    ancestors="synapgrad, macrograd, pygrad, simple_autograd",
)  # fmt: skip
def test_optional_dependencies(monkeypatch, tmp_path):
    """A package that is missing is an ImportError where it is needed, with the pip command that brings it."""
    for absent in (
        "matplotlib",
        "matplotlib.figure",
        "sklearn.datasets",
        "pygraphviz",
        "graphviz",
        "tensorboardX",
    ):
        monkeypatch.setitem(sys.modules, absent, None)
    drawing = kg.ones(1, requires_grad=True).exp().draw_graph()
    for use, extra in (
        (lambda: kg.viz.curves({"loss": [1.0]}), "viz"),
        (lambda: kg.datasets.Digits(), "data"),
        (lambda: drawing.svg, "viz"),
        (lambda: SummaryWriter(str(tmp_path)), "tensorboard"),
    ):
        with pytest.raises(ImportError, match=rf"pip install 'kilograd\[{extra}\]'"):
            use()
    assert drawing.dot.startswith("digraph")  # what needs no package works
