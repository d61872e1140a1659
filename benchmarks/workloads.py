"""The networks of the ancestors that are timed, each written once for both libraries.

A workload takes ``lib``, which is ``kilograd`` or ``torch``, and returns a training step without
arguments: ``zero_grad``, forward, loss, ``backward``, optimizer step. The seed makes initial weights,
data and dropout masks the same in both. Each is an example of one of the ancestors (see ``examples/``),
with its own model, batch size and optimizer; the data are random numbers of the right shape, since the
time does not depend on them.
"""

from __future__ import annotations

import itertools
from typing import Any

from kilograd.cli.bench import timing
from kilograd.cli.bench.networks import batches, list_of
from kilograd.cli.bench.timing import Step, alternate, fix_threads, ratio  # noqa: F401 - for the scripts


def stepper(model: Any, criterion: Any, optimizer: Any, data: Any) -> Step:
    def step() -> Any:
        x, y = next(data)
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    step.parameters = sum(p.numel() for p in model.parameters())
    step.batch = len(next(data)[0])
    return step


def basic_mlp(lib: Any) -> Step:
    """SynapGrad's moons: SGD on batches of four points; nothing but overhead."""
    nn = lib.nn
    lib.manual_seed(42)
    model = nn.Sequential(
        nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1)
    )
    data = ((x, y.float().unsqueeze(1)) for x, y in list_of(batches(lib, 4, 2, classes=2), 37))
    data = itertools.cycle(list(data))
    return stepper(model, nn.MSELoss(), lib.optim.SGD(model.parameters(), lr=0.1), data)


def mnist_mlp(lib: Any) -> Step:
    """SynapGrad's MNIST MLP: batch norm, dropout, momentum."""
    nn = lib.nn
    lib.manual_seed(42)
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 200), nn.BatchNorm1d(200), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(200, 100), nn.BatchNorm1d(100), nn.ReLU(),
        nn.Linear(100, 10), nn.LogSoftmax(dim=1),
    )  # fmt: skip
    optimizer = lib.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return stepper(model, nn.NLLLoss(), optimizer, batches(lib, 64, 1, 28, 28))


def mnist_cnn(lib: Any) -> Step:
    """SynapGrad's MNIST CNN."""
    nn = lib.nn
    lib.manual_seed(1337)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding="same"), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.3),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding="same"), nn.BatchNorm2d(32), nn.ReLU(), nn.Dropout(0.3),
        nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1568, 10),
    )  # fmt: skip
    optimizer = lib.optim.Adam(model.parameters(), lr=0.01)
    return stepper(model, nn.CrossEntropyLoss(), optimizer, batches(lib, 128, 1, 28, 28))


def circles(lib: Any) -> Step:
    """Neograd's circles: the whole training set at once, Adam."""
    nn = lib.nn
    lib.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 100), nn.ReLU(), nn.Linear(100, 1), nn.Sigmoid())
    data = list_of(batches(lib, 750, 2, classes=2), 2)
    data = itertools.cycle([(x, y.float().unsqueeze(1)) for x, y in data])
    return stepper(model, nn.BCELoss(), lib.optim.Adam(model.parameters(), lr=0.05), data)


def digits_conv(lib: Any) -> Step:
    """Neograd's digits: one 3x3 kernel and a linear layer."""
    nn = lib.nn
    lib.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 10))
    optimizer = lib.optim.Adam(model.parameters(), lr=5e-3)
    return stepper(model, nn.CrossEntropyLoss(), optimizer, batches(lib, 200, 1, 8, 8))


def digits_gan(lib: Any) -> Step:
    """Neograd's GAN: two networks, two optimizers, one step of each."""
    nn = lib.nn
    lib.manual_seed(0)

    def mlp(*last: Any) -> Any:
        return nn.Sequential(
            nn.Linear(64, 50), nn.LeakyReLU(0.01), nn.Linear(50, 25), nn.LeakyReLU(0.01), *last
        )

    generator, discriminator = mlp(nn.Linear(25, 64)), mlp(nn.Linear(25, 1), nn.Sigmoid())
    g_optimizer = lib.optim.Adam(generator.parameters(), lr=5e-3)
    d_optimizer = lib.optim.Adam(discriminator.parameters(), lr=5e-3)
    criterion, data = nn.BCELoss(), batches(lib, 200, 64)
    yes, no = lib.ones(200, 1), lib.zeros(200, 1)

    def step() -> Any:
        real = next(data)[0]
        fake = generator(lib.randn(200, 64))
        d_optimizer.zero_grad()
        loss = criterion(discriminator(real), yes) + criterion(discriminator(fake.detach()), no)
        loss.backward()
        d_optimizer.step()
        discriminator.requires_grad_(False)
        g_optimizer.zero_grad()
        criterion(discriminator(fake), yes).backward()
        g_optimizer.step()
        discriminator.requires_grad_(True)
        return loss

    step.parameters = sum(p.numel() for m in (generator, discriminator) for p in m.parameters())
    step.batch = 200
    return step


def macrograd_mlp(lib: Any) -> Step:
    """Macrograd's MNIST MLP: big matrices, batches of ten: memory traffic."""
    nn = lib.nn
    lib.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(),
        nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10),
    )  # fmt: skip
    optimizer = lib.optim.SGD(model.parameters(), lr=0.01, momentum=0.8)
    return stepper(model, nn.CrossEntropyLoss(), optimizer, batches(lib, 10, 1, 28, 28))


def pygrad_moons(lib: Any) -> Step:
    """PyGrad's moons: dropout after the last layer, Adam, batches of eight."""
    nn = lib.nn
    lib.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 10), nn.ReLU(), nn.Linear(10, 2), nn.Dropout(0.5))
    optimizer = lib.optim.Adam(model.parameters(), lr=1e-3)
    return stepper(model, nn.CrossEntropyLoss(), optimizer, batches(lib, 8, 2, classes=2))


def simple_mlp(lib: Any) -> Step:
    """simple_autograd's MLP."""
    nn = lib.nn
    lib.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(),
        nn.Linear(64, 10),
    )  # fmt: skip
    optimizer = lib.optim.SGD(model.parameters(), lr=0.1)
    return stepper(model, nn.CrossEntropyLoss(), optimizer, batches(lib, 64, 1, 28, 28))


def simple_cnn(lib: Any) -> Step:
    """simple_autograd's CNN."""
    nn = lib.nn
    lib.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    optimizer = lib.optim.Adam(model.parameters(), lr=1e-3)
    return stepper(model, nn.CrossEntropyLoss(), optimizer, batches(lib, 64, 1, 28, 28))


def vit(lib: Any) -> Step:
    """simple_autograd's vision transformer: one block, read at the class token."""
    nn, F = lib.nn, lib.nn.functional
    lib.manual_seed(0)

    class ViT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(49, 32)
            self.token = nn.Parameter(lib.zeros(1, 1, 32))
            self.position = nn.Parameter(lib.zeros(1, 17, 32))
            self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
            self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
            self.mlp = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 32))
            self.head = nn.Linear(32, 10)

        def forward(self, images: Any) -> Any:
            n = len(images)
            patches = images.reshape(n, 4, 7, 4, 7).transpose(2, 3).reshape(n, 16, 49)
            x = lib.cat([self.token.expand(n, -1, -1), self.embed(patches)], dim=1) + self.position
            q, k, v = self.qkv(self.norm1(x)).reshape(n, 17, 3, 4, 8).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q[:, :, :1], k, v)
            x = x[:, 0] + self.out(mixed.reshape(n, 32))
            return self.head(x + self.mlp(self.norm2(x)))

    model = ViT()
    optimizer = lib.optim.Adam(model.parameters(), lr=1e-3)
    return stepper(model, nn.CrossEntropyLoss(), optimizer, batches(lib, 64, 1, 28, 28))


WORKLOADS = {
    f.__name__: f
    for f in (
        basic_mlp, mnist_mlp, mnist_cnn, circles, digits_conv, digits_gan, macrograd_mlp,
        pygrad_moons, simple_mlp, simple_cnn, vit,
    )
}  # fmt: skip


def libraries(threads: int) -> dict[str, Any]:
    """kilograd, and PyTorch where it is installed."""
    found = timing.libraries(threads)
    if "torch" not in found:
        print("PyTorch is not installed: timing kilograd alone")
    return found
