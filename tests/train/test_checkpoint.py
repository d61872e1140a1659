import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest

import kilograd as kg
from kilograd.train import CheckpointError, load_checkpoint, save_checkpoint
from kilograd.train.checkpoint import atomic_write


def state():
    return {
        "model": {"w": kg.randn(3, 4), "n": kg.tensor(7), "h": kg.ones(2, dtype=kg.float16)},
        "optimizer": {"state": {0: {"step": 3.0, "m": np.arange(5)}}, "groups": [{"betas": (0.9, 0.999)}]},
        "epoch": 3, "loss": float("nan"), "best": float("inf"), "name": "é", "none": None,
        "flag": True, "time": 1, "date": 2, "e": 3, "empty": kg.zeros(0, 3), "list": [],
    }  # fmt: skip


def same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for k in a:
            same(a[k], b[k])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, (kg.Tensor, np.ndarray)):
        x, y = (t.array if isinstance(t, kg.Tensor) else t for t in (a, b))
        assert x.dtype == y.dtype and x.shape == y.shape and np.array_equal(x, y)
    else:
        assert a == b or (a != a and b != b)


def test_round_trip_keeps_types_and_keys(tmp_path):
    before = state()
    save_checkpoint(tmp_path / "c", before)
    same(before, load_checkpoint(tmp_path / "c"))
    assert os.listdir(tmp_path) == ["c"]


def test_what_cannot_be_saved_writes_nothing(tmp_path):
    save_checkpoint(tmp_path / "c", {"a": 1})
    with pytest.raises(TypeError, match=r"state\['f'\]"):
        save_checkpoint(tmp_path / "c", {"f": print})
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path / "c", {"o": np.array([None])})
    assert load_checkpoint(tmp_path / "c") == {"a": 1}
    assert os.listdir(tmp_path) == ["c"]


def test_a_failing_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "c"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as f:
        f.write(b"new")
        1 / 0
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["c"]


def test_damaged_files_are_refused_and_left_alone(tmp_path):
    path = tmp_path / "c"
    save_checkpoint(path, state())
    good = path.read_bytes()
    rng = random.Random(0)
    refused = 0
    for i in range(300):
        bad = bytearray(good)
        if i % 3 == 0:
            bad = bad[: rng.randrange(len(bad))]
        else:
            for _ in range(rng.choice([1, 8])):
                bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        path.write_bytes(bad)
        try:
            same(load_checkpoint(path), load_checkpoint(path))
        except CheckpointError as e:
            refused += 1
            assert "untouched" in str(e) or str(path) in str(e)
        assert path.read_bytes() == bad
    assert refused > 200  # the rest hit padding, time stamps and the like


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "c"
    for content in (b"", b"PK", b"hello", bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            load_checkpoint(path)
    np.savez(path.with_suffix(".npz"), a=np.ones(3))
    with pytest.raises(CheckpointError):
        load_checkpoint(path.with_suffix(".npz"))
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "absent")


@pytest.mark.slow
def test_kill_9_during_saves_loses_nothing(tmp_path):
    script = (
        "import sys, numpy as np\n"
        "from kilograd.train import save_checkpoint\n"
        "i = 0\n"
        "while True:\n"
        "    i += 1\n"
        "    save_checkpoint(sys.argv[1], {'i': i, 'a': np.full(200_000, i)})\n"
        "    print(i, flush=True)\n"
    )
    path = tmp_path / "c"
    rng = random.Random(1)
    for _ in range(8):
        p = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE)
        assert p.stdout.readline()
        time.sleep(rng.random() * 0.2)
        p.kill()
        p.wait()
        p.stdout.close()
        loaded = load_checkpoint(path)
        assert (loaded["a"] == loaded["i"]).all()
