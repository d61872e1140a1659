"""``kilograd warmup``: machine code is on disk afterwards, and is found by another process."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("click")
pytest.importorskip("rich")

from click.testing import CliRunner

from kilograd.cli.commands import cli
from kilograd.kernels.native import build


@pytest.mark.skipif(not build.available(), reason=build.why_not())
def test_what_was_warmed_up_is_compiled_no_more(tmp_path):
    environment = {**os.environ, "KILOGRAD_CACHE": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = "from kilograd.cli.commands import cli; cli(['warmup', '--only', 'tanh'])"
    run = subprocess.run(
        [sys.executable, "-c", command], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "pieces of machine code" in run.stdout
    files = sorted(p.name for p in tmp_path.rglob("*") if p.is_file())
    assert len(files) >= 4
    code = (
        "import sys, numpy as np, kilograd as kg; a = np.random.rand(2000, 100).astype(np.float32);"
        "x = kg.tensor(a, requires_grad=True); x.tanh().backward(kg.tensor(a));"
        "assert 'llvmlite' in sys.modules;"
        "assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == files


def test_without_a_cache_there_is_nothing_to_warm_up(monkeypatch):
    monkeypatch.setenv("KILOGRAD_CACHE", "")
    if build.available():
        result = CliRunner().invoke(cli, ["warmup", "--only", "exp"])
        assert result.exit_code == 1
        assert "KILOGRAD_CACHE" in result.output


def test_without_numba_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(build, "_available", lambda: (False, "Numba is not installed"))
    result = CliRunner().invoke(cli, ["warmup"])
    assert result.exit_code == 1
    assert "Numba is not installed" in result.output
