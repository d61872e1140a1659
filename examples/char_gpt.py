"""A small GPT learns to add: it reads ``57+68=`` and writes ``125``, character by character.

    python examples/char_gpt.py

Nothing tells it what a number is. It is a decoder-only transformer that predicts the next character,
trained on nine tenths of all sums of two two-digit numbers and tested on the others: only the characters
after ``=`` count. Answers are written with the ones first, as one adds by hand.
"""

import argparse
import time

import kilograd as kg
import kilograd.nn.functional as F
from kilograd import nn

ALPHABET = "0123456789+="
CODE = {c: i for i, c in enumerate(ALPHABET)}
QUESTION, ANSWER = len("57+68="), 3


def text(a: int, b: int) -> str:
    return f"{a:02d}+{b:02d}=" + f"{a + b:03d}"[::-1]


def sums() -> kg.Tensor:
    """All 10,000 of them as character numbers, (10000, 9), in random order."""
    rows = [[CODE[c] for c in text(a, b)] for a in range(100) for b in range(100)]
    return kg.tensor(rows)[kg.randperm(len(rows))]


class Block(nn.Module):
    """Each place looks at itself and at the places before it, then thinks for itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        wide = 4 * width
        self.mlp = nn.Sequential(nn.Linear(width, wide), nn.GELU(), nn.Linear(wide, width))

    def forward(self, x: kg.Tensor) -> kg.Tensor:  # (N, T, D) → (N, T, D)
        n, t, d = x.shape
        heads = self.qkv(self.norm1(x)).reshape(n, t, 3, self.heads, d // self.heads)
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # each (N, heads, T, d)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, d))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """Characters and their places in, blocks, and a score for each possible next character out."""

    def __init__(self, width: int = 64, heads: int = 4, blocks: int = 2) -> None:
        super().__init__()
        self.character = nn.Embedding(len(ALPHABET), width)
        self.place = nn.Embedding(QUESTION + ANSWER, width)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(ALPHABET))

    def forward(self, text: kg.Tensor) -> kg.Tensor:  # (N, T) characters → (N, T, 12) scores
        x = self.character(text) + self.place(kg.arange(text.shape[1]))
        return self.head(self.norm(self.blocks(x)))


@kg.no_grad()
def write(model: nn.Module, questions: kg.Tensor) -> kg.Tensor:
    """Continue each question by the likeliest character, three times."""
    for _ in range(ANSWER):
        following = model(questions)[:, -1].argmax(dim=1, keepdim=True)
        questions = kg.cat([questions, following], dim=1)
    return questions


def accuracy(model: nn.Module, rows: kg.Tensor) -> float:
    return (write(model, rows[:, :QUESTION]) == rows).all(dim=1).float().mean().item()


def train(steps: int = 1200, lr: float = 3e-3, batch_size: int = 128, seed: int = 0) -> float:
    """The share of right answers on sums that were never seen."""
    kg.manual_seed(seed)
    rows = sums()
    seen, unseen = rows[:9000], rows[9000:]
    model = GPT()
    optimizer = kg.optim.AdamW(model.parameters(), lr=lr)
    schedule = kg.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    start = time.perf_counter()
    for step in range(1, steps + 1):
        batch = seen[kg.randint(0, len(seen), (batch_size,))]
        optimizer.zero_grad()
        scores = model(batch[:, :-1])[:, QUESTION - 1 :]  # what follows "=" and each digit
        loss = F.cross_entropy(scores.flatten(0, 1), batch[:, QUESTION:].flatten())
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % max(steps // 10, 1) == 0:
            seconds = (time.perf_counter() - start) / step
            right = accuracy(model, unseen[:200])
            print(f"step {step}  loss {loss.item():.4f}  right {right:.3f}  {seconds * 1e3:.1f} ms")
    for row in write(model, unseen[:5, :QUESTION]).tolist():
        said = "".join(ALPHABET[i] for i in row)
        print("  ", said[:QUESTION] + said[QUESTION:][::-1])
    return accuracy(model, unseen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that it runs")
    args = parser.parse_args()
    result = train(3 if args.smoke else args.steps, args.lr)
    print(f"right answers to 1,000 sums never seen: {result:.3f}")


if __name__ == "__main__":
    main()
