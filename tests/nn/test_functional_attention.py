import itertools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch.nn.attention import SDPBackend, sdpa_kernel

import kilograd as kg
from tests.nn.compare import close, same

F, T = kg.nn.functional, torch.nn.functional


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def torch_by_plain_mathematics():
    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
        yield


@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (2, 1, 3)])
def test_attention(rng, lead):
    q, k, v = (rng.standard_normal((*lead, n, d)) for n, d in ((4, 5), (6, 5), (6, 3)))
    masks = [None, rng.random((4, 6)) < 0.7, rng.standard_normal((4, 6)), rng.standard_normal((*lead, 4, 6)),
             rng.random(6) < 0.7]  # fmt: skip
    for mask, scale in itertools.product(masks, (None, 0.3)):
        if mask is not None and mask.dtype == bool:
            mask.reshape(-1, 6)[0] = True
        if mask is not None and mask.ndim == 1 and not lead:
            continue
        extra = () if mask is None else (mask,)
        same(lambda *x, s=scale: F.scaled_dot_product_attention(*x, scale=s),
             lambda *x, s=scale: T.scaled_dot_product_attention(*x, scale=s), q, k, v, *extra,
             second=True, rtol=1e-5, atol=1e-8)  # fmt: skip
    same(F.scaled_dot_product_attention, T.scaled_dot_product_attention, q, k, v, is_causal=True,
         second=True, rtol=1e-5, atol=1e-8)  # fmt: skip


def test_batches_that_broadcast(rng):
    q, k, v = (
        rng.standard_normal((2, 3, 4, 5)),
        rng.standard_normal((1, 3, 6, 5)),
        rng.standard_normal((6, 2)),
    )
    same(
        F.scaled_dot_product_attention,
        T.scaled_dot_product_attention,
        q,
        k,
        v,
        second=True,
        rtol=1e-5,
        atol=1e-8,
    )
    mask = rng.standard_normal((2, 1, 1, 6))
    same(
        F.scaled_dot_product_attention,
        T.scaled_dot_product_attention,
        q,
        k,
        v,
        mask,
        rtol=1e-5,
        atol=1e-8,
    )


def test_a_query_that_may_look_nowhere(rng):
    q, k, v = rng.standard_normal((3, 2, 3, 4))
    mask = np.array([[True, True, False], [False, False, False], [True, False, False]])
    same(F.scaled_dot_product_attention, T.scaled_dot_product_attention, q, k, v, mask, second=True,
         rtol=1e-5, atol=1e-8)  # fmt: skip
    y = F.scaled_dot_product_attention(kg.tensor(q), kg.tensor(k), kg.tensor(v), kg.tensor(mask))
    assert not y.array[:, 1].any()


def test_grouped_queries(rng):
    q, k, v = (
        rng.standard_normal((2, 6, 4, 5)),
        rng.standard_normal((2, 2, 7, 5)),
        rng.standard_normal((2, 2, 7, 5)),
    )
    same(F.scaled_dot_product_attention, T.scaled_dot_product_attention, q, k, v, enable_gqa=True, second=True,
         rtol=1e-5, atol=1e-8)  # fmt: skip


def test_dropout_is_torchs_for_the_same_seed(rng):
    q = rng.standard_normal((2, 3, 5, 4)).astype(np.float32)
    kg.manual_seed(2), torch.manual_seed(2)
    same(
        F.scaled_dot_product_attention,
        T.scaled_dot_product_attention,
        q,
        q,
        q,
        dropout_p=0.4,
        rtol=1e-4,
        atol=1e-5,
    )


def test_many_heads_in_blocks(rng):
    q, k, v = rng.standard_normal((3, 4, 6, 90, 8)).astype(np.float32)
    for options in ({}, {"is_causal": True}):
        same(
            F.scaled_dot_product_attention,
            T.scaled_dot_product_attention,
            q,
            k,
            v,
            rtol=1e-4,
            atol=1e-5,
            **options,
        )
    mask = rng.random((4, 1, 1, 90)) < 0.8
    same(
        F.scaled_dot_product_attention,
        T.scaled_dot_product_attention,
        q,
        k,
        v,
        mask,
        rtol=1e-4,
        atol=1e-5,
    )
    heads = kg.from_numpy(np.ascontiguousarray(q.transpose(0, 2, 1, 3))).transpose(1, 2)
    close(F.scaled_dot_product_attention(heads, heads, heads),
          T.scaled_dot_product_attention(*[torch.from_numpy(q)] * 3), rtol=1e-4, atol=1e-5)  # fmt: skip


def test_large_scores():
    q = np.full((1, 3, 4), 100.0, np.float32)
    q[0, 1] = -100
    same(F.scaled_dot_product_attention, T.scaled_dot_product_attention, q, q, q / 100)


def test_refusals():
    q = kg.ones(2, 3, 4)
    with pytest.raises(RuntimeError, match="is_causal"):
        F.scaled_dot_product_attention(q, q, q, kg.ones(3, 3), is_causal=True)
    with pytest.raises(RuntimeError, match="same dtype"):
        F.scaled_dot_product_attention(q, q.double(), q)
    with pytest.raises(RuntimeError, match="do not fit"):
        F.scaled_dot_product_attention(q, kg.ones(2, 3, 5), q)
    with pytest.raises(RuntimeError, match="at least 2"):
        F.scaled_dot_product_attention(kg.ones(3), q, q)


def arguments(rng, E, separate=False, bias=True, extra=False):
    widths = (E, E + 1, E + 2) if separate else (E, E, E)
    return {
        "in_proj_weight": None if separate else rng.standard_normal((3 * E, E)),
        "in_proj_bias": rng.standard_normal(3 * E) if bias else None,
        "bias_k": rng.standard_normal((1, 1, E)) if extra else None,
        "bias_v": rng.standard_normal((1, 1, E)) if extra else None,
        "out_proj_weight": rng.standard_normal((E, E)),
        "out_proj_bias": rng.standard_normal(E) if bias else None,
        **({f"{n}_proj_weight": rng.standard_normal((E, w)) for n, w in zip("qkv", widths, strict=True)} if separate else {}),
    }  # fmt: skip


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("kind", ["self", "cross", "separate", "extra"])
def test_multi_head_attention(rng, kind, need_weights, batch):
    E, L, S, N, H = 6, 4, 5, 2, 3
    arrays = arguments(rng, E, kind == "separate", extra=kind == "extra")
    q = rng.standard_normal((L, N, E))
    widths = (E + 1, E + 2) if kind == "separate" else (E, E)
    k, v = (q, q) if kind == "self" else (rng.standard_normal((S, N, w)) for w in widths)
    S = len(k)
    if not batch:
        q, k, v = q[:, 0], k[:, 0], v[:, 0]
    padding = np.zeros((N, S), bool)
    padding[0, -1] = True
    masks = [{}, {"attn_mask": np.triu(np.ones((L, S), bool), 2)}, {"attn_mask": rng.standard_normal((N * H if batch else H, L, S))},
             {"key_padding_mask": padding if batch else padding[0]},
             {"key_padding_mask": padding if batch else padding[0], "attn_mask": np.triu(np.ones((L, S), bool), 2)}]  # fmt: skip
    for mask, average in itertools.product(masks, (True, False)):

        def run(module, make, mask=mask, average=average):
            tensors = [make(a) for a in (q, k, v)]
            if kind == "self":
                tensors = [tensors[0]] * 3
            options = {
                n: make(a) if isinstance(a, np.ndarray) else a
                for n, a in {**arrays, **mask}.items()
            }
            weight = [
                t
                for t in (tensors[0], *options.values())
                if not isinstance(t, bool)
                and t is not None
                and t.dtype in (kg.float64, torch.float64)
            ]
            for t in weight:
                t.requires_grad = True
            y, w = module.multi_head_attention_forward(
                *tensors, E, H, add_zero_attn=kind == "extra", dropout_p=0.0, need_weights=need_weights,
                use_separate_proj_weight=kind == "separate", average_attn_weights=average, **options,
            )  # fmt: skip
            total = (y * y).sum() + (0 if w is None else (w * w).sum())
            grad = kg.autograd.grad if module is F else torch.autograd.grad
            return y, w, grad(total, weight)

        y, w, g = run(F, kg.from_numpy)
        z, u, h = run(T, torch.from_numpy)
        close(y, z, rtol=1e-5, atol=1e-8)
        assert (w is None) == (u is None)
        if w is not None:
            close(w, u, rtol=1e-5, atol=1e-8)
        for a, b in zip(g, h, strict=True):
            close(a, b, rtol=1e-5, atol=1e-8)


def test_multi_head_attention_refuses(rng):
    arrays = {n: None if a is None else kg.tensor(a) for n, a in arguments(rng, 6).items()}
    x = kg.ones(4, 2, 6, dtype=kg.float64)

    def run(q=x, k=x, v=x, E=6, H=3, **more):
        return F.multi_head_attention_forward(
            q, k, v, E, H, add_zero_attn=False, dropout_p=0.0, **{**arrays, **more}
        )

    for bad, message in [
        ({"E": 5}, "embedding dimension of 5"), ({"H": 4}, "not divisible"), ({"k": x[:2]}, "does not match"),
        ({"k": x[0]}, "3-D"), ({"bias_k": kg.ones(1, 1, 6)}, "bias_v is None"),
    ]:  # fmt: skip
        with pytest.raises(AssertionError, match=message):
            run(**bad)
    with pytest.raises(RuntimeError, match="2D attn_mask"):
        run(attn_mask=kg.zeros(3, 3))
    with pytest.raises(RuntimeError, match="Need attn_mask"):
        run(is_causal=True)


def test_scale_is_one_over_the_root_of_the_width():
    q = kg.ones(1, 1, 16)
    k = kg.tensor([[[1.0] * 16, [0.0] * 16]])
    v = kg.tensor([[[1.0], [0.0]]])
    expected = 1 / (1 + math.exp(-4))
    assert F.scaled_dot_product_attention(q, k, v).item() == pytest.approx(expected, rel=1e-6)
