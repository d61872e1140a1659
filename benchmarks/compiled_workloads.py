"""What `train_steps.py` times: the networks of ``kilograd bench train``, and how fast they shall be."""

from __future__ import annotations

from kilograd.cli.bench.networks import WORKLOADS  # noqa: F401 - for the tests

# How many times faster than PyTorch's eager step the compiled step shall be.
GOALS = {
    "basic_mlp": 40.0, "policy": 10.0, "mnist_mlp": 2.5, "macro_mlp": 1.3, "mnist_cnn": 1.5,
    "char_gpt": 1.4, "pinn": 4.0, "resnet8": 1.3, "char_lstm": 2.0,
}  # fmt: skip
