"""The DataLoader against PyTorch's: what is collated, gathered, refused, and gone on with."""

from __future__ import annotations

import collections
import multiprocessing
import os
import random

import numpy as np
import pytest

import kilograd as kg
from kilograd.datasets import ArrayDataset
from kilograd.train import Batches, Checkpoint
from kilograd.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    MemmapDataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    TransformedDataset,
    WeightedRandomSampler,
    default_collate,
    default_convert,
    random_split,
    workers,
)
from kilograd.utils.data.transforms import GaussianNoise, ToFloat

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork, threads
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
HOW = [
    pytest.param({}, id="no workers"),
    pytest.param({"num_workers": 2, "multiprocessing_context": "fork"}, id="fork", marks=FORKS),
    pytest.param({"num_workers": 2, "worker_type": "thread"}, id="thread"),
]
Point = collections.namedtuple("Point", "x label")


# --- collating ----------------------------------------------------------------------------------


def plain(batch):
    """A batch of either library, with its classes, dtypes and numbers."""
    if hasattr(batch, "detach"):
        return str(batch.dtype).split(".")[1], batch.tolist()
    if isinstance(batch, dict):
        return type(batch), {k: plain(v) for k, v in batch.items()}
    if isinstance(batch, (list, tuple, collections.deque)):
        return type(batch), [plain(v) for v in batch]
    return batch


class Named(dict):
    """A dict with something beside its items."""

    name = "none"


def named():
    d = Named(a=1)
    d.name = "first"
    return d


COLLATED = {
    "int first": [1, 2.5, 0.25],
    "float first": [1.0, 2, True],
    "ints": [1, 2, -(2**63)],
    "bools": [True, False],
    "bool first": [True, 2],
    "bool first, then float": [True, 2.5],
    "int first, then bool": [1, True],
    "int first, then NumPy's float": [1, np.float64(2.7)],
    "int first, then complex": [1, 1j],
    "NumPy's float first": [np.float64(1.5), 2],
    "NumPy's float32 first": [np.float32(1.5), 2.5],
    "NumPy's ints": [np.int32(1), np.int64(2)],
    "NumPy's of a kind": [np.float16(1), np.float16(2)],
    "NumPy's complex": [np.complex64(1j)],
    "large": [1.0, 2**70],
    "NumPy's texts": [np.str_("a"), np.str_("b")],
    "bytes": [b"a", b"b"],
    "arrays": [np.ones(2, np.float32), np.zeros(2, np.float32)],
    "arrays of two dtypes": [np.ones(2, np.int64), np.ones(2, np.float32)],
    "0-d arrays": [np.array(3.0), np.array(2.0)],
    "array first, then list": [np.ones(2), [1, 2]],
    "empty arrays": [np.zeros((0, 2)), np.zeros((0, 2))],
    "tuples": [(1, 2.0), (3, 4.0)],
    "namedtuples": [Point(1, 2), Point(3, 4)],
    "ordered": [collections.OrderedDict(b=1, a=2.0), collections.OrderedDict(b=3, a=4.0)],
    "defaults": [collections.defaultdict(list, a=1)],
    "subclass": [named(), named()],
    "deques": [collections.deque([1, 2]), collections.deque([3, 4])],
    "ranges": [range(2), range(2)],
    "nested": [{"a": [(1, 2)], "b": "x"}, {"a": [(2, 3)], "b": "y"}],
}  # fmt: skip


@pytest.mark.parametrize("name", COLLATED)
def test_batches_are_pytorchs(name):
    theirs = pytest.importorskip("torch.utils.data").default_collate
    got = default_collate(COLLATED[name])
    assert plain(got) == plain(theirs(COLLATED[name]))
    if name == "subclass":
        assert got.name == "first"


REFUSED = {
    "text after int": ([1, "3"], TypeError, "the first is int, another str"),
    "None after float": ([1.0, None], TypeError, "NoneType"),
    "None after int": ([1, None], (TypeError, RuntimeError), "NoneType"),
    "None after NumPy's": ([np.float64(1), None], (TypeError, RuntimeError), "NoneType"),
    "text after float": ([1.0, "3"], TypeError, "str"),
    "list after int": ([1, [2]], TypeError, "list"),
    "too large": ([1, 2**70], ValueError, "Overflow"),
    "complex": ([1j], TypeError, "complex"),
    "dates": ([np.datetime64(0, "s")], TypeError, "M8"),
    "arrays of dates": ([np.zeros(2, "M8[s]")], TypeError, "M8"),
    "long doubles": ([np.longdouble(1)], TypeError, "longdouble|float128|float96"),
    "arrays of long doubles": ([np.ones(2, np.longdouble)], TypeError, "longdouble|float128|96"),
    "texts in arrays": ([np.array(["a"])], TypeError, "U1"),
    "objects": ([np.array([None])], TypeError, "object|O"),
    "records": ([np.zeros(1, "i4,f4")], TypeError, "f0"),
    "arrays of unequal sizes": ([np.ones(2), np.ones(3)], RuntimeError, "equal size"),
    "lists of unequal sizes": ([[1], [1, 2]], RuntimeError, "equal size"),
    "nothing": ([], IndexError, "no sample in the batch"),
    "None": ([None], TypeError, "NoneType"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_collated_is_refused_as_by_pytorch(name):
    batch, error, words = REFUSED[name]
    with pytest.raises(error, match=words):
        default_collate(batch)
    theirs = pytest.importorskip("torch.utils.data").default_collate
    with pytest.raises(error):
        theirs(batch)


def test_tensors_among_others_are_refused():
    for other in (1.0, np.ones(1), None):
        with pytest.raises(TypeError, match="the first is Tensor, another"):
            default_collate([kg.ones(1), other])


def test_arrays_of_unequal_sizes_hint_at_collate_fn():
    with pytest.raises(RuntimeError, match=r"\(2,\), \(3,\).*collate_fn"):
        default_collate([np.ones(2), np.ones(3)])


def test_arrays_of_the_other_byte_order():
    (x,) = DataLoader([np.ones(2, ">f4"), np.zeros(2, ">f4")], 2)
    assert x.dtype == kg.float32 and x.array.dtype.isnative and x.tolist() == [[1, 1], [0, 0]]
    x = default_convert(np.arange(3, dtype=">i2"))
    assert x.array.dtype.isnative and x.tolist() == [0, 1, 2]


def test_converting_without_batches():
    theirs = pytest.importorskip("torch.utils.data").default_convert
    for data in (
        collections.OrderedDict(a=np.ones(2)), [np.float32(1), "text"], (np.int8(3), 4), Point(np.ones(1), 2),
        np.array(["a"]), np.array([None]), {"a": [np.array(True)]}, np.str_("a"), 5, None,
    ):  # fmt: skip
        assert str(plain(default_convert(data))) == str(plain(theirs(data)))
    for data in (np.datetime64(0, "s"), np.ones(2, np.longdouble)):
        with pytest.raises(TypeError):
            theirs(data)
        with pytest.raises(TypeError, match="is not a dtype"):
            default_convert(data)


def test_what_is_pytorchs_is_named():
    torch = pytest.importorskip("torch")
    for data in (torch.ones(3, 2), torch.utils.data.TensorDataset(torch.ones(3))):
        with pytest.raises(TypeError, match=r"found torch\.Tensor: .*\.numpy\(\).*PyTorch's Data"):
            list(DataLoader(data))

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(range(3))

    with pytest.raises(TypeError, match="PyTorch's IterableDataset"):
        DataLoader(Stream())


# --- gathering ----------------------------------------------------------------------------------


def batches(dataset, size=2, **how):
    return [plain(b) for b in DataLoader(dataset, size, **how)]


def one_by_one(dataset, size=2):
    return batches(dataset, size, collate_fn=lambda samples: default_collate(samples))


class Tenfold(TensorDataset):
    def __getitem__(self, i):
        return (super().__getitem__(i)[0] * 10,)


class Reversed(Subset):
    def __getitem__(self, i):
        return super().__getitem__(len(self) - 1 - i)


class Shifted(TransformedDataset):
    def __getitem__(self, i):
        return super().__getitem__(i)[0] + 1


class Labelled(ArrayDataset):
    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return x, f"class {y}"


class Slower(TensorDataset):
    """It changes nothing, and has a method that happens to be called so."""

    def gather(self, files):
        raise AssertionError("not the loader's business")


class Many(TensorDataset):
    def __getitems__(self, indices):
        return [(self.tensors[0][i] + 0.5,) for i in indices]


def test_a_sample_that_a_subclass_changes_is_changed_in_batches(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(4))

    class Doubled(MemmapDataset):
        def __getitem__(self, i):
            return super().__getitem__(i)[0] * 2

    tens = Tenfold(kg.arange(4))
    assert [b[0].tolist() for b in DataLoader(tens, 2)] == [[0, 10], [20, 30]]
    for data in (
        tens, Subset(tens, [3, 1, 0]), Subset(Subset(tens, [3, 1, 0]), [2, 0]),
        TransformedDataset(tens, ToFloat(scale=False)), Reversed(TensorDataset(kg.arange(4)), [0, 2, 3]),
        Shifted(TensorDataset(kg.arange(4)), ToFloat(scale=False)), Doubled(tmp_path / "x.npy"),
        Labelled(np.eye(4), np.arange(4)), Slower(kg.arange(4)), Subset(Slower(kg.arange(4)), [1]),
        *random_split(tens, [1, 3]),
    ):  # fmt: skip
        assert batches(data) == one_by_one(data)
    assert [b[0].tolist() for b in DataLoader(Many(kg.arange(3)), 2)] == [[0.5, 1.5], [2.5]]


def test_what_can_gather_still_does(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.arange(4))
    tensors = TensorDataset(kg.arange(4))

    class WithName(TensorDataset):
        name = "a subclass that leaves the samples alone"

    for data in (
        tensors, WithName(kg.arange(4)), Subset(tensors, [0, 1, 2, 3]), MemmapDataset(tmp_path / "x.npy"),
        ArrayDataset(np.eye(4), np.arange(4)), TransformedDataset(tensors, ToFloat()),
    ):  # fmt: skip
        assert batches(data) == one_by_one(data)
        with monkeypatch.context() as patched:
            for kind in (TensorDataset, Subset, MemmapDataset, ArrayDataset, TransformedDataset):
                patched.setattr(kind, "__getitem__", None)
            assert len(batches(data)) == 2
            assert len(batches(data, collate_fn=default_collate)) == 2


@pytest.mark.parametrize("wrap", [kg.tensor, np.asarray], ids=["tensor", "array"])
def test_tensors_and_arrays_are_datasets(wrap):
    x = wrap([[0, 1], [2, 3], [4, 5]])
    assert [b.tolist() for b in DataLoader(x, 2)] == [[[0, 1], [2, 3]], [[4, 5]]]
    assert [b.tolist() for b in DataLoader(Subset(x, [2, 0]), 2)] == [[[4, 5], [0, 1]]]
    a, b = random_split(x, [1, 2])
    seen = [row for part in (a, b) for batch in DataLoader(part, 2) for row in batch.tolist()]
    assert sorted(seen) == [[0, 1], [2, 3], [4, 5]]
    (y,) = DataLoader(TransformedDataset(x, ToFloat(scale=False)), 3)
    assert y.tolist() == [[0, 1], [2, 3], [4, 5]] and y.dtype == kg.float32


def test_a_mask_is_no_index():
    data = TensorDataset(kg.arange(3))
    mask = [True, False, True]
    for bad in (mask, tuple(mask), np.array(mask), kg.tensor(mask), [np.bool_(True)], [0, True]):
        with pytest.raises(TypeError, match=r"mask: np\.flatnonzero"):
            Subset(data, bad)
    rows = np.flatnonzero(mask)
    for good in (rows, rows.tolist(), kg.tensor(rows), range(0, 3, 2), [np.int32(0), 2]):
        assert batches(Subset(data, good)) == [(list, [("int64", [0, 2])])]
    assert len(Subset(data, [])) == len(Subset(data, np.zeros(0, int))) == 0
    order = [True, True]  # as PyTorch's: samples, which have a dimension more
    expected = plain(default_collate([data[i] for i in order]))
    assert batches(data, 1, batch_sampler=[order]) == [expected]


def test_batches_without_a_sample():
    with pytest.raises(IndexError, match="no sample in the batch"):
        list(DataLoader(TensorDataset(kg.arange(3)), batch_sampler=[[]]))


# --- what cannot be changed ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers"],
)
def test_attributes_that_are_fixed(name):
    loader = DataLoader(TensorDataset(kg.arange(4)), 2)
    with pytest.raises(ValueError, match=f"{name} attribute should not be set after DataLoader is"):
        setattr(loader, name, 5)
    theirs = pytest.importorskip("torch.utils.data").DataLoader([1, 2])
    with pytest.raises(ValueError, match=f"{name} attribute should not be set after DataLoader is"):
        setattr(theirs, name, 5)


def test_attributes_that_are_not():
    class Early(DataLoader):
        def __init__(self, dataset):
            self.dataset = None  # before there is a loader
            super().__init__(dataset, 2)
            self.note = 1

    loader = Early(TensorDataset(kg.arange(3)))
    loader.collate_fn = len
    assert list(loader) == [2, 1]


@pytest.mark.parametrize(
    "make",
    [
        lambda g: DataLoader(range(3), generator=g),
        lambda g: DataLoader(range(3), shuffle=True, generator=g),
        lambda g: RandomSampler(range(3), generator=g),
        lambda g: SubsetRandomSampler([1, 2], g),
        lambda g: WeightedRandomSampler([1.0], 2, generator=g),
        lambda g: random_split(range(3), [1, 2], g),
        lambda g: GaussianNoise(generator=g),
    ],
)
def test_generators_of_other_libraries_are_refused(make):
    torch = pytest.importorskip("torch")
    others = (torch.Generator(), np.random.default_rng(), random.Random(), 3)
    for other in others:
        kind = type(other)
        with pytest.raises(TypeError, match=rf"kilograd\.Generator, got {kind.__module__}.*seed"):
            make(other)
    make(None), make(kg.Generator())


@pytest.mark.parametrize("replacement", [2, None, "yes"])
def test_replacement_is_a_bool(replacement):
    with pytest.raises(ValueError, match="replacement should be a boolean value, but got"):
        WeightedRandomSampler([1.0, 2.0], 2, replacement)


# --- going on after an error --------------------------------------------------------------------


class Faulty(Dataset):
    """Some samples cannot be loaded."""

    def __init__(self, n=10, bad=(2, 9)):
        self.n, self.bad = n, bad

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i in self.bad:
            raise ValueError(f"sample {i} is damaged")
        return i


def outcomes(it):
    """What each call of next gives: a batch or the type of an error."""
    seen = []
    while True:
        try:
            seen.append(next(it).tolist())
        except StopIteration:
            return seen
        except Exception as error:
            seen.append(type(error))
        assert len(seen) < 100


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("persistent", [False, True])
def test_the_next_batch_comes_after_an_error(how, persistent):
    if persistent and not how:
        pytest.skip("no workers to keep")
    loader = DataLoader(Faulty(), 2, **how, **({"persistent_workers": True} if persistent else {}))
    theirs = pytest.importorskip("torch.utils.data").DataLoader(Faulty(), 2)
    expected = outcomes(iter(theirs))
    assert expected == [[0, 1], ValueError, [4, 5], [6, 7], ValueError]
    for _ in range(2):
        it = iter(loader)
        assert outcomes(it) == expected
        with pytest.raises(StopIteration):  # it stays over
            next(it)


class Reader:
    """A stream with a state of its own, that goes on after what it raises."""

    def __init__(self):
        self.i = -1

    def __iter__(self):
        return self

    def __next__(self):
        self.i += 1
        if self.i == 3:
            raise ValueError("a line that is damaged")
        if self.i == 8:
            self.i = -1  # it would begin anew
            raise StopIteration
        return self.i


@pytest.mark.parametrize("size", [None, 1, 2, 3, 7])
@pytest.mark.parametrize("collates", [True, False])
def test_a_stream_goes_on_after_an_error_as_in_pytorch(size, collates):
    torch = pytest.importorskip("torch")

    def collate(samples):
        if 5 in np.atleast_1d(samples) and not collates:
            raise KeyError("five")
        return np.asarray(samples)

    def loader(library):
        class Stream(library.IterableDataset):
            def __iter__(self):
                return Reader()

        return library.DataLoader(Stream(), size, collate_fn=collate)

    assert outcomes(iter(loader(kg.utils.data))) == outcomes(iter(loader(torch.utils.data)))


@pytest.mark.parametrize("how", HOW)
def test_an_error_does_not_hide_the_end_of_a_stream(how):
    class Short(IterableDataset):
        def __iter__(self):
            yield 1
            raise ValueError("cut")

    n = how.get("num_workers", 1)
    assert outcomes(iter(DataLoader(Short(), **how))) == [[1]] * n + [ValueError] * n

    class Never(IterableDataset):
        def __iter__(self):
            raise OSError("no such stream")

    assert outcomes(iter(DataLoader(Never(), **how))) == [OSError] * n

    def fails(worker):
        raise OSError("no such camera")

    if how:
        assert outcomes(iter(DataLoader(Short(), worker_init_fn=fails, **how))) == [OSError] * n


@pytest.mark.parametrize("how", HOW)
def test_stop_iteration_from_loading_is_an_error(how):
    def stops(samples):
        raise StopIteration("early")

    with pytest.raises(RuntimeError, match="StopIteration"):
        next(iter(DataLoader(range(3), collate_fn=stops, **how)))


def test_batches_go_on_after_an_error_where_their_loader_does():
    class Odd(DataLoader):  # an iteration of its own, as of another library's loader
        def __iter__(self):
            return map(self.dataset.__getitem__, range(len(self.dataset)))

        def __len__(self):
            return len(self.dataset)

    for loader, expected in (
        (DataLoader(Faulty(), 2), [[0, 1], ValueError, [4, 5], [6, 7], ValueError]),
        (Odd(TensorDataset(kg.arange(4))), None),
        (Odd(Faulty(4)), [0, 1, ValueError, 3]),
    ):
        batches = Batches(loader)
        it = iter(batches)
        seen = []
        for _ in range(9):
            try:
                seen.append(np.asarray(next(it)).tolist())
            except StopIteration:
                continue  # it stays over, and counts once
            except ValueError as error:
                seen.append(type(error))
        assert (batches.epoch, batches.position) == (1, 0)
        assert seen == (expected or [[0], [1], [2], [3]])


def test_a_sampler_that_fails_ends_the_iteration():
    def order():
        yield 0
        raise ValueError("no more")

    class Failing(Sampler):
        def __iter__(self):
            return order()

    assert outcomes(iter(DataLoader(range(3), 1, sampler=Failing()))) == [[0], ValueError]


@pytest.mark.parametrize("how", HOW)
def test_a_batch_that_failed_counts_once_it_was_passed_over(how):
    loader = DataLoader(Faulty(bad=(3,)), 2, **how)
    it = iter(loader)
    assert next(it).tolist() == [0, 1]
    with pytest.raises(ValueError, match="sample 3"):
        next(it)
    before = loader.state_dict()
    assert next(it).tolist() == [4, 5]
    after = loader.state_dict()
    assert (before["batches"], after["batches"]) == (1, 3)
    for state, rest in ((before, [[2, 3], [4, 5], [6, 7], [8, 9]]), (after, [[6, 7], [8, 9]])):
        mended = DataLoader(Faulty(bad=()), 2, **how)
        mended.load_state_dict(state)
        assert outcomes(iter(mended)) == rest
    it.close()
    assert loader.state_dict()["batches"] == 3
    assert outcomes(it) == []
    assert loader.state_dict()["batches"] == 3  # it was left, not finished


# --- processes ----------------------------------------------------------------------------------


@FORKS
@pytest.mark.parametrize("how", HOW[1:])
def test_a_forked_process_has_workers_of_its_own(how):
    loader = DataLoader(range(6), 2, persistent_workers=True, **how)
    expected = [[0, 1], [2, 3], [4, 5]]
    assert [b.tolist() for b in loader] == expected
    begun = iter(loader)
    next(begun)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def child():
        try:
            next(begun)
        except RuntimeError as error:
            theirs.send(str(error))
        theirs.send([b.tolist() for b in loader])
        loader._pool.close()

    process = context.Process(target=child)
    process.start()
    assert ours.poll(60) and "another process" in ours.recv()
    assert ours.poll(60) and ours.recv() == expected
    process.join(60)
    assert process.exitcode == 0
    assert [b.tolist() for b in begun] == expected[1:]
    assert [b.tolist() for b in loader] == expected
    loader._pool.close()
    assert [b.tolist() for b in loader] == expected  # new ones


@FORKS
def test_pytorchs_numbers_differ_between_workers_and_epochs():
    torch = pytest.importorskip("torch")

    class Draws(Faulty):
        def __getitem__(self, i):
            return torch.rand(()).item(), torch.get_num_threads()

    kg.manual_seed(3)
    loader = DataLoader(Draws(6), 1, num_workers=2, multiprocessing_context="fork")
    seen = [tuple(v.item() for v in batch) for _ in range(2) for batch in loader]
    assert len({x for x, _ in seen}) == 12 and {n for _, n in seen} == {1}
    kg.manual_seed(3)
    assert [tuple(v.item() for v in batch) for _ in range(2) for batch in loader] == seen


# --- where an epoch stands ----------------------------------------------------------------------


class Permutes(Sampler):
    """A sampler of the user's own, with a generator that is not called generator."""

    def __init__(self, rng):
        self.rng = rng

    def __len__(self):
        return 12

    def __iter__(self):
        if isinstance(self.rng, random.Random):
            yield from self.rng.sample(range(12), 12)
        else:
            yield from self.rng.permutation(12).tolist()


class Counts(Sampler):
    """A sampler whose order follows from a number that only it knows."""

    def __init__(self):
        self.epoch = 0

    def __len__(self):
        return 12

    def __iter__(self):
        self.epoch += 1
        yield from np.random.default_rng(self.epoch).permutation(12).tolist()

    def state_dict(self):
        return vars(self)

    def load_state_dict(self, state):
        self.epoch = state["epoch"]


SAMPLERS = {
    "NumPy's": lambda: Permutes(np.random.default_rng(4)),
    "NumPy's older": lambda: Permutes(np.random.RandomState(4)),
    "Python's": lambda: Permutes(random.Random(4)),
    "a state": Counts,
}
PLACES = {
    "sampler": lambda s: {"sampler": s, "batch_size": 2},
    "no batches": lambda s: {"sampler": s, "batch_size": None},
    "batch_sampler": lambda s: {"batch_sampler": BatchSampler(s, 2, False)},
}


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", [HOW[0], HOW[2]])
def test_samplers_with_a_state_go_on_where_they_were(kind, place, how, tmp_path):
    def loader():
        return DataLoader(range(12), **PLACES[place](SAMPLERS[kind]()), **how)

    def epochs(batches, n, seen):
        while batches.epoch < n:
            for batch in batches:
                seen.append(np.asarray(batch).tolist())
        return seen

    whole = epochs(Batches(loader()), 3, [])
    per_epoch = len(whole) // 3
    for stop in (1, per_epoch, per_epoch + 2):
        first = Batches(loader())
        seen = []
        while len(seen) < stop:
            for batch in first:
                seen.append(np.asarray(batch).tolist())
                if len(seen) == stop:
                    break
        Checkpoint(batches=first).save(tmp_path / "c.kg")
        second = Batches(loader())
        Checkpoint(batches=second).load(tmp_path / "c.kg")
        assert epochs(second, 3, seen) == whole


def test_global_generators_and_those_without_a_state_are_not_the_loaders_own():
    for rng in (np.random.mtrand._rand, random._inst, random.SystemRandom()):
        loader = DataLoader(range(12), 2, sampler=Permutes(rng))
        assert loader.state_dict()["own"] == {}
    state = DataLoader(range(12), sampler=Permutes(np.random.default_rng(1))).state_dict()
    assert list(state["own"]) == ["sampler.rng", "batch_sampler.sampler.rng"]


def test_no_place_where_the_order_is_not_known():
    def loader(**how):
        return DataLoader(range(8), 1, num_workers=2, worker_type="thread", **how)

    first = loader(in_order=False)
    it = iter(first)
    assert first.state_dict()["batches"] == 0
    next(it)
    with pytest.raises(RuntimeError, match="in_order=True"):
        first.state_dict()
    list(it)
    assert first.state_dict()["batches"] == 0
    known = loader()
    it = iter(known)
    next(it)
    first.load_state_dict(known.state_dict())
    assert first.state_dict()["batches"] == 1  # nothing has come out of turn yet
    assert sorted(b.item() for b in first) == list(range(1, 8))


@pytest.mark.parametrize(
    ("options", "n", "words"),
    [
        ({"batch_size": 4}, 32, "batch_size 8; the loader now has 4"),
        ({}, 24, "batches 4; the loader now has 3"),
        ({}, 31, "samples 32; the loader now has 31"),
    ],
)
def test_a_place_among_other_batches_is_refused(options, n, words):
    def loader(n=32, **options):
        return DataLoader(range(n), **{"batch_size": 8, "shuffle": True, **options})

    first = loader()
    it = iter(first)
    next(it), next(it)
    other = loader(n, **options)
    with pytest.raises(ValueError, match=words):
        other.load_state_dict(first.state_dict())
    list(it)
    other.load_state_dict(first.state_dict())  # between epochs it does not matter


def test_a_stream_of_other_workers_and_a_sampler_of_other_samples_are_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(range(9))

    first = DataLoader(Stream(), 2)
    next(iter(first))
    DataLoader(Stream(), 2, num_workers=1).load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match="workers 1; the loader now has 2"):
        DataLoader(Stream(), 2, num_workers=2).load_state_dict(first.state_dict())
    sampler = RandomSampler(range(9))
    next(iter(sampler))
    with pytest.raises(ValueError, match="samples 9"):
        RandomSampler(range(8)).load_state_dict(sampler.state_dict())


def test_a_loader_without_a_length_has_no_sizes_to_compare():
    class Endless(Sampler):
        def __iter__(self):
            return iter(range(4))

    loader = DataLoader(range(4), 2, sampler=Endless())
    next(iter(loader))
    assert loader.state_dict()["sizes"] == {"batch_size": 2, "samples": 4}


def test_workers_stay_after_an_error_and_end_with_the_iteration():
    loader = DataLoader(Faulty(bad=(0,)), 2, num_workers=2, worker_type="thread")
    it = iter(loader)
    with pytest.raises(ValueError, match="sample 0"):
        next(it)
    pool = it._tasks.gi_frame.f_locals["pool"]
    assert isinstance(pool, workers.Threads) and pool.alive
    it.close()
    assert not pool.alive
