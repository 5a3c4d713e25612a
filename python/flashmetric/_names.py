# SPDX-License-Identifier: BSD-3-Clause
"""The words that options take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

from torch import Tensor

__all__ = [
    "NAMES",
    "Distance",
    "DistanceName",
    "Fallback",
    "Impl",
    "Invalid",
    "ListMining",
    "Mining",
    "OnlineReduction",
    "PairReduction",
    "Reduction",
    "Strategy",
]

DistanceName: TypeAlias = Literal[
    "euclidean", "sqeuclidean", "cosine", "dot", "manhattan", "chebyshev", "jaccard", "snr"
]
# Minkowski, Mahalanobis, or any function of two sets of rows, (M, D) and (N, D) to (M, N).
Distance: TypeAlias = DistanceName | Callable[[Tensor, Tensor], Tensor]
Fallback: TypeAlias = Literal["farthest", "drop"]
Impl: TypeAlias = Literal["auto", "fused", "reference"]
Invalid: TypeAlias = Literal["drop", "count"]
ListMining: TypeAlias = Literal[  # the rules that name triplets
    "hard",
    "semihard",
    "all",
    "semihard_all",
    "hard_all",
    "easy_all",
    "easy_hard",
    "distance_weighted",
    "random",
]
Mining: TypeAlias = Literal[ListMining, "soft"]
Reduction: TypeAlias = Literal["mean", "mean_active", "sum", "none"]
PairReduction: TypeAlias = Literal["mean", "mean_active", "mean_pairs", "sum", "none"]
OnlineReduction: TypeAlias = Literal["sum", "mean", "none"]
Strategy: TypeAlias = Literal["easy", "hard", "semihard", "all"]

# By argument; where functions differ in what they know, by kind.
NAMES: dict[str, tuple[str, ...]] = {
    "distance": get_args(DistanceName),
    "fallback": get_args(Fallback),
    "impl": get_args(Impl),
    "invalid": get_args(Invalid),
    "list_mining": get_args(ListMining),
    "mining": get_args(Mining),
    "negative_mining": get_args(Strategy),
    "online_reduction": get_args(OnlineReduction),
    "pair_reduction": get_args(PairReduction),
    "positive_mining": get_args(Strategy),
    "reduction": get_args(Reduction),
}
