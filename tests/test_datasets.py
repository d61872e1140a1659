"""Datasets: geometry and draws, the real digits, and files that are missing, damaged, or not there yet."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import kilograd as kg
from kilograd.datasets import (
    MNIST,
    ArrayDataset,
    Blobs,
    Circles,
    Digits,
    FashionMNIST,
    Moons,
    Spirals,
    make_blobs,
    make_circles,
    make_moons,
    make_spirals,
)
from kilograd.datasets.idx import read_idx
from kilograd.datasets.mnist import default_root

# --- points ---------------------------------------------------------------------------------------------

SETS = [make_moons, make_circles, make_spirals, make_blobs]


@pytest.mark.parametrize("n_samples", [1, 2, 7, 100, (3, 8), (0, 4)])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("noise", [None, 0.0, 0.3])
@pytest.mark.parametrize("make", [make_moons, make_circles])
def test_points_are_scikit_learns(make, n_samples, shuffle, noise):
    theirs = getattr(pytest.importorskip("sklearn.datasets"), make.__name__)
    how = {"shuffle": shuffle, "noise": noise}
    X, y = make(n_samples, random_state=5, **how)
    X_sklearn, y_sklearn = theirs(n_samples, random_state=5, **how)
    np.testing.assert_allclose(X, X_sklearn, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(y, y_sklearn)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"n_samples": 10, "n_features": 3, "centers": 4},
        {"n_samples": [3, 0, 5], "cluster_std": [0.1, 1.0, 2.0]},
        {"n_samples": 11, "centers": np.array([[0.0, 1.0], [5.0, 5.0]]), "shuffle": False},
        {"centers": 2, "center_box": (0.0, 1.0), "cluster_std": 0.5},
    ],
)
def test_blobs_are_scikit_learns(how):
    theirs = pytest.importorskip("sklearn.datasets").make_blobs
    X, y = make_blobs(random_state=5, **how)
    X_sklearn, y_sklearn = theirs(random_state=5, **how)
    np.testing.assert_allclose(X, X_sklearn, rtol=1e-5)
    np.testing.assert_array_equal(y, y_sklearn)


def test_circles_factor_is_scikit_learns():
    theirs = pytest.importorskip("sklearn.datasets").make_circles
    X, _ = make_circles(50, factor=0.3, random_state=1)
    np.testing.assert_allclose(X, theirs(50, factor=0.3, random_state=1)[0], rtol=1e-6, atol=1e-6)


def test_spirals():
    X, y = make_spirals(302, n_classes=3, turns=1.5, shuffle=False)
    assert np.bincount(y).tolist() == [101, 101, 100]
    for k in range(3):
        arm = X[y == k]
        radius = np.hypot(*arm.T)
        np.testing.assert_allclose(radius, np.linspace(0, 1, len(arm)), atol=1e-6)
        angle = np.unwrap(np.arctan2(arm[1:, 1], arm[1:, 0]))
        assert angle[-1] - angle[0] == pytest.approx(2 * np.pi * 1.5, rel=0.02)


@pytest.mark.parametrize("make", SETS)
def test_points_have_the_librarys_dtypes_and_shapes(make):
    X, y = make(31, random_state=0)
    assert X.shape == (31, 2)
    assert y.shape == (31,)
    assert X.dtype == np.float32
    assert y.dtype == np.int64


@pytest.mark.parametrize("make", SETS)
def test_no_points_are_a_set_too(make):
    X, y = make(0, random_state=0)
    assert (X.shape, y.shape) == ((0, 2), (0,))


@pytest.mark.parametrize("make", SETS)
def test_seeds_decide_the_points(make):
    def same(a, b):
        return all(np.array_equal(left, right) for left, right in zip(a, b, strict=True))

    assert same(make(20, random_state=3), make(20, random_state=3))
    assert not same(make(20, random_state=3), make(20, random_state=4))
    stream = np.random.RandomState(3)
    assert same(make(20, random_state=stream), make(20, random_state=3))
    assert not same(make(20, random_state=stream), make(20, random_state=3))  # it has moved on

    kg.manual_seed(7)
    first, second = make(20), make(20)
    assert not same(first, second)
    kg.manual_seed(7)
    assert same(make(20), first)
    assert same(make(20), second)

    def fresh():
        return make(20, generator=kg.Generator().manual_seed(11))

    kg.manual_seed(7)
    assert same(fresh(), fresh())
    assert same(make(20), first)  # a generator of one's own leaves the global one alone


def test_points_leave_numpys_global_stream_alone():
    before = np.random.get_state()[1].copy()
    for make in SETS:
        make(10, random_state=0)
        make(10)
    assert np.array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_moons(-1), "must not be negative"),
        (lambda: make_circles((3, -1)), "must not be negative"),
        (lambda: make_moons((1, 2, 3)), "3 numbers for 2 classes"),
        (lambda: make_moons(10, noise=-0.1), "standard deviation"),
        (lambda: make_moons(10, noise=float("nan")), "standard deviation"),
        (lambda: make_circles(10, factor=1.0), r"must be in \[0, 1\)"),
        (lambda: make_spirals(10, n_classes=0), "at least one class"),
        (lambda: make_blobs([1, 2], centers=3), "2 numbers for 3 classes"),
        (lambda: make_blobs(5, centers=np.zeros(3)), "n_features"),
        (lambda: make_moons(10, random_state=1, generator=kg.Generator()), "not both"),
    ],
)
def test_points_refuse(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("dataset", "make"),
    [(Moons, make_moons), (Circles, make_circles), (Spirals, make_spirals), (Blobs, make_blobs)],
)
def test_point_datasets_hold_the_points(dataset, make):
    points = dataset(40, random_state=2)
    X, y = make(40, random_state=2)
    np.testing.assert_array_equal(points.data.array, X)
    np.testing.assert_array_equal(points.targets.array, y)
    x, label = points[3]
    assert isinstance(x, kg.Tensor)
    assert (x.dtype, tuple(x.shape), type(label)) == (kg.float32, (2,), int)
    assert len(points.classes) == y.max() + 1
    assert points.class_to_idx[points.classes[1]] == 1
    assert repr(points) == f"Dataset {dataset.__name__}\n    Number of datapoints: 40"


# --- datasets made of arrays ----------------------------------------------------------------------------


class Pictures(ArrayDataset):
    def features(self, rows):
        return rows[:, None].astype(np.float32) / 2


def pictures(n=5, **how):
    return Pictures(np.arange(n * 6, dtype=np.uint8).reshape(n, 2, 3), np.arange(n) % 3, **how)


def test_a_batch_is_its_samples_stacked():
    data = pictures()
    for indices in ([3, 1, 1], np.array([0, 4]), range(2), []):
        x, labels = data.gather(indices)
        samples = [data[int(i)] for i in indices]
        assert (x.dtype, labels.dtype) == (kg.float32, kg.int64)
        assert tuple(x.shape) == (len(indices), 1, 2, 3)
        assert [row.tolist() for row in x.array] == [image.tolist() for image, _ in samples]
        assert labels.tolist() == [label for _, label in samples]


def test_samples_do_not_share_memory_with_the_dataset():
    data = ArrayDataset(np.zeros((3, 2), np.float32), np.zeros(3, int))
    for x in (data[0][0], data.gather([0, 1])[0]):
        x.array[...] = 7
    assert data.data.array.max() == 0


def test_indices_are_checked():
    data = pictures(3)
    assert data[-1][1] == 2
    assert data[np.int64(1)][1] == 1
    assert len(list(data)) == 3  # iteration ends by IndexError
    for bad in (3, -4):
        with pytest.raises(IndexError, match=r"Pictures: index -?\d is out of range for 3 samples"):
            data[bad]
        with pytest.raises(IndexError):
            data.gather([bad])
    for bad in (1.0, "1", slice(2), None):
        with pytest.raises(TypeError):
            data[bad]


def test_transforms_see_one_sample_each():
    data = pictures(transform=lambda x: x.sum().item(), target_transform=lambda label: -label)
    assert data[1] == (np.arange(6, 12).sum() / 2, -1)
    assert data.gather([1, 0]) is None  # the loader asks for samples instead


def test_a_dataset_can_be_shortened_by_assignment():
    data = pictures()
    data.data, data.targets = data.data[1:3], data.targets[1:3]
    assert len(data) == 2
    assert data[0][1] == 1


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="Pictures: 3 inputs but 2 labels"):
        Pictures(np.zeros((3, 2)), np.zeros(2, int))


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_loader_gathers_whole_batches(monkeypatch, shuffle):
    data = pictures(10)

    def one_sample(self, index):
        raise AssertionError("a Python loop over samples")

    monkeypatch.setattr(ArrayDataset, "__getitem__", one_sample)
    batches = list(kg.utils.data.DataLoader(data, batch_size=4, shuffle=shuffle))
    assert [tuple(x.shape) for x, _ in batches] == [(4, 1, 2, 3), (4, 1, 2, 3), (2, 1, 2, 3)]
    assert sorted(i for x, _ in batches for i in x.array[:, 0, 0, 0]) == [
        3.0 * i for i in range(10)
    ]
    assert all(labels.dtype == kg.int64 for _, labels in batches)


def test_a_loader_collates_transformed_samples():
    data = pictures(4, transform=lambda x: x + 1)
    x, labels = next(iter(kg.utils.data.DataLoader(data, batch_size=4)))
    np.testing.assert_array_equal(x.array, pictures(4).gather(range(4))[0].array + 1)
    assert labels.tolist() == [0, 1, 2, 0]


# --- digits ---------------------------------------------------------------------------------------------


def test_digits_are_scikit_learns():
    theirs = pytest.importorskip("sklearn.datasets").load_digits()
    everything = Digits(train=None)
    np.testing.assert_array_equal(everything.data.array, theirs.images)
    np.testing.assert_array_equal(everything.targets.array, theirs.target)
    image, label = everything[7]
    assert (tuple(image.shape), image.dtype, label) == ((1, 8, 8), kg.float32, 7)
    np.testing.assert_array_equal(image.array[0], (theirs.images[7] / 16).astype(np.float32))


def test_digits_are_split_once_and_for_all():
    pytest.importorskip("sklearn")
    train, test, everything = Digits(), Digits(train=False), Digits(train=None)
    assert (len(train), len(test)) == (1347, 450)

    def rows(*sets):
        return sorted(
            d.data.array[i].tobytes() + bytes([d.targets.array[i]])
            for d in sets
            for i in range(len(d))
        )

    assert rows(train, test) == rows(everything)
    for part in (train, test):
        assert np.bincount(part.targets.array).min() > 0.07 * len(part)
    assert train.targets.tolist()[:8] == [
        2,
        8,
        2,
        6,
        6,
        7,
        1,
        9,
    ]  # the same on every machine, for good
    assert repr(test).splitlines()[-1].strip() == "Split: Test"


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'kilograd\[data\]'"):
        Digits()


# --- IDX files ------------------------------------------------------------------------------------------

CODES = {"u1": 8, "i1": 9, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array):
    header = (
        bytes([0, 0, CODES[array.dtype.str[1:]], array.ndim])
        + np.array(array.shape, ">u4").tobytes()
    )
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3, 4)])
@pytest.mark.parametrize("compress", [False, True])
def test_idx_round_trip(tmp_path, dtype, shape, compress):
    array = (np.random.RandomState(0).standard_normal(shape) * 50).astype(dtype)
    array = np.asarray(array)
    content = idx_bytes(array)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(content, mtime=0) if compress else content)
    got = read_idx(path)
    assert got.dtype == array.dtype
    assert got.dtype.isnative
    assert got.flags.writeable
    np.testing.assert_array_equal(got, array)


GOOD = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with nothing"),
        (b"\0\0", "not an IDX file"),
        (b"<html>not found</html>", "begins with 3c 68 74 6d"),
        (b"\0\0\x07\x03" + GOOD[4:], "not an IDX file"),
        (b"\0\1" + GOOD[2:], "not an IDX file"),
        (GOOD[:10], "ends within its 16-byte header"),
        (GOOD[:-1], r"promises 24 bytes of data \(shape \(2, 3, 4\)\), and 23 follow"),
        (GOOD + b"\0", "and 25 follow"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "promises 79228162458924105385300197375 bytes"),
        (gzip.compress(GOOD, mtime=0)[:-9], "is damaged"),
        (gzip.compress(GOOD, mtime=0)[:11], "is damaged"),
        (gzip.compress(GOOD, mtime=0)[:-8] + b"\0" * 8, "is damaged"),
        (
            gzip.compress(GOOD, mtime=0)[:12] + b"\xff\xff" + gzip.compress(GOOD, mtime=0)[14:],
            "is damaged",
        ),
        (gzip.compress(GOOD, mtime=0) + b"junk", "is damaged"),
        (gzip.compress(GOOD[:-3], mtime=0), "and 21 follow"),
    ],
)
def test_bad_idx_files_are_named(tmp_path, content, message):
    path = tmp_path / "pictures.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    assert "download=True" in str(caught.value)


# --- MNIST ----------------------------------------------------------------------------------------------

N_TRAIN, N_TEST = 30, 7
FILES = {
    f"{part}-{kind}": idx_bytes(np.random.RandomState(0).randint(0, top, shape).astype(np.uint8))
    for part, n in (("train", N_TRAIN), ("t10k", N_TEST))
    for kind, top, shape in (
        ("images-idx3-ubyte", 256, (n, 28, 28)),
        ("labels-idx1-ubyte", 10, (n,)),
    )
}


def write_files(folder, *, compress=True, **replaced):
    """A small MNIST in ``folder``; a file's content can be replaced, or left out by None."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in FILES.items():
        path = folder / (name + ".gz" * compress)
        content = gzip.compress(content, mtime=0) if compress else content
        content = replaced.get(name.split("-idx")[0].replace("-", "_"), content)
        if content is not None:
            path.write_bytes(content)


def snapshot(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch, tmp_path_factory):
    """No local data, an empty cache, and no network unless a test serves it."""
    monkeypatch.delenv("KILOGRAD_DATA", raising=False)
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("kilograd.datasets.mnist.default_root", lambda: cache)
    for dataset in (MNIST, FashionMNIST):
        monkeypatch.setattr(dataset, "mirrors", ("http://127.0.0.1:9/",))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return cache


@pytest.mark.parametrize("compress", [True, False])
def test_mnist_reads_torchvisions_folder(tmp_path, compress):
    write_files(tmp_path / "MNIST" / "raw", compress=compress)
    train, test = MNIST(tmp_path), MNIST(str(tmp_path), train=False)
    assert (len(train), len(test)) == (N_TRAIN, N_TEST)
    assert (tuple(train.data.shape), train.data.dtype) == ((N_TRAIN, 28, 28), kg.uint8)
    assert (tuple(train.targets.shape), train.targets.dtype) == ((N_TRAIN,), kg.int64)
    raw = np.frombuffer(FILES["train-images-idx3-ubyte"], np.uint8, offset=16).reshape(-1, 28, 28)
    np.testing.assert_array_equal(train.data.array, raw)
    image, label = train[4]
    assert (image.dtype, tuple(image.shape), type(label)) == (kg.float32, (1, 28, 28), int)
    np.testing.assert_array_equal(image.array[0], raw[4].astype(np.float32) / np.float32(255))
    assert train.raw_folder == tmp_path / "MNIST" / "raw"
    assert repr(test) == (
        f"Dataset MNIST\n    Number of datapoints: {N_TEST}\n"
        f"    Location: {train.raw_folder}\n    Split: Test"
    )


def test_mnist_scales_as_torchvision(tmp_path):
    torch = pytest.importorskip("torch")
    write_files(tmp_path / "MNIST" / "raw")
    data = MNIST(tmp_path)
    theirs = torch.from_numpy(data.data.array.copy())[:, None].float().div(255)
    np.testing.assert_array_equal(data.gather(range(N_TRAIN))[0].array, theirs.numpy())


def test_kilograd_data_comes_first_and_is_only_read(tmp_path, monkeypatch):
    local, root = tmp_path / "local", tmp_path / "root"
    write_files(local / "mnist")
    write_files(
        local / "fashion-mnist",
        train_images=gzip.compress(idx_bytes(np.zeros((N_TRAIN, 28, 28), np.uint8))),
    )
    write_files(root / "MNIST" / "raw", train_images=b"never looked at")
    monkeypatch.setenv("KILOGRAD_DATA", str(local))
    before = snapshot(tmp_path)
    for download in (False, True):
        assert (
            MNIST(root, download=download).source == local / "mnist" / "train-images-idx3-ubyte.gz"
        )
        assert FashionMNIST(root, download=download).data.array.max() == 0
        assert MNIST(train=False, download=download).classes[9] == "9 - nine"
    assert snapshot(tmp_path) == before


def test_kilograd_data_needs_no_pooch(tmp_path, monkeypatch):
    write_files(tmp_path / "mnist")
    monkeypatch.setenv("KILOGRAD_DATA", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert len(MNIST()) == N_TRAIN


def test_a_damaged_local_file_is_reported_not_mended(tmp_path, monkeypatch):
    write_files(tmp_path / "mnist", train_labels=b"\x1f\x8bnonsense")
    monkeypatch.setenv("KILOGRAD_DATA", str(tmp_path))
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte\.gz is damaged"):
        MNIST(tmp_path / "root", download=True)
    assert snapshot(tmp_path) == before


def test_missing_files_say_where_and_how(tmp_path, monkeypatch):
    monkeypatch.setenv("KILOGRAD_DATA", str(tmp_path / "local"))
    with pytest.raises(RuntimeError) as caught:
        FashionMNIST(tmp_path / "root", train=False)
    message = str(caught.value)
    assert "t10k-images-idx3-ubyte.gz" in message
    assert str(tmp_path / "local" / "fashion-mnist") in message
    assert str(tmp_path / "root" / "FashionMNIST" / "raw") in message
    assert "download=True" in message
    assert "KILOGRAD_DATA" in message


IMAGES, LABELS = FILES["train-images-idx3-ubyte"], FILES["train-labels-idx1-ubyte"]


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        (
            {"train_images": gzip.compress(LABELS, mtime=0)},
            r"uint8 of shape \(30,\), where uint8 images",
        ),
        ({"train_labels": gzip.compress(IMAGES, mtime=0)}, "where uint8 labels"),
        (
            {"train_labels": gzip.compress(idx_bytes(np.zeros(N_TRAIN, np.float32)))},
            "holds float32",
        ),
        ({"train_labels": gzip.compress(idx_bytes(np.full(N_TRAIN, 10, np.uint8)))}, "label 10"),
        (
            {"train_labels": gzip.compress(FILES["t10k-labels-idx1-ubyte"])},
            "30 images but .* 7 labels",
        ),
        ({"train_images": gzip.compress(IMAGES, mtime=0)[:-100]}, "is damaged"),
        ({"train_images": gzip.compress(IMAGES[:-1])}, "wrong length"),
        ({"train_images": b""}, "not an IDX file"),
    ],
)
def test_wrong_files_are_refused_by_name(tmp_path, replaced, message):
    raw = tmp_path / "MNIST" / "raw"
    write_files(raw, **replaced)
    before = snapshot(raw)
    with pytest.raises(ValueError, match=message) as caught:
        MNIST(tmp_path)
    assert str(raw) in str(caught.value)
    assert snapshot(raw) == before


# Downloads: from a server on this machine, through the real downloader.


@pytest.fixture
def server(tmp_path_factory):
    """A web server on this machine: its folder, its address, and the log of what was asked of it."""
    pytest.importorskip("pooch")
    folder = tmp_path_factory.mktemp("mirrors")
    log = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            log.append(self.path)
            if self.path.startswith(
                "/cut/"
            ):  # promises a whole file, delivers half of it, hangs up
                content = (folder / "good" / Path(self.path).name).read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2])
            else:
                super().do_GET()

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}", log
        running.shutdown()
        thread.join()


@pytest.fixture
def mirrors(server, monkeypatch):
    """Mirrors called good, wrong (other bytes), cut (half a file) and gone (no such folder)."""
    folder, base, log = server
    write_files(folder / "good")
    write_files(
        folder / "wrong", **dict.fromkeys(["train_images", "train_labels"], b"an error page")
    )
    sums = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (folder / "good").iterdir()}
    monkeypatch.setattr(MNIST, "sha256", sums)

    def use(*names):
        monkeypatch.setattr(MNIST, "mirrors", tuple(f"{base}/{name}/" for name in names))
        return log

    return use


def test_download_falls_back_from_mirror_to_mirror(tmp_path, mirrors):
    log = mirrors("gone", "wrong", "cut", "good", "never-asked")
    train = MNIST(tmp_path, download=True)
    assert len(train) == N_TRAIN
    raw = tmp_path / "MNIST" / "raw"
    assert sorted(p.name for p in raw.iterdir()) == [
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
    ]
    for kind in ("images", "labels"):
        asked = [path.split("/")[1] for path in log if kind in path]
        assert asked == ["gone", "wrong", "cut", "good"]

    log.clear()
    assert len(MNIST(tmp_path, download=True)) == N_TRAIN  # what is here is not fetched again
    assert len(MNIST(tmp_path)) == N_TRAIN
    assert log == []


def test_download_goes_to_the_cache_folder_by_default(mirrors, nothing_from_outside):
    mirrors("good")
    assert len(MNIST(train=False, download=True)) == N_TEST
    assert (nothing_from_outside / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz").exists()


@pytest.mark.parametrize("bad", ["gone", "wrong", "cut"])
def test_a_failed_download_leaves_nothing_and_lists_the_mirrors(tmp_path, mirrors, bad):
    mirrors(bad, "also-gone")
    with pytest.raises(RuntimeError) as caught:
        MNIST(tmp_path, download=True)
    message = str(caught.value)
    assert f"/{bad}/train-images-idx3-ubyte.gz: " in message
    assert "/also-gone/train-images-idx3-ubyte.gz: " in message
    assert str(tmp_path) in message
    assert snapshot(tmp_path) == {}


def test_a_download_interrupted_by_the_user_leaves_nothing(tmp_path, mirrors, monkeypatch):
    pooch = pytest.importorskip("pooch")
    mirrors("good")

    def interrupted(self, url, output_file, pooch, check_only=False):
        Path(output_file).write_bytes(b"the first half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        MNIST(tmp_path, download=True)
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize("compress", [True, False])
def test_download_replaces_a_damaged_file(tmp_path, mirrors, compress):
    mirrors("good")
    raw = tmp_path / "MNIST" / "raw"
    write_files(raw, compress=compress, train_images=b"half a fi")
    labels = raw / ("train-labels-idx1-ubyte" + ".gz" * compress)
    stamp = labels.stat().st_mtime_ns
    with pytest.raises(ValueError, match="not an IDX file"):
        MNIST(tmp_path)
    assert len(MNIST(tmp_path, download=True)) == N_TRAIN
    assert len(MNIST(tmp_path)) == N_TRAIN
    assert labels.stat().st_mtime_ns == stamp  # a good file stays as it is


def test_a_damaged_file_stays_where_no_mirror_can_replace_it(tmp_path, mirrors):
    mirrors("gone")
    raw = tmp_path / "MNIST" / "raw"
    write_files(raw, train_images=b"half a fi")
    before = snapshot(raw)
    with pytest.raises(RuntimeError, match="no mirror delivered"):
        MNIST(tmp_path, download=True)
    assert snapshot(raw) == before


def test_the_default_root_is_the_users_cache():
    pytest.importorskip("pooch")
    assert "kilograd" in default_root().parts


def test_download_without_pooch_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"pip install 'kilograd\[data\]'"):
        MNIST(tmp_path, download=True)


def test_every_download_has_a_checksum():
    for dataset in (MNIST, FashionMNIST):
        assert sorted(dataset.sha256) == sorted(f"{name}.gz" for name in FILES)
        assert all(len(digest) == 64 for digest in dataset.sha256.values())
    assert not set(MNIST.sha256.values()) & set(FashionMNIST.sha256.values())


REAL = os.environ.get("KILOGRAD_DATA", "")  # read before the fixture hides it


@pytest.mark.skipif(
    not (Path(REAL) / "mnist").is_dir() or not REAL, reason="KILOGRAD_DATA has no MNIST"
)
def test_real_mnist(monkeypatch):
    monkeypatch.setenv("KILOGRAD_DATA", REAL)
    train, test = MNIST(), MNIST(train=False)
    assert (len(train), len(test)) == (60000, 10000)
    pixels = train.data.array.astype(np.float32) / 255
    assert (pixels.mean(), pixels.std()) == (
        pytest.approx(0.1307, abs=1e-4),
        pytest.approx(0.3081, abs=1e-4),
    )
    assert train.targets.tolist()[:10] == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.bincount(test.targets.array).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    x, _ = train.gather(np.arange(60000)[::-469])
    assert tuple(x.shape) == (128, 1, 28, 28)
    assert x.array.max() == 1
