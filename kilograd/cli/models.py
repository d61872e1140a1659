"""The networks that ``kilograd train`` builds, for any input shape and number of classes."""

from __future__ import annotations

import math
from typing import Any

from kilograd import nn
from kilograd.functions.creation import zeros
from kilograd.functions.shape import cat
from kilograd.nn import functional as F


def mlp(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Two hidden layers with batch norm: a few thousand parameters for points, 178,710 for MNIST."""
    inputs = math.prod(shape)
    a, b = (200, 100) if inputs > 256 else (64, 64) if inputs > 16 else (32, 32)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, a), nn.BatchNorm1d(a), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU(),
        nn.Linear(b, classes),
    )  # fmt: skip


def cnn(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Two 3x3 convolutions with batch norm, pooling and dropout: 20,586 parameters for MNIST."""
    channels, height, width = image(shape, "cnn")
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding="same"), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Dropout(0.3), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding="same"), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Dropout(0.3), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * (height // 4) * (width // 4), classes),
    )  # fmt: skip


class ViT(nn.Module):
    """A small vision transformer (Dosovitskiy et al. 2021): patches, a class token, pre-norm blocks."""

    def __init__(
        self, shape: tuple[int, ...], classes: int, patch: int, width: int = 64, heads: int = 4,
        blocks: int = 2,
    ) -> None:  # fmt: skip
        super().__init__()
        channels, height, w = image(shape, "vit")
        count = (height // patch) * (w // patch)
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.cls = nn.Parameter(zeros(1, 1, width))
        self.position = nn.Parameter(zeros(1, count + 1, width))
        nn.init.normal_(self.position, std=0.02)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Any) -> Any:
        x = self.patches(x).flatten(2).transpose(1, 2)  # (N, T, D)
        x = cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.position
        return self.head(self.norm(self.blocks(x)[:, 0]))


class Block(nn.Module):
    """Self-attention and a two-layer network, each normalised first and added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Any) -> Any:
        n, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)  # (N, heads, T, D / heads)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, d))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def vit(shape: tuple[int, ...], classes: int) -> nn.Module:
    """A two-block transformer over 7x7 patches (2x2 for small images)."""
    _, height, _ = image(shape, "vit")
    return ViT(shape, classes, patch=7 if height % 7 == 0 else 2)


def image(shape: tuple[int, ...], model: str) -> tuple[int, int, int]:
    """(C, H, W), or an error where the data are not images."""
    if len(shape) != 3:
        raise ValueError(
            f"--model {model} needs images; this dataset has inputs of shape {shape}: use mlp"
        )
    return shape


MODELS = {"mlp": mlp, "cnn": cnn, "vit": vit}
