"""Bad input: PyTorch's type of exception, and a message that says what was given.

Each line is a call, the built-in type it must raise, and what the message must hold; where PyTorch is
installed, it is asked too.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

import kilograd as kg


class Bad(NamedTuple):
    name: str
    call: Callable[[Any], Any]  # of the library
    kind: type[BaseException]
    words: str = ""  # a pattern in kilograd's message


def t(L, *shape, **how):
    return L.zeros(*shape, **how)


def grad(L, *shape, **how):
    return L.ones(*shape, requires_grad=True, **how)


def f(L):
    return L.nn.functional


SHAPES = [
    Bad("add", lambda L: t(L, 2, 3) + t(L, 4), RuntimeError, r"add.*2, 3.*4"),
    Bad("mul", lambda L: L.mul(t(L, 2, 3), t(L, 3, 2)), RuntimeError, r"mul.*2, 3.*3, 2"),
    Bad("where", lambda L: L.where(t(L, 2) > 0, t(L, 3), t(L, 3)), RuntimeError, r"where.*2.*3"),
    Bad("compare", lambda L: t(L, 2) < t(L, 3), RuntimeError, r"less|lt"),
    Bad("inplace", lambda L: t(L, 2).add_(t(L, 3, 2)), RuntimeError, r"add_.*\[2\].*\[3, 2\]"),
    Bad("matmul", lambda L: t(L, 2, 3) @ t(L, 2, 3), RuntimeError, r"2x3.*2x3"),
    Bad("matmul vectors", lambda L: t(L, 2) @ t(L, 3), RuntimeError, r"matmul.*2.*3"),
    Bad(
        "matmul batches",
        lambda L: t(L, 2, 3, 4) @ t(L, 5, 4, 3),
        RuntimeError,
        r"matmul.*2, 3, 4.*5, 4, 3",
    ),
    Bad("matmul scalar", lambda L: t(L, 2) @ L.tensor(1.0), RuntimeError, r"matmul"),
    Bad("mm", lambda L: L.mm(t(L, 2, 3), t(L, 3)), RuntimeError, r"mm"),
    Bad("bmm", lambda L: L.bmm(t(L, 2, 3, 4), t(L, 3, 4, 5)), RuntimeError, r"bmm|batch"),
    Bad("dot", lambda L: L.dot(t(L, 2), t(L, 3)), RuntimeError, r"2.*3"),
    Bad("cat", lambda L: L.cat([t(L, 2, 3), t(L, 2, 4)]), RuntimeError, r"cat|[Ss]izes"),
    Bad("cat none", lambda L: L.cat([]), (RuntimeError, ValueError), r"cat"),
    Bad("stack", lambda L: L.stack([t(L, 2), t(L, 3)]), RuntimeError, r"stack.*2.*3"),
    Bad("reshape", lambda L: t(L, 2, 3).reshape(4), RuntimeError, r"shape '?\[4\]'?.*6"),
    Bad("two unknown", lambda L: t(L, 4).reshape(-1, -1), RuntimeError),
    Bad("view", lambda L: t(L, 2, 3).t().view(6), RuntimeError, r"view"),
    Bad("expand", lambda L: t(L, 2, 3).expand(2, 4), RuntimeError, r"expand.*2, 3.*2, 4|expand"),
    Bad("expand to fewer", lambda L: t(L, 2, 3).expand(3), RuntimeError, r"expand"),
    Bad("permute", lambda L: t(L, 2, 3).permute(0), RuntimeError, r"permute"),
    Bad("permute twice", lambda L: t(L, 2, 3).permute(0, 0), RuntimeError, r"permute"),
    Bad("split", lambda L: t(L, 5).split([2, 2]), RuntimeError, r"split.*5"),
    Bad("unflatten", lambda L: t(L, 6).unflatten(0, (4, 2)), RuntimeError, r"unflatten"),
    Bad("einsum", lambda L: L.einsum("ij,jk->ik", t(L, 2, 3), t(L, 4, 5)), RuntimeError, r"einsum"),
    Bad("linear", lambda L: f(L).linear(t(L, 2, 3), t(L, 4, 5)), RuntimeError, r"linear|2x3.*5x4"),
    Bad("Linear", lambda L: L.nn.Linear(3, 2)(t(L, 5, 4)), RuntimeError, r"5.*4|4.*3"),
    Bad(
        "conv channels",
        lambda L: f(L).conv2d(t(L, 1, 3, 5, 5), t(L, 4, 2, 3, 3)),
        RuntimeError,
        r"1, 3, 5, 5",
    ),
    Bad("conv rank", lambda L: f(L).conv2d(t(L, 5, 5), t(L, 4, 3, 3, 3)), RuntimeError, r"conv2d"),
    Bad(
        "conv kernel",
        lambda L: f(L).conv2d(t(L, 1, 1, 2, 2), t(L, 1, 1, 3, 3)),
        RuntimeError,
        r"[Kk]ernel",
    ),
    Bad(
        "conv bias",
        lambda L: f(L).conv1d(t(L, 1, 2, 5), t(L, 4, 2, 3), t(L, 3)),
        RuntimeError,
        r"bias|3",
    ),
    Bad("conv groups", lambda L: L.nn.Conv2d(3, 4, 3, groups=2), ValueError, r"groups"),
    Bad("pool", lambda L: f(L).max_pool2d(t(L, 1, 1, 2, 2), 3), RuntimeError, r"2|size"),
    Bad(
        "pool padding",
        lambda L: f(L).max_pool2d(t(L, 1, 1, 5, 5), 2, padding=2),
        RuntimeError,
        r"pad",
    ),
    Bad("batch_norm", lambda L: L.nn.BatchNorm2d(3)(t(L, 2, 3)), ValueError, r"4D"),
    Bad(
        "batch_norm one",
        lambda L: L.nn.BatchNorm1d(3)(t(L, 1, 3)),
        ValueError,
        r"[Mm]ore than 1 value",
    ),
    Bad("batch_norm channels", lambda L: L.nn.BatchNorm1d(3)(t(L, 2, 4)), RuntimeError, r"3|4"),
    Bad("layer_norm", lambda L: L.nn.LayerNorm(3)(t(L, 2, 4)), RuntimeError, r"3.*4|4.*3"),
    Bad("group_norm", lambda L: L.nn.GroupNorm(2, 5), ValueError, r"num_channels|divisible"),
    Bad("mse", lambda L: f(L).mse_loss(t(L, 3), t(L, 2, 2)), RuntimeError, r"3|2"),
    Bad("bce", lambda L: f(L).binary_cross_entropy(t(L, 3), t(L, 2)), ValueError, r"3.*2|2.*3"),
    Bad(
        "cross_entropy",
        lambda L: f(L).cross_entropy(t(L, 4, 3), t(L, 5, dtype=L.int64)),
        ValueError,
        r"4.*5|5.*4",
    ),
    Bad(
        "embedding rank",
        lambda L: f(L).embedding(t(L, 2, dtype=L.int64), t(L, 3)),
        RuntimeError,
        r"weight|2-D",
    ),
    Bad(
        "bilinear",
        lambda L: f(L).bilinear(t(L, 2, 3), t(L, 2, 4), t(L, 5, 3, 3)),
        RuntimeError,
        r"bilinear|4",
    ),
    Bad(
        "attention",
        lambda L: f(L).scaled_dot_product_attention(t(L, 2, 3, 4), t(L, 2, 5, 6), t(L, 2, 5, 4)),
        RuntimeError,
        r"4|6",
    ),
    Bad("lstm", lambda L: L.nn.LSTM(3, 4)(t(L, 5, 2, 7)), RuntimeError, r"3.*7|7.*3|input_size"),
    Bad(
        "gather",
        lambda L: t(L, 2, 3).gather(1, t(L, 4, 1, dtype=L.int64)),
        RuntimeError,
        r"gather|size",
    ),
    Bad(
        "index_select",
        lambda L: t(L, 2, 3).index_select(0, t(L, 1, 1, dtype=L.int64)),
        IndexError,
        r"index_select",
    ),
    Bad("masked_fill", lambda L: t(L, 2, 3).masked_fill(t(L, 4) > 0, 1.0), RuntimeError, r"3|4"),
    Bad("cholesky", lambda L: L.linalg.cholesky(t(L, 2, 3)), RuntimeError, r"cholesky|square"),
    Bad("not definite", lambda L: L.linalg.cholesky(-L.eye(2)), RuntimeError, r"cholesky"),
    Bad("inv", lambda L: L.linalg.inv(t(L, 2, 2)), RuntimeError, r"inv.*singular"),
    Bad("solve", lambda L: L.linalg.solve(L.eye(2), t(L, 3)), RuntimeError, r"solve"),
    Bad("tensordot", lambda L: L.tensordot(t(L, 2, 3), t(L, 4, 5), 1), RuntimeError, r"3|4"),
    Bad("cross", lambda L: L.linalg.cross(t(L, 4), t(L, 4)), RuntimeError, r"3|4"),
    Bad(
        "meshgrid", lambda L: L.meshgrid(t(L, 2, 2), indexing="ij"), RuntimeError, r"meshgrid|2|0D"
    ),
    Bad("pad", lambda L: f(L).pad(t(L, 3), (1, 1, 1, 1)), RuntimeError, r"[Pp]ad"),
    Bad(
        "reflect",
        lambda L: f(L).pad(t(L, 1, 1, 3), (3, 0), mode="reflect"),
        RuntimeError,
        r"[Pp]ad",
    ),
    Bad("chunks", lambda L: t(L, 3).chunk(0), RuntimeError, r"chunk"),
    Bad("negative size", lambda L: L.zeros(-1), RuntimeError, r"-1"),
    Bad("ragged", lambda L: L.tensor([[1, 2], [3]]), ValueError, r"length|sequence"),
    Bad("data and shape", lambda L: t(L, 2).copy_(t(L, 3)), RuntimeError, r"2|3"),
    Bad("setitem", lambda L: t(L, 2, 3).__setitem__(0, t(L, 2)), RuntimeError, r"2.*3|3.*2"),
    Bad("item", lambda L: t(L, 2).item(), RuntimeError, r"2 elements"),
    Bad("bool", lambda L: bool(t(L, 2)), RuntimeError, r"ambiguous"),
]
DTYPES = [
    Bad("mean of ints", lambda L: t(L, 2, dtype=L.int64).mean(), RuntimeError, r"mean.*int64"),
    Bad("std of ints", lambda L: t(L, 2, dtype=L.int64).std(), RuntimeError, r"std"),
    Bad("softmax of ints", lambda L: t(L, 2, dtype=L.int64).softmax(0), NotImplementedError, r"softmax.*int64"),
    Bad("matmul dtypes", lambda L: t(L, 2, 2) @ t(L, 2, 2, dtype=L.float64), RuntimeError, r"float32.*float64"),
    Bad("linear dtypes", lambda L: L.nn.Linear(2, 2)(t(L, 1, 2, dtype=L.float64)), RuntimeError, r"float64.*float32"),
    Bad("conv dtypes", lambda L: L.nn.Conv1d(1, 1, 1)(t(L, 1, 1, 2, dtype=L.float64)), RuntimeError, r"float64.*float32"),
    Bad("grad of ints", lambda L: L.tensor([1, 2], requires_grad=True), RuntimeError, r"floating point"),
    Bad("requires_grad_ of ints", lambda L: t(L, 2, dtype=L.int32).requires_grad_(), RuntimeError, r"floating point"),
    Bad("inplace cast", lambda L: t(L, 2, dtype=L.int64).mul_(0.5), RuntimeError, r"mul_.*int64"),
    Bad("bool minus", lambda L: (t(L, 2) > 0) - (t(L, 2) > 0), RuntimeError, r"bool"),
    Bad("minus bool", lambda L: -(t(L, 2) > 0), RuntimeError, r"bool"),
    Bad("float index", lambda L: t(L, 3)[t(L, 1)], IndexError, r"indices.*float32"),
    Bad("float bitwise", lambda L: t(L, 2) & t(L, 2), (RuntimeError, NotImplementedError), r"bitwise_and"),
    Bad("embedding of floats", lambda L: f(L).embedding(t(L, 2), t(L, 3, 2)), RuntimeError, r"indices|int"),
    Bad("float labels", lambda L: f(L).nll_loss(t(L, 2, 3), t(L, 2)), RuntimeError, r"target|[Ll]ong|int|dtype"),
    Bad("gather floats", lambda L: t(L, 2, 3).gather(1, t(L, 2, 1)), RuntimeError, r"gather.*int"),
    Bad("integer power", lambda L: L.tensor([2]) ** -1, RuntimeError, r"[Ii]nteger"),
    Bad("integer division", lambda L: L.tensor([2]) // L.tensor([0]), RuntimeError, r"Zero|zero"),
    Bad("remainder", lambda L: L.tensor([2]) % L.tensor([0]), RuntimeError, r"Zero|zero"),
    Bad("unknown dtype", lambda L: t(L, 2, dtype="float33"), TypeError, r"float33"),
    Bad("arange dtype", lambda L: L.tensor("text"), (TypeError, ValueError), r"str"),
    Bad("add text", lambda L: t(L, 2) + "1", TypeError, r"str"),
    Bad("add list", lambda L: L.add(t(L, 2), [1, 2]), TypeError, r"list"),
    Bad("not a tensor", lambda L: L.exp("x"), TypeError, r"exp.*str"),
    Bad("none", lambda L: L.add(t(L, 2), None), TypeError, r"None"),
    Bad("median of bools", lambda L: (t(L, 3) > 0).median(), NotImplementedError, r"[Bb]ool"),
    Bad("floor of bools", lambda L: (t(L, 3) > 0).floor(), NotImplementedError, r"floor"),
    Bad("frac of ints", lambda L: t(L, 3, dtype=L.int32).frac(), NotImplementedError, r"frac"),
    Bad("Module.to", lambda L: L.nn.Linear(1, 1).to(L.int64), TypeError, r"int64"),
    Bad("default dtype", lambda L: L.set_default_dtype(L.int64), TypeError, r"int64|floating"),
    Bad("eye of floats", lambda L: L.eye(2.5), TypeError, r"float|int"),
    Bad("scatter dtypes", lambda L: t(L, 2).scatter_add(0, L.tensor([0]), t(L, 1, dtype=L.float64)), RuntimeError,
        r"dtype|float64"),
]  # fmt: skip
AXES = [
    Bad("sum", lambda L: t(L, 2, 3).sum(2), IndexError, r"-2, 1.*2"),
    Bad("negative", lambda L: t(L, 2, 3).mean(-3), IndexError, r"-2, 1.*-3"),
    Bad("twice", lambda L: t(L, 2, 3).sum((0, -2)), RuntimeError, r"appears multiple times"),
    Bad("tuple for one", lambda L: t(L, 2, 3).argmax((0, 1)), TypeError, r"argmax|dim"),
    Bad("float", lambda L: t(L, 2, 3).sum(1.0), TypeError, r"float"),
    Bad("softmax", lambda L: t(L, 2, 3).softmax(2), IndexError, r"-2, 1"),
    Bad("cat", lambda L: L.cat([t(L, 2), t(L, 2)], 1), IndexError, r"-1, 0"),
    Bad("stack", lambda L: L.stack([t(L, 2), t(L, 2)], 2), IndexError, r"-2, 1"),
    Bad("unsqueeze", lambda L: t(L, 2).unsqueeze(3), IndexError, r"-2, 1"),
    Bad("squeeze", lambda L: t(L, 2).squeeze(1), IndexError, r"-1, 0"),
    Bad("transpose", lambda L: t(L, 2, 3).transpose(0, 2), IndexError, r"-2, 1"),
    Bad("flatten", lambda L: t(L, 2, 3).flatten(1, 0), RuntimeError, r"flatten|start_dim"),
    Bad("flip", lambda L: t(L, 2).flip(1), IndexError, r"-1, 0"),
    Bad("roll", lambda L: t(L, 2, 3).roll((1, 2), 0), RuntimeError, r"roll|shifts"),
    Bad("t", lambda L: t(L, 2, 3, 4).t(), RuntimeError, r"t\(\)|dim"),
    Bad("max of nothing", lambda L: t(L, 0).max(), RuntimeError, r"max"),
    Bad("argmax of nothing", lambda L: t(L, 0).argmax(), IndexError, r"argmax"),
    Bad("amax of nothing", lambda L: t(L, 0, 2).amax(0), IndexError, r"amax"),
    Bad("topk", lambda L: t(L, 3).topk(4), RuntimeError, r"topk|k"),
    Bad("kthvalue", lambda L: t(L, 3).kthvalue(0), RuntimeError, r"kthvalue|k"),
    Bad("cumsum", lambda L: t(L, 3).cumsum(1), IndexError, r"-1, 0"),
    Bad("select", lambda L: t(L, 3).select(1, 0), IndexError, r"-1, 0"),
    Bad("narrow", lambda L: t(L, 3).narrow(0, 2, 2), RuntimeError, r"narrow|start|length"),
    Bad("diagonal", lambda L: t(L, 2, 3).diagonal(0, 1, 1), RuntimeError, r"diagonal|identical"),
    Bad("movedim", lambda L: t(L, 2, 3).movedim((0, 1), (0,)), RuntimeError, r"movedim"),
    Bad("unbind", lambda L: L.tensor(1.0).unbind(), (IndexError, RuntimeError), r"0|dim"),
    Bad("triu", lambda L: t(L, 3).triu(), RuntimeError, r"triu"),
]  # fmt: skip
INDICES = [
    Bad("integer", lambda L: t(L, 2, 3)[2], IndexError, r"2.*size 2"),
    Bad("negative", lambda L: t(L, 2, 3)[0, -4], IndexError, r"-4.*size 3"),
    Bad("too many", lambda L: t(L, 2, 3)[0, 0, 0], IndexError, r"too many"),
    Bad("scalar", lambda L: L.tensor(1.0)[0], IndexError, r"0|dim"),
    Bad("array", lambda L: t(L, 3)[L.tensor([0, 3])], IndexError, r"3.*size 3"),
    Bad("mask", lambda L: t(L, 2, 3)[t(L, 3) > 0], IndexError, r"3.*2|mask|boolean"),
    Bad(
        "arrays",
        lambda L: t(L, 5, 5)[L.tensor([0, 1]), L.tensor([0, 1, 2])],
        IndexError,
        r"broadcast",
    ),
    Bad("text", lambda L: t(L, 3)["a"], (IndexError, TypeError), r"str"),
    Bad("negative step", lambda L: t(L, 3)[::-1], ValueError, r"step"),
    Bad("setitem", lambda L: t(L, 3).__setitem__(3, 1.0), IndexError, r"3.*size 3"),
    Bad(
        "index_select",
        lambda L: t(L, 3).index_select(0, L.tensor([3])),
        (IndexError, RuntimeError),
        r"3",
    ),
    Bad("gather", lambda L: t(L, 3).gather(0, L.tensor([3])), (IndexError, RuntimeError), r"3"),
    Bad(
        "scatter",
        lambda L: t(L, 3).scatter(0, L.tensor([-4]), 1.0),
        (IndexError, RuntimeError),
        r"-4",
    ),
    Bad("embedding", lambda L: L.nn.Embedding(3, 2)(L.tensor([3])), IndexError, r"range|3"),
    Bad("take", lambda L: t(L, 3).take(L.tensor([3])), IndexError, r"3"),
    Bad("chunk index", lambda L: t(L, 3).chunk(3)[3], IndexError),
]
LABELS = [
    Bad(
        "too large",
        lambda L: f(L).cross_entropy(t(L, 2, 3), L.tensor([0, 3])),
        IndexError,
        r"Target 3",
    ),
    Bad(
        "negative",
        lambda L: f(L).cross_entropy(t(L, 2, 3), L.tensor([0, -1])),
        IndexError,
        r"Target -1",
    ),
    Bad("nll", lambda L: f(L).nll_loss(t(L, 2, 3), L.tensor([7, 0])), IndexError, r"Target 7"),
    Bad(
        "pixels",
        lambda L: f(L).cross_entropy(t(L, 1, 2, 2, 2), L.full((1, 2, 2), 2)),
        IndexError,
        r"Target 2",
    ),
    Bad(
        "weights",
        lambda L: f(L).cross_entropy(t(L, 2, 3), L.tensor([0, 1]), t(L, 2)),
        RuntimeError,
        r"weight",
    ),
    Bad(
        "bce range",
        lambda L: f(L).binary_cross_entropy(t(L, 2) + 2, t(L, 2)),
        RuntimeError,
        r"between 0 and 1",
    ),
    Bad("one_hot", lambda L: f(L).one_hot(L.tensor([3]), 3), RuntimeError, r"class|3"),
    Bad(
        "one_hot negative", lambda L: f(L).one_hot(L.tensor([-1])), RuntimeError, r"class|negative"
    ),
    Bad(
        "multi margin",
        lambda L: f(L).multi_margin_loss(t(L, 2, 3), L.tensor([0, 3])),
        RuntimeError,
        r"target|range|3",
    ),
]
ARGUMENTS = [
    Bad("device", lambda L: L.device("gpu"), RuntimeError, r"gpu.*cpu"),
    Bad("device of a tensor", lambda L: t(L, 2).to("nowhere"), RuntimeError, r"nowhere.*cpu"),
    Bad("device of a module", lambda L: L.nn.Linear(1, 1).to("nowhere"), RuntimeError, r"nowhere"),
    Bad("device argument", lambda L: L.ones(2, device="nowhere"), RuntimeError, r"nowhere"),
    Bad("reduction", lambda L: f(L).mse_loss(t(L, 2), t(L, 2), reduction="average"), ValueError, r"average"),
    Bad("dropout", lambda L: L.nn.Dropout(1.5), ValueError, r"1.5"),
    Bad("F.dropout", lambda L: f(L).dropout(t(L, 2), -0.1), ValueError, r"-0.1"),
    Bad("rounding", lambda L: L.div(t(L, 2), 2, rounding_mode="up"), RuntimeError, r"up.*trunc|trunc.*floor"),
    Bad("approximate", lambda L: f(L).gelu(t(L, 2), approximate="fast"), RuntimeError, r"approximate"),
    Bad("mode", lambda L: f(L).interpolate(t(L, 1, 1, 2, 2), 4, mode="cubic-ish"), NotImplementedError, r"cubic-ish|mode"),
    Bad("no size", lambda L: f(L).interpolate(t(L, 1, 1, 2, 2)), ValueError, r"size|scale"),
    Bad("pad mode", lambda L: f(L).pad(t(L, 1, 1, 2), (1, 1), mode="mirror"), NotImplementedError, r"mirror|[Uu]nrecogni"),
    Bad("padding mode", lambda L: L.nn.Conv2d(1, 1, 1, padding_mode="mirror"), ValueError, r"mirror"),
    Bad("padding word", lambda L: L.nn.Conv2d(1, 1, 1, padding="some"), ValueError, r"some"),
    Bad("same and stride", lambda L: L.nn.Conv2d(1, 1, 1, padding="same", stride=2), ValueError, r"same.*strid"),
    Bad("stride 0", lambda L: f(L).conv1d(t(L, 1, 1, 3), t(L, 1, 1, 1), stride=0), RuntimeError, r"stride"),
    Bad("clamp", lambda L: t(L, 2).clamp(), (RuntimeError, ValueError), r"min|max"),
    Bad("unknown keyword", lambda L: t(L, 2).sum(dims=0), TypeError, r"dims"),
    Bad("missing argument", lambda L: L.add(t(L, 2)), TypeError, r"other"),
    Bad("too many arguments", lambda L: L.exp(t(L, 2), 1, 2), TypeError, r"exp|argument"),
    Bad("out and grad", lambda L: L.add(grad(L, 2), 1, out=t(L, 2)), RuntimeError, r"add.*out="),
    Bad("out dtype", lambda L: L.exp(t(L, 2), out=t(L, 2, dtype=L.int64)), RuntimeError, r"exp.*int64"),
    Bad("norm ord", lambda L: L.linalg.matrix_norm(t(L, 2, 2), "frobenius"), RuntimeError, r"frobenius"),
    Bad("meshgrid indexing", lambda L: L.meshgrid(t(L, 2), indexing="yx"), RuntimeError, r"yx|indexing"),
    Bad("arange", lambda L: L.arange(3, 0, 1), RuntimeError, r"arange|bound|step"),
    Bad("arange step", lambda L: L.arange(0, 3, 0), RuntimeError, r"step|zero"),
    Bad("linspace", lambda L: L.linspace(0, 1, -1), RuntimeError, r"steps|-1"),
    Bad("randint", lambda L: L.randint(3, 3, (2,)), RuntimeError, r"from|3"),
    Bad("randperm", lambda L: L.randperm(-1), RuntimeError, r"-1|n"),
    Bad("bernoulli", lambda L: L.bernoulli(t(L, 2) + 2), RuntimeError, r"p|prob|0"),
    Bad("multinomial", lambda L: L.multinomial(t(L, 3), 1), RuntimeError, r"prob|sum"),
    Bad("normal", lambda L: L.normal(0.0, -1.0, (2,)), RuntimeError, r"std|-1"),
    Bad("uniform", lambda L: t(L, 2).uniform_(1, 0), RuntimeError, r"from|to"),
    Bad("kaiming mode", lambda L: L.nn.init.kaiming_normal_(t(L, 2, 2), mode="fan"), ValueError, r"fan_in"),
    Bad("xavier rank", lambda L: L.nn.init.xavier_uniform_(t(L, 2)), ValueError, r"2 dimensions"),
    Bad("nonlinearity", lambda L: L.nn.init.calculate_gain("sine"), ValueError, r"sine"),
    Bad("einsum letters", lambda L: L.einsum("i$->i", t(L, 2)), RuntimeError, r"einsum"),
    Bad("einsum operands", lambda L: L.einsum("ij,jk->ik", t(L, 2, 2)), RuntimeError, r"einsum|operands"),
    Bad("repeat", lambda L: t(L, 2, 3).repeat(2), RuntimeError, r"repeat"),
    Bad("tile", lambda L: t(L, 2).repeat(-1), RuntimeError, r"-1|negative"),
    Bad("attention heads", lambda L: L.nn.MultiheadAttention(5, 2), (AssertionError, ValueError), r"embed_dim|divisible"),
    Bad("scatter reduce", lambda L: t(L, 2).scatter_reduce(0, L.tensor([0]), t(L, 1), "median"), RuntimeError, r"median|reduce"),
    Bad("bincount", lambda L: L.bincount(L.tensor([-1])), RuntimeError, r"bincount|negative"),
    Bad("quantile", lambda L: L.quantile(t(L, 3), 1.5), RuntimeError, r"quantile|q|0, 1"),
]  # fmt: skip


class Step:
    """A module-level place for things that need several lines."""

    @staticmethod
    def twice(L):
        y = grad(L, 2).exp().sum()
        y.backward()
        y.backward()

    @staticmethod
    def saved_then_changed(L):
        h = grad(L, 2).exp()
        y = h * h
        h.add_(1)
        y.sum().backward()

    @staticmethod
    def optimizer_state(L):
        small, large = (
            L.optim.SGD([L.nn.Parameter(t(L, 1)) for _ in range(n)], lr=0.1) for n in (1, 2)
        )
        large.load_state_dict(small.state_dict())

    @staticmethod
    def unused(L):
        x, y = grad(L, 2), grad(L, 2)
        L.autograd.grad(x.sum(), y)

    @staticmethod
    def no_super(L):
        class Model(L.nn.Module):
            def __init__(self):
                self.layer = L.nn.Linear(1, 1)

        Model()

    @staticmethod
    def no_forward(L):
        class Model(L.nn.Module):
            pass

        Model()(1)

    @staticmethod
    def attribute(L):
        return L.nn.Linear(1, 1).wieght

    @staticmethod
    def state(L, change):
        model = L.nn.Sequential(L.nn.Linear(2, 3), L.nn.ReLU())
        state = dict(model.state_dict())
        change(L, state)
        model.load_state_dict(state)


GRAPHS = [
    Bad("not scalar", lambda L: (grad(L, 2) * 2).backward(), RuntimeError, r"scalar"),
    Bad("constant", lambda L: t(L, 1).backward(), RuntimeError, r"does not require grad"),
    Bad("upstream shape", lambda L: grad(L, 2).exp().backward(t(L, 3)), RuntimeError, r"3.*2"),
    Bad("upstream type", lambda L: grad(L, 2).exp().backward("ones"), TypeError, r"str"),
    Bad("twice", Step.twice, RuntimeError, r"second time"),
    Bad(
        "saved then changed",
        Step.saved_then_changed,
        RuntimeError,
        r"modified by an inplace operation",
    ),
    Bad("leaf in place", lambda L: grad(L, 2).add_(1), RuntimeError, r"leaf"),
    Bad("view of a leaf", lambda L: grad(L, 2)[0].zero_(), RuntimeError, r"leaf"),
    Bad("setitem of a leaf", lambda L: grad(L, 2).__setitem__(0, 1.0), RuntimeError, r"leaf"),
    Bad("unused", Step.unused, RuntimeError, r"allow_unused"),
    Bad("numpy", lambda L: grad(L, 2).numpy(), RuntimeError, r"detach"),
    Bad(
        "flag of a result", lambda L: grad(L, 2).exp().requires_grad_(False), RuntimeError, r"leaf"
    ),
    Bad("hook", lambda L: t(L, 2).register_hook(print), RuntimeError, r"require"),
    Bad("retain", lambda L: t(L, 2).retain_grad(), RuntimeError, r"requires_grad"),
    Bad(
        "expanded in place",
        lambda L: t(L, 1).expand(3).add_(1),
        RuntimeError,
        r"single memory location",
    ),
    Bad(
        "deepcopy",
        lambda L: __import__("copy").deepcopy(grad(L, 2).exp()),
        RuntimeError,
        r"leaves|leaf",
    ),
]
MODULES = [
    Bad("unknown key", lambda L: Step.state(L, lambda L, s: s.update(extra=t(L, 1))), RuntimeError, r"[Uu]nexpected.*extra"),
    Bad("missing key", lambda L: Step.state(L, lambda L, s: s.pop("0.bias")), RuntimeError, r"[Mm]issing.*0\.bias"),
    Bad("shape of a key", lambda L: Step.state(L, lambda L, s: s.update({"0.bias": t(L, 4)})), RuntimeError,
        r"0\.bias.*4.*3"),
    Bad("before super().__init__", Step.no_super, AttributeError, r"before Module.__init__"),
    Bad("no forward", Step.no_forward, NotImplementedError, r"Model.*forward"),
    Bad("misspelt", Step.attribute, AttributeError, r"Linear.*wieght"),
    Bad("parameter type", lambda L: L.nn.Linear(1, 1).register_parameter("x", t(L, 1)), TypeError, r"x"),
    Bad("parameter name", lambda L: L.nn.Linear(1, 1).register_parameter("a.b", None), KeyError, r"\."),
    Bad("parameter taken", lambda L: L.nn.Linear(1, 1).register_buffer("weight", None), KeyError, r"weight"),
    Bad("parameter replaced", lambda L: setattr(L.nn.Linear(1, 1), "weight", t(L, 1)), TypeError, r"weight"),
    Bad("module type", lambda L: L.nn.Sequential(1), TypeError, r"int"),
    Bad("submodule", lambda L: L.nn.Linear(1, 1).get_submodule("a.b"), AttributeError, r"a"),
    Bad("sequential index", lambda L: L.nn.Sequential(L.nn.ReLU())[2], IndexError, r"2|range"),
    Bad("learning rate", lambda L: L.optim.SGD([L.nn.Parameter(t(L, 1))], lr=-1), ValueError, r"-1"),
    Bad("momentum", lambda L: L.optim.SGD([L.nn.Parameter(t(L, 1))], lr=1, momentum=-0.5), ValueError, r"-0.5"),
    Bad("nesterov", lambda L: L.optim.SGD([L.nn.Parameter(t(L, 1))], lr=1, nesterov=True), ValueError, r"[Nn]esterov"),
    Bad("betas", lambda L: L.optim.Adam([L.nn.Parameter(t(L, 1))], betas=(1.0, 0.9)), ValueError, r"1.0"),
    Bad("eps", lambda L: L.optim.Adam([L.nn.Parameter(t(L, 1))], eps=-1.0), ValueError, r"-1.0"),
    Bad("no parameters", lambda L: L.optim.Adam([]), ValueError, r"empty"),
    Bad("a tensor", lambda L: L.optim.Adam(L.nn.Parameter(t(L, 1))), TypeError, r"iterable|Tensor"),
    Bad("not a leaf", lambda L: L.optim.Adam([grad(L, 1) * 2]), ValueError, r"leaf"),
    Bad("group twice", lambda L: L.optim.Adam([{"params": p} for p in [[L.nn.Parameter(t(L, 1))]] * 2]), ValueError,
        r"more than one"),
    Bad("optimizer state", Step.optimizer_state, ValueError, r"size|group"),
    Bad("scheduler", lambda L: L.optim.lr_scheduler.StepLR(L.nn.Linear(1, 1), 1), TypeError, r"Optimizer|Linear"),
    Bad("batch size", lambda L: L.utils.data.DataLoader(range(3), batch_size=0), ValueError, r"batch_size"),
    Bad("sampler and shuffle", lambda L: L.utils.data.DataLoader([1], shuffle=True, sampler=[0]), ValueError, r"sampler"),
    Bad("random_split", lambda L: L.utils.data.random_split(range(5), [2, 2]), ValueError, r"5|length"),
    Bad("dataset lengths", lambda L: L.utils.data.TensorDataset(t(L, 2), t(L, 3)), (AssertionError, ValueError), r"[Ss]ize"),
    Bad("clip", lambda L: L.nn.utils.clip_grad_norm_(_exploded(L), 1.0, error_if_nonfinite=True), RuntimeError,
        r"non-finite"),
]  # fmt: skip


def _exploded(L):
    p = L.nn.Parameter(t(L, 1))
    p.grad = L.tensor([float("nan")])
    return [p]


TABLES = {
    "shapes": SHAPES, "dtypes": DTYPES, "axes": AXES, "indices": INDICES, "labels": LABELS,
    "arguments": ARGUMENTS, "graphs": GRAPHS, "modules": MODULES,
}  # fmt: skip
CASES = [
    pytest.param(bad, id=f"{group}: {bad.name}") for group, bads in TABLES.items() for bad in bads
]


def raised(bad: Bad, library: Any) -> BaseException | None:
    default = library.get_default_dtype()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bad.call(library)
    except Exception as e:
        return e
    finally:
        library.set_default_dtype(default)
    return None


@pytest.mark.parametrize("bad", CASES)
def test_bad_input(bad):
    ours = raised(bad, kg)
    assert ours is not None, "nothing was raised"
    assert isinstance(ours, bad.kind), repr(ours)
    assert re.search(bad.words, str(ours), re.DOTALL), (
        f"the message does not say {bad.words!r}: {ours}"
    )
    assert "kilograd/" not in str(ours) and "ndarray" not in str(ours), (
        f"NumPy's or our insides: {ours}"
    )


@pytest.mark.parametrize("bad", CASES)
def test_pytorch_raises_the_same_type(bad):
    torch = pytest.importorskip("torch")
    theirs, ours = raised(bad, torch), raised(bad, kg)
    assert theirs is not None, f"PyTorch accepts this; kilograd: {ours!r}"
    builtin = next(c for c in type(theirs).__mro__ if c.__module__ == "builtins")
    assert isinstance(ours, builtin), f"PyTorch: {theirs!r}\nkilograd: {ours!r}"


def test_a_refused_call_changes_nothing():
    x = kg.arange(6.0).reshape(2, 3)
    before, version = x.array.copy(), x._version
    for bad in (
        lambda: x.add_(kg.ones(4)), lambda: x.copy_(kg.ones(4)), lambda: x.__setitem__(5, 1.0),
        lambda: x.__setitem__(0, kg.ones(2)), lambda: x.mul_(kg.ones(2, 3, dtype=kg.complex64)),
        lambda: x.index_fill_(0, kg.tensor([5]), 1.0), lambda: x.resize_(-1), lambda: x.unsqueeze_(9),
    ):  # fmt: skip
        with pytest.raises((RuntimeError, IndexError)):
            bad()
        assert (x.array == before).all() and x.shape == (2, 3) and x._version == version
    layer = kg.nn.Linear(2, 3)
    weights = layer.weight.array.copy()
    with pytest.raises(RuntimeError):
        layer(kg.ones(1, 5))
    with pytest.raises(AttributeError):
        layer.weight.nothing()
    assert (layer.weight.array == weights).all() and layer.weight.grad is None


def test_messages_name_the_operation_and_both_shapes():
    for fn, name in [(lambda a, b: a + b, "add"), (lambda a, b: a * b, "mul"), (kg.maximum, "maximum"),
                     (kg.atan2, "atan2"), (lambda a, b: a < b, "less"), (lambda a, b: a**b, "pow"),
                     (kg.hypot, "hypot"), (kg.logical_and, "logical_and")]:  # fmt: skip
        with pytest.raises(RuntimeError) as e:
            fn(kg.ones(2, 3), kg.ones(4, 5))
        assert name in str(e.value) and "[2, 3]" in str(e.value) and "[4, 5]" in str(e.value), str(
            e.value
        )


@pytest.mark.parametrize("convert", [float, int, complex, math.isfinite])
@pytest.mark.parametrize("size", [0, 2])
def test_only_one_element_becomes_a_python_number(convert, size):
    with pytest.raises(ValueError, match="only one element tensors"):  # Matplotlib counts on it
        convert(kg.ones(size))
