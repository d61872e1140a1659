"""From a loop written in Python to the address of machine code.

A native kernel is a Python function over pointers. Numba compiles it for one element type ``T``; the
machine code is kept on disk, so that the next process loads it in a millisecond without Numba.

All compiled kernels have one C signature, ``void kernel(int64 *a, int64 part, int64 parts)``: ``a``
holds the arguments (addresses, sizes, the bits of floats). A program is then a table of (kernel,
arguments), and :data:`INTERPRETER` runs it without going back to Python. ``part`` of ``parts`` says
which share of a kernel's outermost loop a thread is to do.

Names that stand for something else in compiled code are imported from here: ``T``, ``share``,
``gemm`` … ; the mathematical functions come from ``kernels/vecmath.py``.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import functools
import hashlib
import inspect
import os
import platform
import sys
import tempfile
import textwrap
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Address = int
_lock = threading.RLock()
_loaded: dict[str, Address] = {}
_keep_alive: list[Any] = []  # compiled libraries and engines: their code must not be freed

FLAGS = {"contract", "nsz"}  # what LLVM may do with floating-point arithmetic: fused multiply-add
SUMS = {"contract", "nsz", "reassoc"}  # and where a kernel sums: in another order, in vectors


# --- what kernels are written with ----------------------------------------------------------------


def T(x: Any) -> Any:
    """The element type of the arrays a kernel is compiled for: write numbers as ``T(0.5)``."""
    raise TypeError("T is a name for compiled code")


def share(n: int, part: int, parts: int) -> tuple[int, int]:
    """This thread's share of range(n), as (start, stop).

    >>> share(10, 0, 2), share(10, 1, 2), share(1, 0, 2), share(1, 1, 2)
    ((0, 5), (5, 10), (0, 0), (0, 1))
    """
    return n * part // parts, n * (part + 1) // parts


def gemm(
    ta: int, tb: int, m: int, n: int, k: int, alpha: Any, a: Any, a_at: int, lda: int,
    b: Any, b_at: int, ldb: int, beta: Any, c: Any, c_at: int, ldc: int,
) -> None:  # fmt: skip
    """C = alpha A B + beta C, row-major: A (m, k), B (k, n), C (m, n), each from an offset.

    ``ta``/``tb`` = 1 says the matrix is stored transposed; ``lda``… are elements from row to row.
    """
    raise TypeError("gemm is a name for compiled code")


def exp(x: Any) -> Any:
    """eˣ: in compiled code the one of ``kernels/vecmath.py``."""
    raise TypeError("exp is a name for compiled code")


def tanh(x: Any) -> Any:
    """The hyperbolic tangent: in compiled code the one of ``kernels/vecmath.py``."""
    raise TypeError("tanh is a name for compiled code")


def sigmoid(x: Any) -> Any:
    """1 / (1 + e⁻ˣ): in compiled code the one of ``kernels/vecmath.py``."""
    raise TypeError("sigmoid is a name for compiled code")


def log(x: Any) -> Any:
    """The natural logarithm: in compiled code the one of ``kernels/vecmath.py``."""
    raise TypeError("log is a name for compiled code")


def f64(x: Any) -> Any:
    """x as a float64: a sum that must not lose digits is kept in one."""
    raise TypeError("f64 is a name for compiled code")


def plus(a: Any, b: Any) -> Any:
    """a + b, where a sum may be added up in vectors; nothing around it is reordered."""
    raise TypeError("plus is a name for compiled code")


def inline(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function that kernels of this file call: it is compiled into them."""
    fn._inline = True  # type: ignore[attr-defined]
    return fn


# --- declaring a kernel ---------------------------------------------------------------------------

_CODES = {
    "f32": np.float32, "f64": np.float64, "i64": np.int64, "i32": np.int32, "u8": np.uint8,
    "i8": np.int8, "i16": np.int16, "u16": np.uint16, "u32": np.uint32, "u64": np.uint64,
}  # fmt: skip


class Kernel:
    """A native kernel: its function, and what its arguments are.

    ``signature`` lists them: ``T* x`` an array of the element type, ``i64* at`` (or f32, f64, i32,
    i8, u8 for bool …) an array of that type, ``i64 n`` a number, ``f64 eps`` or ``T eps`` a float. A function whose
    last two parameters are ``part, parts`` divides its work by ``share``.
    """

    def __init__(self, fn: Callable[..., Any], signature: str, flags: set[str]) -> None:
        self.fn = fn
        self.flags = flags
        self.name = fn.__name__
        self.args = [tuple(a.split()) for a in signature.split(",")]
        names = list(inspect.signature(fn).parameters)
        self.divides = names[-2:] == ["part", "parts"]
        expected = [name for _, name in self.args]
        if names[: len(names) - 2 * self.divides] != expected:
            raise TypeError(f"{self.name}: the signature says {expected}, the function {names}")
        functools.update_wrapper(self, fn)

    def address(self, dtype: Any = np.float32) -> Address:
        """The machine code for arrays of ``dtype``."""
        dtype = np.dtype(dtype)
        made = self.__dict__.setdefault("_made", {})
        if dtype not in made:
            made[dtype] = _address(self, dtype)
        return made[dtype]

    @functools.cached_property
    def calls_blas(self) -> bool:
        """Whether it calls the BLAS (with one thread: several callers would wait for each other)."""
        return any("gemm" in f.__code__.co_names for f in compiled_into(self.fn, {}).values())

    def source(self) -> str:
        """What the machine code depends on: its arguments, and the files it was written in."""
        modules = {f.__module__ for f in compiled_into(self.fn, {}).values()}
        files = sorted(sys.modules[m].__file__ or "" for m in modules)
        return f"{self.name} {self.args} of\n" + "\n".join(map(_text, files))

    def build(self, dtype: np.dtype) -> tuple[str, bytes, Any]:
        return _build_function(self, dtype)

    def pack(self, args: tuple[Any, ...], dtype: Any) -> np.ndarray:
        """The table of arguments (int64) for a call."""
        if len(args) != len(self.args):
            raise TypeError(f"{self.name} takes {len(self.args)} arguments, got {len(args)}")
        return np.array([bits(a) for a in args], np.int64)

    def __call__(self, *args: Any, dtype: Any = None) -> None:
        """Run now, on ndarrays and numbers, on this thread."""
        if dtype is None:
            dtype = next(a.dtype for a, (k, _) in zip(args, self.args, strict=True) if k == "T*")
        table = self.pack(args, dtype)
        _c_function(self.address(dtype))(table.ctypes.data, 0, 1)


def compiled_into(fn: Any, found: dict[str, Any]) -> dict[str, Any]:
    """A function and those it calls that are marked ``inline``, by name."""
    found[f"{fn.__module__}.{fn.__name__}"] = fn
    for name in fn.__code__.co_names:
        other = fn.__globals__.get(name)
        if getattr(other, "_inline", False) and f"{other.__module__}.{other.__name__}" not in found:
            compiled_into(other, found)
    return found


def bits(value: Any) -> int:
    """An argument as the int64 that stands in the table: address, integer, or bits of a float64."""
    if isinstance(value, np.ndarray):
        return value.ctypes.data
    if value is None:
        return 0
    if isinstance(value, (float, np.floating)):
        return int(np.float64(value).view(np.int64))
    return int(value)


def native(signature: str, *, sums: bool = False) -> Callable[[Callable[..., Any]], Kernel]:
    """Declare a native kernel; ``sums`` lets the compiler add up in vectors (another order).

    >>> @native("T* x, T* y, i64 n")
    ... def halve(x, y, n):
    ...     for i in range(n):
    ...         y[i] = x[i] * T(0.5)
    >>> halve.args
    [('T*', 'x'), ('T*', 'y'), ('i64', 'n')]
    """
    return lambda fn: Kernel(fn, signature, SUMS if sums else FLAGS)


class Generated(Kernel):
    """A kernel whose source was written by a program: the body of a function of ``a, part, parts``."""

    def __init__(self, name: str, text: str, sums: bool = False) -> None:
        self.name = name
        self.text = text
        self.flags = SUMS if sums else FLAGS
        self.calls_blas = False

    def source(self) -> str:
        return self.text

    def build(self, dtype: np.dtype) -> tuple[str, bytes, Any]:
        space = _names(dtype)
        exec(compile(self.text, f"<{self.name}>", "exec"), space)
        return _to_machine_code(space[self.name], self.flags)


# --- from disk ------------------------------------------------------------------------------------


def available() -> bool:
    """Whether native kernels can be compiled here: Numba is installed, and a BLAS was found."""
    return _available()[0]


def why_not() -> str:
    """What is missing for native kernels, in words ('' if nothing)."""
    return _available()[1]


@functools.lru_cache(maxsize=1)
def _available() -> tuple[bool, str]:
    try:
        import llvmlite.binding  # noqa: F401
    except ImportError:
        return False, "Numba is not installed (pip install kilograd[fast])"
    from importlib.util import find_spec

    if find_spec("numba") is None:
        return False, "Numba is not installed (pip install kilograd[fast])"
    if not _blas_symbols():
        return False, "no BLAS was found that can be called from native code"
    return True, ""


def cache_dir() -> Path | None:
    """Where machine code is kept: KILOGRAD_CACHE, or the user's cache directory; None: nowhere."""
    chosen = os.environ.get("KILOGRAD_CACHE")
    if chosen is not None:
        return Path(chosen) / "native" if chosen else None
    try:
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a home directory
        return None
    return base / "kilograd" / "native"


@functools.lru_cache(maxsize=64)
def _text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


@functools.lru_cache(maxsize=1)
def _environment() -> str:
    """What machine code depends on besides its source."""
    from importlib.metadata import version

    import llvmlite
    import llvmlite.binding as llvm

    here = Path(__file__)
    return "\n".join(
        [
            platform.machine(), sys.platform, platform.python_version(), llvmlite.__version__,
            version("numba"), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten(),
            _text(str(here)), _text(str(here.parents[1] / "vecmath.py")),
        ]
    )  # fmt: skip


_NEVER_CALLED = (
    "numba_gil_ensure", "numba_gil_release", "numba_do_raise", "numba_unpickle",
    "numba_runtime_build_excinfo_struct", "NRT_Free", "NRT_MemInfo_call_dtor",
)  # fmt: skip
_HEADER = b"kilograd native 1\n"


def _what(kernel: Kernel, dtype: np.dtype) -> str:
    """All that makes the machine code of one kernel another's than of the next."""
    return f"{kernel.source()}\n{kernel.name} {dtype} {sorted(kernel.flags)}\n"


def _key(what: str) -> str:
    """The name of a kernel's machine code on disk."""
    return hashlib.sha256((_environment() + what).encode()).hexdigest()


def is_made(kernel: Kernel, dtype: np.dtype) -> bool:
    """Whether a kernel's machine code is here, or on disk."""
    what = _what(kernel, dtype)
    directory = cache_dir()
    if what in _loaded or directory is None:
        return what in _loaded
    key = _key(what)
    return (directory / key[:2] / key).is_file()


def _address(kernel: Kernel, dtype: np.dtype) -> Address:
    what = _what(kernel, dtype)
    found = _loaded.get(what)
    if found is not None:
        return found
    with _lock:
        found = _loaded.get(what)
        if found is None:
            key = _key(what)
            found = _from_disk(key)
            if found is None:
                symbol, code, library = kernel.build(dtype)
                found = library.get_pointer_to_function(symbol)
                _keep_alive.append(library)
                _to_disk(key, symbol, _needs(library), code)
            _loaded[what] = found
        return found


def _from_disk(key: str) -> Address | None:
    directory = cache_dir()
    if directory is None:
        return None
    try:
        data = (directory / key[:2] / key).read_bytes()
        head, digest, rest = (
            data[: len(_HEADER)],
            data[len(_HEADER) :][:32],
            data[len(_HEADER) + 32 :],
        )
        if head != _HEADER or hashlib.sha256(key.encode() + rest).digest() != digest:
            return None  # cut short, or not ours: it is made again
        symbol, needs, code = rest.split(b"\0", 2)
        return _load(symbol.decode(), needs.decode().split(), code)
    except (OSError, ValueError, RuntimeError):
        return None


def _needs(library: Any) -> list[str]:
    """The functions that machine code calls and does not contain."""
    functions = library._final_module.functions
    return [f.name for f in functions if f.is_declaration and not f.name.startswith("llvm.")]


def _to_disk(key: str, symbol: str, needs: list[str], code: bytes) -> None:
    directory = cache_dir()
    if directory is None:
        return
    rest = b"\0".join([symbol.encode(), " ".join(needs).encode(), code])
    data = _HEADER + hashlib.sha256(key.encode() + rest).digest() + rest
    with contextlib.suppress(OSError):  # an unwritable directory costs time, nothing else
        place = directory / key[:2]
        place.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=place)
        try:
            with os.fdopen(handle, "wb") as f:
                f.write(data)
            os.replace(name, place / key)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise


@functools.lru_cache(maxsize=1)
def _machine() -> None:
    """Make LLVM ready to link object code without Numba."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    with contextlib.suppress(RuntimeError):
        llvm.load_library_permanently("")  # the symbols of this process: Python's, the C library's
    _add_symbols()
    if "numba" not in sys.modules:
        # Numba's error paths: linked, never run, for a kernel does not raise
        libc = ctypes.CDLL("msvcrt" if sys.platform == "win32" else None)
        nowhere = ctypes.cast(libc.abort, ctypes.c_void_p).value
        for name in _NEVER_CALLED:
            llvm.add_symbol(name, nowhere)


def _load(symbol: str, needs: list[str], code: bytes) -> Address | None:
    import llvmlite.binding as llvm

    _machine()
    if any(llvm.address_of_symbol(name) is None for name in needs):
        return None  # LLVM would end the process
    # Each has a linker to itself: two processes may have given one name to different functions.
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    _keep_alive.append(engine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine.get_function_address(symbol) or None


# --- the BLAS -------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _blas_symbols() -> dict[str, Address]:
    """cblas_sgemm and cblas_dgemm with 64-bit sizes, from the OpenBLAS that NumPy ships."""
    import glob

    here = os.path.dirname(np.__file__)
    for path in glob.glob(here + ".libs/*openblas*") + glob.glob(here + "/.dylibs/*openblas*"):
        with contextlib.suppress(OSError):
            lib = ctypes.CDLL(path)
            for form in ("scipy_cblas_%s64_", "cblas_%s64_"):
                if hasattr(lib, form % "sgemm") and hasattr(lib, form % "dgemm"):
                    _keep_alive.append(lib)
                    return {
                        f"kilograd_{name}": ctypes.cast(
                            getattr(lib, form % name), ctypes.c_void_p
                        ).value
                        or 0
                        for name in ("sgemm", "dgemm")
                    }
    return {}


@functools.lru_cache(maxsize=1)
def _add_symbols() -> None:
    import llvmlite.binding as llvm

    for name, address in _blas_symbols().items():
        llvm.add_symbol(name, address)
    lib = ctypes.CDLL("kernel32" if sys.platform == "win32" else None)
    give_way = lib.SwitchToThread if sys.platform == "win32" else lib.sched_yield
    llvm.add_symbol("kilograd_give_way", ctypes.cast(give_way, ctypes.c_void_p).value)


# --- through Numba --------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _numba() -> types.SimpleNamespace:
    """Numba, and the few primitives it does not have itself."""
    import llvmlite.binding as llvm
    import numba
    from llvmlite import ir
    from numba import types as nt
    from numba.extending import intrinsic

    _add_symbols()
    host = llvm.get_host_cpu_features()
    settings: Any = numba.config
    if host.get("avx512vbmi2") and not settings.CPU_FEATURES:
        # From this generation of processors on, vectors of 512 bits cost no clock speed.
        settings.CPU_FEATURES = host.flatten() + ",-prefer-256-bit"
    with contextlib.suppress(Exception):  # more pointers in a loop than LLVM checks for overlap
        llvm.set_option("kilograd", "-runtime-memory-check-threshold=512")

    def pointer(element: Any) -> Any:
        @intrinsic
        def as_pointer(typing_context: Any, address: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

            return nt.CPointer(element)(nt.int64), generate

        return as_pointer

    def bitcast(source: Any, target: Any) -> Any:
        @intrinsic
        def cast(typing_context: Any, value: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                return builder.bitcast(args[0], context.get_value_type(target))

            return target(source), generate

        return cast

    @intrinsic
    def call(typing_context: Any, fn: Any, a: Any, part: Any, parts: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word = ir.IntType(64)
            kind = ir.FunctionType(ir.VoidType(), [word, word, word])
            builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
            return context.get_dummy_value()

        return nt.none(nt.int64, nt.int64, nt.int64, nt.int64), generate

    @intrinsic
    def atomic_add(typing_context: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            place = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
            return builder.atomic_rmw("add", place, args[1], "seq_cst")

        return nt.int64(nt.int64, nt.int64), generate

    @intrinsic
    def atomic_load(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            place = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
            return builder.load_atomic(place, "seq_cst", 8)

        return nt.int64(nt.int64), generate

    @intrinsic
    def plus(typing_context: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.fadd(*args, flags=("reassoc", "nsz", "contract"))

        return (a(a, b), generate) if a == b else None

    pointers = {
        np.dtype(code): pointer(getattr(nt, np.dtype(code).name)) for code in _CODES.values()
    }
    pointers[np.dtype(bool)] = pointers[np.dtype(np.uint8)]
    scalars = {np.dtype(np.float32): nt.float32, np.dtype(np.float64): nt.float64}
    gemms = {}
    for dtype, name in ((np.dtype(np.float32), "sgemm"), (np.dtype(np.float64), "dgemm")):
        t = scalars[dtype]
        p = nt.CPointer(t)
        i = nt.int64
        external = nt.ExternalFunction(
            f"kilograd_{name}",
            nt.void(nt.int32, nt.int32, nt.int32, i, i, i, t, i, i, i, i, t, i, i),  # type: ignore[call-overload]
        )
        gemms[dtype] = _gemm_for(numba, intrinsic, nt, p, external, dtype)
    return types.SimpleNamespace(
        numba=numba, pointers=pointers, scalars=scalars, gemms=gemms, call=call,
        atomic_add=atomic_add, atomic_load=atomic_load, types=nt,
        plus=plus, give_way=nt.ExternalFunction("kilograd_give_way", nt.int32()),
        f64_bits=bitcast(nt.int64, nt.float64),
        f32_of_bits=bitcast(nt.int32, nt.float32), bits_of_f32=bitcast(nt.float32, nt.int32),
        f64_of_bits=bitcast(nt.int64, nt.float64), bits_of_f64=bitcast(nt.float64, nt.int64),
    )  # fmt: skip


def _gemm_for(numba: Any, intrinsic: Any, nt: Any, p: Any, external: Any, dtype: np.dtype) -> Any:
    """``gemm`` for one element type, calling the BLAS's C interface."""

    @intrinsic
    def address(typing_context: Any, pointer: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.ptrtoint(args[0], context.get_value_type(nt.int64))

        return nt.int64(p), generate

    size = dtype.itemsize

    @numba.njit(error_model="numpy", no_cpython_wrapper=True, _nrt=False)
    def gemm(ta, tb, m, n, k, alpha, a, a_at, lda, b, b_at, ldb, beta, c, c_at, ldc):
        external(
            numba.int32(101), numba.int32(111 + ta), numba.int32(111 + tb), m, n, k, alpha,
            address(a) + a_at * size, lda, address(b) + b_at * size, ldb, beta,
            address(c) + c_at * size, ldc,
        )  # fmt: skip

    return gemm


@functools.lru_cache(maxsize=4)
def _names(dtype: np.dtype) -> dict[str, Any]:
    """The names of compiled code, for one element type."""
    from kilograd.kernels import vecmath

    n = _numba()
    if dtype not in n.scalars:
        dtype = np.dtype(np.float32)
    space: dict[str, Any] = {f"{code}_at": n.pointers[np.dtype(t)] for code, t in _CODES.items()}
    space.update(
        T=n.scalars[dtype], T_at=n.pointers[dtype], f64_bits=n.f64_bits, gemm=n.gemms[dtype],
        call=n.call, atomic_add=n.atomic_add, atomic_load=n.atomic_load, np=np, Any=Any,
        give_way=n.give_way, plus=n.plus,
        share=n.numba.njit(share, error_model="numpy", no_cpython_wrapper=True, _nrt=False), f32=n.numba.float32, f64=n.numba.float64,
        i64=n.numba.int64, i32=n.numba.int32, range=range,
    )  # fmt: skip
    space.update(vecmath.functions(dtype, n))
    return space


@functools.lru_cache(maxsize=1024)
def _inlined(fn: Callable[..., Any], dtype: np.dtype, flags: frozenset[str]) -> Any:
    """A function that kernels call, compiled into them."""
    code = types.FunctionType(fn.__code__, _space_of(fn, dtype, flags), fn.__name__)
    return _numba().numba.njit(
        code, fastmath=set(flags), error_model="numpy", no_cpython_wrapper=True, _nrt=False
    )


def _space_of(fn: Callable[..., Any], dtype: np.dtype, flags: frozenset[str]) -> dict[str, Any]:
    space = dict(fn.__globals__)
    for name, value in space.items():
        if name in fn.__code__.co_names and getattr(value, "_inline", False):
            space[name] = _inlined(value, dtype, flags)
    given = _names(dtype)
    for name in fn.__code__.co_names:
        if name in given and not getattr(fn.__globals__.get(name), "_inline", False):
            space[name] = given[name]
    return space


def _build_function(kernel: Kernel, dtype: np.dtype) -> tuple[str, bytes, Any]:
    """One function that also reads its arguments from the table: LLVM's work is done once."""
    text = ast.parse(textwrap.dedent(inspect.getsource(kernel.fn)))
    entry = text.body[0]
    assert isinstance(entry, ast.FunctionDef)
    read = {"i64": "_[{i}]", "f64": "f64_bits(_[{i}])", "T": "T(f64_bits(_[{i}]))"}
    given = "".join(
        f"{name} = {read.get(kind, kind[:-1] + '_at(_[{i}])').format(i=i)}\n"
        for i, (kind, name) in enumerate(kernel.args)
    )
    entry.decorator_list, entry.returns = [], None
    parameters = [ast.arg(n) for n in ("_", "part", "parts")]
    entry.args = ast.arguments([], parameters, None, [], [], None, [])
    entry.body = ast.parse(given).body + entry.body
    made: dict[str, Any] = {}
    code = compile(ast.fix_missing_locations(text), f"<{kernel.name}>", "exec")
    exec(code, kernel.fn.__globals__, made)
    fn = made[kernel.fn.__name__]
    space = _space_of(fn, dtype, frozenset(kernel.flags))
    return _to_machine_code(types.FunctionType(fn.__code__, space, kernel.name), kernel.flags)


def _to_machine_code(entry: Any, flags: set[str]) -> tuple[str, bytes, Any]:
    n = _numba()
    nt = n.types
    signature = nt.void(nt.CPointer(nt.int64), nt.int64, nt.int64)
    with _lock:
        made = n.numba.cfunc(signature, fastmath=flags, error_model="numpy", _nrt=False)(entry)
        library = made._library
        _, kind, data = library.serialize_using_object_code()
    assert kind == "object"
    _keep_alive.append(made)
    return made._wrapper_name, data[0], library


@functools.lru_cache(maxsize=4096)
def _c_function(address: Address) -> Any:
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    return kind(address)


# --- running a program ----------------------------------------------------------------------------


def interpreter(a: Any, part: Any, parts: Any) -> None:
    """Run a table of (kernel, arguments, how): how = 1 where a kernel divides its work.

    ``a``: number of kernels, address of the table, address of a status (a kernel sets it to stop
    the program), address of a counter on which the threads meet after every kernel, its value now.
    """
    code, status = i64_at(a[1]), i64_at(a[2])  # type: ignore[name-defined]  # noqa: F821
    counter, goal = a[3], a[4]
    last = a[0] - 1
    for i in range(a[0]):
        if status[0] != 0:  # go on meeting the others: they may see the refusal a line later
            pass
        elif code[3 * i + 2] != 0:
            call(code[3 * i], code[3 * i + 1], part, parts)  # type: ignore[name-defined]  # noqa: F821
        elif part == 0:
            call(code[3 * i], code[3 * i + 1], 0, 1)  # type: ignore[name-defined]  # noqa: F821
        if parts > 1:
            goal += parts
            atomic_add(counter, 1)  # type: ignore[name-defined]  # noqa: F821
            if part != 0 and i == last:  # when all have come here, the first may free the table
                break
            turns = 0
            while atomic_load(counter) < goal:  # type: ignore[name-defined]  # noqa: F821
                turns += 1
                if turns > 20000:  # the other thread is not running: let it
                    give_way()  # type: ignore[name-defined]  # noqa: F821


def attend(a: Any, part: Any, parts: Any) -> None:
    """A worker: run every program that is posted; return when none came for a while.

    ``a``: address of the mailbox [ticket, address of the program, tickets this worker has seen],
    how long to wait, address of the interpreter.
    """
    box = i64_at(a[0])  # type: ignore[name-defined]  # noqa: F821
    turns = 0
    while turns < a[1]:
        if atomic_load(a[0]) != box[2]:  # type: ignore[name-defined]  # noqa: F821
            box[2] += 1
            call(a[2], box[1], part, parts)  # type: ignore[name-defined]  # noqa: F821
            turns = 0
        turns += 1


INTERPRETER = Generated("interpreter", inspect.getsource(interpreter))
ATTEND = Generated("attend", inspect.getsource(attend))
