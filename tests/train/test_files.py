import json
import os
import random
import struct
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest

import kilograd as kg
from kilograd import nn
from kilograd.train import archive, nest, save_checkpoint
from kilograd.train.archive import DamagedError
from kilograd.train.checkpoint import CheckpointError, load_checkpoint
from kilograd.train.files import load, load_weights, read_metadata, save, save_weights

safetensors = pytest.importorskip("safetensors")
ENDINGS = [".safetensors", ".npz"]


def equal(a, b):
    assert type(a) is type(b), (a, b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for k in a:
            equal(a[k], b[k])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            equal(x, y)
    elif isinstance(a, (kg.Tensor, np.ndarray, np.generic)):
        x, y = (getattr(t, "array", t) for t in (a, b))
        assert x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
    else:
        assert a == b


def everything():
    rng = np.random.default_rng(0)
    return {
        "a.b": kg.randn(3, 4), "a": {"b": kg.randn(2)}, "": kg.ones(1), "__metadata__": kg.ones(2),
        "empty": kg.zeros(0, 3), "0-d": kg.tensor(3.5), "step": kg.tensor(7), "é/..\0x": kg.ones(3),
        "nan": kg.tensor([float("nan"), float("inf"), -0.0]), "turned": kg.randn(3, 4).T,
        "every second": kg.arange(10)[::2], "back": kg.tensor(np.arange(5)[::-1].copy()),
        "fortran": np.asfortranarray(rng.random((3, 4))), "scalar": np.float64(2.5),
        "types": [kg.tensor(rng.integers(0, 2, 3).astype(d)) for d in
                  ("bool", "int8", "uint8", "int16", "int32", "int64", "float16", "float64", "complex64")],
        "numbers": (1, -(2**70), 0.1, True, None, "text", 2 - 3j, float("inf")),
        3: {"None": None, None: "none"}, "time": 1, "date": 2, "e": 3,
    }  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_saved_comes_back(tmp_path, ending):
    before = everything()
    save(before, tmp_path / f"x{ending}")
    equal(before, load(tmp_path / f"x{ending}"))
    assert os.listdir(tmp_path) == [f"x{ending}"]
    for one in (kg.randn(3), kg.tensor(2.0), {}, [], kg.zeros(2, 0), 3, None):
        save(one, tmp_path / f"x{ending}")
        equal(one, load(tmp_path / f"x{ending}"))


@pytest.mark.parametrize("dtype", [d for d in kg.dtypes.ALL if d is not kg.complex128], ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)], ids=str)
@pytest.mark.parametrize("ending", [*ENDINGS, ".npy"])
def test_every_dtype_and_shape(tmp_path, dtype, shape, ending):
    t = kg.tensor(np.random.default_rng(0).integers(0, 3, shape).astype(dtype.dtype))
    save(t, tmp_path / f"x{ending}")
    equal(t, load(tmp_path / f"x{ending}"))
    load(tmp_path / f"x{ending}").array[...] = 0  # ours to write


@pytest.mark.parametrize("ending", [*ENDINGS, ".npy"])
def test_the_other_byte_order(tmp_path, ending):
    for dtype in (">f8", ">f4", ">i2", ">u8", ">c8", "<f8", "?"):
        a = np.array([[0, 1, 3], [2, 4, 5]]).astype(dtype)
        for given in (a, a.T, a[:, ::2], a[:, :0], a[0, 0, None].reshape(())):
            save(given, tmp_path / f"x{ending}")
            got = np.asarray(load(tmp_path / f"x{ending}"))
            assert got.dtype == a.dtype.newbyteorder("=") and got.dtype.isnative
            np.testing.assert_array_equal(got, given)


def test_the_other_byte_order_in_a_nest(tmp_path):
    a = np.arange(3, dtype=">f8")
    for ending in ENDINGS:
        save({"a": a, "b": [a, a[:2]]}, tmp_path / f"x{ending}")
        got = load(tmp_path / f"x{ending}")
        equal(got, {"a": np.arange(3.0), "b": [np.arange(3.0), np.arange(2.0)]})
        assert np.shares_memory(got["a"], got["b"][0])
    save_checkpoint(tmp_path / "x.kg", {"a": a})
    equal(load_checkpoint(tmp_path / "x.kg"), {"a": np.arange(3.0)})


def test_names_longer_than_a_zip_file_can_have(tmp_path):
    for ending in ENDINGS:
        state = {"k" * 70_000: kg.ones(1), "k" * 70_001: kg.zeros(1), "é🙂" * 40_000: kg.ones(2)}
        save(state, tmp_path / f"x{ending}")
        equal(state, load(tmp_path / f"x{ending}"))


def test_complex128_goes_into_numpys_files(tmp_path):
    t = kg.tensor([1 + 2j], dtype=kg.complex128)
    for ending in (".npz", ".npy"):
        save(t, tmp_path / f"x{ending}")
        equal(t, load(tmp_path / f"x{ending}"))
    with pytest.raises(TypeError, match=r"complex128.*\.npz"):
        save({"z": t}, tmp_path / "x.safetensors")


def test_other_programs_read_ours_and_we_theirs(tmp_path):
    from safetensors.numpy import load_file, save_file

    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    state = dict(model.state_dict())
    save(state, tmp_path / "a.safetensors", metadata={"note": "é"})
    theirs = load_file(tmp_path / "a.safetensors")
    assert {k: v.tobytes() for k, v in theirs.items()} == {
        k: v.array.tobytes() for k, v in state.items()
    }
    assert read_metadata(tmp_path / "a.safetensors") == {"note": "é", "format": "kilograd"}
    save_file(theirs, tmp_path / "b.safetensors", {"format": "pt"})
    assert load_weights(model, tmp_path / "b.safetensors").missing_keys == []
    save(state, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as z:  # nothing in it but the arrays
        assert {k: z[k].tobytes() for k in z.files} == {
            k: v.array.tobytes() for k, v in state.items()
        }
    for write in (np.savez, np.savez_compressed):
        write(
            tmp_path / "b.npz", x=np.ones((3, 2), ">f4"), y=np.asfortranarray(np.zeros((400, 500)))
        )
        got = load(tmp_path / "b.npz")
        equal(got, {"x": kg.ones(3, 2), "y": kg.zeros(400, 500, dtype=kg.float64)})
    np.save(tmp_path / "b.npy", np.arange(6, dtype=">i4").reshape(2, 3).T)
    equal(load(tmp_path / "b.npy"), kg.tensor(np.arange(6, dtype=np.int32).reshape(2, 3).T.copy()))


def test_pytorch_reads_ours_and_we_its(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    save({"w": kg.arange(6).reshape(2, 3)}, tmp_path / "a.safetensors")
    assert load_file(tmp_path / "a.safetensors")["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    t = torch.randn(3, 4).to(torch.bfloat16)
    save_file({"h": t, "other": torch.ones(2)}, tmp_path / "b.safetensors")
    got = load(tmp_path / "b.safetensors")
    assert got["h"].dtype == kg.float32 and got["h"].tolist() == t.float().tolist()
    save_file({"h": torch.ones(2).to(torch.float8_e5m2)}, tmp_path / "b.safetensors")
    with pytest.raises(DamagedError, match="'h' has dtype F8_E5M2, which NumPy does not have") as e:
        load(tmp_path / "b.safetensors")
    assert "whole" not in str(e.value)  # it is: another program reads it


@pytest.mark.parametrize("ending", ENDINGS)
def test_tied_weights_are_saved_once(tmp_path, ending):
    def tied():
        model = nn.Sequential(
            nn.Linear(30, 30, bias=False), nn.Tanh(), nn.Linear(30, 30, bias=False)
        )
        model[2].weight = model[0].weight
        return model

    model, path = tied(), tmp_path / f"x{ending}"
    save_weights(model, path)
    assert os.path.getsize(path) < 1.5 * 30 * 30 * 4
    state = load(path)
    assert np.shares_memory(state["0.weight"].array, state["2.weight"].array)
    other = tied()
    assert load_weights(other, path).missing_keys == []
    equal(dict(other.state_dict()), dict(model.state_dict()))
    assert other[2].weight is other[0].weight
    apart = nn.Sequential(nn.Linear(30, 30, bias=False), nn.Tanh(), nn.Linear(30, 30, bias=False))
    load_weights(apart, path)
    equal(dict(apart.state_dict()), dict(model.state_dict()))
    for name in ("0.weight", "2.weight"):  # another program's file, with one of the names
        save({name: model[0].weight.detach()}, path)
        other = tied()
        load_weights(other, path)
        equal(dict(other.state_dict()), dict(model.state_dict()))


def test_views_of_one_memory_are_saved_in_full(tmp_path):
    base = kg.arange(12, dtype=kg.float32).reshape(3, 4)
    views = {"all": base, "row": base[1], "turned": base.T, "again": base[:]}
    save(views, tmp_path / "x.safetensors")
    got = load(tmp_path / "x.safetensors")
    equal(views, got)
    assert np.shares_memory(got["all"].array, got["again"].array)
    assert not np.shares_memory(got["all"].array, got["row"].array)


def test_mismatches_are_listed_in_full_and_change_nothing(tmp_path):
    path = tmp_path / "x.safetensors"
    save_weights(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 6).double()), path)
    model = nn.Sequential(
        nn.Linear(3, 4), nn.Linear(4, 7), nn.Linear(5, 6), nn.ReLU(), nn.Linear(2, 2, False)
    )
    del model[0]._parameters["bias"]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(RuntimeError) as e:
        load_weights(model, path)
    assert str(e.value).splitlines() == [
        f"{path} does not fit Sequential, which was left as it was:",
        "    unexpected: 0.bias",
        "    missing: 4.weight",
        "    1.weight: shape (5, 4) in the file, (7, 4) in the model",
        "    1.bias: shape (5,) in the file, (7,) in the model",
        "    2.weight: dtype float64 in the file, float32 in the model",
        "    2.bias: dtype float64 in the file, float32 in the model",
    ]
    with pytest.raises(RuntimeError, match="shape") as e:
        load_weights(model, path, strict=False)
    assert "dtype" not in str(e.value)
    equal(dict(model.state_dict()), before)
    fits = nn.Sequential(nn.Linear(3, 4), nn.Identity(), nn.Linear(5, 6), nn.Linear(1, 1))
    keys = load_weights(fits, path, strict=False)
    assert keys.missing_keys == ["3.weight", "3.bias"] and keys.unexpected_keys == [
        "1.weight",
        "1.bias",
    ]
    equal(fits[2].weight.detach(), load(path)["2.weight"].float())


def test_models_with_a_say_of_their_own(tmp_path):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.count = kg.zeros(1)
            self.register_load_state_dict_pre_hook(self.rename)

        def rename(self, module, state, prefix, *_):
            for name in ("weight", "bias"):
                if prefix + "old." + name in state:
                    state[prefix + "layer." + name] = state.pop(prefix + "old." + name)

        def get_extra_state(self):
            return {"count": self.count, "n": 3}

        def set_extra_state(self, state):
            assert state["n"] == 3
            self.count = state["count"]

    first, second = Named(), Named()
    first.count = kg.tensor([5.0])
    state = {k.replace("layer", "old"): v for k, v in first.state_dict().items()}
    for ending in ENDINGS:
        save(state, tmp_path / f"x{ending}")
        load_weights(second, tmp_path / f"x{ending}")
        equal(second.layer.weight.detach(), first.layer.weight.detach())
        assert second.count.item() == 5
    state["old.bias"] = kg.ones(3)
    save(state, tmp_path / "x.npz")
    third = Named()
    before = {k: v.clone() for k, v in third.layer.state_dict().items()}
    with pytest.raises(RuntimeError, match=r"size mismatch for layer\.bias"):
        load_weights(third, tmp_path / "x.npz")
    equal(dict(third.layer.state_dict()), before)


def test_lazy_modules(tmp_path):
    with pytest.raises(ValueError, match="weight.*no shape yet"):
        save_weights(nn.LazyLinear(3), tmp_path / "x.npz")
    save_weights(nn.Linear(2, 3), tmp_path / "x.npz")
    model = nn.LazyLinear(3)
    load_weights(model, tmp_path / "x.npz")
    assert model.weight.shape == (3, 2)


def test_wrong_names_and_things(tmp_path):
    for ending in (".pt", ".pth", ".bin", ".pkl"):
        with pytest.raises(ValueError, match=r"pickles.*safetensors"):
            save({}, tmp_path / f"x{ending}")
        with pytest.raises(ValueError, match=r"pickles.*safetensors"):
            load(tmp_path / f"x{ending}")
    with pytest.raises(ValueError, match=r"must be \.safetensors, \.npz or \.npy, not '\.txt'"):
        save({}, tmp_path / "x.txt")
    with pytest.raises(TypeError, match=r"model\.save"):
        save(nn.Linear(1, 1), tmp_path / "x.npz")
    with pytest.raises(TypeError, match=r"\['a'\]\['1'\] is set"):
        save({"a": [1, {2}]}, tmp_path / "x.npz")
    with pytest.raises(TypeError, match=r"\['m'\] is Linear.*state_dict"):
        save({"m": nn.Linear(1, 1)}, tmp_path / "x.npz")
    with pytest.raises(TypeError, match="dtype"):
        save({"a": np.array(["text"])}, tmp_path / "x.npz")
    with pytest.raises(TypeError, match="one tensor"):
        save({"a": kg.ones(1)}, tmp_path / "x.npy")
    for ending in (*ENDINGS, ".npy"):
        with pytest.raises(TypeError, match="masked array.*fill it first"):
            save(np.ma.masked_array([1.0, 2.0], [True, False]), tmp_path / f"x{ending}")
        for a in (np.array(["2020"], "M8[D]"), np.zeros(2, "i4,i4"), np.ones(2, np.longdouble)):
            if a.dtype.newbyteorder("=") != np.float64:  # which long doubles are on some machines
                with pytest.raises(TypeError, match="dtype"):
                    save(a, tmp_path / f"x{ending}")
    with pytest.raises(ValueError, match="no metadata"):
        save(kg.ones(1), tmp_path / "x.npy", metadata={"a": "b"})
    with pytest.raises(TypeError, match="text by text"):
        save({}, tmp_path / "x.npz", metadata={"a": 1})
    with pytest.raises(ValueError, match="one tensor"):
        load_weights(nn.Linear(1, 1), tmp_path / "x.npy")
    for ending in (*ENDINGS, ".npy"):
        with pytest.raises(FileNotFoundError):
            load(tmp_path / f"absent{ending}")
    assert os.listdir(tmp_path) == []


def test_without_the_package(tmp_path, monkeypatch):
    save({"a": kg.ones(1)}, tmp_path / "x.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"pip install 'kilograd\[train\]'"):
        load(tmp_path / "x.safetensors")
    with pytest.raises(ImportError, match=r"pip install 'kilograd\[train\]'"):
        save({"a": kg.ones(1)}, tmp_path / "y.safetensors")
    assert os.listdir(tmp_path) == ["x.safetensors"]


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


def test_nothing_that_is_loaded_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.array([Evil()]), allow_pickle=True)
    np.savez("x.npz", a=np.array([Evil()]))
    for name in ("x.npy", "x.npz"):
        with pytest.raises(DamagedError, match="dtype object"):
            load(name)
    assert not os.path.exists("evil")


# --- files that claim more than they hold -----------------------------------------------------------


def forged(path, arrays, tree):
    """A file of ours, with the right checksums, whose tree says something else."""
    text = {"format": "kilograd", archive.TREE: json.dumps(tree)}
    sums = archive._text_checksum(text), archive._data_checksum(arrays)
    text[archive.CHECKSUM] = "{:08x} {:08x}".format(*sums)
    write = archive._write_npz if path.suffix == ".npz" else archive._write_safetensors
    write(path, arrays, text)
    return path


@pytest.fixture
def reads(monkeypatch):
    """The names of the arrays that are read from files."""
    found = []
    for kind in (archive._Npz, archive._Safetensors):
        read = kind.read
        monkeypatch.setattr(kind, "read", lambda s, n, read=read: found.append(n) or read(s, n))
    return found


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_array_is_a_tensor_of_its_own_dtype_or_a_narrower_one(tmp_path, ending):
    pytest.importorskip("torch")
    small, wide = {"a": np.ones(8, np.uint8)}, {"a": np.ones(8, np.float32)}
    for arrays, kind, name in (
        (small, "torch.float64", "a"), (small, "torch.complex128", "a"), (small, "torch.bfloat16", "a"),
        (wide, "torch.double", "a"), (wide, "torch.float64", "a"), (wide, "torch.int32", "a"),
        (wide, "torch.complex32", "a"), (wide, "torch.load", "a"), (wide, "torch.os", "a"),
        ({}, "torch.dtype", "os"), ({}, "torch.dtype", "load"), ({}, "torch.dtype", "_C"),
    ):  # fmt: skip
        path = forged(tmp_path / f"x{ending}", arrays, {"list": [{kind: name}]})
        with pytest.raises(DamagedError):
            load(path)
        with pytest.raises(RuntimeError):  # the same, or that it does not fit
            load_weights(nn.Linear(1, 1), forged(path, arrays, {"dict": [["w", {kind: name}]]}))


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_read_again_for_each_place_that_names_it(tmp_path, ending, reads):
    torch = pytest.importorskip("torch")
    arrays = {"i": np.arange(3)[None], "v": np.ones(3, np.float32)}
    entry = {"torch.sparse": [{"torch.int64": "i"}, {"torch.bfloat16": "v"}, [5], False]}
    got = load(forged(tmp_path / f"x{ending}", arrays, {"list": [entry] * 100}))
    assert all(x.dtype is torch.bfloat16 and x.shape == (5,) for x in got)
    assert len({x._values().data_ptr() for x in got}) == 1
    assert len(reads) == 4  # each once for the checksum, once for its values
    reads.clear()
    tree = {"dict": [[f"w{i}", {"list": [{"tensor": "v"}]}] for i in range(100)]}
    with pytest.raises(RuntimeError, match="unexpected"):
        load_weights(nn.Linear(1, 1), forged(tmp_path / f"x{ending}", arrays, tree))
    assert len(reads) == 3


@pytest.mark.parametrize("ending", ENDINGS)
def test_sparse_tensors_without_pytorch_have_a_bound(tmp_path, ending, monkeypatch):
    monkeypatch.setattr(nest, "_torch", lambda: None)
    arrays = {"i": np.array([[0, 2, 2], [1, 0, 0]]), "v": np.array([1, 2, 3], np.float32)}

    def tree(shape, times=1):
        parts = [{"torch.int64": "i"}, {"torch.float32": "v"}, shape, False]
        return {"list": [{"torch.sparse": parts}] * times}

    (got,) = load(forged(tmp_path / f"x{ending}", arrays, tree([3, 2])))
    assert got.tolist() == [[0, 1], [0, 0], [5, 0]]
    tracemalloc.start()
    try:
        for shape, times in (([2**20, 2**20], 1), ([2**15, 2], 100), ([2**70, 1], 1)):
            path = forged(tmp_path / f"x{ending}", arrays, tree(shape, times))
            tracemalloc.reset_peak()
            with pytest.raises(DamagedError, match="without PyTorch"):
                load(path)
            assert tracemalloc.get_traced_memory()[1] < 2e6 + 1100 * os.path.getsize(path)
    finally:
        tracemalloc.stop()


def test_the_header_of_bfloat16_files_is_read_once(tmp_path, monkeypatch):
    n, header = 60, {"__metadata__": {"dtype": "BF16"}}
    for i in range(n):
        header[f"t{i}"] = {"dtype": "BF16", "shape": [2], "data_offsets": [4 * i, 4 * i + 4]}
    header["f"] = {"dtype": "F32", "shape": [], "data_offsets": [4 * n, 4 * n + 4]}
    text = json.dumps(header).encode()
    values = np.arange(2 * n, dtype=np.float32)  # in few digits: bfloat16 is the upper half
    data = (values.view(np.uint32) >> 16).astype("<u2").tobytes() + np.float32(0.1).tobytes()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    loads, parsed = json.loads, []
    monkeypatch.setattr(archive.json, "loads", lambda s: parsed.append(s) or loads(s))
    got = load(tmp_path / "x.safetensors")
    assert len(parsed) == 1
    assert [got[f"t{i}"].tolist() for i in range(n)] == values.reshape(n, 2).tolist()
    assert got["f"].item() == np.float32(0.1)


# --- damaged files ----------------------------------------------------------------------------------


def mutated(good, rng):
    bad = bytearray(good)
    kind = rng.randrange(6)
    if kind == 0:
        return bad[: rng.randrange(len(bad))]
    if kind == 1:
        return bad + bytes(rng.randrange(1, 50))
    if kind == 2:  # a piece moved
        i, j, n = (rng.randrange(len(bad)) for _ in range(3))
        bad[i : i + n % 40] = bad[j : j + n % 40]
        return bad
    if kind == 3:  # a large number somewhere: lengths, offsets
        i = rng.randrange(len(bad))
        bad[i : i + 8] = struct.pack("<Q", rng.choice([2**63, 2**40, 2**31, 0, 2**64 - 1]))
        return bad
    if kind == 4:  # digits of shapes and offsets
        digits = [i for i, c in enumerate(bad) if 48 <= c <= 57]
        for i in rng.sample(digits, min(len(digits), 3)):
            bad[i] = rng.randrange(48, 58)
        return bad
    for _ in range(rng.choice([1, 1, 8])):
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
    return bad


@pytest.mark.parametrize("form", ["kg", "safetensors", "npz", "npy"])
def test_mutated_files_give_an_error_or_what_was_saved(tmp_path, form):
    path = tmp_path / f"x.{form}"
    before = (
        kg.randn(5, 3) if form == "npy" else {"w": kg.randn(5, 3), "b": kg.arange(4), "n": [1, 2.5]}
    )
    read = load_checkpoint if form == "kg" else load
    if form == "kg":
        save_checkpoint(path, before)
    else:
        save(before, path)
    good = path.read_bytes()
    rng = random.Random(0)
    refused, error = 0, CheckpointError if form == "kg" else DamagedError
    tracemalloc.start()
    try:
        for _ in range(2500):
            bad = bytes(mutated(good, rng))
            path.write_bytes(bad)
            try:
                got = read(path)
            except error as e:
                refused += 1
                assert str(path) in str(e)
            else:
                if form == "npy":  # no checksum: other numbers, another shape of as many bytes
                    assert got.array.nbytes <= len(bad)
                else:
                    equal(before, got)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # the rest hit dates and flags (of zip members), padding, and the values of an .npy
    assert refused > {"kg": 2000, "safetensors": 2000, "npz": 1500, "npy": 500}[form]
    assert most < 3e6


def test_files_that_claim_to_be_large(tmp_path):
    head = {"descr": "<f4", "fortran_order": False, "shape": (2**40,)}
    with open(tmp_path / "x.npy", "wb") as f:
        np.lib.format.write_array_header_1_0(f, head)
        f.write(bytes(100))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as z:
        z.write(tmp_path / "x.npy", "x.npy")
    with zipfile.ZipFile(tmp_path / "y.npz", "w") as z:  # a shape that overflows to fit
        text = str({"descr": "<f4", "fortran_order": False, "shape": (2**62, 4)}).encode() + b"\n"
        z.writestr("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
    header = json.dumps(
        {"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    ).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(100))
    (tmp_path / "y.safetensors").write_bytes(struct.pack("<Q", 2**50) + header)
    tracemalloc.start()
    try:
        for path in tmp_path.iterdir():
            with pytest.raises(DamagedError, match="left untouched|not a whole"):
                load(path)
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()


def test_a_damaged_file_leaves_the_model_as_it_was(tmp_path):
    model = nn.Sequential(nn.Linear(30, 30), nn.Linear(30, 30))
    for ending in ENDINGS:
        path = tmp_path / f"x{ending}"
        save_weights(nn.Sequential(nn.Linear(30, 30), nn.Linear(30, 30)), path)
        data = bytearray(path.read_bytes())
        data[len(data) * 3 // 4] ^= 4
        path.write_bytes(data)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        with pytest.raises(DamagedError):
            load_weights(model, path)
        equal(dict(model.state_dict()), before)


# --- memory -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
def test_large_models_are_not_copied(tmp_path, ending):
    """64 MB in 16 tensors: saving and loading into the model need a few tensors' memory, not twice it."""
    model = nn.Sequential(*[nn.Linear(1000, 1000, bias=False) for _ in range(16)])
    path = tmp_path / f"x{ending}"
    tracemalloc.start()
    try:
        save_weights(model, path)
        saving = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        load_weights(model, path)
        loading = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert saving < 20e6 and loading < 13e6


def test_large_models_in_resident_memory(tmp_path):
    """The same, as the system sees it: memory of its own besides the model's (the mapped file can be dropped), in a process of its own."""
    if not os.path.exists("/proc/self/smaps_rollup"):
        pytest.skip("needs Linux's account of memory")
    script = (
        "import sys, threading, time, kilograd as kg\n"
        "from kilograd.train import files\n"
        "model = kg.nn.Sequential(*[kg.nn.Linear(1000, 1000, bias=False) for _ in range(25)])\n"
        "path = sys.argv[1]\n"
        "files.save(kg.ones(2), path); files.load(path)\n"
        "def own():\n"
        "    lines = open('/proc/self/smaps_rollup').read().splitlines()\n"
        "    return sum(int(x.split()[1]) for x in lines if x.startswith('Anonymous')) // 1024\n"
        "most, stop = own(), False\n"
        "before = most\n"
        "def watch():\n"
        "    global most\n"
        "    while not stop:\n"
        "        most = max(most, own())\n"
        "        time.sleep(0.001)\n"
        "t = threading.Thread(target=watch); t.start()\n"
        "files.save_weights(model, path); files.load_weights(model, path)\n"
        "stop = True; t.join()\n"
        "print(most - before)\n"
    )
    r = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "x.safetensors")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(r.stdout) < 60, "MB besides the model's 100"


def test_reading_weights_loads_no_training_loop():
    code = (
        "import sys, kilograd as kg; kg.load, kg.save; "
        "assert not {'kilograd.train.trainer', 'kilograd.compile'} & set(sys.modules); "
        "assert kg.train.metrics.Accuracy and kg.train.manager.Entry and kg.train.Trainer"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "npy"])
def test_tensors_of_a_lazy_graph_are_saved_as_their_values(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    with kg.Graph():
        a = kg.tensor([1.0, 2.0]) * 3
        kg.save(a if suffix == "npy" else {"a": a, "again": a}, path)
    found = kg.load(path)
    assert (found if suffix == "npy" else found["a"]).tolist() == [3.0, 6.0]


def test_a_model_of_a_lazy_graph_is_saved(tmp_path):
    with kg.Graph():
        model = kg.nn.Linear(2, 3)
    model.save(tmp_path / "m.safetensors")
    other = kg.nn.Linear(2, 3)
    other.load(tmp_path / "m.safetensors")
    assert other.weight.tolist() == model.weight.tolist()
