# SPDX-License-Identifier: BSD-3-Clause
"""The words that options take."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

__all__ = ["NAMES", "Distance", "Impl", "Invalid", "Mining", "Reduction"]

Distance: TypeAlias = Literal["euclidean", "sqeuclidean", "cosine", "dot"]
Impl: TypeAlias = Literal["auto", "fused", "reference"]
Invalid: TypeAlias = Literal["drop", "count"]
Mining: TypeAlias = Literal["hard"]
Reduction: TypeAlias = Literal["mean", "mean_active", "sum", "none"]

NAMES: dict[str, tuple[str, ...]] = {
    "distance": get_args(Distance),
    "impl": get_args(Impl),
    "invalid": get_args(Invalid),
    "mining": get_args(Mining),
    "reduction": get_args(Reduction),
}
