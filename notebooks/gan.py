# %% [markdown]
# # A generative adversarial network that draws digits
#
# What you learn here:
# - two networks that train each other, with two losses and two optimizers;
# - `detach` and `requires_grad_(False)`: gradients *through* a network but none *of* it, and the reverse;
# - how to judge pictures for which there is no right answer.
#
# The digits are 1,797 images of 8×8 pixels that ship with scikit-learn: training takes seconds.

# %%
import os
import time

import kilograd as kg
from kilograd import nn, viz
from kilograd.datasets import Digits
from kilograd.utils.data import DataLoader

SMOKE = os.environ.get("KILOGRAD_SMOKE") == "1"  # a quick test: two epochs
EPOCHS = 2 if SMOKE else 400
NOISE = 32

# %% [markdown]
# ## Two networks
#
# The generator turns 32 random numbers into an image of 64 pixels. The discriminator sees an image and says
# how sure it is that this is a real one.

# %%
kg.manual_seed(0)
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

# %% [markdown]
# ## The game
#
# In the discriminator's turn, the loss is lower the better it tells real images from generated ones. Here
# `fake.detach()` cuts the images off from the generator, which has no part in this turn. The target for real
# images is 0.9 in place of 1, so that the discriminator is never quite sure and its gradients stay useful.
#
# In the generator's turn, the loss is lower the more of its images are taken for real. The gradient flows
# back *through* the discriminator into the images and on into the generator. The discriminator's own
# parameters are frozen meanwhile, which saves the computation of their gradients.
#
# The two turns together are one step; `kg.compile` makes one program of it.

# %%
criterion = nn.BCEWithLogitsLoss()
g_optimizer = kg.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
d_optimizer = kg.optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.5, 0.999))


@kg.compile
def step(images):
    real = images.flatten(1)  # (64, 64)
    fake = generator(kg.randn(len(real), NOISE))
    yes, no = kg.full((len(real), 1), 0.9), kg.zeros(len(real), 1)

    d_optimizer.zero_grad()
    d_loss = criterion(discriminator(real), yes) + criterion(discriminator(fake.detach()), no)
    d_loss.backward()
    d_optimizer.step()

    discriminator.requires_grad_(False)
    g_optimizer.zero_grad()
    g_loss = criterion(discriminator(fake), kg.ones(len(real), 1))
    g_loss.backward()
    g_optimizer.step()
    discriminator.requires_grad_(True)
    return d_loss, g_loss


# %% [markdown]
# ## Training
#
# The same 20 vectors of noise are drawn after the first epochs, in the middle and at the end, which shows
# the images take shape.

# %%
loader = DataLoader(Digits(train=None), batch_size=64, shuffle=True, drop_last=True)
seeds = kg.randn(20, NOISE)


def sample(noise):
    """Images (N, 8, 8) in [0, 1], with batch normalisation on its running averages."""
    generator.eval()
    with kg.no_grad():
        images = generator(noise).reshape(-1, 8, 8)
    generator.train()
    return images


start = time.perf_counter()
history, snapshots = [], {0: sample(seeds)}
for epoch in range(1, EPOCHS + 1):
    losses = [[loss.item() for loss in step(images)] for images, _ in loader]
    history.append([sum(each) / len(losses) for each in zip(*losses, strict=True)])
    if epoch in (EPOCHS // 40, EPOCHS // 8, EPOCHS):
        snapshots[epoch] = sample(seeds)
        d_loss, g_loss = history[-1]
        seconds = time.perf_counter() - start
        print(
            f"epoch {epoch:3d}  discriminator {d_loss:.3f}  generator {g_loss:.3f}  {seconds:.0f} s"
        )

# %%
rows = [(epoch, k) for epoch in snapshots for k in range(10)]
titles = [f"epoch {epoch}" if k == 0 else "" for epoch, k in rows]
viz.images(kg.cat([images[:10] for images in snapshots.values()]), titles=titles, columns=10)

# %% [markdown]
# Twenty at the end:

# %%
viz.images(snapshots[EPOCHS], columns=10)

# %% [markdown]
# ## The losses say little
#
# Neither goes to zero, since each network faces an ever better opponent. A discriminator that knows nothing
# has a loss of 2 log 2 ≈ 1.39; close below that, the two are in balance.

# %%
d_losses, g_losses = zip(*history, strict=True)
viz.curves({"discriminator": {"loss": d_losses}, "generator": {"loss": g_losses}})

# %% [markdown]
# ## A better judge
#
# For 450 generated images: how far is the nearest real digit, and of which class is it? Held-out real digits
# show what distance is to be expected, noise shows what is bad. A generator that has collapsed, which is
# what often goes wrong, draws only few of the ten classes.

# %%
known, labels = next(iter(DataLoader(Digits(), batch_size=2000)))
held_out, _ = next(iter(DataLoader(Digits(train=False), batch_size=450)))

candidates = {
    "real": held_out.flatten(1),
    "noise": kg.rand(450, 64),
    "generated": sample(kg.randn(450, NOISE)).flatten(1),
}
for name, images in candidates.items():
    distance, index = kg.cdist(images, known.flatten(1)).min(dim=1)
    classes = kg.bincount(labels[index], minlength=10).tolist()
    print(
        f"{name:9s} distance to the nearest digit {distance.mean().item():.2f}, by class {classes}"
    )

# %% [markdown]
# ## Between two images
#
# The generator is a continuous function: on the way from one vector of noise to another its images change
# from one digit into another.

# %%
ways = kg.stack([kg.lerp(seeds[:3], seeds[3:6], t) for t in kg.linspace(0, 1, 10)], dim=1)
viz.images(sample(ways.flatten(0, 1)), columns=10)
