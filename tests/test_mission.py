"""What the ancestors had: that ``tests/mission`` proves every row of it once, and the page tells of every row.

The proofs are in ``tests/mission``, a file for each part of the library, to be read as a tour; the page is
``docs/ancestors.md``.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mission.rows import ANCESTORS, NAMES, ROWS

ROOT = Path(__file__).parents[1]
PROOFS = sorted((ROOT / "tests" / "mission").glob("test_*.py"))
HOW_MANY = {
    "Tensor and dtypes": 18, "Arithmetic": 13, "Elementwise": 4, "Reductions": 5, "Shape and index": 12,
    "Autograd engine": 22, "Custom op / layer API": 3, "Activations": 6, "Layers": 20, "Losses": 8,
    "Inits": 4, "Optimisers": 11, "Schedulers": 2, "Module": 10, "Save / load": 6, "Data": 7,
    "Training utilities": 9, "Gradient check": 2, "Visualisation": 3, "Examples, docs, quality": 9,
    "Traps": 30,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def registered():
    """All rows and names, which the files register when they are imported."""
    for path in PROOFS:
        importlib.import_module(f"tests.mission.{path.stem}")


@pytest.fixture(scope="module")
def page():
    """The directive that makes the page's tables."""
    pytest.importorskip("sphinx")
    spec = importlib.util.spec_from_file_location("ancestors", ROOT / "docs/_ext/ancestors.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_row_is_there():
    found = [section for section, _ in ROWS]
    assert {section: found.count(section) for section in found} == HOW_MANY
    assert len(NAMES) == 46
    assert {a for row in ROWS.values() for a in row.ancestors} == set(ANCESTORS)


def test_no_row_is_twice():
    tests = [row.test for row in ROWS.values()]
    assert len(set(tests)) == len(tests), "one test for two rows"
    with pytest.raises(AssertionError, match="twice"):
        from tests.mission.rows import row

        row("Arithmetic", "/", ancestors="all")(lambda: None)


def test_every_row_says_what_it_proves():
    for (section, name), row in ROWS.items():
        line = (row.test.__doc__ or "").partition("\n")[0]
        assert line.endswith((".", "?")), f"{section}: {name}"
        assert row.test.__name__.startswith("test_") and len(line) > 20, f"{section}: {name}"
    for name, proof in NAMES.items():
        assert (proof.__doc__ or "").endswith("."), name


def test_the_page_tells_of_every_row(page):
    rows = {(row.section, row.name): row for row in page.rows()}
    assert rows.keys() == ROWS.keys() and len(page.rows()) == len(rows)
    for key, row in ROWS.items():
        told = rows[key]
        assert told.test == row.test.__name__ and row.test.__doc__.startswith(told.says)
        assert tuple(told.ancestors.split(", ")) == (row.ancestors if told.ancestors != "all" else ("all",))  # fmt: skip
    assert {n for found in page.names() for n in found.names} == set(NAMES)
    text = (ROOT / "docs" / "ancestors.md").read_text(encoding="utf-8")
    directives = re.findall(r"^```\{ancestors\} (.+)$", text, re.MULTILINE)
    assert sorted(directives) == sorted([*HOW_MANY, "names", "counts"])


def test_the_page_admits_what_does_not_work(page):
    row = page.Row("Traps", "a | b", "all", "It works.", "f.py", "test_f", "it does not")
    (line,) = [x for x in page.section_table([row]) if "test_f" in x]
    assert "Not yet* (it does not)" in line and "a \\| b" in line and "all five" in line


@pytest.mark.slow
@pytest.mark.parametrize(("section", "word"), [("Arithmetic", None), ("Nonsense", "no test has")])
def test_a_section_without_tests_breaks_the_build(tmp_path, section, word):
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_parser")
    ext = str(ROOT / "docs" / "_ext")
    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {ext!r})\nextensions = ['myst_parser', 'ancestors']\n"
    )
    (tmp_path / "index.md").write_text(f"# Title\n\n```{{ancestors}} {section}\n```\n")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", ".", "html"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode == 0) is (word is None), done.stderr
    if word is None:
        html = (tmp_path / "html" / "index.html").read_text(encoding="utf-8")
        assert "test_matmul_of_matrices" in html and "all five" in html
    else:
        assert word in done.stderr and "Arithmetic" in done.stderr
