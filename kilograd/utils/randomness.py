"""Where generators of random numbers are: kilograd's, Python's, NumPy's and PyTorch's."""

from __future__ import annotations

import random as python
import sys
from typing import Any

import numpy as np

from kilograd import random

State = dict[str, Any]


def rng_state() -> State:
    """The states of kilograd's default generator and of Python's and NumPy's global ones.

    And of PyTorch's default generator on the CPU, if the program has imported PyTorch. Arrays and
    numbers only, so that :func:`~kilograd.train.save_checkpoint` can write them.

    >>> import kilograd as kg
    >>> before = rng_state()
    >>> first = kg.rand(2), python.random(), np.random.rand()
    >>> set_rng_state(before)
    >>> again = kg.rand(2), python.random(), np.random.rand()
    >>> bool((first[0] == again[0]).all()), first[1:] == again[1:]
    (True, True)
    """
    torch = _torch()
    return {
        "kilograd": random.get_rng_state(),
        "python": generator_state(python),
        "numpy": np.random.get_state(legacy=False),
    } | ({"torch": generator_state(torch.default_generator)} if torch else {})


def set_rng_state(state: State) -> None:
    """Put the generators where they were at :func:`rng_state`.

    One that is not in ``state`` stays where it is, as PyTorch's if it was not imported then.
    """
    if "kilograd" in state:
        random.set_rng_state(state["kilograd"])
    if "python" in state:
        set_generator_state(python, state["python"])
    if "numpy" in state:
        np.random.set_state(state["numpy"])
    if "torch" in state and (torch := _torch()):
        set_generator_state(torch.default_generator, state["torch"])


def is_generator(x: Any) -> bool:
    """Whether it is a generator whose state can be taken: kilograd's, NumPy's, Python's, PyTorch's."""
    kinds = (random.Generator, np.random.Generator, np.random.RandomState, python.Random)
    return (isinstance(x, kinds) and not isinstance(x, python.SystemRandom)) or _is_torchs(x)


def is_global(x: Any) -> bool:
    """Whether it is one of the generators that :func:`rng_state` is about."""
    known = [random.default_generator, getattr(python, "_inst", None), np.random.mtrand._rand]
    return any(x is g for g in [*known, getattr(_torch(), "default_generator", None)])


def ours(generator: Any) -> random.Generator | None:
    """A generator to draw from, if it is kilograd's; None stands for the default one.

    Raises:
        TypeError: it is something else, such as PyTorch's or NumPy's.
    """
    if generator is None or isinstance(generator, random.Generator):
        return generator
    kind = type(generator)
    raise TypeError(
        f"generator should be a kilograd.Generator, got {kind.__module__}.{kind.__qualname__}: "
        "kg.Generator().manual_seed(seed) makes one"
    )


def generator_state(generator: Any) -> Any:
    """The state of one generator, as arrays and numbers."""
    if isinstance(generator, random.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    if _is_torchs(generator):
        return generator.get_state().numpy()
    version, words, gauss = generator.getstate()
    return {"version": version, "words": np.asarray(words, np.int64), "gauss": gauss}


def set_generator_state(generator: Any, state: Any) -> None:
    """Put a generator into a state that :func:`generator_state` gave."""
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, (random.Generator, np.random.RandomState)):
        generator.set_state(state)
    elif _is_torchs(generator):
        generator.set_state(_torch().from_numpy(np.array(state)))
    else:
        generator.setstate((state["version"], tuple(state["words"].tolist()), state["gauss"]))


def _torch() -> Any:
    """PyTorch, if the program has imported it."""
    return sys.modules.get("torch")


def _is_torchs(x: Any) -> bool:
    return (torch := _torch()) is not None and isinstance(x, torch.Generator)
