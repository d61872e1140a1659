"""Every layer against PyTorch's, on PyTorch's own samples (its ``module_db``).

Initial weights from one seed, names in the state_dict, repr, outputs, gradients of inputs and
parameters, and second gradients.
"""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest

import kilograd as kg

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_modules import module_db

# What PyTorch has and kilograd does not (scope: docs/differences.md).
ABSENT = {"CrossMapLRN2d", "LinearCrossEntropyLoss", "SyncBatchNorm", "NLLLoss2d"}
INFOS = {i.name.removeprefix("nn."): i for i in module_db}
NAMES = sorted(n for n in INFOS if n not in ABSENT and not n.startswith("attention"))


def to_kg(value, memo=None):
    """PyTorch's arguments as ours (one object that is there twice stays one)."""
    memo = {} if memo is None else memo
    if isinstance(value, torch.Tensor):
        if id(value) not in memo:
            t = kg.tensor(value.detach().cpu().numpy().copy())
            memo[id(value)] = t.requires_grad_() if value.requires_grad else t
        return memo[id(value)]
    if isinstance(value, torch.dtype):
        return getattr(kg, str(value).removeprefix("torch."))
    if isinstance(value, torch.nn.utils.rnn.PackedSequence):
        return kg.nn.utils.rnn.PackedSequence(*(to_kg(v, memo) for v in value))
    if isinstance(value, (tuple, list)):
        return type(value)(to_kg(v, memo) for v in value)
    if isinstance(value, dict):
        return {k: to_kg(v, memo) for k, v in value.items()}
    if isinstance(value, torch.nn.TransformerEncoderLayer):
        layer = kg.nn.TransformerEncoderLayer(
            value.linear1.in_features, value.self_attn.num_heads, value.linear1.out_features,
            value.dropout.p, to_kg(value.activation), value.norm1.eps, value.self_attn.batch_first,
            value.norm_first, bias=value.linear1.bias is not None,
            dtype=to_kg(value.linear1.weight.dtype),
        )  # fmt: skip
        layer.load_state_dict(to_kg(dict(value.state_dict())))
        return layer
    if isinstance(value, torch.nn.Module):
        raise NotImplementedError(f"a {type(value).__name__} as an argument")
    if callable(value) and getattr(value, "__name__", "") in ("relu", "gelu"):
        return getattr(kg.nn.functional, value.__name__)
    return value


def tensors(value):
    """All tensors in a nest of tuples and lists, theirs or ours."""
    if isinstance(value, (torch.Tensor, kg.Tensor)):
        return [value]
    if isinstance(value, (tuple, list)):
        return [t for v in value for t in tensors(v)]
    if isinstance(value, dict):
        return [t for v in value.values() for t in tensors(v)]
    return []


def array(t):
    return t.detach().numpy() if isinstance(t, kg.Tensor) else t.detach().numpy(force=True)


def close(ours, theirs, what, scale=1.0):
    assert (ours is None) == (theirs is None), what
    if ours is None:
        return
    a, b = array(ours), array(theirs)
    assert a.shape == b.shape, (what, a.shape, b.shape)
    assert a.dtype == b.dtype, (what, a.dtype, b.dtype)
    eps = np.finfo(b.dtype).eps if b.dtype.kind == "f" else 0
    size = np.nan_to_num(np.abs(b), posinf=0).max(initial=1)
    np.testing.assert_allclose(
        a, b, rtol=100 * eps * scale, atol=30 * eps * scale * size, err_msg=str(what)
    )


def build(cls, args, kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cls(*args, **kwargs)


def samples(name, dtype, training, requires_grad=True):
    info = INFOS[name]
    torch.manual_seed(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield from info.module_inputs_func(
            info, device="cpu", dtype=dtype, requires_grad=requires_grad, training=training
        )


def pair(name, sample):
    """The same layer twice, theirs and ours, with the same weights."""
    theirs_cls, ours_cls = getattr(torch.nn, name), getattr(kg.nn, name)
    c = sample.constructor_input
    args, kwargs = c.args, {k: v for k, v in c.kwargs.items() if k not in ("device",)}
    torch.manual_seed(3)
    theirs = build(theirs_cls, args, kwargs)
    kg.manual_seed(3)
    return theirs, build(ours_cls, to_kg(args), to_kg(kwargs))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", NAMES)
def test_layer(name, training):
    dtype = torch.float64 if name.startswith("Fractional") else torch.float32
    count = 0
    for sample in samples(name, dtype, training):
        if sample.forward_input is None:
            continue
        count += 1
        theirs, ours = pair(name, sample)
        what = (name, sample.desc, sample.constructor_input.args, sample.constructor_input.kwargs)
        mine, other = ours.state_dict(), theirs.state_dict()
        assert list(mine) == list(other), what
        lazy = name.startswith("Lazy")
        if not lazy:
            for key in other:  # the same seed gives the same weights, to the last bit
                np.testing.assert_array_equal(array(mine[key]), array(other[key]), str((what, key)))
            assert repr(ours) == repr(theirs).replace("torch.", "kilograd."), what
        theirs.to(dtype).train(training)
        ours.to(to_kg(dtype)).train(training)
        f = sample.forward_input
        t_args, t_kwargs = f.args, f.kwargs
        k_args, k_kwargs = to_kg((f.args, f.kwargs))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(5)
            t_out = theirs(*copy.deepcopy(t_args) if lazy else t_args, **t_kwargs)
            kg.manual_seed(5)
            k_out = ours(*k_args, **k_kwargs)
        if lazy:
            continue
        t_outs, k_outs = tensors(t_out), tensors(k_out)
        assert len(t_outs) == len(k_outs), what
        for a, b in zip(k_outs, t_outs, strict=True):
            close(a, b, what)
        for key, value in theirs.state_dict().items():  # running statistics
            close(ours.state_dict()[key], value, (what, key))
        first_and_second_gradients(
            what, theirs, ours, t_args, t_kwargs, k_args, k_kwargs, t_outs, k_outs
        )
    assert count or name in ("Module",)


def first_and_second_gradients(
    what, theirs, ours, t_args, t_kwargs, k_args, k_kwargs, t_outs, k_outs
):
    leaves_t = [t for t in tensors((t_args, t_kwargs)) if t.requires_grad] + list(
        theirs.parameters()
    )
    leaves_k = [t for t in tensors((k_args, k_kwargs)) if t.requires_grad] + list(ours.parameters())
    keep = [i for i, t in enumerate(t_outs) if t.requires_grad]
    assert keep == [i for i, t in enumerate(k_outs) if t.requires_grad], what
    if not keep or not leaves_t:
        return
    rng = np.random.default_rng(0)
    up = [rng.standard_normal(array(t_outs[i]).shape).astype(array(t_outs[i]).dtype) for i in keep]
    gt = torch.autograd.grad(
        [t_outs[i] for i in keep], leaves_t, [torch.from_numpy(np.asarray(u)) for u in up],
        allow_unused=True, create_graph=True, retain_graph=True,
    )  # fmt: skip
    gk = kg.autograd.grad(
        [k_outs[i] for i in keep], leaves_k, [kg.tensor(u) for u in up],
        allow_unused=True, retain_graph=True,
    )  # fmt: skip
    for i, (a, b) in enumerate(zip(gk, gt, strict=True)):
        close(a, b, (what, "gradient", i), 4)
    pairs = [(i, g) for i, g in enumerate(gt) if g is not None and g.requires_grad]
    if not pairs:
        return
    gk = kg.autograd.grad(
        [k_outs[i] for i in keep], leaves_k, [kg.tensor(u) for u in up],
        allow_unused=True, create_graph=True,
    )  # fmt: skip
    norm_t = sum((g * g).sum() for _, g in pairs)
    norm_k = sum((gk[i] * gk[i]).sum() for i, _ in pairs)
    try:
        ht = torch.autograd.grad(norm_t, leaves_t, allow_unused=True)
    except (NotImplementedError, RuntimeError):
        return  # PyTorch has no second derivative of this one
    hk = [None] * len(leaves_k)  # a linear map: no second derivative
    if norm_k.requires_grad:
        hk = kg.autograd.grad(norm_k, leaves_k, allow_unused=True)
    for i, (a, b) in enumerate(zip(hk, ht, strict=True)):
        if a is None or b is None:  # one says "unused", the other "zero"
            rest = a if b is None else b
            assert rest is None or not array(rest).any(), (what, "second", i)
        else:
            size = max(1.0, float(np.nan_to_num(np.abs(array(b))).max(initial=0)))
            np.testing.assert_allclose(
                array(a), array(b), rtol=0, atol=2e-3 * size, err_msg=str((what, "second", i))
            )


def outcome(cls, sample, convert):
    """The exception of making and calling a layer, if any."""
    c, f = sample.constructor_input, sample.forward_input
    try:
        layer = cls(
            *convert(c.args), **convert({k: v for k, v in c.kwargs.items() if k != "device"})
        )
        if f is not None:
            layer(*convert(f.args), **convert(f.kwargs))
    except Exception as e:
        return e
    return None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [n for n in NAMES if INFOS[n].module_error_inputs_func])
def test_wrong_arguments_raise_the_same_types(name):
    info = INFOS[name]
    for case in info.module_error_inputs_func(info, "cpu", torch.float32, True, True):
        theirs = outcome(getattr(torch.nn, name), case.module_error_input, lambda v: v)
        ours = outcome(getattr(kg.nn, name), case.module_error_input, to_kg)
        assert isinstance(ours, type(theirs)), (repr(theirs), repr(ours))
