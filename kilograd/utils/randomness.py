"""Where generators of random numbers are: kilograd's, Python's, NumPy's and PyTorch's, and those given."""

from __future__ import annotations

import contextlib
import random as python
import sys
from collections.abc import Iterator
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
    return isinstance(x, kinds) or _is_torchs(x)


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


# --- those that decide an order -----------------------------------------------------------------


def own_generators(loader: Any) -> dict[str, Any]:
    """The generators that a loader or its samplers were given, by the place where they were found."""
    defaults = [random.default_generator, getattr(_torch(), "default_generator", None)]
    found = {}
    for place in ("", "sampler", "batch_sampler", "batch_sampler.sampler"):
        owner: Any = loader
        for name in place.split(".") if place else ():
            owner = getattr(owner, name, None)
        generator = getattr(owner, "generator", None)
        if is_generator(generator) and not any(generator is d for d in defaults):
            found[place] = generator
    return found


def own_states(loader: Any) -> State:
    """The states of :func:`own_generators`."""
    return {place: generator_state(g) for place, g in own_generators(loader).items()}


def set_own_states(loader: Any, states: State) -> None:
    """Put a loader's own generators where they were at :func:`own_states`.

    Raises:
        ValueError: it has other generators.
    """
    generators = own_generators(loader)
    if set(generators) != set(states):
        raise ValueError(
            f"the loader has generators of its own at {sorted(generators)}, the one saved had them at "
            f"{sorted(states)}: make the loader as it was made then"
        )
    for place, generator in generators.items():
        set_generator_state(generator, states[place])


def all_states(loader: Any) -> State:
    """Where everything is that an order may be drawn from."""
    return {"global": rng_state(), "own": own_states(loader)}


@contextlib.contextmanager
def back_at(loader: Any, states: State, own: bool = True) -> Iterator[None]:
    """A block in which the generators go on from an earlier :func:`all_states`.

    Afterwards they are where they were before; without ``own``, the loader's stay where they came to.
    """
    now = all_states(loader)
    try:
        set_rng_state(states["global"])
        set_own_states(loader, states["own"])
        yield
    finally:
        set_rng_state(now["global"])
        if own:
            set_own_states(loader, now["own"])
