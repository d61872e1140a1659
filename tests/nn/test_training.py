"""Whole models trained side by side with PyTorch: one seed, the same losses step after step."""

from __future__ import annotations

import numpy as np
import pytest

import kilograd as kg

torch = pytest.importorskip("torch")


def mlp(lib, data):
    nn = lib.nn
    net = nn.Sequential(
        nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 16),
        nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 5),
    )  # fmt: skip
    return net, lambda x, y: nn.CrossEntropyLoss(label_smoothing=0.1)(net(x), y), data(20)


def cnn(lib, data):
    nn = lib.nn
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, stride=2, groups=2), nn.SiLU(), nn.Dropout2d(0.1), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(48, 5), nn.LogSoftmax(dim=1),
    )  # fmt: skip
    return net, lambda x, y: nn.NLLLoss()(net(x), y), data(1, 12, 12)


def rnn(lib, data):
    nn = lib.nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(6, 8, 2, batch_first=True, bidirectional=True, dropout=0.1)
            self.gru = nn.GRU(16, 7, batch_first=True)
            self.last = nn.Linear(7, 5)

        def forward(self, x):
            y, _ = self.gru(self.lstm(x)[0])
            return self.last(y[:, -1])

    net = Net()
    return net, lambda x, y: nn.functional.cross_entropy(net(x), y), data(9, 6)


def transformer(lib, data):
    nn = lib.nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(11, 8)
            self.position = nn.Parameter(lib.zeros(1, 6, 8))
            layer = nn.TransformerEncoderLayer(
                8, 2, 16, dropout=0.1, batch_first=True, norm_first=True
            )
            self.encoder = nn.TransformerEncoder(
                layer, 2, norm=nn.LayerNorm(8), enable_nested_tensor=False
            )
            self.last = nn.Linear(8, 5)

        def forward(self, x):
            tokens = (x.abs() * 3).long() % 11
            mask = nn.Transformer.generate_square_subsequent_mask(6)
            h = self.encoder(self.embed(tokens) + self.position, mask=mask.to(self.position.dtype))
            return self.last(h.mean(1))

    net = Net()
    return net, lambda x, y: nn.functional.cross_entropy(net(x), y), data(6)


def autoencoder(lib, data):
    nn = lib.nn
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ELU(), nn.Flatten(), nn.Linear(64, 10), nn.Tanh(),
        nn.Linear(10, 64), nn.Unflatten(1, (4, 4, 4)), nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(4, 1, 4, stride=2, padding=1), nn.Sigmoid(),
    )  # fmt: skip
    return net, lambda x, y: nn.BCELoss()(net(x.sigmoid()), x.sigmoid()), data(1, 8, 8)


def gan(lib, data):
    nn = lib.nn
    make = nn.Sequential(nn.Linear(4, 12), nn.LeakyReLU(0.2), nn.Linear(12, 6))
    judge = nn.Sequential(nn.Linear(6, 12), nn.LeakyReLU(0.2), nn.Linear(12, 1))
    judge_optimizer = []

    def loss(x, y):
        if not judge_optimizer:
            judge_optimizer.append(lib.optim.Adam(judge.parameters(), lr=5e-3, betas=(0.5, 0.9)))
        bce = nn.BCEWithLogitsLoss()
        fake = make(x[:, :4])
        one = lib.ones(len(x), 1, dtype=x.dtype)
        ours = bce(judge(x), one) + bce(judge(fake.detach()), one * 0)
        judge_optimizer[0].zero_grad()
        ours.backward()
        judge_optimizer[0].step()
        return bce(judge(fake), one)

    return nn.ModuleList([make, judge]), loss, data(6)


OPTIMIZERS = {
    "SGD": lambda lib, ps: lib.optim.SGD(
        ps, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3
    ),
    "AdamW": lambda lib, ps: lib.optim.AdamW(ps, lr=3e-3, amsgrad=True),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "model", [mlp, cnn, rnn, transformer, autoencoder, gan], ids=lambda f: f.__name__
)
def test_the_same_losses(model, optimizer):
    curves = []
    for lib in (torch, kg):
        rng = np.random.default_rng(0)
        lib.manual_seed(0)
        net, loss, data = model(
            lib, lambda *shape, rng=rng: (rng.standard_normal((40, *shape)), rng.integers(0, 5, 40))
        )
        net.double()
        opt = OPTIMIZERS[optimizer](lib, net.parameters())
        schedule = lib.optim.lr_scheduler.CosineAnnealingLR(opt, 12)
        x, y = lib.tensor(data[0]), lib.tensor(data[1])
        losses = []
        lib.manual_seed(1)
        for _ in range(12):
            rows = lib.randperm(40)[:16]
            opt.zero_grad()
            value = loss(x[rows], y[rows])
            value.backward()
            losses.append(lib.nn.utils.clip_grad_norm_(net.parameters(), 1.0).item())
            opt.step()
            schedule.step()
            losses.append(value.item())
        net.eval()
        with lib.no_grad():
            losses.append(loss(x, y).item() if model is not gan else 0.0)
        curves.append(losses)
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-7, atol=1e-9)
