"""A team of threads for one program: each runs the whole table and does its share of every kernel.

Workers wait actively for a moment after a program (the next step of a training loop comes soon), then
sleep. While a team works, BLAS is held to one thread: the kernels themselves divide the products.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from typing import Any

import numpy as np

from kilograd.kernels import threads
from kilograd.kernels.native import build

PATIENCE = 800_000  # turns of a worker's waiting loop: some 0.3 ms


class _Worker:
    def __init__(self, part: int, parts: int) -> None:
        self.box = np.zeros(4, np.int64)  # ticket, program, tickets seen
        self.table = np.array(
            [self.box.ctypes.data, PATIENCE, build.INTERPRETER.address(np.float32)], np.int64
        )
        self.cells = memoryview(self.box)  # type: ignore[arg-type]
        self.gate = threading.Lock()
        self.bell = threading.Lock()  # held while nobody has rung: Ctrl-C cannot tear it
        self.bell.acquire()
        self.asleep = False
        self.attend = build._c_function(build.ATTEND.address(np.float32))
        self.part, self.parts = part, parts
        threading.Thread(target=self._live, name=f"kilograd-{part}", daemon=True).start()

    def _live(self) -> None:
        table, cells = self.table.ctypes.data, self.cells
        while True:
            self.attend(table, self.part, self.parts)
            with self.gate:
                if cells[0] != cells[2]:
                    continue
                self.asleep = True
            self.bell.acquire()

    def post(self, program: int) -> None:
        cells = self.cells
        with self.gate:
            cells[1] = program
            cells[0] += 1
            wake, self.asleep = self.asleep, False
        if wake:
            self.ring()

    def ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # it has been rung already
            self.bell.release()


_workers: list[_Worker] = []
_busy: Any = threading.RLock()  # held by the thread that has the team at work
_pid = 0


def run(head: np.ndarray, interpret: Any, blas: bool = True) -> None:
    """Run a program (the head of its table) on all threads, or on this one if the team is at work.

    ``blas``: whether it calls BLAS, which is then held to one thread.
    """
    global _pid
    parts = threads.get_num_threads()
    patient = threads.are_deterministic_algorithms_enabled()
    single = parts < 2 or _busy._is_owned()  # owned: in a signal's handler
    if single or not _busy.acquire(blocking=patient):
        interpret(head.ctypes.data, 0, 1)
        return
    control, before = threads._blas if blas else None, 1
    try:
        if _pid != os.getpid() or len(_workers) != parts - 1:  # at first, or in a forked process
            _workers[:] = [_Worker(k, parts) for k in range(1, parts)]
            _pid = os.getpid()
        before = control[1]() if control else 1
        if control and before != 1:
            control[0](1)
        counter = int(head[3])
        head[4] = _value_at(counter)
        end = int(head[4]) + parts * int(head[0])
        tickets = [worker.cells[0] for worker in _workers]
        try:
            for worker in _workers:
                worker.post(head.ctypes.data)
            interpret(head.ctypes.data, 0, parts)
        except BaseException:  # Ctrl-C before all had begun: they wait for each other
            _finish(head, interpret, parts, tickets, counter, end)
            raise
    finally:
        if control and before != 1:
            control[0](before)
        _busy.release()


def _finish(
    head: np.ndarray, interpret: Any, parts: int, tickets: list[int], counter: int, end: int
) -> None:
    """Run a program to its end that not all of the team may have been told of."""
    while _value_at(counter) < end:
        try:
            for worker, ticket in zip(_workers, tickets, strict=True):
                if worker.cells[0] == ticket:
                    worker.post(head.ctypes.data)
                else:  # it may sleep still: to wake it once too often does no harm
                    worker.asleep = False
                    worker.ring()
            interpret(head.ctypes.data, 0, parts)
        except KeyboardInterrupt:
            continue


def alone(run: Any, *args: int) -> None:
    """Call native code on this thread, and keep BLAS on it as well.

    BLAS's threads turn in circles for a tenth of a second after their last product, on the core that a
    worker needs next.
    """
    control = threads._blas
    before = control[1]() if control else 1
    if control is None or before == 1:
        run(*args)
        return
    control[0](1)
    try:
        run(*args)
    finally:
        control[0](before)


def _forget() -> None:
    """After a fork the child has no workers, and nobody who would let go of the lock."""
    global _busy
    _busy = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _value_at(address: int) -> int:
    return ctypes.c_int64.from_address(address).value
