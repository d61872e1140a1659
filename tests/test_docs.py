"""The documentation is true: its code runs, its links lead somewhere, its figures are those measured."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import json
import math
import re
import subprocess
import sys
import textwrap
import types
from pathlib import Path
from typing import Any

import pytest

import kilograd as kg

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SITE = sorted(p for p in DOCS.rglob("*.md") if "_build" not in p.parts)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *SITE]
BLOCK = re.compile(r"^```(?:python|\{runs\})\n((?::\w+:.*\n)*)(.*?)^```", re.MULTILINE | re.DOTALL)


def loaded(path: Path) -> types.ModuleType:
    """A module from a file that belongs to no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[tuple[int, str]]:
    """The line number and text of each block that is code: ``python`` and ``{runs}``."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, m.start(2)), m[2]) for m in BLOCK.finditer(text)]


# --- code ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=name_of)
def test_code_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for line, block in blocks(page):
        code = compile("\n" * line + block, str(page), "exec")  # errors point into the page
        exec(code, names)


def included(page: Path) -> list[tuple[Path, dict[str, str]]]:
    """The file and the options of each literalinclude."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^```\{literalinclude\} (\S+)\n((?::[\w-]+:.*\n)*)```", text, re.MULTILINE)
    assert len(found) == text.count("```{literalinclude}"), (
        f"{page}: a listing that is not understood"
    )
    return [
        (page.parent / target, dict(re.findall(r"^:([\w-]+): *(.*)$", options, re.MULTILINE)))
        for target, options in found
    ]


def has_object(path: Path, dotted: str) -> bool:
    """Whether a source file defines a class, function or method."""
    body: list[ast.stmt] = ast.parse(path.read_text(encoding="utf-8")).body
    for name in dotted.split("."):
        match = [n for n in body if getattr(n, "name", None) == name]
        if not match:
            return False
        body = getattr(match[0], "body", [])
    return True


def test_listings_of_the_source_are_there():
    listings = [(page, *one) for page in SITE for one in included(page)]
    assert len(listings) > 20
    for page, path, options in listings:
        where = f"{name_of(page)}: {path.name} {options}"
        assert path.exists(), where
        assert {"pyobject", "start-at", "start-after"} & options.keys(), where
        if "pyobject" in options:
            assert has_object(path, options["pyobject"]), where
        for key in {"start-at", "start-after", "end-at", "end-before"} & options.keys():
            assert options[key].strip('"') in path.read_text(encoding="utf-8"), where
        if "caption" in options:
            assert name_of(path.resolve()) in options["caption"], where


# --- links --------------------------------------------------------------------------------------


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^(`{3,})(?!\{).*?^\1$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """The ids of a page's headings, as GitHub and MyST make them."""
    found = set()
    for title in re.findall(r"^#{1,3} +(.+)$", prose(page), re.MULTILINE):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title.replace("`", ""))
        found.add(re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-"))
    return found


def links(page: Path) -> list[tuple[str, str]]:
    """The file and the anchor of each link within the repository."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [tuple((x + "#").split("#")[:2]) for x in found if ":" not in x]  # type: ignore[misc]


def test_links_lead_somewhere():
    missing = []
    for page in PAGES:
        for target, anchor in links(page):
            there = (page.parent / target) if target else page
            if not there.exists():
                missing.append(f"{name_of(page)}: {target}")
            elif anchor and anchor not in anchors(there):
                missing.append(f"{name_of(page)}: {target}#{anchor}")
    assert missing == []


def toctree(page: Path) -> list[Path]:
    """The pages that a page's toctrees list."""
    entries = []
    for body in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(), re.M | re.S):
        lines = [x for x in body.splitlines() if x and not x.startswith(":")]
        names = [re.sub(r"^.* <(.*)>$", r"\1", line) for line in lines]
        entries += [(page.parent / f"{name}.md").resolve() for name in names]
    return entries


def test_every_page_is_in_one_toctree():
    listed = [entry for page in SITE for entry in toctree(page)]
    assert [p for p in listed if not p.exists()] == []
    assert len(listed) == len(set(listed))
    assert {name_of(p) for p in SITE} - {name_of(p) for p in listed} == {"docs/index.md"}


def test_readme_commands_are_what_ci_runs():
    commands = re.findall(
        r"^python -m pip install .*$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert len(commands) == 2
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


# --- the reference ------------------------------------------------------------------------------

PUBLIC = (
    "kilograd kilograd.nn kilograd.nn.functional kilograd.optim kilograd.optim.lr_scheduler kilograd.utils.data "
    "kilograd.datasets kilograd.linalg kilograd.special kilograd.autograd kilograd.train kilograd.nn.init"
).split()
ELSEWHERE = {  # documented once, under the name that is used
    "kilograd.autograd": "enable_grad inference_mode is_grad_enabled no_grad retain_grads set_grad_enabled Variable",
    "kilograd.linalg": "LinAlgError",
    "kilograd.special": " ".join(
        n for n in kg.special.__all__ if getattr(kg, n, None) is getattr(kg.special, n)
    ),
}


def documented() -> set[str]:
    """Every name that the reference describes: by a directive, or in a table."""
    reference = pytest.importorskip("docutils") and loaded_reference()
    found: set[str] = set()
    for page in SITE:
        text = page.read_text(encoding="utf-8")
        for public, options in re.findall(r"^\.\. names:: (\S+)\n((?: +:.*\n)*)", text, re.M):
            chosen = dict(re.findall(r":(\w+): *(.+)", options))
            found |= {f"{public}.{name}" for name in reference.names(public, **chosen)}
        found |= set(re.findall(r"^ *\.\. auto\w+:: (\S+)", text, re.MULTILINE))
        found |= {f"kilograd.{n}" for n in re.findall(r"`kg\.(\w+)`", text)}
    return found


def loaded_reference() -> Any:
    pytest.importorskip("sphinx")
    return loaded(DOCS / "_ext" / "reference.py")


@pytest.mark.parametrize("where", PUBLIC)
def test_every_public_name_is_in_the_reference(where):
    reference = loaded_reference()
    module = reference.resolved(where)
    listed = getattr(module, "__all__", None) or [n for n in vars(module) if n[0] != "_"]
    public = {
        name
        for name in listed
        if not isinstance(getattr(module, name), types.ModuleType)
        and name not in ELSEWHERE.get(where, "").split()
        and getattr(getattr(module, name), "__module__", "kilograd").startswith("kilograd")
    }
    if where == "kilograd.nn.init":  # the names without _ are PyTorch's old ones
        public = {n for n in public if n.endswith("_") or n == "calculate_gain"} - {"T"}
    if where == "kilograd.optim.lr_scheduler":
        public -= {"Optimizer", "Tensor"}
    assert len(public) > 5
    assert {f"{where}.{name}" for name in public} - documented() == set()


# --- figures ------------------------------------------------------------------------------------

RESULTS = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))["tables"]
UNITS = {"µs": 1.0, "ms": 1e3, "%": 0.01}
NUMBER = re.compile(r"(\d[\d,]*(?:\.\d+)?)\s*(µs|ms|%)?")


def readme_rows(*head: str) -> list[dict[str, str]]:
    """The rows of the README's table with these columns."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("| " + " | ".join(head) + " |") + 2
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[start:])
    return [dict(zip(head, [c.strip() for c in row[1:-1].split("|")], strict=True)) for row in rows]


def agree(text: str, values: list[float]) -> bool:
    """Whether a text's numbers are these values, to the digits that are printed."""
    found = NUMBER.findall(text)
    if len(found) != len(values):
        return False
    for (digits, unit), value in zip(found, values, strict=True):
        digits = digits.replace(",", "")
        places = len(digits.partition(".")[2])
        if f"{value / UNITS.get(unit, 1.0):.{places}f}" != digits:
            return False
    return True


@pytest.mark.parametrize(
    ("text", "values", "same"),
    [
        ("171 µs", [171.2], True), ("1.39 ms", [1390], True), ("1.39 ms", [1396], False),
        ("0.96 ms", [960.0], True), ("98.7 %", [0.987], True), ("98.7 %", [0.9875], False),
        ("1.9 (1.05 to 10.7)", [1.9, 1.05, 10.7], True), ("1.26", [1.26, 1.9], False),
        ("32 ×", [31.7], True), ("32 ×", [32.6], False),
    ],
)  # fmt: skip
def test_figures_are_compared_to_the_digits_printed(text, values, same):
    assert agree(text, values) is same


def test_readme_training_steps_are_those_measured():
    head = ("network", "PyTorch", "kilograd, eager", "kilograd, compiled", "eager", "compiled")
    rows = readme_rows(*head)
    measured = {row["name"]: row for row in RESULTS["steps"]["rows"]}
    assert [row["network"].split()[0] for row in rows] == list(measured)
    for row in rows:
        figures = measured[row["network"].split()[0]]
        us, speed = figures["us"], figures["speed"]
        assert row["network"] == f"{figures['name']} ({figures['what']})"
        for column, value in zip(
            head[1:], (us["torch"], us["kilograd"], us["compiled"], *speed.values()), strict=True
        ):
            assert agree(row[column], [value]), (row["network"], column)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"`{RESULTS['steps']['command']}`" in text.replace("\n", " ")


def test_readme_means_and_first_steps_are_those_measured():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    means = re.search(r"The geometric mean is (.*?) for eager steps and (.*?) for compiled", text)
    first = re.search(r"first step compiles: (.*?) s the first time .*?, (.*?) s in later", text)
    assert means is not None and first is not None
    steps = RESULTS["steps"]
    assert agree(means[1], [steps["mean"]["kilograd"]])
    assert agree(means[2], [steps["mean"]["compiled"]])
    assert agree(first[1], steps["first_step"]["cold"])
    assert agree(first[2], steps["first_step"]["warm"])


def test_means_are_those_of_the_rows():
    for kind, mean in RESULTS["steps"]["mean"].items():
        logs = [math.log(row["speed"][kind]) for row in RESULTS["steps"]["rows"]]
        assert math.exp(sum(logs) / len(logs)) == pytest.approx(mean, rel=0.04)  # rows are rounded


def flat(x: Any) -> list[float]:
    """The numbers in nested dicts and lists."""
    if isinstance(x, dict):
        return [v for y in x.values() for v in flat(y)]
    if isinstance(x, list):
        return [v for y in x for v in flat(y)]
    return [x]


def test_readme_ratios_are_those_measured():
    rows = readme_rows("what", "PyTorch's time / kilograd's", "command")
    measured = {f"`{r['command']}`": r for t in ("ops", "runs") for r in RESULTS[t]["rows"]}
    assert {row["command"] for row in rows} == set(measured)
    for row in rows:
        figures = measured[row["command"]]
        values = flat(figures["speed"]) + flat(figures.get("range", []))
        assert row["what"] == figures["what"]
        assert agree(row["PyTorch's time / kilograd's"], values), row


def test_readme_figures_are_those_measured():
    rows = readme_rows("what", "kilograd", "PyTorch", "command")
    measured = {
        f"`{r['command']}`": r for t in ("footprint", "accuracy") for r in RESULTS[t]["rows"]
    }
    assert {row["command"] for row in rows} == set(measured)
    for row in rows:
        figures = measured[row["command"]]
        assert row["what"].removesuffix(", test accuracy") == figures["what"]
        if "accuracy" in figures:
            assert agree(row["kilograd"], [figures["accuracy"]]) and not row["PyTorch"]
            continue
        for column, library in (("kilograd", "kilograd"), ("PyTorch", "torch")):
            value = figures[library]
            same = row[column] == value if isinstance(value, str) else agree(row[column], value)
            assert same, (row, column)


def test_readme_says_what_is_slower():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    sentence = re.search(r"Slower than PyTorch remain.*?single ops \(0\.\d+\)", text)
    assert sentence is not None
    values = [v for one in RESULTS["ops"]["slower"] for v in one["speed"]]
    shown = ", ".join(re.findall(r"\((\d[^:)]*)", sentence[0]))
    assert agree(shown, values), (shown, values)


# --- measuring ----------------------------------------------------------------------------------

COLLECT = ROOT / "benchmarks" / "collect.py"


@pytest.fixture
def collect():
    return loaded(COLLECT)


def test_collect_says_what_it_would_run():
    done = subprocess.run(
        [sys.executable, str(COLLECT), "--dry-run"], capture_output=True, text=True, check=True
    )
    commands = [line for line in done.stdout.splitlines() if line.startswith("$")]
    for script in ("train_steps.py", "mnist_runs.py", "memory.py", "accuracy.py"):
        assert any(script in c and (ROOT / "benchmarks" / script).exists() for c in commands)
    for group in ("small", "large", "conv", "synapgrad"):
        assert any(f"bench ops --group {group}" in c for c in commands)


@pytest.mark.parametrize("args", [["nonsense"], ["steps", "--quick"]])
def test_collect_refuses(args):
    done = subprocess.run([sys.executable, str(COLLECT), *args], capture_output=True, text=True)
    assert done.returncode == 2 and "error" in done.stderr


def test_collected_steps(collect):
    table = {"rows": [{"name": "pinn", "what": "words", "us": {"torch": 1.0}, "speed": {}}]}
    row = {"torch µs": 100.0, "kilograd µs": 80.0, "compiled µs": 10.0, "speed-up": 9.87654}
    rows = [
        {"workload": "pinn", "cold s": 2.0, "warm s": 0.1, **row},
        {"workload": "new", "cold s": 5.0, "warm s": 0.2, **row, "speed-up": 39.50616},
    ]
    collect.put_steps(table, {"rows": rows})
    assert [r["name"] for r in table["rows"]] == ["pinn", "new"]
    assert table["rows"][0]["what"] == "words"
    assert table["rows"][0]["speed"] == {"kilograd": 1.25, "compiled": 9.877}
    assert table["rows"][0]["us"] == {"torch": 100.0, "kilograd": 80.0, "compiled": 10.0}
    assert table["first_step"] == {"cold": [2.0, 5.0], "warm": [0.1, 0.2]}
    assert table["mean"]["compiled"] == pytest.approx(19.75, rel=1e-3)


def test_collected_steps_without_pytorch(collect):
    table = {"rows": []}
    collect.put_steps(table, {"rows": [{"workload": "pinn", "kilograd µs": 80.0}]})
    assert table == {"rows": [{"name": "pinn", "what": "", "us": {"kilograd": 80.0}, "speed": {}}]}


def test_collected_ops(collect):
    table = {"rows": [{"name": "conv", "what": "words", "speed": {"kilograd": 1.0}}]}
    rows = [
        {"name": "a", "size": "3×3", "ratio": {"torch/kilograd": 4.0}},
        {"name": "b", "size": "", "ratio": {"torch/kilograd": 0.25}},
        {"name": "c", "size": "", "ratio": {}},  # PyTorch could not do it
    ]
    collect.put_ops(table, "conv", {"rows": rows})
    (row,) = table["rows"]
    assert row["speed"]["kilograd"] == 1.0 and row["range"] == [0.25, 4.0]
    assert row["slowest"] == {"b": 0.25} and row["what"] == "words"
    with pytest.raises(SystemExit):
        collect.put_ops(table, "conv", {"rows": rows[2:]})


def test_collected_runs_imports_memory_and_accuracy(collect):
    epochs = [{"seconds": 2.0}, {"seconds": 4.0}]
    table = {"rows": [{"name": "mlp"}]}
    collect.put_run(table, "mlp", {"torch": epochs, "kilograd": epochs[:1], "compiled": epochs[1:]})
    assert table["rows"][0]["speed"] == {"kilograd": 3.0, "compiled": 1.5}

    table = {"rows": [{"name": n} for n in ("import", "disk", "memory")]}
    collect.put_imports(
        table,
        {
            "rows": [
                {"ms": {"kilograd": 61.23456, "torch": 750.0, "jax": 900.0}},
                {"MB": {"kilograd": 76.0, "torch": 865.0}},
                {"MB": {"kilograd": 432.0, "torch": 865.0}},
            ]
        },
    )
    collect.put_memory(
        table, "kilograd  mlp, 10 steps: objects +3, x\ntorch     mlp: objects +900, x\nflat\n"
    )
    imported, disk, memory = table["rows"]
    assert imported["kilograd"] == [0.06123] and imported["torch"] == [0.75]
    assert disk["kilograd"] == [76.0, 432.0] and disk["torch"] == [865.0]
    assert memory["kilograd"] == "flat" and memory["torch"] == "+900 objects"

    table = {"rows": [{"name": "mnist_cnn"}, {"name": "digits_conv", "accuracy": 0.5}]}
    collect.put_accuracy(
        table, "--- mnist_cnn\n\n  accuracy\nmnist_cnn   0.9871  0.985  3 s  0.98\n"
    )
    assert [row["accuracy"] for row in table["rows"]] == [0.9871, 0.5]


def test_results_are_written_whole(collect, tmp_path):
    path = tmp_path / "results.json"
    collect.save(path, {"tables": RESULTS})
    assert json.loads(path.read_text(encoding="utf-8")) == {"tables": RESULTS}
    assert path.read_text(encoding="utf-8") == (ROOT / "benchmarks" / "results.json").read_text(
        encoding="utf-8"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]
    with pytest.raises(TypeError):
        collect.save(path, {"tables": {1, 2}})
    assert json.loads(path.read_text(encoding="utf-8")) == {"tables": RESULTS}


# --- the directives -----------------------------------------------------------------------------


def test_tables_of_figures():
    pytest.importorskip("sphinx")
    measured = loaded(DOCS / "_ext" / "measured.py")
    for name, table in measured.load().items():
        lines = [line for line in measured.TABLES[name](table) if line.startswith("|")]
        assert len(lines) >= len(table["rows"]) + 2
        assert table["date"] in measured.circumstances(table)[0]
    table = {"mean": {}, "rows": [{"name": "n", "what": "w", "us": {"torch": 1234.5}, "speed": {}}]}
    assert f"| 1.23{measured.THIN}ms | – | – | – | – |" in measured.steps_table(table)[2]
    chart = measured.bars([{"name": "<a>", "speed": {"kilograd": 0.5, "compiled": 8.0}}])
    assert "&lt;a&gt;" in chart
    places = [float(x) for x in re.findall(r"kg-bar[^>]*left:([\d.]+)%", chart)]
    assert places[0] < places[1]  # the slower one goes to the left of the line


SITE_CONF = """
import sys
sys.path.insert(0, {ext!r})
extensions = ["myst_parser", "sphinx.ext.autodoc", "measured", "reference", "running"]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("```{runs}\nprint(1 + 1)\n```", None),
        ("```{runs}\na = 1\n```\n\n```{runs}\n:as: python\nprint(a)\n```", None),
        ("```{runs}\n1 / 0\n```", "ZeroDivisionError"),
        ("```{literalinclude} source.py\n:pyobject: found\n```", None),
        ("```{literalinclude} source.py\n:pyobject: lost\n```", "lost"),
        ("```{literalinclude} source.py\n:start-at: lost\n```", "lost"),
        ("```{measured} steps\n```", None),
        ("```{measured} nonsense\n```", "no table"),
        ("```{eval-rst}\n.. names:: kilograd.errors\n   :only: GradError\n```", None),
        ("```{eval-rst}\n.. names:: kilograd.errors\n   :only: Lost\n```", "Lost"),
    ],
)
def test_a_page_that_is_not_true_breaks_the_build(tmp_path, body, word):
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_parser")
    (tmp_path / "conf.py").write_text(SITE_CONF.format(ext=str(DOCS / "_ext")))
    (tmp_path / "index.md").write_text(f"# Title\n\n{body}\n")
    (tmp_path / "source.py").write_text(textwrap.dedent("def found():\n    return 1\n"))
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", ".", "html"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode == 0) is (word is None), done.stderr
    if word is None:
        text = (tmp_path / "html" / "index.html").read_text(encoding="utf-8")
        assert "{runs}" not in text and "Title" in text
    else:
        assert word in done.stderr
