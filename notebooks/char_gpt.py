# %% [markdown]
# # A GPT that writes, character by character
#
# What you learn here:
# - how text becomes numbers, and a text a training set;
# - a decoder-only transformer in sixty lines: embeddings, causal attention, residual blocks;
# - how such a network writes, one character after another, and what temperature does to it.

# %%
import os
import time
from pathlib import Path

import kilograd as kg
import kilograd.nn.functional as F
from kilograd import nn, viz

TEXT = None  # the path of a text file to learn from, 50 kB or more; None: this project's own documentation

SMOKE = os.environ.get("KILOGRAD_SMOKE") == "1"  # a quick test: a tiny network, few steps
STEPS, WIDTH, CONTEXT = (5, 16, 16) if SMOKE else (1500, 96, 64)

# %% [markdown]
# ## The text
#
# Every character that occurs gets a number. The last tenth of the text is held out: only on text that it has
# not seen can one tell whether the network has learned the language or the text by heart.

# %%
if TEXT:
    files = [Path(TEXT)]
else:
    root = Path(kg.__file__).parents[1]
    files = [root / "README.md", root / "CONTRIBUTING.md", *sorted(root.glob("docs/**/*.md"))]
text = "\n\n".join(file.read_text(encoding="utf-8") for file in files if file.exists())

alphabet = sorted(set(text))
code = {character: i for i, character in enumerate(alphabet)}
numbers = kg.tensor([code[character] for character in text])
split = len(numbers) * 9 // 10
train_text, held_out = numbers[:split], numbers[split:]
print(f"{len(text):,} characters, {len(alphabet)} different ones")
print(repr(text[:60]), "→", numbers[:8].tolist(), "…")

# %% [markdown]
# A batch is 32 pieces of the text from random places. At every place of a piece the network is to say which
# character comes next, so the targets are the same pieces, one character further.


# %%
def batch(source, size=32):
    """Pieces (N, T) and, for each place, the next character (N, T)."""
    starts = kg.randint(0, len(source) - CONTEXT, (size, 1))
    places = starts + kg.arange(CONTEXT)  # (N, T)
    return source[places], source[places + 1]


# %% [markdown]
# ## The network
#
# A block has two halves, and each adds to what comes in. In the first, places look at each other: a place
# asks (q), all places up to it answer by how well they match (k), and their contents (v) are mixed
# accordingly. It is the causal mask that hides the future. In the second half each place is processed by
# itself.


# %%
class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        wide = 4 * width
        self.mlp = nn.Sequential(nn.Linear(width, wide), nn.GELU(), nn.Linear(wide, width))

    def forward(self, x):  # (N, T, D) → (N, T, D)
        n, t, d = x.shape
        heads = self.qkv(self.norm1(x)).reshape(n, t, 3, self.heads, d // self.heads)
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # each (N, heads, T, d)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, d))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    def __init__(self, characters, width=WIDTH, heads=4, blocks=3):
        super().__init__()
        self.character = nn.Embedding(characters, width)
        self.place = nn.Embedding(CONTEXT, width)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, characters)

    def forward(self, text):  # (N, T) characters → (N, T, characters) scores
        x = self.character(text) + self.place(kg.arange(text.shape[1]))
        return self.head(self.norm(self.blocks(x)))


kg.manual_seed(0)
model = GPT(len(alphabet))
print(f"{sum(p.numel() for p in model.parameters()):,} parameters")

# %% [markdown]
# ## Writing
#
# Ask for the scores of the next character, draw one, append it, ask again. The temperature divides the
# scores: near 0 the likeliest character always wins, at 1 characters come as often as the network thinks
# they should.


# %%
@kg.no_grad()
def write(prompt, length=300, temperature=0.7):
    model.eval()
    known = kg.tensor([[code[character] for character in prompt]])
    for _ in range(length):
        scores = model(known[:, -CONTEXT:])[0, -1]  # (characters,)
        drawn = kg.multinomial(F.softmax(scores / temperature, dim=0), 1)
        known = kg.cat([known, drawn.unsqueeze(0)], dim=1)
    model.train()
    return "".join(alphabet[i] for i in known[0].tolist())


prompt = text[:20]
print(write(prompt, length=20 if SMOKE else 200))

# %% [markdown]
# Before training it draws characters at random: a loss of log(number of characters).
#
# ## Training

# %%
optimizer = kg.optim.AdamW(model.parameters(), lr=3e-3)
schedule = kg.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS)


@kg.compile
def step(pieces, following):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(pieces).flatten(0, 1), following.flatten())
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss


@kg.no_grad()
def evaluate(source, batches=10):
    losses = [
        F.cross_entropy(model(pieces).flatten(0, 1), following.flatten()).item()
        for pieces, following in (batch(source) for _ in range(batches))
    ]
    return sum(losses) / batches


history = []
start = time.perf_counter()
for k in range(1, STEPS + 1):
    now = {"step": k, "train_loss": step(*batch(train_text)).item()}
    schedule.step()
    if k % max(STEPS // 10, 1) == 0:
        now["val_loss"] = evaluate(held_out)
        seconds = time.perf_counter() - start
        print(
            f"step {k:4d}  loss {now['train_loss']:.3f}  held out {now['val_loss']:.3f}  {seconds:.0f} s"
        )
    history.append(now)

# %%
viz.curves(history)

# %% [markdown]
# The loss is the average surprise per character, in nats. Where the curves part, the network begins to learn
# the text by heart: it is small for a language, and large for a text of this size.
#
# ## Writing, after training

# %%
for temperature in (0.2, 0.7, 1.0):
    print(f"--- temperature {temperature}")
    print(write(prompt, 20 if SMOKE else 300, temperature), "\n")
