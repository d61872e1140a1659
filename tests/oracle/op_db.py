"""PyTorch's own test inputs (``torch.testing._internal`` op_db) run through kilograd.

``python -m tests.oracle.op_db add sum nn.functional.relu`` prints what differs.
"""

from __future__ import annotations

import collections
import functools
import operator
import sys
import traceback
import warnings
from typing import Any

import numpy as np
import torch

import kilograd as kg

# Where the name in PyTorch's database is not the name of a function.
SPECIAL: dict[str, Any] = {
    "__getitem__": operator.getitem,
    "__radd__": lambda x, y: y + x, "__rsub__": lambda x, y: y - x,
    "__rmul__": lambda x, y: y * x, "__rdiv__": lambda x, y: y / x,
    "__rpow__": lambda x, y: y**x, "__rmod__": lambda x, y: y % x,
    "__rand__": lambda x, y: y & x, "__ror__": lambda x, y: y | x,
    "__rxor__": lambda x, y: y ^ x, "__rmatmul__": lambda x, y: y @ x,
    "where": lambda x, condition, other: kg.where(condition, x, other),
    "nn.functional.embedding": lambda w, i, **k: kg.nn.functional.embedding(i, w, **k),
    "nn.functional.embedding_bag": lambda w, i, **k: kg.nn.functional.embedding_bag(i, w, **k),
    "zero_": lambda x: x.clone().zero_(), "resize_": None, "resize_as_": None,
    "T": lambda x: x.T, "mT": lambda x: x.mT, "H": lambda x: x.H, "mH": lambda x: x.mH,
    "einsum": lambda xs, equation: kg.einsum(equation, xs),
}  # fmt: skip
# ... and where a variant of a name is more than the function.
VARIANTS: dict[tuple[str, str], Any] = {
    ("normal", "number_mean"): lambda std, mean, *a, **k: kg.normal(mean, std, *a, **k),
    ("normal", "in_place"): lambda x, *a, **k: x.clone().normal_(*a, **k),
    ("linalg.pinv", "singular"): lambda a, b: kg.linalg.pinv(a @ b.mT),
    ("linalg.lstsq", "grad_oriented"): lambda a, b, driver: kg.linalg.lstsq(a, b, driver=driver)[
        :2
    ],
}
# Factors that are unique up to signs: what PyTorch makes of them for its own gradient checks is compared.
UP_TO_SIGNS = {"linalg.svd", "svd", "linalg.eigh", "linalg.eig"}


class Unconvertible(Exception):
    """An input that only PyTorch can have (another device, a sparse layout...)."""


def resolve(name: str) -> Any:
    """kilograd's function of a name in op_db."""
    if name in SPECIAL:
        if SPECIAL[name] is None:
            raise KeyError(name)
        return SPECIAL[name]
    if name.startswith(("_refs", "ops.")):
        raise KeyError(name)
    obj: Any = kg
    try:
        for part in name.split("."):
            obj = getattr(obj, part)
        if not isinstance(obj, kg.dtype):  # kg.float is a dtype; x.float() is the operation
            return obj
    except AttributeError:
        pass
    if "." not in name and hasattr(kg.Tensor, name):
        return lambda x, *a, **k: getattr(x, name)(*a, **k)
    raise KeyError(name)


def dtype(d: torch.dtype) -> Any:
    name = str(d).removeprefix("torch.")
    try:
        return {"bool": kg.bool}.get(name) or getattr(kg, name)
    except AttributeError:
        raise Unconvertible(name) from None


Memory = dict[int, np.ndarray]


def convert(x: Any, requires_grad: bool = False, memory: Memory | None = None) -> Any:
    """PyTorch's tensors, dtypes and sizes, in any nest, as kilograd's.

    Tensors that share memory there share it here, with the same strides.
    """
    memory = {} if memory is None else memory
    rec = functools.partial(convert, requires_grad=requires_grad, memory=memory)
    if isinstance(x, torch.Tensor):
        if x.device.type != "cpu" or x.layout is not torch.strided or x.is_quantized:
            raise Unconvertible(x.device)
        base = x.detach().resolve_conj().resolve_neg()
        try:
            array = base.numpy()
        except (TypeError, ValueError) as e:  # NumPy lacks the dtype, or so many dimensions
            raise Unconvertible(str(x.dtype)) from e
        key = base.untyped_storage().data_ptr()
        if key not in memory:
            whole = torch.empty(0, dtype=torch.uint8).set_(base.untyped_storage())
            memory[key] = whole.numpy().copy()
        flat = memory[key].view(array.dtype) if array.size else np.empty(0, array.dtype)
        shared = np.lib.stride_tricks.as_strided(
            flat[base.storage_offset() :] if array.size else flat, array.shape, array.strides
        )
        t = kg.from_numpy(shared)
        if requires_grad and x.requires_grad:
            t.requires_grad = True
        return t
    if isinstance(x, torch.dtype):
        return dtype(x)
    if isinstance(x, torch.device):
        if x.type != "cpu":
            raise Unconvertible(x)
        return kg.device("cpu")
    if isinstance(x, torch.Size):
        return kg.Size(x)
    if isinstance(x, (torch.layout, torch.memory_format)):
        raise Unconvertible(x)
    if isinstance(x, torch.Generator):
        raise Unconvertible(x)
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return tuple(rec(y) for y in x)
    if isinstance(x, (list, tuple)):
        return type(x)(rec(y) for y in x)
    if isinstance(x, dict):
        return {k: rec(v) for k, v in x.items()}
    if callable(x) and getattr(x, "__module__", "").startswith("torch"):
        raise Unconvertible(x)
    return x


def leaves(x: Any, kind: type) -> list[Any]:
    if isinstance(x, kind):
        return [x]
    if isinstance(x, (list, tuple)):
        return [t for y in x for t in leaves(y, kind)]
    if isinstance(x, dict):
        return [t for y in x.values() for t in leaves(y, kind)]
    return []


def array(t: Any) -> np.ndarray:
    if isinstance(t, torch.Tensor):
        return t.detach().resolve_conj().resolve_neg().numpy(force=True)
    return np.asarray(t.array) if isinstance(t, kg.Tensor) else np.asarray(t)


TOLERANCE = {"float16": (1e-2, 1e-2), "float32": (1e-4, 2e-5), "float64": (1e-6, 1e-8),
             "complex64": (1e-4, 2e-5), "complex128": (1e-6, 1e-8)}  # fmt: skip


def same(ours: Any, theirs: Any, what: str, loose: float = 1.0, values: bool = True) -> None:
    """Assert equal structure, dtype, shape and (unless told not to) value."""
    if isinstance(theirs, torch.Tensor):
        assert isinstance(ours, kg.Tensor), f"{what}: {type(ours).__name__}, not a Tensor"
        a, b = array(ours), array(theirs)
        assert str(a.dtype) == str(b.dtype), f"{what}: dtype {a.dtype}, expected {b.dtype}"
        assert a.shape == b.shape, f"{what}: shape {a.shape}, expected {b.shape}"
        if not values:
            return
        rtol, atol = TOLERANCE.get(str(a.dtype), (0, 0))
        with np.errstate(all="ignore"):
            np.testing.assert_allclose(
                a, b, rtol=rtol * loose, atol=atol * loose, err_msg=what, equal_nan=True
            )
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs), f"{what}: {len(ours)} results, expected {len(theirs)}"
        for i, (o, t) in enumerate(zip(ours, theirs, strict=True)):
            same(o, t, f"{what}[{i}]", loose, values)
    elif isinstance(theirs, torch.dtype):
        assert ours == dtype(theirs), f"{what}: {ours}, expected {theirs}"
    elif isinstance(theirs, torch.Size):
        assert tuple(ours) == tuple(theirs), what
    elif isinstance(theirs, float):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, err_msg=what)
    else:
        assert ours == theirs, f"{what}: {ours!r}, expected {theirs!r}"


# Refusals of PyTorch's that are not ours, each in docs/differences.md: kilograd computes the result before
# it writes, so what PyTorch cannot do in place is right here.
NOT_REFUSED = {("cat", 6), ("gather", 7), ("arange", 6)}
# PyTorch computes these in float16 itself; kilograd in float32, and is nearer to the truth.
NOT_IN_HALF = {"nn.functional.grid_sample", "nn.functional.conv_transpose3d", "matrix_exp",
               "nn.functional.multi_head_attention_forward", "nn.functional.soft_margin_loss"}  # fmt: skip
UNSTABLE = ("sort", "argsort", "topk", "kthvalue")  # equal elements may come in any order


def same_order(name: str, ours: Any, theirs: Any, args: Any) -> None:
    """Values agree, and indices point at those values (which of equal ones is not defined)."""
    x = array(args[0])
    if name == "argsort":
        assert ours.dtype == kg.int64 and tuple(ours.shape) == tuple(theirs.shape)
        for axis in range(max(x.ndim, 1)):
            a, b = (
                np.take_along_axis(np.atleast_1d(x), np.atleast_1d(array(i)), axis)
                for i in (ours, theirs)
            )
            if np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
                return
        raise AssertionError("argsort gives another order")
    same(ours[0], theirs[0], "values")
    assert ours[1].dtype == kg.int64 and tuple(ours[1].shape) == tuple(theirs[1].shape)
    if x.ndim and array(ours[0]).size:
        values, index = array(ours[0]), array(ours[1])
        if index.ndim < x.ndim:  # kthvalue without keepdim: along the axis it was asked for
            axis = args[2] if len(args) > 2 else -1
            values, index = np.expand_dims(values, axis), np.expand_dims(index, axis)
        assert any(
            index.max() < x.shape[axis]
            and all(
                n == m or a == axis
                for a, (n, m) in enumerate(zip(x.shape, index.shape, strict=True))
            )
            and np.array_equal(
                np.take_along_axis(x, index, axis), values, equal_nan=x.dtype.kind == "f"
            )
            for axis in range(x.ndim)
        ), "indices do not point at the values"


def differentiable(outs: Any, kind: type) -> list[Any]:
    return [t for t in leaves(outs, kind) if array(t).dtype.kind == "f" and t.requires_grad]


def check_sample(
    op: Any, fn: Any, s: Any, grads: bool, loose: float, values: bool = True, orders: int = 2
) -> None:
    """One sample of PyTorch's: values, gradients with a random upstream, second gradients."""
    memory: Memory = {}
    args = convert((s.input, *s.args), grads, memory)
    kwargs = convert(s.kwargs, grads, memory)
    torch.manual_seed(42)  # what op_db's own wrappers seed with
    kg.manual_seed(42)
    t_out = op.op(s.input, *s.args, **s.kwargs)
    k_out = fn(*args, **kwargs)
    if op.name in UP_TO_SIGNS:
        process = s.output_process_fn_grad
        t_out, k_out = process(t_out), process(k_out)
    if op.name in UNSTABLE:
        same_order(op.name, k_out, t_out, args)
    else:
        same(k_out, t_out, "value", loose, values)
    if not grads or not values:
        return
    t_in = [t for t in leaves((s.input, s.args, s.kwargs), torch.Tensor) if t.requires_grad]
    k_in = [t for t in leaves((args, kwargs), kg.Tensor) if t.requires_grad]
    t_outs, k_outs = differentiable(t_out, torch.Tensor), differentiable(k_out, kg.Tensor)
    assert len(t_outs) == len(k_outs), f"{len(k_outs)} outputs require grad, expected {len(t_outs)}"
    if not t_in or not t_outs or all(t.numel() == 0 for t in t_outs):
        return
    rng = np.random.default_rng(0)
    ups = [rng.standard_normal(tuple(t.shape)).astype(array(t).dtype) for t in t_outs]
    second = orders > 1 and op.supports_gradgrad and sum(t.numel() for t in t_in) < 2000
    t_g = torch.autograd.grad(
        t_outs, t_in, [torch.from_numpy(np.asarray(u)) for u in ups],
        allow_unused=True, create_graph=second,
    )  # fmt: skip
    k_g = kg.autograd.grad(
        k_outs, k_in, [kg.from_numpy(np.asarray(u)) for u in ups],
        allow_unused=True, create_graph=False, retain_graph=second,
    )  # fmt: skip
    same_grads(k_g, t_g, k_in, "gradient", loose)
    if not second:
        return
    k_g = kg.autograd.grad(
        k_outs, k_in, [kg.from_numpy(np.asarray(u)) for u in ups],
        allow_unused=True, create_graph=True,
    )  # fmt: skip
    same_grads(k_g, t_g, k_in, "gradient (create_graph)", loose)
    pairs = [(a, b) for a, b in zip(t_g, k_g, strict=True) if a is not None and a.requires_grad]
    if not pairs:
        return
    ups = [rng.standard_normal(tuple(a.shape)).astype(array(a).dtype) for a, _ in pairs]
    try:
        t_gg = torch.autograd.grad(
            [a for a, _ in pairs], t_in, [torch.from_numpy(np.asarray(u)) for u in ups],
            allow_unused=True,
        )  # fmt: skip
    except RuntimeError as e:
        if "not implemented" in str(e):  # PyTorch's own fused kernels, sometimes
            return
        raise
    live = [
        (b, u) for (_, b), u in zip(pairs, ups, strict=True) if b is not None and b.requires_grad
    ]
    k_gg: Any = (None,) * len(k_in)
    if live:
        k_gg = kg.autograd.grad(
            [b for b, _ in live], k_in, [kg.from_numpy(np.asarray(u)) for _, u in live],
            allow_unused=True,
        )  # fmt: skip
    same_grads(k_gg, t_gg, k_in, "second gradient", loose * 10)


def same_grads(ours: Any, theirs: Any, inputs: Any, what: str, loose: float) -> None:
    for i, (o, t, x) in enumerate(zip(ours, theirs, inputs, strict=True)):
        if o is None:
            assert t is None or not np.any(array(t)), f"{what} {i}: none, expected {t}"
            continue
        assert o.dtype == x.dtype, f"{what} {i}: dtype {o.dtype} for an input of {x.dtype}"
        assert tuple(o.shape) == tuple(x.shape), f"{what} {i}: {o.shape} for {x.shape}"
        if t is None:
            assert not np.any(array(o)), f"{what} {i}: expected none"
            continue
        same(o, t, f"{what} {i}", loose)


@functools.cache
def database() -> dict[str, list[Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
    found: dict[str, list[Any]] = collections.defaultdict(list)
    for op in op_db:
        found[op.name].append(op)
    return dict(found)


# Decompositions are unique up to signs, and comparing them is ill-conditioned.
LOOSE = {"linalg.pinv": 100, "linalg.lstsq": 100, "pinverse": 100}


def run(name: str, *, values: bool = True, max_failures: int = 6) -> tuple[int, list[str]]:
    """Run every sample of a name: (how many ran, what failed)."""
    count, failures = 0, []
    try:
        plain = resolve(name)
    except KeyError:
        return 0, [f"{name}: no such function"]
    for op in database().get(name, []):
        label = name + (f"[{op.variant_test_name}]" if op.variant_test_name else "")
        fn = VARIANTS.get((name, op.variant_test_name)) or plain
        # second gradients of a norm at zero are PyTorch's nan, and no test of its own has them
        orders = 1 if op.variant_test_name == "subgradients_at_zero" else 2
        for dt in (
            torch.float64,
            torch.float32,
            torch.int64,
            torch.bool,
            torch.uint8,
            torch.float16,
        ):
            if dt not in op.dtypes or (dt is torch.float16 and name in NOT_IN_HALF):
                continue
            grads = dt is torch.float64 and op.supports_autograd
            torch.manual_seed(0)
            samples = op.sample_inputs("cpu", dt, requires_grad=grads)
            i = -1
            while True:
                try:
                    s = next(samples)
                except StopIteration:
                    break
                i += 1
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        check_sample(op, fn, s, grads, LOOSE.get(name, 1.0), values, orders)
                    count += 1
                except Unconvertible:
                    continue
                except Exception as e:
                    count += 1
                    shapes = summary((s.input, s.args, s.kwargs))
                    where = traceback.extract_tb(e.__traceback__)[-1]
                    failures.append(
                        f"{label} {dt} #{i} {shapes}: {type(e).__name__}: "
                        f"{' '.join(str(e).split())[:400]} ({where.filename.split('/')[-1]}:{where.lineno})"
                    )
                if len(failures) >= max_failures:
                    return count, failures
        if op.error_inputs_func is not None:
            errors = list(op.error_inputs("cpu"))
            for i, bad in enumerate(errors):
                if (label, i) in NOT_REFUSED:
                    continue
                s = bad.sample_input
                memory: Memory = {}
                try:
                    args = convert((s.input, *s.args), memory=memory)
                    kwargs = convert(s.kwargs, memory=memory)
                except Unconvertible:
                    continue
                if bad.error_type is Exception and not refused_by_pytorch(op, s):
                    continue  # some are errors of Python's binding, not of the operation
                count += 1
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        fn(*args, **kwargs)
                except Exception as e:
                    if isinstance(e, bad.error_type) or (bad.error_type is Exception):
                        continue
                    got = f"{type(e).__name__}: {e}"
                else:
                    got = "nothing was raised"
                failures.append(
                    f"{label} error #{i} {summary((s.input, s.args, s.kwargs))}: expected "
                    f"{bad.error_type.__name__} ({bad.error_regex[:100]}), got {got[:200]}"
                )
    return count, failures


def refused_by_pytorch(op: Any, s: Any) -> bool:
    if not isinstance(s.input, torch.Tensor):
        return False
    try:
        op.op(s.input, *s.args, **s.kwargs)
    except Exception:
        return True
    return False


def summary(x: Any) -> str:
    if isinstance(x, torch.Tensor):
        return f"{str(x.dtype)[6:]}{list(x.shape)}"
    if isinstance(x, (list, tuple)):
        return "(" + ", ".join(summary(y) for y in x) + ")"
    if isinstance(x, dict):
        return "{" + ", ".join(f"{k}={summary(v)}" for k, v in x.items()) + "}"
    return repr(x)[:60]


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        n, bad = run(wanted)
        print(f"{'ok  ' if not bad else 'FAIL'} {wanted}: {n} samples, {len(bad)} failed")
        for line in bad:
            print("    ", line)
