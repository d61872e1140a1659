"""Where all generators of random numbers are: kilograd's, Python's and NumPy's, and those given."""

from __future__ import annotations

import random as python
from typing import Any

import numpy as np

from kilograd import random

State = dict[str, Any]


def rng_state() -> State:
    """The states of kilograd's default generator and of Python's and NumPy's global ones.

    Arrays and numbers only, so that :func:`~kilograd.train.save_checkpoint` can write them.

    >>> import kilograd as kg
    >>> before = rng_state()
    >>> first = kg.rand(2), python.random(), np.random.rand()
    >>> set_rng_state(before)
    >>> again = kg.rand(2), python.random(), np.random.rand()
    >>> bool((first[0] == again[0]).all()), first[1:] == again[1:]
    (True, True)
    """
    return {
        "kilograd": random.get_rng_state(),
        "python": generator_state(python),
        "numpy": np.random.get_state(legacy=False),
    }


def set_rng_state(state: State) -> None:
    """Put the three generators where they were at :func:`rng_state`."""
    random.set_rng_state(state["kilograd"])
    set_generator_state(python, state["python"])
    np.random.set_state(state["numpy"])


def is_generator(x: Any) -> bool:
    """Whether it is a generator whose state can be taken: kilograd's, NumPy's or Python's."""
    kinds = (random.Generator, np.random.Generator, np.random.RandomState, python.Random)
    return isinstance(x, kinds)


def generator_state(generator: Any) -> Any:
    """The state of one generator, as arrays and numbers."""
    if isinstance(generator, random.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    version, words, gauss = generator.getstate()
    return {"version": version, "words": np.asarray(words, np.int64), "gauss": gauss}


def set_generator_state(generator: Any, state: Any) -> None:
    """Put a generator into a state that :func:`generator_state` gave."""
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, (random.Generator, np.random.RandomState)):
        generator.set_state(state)
    else:
        generator.setstate((state["version"], tuple(state["words"].tolist()), state["gauss"]))
