"""Compile several kernels at once, in processes, where none of them is on disk yet.

Numba compiles one function at a time. The first step of a large network needs some thirty kernels, so
the other cores get their share of them: each process writes machine code to the cache on disk, from
where this one loads it. Whatever goes wrong there, this process compiles what is still missing.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from kilograd.kernels import threads
from kilograd.kernels.native import build
from kilograd.kernels.native.build import Generated, Kernel

WORTH_A_PROCESS = 8  # kernels: a process needs most of a second to start


def compile_all(wanted: Iterable[tuple[Kernel, Any]]) -> None:
    """Have the machine code of all these kernels, each for a dtype."""
    missing = [
        (k, np.dtype(d)) for k, d in dict.fromkeys(wanted) if not build.is_made(k, np.dtype(d))
    ]
    processes = min(threads.cores(), 4, len(missing) // WORTH_A_PROCESS + 1)
    if processes > 1 and build.cache_dir() is not None and sys.executable:
        missing.sort(key=_effort, reverse=True)
        shares = [missing[i::processes] for i in range(processes)]
        helpers = [h for share in shares[1:] if (h := _start(share)) is not None]
        for kernel, dtype in shares[0]:
            kernel.address(dtype)
        for helper in helpers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                helper.wait(timeout=60)
    for kernel, dtype in missing:
        kernel.address(dtype)


def _effort(what: tuple[Kernel, Any]) -> int:
    """Which kernels take longest: those written by hand, for they call others."""
    kernel = what[0]
    if isinstance(kernel, Generated):
        return len(kernel.text)
    return 5_000 + sum(len(f.__code__.co_code) for f in build.compiled_into(kernel.fn, {}).values())


def _start(share: list[tuple[Kernel, np.dtype]]) -> subprocess.Popen[bytes] | None:
    """A process that compiles its share of the kernels."""
    orders = []
    for kernel, dtype in share:
        order = {"name": kernel.name, "dtype": dtype.name}
        if isinstance(kernel, Generated):
            order["text"] = kernel.text
        else:
            order["module"], order["args"] = kernel.fn.__module__, str(kernel.args)
        orders.append(order)
    code = "from kilograd.kernels.native import ahead; ahead.work()"
    root = os.path.dirname(
        os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
    }
    try:
        helper = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        assert helper.stdin is not None
        helper.stdin.write(json.dumps(orders).encode())
        helper.stdin.close()
    except OSError:
        return None
    return helper


def work() -> None:
    """What such a process does: read the orders, compile."""
    for order in json.load(sys.stdin):
        if "text" in order:
            Generated(order["name"], order["text"]).address(np.dtype(order["dtype"]))
            continue
        for kernel in _kernels_of(importlib.import_module(order["module"])):
            if kernel.name == order["name"] and str(kernel.args) == order["args"]:
                kernel.address(np.dtype(order["dtype"]))
                break


def _kernels_of(module: Any) -> list[Kernel]:
    found = []
    for value in vars(module).values():
        for k in value.values() if isinstance(value, dict) else (value,):
            if isinstance(k, Kernel):
                found.append(k)
    return found
