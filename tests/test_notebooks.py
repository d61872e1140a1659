"""Every notebook runs from top to bottom: as a script, and some in a Jupyter kernel."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.py"))
ON_DIGITS = [
    "gan",
    "mnist_cnn",
    "mnist_mlp",
]  # MNIST in full, but scikit-learn's digits in smoke mode
SWITCHED = ["mnist_cnn", "mnist_mlp", "moons_mlp"]  # have an ENGINE
SWITCH = 'ENGINE = "kilograd"'
WITHOUT_NUMBA = "kg.compile uses its NumPy executor"  # a warning that is no fault of a notebook

pytest.importorskip("matplotlib")


def environment(**more):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {
        **os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", "KILOGRAD_SMOKE": "1", **more
    }  # fmt: skip


def run(script, folder):
    """The output of a script, run in an empty folder with warnings as errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", f"default:{WITHOUT_NUMBA}", str(script)], cwd=folder,
        env=environment(MPLBACKEND="Agg"), capture_output=True, text=True, encoding="utf-8",
        timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not re.search(r"\bnan\b", done.stdout)
    return done.stdout


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_as_a_script(path, tmp_path):
    if path.stem in ON_DIGITS:
        pytest.importorskip("sklearn")
    assert run(path, tmp_path).strip()
    assert not list(tmp_path.iterdir()), "a notebook leaves no files behind"


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in ON_DIGITS else ()) for n in SWITCHED]
)
def test_the_switch_to_pytorch_is_one_line(name, tmp_path):
    pytest.importorskip("torch")
    if name in ON_DIGITS:
        pytest.importorskip("sklearn")
    source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert source.count(SWITCH) == 1
    script = tmp_path / f"{name}.py"
    script.write_text(source.replace(SWITCH, 'ENGINE = "torch"'), encoding="utf-8")
    said = run(script, tmp_path)
    assert re.search(r"^torch: ", said, re.MULTILINE)
    # The same seed gives the same weights and the same order in both, so also the same first losses.
    table = dict(re.findall(r"^(kilograd|PyTorch) .* losse?s? +([\d.]+)", said, re.MULTILINE))
    assert abs(float(table["kilograd"]) - float(table["PyTorch"])) < 2e-4


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_says_first_what_one_learns(path):
    text = path.read_text(encoding="utf-8")
    assert re.match(r"# %% \[markdown\]\n# # .+\n#\n# What you learn here:\n# - ", text)
    assert text.count("# %% [markdown]") >= 5
    assert text.count("\n# %%\n") >= 5
    row = f"| `{path.name}` |"
    assert row in (FOLDER / "README.md").read_text(encoding="utf-8")


def jupytext(*arguments):
    subprocess.run(
        [sys.executable, "-m", "jupytext", *map(str, arguments)],
        check=True, capture_output=True, timeout=100,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """All notebooks, made as the README says, in a copy of the folder."""
    pytest.importorskip("jupytext")
    assert "jupytext --to ipynb notebooks/*.py" in (FOLDER / "README.md").read_text()
    folder = tmp_path_factory.mktemp("made") / "notebooks"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("*.ipynb", ".*", "__pycache__"))
    jupytext("--to", "ipynb", *sorted(folder.glob("*.py")))
    return folder


def test_saving_a_notebook_changes_nothing_but_what_was_edited(made, tmp_path):
    nbformat = pytest.importorskip("nbformat")
    shutil.copytree(made, tmp_path / "notebooks")
    path = tmp_path / "notebooks" / "circles.ipynb"
    notebook = nbformat.read(path, as_version=4)
    script = (FOLDER / "circles.py").read_text(encoding="utf-8")
    marks = re.findall(r"^# %%(.*)$", script, re.MULTILINE)
    kinds = ["markdown" if "markdown" in mark else "code" for mark in marks]
    assert [cell.cell_type for cell in notebook.cells] == kinds

    notebook.cells[0].source = notebook.cells[0].source.replace("Two circles", "Two rings")
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="some output")]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, path)
    os.utime(path, (path.stat().st_mtime + 10,) * 2)
    jupytext("--sync", path)
    saved = path.with_suffix(".py").read_text(encoding="utf-8")
    assert saved == script.replace("# # Two circles", "# # Two rings")


@pytest.mark.parametrize("name", ["build_your_own_op", "circles", "graphs"])
def test_notebook_runs_in_jupyter(name, made, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    import nbformat

    for key, value in environment(IPYTHONDIR=str(tmp_path / "ipython")).items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel chooses: pictures in the notebook
    notebook = nbformat.read(made / f"{name}.ipynb", as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=100,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source]
    assert all(cell.execution_count for cell in code)
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    stderr = [o.text for o in outputs if o.get("name") == "stderr"]
    assert not [text for text in stderr if WITHOUT_NUMBA not in text]
    pictures = [
        kind
        for o in outputs
        for kind in o.get("data", {})
        if kind in ("image/png", "image/svg+xml")
    ]
    assert pictures
