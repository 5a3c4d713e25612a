# SPDX-License-Identifier: BSD-3-Clause
"""Fused classes in place of a peer's, for code whose imports or objects belong to somebody else."""

from __future__ import annotations

import importlib
from types import TracebackType
from typing import Any

from torch import nn

__all__ = ["fuse", "patch", "unpatch"]

# Peers whose classes ours extend. Their modules here have PATCHES, (module, name, class) of what is
# replaced, and fused(loss, miner).
_PEERS = ("pytorch_metric_learning", "sentence_transformers")
_replaced: dict[str, list[tuple[Any, str, Any]]] = {}


class _Patched:
    """What `patch` returns: leaving it as a context manager undoes what it did."""

    def __init__(self, name: str, first: bool) -> None:
        self.name, self.first = name, first

    def __enter__(self) -> _Patched:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.first:
            unpatch(self.name)

    def __repr__(self) -> str:
        return f"patch({self.name!r})"


def _ours(name: str) -> Any:
    if name not in _PEERS:
        known = ", ".join(repr(each) for each in _PEERS)
        text = f"[patch] name must be one of {known}; got {name!r}."
        raise ValueError(text)
    return importlib.import_module(f"flashmetric.compat.{name}")


def patch(name: str) -> _Patched:
    """Puts fused classes in the place of a peer's, until `unpatch`.

    Code that looks a class up afterwards, as ``losses.TripletMarginLoss`` or by ``from ... import``
    does, gets ours. Objects made before, and names imported before, stay what they are: patch
    first, or use `fuse`. Patching twice is patching once.

    Args:
        name: "pytorch_metric_learning" or "sentence_transformers".

    Returns:
        A context manager whose end undoes it, if this call did it; it may be ignored.

    Raises:
        ValueError: another name.
        ModuleNotFoundError: the peer is not installed.

    Example:
        >>> import flashmetric
        >>> with flashmetric.patch("pytorch_metric_learning"):
        ...     from pytorch_metric_learning import losses
        ...     criterion = losses.TripletMarginLoss(margin=0.1)
        >>> type(criterion).__module__
        'flashmetric.compat.pytorch_metric_learning.losses'
    """
    ours = _ours(name)
    first = name not in _replaced
    if first:
        _replaced[name] = []
        for module, attribute, fused in ours.PATCHES:
            _replaced[name].append((module, attribute, getattr(module, attribute)))
            setattr(module, attribute, fused)
    return _Patched(name, first)


def unpatch(name: str) -> None:
    """Puts the peer's own classes back; without a `patch` it does nothing.

    Raises:
        ValueError: a name that `patch` does not know.
    """
    _ours(name)
    for module, attribute, original in _replaced.pop(name, []):
        setattr(module, attribute, original)


def fuse(loss: nn.Module, miner: nn.Module | None = None) -> Any:
    """The fused equivalent of a peer's loss, with the same options and the same parameters.

    Args:
        loss: a loss of pytorch-metric-learning or sentence-transformers.
        miner: a miner of pytorch-metric-learning, for that loss.

    Returns:
        A loss of the same interface. With a miner, a module whose ``forward(embeddings, labels,
        ref_emb=None, ref_labels=None)`` mines and evaluates.

    Raises:
        TypeError: a loss or miner that has no fused equivalent.
        ValueError: options that have none; the message says which.

    Example:
        >>> import flashmetric
        >>> from pytorch_metric_learning import losses, miners
        >>> criterion = flashmetric.fuse(losses.TripletMarginLoss(), miners.BatchHardMiner())
    """
    for given in (loss,) if miner is None else (loss, miner):
        if not isinstance(given, nn.Module):
            text = f"[fuse] loss and miner must be modules; got {type(given).__name__}."
            raise TypeError(text)
    roots = {base.__module__.partition(".")[0] for base in type(loss).__mro__}
    for name in _PEERS:
        if name in roots:
            return _ours(name).fused(loss, miner)
    text = f"[fuse] {type(loss).__name__} is no loss of {' or '.join(_PEERS)}."
    raise TypeError(text)
