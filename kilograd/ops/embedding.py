"""Tables looked up by index: a gather of rows, and the scatter that is its transpose."""

from __future__ import annotations

import numpy as np

from kilograd.kernels import place
from kilograd.kernels import scatter as kernels
from kilograd.ops.elementwise import where
from kilograd.ops.op import no_grad_op, op


@op(weight=2)
def embedding(w, indices, *, padding_idx=None, scale_grad_by_freq=False):
    """Rows of w (V, D) at indices (any shape): (*indices.shape, D)."""
    return place.embedding(w, indices)


@embedding.vjp("w")
def _(g, indices, w_shape, padding_idx, scale_grad_by_freq):
    if scale_grad_by_freq:
        g = g / occurrences(indices, rows=w_shape[0])[..., None]
    return embedding_transpose(g, indices, rows=w_shape[0], padding_idx=padding_idx)


@no_grad_op
def occurrences(indices, *, rows):
    """How many times each index occurs among all of them; of the same shape."""
    return np.bincount(indices.reshape(-1), minlength=rows)[indices]


@op
def embedding_transpose(x, indices, *, rows, padding_idx):
    """Rows of x (*indices.shape, D) added up at their indices: (rows, D)."""
    return kernels.embedding_grad(x, indices, rows, padding_idx)


@embedding_transpose.vjp("x")
def _(g, indices, padding_idx):
    rows = embedding(g, indices)
    if padding_idx is None:
        return rows
    return where((indices == padding_idx)[..., None], 0.0, rows)
