"""The ops that are timed: what people use most, SynapGrad's own list, and convolutions of real networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd.cli.bench.cases import (
    Input,
    Op,
    distinct,
    integers,
    mask,
    normal,
    target,
    uniform,
)

OPS: list[Op] = []
GROUPS = ("small", "large", "synapgrad", "conv")


def both_sizes(
    name: str,
    function: Callable[..., Any],
    small: list[Input],
    large: list[Input],
    setup: tuple[Callable[[Any], Any], Callable[[Any], Any]] | None = None,
    gradient: bool = True,
) -> None:
    """A row of at most 1,024 elements a tensor, and one that touches a million or more."""
    for group, inputs, i in (("small", small, 0), ("large", large, 1)):
        OPS.append(Op(name, group, function, tuple(inputs), "", setup and setup[i], gradient))


def square(name: str, function: Callable[..., Any], *kinds: Any, gradient: bool = True) -> None:
    """An op on matrices of one size, 32 x 32 and 1024 x 1024; ``kinds`` says how they are filled."""
    kinds = kinds or (normal,)
    small, large = ([kind(n, n) for kind in kinds] for n in (32, 1024))
    both_sizes(name, function, small, large, gradient=gradient)


def functional(name: str, *arguments: Any, **options: Any) -> Callable[..., Any]:
    """The function of that name in ``nn.functional``, with options."""
    return lambda lib, *x: getattr(lib.nn.functional, name)(*x, *arguments, **options)


def plain(name: str, *arguments: Any, **options: Any) -> Callable[..., Any]:
    """The function of that name, with options."""
    return lambda lib, *x: getattr(lib, name)(*x, *arguments, **options)


def first(name: str, *arguments: Any) -> Callable[..., Any]:
    """The values that the function of that name gives, not the places."""
    return lambda lib, x: getattr(lib, name)(x, *arguments)[0]


def layer(name: str, *sizes: int) -> Callable[[Any], Any]:
    """What makes the layer of that name."""
    return lambda lib: getattr(lib.nn, name)(*sizes)


# Elementwise
square("add", lambda lib, x, y: x + y, normal, normal)
square("sub", lambda lib, x, y: x - y, normal, normal)
square("mul", lambda lib, x, y: x * y, normal, normal)
square("div", lambda lib, x, y: x / y, normal, uniform)
square("add a number", lambda lib, x: x + 1.5)
for name, function in {
    "add a row": lambda lib, x, y: x + y,
    "mul by a row": lambda lib, x, y: x * y,
}.items():
    both_sizes(name, function, [normal(32, 32), normal(32)], [normal(1024, 1024), normal(1024)])
for name, function in {
    "add a column": lambda lib, x, y: x + y,
    "mul by a column": lambda lib, x, y: x * y,
}.items():
    both_sizes(
        name, function, [normal(32, 32), normal(32, 1)], [normal(1024, 1024), normal(1024, 1)]
    )
square("pow 2", lambda lib, x: x**2)
square("pow 0.5", lambda lib, x: x**0.5, uniform)
square("pow tensor", lambda lib, x, y: x**y, uniform, uniform)
square("neg", lambda lib, x: -x)
for name in "abs exp sin cos tanh".split():
    square(name, plain(name))
for name in "log sqrt rsqrt".split():
    square(name, plain(name), uniform)
for name in "sigmoid relu erf".split():
    square(name, plain(name))
for name in "leaky_relu gelu silu elu softplus".split():
    square(name, functional(name))
square("clamp", plain("clamp", -1, 1))
square("where", lambda lib, m, x, y: lib.where(m, x, y), mask, normal, normal)
square("maximum", plain("maximum"), normal, normal)
square("masked_fill", lambda lib, x, m: x.masked_fill(m, 0.0), normal, mask)
square("compare", lambda lib, x, y: x > y, normal, normal, gradient=False)
square("to float64", lambda lib, x: x.to(lib.float64))
square(
    "ten elementwise",
    lambda lib, x, y: lib.tanh(lib.exp(-(x * x)) * y + lib.sin(x) / (lib.abs(y) + 2.0) - 0.5 * x),
    normal,
    normal,
)

# Reductions
square("sum", plain("sum"))
square("sum dim 0", plain("sum", 0))
square("sum dim -1", plain("sum", -1))
square("mean", plain("mean"))
square("mean dim -1", plain("mean", -1))
square("var", plain("var"))
square("var dim -1", plain("var", -1))
square("std dim -1", plain("std", -1))
both_sizes("prod dim -1", plain("prod", -1), [uniform(32, 32)], [uniform(32768, 32)])
square("max", plain("max"), distinct)
square("max dim 0", first("max", 0), distinct)
square("max dim -1", first("max", -1), distinct)
square("min", plain("min"), distinct)
square("min dim -1", first("min", -1), distinct)
square("amax dim -1", plain("amax", -1), distinct)
square("argmax dim -1", plain("argmax", -1), distinct, gradient=False)
square("logsumexp", plain("logsumexp", -1))
square("softmax", plain("softmax", -1))
square("log_softmax", plain("log_softmax", -1))
square("cumsum", plain("cumsum", -1))
square("norm", lambda lib, x: lib.linalg.norm(x))
square("norm dim -1", lambda lib, x: lib.linalg.norm(x, None, -1))
square("sort", first("sort", -1), distinct)
square("topk", first("topk", 8, -1), distinct)

# Products
square("matmul", lambda lib, x, y: x @ y, normal, normal)
both_sizes(
    "matmul vector", lambda lib, x, y: x @ y,
    [normal(32, 32), normal(32)], [normal(1024, 1024), normal(1024)],
)  # fmt: skip
both_sizes(
    "bmm", plain("bmm"),
    [normal(4, 16, 16), normal(4, 16, 16)], [normal(16, 256, 256), normal(16, 256, 256)],
)  # fmt: skip
both_sizes(
    "linear", functional("linear"),
    [normal(16, 32), normal(32, 32), normal(32)],
    [normal(512, 1024), normal(1024, 1024), normal(1024)],
)  # fmt: skip
both_sizes(
    "addmm", plain("addmm"),
    [normal(32), normal(32, 32), normal(32, 32)],
    [normal(1024), normal(1024, 512), normal(512, 1024)],
)  # fmt: skip
both_sizes(
    "einsum", lambda lib, q, k: lib.einsum("nhqd,nhkd->nhqk", q, k),
    [normal(2, 2, 8, 16), normal(2, 2, 8, 16)], [normal(4, 8, 128, 64), normal(4, 8, 128, 64)],
)  # fmt: skip
both_sizes(
    "outer", plain("outer"), [normal(32), normal(32)], [normal(1024), normal(1024)]
)  # fmt: skip

# Shapes and places
square("transpose, contiguous", lambda lib, x: x.transpose(0, 1).contiguous())
both_sizes(
    "permute, contiguous", lambda lib, x: x.permute(0, 2, 1, 3).contiguous(),
    [normal(2, 8, 4, 16)], [normal(16, 64, 16, 64)],
)  # fmt: skip
square("reshape", lambda lib, x: x.reshape(-1, 16))
square("flatten", plain("flatten"))
square("unsqueeze, squeeze", lambda lib, x: x.unsqueeze(1).squeeze(1))
square("clone", plain("clone"))
both_sizes(
    "expand, mul", lambda lib, x, y: x.expand(y.shape[0], -1) * y,
    [normal(1, 32), normal(32, 32)], [normal(1, 1024), normal(1024, 1024)],
)  # fmt: skip
both_sizes("repeat", lambda lib, x: x.repeat(4, 1), [normal(8, 32)], [normal(512, 1024)])
for name, function in {
    "cat dim 0": lambda lib, x, y: lib.cat([x, y], dim=0),
    "cat dim -1": lambda lib, x, y: lib.cat([x, y], dim=-1),
    "stack": lambda lib, x, y: lib.stack([x, y]),
}.items():
    both_sizes(
        name, function, [normal(16, 32), normal(16, 32)], [normal(1024, 512), normal(1024, 512)]
    )
square("split", plain("split", 8, dim=-1))
square("chunk", plain("chunk", 2, dim=-1))
square("slice", lambda lib, x: x[:, 4:-4])

for group, n in (("small", 32), ("large", 1024)):
    rows = np.random.RandomState(0).randint(0, n, n // 2).tolist()
    OPS.append(Op("index: list", group, lambda lib, x, rows=rows: x[rows], (normal(n, n),)))
square("index: mask", lambda lib, x, m: x[m], normal, mask)
both_sizes(
    "index_select", lambda lib, x, i: lib.index_select(x, 0, i),
    [normal(32, 32), integers(32, 16)], [normal(1024, 1024), integers(1024, 512)],
)  # fmt: skip
both_sizes(
    "gather", lambda lib, x, i: lib.gather(x, 1, i),
    [normal(32, 32), integers(32, 32, 16)], [normal(1024, 1024), integers(1024, 1024, 512)],
)  # fmt: skip
both_sizes(
    "scatter_add", lambda lib, x, i, y: lib.scatter_add(x, 1, i, y),
    [normal(32, 32), integers(32, 32, 16), normal(32, 16)],
    [normal(1024, 1024), integers(1024, 1024, 512), normal(1024, 512)],
)  # fmt: skip
both_sizes(
    "embedding", functional("embedding"),
    [integers(32, 4, 8), normal(32, 16)], [integers(10000, 64, 128), normal(10000, 128)],
)  # fmt: skip
both_sizes(
    "pad", functional("pad", (1, 1, 1, 1)),
    [normal(1, 4, 8, 8)], [normal(16, 64, 32, 32)],
)  # fmt: skip
square("roll", plain("roll", 5, 1))
square("flip", plain("flip", (1,)))
square("tril", plain("tril"))

# Layers


def batch_norm(lib: Any, x: Any, weight: Any, bias: Any) -> Any:
    """Normalise with the statistics of the batch, and keep none."""
    return lib.nn.functional.batch_norm(x, None, None, weight, bias, training=True)


both_sizes(
    "layer_norm",
    lambda lib, x, w, b: lib.nn.functional.layer_norm(x, w.shape, w, b),
    [normal(16, 64), normal(64), normal(64)], [normal(1024, 1024), normal(1024), normal(1024)],
)  # fmt: skip
both_sizes(
    "batch_norm 1d", batch_norm,
    [normal(16, 64), normal(64), normal(64)], [normal(1024, 1024), normal(1024), normal(1024)],
)  # fmt: skip
IMAGES = (
    [normal(2, 8, 8, 8), normal(8), normal(8)],
    [normal(32, 32, 32, 32), normal(32), normal(32)],
)
both_sizes("batch_norm 2d", batch_norm, *IMAGES)
both_sizes(
    "group_norm", lambda lib, x, w, b: lib.nn.functional.group_norm(x, 4, w, b), *IMAGES
)  # fmt: skip
square("dropout", functional("dropout", 0.5))
both_sizes(
    "conv1d k3", functional("conv1d", padding=1),
    [normal(2, 8, 32), normal(16, 8, 3), normal(16)],
    [normal(32, 64, 256), normal(64, 64, 3), normal(64)],
)  # fmt: skip
for name, filters, k, more in (
    ("conv2d 3x3", 32, 3, {"padding": 1}),
    ("conv2d 5x5", 32, 5, {"padding": 2}),
    ("conv2d 3x3, stride 2", 64, 3, {"padding": 1, "stride": 2}),
    ("conv2d 1x1", 64, 1, {}),
):
    both_sizes(
        name,
        functional("conv2d", **more),
        [normal(1, 4, 8, 8), normal(8, 4, k, k), normal(8)],
        [normal(32, 16, 32, 32), normal(filters, 16, k, k), normal(filters)],
    )
both_sizes(
    "conv2d 3x3, depthwise",
    lambda lib, x, w: lib.nn.functional.conv2d(x, w, padding=1, groups=w.shape[0]),
    [normal(1, 8, 8, 8), normal(8, 1, 3, 3)], [normal(16, 64, 32, 32), normal(64, 1, 3, 3)],
)  # fmt: skip
both_sizes(
    "conv_transpose2d",
    functional("conv_transpose2d", stride=2),
    [normal(1, 8, 4, 4), normal(8, 4, 2, 2), normal(4)],
    [normal(16, 32, 32, 32), normal(32, 16, 2, 2), normal(16)],
)  # fmt: skip
for name in ("max_pool2d", "avg_pool2d"):
    both_sizes(
        name, functional(name, 2),
        [distinct(2, 4, 8, 8)], [distinct(32, 32, 32, 32)],
    )  # fmt: skip
both_sizes(
    "adaptive_avg_pool2d", functional("adaptive_avg_pool2d", 1),
    [normal(2, 4, 8, 8)], [normal(32, 32, 32, 32)],
)  # fmt: skip
for name in ("mse_loss", "smooth_l1_loss", "binary_cross_entropy_with_logits"):
    square(name, functional(name), normal, target)
both_sizes(
    "cross_entropy", functional("cross_entropy"),
    [normal(32, 32), integers(32, 32)], [normal(1024, 1024), integers(1024, 1024)],
)  # fmt: skip
both_sizes(
    "nll_loss", functional("nll_loss"),
    [normal(32, 32), integers(32, 32)], [normal(1024, 1024), integers(1024, 1024)],
)  # fmt: skip
for name, causal in (("attention", False), ("attention, causal", True)):
    both_sizes(
        name,
        functional("scaled_dot_product_attention", is_causal=causal),
        [normal(1, 2, 16, 16)] * 3, [normal(4, 8, 256, 64)] * 3,
    )  # fmt: skip
both_sizes(
    "lstm cell", lambda lib, cell, x, h, c: cell(x, (h, c)),
    [normal(4, 16)] * 3, [normal(256, 512)] * 3,
    setup=(layer("LSTMCell", 16, 16), layer("LSTMCell", 512, 512)),
)  # fmt: skip
for name in ("LSTM", "GRU"):
    both_sizes(
        name.lower(), lambda lib, layer, x: layer(x)[0],
        [normal(8, 4, 16)], [normal(32, 64, 256)],
        setup=(layer(name, 16, 16), layer(name, 256, 256)),
    )  # fmt: skip

# Random numbers, and optimizers


class Update:
    """An optimizer of one parameter that has a gradient, which stays the same."""

    def __init__(self, lib: Any, n: int, name: str, options: dict[str, float]) -> None:
        self.parameter = lib.nn.Parameter(lib.randn(n, n))
        self.parameter.grad = lib.randn(n, n)
        self.optimizer = getattr(lib.optim, name)([self.parameter], **options)

    def step(self) -> Any:
        self.optimizer.step()
        return self.parameter


def optimizer(n: int, name: str, options: dict[str, float]) -> Callable[[Any], Any]:
    """What makes the `Update` of an n x n parameter."""
    return lambda lib: Update(lib, n, name, options)


for group, n in (("small", 32), ("large", 1024)):
    for name in ("rand", "randn"):
        OPS.append(Op(name, group, plain(name, n, n), text=f"{n}x{n}", gradient=False))
    for title, name, settings in (
        ("SGD, momentum: step", "SGD", {"lr": 1e-3, "momentum": 0.9}),
        ("Adam: step", "Adam", {"lr": 1e-3}),
        ("AdamW: step", "AdamW", {"lr": 1e-3}),
    ):
        OPS.append(
            Op(
                title, group, lambda lib, update: update.step(), text=f"{n}x{n}", gradient=False,
                setup=optimizer(n, name, settings),
            )
        )  # fmt: skip


# SynapGrad's list ----------------------------------------------------------------------------------------


def synapgrad(
    name: str, function: Callable[..., Any], *shapes: tuple[int, ...], kind: Any = uniform
) -> None:
    """A row of SynapGrad's own timings, in its shapes; its numbers are from 0 to 1, too."""
    OPS.append(Op(name, "synapgrad", function, tuple(kind(*shape) for shape in shapes)))


synapgrad("add", lambda lib, x, y: x + y, (1000, 1500), (1000, 1500))
synapgrad("sub", lambda lib, x, y: x - y, (1000, 1500), (1000, 1500))
synapgrad("mul", lambda lib, x, y: x * y, (2000, 2000), (2000, 2000))
synapgrad("div", lambda lib, x, y: x / y, (500, 800), (500, 800))
synapgrad("matmul", lambda lib, x, y: x @ y, (3, 512, 512), (3, 512, 512))
synapgrad("addmm", plain("addmm"), (10, 10), (10, 10), (10, 10))
synapgrad("rsub", lambda lib, x: 5.0 - x, (500, 400, 3))
synapgrad("rmul", lambda lib, x: 5.0 * x, (500, 400, 3))
synapgrad("radd", lambda lib, x: 5.0 + x, (500, 400, 3))
synapgrad("broadcast add", lambda lib, x, y: x + y, (1000, 1000), (1000, 1))
synapgrad("broadcast sub", lambda lib, x, y: x - y, (1000, 1000), (1000, 1))
synapgrad("broadcast mul", lambda lib, x, y: x * y, (1000, 1000), (1000, 1))
synapgrad("broadcast div", lambda lib, x, y: x / y, (1000, 1000), (1000, 1))
synapgrad("neg", lambda lib, x: -x, (1000, 1500))
for exponent in (1.1, -2.2, 0.7):
    synapgrad(f"pow {exponent}", plain("pow", exponent), (1000, 1000))
synapgrad("slice", lambda lib, x: x[10:20, 5:35, :, 2:8], (30, 40, 20, 10))
for name in ("clone", "log", "exp", "sqrt"):
    synapgrad(name, plain(name), (1000, 1000))
synapgrad("sum", plain("sum"), (1000, 1500))
synapgrad("sum dim 1", plain("sum", 1), (1000, 1500))
synapgrad("sum dims 1, 2", plain("sum", (1, 2)), (1000, 1500, 3))
synapgrad("sum dim -1", plain("sum", -1), (1000, 1500, 3))
for dim in (0, 1, -1):
    synapgrad(f"mean dim {dim}", plain("mean", dim), (1000, 1500))
for name in ("max", "min"):
    synapgrad(name, plain(name), (100, 150), kind=distinct)
    synapgrad(f"{name} dim 0", first(name, 0), (1000, 1500), kind=distinct)
    synapgrad(f"{name} dim 1", first(name, 1), (1000, 1500), kind=distinct)
    synapgrad(f"{name} dim 1", first(name, 1), (1000, 3, 4, 5), kind=distinct)
synapgrad("squeeze", plain("squeeze", 1), (100, 1))
synapgrad("unsqueeze", plain("unsqueeze", 0), (1000,))
synapgrad("reshape", lambda lib, x: x.reshape(1000, 100), (100000,))
synapgrad("reshape", lambda lib, x: x.reshape(-1), (10000, 200))
synapgrad("movedim", plain("movedim", 0, 2), (100, 200, 300))
synapgrad("flatten", plain("flatten", 1), (100, 200, 300))
synapgrad("transpose", lambda lib, x: x.transpose(0, 1), (100, 200, 300))
synapgrad("unfold_dim", lambda lib, x: x.unfold(1, 20, 10), (100, 200, 300))
for shape in ((100,), (100, 100), (100, 100, 100)):
    synapgrad("stack", lambda lib, *x: lib.stack(x), shape, shape, shape)
synapgrad("concat", lambda lib, x, y: lib.cat([x, y], dim=2), (100, 200, 4), (100, 200, 3))
synapgrad("unbind", plain("unbind", 0), (100, 200, 300))
synapgrad("linear", functional("linear"), (100, 200), (300, 200), (300,))
for name in ("max_pool", "avg_pool"):
    for k, stride, padding in ((2, 1, 0), (3, 1, 0), (5, 3, 2)):
        synapgrad(
            f"{name}1d k{k} s{stride} p{padding}", functional(f"{name}1d", k, stride, padding),
            (32, 3, 64), kind=distinct,
        )  # fmt: skip
    for window, steps, border in (((2, 2), 1, 0), ((3, 2), (1, 2), 0), ((5, 3), 3, (2, 1))):
        synapgrad(
            f"{name}2d k{window} s{steps} p{border}",
            functional(f"{name}2d", window, steps, border),
            (32, 3, 64, 64),
            kind=distinct,
        )
# A column of `unfold` has 3 channels times a window of numbers; there is one for each place of the window.
for text, columns, arguments in (
    ("k3", (27, 62 * 62), (3,)),
    ("k(5, 3) d(1, 2) s(3, 2) p1", (45, 21 * 31), ((5, 3), (1, 2), 1, (3, 2))),
    ("k7 d3 s2 p(2, 3)", (147, 25 * 26), (7, 3, (2, 3), 2)),
):
    synapgrad(f"unfold {text}", functional("unfold", *arguments), (32, 3, 64, 64))
    synapgrad(f"fold {text}", functional("fold", (64, 64), *arguments), (32, *columns))
for text, k, more in (
    ("k3 d2", 3, {"dilation": 2}),
    ("k5 s2 p1", 5, {"stride": 2, "padding": 1}),
    ("k7 s2 p3", 7, {"stride": 2, "padding": 3}),
):
    synapgrad(f"conv1d {text}", functional("conv1d", **more), (32, 3, 64), (34, 3, k), (34,))
images = (32, 3, 64, 64)
synapgrad("conv2d k3 d2", functional("conv2d", dilation=2), images, (34, 3, 3, 3), (34,))
synapgrad(
    "conv2d k(5, 3) s(1, 2) p1", functional("conv2d", stride=(1, 2), padding=1),
    images, (34, 3, 5, 3),
)  # fmt: skip
synapgrad(
    "conv2d k7 s2 p(2, 3)", functional("conv2d", stride=2, padding=(2, 3)),
    images, (34, 3, 7, 7), (34,),
)  # fmt: skip


# Convolutions --------------------------------------------------------------------------------------------

for n, c, size, o in (
    (128, 1, 28, 16), (128, 16, 12, 32), (64, 3, 32, 32), (64, 32, 16, 64), (16, 64, 32, 64),
    (16, 128, 16, 128),
):  # fmt: skip
    for k in (3, 5):
        OPS.append(
            Op(
                f"conv2d {k}x{k}",
                "conv",
                functional("conv2d", padding=k // 2),
                (normal(n, c, size, size), normal(o, c, k, k)),
                f"{n}x{c}x{size}x{size} -> {o}",
            )
        )
for k in (3, 5):
    OPS.append(
        Op(
            f"conv2d {k}x{k}, depthwise",
            "conv",
            functional("conv2d", padding=k // 2, groups=64),
            (normal(16, 64, 28, 28), normal(64, 1, k, k)),
            "16x64x28x28 -> 64",
        )
    )
