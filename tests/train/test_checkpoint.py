import copy
import errno
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

import kilograd as kg
from kilograd import nn
from kilograd.train import (
    Checkpoint,
    CheckpointError,
    CheckpointManager,
    files,
    load_checkpoint,
    replacing,
    save_checkpoint,
)
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


KILLED = """
import os, signal, sys, threading, time
import numpy as np
import kilograd as kg
from kilograd.train import Checkpoint, CheckpointManager

folder, seed = sys.argv[1], int(sys.argv[2])
rng = np.random.default_rng(seed)
model = kg.nn.Linear(200, 200)
manager = CheckpointManager(folder, Checkpoint(model=model), keep_last=2, monitor="loss")
print("ready", flush=True)
for line in sys.stdin:
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        print("killed", flush=True)
        continue
    # a new process: it looks at the folder, then saves until it is killed
    manager = CheckpointManager(folder, Checkpoint(model=model), keep_last=2, monitor="loss")
    delay = float(line)
    threading.Thread(target=lambda: (time.sleep(delay), os.kill(os.getpid(), signal.SIGKILL))).start()
    i = manager.entries[-1].epoch if manager.entries else 0
    while True:
        i += 1
        with kg.no_grad():
            model.weight.fill_(i)
        manager.save(epoch=i, loss=1.0 / i)
"""


@pytest.mark.slow
def test_kill_9_during_saves_loses_nothing(tmp_path):
    """200 kills at random moments; after each the newest checkpoint is whole, and no older one."""
    trial = CheckpointManager(tmp_path / "trial", Checkpoint(model=nn.Linear(200, 200)))
    began = time.perf_counter()
    for i in range(10):
        trial.save(epoch=i)
    most = (time.perf_counter() - began) / 2  # five saves, however slow the disk is
    shutil.rmtree(tmp_path / "trial")
    p = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), "0"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert p.stdout.readline() == "ready\n"
    rng = random.Random(1)
    newest = damaged = 0
    for _ in range(200):
        p.stdin.write(f"{rng.random() * most}\n")
        p.stdin.flush()
        assert p.stdout.readline() == "killed\n"
        left = sum(name.endswith(".tmp") for name in os.listdir(tmp_path))
        damaged += left
        assert left <= 1  # the next writer removes it
        model = kg.nn.Linear(200, 200)
        manager = CheckpointManager(tmp_path, Checkpoint(model=model), keep_last=2, monitor="loss")
        values = manager.resume()
        if values is not None:
            assert values["epoch"] >= newest
            newest = values["epoch"]
            assert (model.weight.array == newest).all()
            for entry in manager.entries:
                load_checkpoint(tmp_path / entry.file)
    assert newest > 20 and damaged > 10  # kills did hit saves, on a busy machine too
    p.stdin.close()
    assert p.wait() == 0
    p.stdout.close()


# --- a disk that fails ------------------------------------------------------------------------------


def no_space(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["fsync", "replace", "mkdtemp"])
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch, where):
    save_checkpoint(tmp_path / "c", {"a": 1})
    monkeypatch.setattr(replacing.tempfile if where == "mkdtemp" else os, where, no_space)
    with pytest.raises(OSError, match="No space left") as e:
        save_checkpoint(tmp_path / "c", {"a": 2})
    assert e.value.errno == errno.ENOSPC and str(tmp_path / "c") in str(e.value)
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "c") == {"a": 1} and os.listdir(tmp_path) == ["c"]


@pytest.mark.parametrize("name", ["c.safetensors", "c.npz", "c.npy", "c.kg"])
def test_a_write_that_stops_half_way_leaves_the_old_file(tmp_path, name):
    """With a limit on the size of files, which the writers meet in the middle of the values."""
    script = (
        "import resource, signal, sys\n"
        "import kilograd as kg\n"
        "from kilograd.train import files, save_checkpoint\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "save = save_checkpoint if sys.argv[1].endswith('.kg') else lambda p, x: files.save(x, p)\n"
        "save(sys.argv[1], kg.ones(10))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "try:\n"
        "    save(sys.argv[1], kg.ones(100_000))\n"
        "except OSError as e:\n"
        "    print(e.errno, e)\n"
    )
    path = tmp_path / name
    r = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    assert r.stdout.startswith(f"{errno.EFBIG} ") and str(path) in r.stdout
    assert os.listdir(tmp_path) == [name]
    read = load_checkpoint if name == "c.kg" else files.load
    assert (read(path).array == np.ones(10)).all()


@pytest.mark.skipif(os.name != "posix", reason="permissions and links as POSIX has them")
@pytest.mark.parametrize("name", ["c.safetensors", "c.npz", "c.npy", "c.kg"])
def test_permissions_and_links_stay(tmp_path, name):
    def save(path, x):
        save_checkpoint(path, x) if name == "c.kg" else files.save(x, path)

    def mode(path):
        return path.stat().st_mode & 0o7777

    def value(path):
        return (load_checkpoint if name == "c.kg" else files.load)(path).item()

    path = tmp_path / name
    (tmp_path / "new").touch()
    save(path, kg.tensor(1.0))
    assert mode(path) == mode(tmp_path / "new")  # what the umask gives
    for bits in (0o600, 0o640, 0o444):
        path.chmod(bits)
        save(path, kg.tensor(2.0))
        assert mode(path) == bits and value(path) == 2
    (tmp_path / "folder").mkdir()
    link, loose = tmp_path / "folder" / name, tmp_path / "folder" / f"x{name}"
    link.symlink_to(os.path.join("..", name))
    loose.symlink_to(os.path.join("..", f"y{name}"))
    save(link, kg.tensor(3.0))
    save(loose, kg.tensor(4.0))
    assert link.is_symlink() and loose.is_symlink()
    assert value(path) == 3 and mode(path) == 0o444 and value(tmp_path / f"y{name}") == 4
    assert sorted(os.listdir(tmp_path)) == sorted(["folder", "new", name, f"y{name}"])


def test_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError, match="was not written"):
        save_checkpoint(tmp_path / "absent" / "c", {})
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match="was not written"):
        save_checkpoint(tmp_path / "file" / "c", {})


def test_a_read_only_folder():
    folder = Path(tempfile.mkdtemp())
    root = os.geteuid() == 0
    try:
        save_checkpoint(folder / "c", {"a": 1})
        folder.chmod(0o555)
        if root:  # who may write anywhere: be somebody else for a moment
            os.seteuid(65534)
        try:
            with pytest.raises(PermissionError, match="was not written"):
                save_checkpoint(folder / "c", {"a": 2})
            assert load_checkpoint(folder / "c") == {"a": 1} and os.listdir(folder) == ["c"]
        finally:
            if root:
                os.seteuid(0)
    finally:
        folder.chmod(0o700)
        shutil.rmtree(folder)


# --- Checkpoint: all parts or none -------------------------------------------------------------------


def parts(hidden=4, optimizer="Adam", **more):
    model = nn.Sequential(nn.Linear(3, hidden), nn.BatchNorm1d(hidden))
    optimizer = getattr(kg.optim, optimizer)(model.parameters(), lr=0.1)
    schedule = kg.optim.lr_scheduler.StepLR(optimizer, 2)
    return {"model": model, "optimizer": optimizer, "schedule": schedule, **more}


def trained(made, steps=3):
    for _ in range(steps):
        made["optimizer"].zero_grad()
        made["model"](kg.randn(5, 3)).square().sum().backward()
        made["optimizer"].step()
        made["schedule"].step()
    return made


def snapshot(made):
    return copy.deepcopy([v.state_dict() for v in made.values() if hasattr(v, "state_dict")])


@pytest.mark.parametrize("package", [True, False])
def test_everything_comes_back(tmp_path, monkeypatch, package):
    if not package:
        monkeypatch.setattr("kilograd.train.checkpoint.find_spec", lambda name: None)
    generators = [
        kg.Generator(),
        np.random.default_rng(3),
        np.random.RandomState(4),
        random.Random(5),
    ]
    more = {f"g{i}": g for i, g in enumerate(generators)}
    first = trained(parts(**more))
    values = {
        "time": 1.5,
        "date": "today",
        "e": 2.718,
        "path": "p",
        "self": 3,
        "values": [1],
        "loss": kg.tensor(0.5),
    }
    Checkpoint(**first).save(tmp_path / "c", values, epoch=3, strict=True)
    assert (tmp_path / "c").read_bytes().startswith(b"PK") is not package
    draws = [kg.rand(2), generators[1].random(), generators[2].rand(), generators[3].random()]
    after = kg.rand(3).array.tolist(), np.random.rand(), random.random()
    second = parts(**more)
    Checkpoint(**first).load(tmp_path / "c")
    got = Checkpoint(**second).load(tmp_path / "c")
    assert list(got) == [*values, "epoch", "strict"] and got.pop("loss").item() == 0.5
    assert got == {**{k: v for k, v in values.items() if k != "loss"}, "epoch": 3, "strict": True}
    same(snapshot(first), snapshot(second))
    assert [kg.rand(2).tolist(), generators[1].random(), generators[2].rand(), generators[3].random()] == [
        draws[0].tolist(), *draws[1:]
    ]  # fmt: skip
    assert after == (kg.rand(3).array.tolist(), np.random.rand(), random.random())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hidden": 5}, r"model.0.weight: shape \(4, 3\) in the file, \(5, 3\) in the model\n(.*\n)*.*model.1.running_var"),
        ({"optimizer": "SGD"}, "optimizer: Adam in the file, SGD here"),
        ({"other": nn.Linear(1, 1)}, "other: is not in the file"),
        ({"drop": "schedule"}, "schedule: is in the file, not given here"),
        ({"wider": True}, "schedule in .* does not fit"),
    ],
)  # fmt: skip
def test_what_does_not_fit_changes_nothing(tmp_path, given, message):
    Checkpoint(**trained(parts())).save(tmp_path / "c")
    drop, wider = given.pop("drop", None), given.pop("wider", None)
    made = trained(parts(**given))
    if drop:
        del made[drop]
    if wider:

        class StepLR(kg.optim.lr_scheduler.StepLR):
            def load_state_dict(self, state):
                super().load_state_dict(state)
                state["absent"]

        made["schedule"] = StepLR(made["optimizer"], 3)
    before, place = snapshot(made), kg.get_rng_state()
    try:
        with pytest.raises(ValueError, match=message):
            Checkpoint(**made).load(tmp_path / "c")
    finally:
        same(before, snapshot(made))
    assert (kg.get_rng_state().array == place.array).all()


def test_an_optimizer_of_other_parameters_does_not_fit(tmp_path):
    def adam(*shapes):
        tensors = [kg.randn(s).requires_grad_() for s in shapes]
        optimizer = kg.optim.Adam([{"params": tensors[:1]}, {"params": tensors[1:]}])
        sum(t.square().sum() for t in tensors).backward()
        optimizer.step()
        return optimizer

    Checkpoint(o=adam((2, 3), (2,), ())).save(tmp_path / "c")
    for shapes, lines in (
        ([(2, 4), (2,), (1,)], [r"parameter 0: shape (2, 3) in the file, (2, 4) here",
                               r"parameter 2: shape () in the file, (1,) here"]),
        ([(2, 3), (2,)], ["3 parameters in the file, 2 here"]),
    ):  # fmt: skip
        other = adam(*shapes)
        before = snapshot({"o": other})
        with pytest.raises(ValueError, match="nothing was changed") as e:
            Checkpoint(o=other).load(tmp_path / "c")
        assert str(e.value).splitlines()[1:] == [f"    o: {line}" for line in lines]
        same(before, snapshot({"o": other}))
    fits = adam((2, 3), (2,), ())
    Checkpoint(o=fits).load(tmp_path / "c")
    state = load_checkpoint(tmp_path / "c")
    same(fits.state_dict(), state["parts"]["o"]["state"])
    del state["parts"]["o"]["shapes"]  # as in older files
    save_checkpoint(tmp_path / "c", state)
    Checkpoint(o=adam((2, 3), (2,), ())).load(tmp_path / "c")


def test_parts_that_both_have(tmp_path):
    first = trained(parts())
    Checkpoint(**first).save(tmp_path / "c", epoch=1)
    model = parts()["model"]
    place = kg.get_rng_state()
    assert Checkpoint(model=model).load(tmp_path / "c", strict=False, rng=False) == {"epoch": 1}
    same(dict(model.state_dict()), dict(first["model"].state_dict()))
    assert (kg.get_rng_state().array == place.array).all()
    with pytest.raises(TypeError, match="epoch: int has no state_dict"):
        Checkpoint(epoch=3)
    save_checkpoint(tmp_path / "d", {"a": 1})
    with pytest.raises(CheckpointError, match="not written by Checkpoint"):
        Checkpoint(model=model).load(tmp_path / "d")
    files.save(model.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        Checkpoint(model=model).load(tmp_path / "w.safetensors")


def test_a_damaged_value_changes_nothing(tmp_path):
    Checkpoint(**trained(parts())).save(tmp_path / "c")
    data = bytearray((tmp_path / "c").read_bytes())
    data[-3] ^= 1  # in the values: the header is as it was
    (tmp_path / "c").write_bytes(data)
    made = trained(parts())
    before = snapshot(made)
    with pytest.raises(CheckpointError, match="checksum"):
        Checkpoint(**made).load(tmp_path / "c")
    same(before, snapshot(made))


# --- the manager -------------------------------------------------------------------------------------


def managed(folder, **how):
    return CheckpointManager(folder, Checkpoint(model=nn.Linear(2, 1)), **how)


def test_last_and_best_are_kept(tmp_path):
    manager = managed(tmp_path, keep_last=2, keep_best=2, monitor="acc", mode="max")
    assert manager.latest() is None and manager.best() is None and manager.resume() is None
    for i, acc in enumerate([0.1, 0.9, float("nan"), 0.8, 0.3, float("-inf"), 0.2]):
        manager.save({"time": i, "e": "x"}, epoch=i, step=10 * i, acc=acc)
    assert [e.epoch for e in manager.entries] == [1, 3, 5, 6]
    assert (
        manager.best().name == "checkpoint-000002.kg"
        and manager.latest().name == "checkpoint-000007.kg"
    )
    assert sorted(os.listdir(tmp_path)) == [e.file for e in manager.entries] + ["index.json"]
    index = json.loads((tmp_path / "index.json").read_text(), parse_constant=lambda x: 1 / 0)
    assert [c["step"] for c in index["checkpoints"]] == [10, 30, 50, 60]
    assert index["checkpoints"][2]["values"] == {"time": 5, "e": "x", "acc": "-inf"}
    assert index["runs"] == [manager.run]
    again = managed(tmp_path, keep_last=2, monitor="acc", mode="max")
    assert again.entries == manager.entries and again.best() == manager.best()
    assert again.resume() == {"epoch": 6, "step": 60, "time": 6, "e": "x", "acc": 0.2}
    again.save(epoch=7, acc=0.0)
    assert json.loads((tmp_path / "index.json").read_text())["runs"] == [manager.run, again.run]


@pytest.mark.parametrize(
    "damage",
    [None, b"", b"{", b"[]", b'{"checkpoints": [{"file": 3}]}', b'{"checkpoints": 3}', "older", "gone",
     {"values": 5}, {"values": None}, {"run": [3]}, {"epoch": {}}, {"saved": "now"}, {"number": "3"},
     {"file": ["checkpoint-000003.kg"]}, {"values": {"val_loss": float("inf")}}, {"more": 3}],
)  # fmt: skip
def test_the_index_is_made_anew(tmp_path, damage):
    manager = managed(tmp_path, keep_last=3)
    for i in range(2):
        manager.save(epoch=i, val_loss=-i, loss=kg.tensor([0.5]))
    older = (tmp_path / "index.json").read_bytes()
    manager.save(epoch=2, val_loss=5)
    before = managed(tmp_path).entries
    if damage == "gone":
        manager.latest().unlink()
        before = before[:-1]
    elif damage is None:
        (tmp_path / "index.json").unlink()
    elif isinstance(damage, dict):  # an entry with something of a type it cannot have
        index = json.loads((tmp_path / "index.json").read_text())
        index["checkpoints"][-1] |= damage
        (tmp_path / "index.json").write_text(json.dumps(index).replace("Infinity", "1e999"))
    else:
        (tmp_path / "index.json").write_bytes(older if damage == "older" else damage)
    found = managed(tmp_path)
    assert found.entries == before and found.entries[0].values["loss"] == 0.5
    assert found.best() == manager.best()
    good = json.loads((tmp_path / "index.json").read_text())
    assert [c["epoch"] for c in good["checkpoints"]] == [e.epoch for e in before]


def test_numbers_too_large_to_compare_are_never_the_best(tmp_path):
    manager = managed(tmp_path)
    manager.save(epoch=0, val_loss=10**400)
    assert manager.best() is None
    manager.save(epoch=1, val_loss=1)
    assert manager.best() == manager.latest()


def test_a_reader_sees_what_a_writer_does(tmp_path):
    writer = managed(tmp_path, keep_last=2, keep_best=1)
    writer.save(epoch=0, val_loss=1.0)
    reader = managed(tmp_path)
    for i in range(1, 5):
        writer.save(epoch=i, val_loss=-1.0 if i == 2 else 0.0)
    assert [e.epoch for e in reader.entries] == [2, 3, 4] and reader.entries == writer.entries
    assert reader.latest() == writer.latest() and reader.latest().exists()
    assert reader.best() == writer.best() and reader.resume()["epoch"] == 4
    reader.latest().unlink()
    assert reader.resume()["epoch"] == writer.resume()["epoch"] == 3
    assert writer.latest().exists()
    index = (tmp_path / "index.json").read_bytes()
    assert json.loads(index)["checkpoints"][-1]["epoch"] == 4  # who only reads does not write
    assert reader.save(epoch=5).name == "checkpoint-000005.kg"  # now it is the one that writes
    assert [e.epoch for e in writer.entries] == [2, 3, 5]


def test_a_checkpoint_that_is_dropped_while_it_is_loaded(tmp_path):
    writer = managed(tmp_path, keep_last=1, keep_best=0)
    writer.save(epoch=0)

    class Late(Checkpoint):
        def load(self, path, **how):
            if path.name < "checkpoint-000004.kg":
                writer.save(epoch=int(path.name[11:17]))
            return super().load(path, **how)

    reader = CheckpointManager(tmp_path, Late(model=nn.Linear(2, 1)))
    assert reader.resume() == {"epoch": 3}
    for path in tmp_path.glob("*.kg"):
        path.unlink()
    assert reader.resume() is None and reader.latest() is None and reader.best() is None


def test_only_the_managers_own_leftovers_are_removed(tmp_path):
    manager = managed(tmp_path)
    others = [
        ".mine.v1.tmp",
        ".best.npz.abc12345.tmp",
        ".checkpoint-last.kg.x.tmp",
        ".config.json.x.tmp",
    ]
    own = [".checkpoint-000001.kg.abc12345.tmp", ".index.json.abc12345.tmp"]
    for name in (*others, *own):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").write_bytes(b"1")
    manager.save(epoch=1)
    assert sorted(p.name for p in tmp_path.glob(".*")) == sorted(others)
    assert all((tmp_path / name / "data").exists() for name in others)


def test_a_folder_that_can_only_be_read(tmp_path, monkeypatch):
    managed(tmp_path).save(epoch=0)
    (tmp_path / "index.json").unlink()
    monkeypatch.setattr(replacing.tempfile, "mkdtemp", no_space)
    assert managed(tmp_path).resume() == {"epoch": 0}


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    manager = managed(tmp_path)
    for i in range(3):
        manager.save(epoch=i)
    data = bytearray(manager.latest().read_bytes())
    data[-3] ^= 1
    manager.latest().write_bytes(data)
    with pytest.warns(UserWarning, match="000003.kg .*The one before it is tried"):
        assert managed(tmp_path).resume() == {"epoch": 1}
    assert manager.latest().read_bytes() == data  # left as it is
    manager.latest().write_bytes(b"nothing")
    (tmp_path / "index.json").unlink()
    with pytest.warns(UserWarning, match="is left out"):
        again = managed(tmp_path)
    assert [e.epoch for e in again.entries] == [0, 1]
    assert again.save(epoch=3).name == "checkpoint-000004.kg"
    for p in tmp_path.glob("*.kg"):
        p.write_bytes(p.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="tried"), pytest.raises(CheckpointError, match="all 3"):
        again.resume()


def test_a_save_that_fails_keeps_all(tmp_path, monkeypatch):
    manager = managed(tmp_path, keep_last=1)
    manager.save(epoch=0)
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        manager.save(epoch=1)
    monkeypatch.undo()
    assert managed(tmp_path).resume() == {"epoch": 0} and len(os.listdir(tmp_path)) == 2
    with pytest.raises(TypeError, match="cannot be saved"):
        manager.save(fn=print)
    assert managed(tmp_path).resume() == {"epoch": 0}


def test_settings_that_make_no_sense(tmp_path):
    for how in ({"keep_last": 0}, {"keep_best": -1}, {"mode": "best"}):
        with pytest.raises(ValueError, match=next(iter(how))):
            CheckpointManager(tmp_path, **how)
    with pytest.raises(ValueError, match="give the manager a Checkpoint"):
        CheckpointManager(tmp_path).save(epoch=1)
    every = managed(tmp_path, keep_last=None, monitor=None)
    for i in range(5):
        every.save(epoch=i)
    assert len(every.entries) == 5 and every.best() is None
