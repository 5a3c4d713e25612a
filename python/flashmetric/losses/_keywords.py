# SPDX-License-Identifier: BSD-3-Clause
"""Keywords that several losses take, for the overloads that tell what return_stats returns."""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Tensor

from flashmetric._mining import Schedulable
from flashmetric._names import Distance, Fallback, Impl, Strategy

__all__ = ["ComparisonKeywords", "RuleKeywords"]


class ComparisonKeywords(TypedDict, total=False):
    """Who is compared with whom, and how."""

    distance: Distance
    normalize: bool
    ref_embeddings: Tensor | None
    ref_labels: Tensor | None
    same_mask: Tensor | None
    self_index: Tensor | None
    ignore_label: float | None
    weights: Tensor | None
    impl: Impl


class RuleKeywords(TypedDict, total=False):
    """How triplets are mined, beside the word that says it."""

    fallback: Fallback
    hardness: Schedulable | None
    mining_margin: Schedulable | None
    positive_mining: Strategy
    negative_mining: Strategy
    n_negatives: int
    generator: torch.Generator | None
