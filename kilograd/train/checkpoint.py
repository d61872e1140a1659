"""Checkpoints: all that a training run needs to go on as if it had not stopped, in one file.

The file is a safetensors file (or an ``.npz`` where that package is absent) that cannot run code.
Its tensors are named by the dotted path to them; a JSON text in its metadata says how they nest;
checksums catch damage. It appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import copy
import os
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from kilograd.optim import Optimizer
from kilograd.tensor import Tensor
from kilograd.train import archive
from kilograd.train.archive import DamagedError, realised
from kilograd.train.files import has_hooks, load_stored, misfits, or_as_it_was
from kilograd.train.nest import waits
from kilograd.train.replacing import atomic_write
from kilograd.utils.randomness import (
    generator_state,
    is_generator,
    rng_state,
    set_generator_state,
    set_rng_state,
)

__all__ = ["Checkpoint", "CheckpointError", "atomic_write", "load_checkpoint", "save_checkpoint"]

FORMAT = "kilograd-checkpoint-2"
Path_ = str | os.PathLike[str]


class CheckpointError(DamagedError):
    """A file that is not a whole checkpoint of ours."""


def save_checkpoint(path: Path_, state: Any) -> None:
    """Write a nest of dicts, lists, tuples, tensors (PyTorch's too), arrays, numbers, strings, None.

    Raises:
        TypeError: something else is in the nest (nothing is written).
        OSError: the file cannot be written (an older one at ``path`` stays).
    """
    form = "safetensors" if find_spec("safetensors") else "npz"
    archive.write(path, state, {"format": FORMAT}, form)


def load_checkpoint(path: Path_) -> Any:
    """Read what :func:`save_checkpoint` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged, cut short, or something else. It is not touched.
    """
    with opened(path) as found:
        found.check()
        return found.nest()


@contextlib.contextmanager
def opened(path: Path_) -> Iterator[archive.Archive]:
    """The checkpoint at ``path``, to be read piece by piece; CheckpointError if it is none."""
    try:
        with archive.opened(path) as found:
            if found.text.get("format") != FORMAT or archive.TREE not in found.text:
                raise DamagedError(f"{path} holds tensors, but is no checkpoint")
            yield found
    except CheckpointError:
        raise
    except DamagedError as e:
        raise CheckpointError(
            f"{path} is not a whole kilograd checkpoint ({e}); it was left untouched. "
            "Resume from another one, or start anew."
        ) from e


class Checkpoint:
    """The parts of a training run that change as it goes: saved together, loaded together.

    A part is a module, an optimizer, a schedule, a :class:`Batches`, a generator of random numbers
    (kilograd's, NumPy's, Python's), or anything with ``state_dict`` and ``load_state_dict``, also
    PyTorch's. The states of kilograd's default generator and of Python's and NumPy's global ones are
    always saved too, and that of PyTorch's if it is imported. Training that goes on from a checkpoint
    gives the same numbers as training that never stopped, provided it is saved between a step of the
    optimizer and the next backward pass: gradients are not saved. They are the same bit for bit under
    ``kg.use_deterministic_algorithms(True)``, and in a compiled step if it has run three times
    before the checkpoint is loaded; else an op may round differently where it first runs natively.

    >>> import kilograd as kg, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "run.kg")
    >>> def run():
    ...     model = kg.nn.Linear(3, 1)
    ...     return Checkpoint(model=model, optimizer=kg.optim.Adam(model.parameters()))
    >>> run().save(path, epoch=3, loss=0.25)
    >>> run().load(path)
    {'epoch': 3, 'loss': 0.25}
    """

    def __init__(self, /, **parts: Any) -> None:
        for name, part in parts.items():
            able = hasattr(part, "state_dict") and hasattr(part, "load_state_dict")
            if not able and not is_generator(part):
                raise TypeError(
                    f"{name}: {type(part).__name__} has no state_dict and load_state_dict, and is no "
                    "generator; values such as the epoch are given to save()"
                )
        self.parts = parts

    def save(self, path: Path_, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Write all parts and some values (epoch, loss, …), which :meth:`load` returns.

        Args:
            path: the file; by custom it ends in ``.kg``.
            values: values by name: numbers, strings, tensors, arrays, and nests of them.
            more: likewise.

        Raises:
            TypeError: a value or a part's state cannot be saved (nothing is written).
            OSError: the file cannot be written (an older one at ``path`` stays).
        """
        save_checkpoint(path, self.state({**(values or {}), **more}))

    def state(self, values: dict[str, Any], about: dict[str, Any] | None = None) -> dict[str, Any]:
        """All of it as the nest that :meth:`save` writes."""
        parts = {
            name: {"type": _kind(part), "state": _state(part)} | _shapes(part)
            for name, part in self.parts.items()
        }
        return {"values": values, "about": about or {}, "rng": rng_state(), "parts": parts}

    def load(self, path: Path_, *, strict: bool = True, rng: bool = True) -> dict[str, Any]:
        """Put all parts and generators where they were; returns the values.

        Everything is read and compared first. If this raises, all parts are as they were.

        Args:
            path: a file of :meth:`save`.
            strict: the file and this object must have the same parts; else those that both have.
            rng: whether the global generators are set.

        Raises:
            FileNotFoundError: there is no such file.
            CheckpointError: it is damaged, or no checkpoint.
            ValueError, RuntimeError: it does not fit the parts; the message names all that differs.
        """
        with opened(path) as found:
            found.check()
            nest = found.nest(stored=True)
            if not isinstance(nest, dict) or {"values", "rng", "parts"} - set(nest):
                raise CheckpointError(f"{path} was not written by Checkpoint.save")
            common = self._fitting(nest["parts"], strict, path)
            with contextlib.ExitStack() as undo:
                self._load_parts(common, undo, path)
                if rng:
                    set_rng_state(realised(nest["rng"]))
                undo.pop_all()
            return realised(nest["values"])

    def _fitting(self, saved: dict[str, Any], strict: bool, path: Path_) -> dict[str, Any]:
        """The states of the parts to be loaded; raises unless all of them fit."""
        lines = []
        if strict:
            lines += [f"{k}: is not in the file" for k in self.parts if k not in saved]
            lines += [f"{k}: is in the file, not given here" for k in saved if k not in self.parts]
        common = {k: saved[k]["state"] for k in self.parts if k in saved}
        for name in common:
            part, said = self.parts[name], saved[name]["type"]
            if _is_module(part):
                if not has_hooks(part):
                    missing, unexpected, wrong = misfits(part, common[name])
                    lines += [f"{name}.{k}: {text}" for k, text, _ in wrong]
                    lines += [f"{name}.{k}: is not in the file" for k in missing]
                    lines += [f"{name}.{k}: is not in the model" for k in unexpected]
            elif said != _kind(part):
                lines.append(f"{name}: {said} in the file, {_kind(part)} here")
            else:
                lines += [f"{name}: {text}" for text in _other_shapes(saved[name], part)]
        if lines:
            raise ValueError(
                f"{path} does not fit; nothing was changed:\n    " + "\n    ".join(lines)
            )
        return common

    def _load_parts(self, states: dict[str, Any], undo: contextlib.ExitStack, path: Path_) -> None:
        """Load optimizers, then what may look at them, then models; undone if one of them raises."""

        def rank(name: str) -> int:
            part = self.parts[name]
            if _is_module(part):
                return 2 if has_hooks(part) else 3  # which fits, as was seen, and cannot fail
            return 0 if hasattr(part, "param_groups") else 1

        for name in sorted(states, key=rank):
            part, state = self.parts[name], states[name]
            if _is_module(part):
                if has_hooks(part):
                    undo.push(or_as_it_was(part))
                load_stored(part, state, True, f"{name} in {path}")
                continue
            before = _state(part)
            undo.callback(_put_back, part, copy.deepcopy(before))
            try:
                _set_state(part, realised(state))
            except (KeyError, TypeError, AttributeError, IndexError) as e:
                raise ValueError(f"{name} in {path} does not fit: {type(e).__name__}: {e}") from e


def _is_module(part: Any) -> bool:
    return hasattr(part, "named_parameters") and hasattr(part, "modules")


def _is_optimizer(part: Any) -> bool:
    torch = sys.modules.get("torch")
    return isinstance(part, (Optimizer, torch.optim.Optimizer) if torch else Optimizer)


def _kind(part: Any) -> str:
    """The name of its class, with "torch." before it where that is PyTorch's."""
    kind = type(part)
    return f"torch.{kind.__name__}" if kind.__module__.startswith("torch.") else kind.__name__


def _params(optimizer: Any) -> list[Any]:
    """Its parameters, in the order in which its state counts them."""
    return list(dict.fromkeys(p for group in optimizer.param_groups for p in group["params"]))


def _shapes(part: Any) -> dict[str, Any]:
    """Of an optimizer also its parameters' shapes (None: one waits for it), which its state does not tell."""
    if not hasattr(part, "param_groups"):
        return {}
    return {"shapes": [None if waits(p) else list(p.shape) for p in _params(part)]}


def _other_shapes(saved: dict[str, Any], part: Any) -> list[str]:
    """Where an optimizer's parameters have other shapes than those saved, which older files do not tell."""
    here = _shapes(part).get("shapes", [])
    there = saved.get("shapes", here)
    if len(there) != len(here):
        return [f"{len(there)} parameters in the file, {len(here)} here"]
    return [
        f"parameter {i}: shape {tuple(a)} in the file, {tuple(b)} here"
        for i, (a, b) in enumerate(zip(there, here, strict=True))
        if a != b and a is not None and b is not None
    ]


def _state(part: Any) -> Any:
    return generator_state(part) if is_generator(part) else part.state_dict()


def _set_state(part: Any, state: Any) -> None:
    if is_generator(part):
        set_generator_state(part, state)
        return
    if isinstance(part, Optimizer) and _loaded_in_place(part, state):
        return
    part.load_state_dict(state)
    if _is_optimizer(part):
        _in_saved_dtypes(part, state)


def _put_back(part: Any, before: Any) -> None:
    with contextlib.suppress(Exception):  # the error that is being raised says more
        _set_state(part, before)


def _pairs(optimizer: Any, state: dict[str, Any]) -> list[tuple[dict[str, Any], Any]]:
    """For each parameter, the state that the optimizer has and the one that was saved."""
    params = enumerate(_params(optimizer))
    return [(optimizer.state.get(p, {}), state["state"].get(i, {})) for i, p in params]


def _loaded_in_place(optimizer: Optimizer, state: dict[str, Any]) -> bool:
    """Write a state into the tensors of one that has the same form, if it has.

    A compiled step reads and writes these very tensors, so that its program stays what it is. The
    steps of a new program are eager at first, and they may round differently.
    """
    hooks = (optimizer._load_state_dict_pre_hooks, optimizer._load_state_dict_post_hooks)
    groups = list(zip(optimizer.param_groups, state["param_groups"], strict=False))
    pairs = _pairs(optimizer, state)
    if (
        any(hooks)
        or type(optimizer).load_state_dict is not Optimizer.load_state_dict
        or len(optimizer.param_groups) != len(state["param_groups"])
        or any(set(a) != set(b) or len(a["params"]) != len(b["params"]) for a, b in groups)
        or any(list(a) != list(b) for a, b in pairs)
        or not all(_alike(a[k], b[k]) for a, b in pairs for k in b)
        or not all(_alike(a[k], b[k], False) for a, b in groups for k in b if k != "params")
    ):
        return False
    for mine, saved in pairs:
        for key, value in saved.items():
            _copy_into(mine[key], value)
    for mine, saved in groups:
        for key, value in saved.items():
            if isinstance(value, Tensor):
                _copy_into(mine[key], value)
            elif key not in ("params", "param_names"):
                mine[key] = copy.deepcopy(value)
    return True


def _alike(a: Any, b: Any, tensors: bool = True) -> bool:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return not tensors and not isinstance(a, Tensor) and not isinstance(b, Tensor)
    return a.array.dtype == b.array.dtype and a.array.shape == b.array.shape


def _copy_into(mine: Tensor, value: Tensor) -> None:
    mine.array[...] = value.array
    mine._cell[0] += 1


def _in_saved_dtypes(optimizer: Any, state: dict[str, Any]) -> None:
    """Undo load_state_dict's conversions to the parameters' dtypes, which would not be exact."""
    for mine, saved in _pairs(optimizer, state):
        for key, value in saved.items():
            if hasattr(value, "detach") and value.dtype != mine[key].dtype:
                mine[key] = value.detach().clone().to(mine[key].device)
