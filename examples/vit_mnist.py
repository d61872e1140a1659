"""MNIST with a vision transformer of 15,210 parameters, every part of it in sight.

    python examples/vit_mnist.py

simple_autograd's transformer: an image is a sentence of sixteen 7x7 patches and a class token in front,
each attending to all others. Only the class token is read in the end, so the last block computes
nothing for the others: its queries are that one token.
"""

import argparse
import sys
import time
from itertools import islice

import kilograd as kg
import kilograd.nn.functional as F
from kilograd import nn
from kilograd.datasets import MNIST
from kilograd.utils.data import DataLoader


class Attention(nn.Module):
    """Several heads of softmax(q kᵀ / √d) v, side by side."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: kg.Tensor, last: bool) -> kg.Tensor:  # (N, T, D) → (N, T or 1, D)
        n, t, d = x.shape
        heads = self.qkv(x).reshape(n, t, 3, self.heads, d // self.heads)
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # each (N, heads, T, d)
        if last:
            q = q[:, :, :1]
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(n, -1, d))


class Block(nn.Module):
    """Attention, then a small network at each place, each on normalised input and added to it."""

    def __init__(self, width: int, heads: int, last: bool) -> None:
        super().__init__()
        self.last = last
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: kg.Tensor) -> kg.Tensor:
        before = x[:, :1] if self.last else x
        x = before + self.attention(self.norm1(x), self.last)
        return x + self.down(self.up(self.norm2(x)).relu())


class ViT(nn.Module):
    """Patches in, a class token in front, blocks, and a linear layer on what the token has become."""

    def __init__(self, patch: int = 7, width: int = 32, heads: int = 4, blocks: int = 1) -> None:
        super().__init__()
        self.patch = patch
        self.embed = nn.Linear(patch * patch, width)
        self.token = nn.Parameter(kg.zeros(1, 1, width))
        self.position = nn.Parameter(kg.zeros(1, (28 // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*[Block(width, heads, i == blocks - 1) for i in range(blocks)])
        self.head = nn.Linear(width, 10)

    def forward(self, images: kg.Tensor) -> kg.Tensor:  # (N, 1, 28, 28) → (N, 10)
        patches = F.unfold(images, self.patch, stride=self.patch).transpose(1, 2)  # (N, 16, 49)
        x = self.embed(patches)
        x = kg.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.position  # (N, 17, D)
        return self.head(self.blocks(x)[:, 0])


def run(
    train_set: MNIST, test_set: MNIST, epochs: int = 20, lr: float = 1e-3, batches: int | None = None
) -> float:  # fmt: skip
    """Train and return the test accuracy; ``batches`` cuts each pass over the data short."""
    kg.manual_seed(0)
    model = ViT()
    optimizer = kg.optim.Adam(model.parameters(), lr=lr)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    train, test = DataLoader(train_set, 64, shuffle=True), DataLoader(test_set, 250)
    accuracy = 0.0
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        for images, labels in islice(train, batches):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
        with kg.no_grad():
            right = [model(x).argmax(dim=1) == y for x, y in islice(test, batches)]
            accuracy = kg.cat(right).float().mean().item()
        seconds = time.perf_counter() - start
        print(f"epoch {epoch:2d}  test accuracy {accuracy:.4f}  {seconds:.0f} s")
    return accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--download", action="store_true", help="fetch MNIST if it is not here")
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that it runs")
    args = parser.parse_args()
    try:
        data = [MNIST(train=train, download=args.download) for train in (True, False)]
    except (RuntimeError, ImportError) as missing:
        if not args.smoke:
            sys.exit(f"{missing}. Or run this script with --download")
        print(f"skipped: {missing}")
        return
    epochs, batches = (1, 3) if args.smoke else (args.epochs, None)
    run(*data, epochs, args.lr, batches)


if __name__ == "__main__":
    main()
