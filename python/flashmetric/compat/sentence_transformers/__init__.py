# SPDX-License-Identifier: BSD-3-Clause
"""The triplet and contrastive losses of sentence-transformers, by our kernels.

    from sentence_transformers import losses                          # you have
    from flashmetric.compat import sentence_transformers as losses    # you write

Each class extends that of sentence-transformers 6.2 and replaces the method that computes the loss
from embeddings: constructor, forward, configuration and trainer are the library's own. The distance
functions that the library ships are known; with a function of your own, or on a device without the
kernel (docs/gpu.md says what CUDA has), the library's code runs and says so once. All
other names of its ``losses`` pass through.

Differences, all of them where the library's value is an artefact:

- An empty batch has loss 0 with zero gradients; there NaN, or an error.
- A hinge at exactly 0 has slope 0 in the losses of a batch; there 1.
- Rows of equal distance: the lowest index carries the gradient.
- Cosine distance: a row of zeros has gradient 0; there one above 1e6.
- eps = 1e-6 of SiameseDistanceMetric is rounded as the rows are; see `flashmetric.compat.torch`.
- Half precision: distances are float32 throughout; there SiameseDistanceMetric rounds them.
"""

from __future__ import annotations

import sys
from typing import Any

from torch import nn

from .._peer import turned_into
from ._metrics import batch_distance, given_metric, losses
from .batch import (
    BatchAllTripletLoss,
    BatchHardSoftMarginTripletLoss,
    BatchHardTripletLoss,
    BatchSemiHardTripletLoss,
)
from .given import ContrastiveLoss, OnlineContrastiveLoss, TripletLoss

__all__ = [
    "PATCHES",
    "BatchAllTripletLoss",
    "BatchHardSoftMarginTripletLoss",
    "BatchHardTripletLoss",
    "BatchSemiHardTripletLoss",
    "ContrastiveLoss",
    "OnlineContrastiveLoss",
    "TripletLoss",
    "fused",
]

_OF_BATCH = (
    BatchHardSoftMarginTripletLoss,
    BatchHardTripletLoss,
    BatchSemiHardTripletLoss,
    BatchAllTripletLoss,
)
_OF_GIVEN = (TripletLoss, ContrastiveLoss, OnlineContrastiveLoss)
_CLASSES = {getattr(losses, each.__name__): each for each in (*_OF_BATCH, *_OF_GIVEN)}

# Where each class is found: in the module that defines it, and among the losses, which
# sentence_transformers.losses is another name of.
PATCHES = tuple(
    (module, each.__name__, each)
    for theirs, each in _CLASSES.items()
    for module in (losses, sys.modules[theirs.__module__])
)


def fused(loss: nn.Module, miner: nn.Module | None = None) -> Any:
    """The loss as one of the classes above; see `flashmetric.fuse`."""
    name = type(loss).__name__
    if miner is not None:
        text = f"[fuse] miner must be None for {name}: losses of sentence-transformers mine."
        raise TypeError(text)
    for theirs, each in _CLASSES.items():
        if type(loss) in (theirs, each):
            known = batch_distance if each in _OF_BATCH else given_metric
            if known(loss.distance_metric) is None:
                rule = f"distance_metric of {name} must be one of sentence-transformers"
                text = f"[fuse] {rule}; got {loss.distance_metric!r}."
                raise ValueError(text)
            return loss if type(loss) is each else turned_into(each, loss)
    own = next((base.__name__ for base in _CLASSES if isinstance(loss, base)), None)
    reason = "has no fused equivalent"
    if own:
        reason = f"extends {own} and may override what kernels replace; extend ours instead"
    text = f"[fuse] {name} {reason}."
    raise TypeError(text)


def __getattr__(name: str) -> Any:
    """What is not fused is the library's own."""
    return getattr(losses, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *losses.__all__})
