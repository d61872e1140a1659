"""Data: datasets, loaders, splits, files, toy sets."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

import kilograd as kg
from kilograd import datasets
from kilograd.utils import data
from tests.mission.rows import close, numbers, row


class Squares(data.Dataset):
    """A dataset of one's own: two methods."""

    def __len__(self):
        return 10

    def __getitem__(self, i):
        return kg.tensor([float(i)]), i * i


@row("Data", "Dataset class with transforms", ancestors="macrograd, pygrad, simple_autograd")
def test_dataset_with_transforms():
    """`class Mine(kg.utils.data.Dataset)`, and `TransformedDataset(dataset, transform, target_transform)`."""
    half = data.TransformedDataset(Squares(), lambda x: x / 2, target_transform=lambda y: y + 1)
    assert half[3][0].tolist() == [1.5] and half[3][1] == 10 and len(half) == 10
    a = numbers(6, 3, 4, 4) * 50 + 100
    standardize = data.transforms.Standardize.fit(a)
    z = standardize(a)
    close(z.mean((0, 2, 3)), np.zeros(3), 1e-6)
    close(z.std((0, 2, 3)), np.ones(3), 1e-6)


@row("Data", "DataLoader", ancestors="synapgrad, neograd, pygrad, simple_autograd")
def test_data_loader():
    """`DataLoader(dataset, batch_size, shuffle, drop_last)`: keeps the last batch, shuffles anew each epoch."""
    for loader in (
        data.DataLoader(Squares(), 4),
        data.DataLoader(data.TensorDataset(kg.arange(10), kg.arange(10) ** 2), 4),
    ):
        assert [len(x) for x, _ in loader] == [4, 4, 2] and len(loader) == 3
        assert kg.cat([y for _, y in loader]).tolist() == [i * i for i in range(10)]
    assert [len(x) for x, _ in data.DataLoader(Squares(), 4, drop_last=True)] == [4, 4]
    shuffled = data.DataLoader(Squares(), 4, shuffle=True)
    for _ in shuffled:
        break
    first, second = ([y for _, ys in shuffled for y in ys.tolist()] for _ in range(2))
    assert sorted(first) == sorted(second) == [i * i for i in range(10)] and first != second


@row("Data", "Subset", ancestors="pygrad")
def test_subset():
    """`Subset(dataset, indices)`."""
    part = data.Subset(Squares(), [7, 0, 7])
    assert [part[i][1] for i in range(len(part))] == [49, 0, 49]
    assert [y.tolist() for _, y in data.DataLoader(part, 2)] == [[49, 0], [49]]


@row("Data", "split", ancestors="synapgrad, pygrad")
def test_split():
    """`random_split(dataset, [0.7, 0.2, 0.1])`, or of whole numbers: shuffled, nothing lost, nothing twice."""
    for lengths, sizes in (([0.65, 0.25, 0.1], [7, 2, 1]), ([4, 6], [4, 6])):
        parts = data.random_split(Squares(), lengths)
        assert [len(p) for p in parts] == sizes
        every = [y for p in parts for _, y in p]
        assert sorted(every) == [i * i for i in range(10)] != every
    with pytest.raises(ValueError, match="does not equal"):
        data.random_split(Squares(), [4, 5])


@row("Data", "one-hot", ancestors="synapgrad, simple_autograd")
def test_one_hot():
    """`kg.nn.functional.one_hot(y, num_classes)`, and `transforms.OneHot(num_classes)` for datasets."""
    y = kg.tensor([[2, 0], [1, 2]])
    close(kg.nn.functional.one_hot(y, 4), np.eye(4, dtype=int)[y.numpy()])
    assert data.transforms.OneHot(3)(kg.tensor(1)).tolist() == [0, 1, 0]
    with pytest.raises(RuntimeError, match="smaller than num_classes"):
        kg.nn.functional.one_hot(y, 2)


def idx(path, array):
    """Write an array as MNIST's files are."""
    head = struct.pack(f">2x2B{array.ndim}I", 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


@row("Data", "MNIST download + parse", ancestors="simple_autograd")
def test_mnist(tmp_path, monkeypatch):
    """`kg.datasets.MNIST(download=True)`: files with known checksums, found, fetched, parsed; damage is named."""
    images, labels = np.arange(5 * 28 * 28).reshape(5, 28, 28) % 256, np.array([3, 1, 4, 1, 5])
    (tmp_path / "mnist").mkdir()
    idx(tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz", images)
    idx(tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz", labels)
    monkeypatch.setenv("KILOGRAD_DATA", str(tmp_path))
    test_set = datasets.MNIST(train=False)
    x, y = next(iter(data.DataLoader(test_set, 5)))
    close(x, images[:, None].astype(np.float32) / 255, 1e-6)
    assert y.tolist() == labels.tolist() and x.dtype == kg.float32
    with pytest.raises(RuntimeError, match="download=True"):
        datasets.MNIST(root=tmp_path / "empty")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").write_bytes(b"cut")
    with pytest.raises(ValueError, match="t10k-labels"):
        datasets.MNIST(train=False)


@row("Data", "toy sets (moons, circles, digits)", ancestors="synapgrad, neograd, macrograd, pygrad")
def test_toy_sets():
    """`Moons`, `Circles`, `Spirals`, `Blobs` need nothing; `Digits` is scikit-learn's: same seeds, same points."""
    circles = datasets.Circles(100, factor=0.5)
    radius = circles.data.numpy()[:, 0] ** 2 + circles.data.numpy()[:, 1] ** 2
    close(radius, np.where(circles.targets.numpy() == 0, 1, 0.25), 1e-6)
    assert datasets.Spirals(30)[0][0].shape == (2,) and len(datasets.Blobs(40)) == 40
    sklearn = pytest.importorskip("sklearn.datasets")
    points, labels = sklearn.make_moons(50, noise=0.1, random_state=3)
    moons = datasets.Moons(50, noise=0.1, random_state=3)
    close(moons.data, points.astype(np.float32), 1e-6)
    assert moons.targets.tolist() == labels.tolist()
    image, label = datasets.Digits()[0]
    assert image.shape == (1, 8, 8) and 0 <= label < 10
