# SPDX-License-Identifier: BSD-3-Clause
"""What every module here asks of its peer, and says about it."""

from __future__ import annotations

import copy
import importlib
import re
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from flashmetric._compat import is_compiling

__all__ = ["like", "not_fused", "passing_through", "peer", "turned_into"]

_said: set[tuple[str, str]] = set()


def peer(module: str, package: str, tested: str) -> Any:
    """The module of a peer that is installed; one of another version than tested warns once."""
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as missing:
        if missing.name != module.partition(".")[0]:
            raise
        text = f"flashmetric.compat.{module} needs {package}: pip install 'flashmetric[{package}]'."
        raise ModuleNotFoundError(text, name=missing.name) from None
    installed = version(package)
    if re.match(r"\d+\.\d+", installed)[0] != tested:  # type: ignore[index]
        _once(module, f"flashmetric.compat is tested with {package} {tested}; got {installed}.")
    return found


def not_fused(name: str, reason: str) -> None:
    """Says, once for each reason, that a call runs the peer's own code."""
    _once(name, f"[{name}] runs the code of its peer: {reason}.")


def _once(name: str, text: str) -> None:
    if (name, text) in _said or is_compiling():
        return
    _said.add((name, text))
    warnings.warn(text, RuntimeWarning, stacklevel=4)


def passing_through(
    ours: dict[str, Any], theirs: Any
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a module whose other names are those of the peer's."""

    def found(name: str) -> Any:
        return getattr(theirs, name)

    def names() -> list[str]:
        return sorted({*ours, *dir(theirs)})

    return found, names


def like(loss: Tensor, embeddings: Tensor) -> Tensor:
    """In the dtype of the embeddings, as peers return it; under autocast as it is."""
    if loss.dtype is embeddings.dtype or torch.is_autocast_enabled(embeddings.device.type):
        return loss
    return loss.to(embeddings.dtype)


def turned_into(fused: type, module: nn.Module) -> Any:
    """The module as one of a fused class: another object with the same parameters and options."""
    twin = copy.copy(module)
    # Of parts and hooks in dictionaries of its own: what is added to the twin is the twin's alone.
    own = {
        name: copy.copy(value) for name, value in vars(module).items() if isinstance(value, dict)
    }
    vars(twin).update(own)
    twin.__class__ = fused
    return twin
