"""Every example runs for a few steps, is short, and builds the ancestor's own network."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
ON_MNIST = ["macrograd_mnist", "mnist_cnn", "mnist_mlp", "simple_mnist", "vit_mnist"]


def run(example, *options, **environment):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / f"{example}.py"), *options],
        env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", **environment},
        capture_output=True, text=True, encoding="utf-8", timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("example", [path.stem for path in EXAMPLES])
def test_example_runs(example):
    if example.startswith("digits"):
        pytest.importorskip("sklearn")
    done = run(example, "--smoke")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "nan" not in done.stdout


@pytest.mark.parametrize("options", [(), ("--smoke",)], ids=["in full", "smoke"])
@pytest.mark.parametrize("example", ON_MNIST)
def test_without_data_an_example_says_so(example, options, tmp_path):
    nowhere = str(tmp_path)
    done = run(
        example, *options, KILOGRAD_DATA=nowhere, XDG_CACHE_HOME=nowhere, HOME=nowhere,
        LOCALAPPDATA=nowhere,
    )  # fmt: skip
    assert (done.returncode == 0) == bool(options)
    text = done.stdout if options else done.stderr
    assert "Traceback" not in done.stderr
    assert text.startswith("skipped: MNIST: " if options else "MNIST: ")
    assert "KILOGRAD_DATA" in text


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_fits_on_two_screens(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 120


def load(example):
    spec = importlib.util.spec_from_file_location(example, ROOT / "examples" / f"{example}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("example", "network", "arguments", "count"),
    [
        ("moons_mlp", "mlp", (), 337),
        ("mnist_mlp", "mlp", (), 178_710),
        ("mnist_cnn", "cnn", (), 20_586),
        ("circles", "mlp", (), 401),
        ("digits_conv", "tiny", (), 380),
        ("macrograd_mnist", "MLP", (), 2_913_290),
        ("simple_mnist", "mlp", (), 109_386),
        ("simple_mnist", "mlp", (True,), 109_770),
        ("simple_mnist", "cnn", (), 5_130),
        ("simple_mnist", "cnn", (True,), 5_226),
        ("vit_mnist", "ViT", (), 15_210),
    ],
)
def test_network_has_the_published_number_of_parameters(example, network, arguments, count):
    model = getattr(load(example), network)(*arguments)
    assert sum(p.numel() for p in model.parameters()) == count
