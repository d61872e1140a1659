"""Machine code and its cache on disk: whatever lies there, the numbers are right or made again."""

import itertools
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from kilograd.kernels.native import build, matmul, plan
from kilograd.kernels.native.build import T, gemm, native, share

pytestmark = pytest.mark.skipif(not build.available(), reason=build.why_not())

# Run in other processes: adds a constant to three numbers, for every constant on the command line.
SCRIPT = """
import sys
import numpy as np
from kilograd.kernels.native import build
for c in sys.argv[1:]:
    text = f'''def added(a, part, parts):
    x = f32_at(a[0])
    for i in range(a[1]):
        x[i] = tanh(x[i]) + f32({c})
'''
    x = np.zeros(3, np.float32)
    table = np.array([x.ctypes.data, 3], np.int64)
    address = build.Generated("added", text).address(np.float32)
    build._c_function(address)(table.ctypes.data, 0, 1)
    assert (x == float(c)).all(), x
print("numba" in sys.modules)
"""


def other_process(cache, *constants, script=SCRIPT, wait=True):
    env = {**os.environ, "KILOGRAD_CACHE": str(cache)}
    p = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, constants)],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    return finished(p) if wait else p


def finished(p):
    """Whether a process had to import Numba; it must have come to its end."""
    out, err = p.communicate(timeout=60)
    assert p.returncode == 0, err
    return out.strip() == "True"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty directory for machine code, of which nothing is in memory."""
    monkeypatch.setenv("KILOGRAD_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "_loaded", {})
    return tmp_path


@pytest.fixture
def compiled(monkeypatch):
    """The names of the kernels that were compiled, not loaded."""
    names = []
    for kind in (build.Kernel, build.Generated):
        original = kind.build

        def counting(self, dtype, original=original):
            names.append(self.name)
            return original(self, dtype)

        monkeypatch.setattr(kind, "build", counting)
    return names


def adding(c, name="adding"):
    text = f"def {name}(a, part, parts):\n    x = f32_at(a[0])\n    x[0] = x[0] + f32({c})\n"
    return build.Generated(name, text)


def run(kernel):
    x = np.zeros(1, np.float32)
    table = np.array([x.ctypes.data], np.int64)
    build._c_function(kernel.address(np.float32))(table.ctypes.data, 0, 1)
    return x[0]


def files(cache):
    return sorted(f for f in (cache / "native").rglob("*") if f.is_file())


# --- the cache --------------------------------------------------------------------------------------


def test_a_second_process_needs_no_numba(tmp_path):
    assert other_process(tmp_path, 1, 2) is True
    assert other_process(tmp_path, 2, 1) is False
    assert len(files(tmp_path)) == 2
    for f in files(tmp_path):  # object code behind a digest and two names; nothing Python would run
        data = f.read_bytes()
        assert data.startswith(build._HEADER)
        symbol, needs, code = data[len(build._HEADER) + 32 :].split(b"\0", 2)
        assert b"added" in symbol
        assert code[:4] in (b"\x7fELF", b"\xcf\xfa\xed\xfe") or sys.platform == "win32"
    assert other_process(tmp_path, 1, 3) is True  # one from disk, one new
    assert len(files(tmp_path)) == 3
    # The same symbol may stand in the files of two processes: each must stay itself.
    assert other_process(tmp_path, 3, 2, 1) is False
    assert other_process(tmp_path, 1, 3, 2) is False


def test_a_compiled_function_in_a_second_process(tmp_path):
    script = """
import sys, warnings
import numpy as np
import kilograd as kg
warnings.simplefilter("error")
x = kg.tensor(np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4))
f = kg.compile(lambda x: (x.tanh() @ x.T + 1).sum(0), backend="numba")
f(x)
with open(sys.argv[1], "wb") as out:
    out.write(f(x).array.tobytes())
print("numba" in sys.modules)
"""
    cache, one, two = tmp_path / "cache", tmp_path / "one", tmp_path / "two"
    assert other_process(cache, one, script=script) is True
    assert other_process(cache, two, script=script) is False
    assert one.read_bytes() == two.read_bytes()


def test_processes_at_once(tmp_path):
    processes = [other_process(tmp_path, 7, wait=False) for _ in range(4)]
    for p in processes:
        finished(p)
    (file,) = files(tmp_path)  # no half-written ones beside it
    assert other_process(tmp_path, 7) is False


def test_threads_at_once(cache, compiled):
    kernels = [adding(11, "together") for _ in range(8)]
    results = []
    threads = [threading.Thread(target=lambda k=k: results.append(run(k))) for k in kernels]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == [11] * 8 and compiled == ["together"]


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


FAULTS = {
    "empty": lambda d: b"",
    "one byte": lambda d: d[:1],
    "header only": lambda d: d[: len(build._HEADER)],
    "half the digest": lambda d: d[: len(build._HEADER) + 16],
    "no code": lambda d: d[: len(build._HEADER) + 32],
    "cut short": lambda d: d[: len(d) // 2],
    "one byte short": lambda d: d[:-1],
    "one byte long": lambda d: d + b"\0",
    "flipped in the header": lambda d: flipped(d, 3),
    "flipped in the digest": lambda d: flipped(d, len(build._HEADER) + 5),
    "flipped in the name": lambda d: flipped(d, len(build._HEADER) + 40),
    "flipped in the code": lambda d: flipped(d, len(d) - 200),
    "flipped at the end": lambda d: flipped(d, len(d) - 1),
    "garbage": lambda d: bytes(range(256)) * 20,
    "zeros": lambda d: bytes(len(d)),
    "garbage behind a header": lambda d: build._HEADER + bytes(range(256)) * 20,
    "text": lambda d: "ümläute\n".encode() * 30,
    "a pickle": lambda d: b"\x80\x04cos\nsystem\n(S'exit 1'\ntR.",
}


def test_faulty_files(cache, compiled):
    assert run(adding(3)) == 3
    (file,) = files(cache)
    good = file.read_bytes()
    build._loaded.clear()
    assert run(adding(3)) == 3 and compiled == ["adding"]
    for name, fault in FAULTS.items():
        file.write_bytes(fault(good))
        compiled.clear()
        build._loaded.clear()
        assert run(adding(3)) == 3, name
        assert compiled == ["adding"], name
        build._loaded.clear()
        assert run(adding(3)) == 3
        assert compiled == ["adding"], f"{name}: not written again"


def test_a_file_of_another_kernel(cache, compiled):
    assert run(adding(3)) == 3
    (three,) = files(cache)
    assert run(adding(5)) == 5
    (five,) = set(files(cache)) - {three}
    shutil.copy(three, five)
    build._loaded.clear()
    compiled.clear()
    assert run(adding(5)) == 5 and run(adding(3)) == 3
    assert compiled == ["adding"]
    build._loaded.clear()
    assert run(adding(5)) == 5 and compiled == ["adding"]


def test_code_that_needs_what_is_not_there(cache, compiled):
    """LLVM ends the process over a name it cannot find: such a file must not get there."""
    import hashlib

    assert run(adding(3)) == 3
    (file,) = files(cache)
    data = file.read_bytes()
    symbol, _, code = data[len(build._HEADER) + 32 :].split(b"\0", 2)
    for name, needs in ((symbol, b"no_such_function_anywhere"), (b"no_such_kernel", b"")):
        rest = b"\0".join([name, needs, code])
        digest = hashlib.sha256(file.name.encode() + rest).digest()
        file.write_bytes(build._HEADER + digest + rest)
        build._loaded.clear()
        compiled.clear()
        assert run(adding(3)) == 3 and compiled == ["adding"]


def test_directories_in_the_way(cache, compiled):
    assert run(adding(3)) == 3
    (file,) = files(cache)
    file.unlink()
    file.mkdir()  # in place of the file
    build._loaded.clear()
    assert run(adding(3)) == 3 and compiled == ["adding"] * 2
    assert files(cache) == []  # and no temporary file stays
    shutil.rmtree(cache / "native")
    (cache / "native").mkdir()
    (cache / "native" / file.name[:2]).write_text("a file in place of the directory")
    build._loaded.clear()
    assert run(adding(3)) == 3 and compiled == ["adding"] * 3


def test_nowhere_to_write(tmp_path, monkeypatch, compiled):
    monkeypatch.setattr(build, "_loaded", {})
    (tmp_path / "file").write_text("no directory")
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0)
    try:
        for place in (tmp_path / "file" / "below", closed / "in", "/proc/nowhere"):
            monkeypatch.setenv("KILOGRAD_CACHE", str(place))
            build._loaded.clear()
            assert run(adding(3)) == 3
    finally:
        closed.chmod(0o700)
    assert len(compiled) == 3


def test_no_cache_on_disk(tmp_path, monkeypatch, compiled):
    monkeypatch.setattr(build, "_loaded", {})
    monkeypatch.setenv("KILOGRAD_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert build.cache_dir() is None
    assert run(adding(3)) == 3 and run(adding(3)) == 3 and compiled == ["adding"]
    assert list(tmp_path.iterdir()) == []
    monkeypatch.delenv("KILOGRAD_CACHE")
    if sys.platform.startswith("linux"):
        assert build.cache_dir() == tmp_path / "kilograd" / "native"


def test_no_home(monkeypatch, compiled):
    """A container's user may have no home directory."""

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(build, "_loaded", {})
    for name in ("KILOGRAD_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(build.Path, "home", no_home)
    assert build.cache_dir() is None
    assert run(adding(3)) == 3 and compiled == ["adding"]


def test_another_source_is_another_key(cache, tmp_path, compiled):
    assert run(adding(3)) == 3 and run(adding(4)) == 4 and run(adding(3, "adding_more")) == 3
    assert len(files(cache)) == 3 == len(compiled)
    adding(3).address(np.float64)
    assert len(files(cache)) == 4  # the element type is a part of the key
    build.Generated("adding", adding(3).text, sums=True).address(np.float32)
    assert len(files(cache)) == 5  # and what LLVM may do


def test_another_file_is_another_key(cache, tmp_path, monkeypatch, compiled):
    """A kernel in a module depends on all of its file (helpers too)."""
    monkeypatch.syspath_prepend(str(tmp_path))
    text = """
from kilograd.kernels.native.build import T, inline, native

@inline
def helper(x):
    return x + T({c})

@native("T* x")
def of_a_module(x):
    x[0] = helper(x[0])
"""
    for k, c in enumerate((1, 2)):
        name = f"kernels_for_a_test_{k}"
        (tmp_path / f"{name}.py").write_text(text.format(c=c))
        module = __import__(name)
        for dtype in (np.float32, np.float64):
            x = np.zeros(1, dtype)
            module.of_a_module(x)
            assert x[0] == c
    assert len(files(cache)) == 4 and len(compiled) == 4


# --- declarations -----------------------------------------------------------------------------------


def test_declarations():
    with pytest.raises(TypeError, match="the signature says"):
        native("T* x, i64 n")(lambda x: None)
    with pytest.raises(TypeError, match="the signature says"):
        native("T* x, i64 n")(lambda n, x: None)
    shared = native("T* x")(lambda x, part, parts: None)
    assert shared.divides and not native("T* x")(lambda x: None).divides
    with pytest.raises(TypeError, match="takes 1 arguments, got 2"):
        shared.pack((1, 2), np.float32)
    for name in (T, build.gemm, build.exp, build.f64):
        with pytest.raises(TypeError, match="compiled code"):
            name(*[0] * (16 if name is build.gemm else 1))


def test_bits():
    x = np.zeros(3)
    assert build.bits(x) == x.ctypes.data and build.bits(None) == 0
    assert build.bits(-7) == build.bits(np.int64(-7)) == build.bits(np.int32(-7)) == -7
    assert build.bits(True) == 1
    for v in (0.1, -0.0, float("inf"), float("nan"), np.float32(0.1)):
        back = np.int64(build.bits(v)).view(np.float64)
        assert back.tobytes() == np.float64(v).tobytes()


def test_share_covers_everything_once():
    for n, parts in itertools.product((0, 1, 2, 3, 7, 64, 1000, 2**40 + 1), (1, 2, 3, 5, 16)):
        cuts = [share(n, k, parts) for k in range(parts)]
        assert cuts[0][0] == 0 and cuts[-1][1] == n
        for (_, stop), (start, _) in itertools.pairwise(cuts):
            assert stop == start
        sizes = [b - a for a, b in cuts]
        assert min(sizes) >= 0 and max(sizes) - min(sizes) <= 1


@native("T* x, f64* y, i64 n")
def counted(x, y, n, part, parts):
    lo, hi = share(n, part, parts)
    for i in range(lo, hi):
        x[i] += T(1)
        y[i] += T(0.5)


def test_share_in_compiled_code():
    code = build._c_function(counted.address(np.float32))
    for n, parts in ((0, 2), (1, 3), (10, 3), (97, 4)):
        x, y = np.zeros(n, np.float32), np.zeros(n)
        table = counted.pack((x, y, n), np.float32)
        for part in range(parts):
            code(table.ctypes.data, part, parts)
        assert (x == 1).all() and (y == 0.5).all()


def test_pointers_of_every_dtype():
    lines = ["def converting(a, part, parts):"]
    codes = list(build._CODES)
    for k, code in enumerate(codes):
        lines.append(f"    x{k} = {code}_at(a[{2 * k}])")
        lines.append(f"    y{k} = f64_at(a[{2 * k + 1}])")
        lines += [
            "    for i in range(2):",
            f"        y{k}[i] = f64(x{k}[i])",
            f"        x{k}[i] = x{k}[1 - i]",
        ]
    kernel = build.Generated("converting", "\n".join(lines) + "\n")
    table, kept = [], []
    for dtype in build._CODES.values():
        low = np.finfo(dtype).min if np.dtype(dtype).kind == "f" else np.iinfo(dtype).min
        x, y = np.array([low, 100], dtype), np.zeros(2)
        kept.append((x, x.copy(), y))
        table += [x.ctypes.data, y.ctypes.data]
    table = np.array(table, np.int64)
    build._c_function(kernel.address(np.float32))(table.ctypes.data, 0, 1)
    for x, before, y in kept:
        assert (y == before.astype(np.float64)).all(), x.dtype
        assert (x == 100).all()  # the other element, twice


@native("T* x, T* y, i64 n, f64 scale, T shift")
def affine(x, y, n, scale, shift):
    for i in range(n):
        y[i] = x[i] * T(scale) + shift


def test_numbers_in_both_element_types():
    for dtype in (np.float32, np.float64):
        x = np.linspace(-1, 1, 9).astype(dtype)
        y = np.empty_like(x)
        affine(x, y, 9, 0.1, -0.3)
        # (a fused multiply-add rounds once)
        np.testing.assert_allclose(
            y, x * dtype(0.1) + dtype(-0.3), rtol=1e-6 if dtype is np.float32 else 1e-14
        )
        affine(x, y, 9, float("inf"), 0.0, dtype=dtype)
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(y, x * dtype(np.inf))


# --- products ---------------------------------------------------------------------------------------


@native(
    "T* a, i64 a_at, i64 ta, i64 lda, T* b, i64 b_at, i64 tb, i64 ldb, T* c, i64 c_at, i64 ldc, "
    "i64 m, i64 n, i64 k, T alpha, T beta"
)
def one_product(a, a_at, ta, lda, b, b_at, tb, ldb, c, c_at, ldc, m, n, k, alpha, beta):
    gemm(ta, tb, m, n, k, alpha, a, a_at, lda, b, b_at, ldb, beta, c, c_at, ldc)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gemm(dtype):
    rng = np.random.default_rng(0)
    rtol = 1e-4 if dtype is np.float32 else 1e-12
    for (m, n, k), ta, tb in itertools.product([(1, 1, 1), (3, 5, 4), (17, 2, 9)], (0, 1), (0, 1)):
        for pad, at, alpha, beta in ((0, 0, 1.0, 0.0), (3, 5, -0.5, 2.0)):
            lda, ldb, ldc = (m if ta else k) + pad, (k if tb else n) + pad, n + pad
            a, b, c = (rng.normal(size=2000).astype(dtype) for _ in range(3))

            def matrix(x, rows, columns, ld, at=at):
                return np.lib.stride_tricks.as_strided(
                    x[at:], (rows, columns), (ld * x.itemsize, x.itemsize)
                )

            left = matrix(a, k, m, lda).T if ta else matrix(a, m, k, lda)
            right = matrix(b, n, k, ldb).T if tb else matrix(b, k, n, ldb)
            want = c.copy()
            matrix(want, m, n, ldc)[...] = alpha * left @ right + beta * matrix(c, m, n, ldc)
            one_product(a, at, ta, lda, b, at, tb, ldb, c, at, ldc, m, n, k, alpha, beta)
            np.testing.assert_allclose(
                c, want, rtol=rtol, atol=rtol
            )  # what lies between rows is untouched


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shared_products(dtype):
    """Products divided among threads: by rows, by columns, by matrices of a batch."""
    rng = np.random.default_rng(1)
    rtol = 1e-4 if dtype is np.float32 else 1e-12
    code = build._c_function(matmul.product.address(dtype))
    for (m, n, k), ta, tb, parts in itertools.product(
        [(7, 3, 5), (2, 9, 4), (1, 1, 3)], (0, 1), (0, 1), (1, 2, 3)
    ):
        a, b = rng.normal(size=(k, m) if ta else (m, k)), rng.normal(size=(n, k) if tb else (k, n))
        a, b, c = a.astype(dtype), b.astype(dtype), np.full((m, n), np.nan, dtype)
        table = matmul.product.pack((a, ta, a.shape[1], b, tb, b.shape[1], c, n, m, n, k), dtype)
        for part in range(parts):
            code(table.ctypes.data, part, parts)
        np.testing.assert_allclose(c, (a.T if ta else a) @ (b.T if tb else b), rtol=rtol, atol=rtol)
    code = build._c_function(matmul.products.address(dtype))
    a, b = rng.normal(size=(2, 3, 4, 5)).astype(dtype), rng.normal(size=(3, 5, 6)).astype(dtype)
    c = np.full((2, 3, 4, 6), np.nan, dtype)
    numbers = (a, 0, 5, 60, 20, b, 0, 6, 0, 30, c, 6, 72, 24, 2, 3, 4, 6, 5)
    table = matmul.products.pack(numbers, dtype)
    for parts in (1, 2, 4, 7):
        c[...] = np.nan
        for part in range(parts):
            code(table.ctypes.data, part, parts)
        np.testing.assert_allclose(c, a @ b, rtol=rtol, atol=rtol)


# --- the interpreter, and the plan that runs at once --------------------------------------------------


def steps_of(*kernels):
    """A program's head for kernels (address, arguments), and what must be kept alive."""
    tables = [np.array(args, np.int64) for _, args in kernels]
    code = np.array(
        [[f, t.ctypes.data, 0] for (f, _), t in zip(kernels, tables, strict=True)], np.int64
    )
    status, counter = np.zeros(1, np.int64), np.zeros(1, np.int64)
    head = np.array(
        [len(code), code.ctypes.data, status.ctypes.data, counter.ctypes.data, 0], np.int64
    )
    return head, status, (tables, code, counter)


def test_a_program_stops_at_a_status():
    plus = adding(1).address(np.float32)
    refusing = build.Generated(
        "refusing", "def refusing(a, part, parts):\n    i64_at(a[0])[0] = 1\n"
    )
    interpret = build._c_function(build.INTERPRETER.address(np.float32))
    x = np.zeros(1, np.float32)
    at = [x.ctypes.data]
    head, status, kept = steps_of((plus, at), (plus, at))
    interpret(head.ctypes.data, 0, 1)
    assert x[0] == 2
    head, status, kept = steps_of((plus, at), (refusing.address(np.float32), [0]), (plus, at))
    kept[0][1][0] = status.ctypes.data
    interpret(head.ctypes.data, 0, 1)
    assert x[0] == 3 and status[0] == 1


def test_threads_leave_a_refused_program_together():
    """All threads go down the same lines, even if one sees the refusal earlier than another."""
    plus = adding(1).address(np.float32)
    refusing = build.Generated(
        "refusing", "def refusing(a, part, parts):\n    i64_at(a[0])[0] = 1\n"
    )
    interpret = build._c_function(build.INTERPRETER.address(np.float32))
    x = np.zeros(1, np.float32)
    at = [x.ctypes.data]
    head, status, kept = steps_of(
        *[(plus, at)] * 3, (refusing.address(np.float32), [0]), *[(plus, at)] * 3
    )
    kept[0][3][0] = status.ctypes.data
    for _ in range(300):
        status[0], head[4] = 0, kept[2][0]
        other = threading.Thread(target=interpret, args=(head.ctypes.data, 1, 2), daemon=True)
        other.start()
        interpret(head.ctypes.data, 0, 2)
        other.join(10)
        assert not other.is_alive()
    assert x[0] == 3 * 300


def test_at_once():
    p = plan.AtOnce()
    x = np.arange(6.0).reshape(2, 3)
    assert p.contiguous(x, None) and not p.contiguous(x.T)
    assert p.as_contiguous(x) is x and p.as_contiguous(x.T).flags.c_contiguous
    assert p.empty((2,), np.float32).shape == (2,) and not p.zeros((2,), np.float32).any()
    y = p.zeros((2, 3), np.float32)
    p.copy(y, x)
    assert (y == x).all() and p.view(y, (0, slice(1, 3))).base is y
    assert plan.floats(x, None) and not plan.floats(x, y) and not plan.floats(np.zeros(1, int))
