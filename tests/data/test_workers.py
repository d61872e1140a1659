"""Workers of a DataLoader: the same batches, their errors, and what they leave behind: nothing."""

from __future__ import annotations

import collections
import contextlib
import copy
import gc
import glob
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from multiprocessing import resource_tracker
from pathlib import Path

import numpy as np
import pytest

import kilograd as kg
from kilograd.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
    workers,
)

ROOT = Path(__file__).parents[2]
FORKS = "fork" in multiprocessing.get_all_start_methods()
pytestmark = [
    pytest.mark.skipif(not FORKS, reason="the tests' datasets are made for fork"),
    pytest.mark.filterwarnings(
        "ignore:This process:DeprecationWarning"
    ),  # it has threads: Python 3.12
]
FORK = {"num_workers": 2, "multiprocessing_context": "fork"}
THREAD = {"num_workers": 2, "worker_type": "thread"}
SPAWN = {"num_workers": 2, "multiprocessing_context": "spawn"}
KINDS = [pytest.param(FORK, id="fork"), pytest.param(THREAD, id="thread")]
Point = collections.namedtuple("Point", "x label")


class Squares(Dataset):
    """Samples of a shape, through ``__getitem__`` alone."""

    def __init__(self, n=23, shape=(3,)):
        self.n, self.shape = n, shape

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return np.full(self.shape, i, np.float32), i * i


class Does(Dataset):
    """A dataset that does something on the way."""

    def __init__(self, f, n=12):
        self.f, self.n = f, n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return self.f(i)


class Stream(IterableDataset):
    def __init__(self, n, share=True):
        self.n, self.share = n, share

    def __iter__(self):
        info = get_worker_info()
        if info is None or not self.share:
            return iter(range(self.n))
        return iter(range(info.id, self.n, info.num_workers))


def lists(batch):
    """A batch with its types and numbers."""
    if isinstance(batch, kg.Tensor):
        return str(batch.dtype), batch.tolist()
    if isinstance(batch, dict):
        return {k: lists(v) for k, v in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch).__name__, [lists(v) for v in batch]
    return batch


def epoch(loader):
    return [lists(b) for b in loader]


def resources():
    """Child processes, threads, descriptors and files in memory that are ours."""
    children = sorted(p.pid for p in multiprocessing.active_children())
    names = sorted(t.name for t in threading.enumerate() if "DataLoader" in t.name)
    fds = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    return children, names, fds, folders(os.getpid())


def folders(pid):
    where = workers._memory() or tempfile.gettempdir()
    return glob.glob(os.path.join(where, f"kilograd-batches-{pid}-*"))


@pytest.fixture(autouse=True)
def leaves_nothing_behind():
    resource_tracker.ensure_running()  # Python's own, which spawn starts and which stays
    before = resources()
    yield
    if resources() != before:
        gc.collect()  # a caught exception may hold on to its frames
    assert resources() == before


# --- the same batches ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", [*KINDS, pytest.param(SPAWN, id="spawn")])
def test_the_batches_are_those_of_no_workers(how):
    def two_epochs(**how):
        kg.manual_seed(5)
        loader = DataLoader(Squares(), 4, shuffle=True, **how)
        return epoch(loader), epoch(loader), kg.rand(2).tolist()

    assert two_epochs(**how) == two_epochs()


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("how", KINDS)
def test_any_number_of_workers_and_of_batches_ahead(how, n):
    for prefetch in (1, 7):
        loader = DataLoader(
            Squares(10), 3, **{**how, "num_workers": n, "prefetch_factor": prefetch}
        )
        assert epoch(loader) == epoch(DataLoader(Squares(10), 3))


@pytest.mark.parametrize("how", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 4, "drop_last": True},
        {"batch_size": None},
        {"batch_sampler": [[3, 1], [2]]},
        {"batch_size": 2, "sampler": [5, 4, 3]},
        {"batch_size": 100},
        {"batch_size": 2, "collate_fn": lambda samples: [s[1] for s in samples]},
    ],
    ids=lambda options: "-".join(options),
)
def test_every_way_of_batching(how, options):
    loader = DataLoader(Squares(), **options, **how)
    assert epoch(loader) == epoch(DataLoader(Squares(), **options))


@pytest.mark.parametrize("how", KINDS)
def test_empty_and_gathering_datasets(how):
    assert epoch(DataLoader(Squares(0), 2, **how)) == []
    data = TensorDataset(kg.arange(7), kg.rand(7, 2))
    assert epoch(DataLoader(data, 3, **how)) == epoch(DataLoader(data, 3))


@pytest.mark.parametrize("how", KINDS)
def test_nests_of_every_kind_arrive(how):
    def sample(i):
        return {
            "point": Point(np.full(2, i), i),
            "text": "abc"[i % 3],
            "pair": (float(i), [i, np.bool_(i % 2)]),
            "tensor": kg.full((2, 2), i),
        }

    assert epoch(DataLoader(Does(sample), 5, **how)) == epoch(DataLoader(Does(sample), 5))


@pytest.mark.parametrize("inline", [0, workers.INLINE])
@pytest.mark.parametrize("full", [False, True])
def test_large_and_small_arrays_by_file_and_by_pipe(monkeypatch, inline, full):
    monkeypatch.setattr(workers, "INLINE", inline)
    if full:  # no room in that memory: the pipe carries them

        def no_room(name, mode="r", *rest, **how):
            if "x" in mode:
                raise OSError(28, "No space left on device")
            return open(name, mode, *rest, **how)

        monkeypatch.setattr(workers, "open", no_room, raising=False)
    data = Squares(6, (3, 70, 71))
    loader = DataLoader(data, 3, **FORK)
    for (x, y), (x0, y0) in zip(loader, DataLoader(data, 3), strict=True):
        np.testing.assert_array_equal(x.array, x0.array)
        assert y.tolist() == y0.tolist()
        assert x.array.flags.writeable
        x.array += 1  # memory of its own
        assert y.array.base is None or y.array.nbytes == memoryview(y.array.base).nbytes


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((0, 3), np.float32), np.asfortranarray(np.arange(60_000.0).reshape(200, 300)),
        np.arange(100_000)[::2], np.array(3.0), np.array([np.nan, -0.0]), np.zeros(3, ">i4"),
    ],
    ids=["empty", "fortran", "strided", "0-d", "nan", "other byte order"],
)  # fmt: skip
def test_arrays_that_are_special(value):
    (got,) = DataLoader(Does(lambda i: value, 1), None, **{**FORK, "collate_fn": lambda x: x})
    np.testing.assert_array_equal(got, value)
    assert got.dtype == value.dtype


@pytest.mark.parametrize("how", KINDS)
def test_out_of_order_gives_what_is_there_first(how):
    first_is_there = multiprocessing.get_context("fork").Event()

    def slow_at_first(i):
        if i == 0:
            first_is_there.wait(60)
        return i

    it = iter(DataLoader(Does(slow_at_first, 6), 1, in_order=False, **how))
    seen = [next(it).item()]
    first_is_there.set()
    seen += [b.item() for b in it]
    assert seen[0] == 1
    assert sorted(seen) == list(range(6))


# --- streams ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", KINDS)
@pytest.mark.parametrize("n", [0, 1, 7, 12])
def test_workers_share_a_stream(how, n):
    batches = [b.tolist() for b in DataLoader(Stream(n), 2, **how)]
    even, odd = list(range(0, n, 2)), list(range(1, n, 2))
    cut = [[part[i : i + 2] for i in range(0, len(part), 2)] for part in (even, odd)]
    expected = [b for turn in range(n) for part in cut for b in part[turn : turn + 1]]
    assert batches == expected
    doubled = [b.tolist() for b in DataLoader(Stream(n, share=False), 2, **how)]
    assert sorted(v for b in doubled for v in b) == sorted([*range(n), *range(n)])


def test_worker_info():
    assert get_worker_info() is None

    def info(i):
        w = get_worker_info()
        return w.id, w.num_workers, w.seed, len(w.dataset)

    for how in (FORK, THREAD):
        kg.manual_seed(3)
        seen = [tuple(s) for s in DataLoader(Does(info), None, **how)]
        assert {s[0] for s in seen} == {0, 1}
        assert {s[1] for s in seen} == {2}
        assert {s[2] - s[0] for s in seen} == {seen[0][2]}  # base seed + id
        assert {s[3] for s in seen} == {12}


def test_seeds_are_base_seed_plus_worker_as_in_pytorch():
    torch = pytest.importorskip("torch")
    kg.manual_seed(11)
    torch.manual_seed(11)
    base = int(torch.empty((), dtype=torch.int64).random_().item())

    def drawn(i):
        return get_worker_info().seed, kg.rand(1).item(), random.random(), np.random.rand()

    first = [tuple(s) for s in DataLoader(Does(drawn, 2), None, **FORK)]
    for worker, (seed, ours, pythons, numpys) in enumerate(first):
        assert seed == base + worker
        kg.manual_seed(seed)
        assert kg.rand(1).item() == ours
        assert random.Random(seed).random() == pythons
        assert np.random.RandomState(seed % 2**32).rand() == numpys
    kg.manual_seed(11)
    assert [tuple(s) for s in DataLoader(Does(drawn, 2), None, **FORK)] == first


@pytest.mark.parametrize("how", KINDS)
def test_worker_init_fn(how):
    started = {}

    def init(worker):
        started[worker] = get_worker_info().id

    data = Does(lambda i: started[get_worker_info().id])
    assert sorted({b.item() for b in DataLoader(data, 1, worker_init_fn=init, **how)}) == [0, 1]

    def fails(worker):
        raise OSError("no such camera")

    with pytest.raises(OSError, match="no such camera"):
        list(DataLoader(Squares(), worker_init_fn=fails, **how))


# --- errors -------------------------------------------------------------------------------------


class Strange(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} {b}")


@pytest.mark.parametrize("how", KINDS)
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("odd one"), ValueError), (KeyError("odd one"), KeyError),
        (Strange("odd", "one"), Strange), (OSError(2, "odd one"), OSError),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "odd one"), RuntimeError),
        (SystemExit("odd one"), SystemExit),
    ],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_an_error_arrives_with_its_type_and_traceback(how, error, kind):
    def some_function(i):
        if i == 5:
            raise error
        return i

    seen = []
    with pytest.raises(kind) as caught:
        for batch in DataLoader(Does(some_function), 2, **how):
            seen.append(batch.tolist())
    assert seen == [[0, 1], [2, 3]]  # those before it arrive
    message = str(caught.value)
    assert "odd one" in message and "in some_function\n" in message
    assert "worker process 0" in message or "worker thread 0" in message


@pytest.mark.parametrize("how", KINDS)
def test_errors_in_streams_and_collate_fn_and_stop_iteration(how):
    class Broken(IterableDataset):
        def __iter__(self):
            yield 1
            raise ValueError("the line was cut")

    with pytest.raises(ValueError, match="the line was cut"):
        list(DataLoader(Broken(), **how))

    def collate(samples):
        raise TypeError("cannot batch")

    with pytest.raises(TypeError, match="cannot batch"):
        list(DataLoader(Squares(), collate_fn=collate, **how))

    def stops(i):
        raise StopIteration("early")

    with pytest.raises(RuntimeError):  # not a silent end
        list(DataLoader(Does(stops), **how))
    with pytest.raises(RuntimeError):
        list(DataLoader(Does(stops)))


def test_what_cannot_be_pickled_is_an_error_too():
    with pytest.raises((AttributeError, pickle.PicklingError), match="worker process 0") as caught:
        list(DataLoader(Does(lambda i: lambda: i), None, collate_fn=lambda x: x, **FORK))
    assert "pickle" in str(caught.value)


@pytest.mark.parametrize("part", ["dataset", "collate_fn", "worker_init_fn"])
def test_spawn_says_what_cannot_travel(part):
    data = Does(lambda i: i) if part == "dataset" else Squares()
    how = {} if part == "dataset" else {part: lambda x: x}
    with pytest.raises(TypeError, match=f"the {part} cannot be sent to a process .*'spawn'"):
        list(DataLoader(data, **how, **SPAWN))


@pytest.mark.parametrize("how", [signal.SIGUSR1, 9, "exit", 0])
@pytest.mark.parametrize("persistent", [False, True])
def test_a_worker_that_dies_is_reported(how, persistent):
    parent = os.getpid()

    def dies(i):
        if i == 6 and os.getpid() != parent:
            if how == "exit" or how == 0:
                os._exit(3 if how == "exit" else 0)
            os.kill(os.getpid(), how)
            time.sleep(60)
        return i

    loader = DataLoader(Does(dies), 2, persistent_workers=persistent, **FORK)
    begun = time.monotonic()
    words = (
        "exit code 3"
        if how == "exit"
        else "exit code 0"
        if how == 0
        else rf"signal {int(how)} \(SIG"
    )
    with pytest.raises(RuntimeError, match=rf"DataLoader worker 1 \(process \d+\) .*{words}"):
        list(loader)
    assert time.monotonic() - begun < 30
    with pytest.raises(RuntimeError):  # with new workers
        list(loader)


def test_a_worker_that_is_killed_while_idle_is_reported():
    it = iter(DataLoader(Squares(100), 1, **FORK))
    next(it)
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"SIGKILL"):
        list(it)


@pytest.mark.parametrize("how", KINDS)
def test_timeout(how):
    release = threading.Event()

    def hangs(i):
        if i:
            release.wait(60)  # in a process nobody will set it
        return i

    it = iter(DataLoader(Does(hangs), 1, timeout=3, **how))
    assert next(it).item() == 0
    begun = time.monotonic()
    with pytest.raises(RuntimeError, match="timed out after 3 seconds"):
        next(it)
    assert time.monotonic() - begun < 20
    release.set()
    for thread in threading.enumerate():
        if "DataLoader" in thread.name:
            thread.join(10)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"num_workers": -1}, ValueError, "non-negative"),
        ({"num_workers": 1, "prefetch_factor": 0}, ValueError, "prefetch_factor"),
        ({"prefetch_factor": 2}, ValueError, "prefetch_factor"),
        ({"persistent_workers": True}, ValueError, "persistent_workers"),
        ({"num_workers": 1, "timeout": -1}, ValueError, "timeout"),
        ({"num_workers": 1, "worker_type": "fiber"}, ValueError, "worker_type"),
        ({"multiprocessing_context": "fork"}, ValueError, "multiprocessing_context"),
        ({**THREAD, "multiprocessing_context": "fork"}, ValueError, "multiprocessing_context"),
        ({"num_workers": 1, "multiprocessing_context": "knife"}, ValueError, "start method"),
        ({"num_workers": 1, "multiprocessing_context": 3}, TypeError, "context object"),
    ],
)
def test_arguments_are_checked(options, error, words):
    with pytest.raises(error, match=words):
        DataLoader(Squares(), **options)


def test_a_loader_can_be_copied():
    loader = DataLoader(Squares(), 5, persistent_workers=True, **FORK)
    first = epoch(loader)
    again = pickle.loads(pickle.dumps(loader))
    assert epoch(again) == epoch(copy.deepcopy(loader)) == first
    assert again._pool is not loader._pool


def test_a_context_object_will_do():
    context = multiprocessing.get_context("fork")
    loader = DataLoader(Squares(), 5, num_workers=1, multiprocessing_context=context)
    assert epoch(loader) == epoch(DataLoader(Squares(), 5))


# --- beginning and ending -----------------------------------------------------------------------


@pytest.mark.parametrize("how", KINDS)
def test_leaving_a_loop_ends_the_workers(how):
    loader = DataLoader(Squares(), 2, shuffle=True, **how)
    for _ in loader:
        break
    assert multiprocessing.active_children() == []
    assert not [t for t in threading.enumerate() if "DataLoader" in t.name]
    with contextlib.suppress(ZeroDivisionError):
        for _ in loader:
            1 / 0
    seen = sorted(v for _, y in loader for v in y.tolist())
    assert seen == [i * i for i in range(23)]


@pytest.mark.parametrize("how", KINDS)
def test_two_loops_at_once(how):
    loader = DataLoader(Squares(10), 3, **how)
    pairs = list(zip(loader, loader, strict=True))
    assert [lists(a) for a, _ in pairs] == [lists(b) for _, b in pairs] == epoch(loader)


@pytest.mark.parametrize("how", KINDS)
def test_no_more_is_loaded_ahead_than_was_asked_for(tmp_path, how):
    def counts(i):
        (tmp_path / str(i)).touch()
        return i

    it = iter(DataLoader(Does(counts, 100), 1, prefetch_factor=3, **how))
    next(it)
    deadline = time.monotonic() + 20
    while len(list(tmp_path.iterdir())) < 7 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(list(tmp_path.iterdir())) == 1 + 2 * 3
    it.close()


@pytest.mark.parametrize("how", KINDS)
def test_persistent_workers(how):
    def who(i):
        return os.getpid(), threading.get_ident() % 2**31, i

    loader = DataLoader(Does(who, 9), None, persistent_workers=True, **how)

    def ids():
        return {tuple(s[:2]) for s in loader}

    first = ids()
    assert len(first) == 2
    assert ids() == first
    for _ in loader:  # leave it, with batches under way
        break
    assert [s[2] for s in loader] == list(range(9))
    assert ids() == first
    old = iter(loader)
    next(old)
    assert [s[2] for s in loader] == list(range(9))
    with pytest.raises(RuntimeError, match="newer iteration"):
        list(old)
    assert ids() == first
    streams = DataLoader(Stream(9), 2, persistent_workers=True, **how)
    assert epoch(streams) == epoch(streams) != []


def test_large_batches_left_behind_by_persistent_workers_are_removed():
    loader = DataLoader(Squares(8, (3, 100, 100)), 2, persistent_workers=True, **FORK)
    for _ in range(3):
        for _ in loader:
            break
    assert len(epoch(loader)) == 4
    assert os.listdir(loader._pool._folder) == []


SCRIPT = """
    import multiprocessing, os, signal, sys, time
    import numpy as np
    from kilograd.utils.data import DataLoader, Dataset

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

    class Slow(Dataset):
        def __len__(self):
            return 1000
        def __getitem__(self, i):
            time.sleep(0.01)
            return np.zeros(50_000, np.float32)

    loader = DataLoader(Slow(), 1, num_workers=2, multiprocessing_context="fork", persistent_workers={persistent})
    it = iter(loader)
    next(it), next(it)  # both workers have begun
    print(*[p.pid for p in multiprocessing.active_children()], flush=True)
    {then}
"""


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at /proc")
@pytest.mark.parametrize(
    ("then", "end", "persistent"),
    [
        ("pass", None, False),
        ("pass", None, True),
        ("sys.exit(4)", None, True),
        ("list(it)", signal.SIGINT, False),
        ("list(it)", signal.SIGKILL, False),
        ("list(it)", signal.SIGTERM, True),
    ],
)
def test_workers_end_with_the_program(then, end, persistent, tmp_path):
    code = textwrap.dedent(SCRIPT).format(then=then, persistent=persistent)
    run = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=ROOT, start_new_session=True,
    )  # fmt: skip
    line = run.stdout.readline()
    pids = [int(p) for p in line.split()]
    assert len(pids) == 2
    if end == signal.SIGINT:
        os.killpg(run.pid, end)  # as a terminal does: to the workers as well
    elif end is not None:
        run.send_signal(end)
    _, errors = run.communicate(timeout=60)
    deadline = time.monotonic() + 20
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, pids))
    assert folders(run.pid) == []
    if end == signal.SIGINT:
        assert errors.count("KeyboardInterrupt") == 1, errors  # the workers say nothing
    elif end is None:
        assert errors == "" and run.returncode == (4 if "exit" in then else 0)


def test_importing_the_library_does_not_import_multiprocessing():
    code = "import sys, kilograd.utils.data; assert 'multiprocessing' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


# --- where an epoch stands ----------------------------------------------------------------------


def seeded(seed):
    return kg.Generator().manual_seed(seed)


ORDERS = {
    "shuffle": lambda: {"shuffle": True},
    "own generator": lambda: {"shuffle": True, "generator": seeded(3)},
    "sampler's generator": lambda: {"sampler": RandomSampler(range(23), generator=seeded(4))},
    "replacement": lambda: {"sampler": RandomSampler(range(23), True, 100, seeded(5))},
    "weights": lambda: {"sampler": WeightedRandomSampler([1.0] * 23, 30)},
    "in order": dict,
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("how", [{}, THREAD], ids=["no workers", "threads"])
@pytest.mark.parametrize("k", [0, 1, 3, 6])
def test_an_epoch_goes_on_where_it_was(order, how, k):
    def loader(data=None):
        return DataLoader(data or Squares(), 4, **ORDERS[order](), **how)

    kg.manual_seed(1)
    whole = loader()
    epoch(whole)
    state, rng = whole.state_dict(), kg.get_rng_state()
    it = iter(whole)
    for _ in range(k):
        next(it)
    if k:
        state, rng = whole.state_dict(), kg.get_rng_state()
    rest = [lists(b) for b in it]
    assert state["batches"] == k
    after = kg.rand(1).item()
    following = epoch(whole)

    kg.manual_seed(99)
    loaded = []
    counting = Does(lambda i: loaded.append(i) or Squares()[i], 23)
    resumed = loader(counting)
    resumed.load_state_dict(state)
    assert resumed.state_dict()["batches"] == k  # not lost before it is used
    kg.set_rng_state(rng)
    assert epoch(resumed) == rest
    assert len(loaded) == sum(len(b[1][1][1]) for b in rest)  # what was skipped was not loaded
    assert kg.rand(1).item() == after
    assert epoch(resumed) == following


def test_an_epoch_of_persistent_workers_goes_on_with_new_ones():
    def loader():
        return DataLoader(Squares(), 4, shuffle=True, persistent_workers=True, **THREAD)

    kg.manual_seed(1)
    whole = loader()
    epoch(whole)
    it = iter(whole)  # the second time, no seed for workers is drawn
    next(it)
    state = whole.state_dict()
    rest = [lists(b) for b in it]
    resumed = loader()
    resumed.load_state_dict(state)
    assert epoch(resumed) == rest


def test_the_state_is_that_of_the_latest_iteration():
    loader = DataLoader(Squares(), 4, shuffle=True)
    first, second = iter(loader), iter(loader)
    next(first), next(first), next(second)
    state = loader.state_dict()
    assert state["batches"] == 1
    resumed = DataLoader(Squares(), 4, shuffle=True)
    resumed.load_state_dict(state)
    rest = epoch(resumed)
    assert rest == [lists(b) for b in second] != [lists(b) for b in first]


def test_between_epochs_the_order_goes_on():
    def loader():
        return DataLoader(Squares(), 4, shuffle=True, generator=seeded(8))

    whole = loader()
    epoch(whole)
    state = whole.state_dict()
    assert state["batches"] == 0
    resumed = loader()
    resumed.load_state_dict(state)
    assert epoch(resumed) == epoch(whole)


def test_a_stream_is_resumed_by_reading_it_again():
    loader = DataLoader(Stream(9), 2)
    it = iter(loader)
    next(it), next(it)
    resumed = DataLoader(Stream(9), 2)
    resumed.load_state_dict(loader.state_dict())
    assert [b.tolist() for b in resumed] == [[4, 5], [6, 7], [8]]
    assert len(epoch(resumed)) == 5


def test_a_state_of_another_loader_is_refused():
    state = DataLoader(Squares(), shuffle=True, generator=seeded(1))
    it = iter(state)
    next(it)
    with pytest.raises(ValueError, match="generators"):
        DataLoader(Squares()).load_state_dict({**state.state_dict(), "batches": 2})
    with pytest.raises(ValueError, match="-1 batches"):
        DataLoader(Squares()).load_state_dict({"batches": -1, "generators": []})


@pytest.mark.parametrize("generator", [None, 6])
@pytest.mark.parametrize("k", [0, 1, 40, 50])
@pytest.mark.parametrize("options", [{}, {"replacement": True}, {"num_samples": 50}], ids=str)
def test_a_random_sampler_goes_on_where_it_was(generator, k, options):
    def sampler():
        return RandomSampler(
            range(20), **{"num_samples": 50, **options}, generator=generator and seeded(generator)
        )

    whole = sampler()
    it = iter(whole)
    for _ in range(k):
        next(it)
    state = whole.state_dict()
    rest = list(it)
    resumed = sampler()
    resumed.load_state_dict(state)
    if k or generator:
        assert list(resumed) == rest
    assert len(list(resumed)) == 50
    if generator:
        assert list(resumed) == (list(whole), list(whole))[1]
