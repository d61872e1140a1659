"""Datasets on disk: arrays, images and tables, and files that are not what they should be."""

from __future__ import annotations

import gzip
import pickle
import sys

import numpy as np
import pytest

import kilograd as kg
from kilograd.utils.data import (
    DataLoader,
    ImageFolder,
    MemmapDataset,
    TableDataset,
    TransformedDataset,
    load_image,
)
from kilograd.utils.data.transforms import ToFloat

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork, threads
rng = np.random.default_rng(0)

# --- arrays -------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    x, y = rng.random((10, 3, 4)).astype(np.float32), rng.integers(0, 5, 10)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    return tmp_path / "x.npy", tmp_path / "y.npy", x, y


def test_rows_are_samples_and_batches_one_index(files):
    *paths, x, y = files
    data = MemmapDataset(*paths)
    assert len(data) == 10
    assert all(isinstance(a, np.memmap) for a in data.arrays)
    for i in (0, 9, -1, np.int64(3)):
        got = data[i]
        np.testing.assert_array_equal(got[0].array, x[i])
        assert got[1].item() == y[i] and got[1].dtype == kg.int64
    for indices in ([3, 3, 1], np.array([0]), [], range(4)):
        got = data.gather(indices)
        np.testing.assert_array_equal(got[0].array, x[np.asarray(indices, int)])
        np.testing.assert_array_equal(got[1].array, y[np.asarray(indices, int)])
        assert not isinstance(got[0].array, np.memmap)
    assert [tuple(b[0].shape) for b in DataLoader(data, 4)] == [(4, 3, 4), (4, 3, 4), (2, 3, 4)]
    data[0][0].array[...] = 0  # memory of its own
    np.testing.assert_array_equal(data[0][0].array, x[0])
    for bad in (10, -11):
        with pytest.raises(IndexError, match="out of range for 10"):
            data[bad]
    with pytest.raises(TypeError):
        data[0.5]


def test_a_pickle_is_the_paths(files, monkeypatch, tmp_path):
    path, _, x, _ = files
    monkeypatch.chdir(tmp_path)
    data = MemmapDataset("x.npy")  # found again from another folder
    pickled = pickle.dumps(data)
    assert len(pickled) < 1000 < x.nbytes * 3
    monkeypatch.chdir("/")
    again = pickle.loads(pickled)
    np.testing.assert_array_equal(again[4][0].array, x[4])
    assert again.arrays[0] is not data.arrays[0]
    kg.manual_seed(0)
    there = [b[0].tolist() for b in DataLoader(data, 3, True, num_workers=2)]
    kg.manual_seed(0)
    assert there == [b[0].tolist() for b in DataLoader(data, 3, True)]


def test_arrays_of_any_layout(tmp_path):
    for i, a in enumerate(
        [np.arange(5), np.zeros((0, 3)), np.arange(4, dtype=">f4"), np.array([True, False]),
         np.asfortranarray(rng.random((4, 5))), np.ones((2, 2), complex)]
    ):  # fmt: skip
        path = tmp_path / f"{i}.npy"
        np.save(path, a)
        data = MemmapDataset(path)
        (got,) = data.gather(range(len(a)))
        np.testing.assert_array_equal(got.array, a)
        assert got.array.dtype.isnative
        if len(a):
            np.testing.assert_array_equal(data[0][0].array, a[0])
            assert data[0][0].array.dtype.isnative


def test_files_that_are_no_arrays(tmp_path, files):
    path = tmp_path / "bad.npy"
    path.write_bytes(b"not an array")
    with pytest.raises(ValueError, match=r"bad\.npy is not an array"):
        MemmapDataset(path)
    path.write_bytes(files[0].read_bytes()[:-9])  # cut short
    with pytest.raises(ValueError, match=r"bad\.npy is not an array"):
        MemmapDataset(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"bad\.npy"):
        MemmapDataset(path)
    with pytest.raises(FileNotFoundError, match=r"none\.npy"):
        MemmapDataset(tmp_path / "none.npy")
    np.save(path, np.array(3.0))
    with pytest.raises(ValueError, match="no rows"):
        MemmapDataset(path)
    np.save(path, np.array(["a", "b"]))
    with pytest.raises(ValueError, match="not numbers"):
        MemmapDataset(path)
    for dtype in (np.longdouble, "M8[s]", "i4,f4"):  # no tensor has them
        np.save(path, np.zeros(3, dtype))
        with pytest.raises(ValueError, match=r"bad\.npy holds .*not numbers that a tensor"):
            MemmapDataset(path)
    np.save(path, np.array([{}, 1], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"bad\.npy"):
        MemmapDataset(path)
    np.savez(tmp_path / "bad.npz", a=np.ones(3))
    with pytest.raises(ValueError, match="archive"):
        MemmapDataset(tmp_path / "bad.npz")
    np.save(path, np.ones(3))
    with pytest.raises(ValueError, match="different lengths: .*x.npy 10, .*bad.npy 3"):
        MemmapDataset(files[0], path)
    with pytest.raises(ValueError, match="one or more"):
        MemmapDataset()


# --- images -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    root = tmp_path / "pets"
    for i, name in enumerate(
        ["dog/b.png", "dog/a.PNG", "cat/deep/z.png", "cat/c.png", "cat/note.txt"]
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("txt"):
            path.write_text("no image")
        else:
            Image.fromarray(np.full((4, 5, 3), i * 10, np.uint8)).save(path)
    (root / "readme.png").write_bytes(b"beside the classes")
    return root


def test_image_folder(folder):
    data = ImageFolder(folder)
    assert data.classes == ["cat", "dog"]
    assert data.class_to_idx == {"cat": 0, "dog": 1}
    names = [path[len(str(folder)) + 1 :] for path, _ in data.samples]
    assert names == ["cat/c.png", "cat/deep/z.png", "dog/a.PNG", "dog/b.png"]
    assert data.targets == [0, 0, 1, 1] and data.imgs is data.samples and len(data) == 4
    image, label = data[3]
    assert (image.dtype, tuple(image.shape), label) == (kg.uint8, (3, 4, 5), 1)
    assert set(image.array.ravel().tolist()) == {0}
    assert "Number of datapoints: 4" in repr(data)
    for how in ({}, {"num_workers": 2}, {"num_workers": 2, "worker_type": "thread"}):
        (x, y), (x2, _) = DataLoader(TransformedDataset(data, ToFloat()), 3, **how)
        assert x.array[:, 0, 0, 0].tolist() == pytest.approx([30 / 255, 20 / 255, 10 / 255])
        assert y.tolist() == [0, 0, 1] and tuple(x2.shape) == (1, 3, 4, 5)


def test_image_folder_is_torchvisions(folder):
    theirs = pytest.importorskip("torchvision.datasets").ImageFolder(folder)
    data = ImageFolder(folder)
    assert data.samples == theirs.samples and data.classes == theirs.classes


def test_loader_transforms_and_valid_files_of_ones_own(folder):
    data = ImageFolder(
        str(folder), transform=len, target_transform=lambda y: -y, loader=lambda path: path[-5:],
        is_valid_file=lambda path: path.endswith(("b.png", "txt")),
    )  # fmt: skip
    assert [data[i] for i in range(len(data))] == [(5, 0), (5, -1)]


def test_folders_that_lack_something(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="any class folder"):
        ImageFolder(folder / "dog")
    (folder / "eel").mkdir()
    with pytest.raises(FileNotFoundError, match="no valid file for the class eel.*png"):
        ImageFolder(folder)
    assert len(ImageFolder(folder, allow_empty=True).classes) == 3


def test_images_that_cannot_be_read(folder, monkeypatch):
    path = folder / "dog" / "b.png"
    whole = path.read_bytes()
    for damaged in (b"", b"no image", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(OSError, match=r"cannot read .*b\.png as an image"):
            ImageFolder(folder)[3]
    path.unlink()
    with pytest.raises(FileNotFoundError):
        load_image(path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install 'kilograd\[data\]'"):
        load_image(folder / "dog" / "a.PNG")


def test_modes_of_images(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    grey = rng.integers(0, 256, (3, 4)).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(load_image(tmp_path / "grey.png").array, np.stack([grey] * 3))
    for mode in ("L", None):
        np.testing.assert_array_equal(load_image(tmp_path / "grey.png", mode).array, grey[None])


def test_sixteen_bits_a_pixel(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    grey = np.array([[0, 255, 256, 40000, 65535]], np.uint16)
    (tmp_path / "16.pgm").write_bytes(b"P5 5 1 65535\n" + grey.astype(">u2").tobytes())
    Image.fromarray(grey).save(tmp_path / "16.png")
    Image.fromarray(grey.astype(np.int32)).save(tmp_path / "16.tif")
    for name in ("16.png", "16.pgm", "16.tif"):
        for mode, channels in (("RGB", 3), ("L", 1)):
            image = load_image(tmp_path / name, mode)
            assert image.dtype == kg.uint8 and tuple(image.shape) == (channels, 1, 5)
            np.testing.assert_array_equal(image.array, [(grey >> 8).astype(np.uint8)] * channels)
        for mode in (None, "I", "F"):
            np.testing.assert_array_equal(load_image(tmp_path / name, mode).array[0], grey)
    Image.fromarray(np.array([[-1, 70000]], np.int32)).save(tmp_path / "32.tif")
    with pytest.raises(OSError, match=r"32\.tif as an image: 32-bit greys.*mode='I'"):
        load_image(tmp_path / "32.tif")
    assert load_image(tmp_path / "32.tif", None).tolist() == [[[-1, 70000]]]


# --- tables -------------------------------------------------------------------------------------

CSV = "a,b,city,y,label\n1,0.5,Rome,3,x\n2,1.5,Oslo,4,z\n3,2.5,Rome,5,x\n"
HOLES = "a,b,city,y,label\n1,,Rome,3,x\n,1.5,,4,z\n3,,Rome,5,\n"


@pytest.fixture(params=["pandas", "polars"])
def engine(request):
    pytest.importorskip(request.param)
    return request.param


@pytest.fixture
def table(tmp_path, engine):
    def table(text, name="t.csv", frame=False, **how):
        path = tmp_path / name
        path.write_text(text)
        if frame:
            return TableDataset(__import__(engine).read_csv(path), **how)
        return TableDataset(path, engine=engine, **how)

    return table


@pytest.mark.parametrize("frame", [False, True])
def test_a_table(table, frame):
    data = table(CSV, frame=frame, target="label", categorical=["city"])
    assert data.features == ["a", "b", "y"] and len(data) == 3
    x, c, y = data[1]
    assert (x.tolist(), x.dtype) == ([2.0, 1.5, 4.0], kg.float32)
    assert (c.tolist(), c.dtype) == ([0], kg.int64)
    assert (y.item(), y.dtype) == (1, kg.int64)
    assert data.classes == ["x", "z"]
    assert data.categories == {"city": ["Oslo", "Rome"], "label": ["x", "z"]}
    (batch,) = DataLoader(data, 3)
    assert [tuple(b.shape) for b in batch] == [(3, 3), (3, 1), (3,)]
    (there,) = DataLoader(data, 3, num_workers=1)
    assert [b.tolist() for b in there] == [b.tolist() for b in batch]


def test_targets_of_each_kind(table):
    def target(name, **how):
        return table(CSV, features="a", target=name, **how)

    data = target("y")
    assert (data[0][1].item(), data[0][1].dtype, data.classes) == (3, kg.int64, [])
    data = target("b", dtype=kg.float64)
    assert (data[1][1].item(), data[1][1].dtype, data[1][0].dtype) == (1.5, kg.float64, kg.float64)
    data = target("y", categorical="y")
    assert [s[1].item() for s in data] == [0, 1, 2] and data.classes == [3, 4, 5]
    data = target(["b", "y"])
    assert (data[1][1].tolist(), data[1][1].dtype) == ([1.5, 4.0], kg.float32)
    assert [len(s) for s in table(CSV, features=["b", "a"])] == [1, 1, 1]
    assert table(CSV, features=["b", "a"])[1][0].tolist() == [1.5, 2.0]


def test_categories_of_another_table(table):
    train = table(CSV, features=["a"], target="label", categorical=["city"])
    test = table(
        "a,city,label\n9,Rome,z\n", features=["a"], target="label", categorical=train.categories
    )
    assert [t.tolist() for t in test[0]] == [[9.0], [1], 1]
    with pytest.raises(
        ValueError, match="'city' has values that are not among its categories: 'Bonn'"
    ):
        table(
            "a,city,label\n9,Bonn,z\n", features=["a"], target="label", categorical=train.categories
        )
    with pytest.raises(ValueError, match="given twice"):
        table(CSV, features=["a"], categorical={"city": ["Rome", "Oslo", "Rome"]})


@pytest.mark.parametrize("column", ["a", "b"])
def test_missing_values_are_an_error_or_filled(table, column):
    with pytest.raises(
        ValueError, match=rf"column '{column}' has \d missing values \(rows .*fill="
    ):
        table(HOLES, features=[column])
    data = table(HOLES, features=["a", "b"], fill={"a": 7, "b": -1})
    assert [s[0].tolist() for s in data] == [[1, -1], [7, 1.5], [3, -1]]
    assert [s[0].tolist() for s in table(HOLES, features=["a", "b"], fill=0)] == [
        [1, 0],
        [0, 1.5],
        [3, 0],
    ]
    data = table(HOLES, features=[], categorical=["city"], target="label", fill="none")
    assert data.categories == {"city": ["Rome", "none"], "label": ["none", "x", "z"]}
    with pytest.raises(ValueError, match="'b' has 2 missing"):
        table(HOLES, features=["a", "b"], fill={"a": 7})
    with pytest.raises(TypeError, match="no order"):
        table(HOLES, features=[], categorical=["city"], fill=0)
    assert table(HOLES, features=["y"])[0][0].tolist() == [3]  # holes elsewhere do not matter


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ({"features": ["nope"]}, KeyError, "no column 'nope'"),
        ({"target": "nope"}, KeyError, "nope"),
        ({"features": ["a"], "fill": {"nope": 1}}, KeyError, "nope"),
        ({"features": ["a"], "categorical": ["nope"]}, KeyError, "nope"),
        ({}, TypeError, "'city' holds .*list it under categorical"),
        ({"features": ["a", "a"]}, ValueError, "more than once"),
        ({"features": ["a"], "target": "a"}, ValueError, "more than once"),
        ({"features": []}, ValueError, "no columns"),
        ({"features": ["a"], "dtype": kg.int64}, TypeError, "floating-point"),
    ],
)  # fmt: skip
def test_columns_are_checked(table, how, error, words):
    with pytest.raises(error, match=words):
        table(CSV, **how)


def test_declared_columns_of_text_files_are_texts(table):
    zips = "zip,y\n01234,1\n1234,2\n01234,3\n"
    data = table(zips, target="y", categorical="zip")
    assert data.categories == {"zip": ["01234", "1234"]}
    assert [s[0].tolist() for s in data] == [[0], [1], [0]]
    assert table(zips, target="zip", categorical=["zip"], features=[]).classes == ["01234", "1234"]
    again = table("zip,y\n1234,1\n", target="y", categorical=data.categories)
    assert again[0][0].tolist() == [1]
    given = table("n,y\n10,1\n9,2\n", target="y", categorical={"n": [10, 9]})
    assert given.categories == {"n": [10, 9]} and [s[0].item() for s in given] == [0, 1]
    with pytest.raises(ValueError, match="not among its categories: '09'"):
        table("n,y\n10,1\n09,2\n", target="y", categorical={"n": [10, 9]})
    many = table("n,y\n10,1\n9,2\n,3\n", target="y", categorical=["n"], fill=0)
    assert many.categories == {"n": [0, 9, 10]}  # integers, in their order
    assert table("n\n1\n1.5\n", categorical=["n"]).categories == {"n": ["1", "1.5"]}


def test_a_column_that_is_not_of_integers_to_its_end(table):
    data = table("a,b\n" + "1,1\n" * 101 + "1.5,2\n")
    assert data[0][0].tolist() == [1, 1] and data[101][0].tolist() == [1.5, 2]


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n1,2\n1,2,3\n", "a,b\n1,é\n".encode("latin-1")],
    ids=["empty", "ragged", "encoding"],
)  # fmt: skip
def test_text_files_that_cannot_be_read(tmp_path, engine, content):
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"{engine} cannot read .*bad\.csv: "):
        TableDataset(tmp_path / "bad.csv", engine=engine)


def test_parquet_files_that_cannot_be_read(tmp_path, engine):
    pytest.importorskip("pyarrow")
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=rf"{engine} cannot read .*bad\.parquet: "):
        TableDataset(tmp_path / "bad.parquet", engine=engine)


def test_names_of_columns_that_are_no_texts():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.arange(6.0).reshape(3, 2))
    assert TableDataset(frame).features == ["0", "1"]
    assert TableDataset(frame)[1][0].tolist() == [2, 3]
    for one in (1, "1", np.int64(1)):
        assert [t.tolist() for t in TableDataset(frame, target=one)[1]] == [[2], 3]
    assert [t.tolist() for t in TableDataset(frame, 0, target=[1])[1]] == [[2], [3]]
    numbered = TableDataset(frame, np.array([0]), categorical={1: [5.0, 3.0, 1.0]})
    assert [t.tolist() for t in numbered[1]] == [[2], [1]]
    holes = pandas.DataFrame({0: [1.0, None]})
    assert TableDataset(holes, fill={0: 7})[1][0].tolist() == [7]
    levels = pandas.MultiIndex.from_tuples([("a", "x"), ("a", "y")])
    frame.columns = levels
    assert TableDataset(frame)[1][0].tolist() == [2, 3]
    assert [t.tolist() for t in TableDataset(frame, target=("a", "y"))[1]] == [[2], 3]
    assert [t.tolist() for t in TableDataset(frame, target=[("a", "y")])[1]] == [[2], [3]]
    with pytest.raises(KeyError, match="no column .*5"):
        TableDataset(frame, target=5)
    with pytest.raises(ValueError, match=r"\['1'\] named more than once"):
        TableDataset(pandas.DataFrame(np.ones((2, 2)), columns=["1", 1]))


def test_formats(tmp_path, engine):
    library = pytest.importorskip(engine)
    (tmp_path / "t.csv").write_text(CSV)
    frame = library.read_csv(tmp_path / "t.csv")
    expected = [s[0].tolist() for s in TableDataset(frame, ["a", "b"])]
    (tmp_path / "t.tsv").write_text(CSV.replace(",", "\t"))
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    names = ["t.csv", "t.tsv", "t.csv.gz"]
    if engine == "polars":
        frame.write_parquet(tmp_path / "t.parquet")
        names.append("t.parquet")
    elif pytest.importorskip("pyarrow"):
        frame.to_parquet(tmp_path / "t.parquet")
        names.append("t.parquet")
    for name in names:
        data = TableDataset(tmp_path / name, ["a", "b"], engine=engine)
        assert [s[0].tolist() for s in data] == expected


def test_dtypes_of_frames(engine):
    library = pytest.importorskip(engine)
    flags = {"flag": [True, False, True], "n": [1, 2, 3]}
    data = TableDataset(library.DataFrame(flags), target="n")
    assert [s[0].tolist() for s in data] == [[1], [0], [1]]
    assert len(TableDataset(library.DataFrame({"n": np.zeros(0)}), ["n"])) == 0
    if engine == "pandas":
        frame = library.DataFrame(
            {
                "n": library.array([1, None, 3], dtype="Int64"),
                "c": library.Categorical(["u", "v", "u"]),
            }
        )
        data = TableDataset(frame, ["n"], categorical=["c"], fill={"n": 2})
        assert [s[0].tolist() for s in data] == [[1], [2], [3]]
        assert [s[1].tolist() for s in data] == [[0], [1], [0]]
    else:
        frame = library.DataFrame({"n": [1, None, 3], "f": [1.0, float("nan"), None]})
        data = TableDataset(frame, fill=2)
        assert [s[0].tolist() for s in data] == [[1, 1], [2, 2], [3, 2]]
        big = library.DataFrame({"c": [2**60 + 1, None]})
        assert TableDataset(big, [], categorical="c", fill=0).categories["c"] == [0, 2**60 + 1]


def test_sources_that_are_none(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        TableDataset(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="xlsx"):
        TableDataset(tmp_path / "t.xlsx")
    path = tmp_path / "t.csv"
    path.write_text(CSV)
    with pytest.raises(ValueError, match="engine"):
        TableDataset(path, engine="abacus")
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ImportError, match=r"pip install 'kilograd\[tables\]'"):
        TableDataset(path)
