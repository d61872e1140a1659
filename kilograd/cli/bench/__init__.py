"""``kilograd bench``: kilograd beside PyTorch and JAX, on the machine of whoever asks."""
