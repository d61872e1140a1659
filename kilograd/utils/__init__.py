"""``kilograd.utils``: data loading, and gradient checkpointing."""

from kilograd.utils import checkpoint as checkpoint
from kilograd.utils import data as data
