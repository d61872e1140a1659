import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("click")
pytest.importorskip("rich")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("safetensors")

from click.testing import CliRunner

from kilograd.cli.commands import cli
from kilograd.train import Checkpoint, load_checkpoint


def run(*args):
    return CliRunner().invoke(cli, [str(a) for a in args], catch_exceptions=False)


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "kilograd", "--help"], capture_output=True, text=True, check=True
    )
    assert "PyTorch you can read" in done.stdout and "train" in done.stdout


def history(folder):
    rows = load_checkpoint(folder / "checkpoint.kg")["parts"]["trainer"]["state"]["rows"]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_train_writes_weights_checkpoint_and_picture(tmp_path):
    from safetensors.numpy import load_file

    r = run("train", "digits", "--epochs", 1, "--out", tmp_path / "r")
    assert r.exit_code == 0, r.output
    assert "test accuracy" in r.output and "predicted class" in r.output
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == [
        "checkpoint.kg", "curves.png", "weights.safetensors",
    ]  # fmt: skip
    weights = load_file(tmp_path / "r" / "weights.safetensors")
    model = load_checkpoint(tmp_path / "r" / "checkpoint.kg")["parts"]["model"]["state"]
    assert weights.keys() == model.keys()
    assert (tmp_path / "r" / "curves.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("model", ["mlp", "cnn", "vit"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_every_model_trains_a_few_steps(tmp_path, model, optimizer):
    r = run("train", "digits", "--model", model, "--optimizer", optimizer, "--max-steps", 3,
            "--out", tmp_path / "r")  # fmt: skip
    assert r.exit_code == 0, r.output


def test_a_compiled_run(tmp_path):
    r = run("train", "moons", "--epochs", 12, "--compile", "--out", tmp_path / "r")
    assert r.exit_code == 0, r.output
    assert history(tmp_path / "r")[-1]["val_accuracy"] > 0.95


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    Checkpoint().save(tmp_path / "x.kg", epoch=3)
    r = run("train", "moons", "--resume", tmp_path / "x.kg")
    assert r.exit_code == 1 and "was not written by kilograd train" in " ".join(r.output.split())


@pytest.mark.parametrize("dataset", ["moons", "circles"])
def test_points_are_learned(tmp_path, dataset):
    r = run("train", dataset, "--epochs", 12, "--out", tmp_path / "r")
    assert r.exit_code == 0, r.output
    assert history(tmp_path / "r")[-1]["val_accuracy"] > 0.95


def test_resuming_equals_not_stopping(tmp_path):
    common = ["--model", "mlp", "--optimizer", "adam"]
    assert run("train", "digits", *common, "--epochs", 3, "--out", tmp_path / "a").exit_code == 0
    assert run("train", "digits", *common, "--epochs", 1, "--out", tmp_path / "b").exit_code == 0
    r = run("train", "digits", "--resume", tmp_path / "b" / "checkpoint.kg", "--epochs", 3)
    assert r.exit_code == 0, r.output
    a, b = (load_checkpoint(tmp_path / x / "checkpoint.kg")["parts"]["model"] for x in "ab")
    for k in a["state"]:
        assert np.array_equal(a["state"][k].array, b["state"][k].array), k
    assert history(tmp_path / "a") == history(tmp_path / "b") and len(history(tmp_path / "a")) == 3


def test_a_corrupt_checkpoint_is_refused_and_left_untouched(tmp_path):
    out = tmp_path / "r"
    assert run("train", "moons", "--epochs", 1, "--out", out).exit_code == 0
    path = out / "checkpoint.kg"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    before = {p: p.read_bytes() for p in out.iterdir()}
    r = run("train", "moons", "--resume", path, "--epochs", 2)
    assert r.exit_code == 1 and "not a whole kilograd checkpoint" in " ".join(r.output.split())
    assert {p: p.read_bytes() for p in out.iterdir()} == before


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    assert run("train", "moons", "--epochs", 1, "--out", tmp_path / "r").exit_code == 0
    path = tmp_path / "r" / "checkpoint.kg"
    r = run("train", "circles", "--resume", path)
    assert r.exit_code == 1 and "moons" in r.output
    r = run("train", "moons", "--optimizer", "sgd", "--resume", path)
    assert r.exit_code == 1 and "adam" in r.output


def test_resuming_takes_the_dataset_from_the_checkpoint(tmp_path):
    assert run("train", "moons", "--epochs", 1, "--out", tmp_path / "r").exit_code == 0
    r = run("train", "--resume", tmp_path / "r" / "checkpoint.kg", "--epochs", 2)
    assert r.exit_code == 0, r.output
    r = run(
        "train",
        "--resume",
        tmp_path / "r" / "checkpoint.kg",
        "--epochs",
        2,
        "--out",
        tmp_path / "s",
    )
    assert r.exit_code == 0, r.output
    assert "checkpoint.kg" not in r.output.split("saved")[-1]


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (["digit"], ["digits", "moons", "circles", "mnist"]),
        (["digits", "--model", "rnn"], ["mlp", "cnn", "vit"]),
        (["digits", "--optimizer", "lion"], ["sgd", "adam"]),
    ],
)
def test_wrong_names_list_the_right_ones(args, names):
    r = run("train", *args)
    assert r.exit_code == 2 and all(n in r.output for n in names)


def test_bad_values_and_files(tmp_path):
    assert run("train", "digits", "--lr", -1).exit_code == 2
    assert run("train", "digits", "--epochs", 0).exit_code == 2
    assert run("train", "digits", "--resume", tmp_path / "absent").exit_code == 2
    r = run("train", "moons", "--model", "cnn", "--out", tmp_path / "r")
    assert r.exit_code == 1 and "mlp" in r.output


def test_nan_stops_the_run_and_names_the_tensor(tmp_path):
    r = run("train", "moons", "--lr", "1e30", "--optimizer", "sgd", "--out", tmp_path / "r")
    text = " ".join(r.output.split())
    assert r.exit_code == 1 and "at step" in text and "is not finite" in text
