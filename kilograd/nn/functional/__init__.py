"""PyTorch's ``torch.nn.functional``: layers as functions of their inputs and parameters.

Every function takes tensors (or arrays) and PyTorch's arguments.
"""

from kilograd.nn.functional import (
    activations,
    affine,
    attention,
    convolution,
    distance,
    dropouts,
    embeddings,
    losses,
    normalization,
    padding,
    pooling,
    vision,
)  # fmt: skip
from kilograd.nn.functional.activations import *
from kilograd.nn.functional.affine import *
from kilograd.nn.functional.attention import *
from kilograd.nn.functional.convolution import *
from kilograd.nn.functional.distance import *
from kilograd.nn.functional.dropouts import *
from kilograd.nn.functional.embeddings import *
from kilograd.nn.functional.losses import *
from kilograd.nn.functional.normalization import *
from kilograd.nn.functional.padding import *
from kilograd.nn.functional.pooling import *
from kilograd.nn.functional.vision import *

_ROOMS = (
    activations, affine, attention, convolution, distance, dropouts, embeddings, losses,
    normalization, padding, pooling, vision,
)  # fmt: skip
__all__ = [name for room in _ROOMS for name in room.__all__]
