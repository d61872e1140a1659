"""The same seed gives PyTorch's training curve: initial weights, shuffles and arithmetic all agree.

Each curve is one function of the library, ``kilograd`` or ``torch``; nothing is copied from one to the
other. And training for 10,000 steps takes no more memory than training for one.
"""

import gc
import math
import tracemalloc

import pytest

import kilograd as kg

# The two add up the same numbers in different orders, and fifty steps amplify those rounding errors: to
# 7e-6 and 3e-15 at most where this was measured. Other processors add in other orders: hence some room,
# but none in which a different formula or constant could hide.
RTOL = {"float32": 1e-4, "float64": 1e-12}


def losses(lib, model, criterion, optimizer, x, y, *, batch=16, epochs=5, schedule=None):
    """The loss of every step, over a reshuffled loader with a last batch that is smaller."""
    loader = lib.utils.data.DataLoader(
        lib.utils.data.TensorDataset(x, y), batch_size=batch, shuffle=True
    )
    curve = []
    for _ in range(epochs):
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = criterion(model(inputs), targets)
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
        if schedule is not None:
            schedule.step()
    return curve


def points(lib, n=150, features=2, classes=2):
    """Random points, labelled by the ring around the origin that they lie in."""
    x = lib.randn(n, features)
    return x, ((x**2).sum(dim=1) / features).clamp(max=classes - 0.5).long()


def pictures(lib, n=88):
    """Noise in which the brightest quarter is the class."""
    y = lib.randint(0, 4, (n,))
    x = lib.rand(n, 1, 8, 8)
    for k in range(4):
        row, column = 4 * (k // 2), 4 * (k % 2)
        x[y == k, :, row : row + 4, column : column + 4] += 0.5
    return x, y


def mlp_sgd(lib, seed=0):
    nn = lib.nn
    lib.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1)
    )
    x, y = points(lib)
    target = y.to(x.dtype).unsqueeze(1)
    return losses(lib, model, nn.MSELoss(), lib.optim.SGD(model.parameters(), lr=0.1), x, target)


def mlp_momentum(lib):
    nn = lib.nn
    lib.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 3))
    optimizer = lib.optim.SGD(
        model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3
    )
    return losses(lib, model, nn.CrossEntropyLoss(), optimizer, *points(lib, 160, 6, 3))


def mlp_adam(lib, seed=2):
    nn = lib.nn
    lib.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 20), nn.ReLU(), nn.Linear(20, 2), nn.LogSoftmax(dim=1))
    return losses(
        lib, model, nn.NLLLoss(), lib.optim.Adam(model.parameters(), lr=1e-2), *points(lib)
    )


def mlp_batch_norm(lib):
    nn = lib.nn
    lib.manual_seed(3)
    model = nn.Sequential(
        nn.Linear(10, 24), nn.BatchNorm1d(24), nn.ReLU(),
        nn.Linear(24, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4),
    )  # fmt: skip
    optimizer = lib.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    return losses(lib, model, nn.CrossEntropyLoss(), optimizer, *points(lib, 152, 10, 4))


def mlp_layer_norm_adamw(lib):
    nn = lib.nn
    lib.manual_seed(4)
    model = nn.Sequential(nn.Linear(5, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 3))
    optimizer = lib.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = lib.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    data = points(lib, 150, 5, 3)
    return losses(lib, model, nn.CrossEntropyLoss(), optimizer, *data, schedule=schedule)


def mlp_sigmoid_rmsprop(lib):
    nn = lib.nn
    lib.manual_seed(5)
    model = nn.Sequential(nn.Linear(2, 30), nn.LeakyReLU(0.1), nn.Linear(30, 1), nn.Sigmoid())
    x, y = points(lib)
    optimizer = lib.optim.RMSprop(model.parameters(), lr=3e-3)
    return losses(lib, model, nn.BCELoss(), optimizer, x, y.to(x.dtype).unsqueeze(1))


def mlp_own_initial_weights(lib):
    nn = lib.nn
    lib.manual_seed(6)
    model = nn.Sequential(
        nn.Linear(4, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3)
    )
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    nn.init.xavier_uniform_(model[-1].weight, gain=0.1)
    optimizer = lib.optim.SGD(model.parameters(), lr=0.05)
    return losses(lib, model, nn.CrossEntropyLoss(), optimizer, *points(lib, 160, 4, 3))


def cnn_adam(lib):
    nn = lib.nn
    lib.manual_seed(7)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding="same"), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4),
    )  # fmt: skip
    optimizer = lib.optim.Adam(model.parameters(), lr=3e-3)
    return losses(lib, model, nn.CrossEntropyLoss(), optimizer, *pictures(lib), epochs=8)


def cnn_sgd(lib):
    nn = lib.nn
    lib.manual_seed(8)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(24, 4),
    )  # fmt: skip
    optimizer = lib.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return losses(lib, model, nn.CrossEntropyLoss(), optimizer, *pictures(lib), epochs=8)


def split_and_subset(lib):
    """The training half of a random split, in random order of a sampler with its own generator."""
    nn, data = lib.nn, lib.utils.data
    lib.manual_seed(9)
    train, _ = data.random_split(data.TensorDataset(*points(lib, 200)), [0.7, 0.3])
    model = nn.Sequential(nn.Linear(2, 12), nn.SiLU(), nn.Linear(12, 2))
    optimizer = lib.optim.Adam(model.parameters(), lr=5e-3)
    generator = lib.Generator().manual_seed(90)
    curve = []
    for _ in range(4):
        for x, y in data.DataLoader(train, batch_size=10, shuffle=True, generator=generator):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
    return curve


CURVES = [
    mlp_sgd, mlp_momentum, mlp_adam, mlp_batch_norm, mlp_layer_norm_adamw, mlp_sigmoid_rmsprop,
    mlp_own_initial_weights, cnn_adam, cnn_sgd, split_and_subset,
]  # fmt: skip


def assert_same_curve(train, dtype):
    torch = pytest.importorskip("torch")
    curves = []
    for lib in (kg, torch):
        before = lib.get_default_dtype()
        lib.set_default_dtype(getattr(lib, dtype))
        try:
            curves.append(train(lib))
        finally:
            lib.set_default_dtype(before)
    ours, theirs = curves
    assert len(ours) == len(theirs) >= 48
    assert ours[-1] < ours[0]  # it learned, so the curve says something
    error = max(abs(a - b) / b for a, b in zip(ours, theirs, strict=True))
    assert error <= RTOL[dtype], f"{error:.1e} after {len(ours)} steps: {ours[-1]} and {theirs[-1]}"
    return error


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("train", CURVES, ids=lambda train: train.__name__)
def test_curve_equals_pytorch(train, dtype):
    assert_same_curve(train, dtype)


@pytest.mark.parametrize("seed", [10, 37, 1337, 2**40 + 1])
def test_curve_equals_pytorch_from_any_seed(seed):
    assert_same_curve(lambda lib: mlp_sgd(lib, seed), "float32")
    assert_same_curve(lambda lib: mlp_adam(lib, seed), "float32")


@pytest.mark.slow
def test_memory_is_flat_over_10_000_steps():
    """Without the garbage collector: a reference cycle a step would show as 10,000 objects."""
    model = kg.nn.Sequential(
        kg.nn.Linear(2, 16), kg.nn.ReLU(), kg.nn.Linear(16, 16), kg.nn.ReLU(), kg.nn.Linear(16, 1)
    )
    optimizer = kg.optim.SGD(model.parameters(), lr=0.1)
    x, y = kg.randn(4, 2), kg.rand(4, 1)

    def train(steps):
        for _ in range(steps):
            optimizer.zero_grad()
            loss = kg.nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
        return loss.item()

    train(100)
    gc.collect()
    gc.disable()
    try:
        objects = len(gc.get_objects())
        assert math.isfinite(train(9_000))
        assert len(gc.get_objects()) - objects < 20
        tracemalloc.start()
        train(10)
        traced = tracemalloc.get_traced_memory()[0]
        train(1_000)
        assert tracemalloc.get_traced_memory()[0] - traced < 16 * 1024
    finally:
        tracemalloc.stop()
        gc.enable()
