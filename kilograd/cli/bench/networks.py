"""The networks whose training steps are timed, each written once for kilograd and PyTorch.

A workload takes ``lib``, which is ``kilograd`` or ``torch``, and returns a `Workload`: the function that is
compiled (a whole training step of one batch, or one call of a model), the prepared batches that it is
called with in turn, and an analytic count of what the step cannot avoid, from which the floor follows.
The seed makes initial weights, data and dropout masks the same in both libraries. The data are random
numbers of the right shape, since the time does not depend on them.
"""

# Modules are subclasses of a `lib.nn.Module` that mypy cannot know:
# mypy: disable-error-code="name-defined, misc"

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kilograd.cli.bench.timing import Step


@dataclass
class Work:
    """What a step cannot avoid: FLOPs of its products, and words to and from memory.

    A product (matmul or convolution) in a training step comes three times: its result, the gradient of the
    weight, the gradient of the input; in the first layer twice. The words are an estimate with three rules:
    what products read and write while they run is part of their rate; their results are written once
    forward and read once backward, and all that is elementwise is fused into that; the optimizer reads the
    gradient, and reads and writes the parameter and each of its states. ``kept`` counts the words that live
    through the step: parameters, gradients, optimizer states, activations. It decides which level of the
    memory hierarchy the words come from.
    """

    flops: float = 0.0
    words: float = 0.0
    kept: float = 0.0

    def product(self, m: int, k: int, n: int, times: int = 3) -> Work:
        """(m, k) @ (k, n), where the (k, n) are weights."""
        self.flops += times * 2 * m * k * n
        return self.results(m * n, max(times // 3, 1))

    def results(self, count: int, forward: int = 1) -> Work:
        """Numbers that ``forward`` products leave each for the way back."""
        self.words += 2 * forward * count
        self.kept += forward * count
        return self

    def chain(self, batch: int, *widths: int, first: int = 2, times: int = 3) -> Work:
        """The linear layers of an MLP; ``first`` is how often the product of the first one comes."""
        for i, (k, n) in enumerate(itertools.pairwise(widths)):
            self.product(batch, k, n, first if i == 0 else times)
        return self

    def conv(
        self, batch: int, c: int, filters: int, kernel: int, size: int, times: int = 3
    ) -> Work:
        """A square convolution with ``size`` × ``size`` places in its result."""
        return self.product(batch * size**2, c * kernel**2, filters, times)

    def causal_attention(self, batch: int, length: int, width: int) -> Work:
        """Scores and mixture over the places before, twice as much backward; scores stay in cache."""
        self.flops += 3 * 2 * 2 * batch * width * length * (length + 1) / 2
        return self.results(batch * length * width)

    def update(self, parameters: int, states: int = 0) -> Work:
        """The optimizer's sweep over all parameters."""
        self.words += parameters * (3 + 2 * states)
        self.kept += parameters * (2 + states)
        return self


@dataclass
class Workload:
    """One network and how it is stepped."""

    function: Callable[..., Any]
    data: list[tuple]
    parameters: int
    work: Work = field(default_factory=Work)
    mode: Callable[[], Any] = contextlib.nullcontext  # what it is called in: no_grad, or nothing

    def step(self, function: Callable[..., Any] | None = None) -> Step:
        """A step without arguments of ``function`` (this one, or what a compiler made of it)."""
        function = function or self.function
        if len(self.data) == 1:
            return functools.partial(function, *self.data[0])
        cycle = itertools.cycle(self.data)
        return lambda: function(*next(cycle))


def batches(
    lib: Any, batch: int, *shape: int, classes: int = 10, count: int = 8
) -> Iterator[tuple]:
    """An endless cycle of random inputs and labels."""
    lib.manual_seed(1)
    inputs = [lib.rand(batch, *shape) for _ in range(count)]
    labels = [lib.randint(0, classes, (batch,)) for _ in range(count)]
    return itertools.cycle(list(zip(inputs, labels, strict=True)))


def list_of(cycle: Iterator[tuple], count: int) -> list[tuple]:
    """The next ``count`` of an endless cycle."""
    return list(itertools.islice(cycle, count))


def texts(lib: Any, batch: int, length: int, kinds: int) -> list[tuple]:
    """Random characters, and the same one place on, as what shall be predicted."""
    lines = [lib.randint(0, kinds, (batch, length + 1)) for _ in range(8)]
    return [(line[:, :-1].contiguous(), line[:, 1:].contiguous()) for line in lines]


def size(model: Any) -> int:
    """The number of parameters."""
    return sum(p.numel() for p in model.parameters())


def training(
    model: Any, criterion: Any, optimizer: Any, data: list[tuple], work: Work, states: int
) -> Workload:
    """The step of a classifier or regressor; the optimizer keeps ``states`` numbers a parameter."""

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    parameters = size(model)
    return Workload(step, data, parameters, work.update(parameters, states))


def basic_mlp(lib: Any) -> Workload:
    """SynapGrad's moons, 2-16-16-1: SGD on batches of four points; nothing but overhead."""
    nn = lib.nn
    lib.manual_seed(42)
    model = nn.Sequential(
        nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1)
    )
    data = [(x, y.float().unsqueeze(1)) for x, y in list_of(batches(lib, 4, 2, classes=2), 8)]
    optimizer = lib.optim.SGD(model.parameters(), lr=0.1)
    return training(model, nn.MSELoss(), optimizer, data, Work().chain(4, 2, 16, 16, 1), states=0)


def policy(lib: Any) -> Workload:
    """A control policy, 8-64-64-4, asked for one action at a time."""
    nn = lib.nn
    lib.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4)
    )
    parameters = size(model)

    def act(x: Any) -> Any:
        return model(x)

    work = Work(kept=parameters).chain(1, 8, 64, 64, 4, first=1, times=1)
    mode = lib.inference_mode if lib.__name__ == "torch" else lib.no_grad
    return Workload(act, [(lib.rand(1, 8),)], parameters, work, mode)


def mnist_mlp(lib: Any) -> Workload:
    """784-200-100-10 with batch norm; Adam."""
    nn = lib.nn
    lib.manual_seed(42)
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 200), nn.BatchNorm1d(200), nn.ReLU(),
        nn.Linear(200, 100), nn.BatchNorm1d(100), nn.ReLU(),
        nn.Linear(100, 10),
    )  # fmt: skip
    data = list_of(batches(lib, 64, 1, 28, 28), 8)
    optimizer = lib.optim.Adam(model.parameters(), lr=1e-3)
    work = Work().chain(64, 784, 200, 100, 10)
    return training(model, nn.CrossEntropyLoss(), optimizer, data, work, states=2)


def macro_mlp(lib: Any) -> Workload:
    """784-1024-1024-1024-10: big matrices and SGD with momentum: BLAS and memory traffic."""
    nn = lib.nn
    lib.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(),
        nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10),
    )  # fmt: skip
    data = list_of(batches(lib, 64, 1, 28, 28), 8)
    optimizer = lib.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    work = Work().chain(64, 784, 1024, 1024, 1024, 10)
    return training(model, nn.CrossEntropyLoss(), optimizer, data, work, states=1)


def mnist_cnn(lib: Any) -> Workload:
    """Two convolutions with batch norm and pooling, dropout, one linear layer; Adam."""
    nn = lib.nn
    lib.manual_seed(1337)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 5, padding="same"), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding="same"), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(1568, 10),
    )  # fmt: skip
    data = list_of(batches(lib, 128, 1, 28, 28), 8)
    optimizer = lib.optim.Adam(model.parameters(), lr=1e-3)
    work = Work().conv(128, 1, 16, 5, 28, times=2).conv(128, 16, 32, 3, 14).product(128, 1568, 10)
    return training(model, nn.CrossEntropyLoss(), optimizer, data, work, states=2)


def char_gpt(lib: Any, layers: int = 4, heads: int = 4, width: int = 128) -> Workload:
    """A decoder-only transformer over 64 characters of 65 kinds, batches of 12; AdamW."""
    nn, F = lib.nn, lib.nn.functional
    batch, length, kinds = 12, 64, 65
    lib.manual_seed(0)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.wide, self.back = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:  # (N, T, D) → (N, T, D)
            n, t, d = x.shape
            qkv = self.qkv(self.norm1(x)).reshape(n, t, 3, heads, d // heads)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (N, heads, T, d)
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(mixed.transpose(1, 2).reshape(n, t, d))
            return x + self.back(F.gelu(self.wide(self.norm2(x))))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.character, self.place = nn.Embedding(kinds, width), nn.Embedding(length, width)
            self.blocks = nn.Sequential(*[Block() for _ in range(layers)])
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, kinds)

        def forward(self, text: Any) -> Any:  # (N, T) characters → (N, T, kinds) scores
            x = self.character(text) + self.place(lib.arange(text.shape[1]))
            return self.head(self.norm(self.blocks(x)))

    def criterion(scores: Any, following: Any) -> Any:
        return F.cross_entropy(scores.flatten(0, 1), following.flatten())

    model = GPT()
    optimizer = lib.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    data = texts(lib, batch, length, kinds)
    work, rows = Work(), batch * length
    for _ in range(layers):
        work.product(rows, width, 3 * width).causal_attention(batch, length, width)
        work.product(rows, width, width)
        work.product(rows, width, 4 * width).product(rows, 4 * width, width)
    work.product(rows, width, kinds)
    return training(model, criterion, optimizer, data, work, states=2)


def pinn(lib: Any) -> Workload:
    """Burgers' equation at 512 points (x, t), 2-32-32-32-1 with tanh: derivatives of derivatives; Adam."""
    nn, grad = lib.nn, lib.autograd.grad
    lib.manual_seed(0)
    u = nn.Sequential(
        nn.Linear(2, 32), nn.Tanh(),
        nn.Linear(32, 32), nn.Tanh(),
        nn.Linear(32, 32), nn.Tanh(),
        nn.Linear(32, 1),
    )  # fmt: skip
    optimizer = lib.optim.Adam(u.parameters(), lr=1e-3)
    viscosity = 0.01

    def step(points: Any) -> Any:
        points = points.detach().requires_grad_()
        optimizer.zero_grad()
        y = u(points)
        dy = grad(y, points, lib.ones_like(y), create_graph=True)[0]
        dx, dt = dy[:, :1], dy[:, 1:]
        dxx = grad(dx, points, lib.ones_like(dx), create_graph=True)[0][:, :1]
        loss = ((dt + y * dx - viscosity * dxx) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    parameters, points = size(u), [(lib.rand(512, 2),) for _ in range(8)]
    # Each product comes once for u, once for its derivatives, twice for the second derivative, and each of
    # these four twice backward, in the weight and in what goes on.
    work = Work().chain(512, 2, 32, 32, 32, 1, first=12, times=12).update(parameters, 2)
    return Workload(step, points, parameters, work)


def resnet8(lib: Any) -> Workload:
    """ResNet-8 on 3×32×32 images, batches of 32: a residual block of 16, 32 and 64 filters; SGD."""
    nn = lib.nn
    lib.manual_seed(0)

    class Block(nn.Module):
        def __init__(self, c: int, filters: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(c, filters, 3, stride, padding=1, bias=False)
            self.norm1 = nn.BatchNorm2d(filters)
            self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
            self.norm2 = nn.BatchNorm2d(filters)
            self.relu = nn.ReLU()
            same = c == filters and stride == 1
            self.short = nn.Identity() if same else nn.Conv2d(c, filters, 1, stride, bias=False)

        def forward(self, x: Any) -> Any:
            y = self.relu(self.norm1(self.conv1(x)))
            return self.relu(self.norm2(self.conv2(y)) + self.short(x))

    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    data = list_of(batches(lib, 32, 3, 32, 32), 8)
    optimizer = lib.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    work = Work().conv(32, 3, 16, 3, 32, times=2)
    work.conv(32, 16, 16, 3, 32).conv(32, 16, 16, 3, 32)
    for c, filters, out in (16, 32, 16), (32, 64, 8):
        work.conv(32, c, filters, 3, out).conv(32, filters, filters, 3, out)
        work.conv(32, c, filters, 1, out)
    work.product(32, 64, 10)
    return training(model, nn.CrossEntropyLoss(), optimizer, data, work, states=1)


def char_lstm(lib: Any) -> Workload:
    """An LSTM 64→128 over 32 characters of 65 kinds, batches of 32; Adam."""
    nn, F = lib.nn, lib.nn.functional
    batch, length, kinds = 32, 32, 65
    lib.manual_seed(0)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.character = nn.Embedding(kinds, 64)
            self.lstm = nn.LSTM(64, 128, batch_first=True)
            self.head = nn.Linear(128, kinds)

        def forward(self, text: Any) -> Any:
            return self.head(self.lstm(self.character(text))[0])

    def criterion(scores: Any, following: Any) -> Any:
        return F.cross_entropy(scores.flatten(0, 1), following.flatten())

    model = Model()
    optimizer = lib.optim.Adam(model.parameters(), lr=1e-3)
    data = texts(lib, batch, length, kinds)
    rows = batch * length
    work = Work().product(rows, 64, 512).product(rows, 128, 512).product(rows, 128, kinds)
    return training(model, criterion, optimizer, data, work, states=2)


WORKLOADS: dict[str, Callable[..., Workload]] = {
    f.__name__: f
    for f in (
        basic_mlp, policy, mnist_mlp, macro_mlp, mnist_cnn, char_gpt, pinn, resnet8, char_lstm,
    )
}  # fmt: skip


def first_losses(lib: Any, step: Step) -> list[list[float]]:
    """What the first three steps give; dropout draws from a seed of its own."""
    lib.manual_seed(7)
    return [step().reshape(-1).tolist() for _ in range(3)]


def disagreements(first: dict[str, list[list[float]]]) -> list[str]:
    """A note for each kind of step whose first losses are not those of the first kind."""
    names = list(first)
    notes = []
    for kind in names[1:]:
        ours, theirs = (itertools.chain(*first[name]) for name in (kind, names[0]))
        pairs = zip(theirs, ours, strict=True)
        if not all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-6) for a, b in pairs):
            notes.append(f"losses differ: {names[0]} {first[names[0]]}, {kind} {first[kind]}")
    return notes
