"""A generative adversarial network draws handwritten digits in the terminal.

    python examples/digits_gan.py

Neograd's fourth example. A generator turns noise into 8x8 images, a discriminator tells them from
real ones, and each learns from the other's mistakes. The generator's turn needs gradients *through*
the discriminator but none *of* it: its parameters are frozen meanwhile. The discriminator's turn needs
none of the generator: ``detach`` cuts the images off.

What the ancestor left open is whether it has learned to draw. Here the judge is the nearest real digit:
how far away it is, and how many of the ten classes are drawn. A generator that has collapsed draws few.
"""

import argparse
import time
from itertools import islice

import kilograd as kg
from kilograd import nn
from kilograd.datasets import Digits
from kilograd.utils.data import DataLoader

NOISE = 32


def networks() -> tuple[nn.Module, nn.Module]:
    generator = nn.Sequential(
        nn.Linear(NOISE, 128), nn.BatchNorm1d(128), nn.LeakyReLU(0.2),
        nn.Linear(128, 128), nn.BatchNorm1d(128), nn.LeakyReLU(0.2),
        nn.Linear(128, 64), nn.Sigmoid(),
    )  # fmt: skip
    discriminator = nn.Sequential(
        nn.Linear(64, 128), nn.LeakyReLU(0.2), nn.Dropout(0.3),
        nn.Linear(128, 128), nn.LeakyReLU(0.2), nn.Dropout(0.3),
        nn.Linear(128, 1),
    )  # fmt: skip
    return generator, discriminator


def train(epochs: int, lr: float, batches: int | None = None) -> nn.Module:
    generator, discriminator = networks()
    loader = DataLoader(Digits(train=None), batch_size=64, shuffle=True, drop_last=True)
    criterion = nn.BCEWithLogitsLoss()
    g_optimizer = kg.optim.Adam(generator.parameters(), lr=lr, betas=(0.5, 0.999))
    d_optimizer = kg.optim.Adam(discriminator.parameters(), lr=lr, betas=(0.5, 0.999))
    start = time.perf_counter()

    for epoch in range(1, epochs + 1):
        g_total = d_total = 0.0
        for images, _ in islice(loader, batches):
            real = images.flatten(1)  # (64, 64)
            fake = generator(kg.randn(len(real), NOISE))
            yes, no = kg.full((len(real), 1), 0.9), kg.zeros(len(real), 1)  # 0.9: never quite sure

            d_optimizer.zero_grad()
            d_loss = criterion(discriminator(real), yes)
            d_loss = d_loss + criterion(discriminator(fake.detach()), no)
            d_loss.backward()
            d_optimizer.step()

            discriminator.requires_grad_(False)
            g_optimizer.zero_grad()
            g_loss = criterion(discriminator(fake), kg.ones(len(real), 1))
            g_loss.backward()
            g_optimizer.step()
            discriminator.requires_grad_(True)
            d_total += d_loss.item()
            g_total += g_loss.item()
        if epoch % max(epochs // 10, 1) == 0:
            print(
                f"epoch {epoch:3d}  discriminator {d_total / len(loader):.3f}"
                f"  generator {g_total / len(loader):.3f}  {time.perf_counter() - start:.0f} s"
            )
    return generator


def sample(generator: nn.Module, count: int) -> kg.Tensor:
    generator.eval()
    with kg.no_grad():
        return generator(kg.randn(count, NOISE))


def judge(images: kg.Tensor, name: str) -> None:
    """Distance to the nearest training digit, and which classes these belong to."""
    real, labels = next(iter(DataLoader(Digits(), batch_size=2000)))
    distance, index = kg.cdist(images, real.flatten(1)).min(dim=1)
    counts = kg.bincount(labels[index], minlength=10)
    print(f"{name:9s} nearest digit at {distance.mean().item():.2f}; drawn: {counts.tolist()}")


def draw(images: kg.Tensor) -> None:
    for four in images.reshape(-1, 8, 8).split(4):
        for lines in four.transpose(0, 1).tolist():  # line by line, side by side
            print("  ".join("".join(" ░▒▓█"[int(v * 4.99)] * 2 for v in line) for line in lines))
        print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that it runs")
    args = parser.parse_args()
    kg.manual_seed(args.seed)
    generator = train(1, args.lr, batches=3) if args.smoke else train(args.epochs, args.lr)

    held_out, _ = next(iter(DataLoader(Digits(train=False), batch_size=450)))
    judge(held_out.flatten(1), "real")
    judge(kg.rand(450, 64), "noise")
    judge(sample(generator, 450), "generated")
    draw(sample(generator, 8))


if __name__ == "__main__":
    main()
