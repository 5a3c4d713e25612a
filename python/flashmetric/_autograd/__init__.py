# SPDX-License-Identifier: BSD-3-Clause
"""What is saved and what flows back: the only autograd.Function classes.

A scalar loss computes its gradients in the forward, together with the distances they are made of,
and only those that an input requires; the backward multiplies them by its cotangent, on the device.
`reduction="none"` has one cotangent per triplet, so its backward calls the op again.

Forward and backward call dispatcher ops only, which is what torch.compile and torch.func follow;
but where nobody does, the forward calls what is behind them.
"""

from .batch import (
    apart,
    contrastive,
    dense_triplet,
    list_triplets,
    listed_triplet,
    online_contrastive,
)
from .formula import Formula, PairFormula
from .known import KnownCall, KnownCalls
from .pairs import paired, pairwise
from .triplet import mined_triplet, triplet

__all__ = [
    "Formula",
    "KnownCall",
    "KnownCalls",
    "PairFormula",
    "apart",
    "contrastive",
    "dense_triplet",
    "list_triplets",
    "listed_triplet",
    "mined_triplet",
    "online_contrastive",
    "paired",
    "pairwise",
    "triplet",
]
