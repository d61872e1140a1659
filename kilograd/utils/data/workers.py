"""Workers: processes or threads that load batches, each with a channel of its own.

The one idea: tasks are dealt to the workers in turn, and a worker answers its tasks in order. Whoever
listens to the workers in the same turn therefore has every batch in order, with nothing to sort; and
as a worker has at most ``prefetch_factor`` tasks, no more batches than that wait in memory.

What a process answers is pickled with its arrays out of band. Small answers go through its pipe, large
ones through a file in memory (``/dev/shm`` where there is one), which the parent reads and removes: a
worker need not wait for the parent, and no array is left behind in shared memory.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import pickle
import queue
import random as python_random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple, Protocol

import numpy as np

from kilograd import random
from kilograd.kernels import threads as kernel_threads
from kilograd.utils.data.worker_info import WorkerInfo, here

INLINE = 1 << 16  # bytes: answers up to here go through the pipe
GRACE = 5.0  # seconds a worker has to finish what it is doing when an iteration ends

Task = tuple[int, Any]  # the number of the iteration (0, 1, … in one pool), and indices


class Fetches(Protocol):
    """What a worker is given: it turns indices into batches, or what comes from a stream."""

    dataset: Any
    streams: bool

    def __call__(self, task: Any) -> Any: ...
    def stream(self) -> Iterator[Any]: ...


class Job(NamedTuple):
    """All that the workers of a pool need to know."""

    fetch: Fetches
    init: Callable[[int], Any] | None
    workers: int
    seed: int  # of worker 0

    def info(self, worker: int, generator: random.Generator) -> WorkerInfo:
        return WorkerInfo(worker, self.workers, self.seed + worker, self.fetch.dataset, generator)


class Failure(NamedTuple):
    """An exception on its way to the parent: tracebacks cannot be pickled, their text can."""

    kind: type[BaseException]
    text: str

    def error(self) -> BaseException:
        """An exception of the original type whose message ends in the worker's traceback."""
        with contextlib.suppress(Exception):
            error = self.kind(_Text(self.text))
            if self.text in str(error):
                return error
        with contextlib.suppress(Exception):  # a constructor with arguments of its own
            error = self.kind.__new__(self.kind)
            error.args = (_Text(self.text),)
            if self.text in str(error):
                return error
        return RuntimeError(self.text)


class _Text(str):
    """A message whose line breaks survive ``KeyError``, which shows the repr of its argument."""

    def __repr__(self) -> str:
        return str(self)


class End:
    """The answer of a worker whose share of a stream is over."""


def _failure(error: BaseException, where: str) -> Failure:
    kind = type(error)
    text = f"Caught {kind.__name__} in DataLoader worker {where}.\nOriginal traceback:\n"
    text += "".join(traceback.format_exception(error)).rstrip()
    try:
        pickle.dumps(kind)
    except Exception:  # a class defined in a function means nothing to another process
        kind = RuntimeError
    return Failure(kind, text)


def _work(
    job: Job,
    info: WorkerInfo,
    kind: str,
    receive: Callable[[], Task | None],
    pack: Callable[[int, Any], Any],
    send: Callable[[Any], None],
) -> None:
    """Answer tasks until there are no more."""
    here.info = info
    where = f"{kind} {info.id}"
    trouble: Failure | None = None
    try:
        if job.init is not None:
            job.init(info.id)
    except BaseException as error:
        trouble = _failure(error, where)
    current, stream = -1, iter(())

    def load(epoch: int, indices: Any) -> Any:
        nonlocal current, stream
        begins, current = epoch != current, epoch
        if trouble is not None and (begins or not job.fetch.streams):
            return trouble
        if not job.fetch.streams:
            return job.fetch(indices)
        if begins:
            stream = iter(())  # which it stays if the next line fails
            stream = job.fetch.stream()
        samples = next(stream, End)
        return End if samples is End else job.fetch(samples)

    while (task := receive()) is not None:
        epoch, indices = task
        try:
            answer = pack(epoch, load(epoch, indices))
        except BaseException as error:
            answer = pack(epoch, _failure(error, where))
        send(answer)
        del answer  # or this batch would stay in memory while the next is made


# --- threads --------------------------------------------------------------------------------


class _Pool:
    """Workers that can be asked as long as they are ``alive``."""

    _close: weakref.finalize[Any, Any]
    _pid: int

    @property
    def alive(self) -> bool:
        """Whether there are workers to ask: not after ``close``, nor in a process forked since."""
        return self._close.alive and os.getpid() == self._pid


class Threads(_Pool):
    """Workers that share this process's memory: nothing is copied, and Python runs in one at a time.

    They pay where loading waits for files or is in NumPy, which lets other threads run. A thread
    cannot be stopped: one that never returns from the dataset is left to itself.
    """

    def __init__(self, job: Job) -> None:
        self.epoch = -1
        self._pid = os.getpid()
        self._inboxes: list[queue.SimpleQueue[Task | None]] = []
        self._outbox: queue.SimpleQueue[tuple[int, int, Any]] = queue.SimpleQueue()
        self._waiting: list[deque[tuple[int, Any]]] = [deque() for _ in range(job.workers)]
        threads = []
        for worker in range(job.workers):
            inbox: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
            info = job.info(worker, random.Generator().manual_seed(job.seed + worker))
            pack = functools.partial(_as_it_is, worker)
            threads.append(
                threading.Thread(
                    target=_work,
                    args=(job, info, "thread", inbox.get, pack, self._outbox.put),
                    name=f"DataLoader worker {worker}",
                    daemon=True,
                )
            )
            self._inboxes.append(inbox)
        self._close = weakref.finalize(self, _end_threads, threads, self._inboxes)
        for thread in threads:
            thread.start()

    def send(self, worker: int, task: Task) -> None:
        self._inboxes[worker].put(task)

    def receive(self, workers: Sequence[int], timeout: float) -> tuple[int, int, Any]:
        """The next answer of any of some workers: its number, the iteration and the answer."""
        deadline = time.monotonic() + timeout
        while True:
            for worker in workers:
                if self._waiting[worker]:
                    return worker, *self._waiting[worker].popleft()
            try:
                left = max(deadline - time.monotonic(), 0.0) if timeout else None
                worker, epoch, value = self._outbox.get(timeout=left)
            except queue.Empty:
                self.close(grace=0)  # a worker that is late may never come
                raise RuntimeError(f"DataLoader timed out after {timeout} seconds") from None
            self._waiting[worker].append((epoch, value))

    def close(self, grace: float = GRACE) -> None:
        """End the threads; wait for them at most ``grace`` seconds."""
        end: Any = self._close.detach()  # (self, function, arguments, …), or None if it has ended
        if end is not None:
            end[1](*end[2], grace)


def _as_it_is(worker: int, epoch: int, value: Any) -> tuple[int, int, Any]:
    return worker, epoch, value


def _end_threads(
    threads: list[threading.Thread],
    inboxes: list[queue.SimpleQueue[Task | None]],
    grace: float = GRACE,
) -> None:
    for inbox in inboxes:
        inbox.put(None)
    deadline = time.monotonic() + grace
    for thread in threads:
        # The collector may run this in any thread, and no thread can wait for itself.
        if thread.ident is not None and thread is not threading.current_thread():
            thread.join(max(deadline - time.monotonic(), 0.0))


# --- processes ------------------------------------------------------------------------------


class Processes(_Pool):
    """Workers that are processes of their own.

    They never outlive the parent: however it ends, the other end of each worker's pipe closes. A
    worker that dies is noticed by the handle the operating system gives for it.
    """

    def __init__(self, job: Job, context: Any) -> None:
        self.epoch = -1
        self._pid = os.getpid()
        self._conns: list[Connection] = []
        self._processes: list[Any] = []
        self._folder = tempfile.mkdtemp(prefix=f"kilograd-batches-{os.getpid()}-", dir=_memory())
        self._close = weakref.finalize(
            self, _end_processes, os.getpid(), self._processes, self._conns, self._folder
        )
        forks = context.get_start_method() == "fork"
        try:
            for worker in range(job.workers):
                ours, theirs = context.Pipe()
                self._conns.append(ours)
                inherited = list(self._conns) if forks else []
                process = context.Process(
                    target=_process,
                    args=(job, worker, theirs, self._folder, inherited),
                    name=f"DataLoader worker {worker}",
                    daemon=True,
                )
                try:
                    process.start()
                finally:
                    theirs.close()
                self._processes.append(process)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            self.close()
            raise TypeError(_cannot_travel(job, context.get_start_method(), error)) from error
        except BaseException:
            self.close()
            raise

    def send(self, worker: int, task: Task) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # receive() will say why
            self._conns[worker].send(task)

    def receive(self, workers: Sequence[int], timeout: float) -> tuple[int, int, Any]:
        """The next answer of any of some workers: its number, the iteration and the answer."""
        conns = [self._conns[w] for w in workers]
        ready = wait([*conns, *(p.sentinel for p in self._processes)], timeout or None)
        if not ready:
            self.close(grace=0)  # a worker that is late may never come
            raise RuntimeError(f"DataLoader timed out after {timeout} seconds")
        for worker, conn in zip(workers, conns, strict=True):
            if conn in ready:
                try:
                    parcel = conn.recv()
                except (EOFError, OSError):  # it died, perhaps in the middle of an answer
                    break
                return worker, parcel.epoch, parcel.open()
        raise RuntimeError(self._obituary())

    def _obituary(self) -> str:
        """Which worker has died, and of what."""
        sentinels = [process.sentinel for process in self._processes]
        dead = wait(sentinels, GRACE)  # a pipe may close a moment before
        for worker, process in enumerate(self._processes):
            if process.sentinel not in dead:
                continue
            process.join(GRACE)  # its files are closed; its exit code may take another moment
            code = process.exitcode
            who = f"DataLoader worker {worker} (process {process.pid})"
            if code is None or code >= 0:
                return (
                    f"{who} exited unexpectedly with exit code {code}; what it printed may say why"
                )
            try:
                name = signal.Signals(-code).name
            except ValueError:  # a real-time signal
                name = "no name"
            hint = ": was memory short?" if name == "SIGKILL" else ""
            return f"{who} was killed by signal {-code} ({name}){hint}"
        return "a DataLoader worker has closed its pipe: something in it closes descriptors that are not its own"

    def close(self, grace: float = GRACE) -> None:
        """End the processes: ask, wait at most ``grace`` seconds, terminate what is left."""
        end: Any = self._close.detach()  # (self, function, arguments, …), or None if it has ended
        if end is not None:
            end[1](*end[2], grace)


def _memory() -> str | None:
    """A folder that is in memory; None, the usual one for temporary files, where there is none."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None


def _end_processes(
    pid: int, processes: list[Any], conns: list[Connection], folder: str, grace: float = GRACE
) -> None:
    if os.getpid() != pid:  # a copy of the pool in a forked process: not its workers
        return
    for conn in conns:
        with contextlib.suppress(OSError):
            conn.send(None)
        conn.close()
    deadline = time.monotonic() + grace
    for process in processes:
        process.join(max(deadline - time.monotonic(), 0.0))
    for end in ("terminate", "kill"):
        for process in processes:
            if process.exitcode is None:
                getattr(process, end)()
                process.join(1.0)
    for process in processes:
        with contextlib.suppress(ValueError):  # still there: nothing more can be done about it
            process.close()
    shutil.rmtree(folder, ignore_errors=True)


def _cannot_travel(job: Job, method: str, error: Exception) -> str:
    parts = (
        ("dataset", job.fetch.dataset),
        ("worker_init_fn", job.init),
        ("collate_fn", job.fetch),
    )

    def travels(part: Any) -> bool:
        try:
            ForkingPickler.dumps(part)
        except Exception:
            return False
        return True

    name = next((name for name, part in parts if not travels(part)), "dataset")
    return (
        f"DataLoader(num_workers={job.workers}): the {name} cannot be sent to a process started by "
        f"{method!r} ({error}). Define its class and functions at the top level of a module, or use "
        "multiprocessing_context='fork' or worker_type='thread'"
    )


class Parcel(NamedTuple):
    """A pickled answer and its buffers, or the file they are in."""

    epoch: int
    pickled: bytes
    buffers: list[Any]  # bytearrays; sizes where there is a file
    path: str | None

    def open(self) -> Any:
        """The answer, in memory of its own that can be written to."""
        buffers = self.buffers
        if self.path is not None:
            # An array for each buffer: a label kept for later must not keep its images in memory.
            buffers = [np.empty(size, np.uint8) for size in buffers]
            try:
                with open(self.path, "rb", buffering=0) as file:
                    for buffer in buffers:
                        _fill(file, memoryview(buffer))
            finally:
                os.unlink(self.path)
        return pickle.loads(self.pickled, buffers=buffers)


def _fill(file: Any, view: memoryview) -> None:
    while view.nbytes:
        count = file.readinto(view)  # at most 2 GiB at a time on Linux
        if not count:
            raise RuntimeError(f"DataLoader: {file.name} is shorter than the batch in it")
        view = view[count:]


def _pack(path: Callable[[], str], epoch: int, value: Any) -> Parcel:
    found: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, protocol=5, buffer_callback=found.append)
    raw = [buffer.raw() for buffer in found]
    if sum(r.nbytes for r in raw) > INLINE:
        name = path()
        try:
            with open(name, "xb") as file:
                for r in raw:
                    file.write(r)
            return Parcel(epoch, pickled, [r.nbytes for r in raw], name)
        except OSError:  # that memory is full (a container's /dev/shm is small): take the pipe
            with contextlib.suppress(OSError):
                os.unlink(name)
    return Parcel(epoch, pickled, [bytearray(r) for r in raw], None)


def _process(
    job: Job, worker: int, conn: Connection, folder: str, inherited: list[Connection]
) -> None:
    """What a worker process runs."""
    for ours in inherited:  # the parent's ends, which must close when the parent ends
        ours.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    kernel_threads.set_num_threads(1)  # the other cores have workers of their own
    info = job.info(worker, random.default_generator)
    random.manual_seed(info.seed)
    python_random.seed(info.seed)
    np.random.seed(info.seed % 2**32)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(info.seed)
        torch.set_num_threads(1)
    type(here).info = info  # for the dataset's own threads, too
    inbox: queue.SimpleQueue[Task | None] = queue.SimpleQueue()

    # A thread takes tasks in, so that parent and worker never wait for each other to read, and so
    # that a worker that is busy, too, ends with its parent.
    def listen() -> None:
        try:
            while (task := conn.recv()) is not None:
                inbox.put(task)
            inbox.put(None)
        except (EOFError, OSError):  # the parent is gone without a word
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(1)
        except BaseException:  # indices of a type that cannot be unpickled here
            traceback.print_exc()
            os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    numbers = itertools.count()
    pack = functools.partial(_pack, lambda: os.path.join(folder, f"{worker}-{next(numbers)}"))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # nobody wants the answer
        _work(job, info, "process", inbox.get, pack, conn.send)


# --- an iteration ---------------------------------------------------------------------------


def start(job: Job, worker_type: str, context: Any) -> Threads | Processes:
    """A pool of workers."""
    return Threads(job) if worker_type == "thread" else Processes(job, context)


def answers(
    pool: Threads | Processes,
    tasks: Iterator[Any],
    count: int,
    *,
    prefetch: int,
    timeout: float,
    in_order: bool,
) -> Iterator[Any]:
    """The answers to tasks from a pool of ``count`` workers, ``prefetch`` tasks each."""
    pool.epoch += 1
    epoch = pool.epoch
    asked: deque[int] = deque()  # whose turn it is to answer

    def ask(worker: int) -> None:
        for task in itertools.islice(tasks, 1):
            pool.send(worker, (epoch, task))
            asked.append(worker)

    for _ in range(prefetch):
        for worker in range(count):
            ask(worker)
    while asked:
        if pool.epoch != epoch:
            raise RuntimeError(
                "a newer iteration of this DataLoader(persistent_workers=True) has taken its workers"
            )
        if not pool.alive:
            raise RuntimeError(
                "the workers of this iteration of a DataLoader have ended, or are of another process"
            )
        worker, of, value = pool.receive([asked[0]] if in_order else sorted({*asked}), timeout)
        if of != epoch:  # left over from an iteration that was ended early
            continue
        asked.remove(worker)
        if value is End:
            asked = deque(w for w in asked if w != worker)
            continue
        ask(worker)
        yield value
        del value


def opened(answer: Any) -> Any:
    """The batch that an answer is; raises the error that it is."""
    if isinstance(answer, Failure):
        raise answer.error()
    return answer
