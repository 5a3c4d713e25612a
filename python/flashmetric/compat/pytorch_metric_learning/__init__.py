# SPDX-License-Identifier: BSD-3-Clause
"""pytorch-metric-learning by our kernels: import from here instead.

    losses      TripletMarginLoss, ContrastiveLoss, MarginLoss: classes of the peer, extended
    miners      BatchHardMiner, BatchEasyHardMiner, TripletMarginMiner ...: their tuples are lazy
    distances   LpDistance, SNRDistance
    reducers    the peer's

``pairs = miner(embeddings, labels); loss(embeddings, labels, pairs)`` is one pass over tiles; the
indices are found when somebody reads them. Every other name, and every other module (samplers,
regularizers, utils ...), is the peer's own.

Example:
    >>> from flashmetric.compat.pytorch_metric_learning import losses, miners
    >>> criterion, miner = losses.TripletMarginLoss(margin=0.2), miners.BatchHardMiner()
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from torch import Tensor, nn

from flashmetric.compat._peer import peer, turned_into

_peer = peer("pytorch_metric_learning", "pytorch-metric-learning", "2.9")

from . import distances, losses, miners, reducers  # noqa: E402  their first import is the peer

__all__ = ["distances", "losses", "miners", "reducers"]

_OURS = (distances, losses, miners)
_THEIRS = [
    importlib.import_module(f"{_peer.__name__}.{each.__name__.rpartition('.')[2]}")
    for each in _OURS
]
PATCHES = [
    (theirs, name, getattr(ours, name))
    for ours, theirs in zip(_OURS, _THEIRS, strict=True)
    for name in ours.__all__
]
_FUSED = {getattr(module, name): fused for module, name, fused in PATCHES}

# `from flashmetric.compat.pytorch_metric_learning.samplers import MPerClassSampler`
for _name in ("regularizers", "samplers", "utils"):
    sys.modules[f"{__name__}.{_name}"] = importlib.import_module(f"{_peer.__name__}.{_name}")


def __getattr__(name: str) -> Any:
    if name in ("datasets", "regularizers", "samplers", "testers", "trainers", "utils"):
        return importlib.import_module(f"{_peer.__name__}.{name}")
    return getattr(_peer, name)


class Mining(nn.Module):
    """A loss of what its miner mines."""

    def __init__(self, loss: nn.Module, miner: nn.Module) -> None:
        super().__init__()
        self.loss, self.miner = loss, miner

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Any:
        indices = self.miner(embeddings, labels, ref_emb, ref_labels)
        return self.loss(embeddings, labels, indices, ref_emb, ref_labels)


def _fused(module: nn.Module) -> Any:
    kind = type(module)
    twin: Any = module if kind in _FUSED.values() else None
    if twin is None:
        if kind not in _FUSED:
            text = f"[fuse] there is no fused {kind.__name__}; there is one of: {_names()}."
            raise TypeError(text)
        twin = turned_into(_FUSED[kind], module)
    reason = twin.why_not_fused()
    if reason:
        text = f"[fuse] this {kind.__name__} cannot be fused: {reason}."
        raise ValueError(text)
    return twin


def _names() -> str:
    return ", ".join([*losses.__all__, *miners.__all__])


def fused(loss: nn.Module, miner: nn.Module | None) -> Any:
    """What `flashmetric.fuse` returns for them."""
    return _fused(loss) if miner is None else Mining(_fused(loss), _fused(miner))
