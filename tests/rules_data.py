# SPDX-License-Identifier: BSD-3-Clause
"""Batches that mislead a mining rule, and the rules with every value of their keywords."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from keys_data import hard_rows
from samples import Seeded, class_batch

Batch = tuple[Tensor, Tensor]


def _hard(kind: str, n: int, n_classes: int) -> Callable[[], Batch]:
    return lambda: hard_rows(kind, n, 6, n_classes, torch.float32)


def _balanced(n: int, n_classes: int, scale: float = 1.0) -> Callable[[], Batch]:
    def batch() -> Batch:
        rows, labels = class_batch(n, 6, n_classes, seed=n + n_classes)
        return scale * rows, labels

    return batch


BATCHES: dict[str, Callable[[], Batch]] = {
    "random": _hard("random", 40, 9),
    "ties": _hard("integers", 41, 7),
    "binary": _hard("binary", 37, 5),
    "duplicates": _hard("duplicates", 43, 8),
    "all_equal": _hard("all_equal", 20, 4),
    "with_nan": _hard("with_nan", 44, 6),
    "with_infinity": _hard("with_infinity", 44, 6),
    "offset": _hard("offset", 40, 9),
    "tight_classes": _hard("tight_classes", 40, 9),
    "one_class": _balanced(9, 1),
    "all_distinct": _balanced(9, 9),
    "two_classes": _balanced(70, 2),
    "two_of_each": _balanced(40, 20),
    "near": _balanced(40, 8, 1e-3),
    "far": _balanced(40, 8, 1e3),
    "one_row": _balanced(1, 1),
    "empty": _balanced(0, 1),
}

_STRATEGIES = ("easy", "hard", "semihard", "all")
_NOT_TOGETHER = {("semihard", "semihard"), ("semihard", "all"), ("all", "semihard")}
# Under the name of the rule: its keywords, in every way that makes a difference.
VARIANTS: list[dict[str, Any]] = [
    {"mining": "hard"},
    {"mining": "semihard"},
    {"mining": "semihard", "fallback": "drop"},
    *({"mining": "semihard", "hardness": h} for h in (0.0, 0.2, 0.5, 0.7, 1.0)),
    {"mining": "semihard", "hardness": 0.3, "fallback": "drop"},
    {"mining": "all"},
    *({"mining": "semihard_all", "mining_margin": m} for m in (None, 0.25, 0.0)),
    {"mining": "hard_all"},
    *({"mining": "easy_all", "mining_margin": m} for m in (None, 0.25, -0.5)),
    *(
        {"mining": "easy_hard", "positive_mining": positive, "negative_mining": negative}
        for positive in _STRATEGIES
        for negative in _STRATEGIES
        if (positive, negative) not in _NOT_TOGETHER
    ),
    *({"mining": "distance_weighted", "generator": Seeded(seed)} for seed in (0, 1)),
    {"mining": "random", "generator": Seeded(2)},
    {"mining": "random", "n_negatives": 5, "generator": Seeded(3)},
]
# For the losses: each rule once or twice, and the one that lists no triplets.
LOSS_VARIANTS: list[dict[str, Any]] = [
    {"mining": "semihard"},
    {"mining": "semihard", "hardness": 0.3, "fallback": "drop"},
    {"mining": "all"},
    {"mining": "semihard_all", "mining_margin": 0.25},
    {"mining": "hard_all"},
    {"mining": "easy_all", "mining_margin": -0.5},
    {"mining": "easy_hard", "positive_mining": "all", "negative_mining": "hard"},
    {"mining": "easy_hard", "positive_mining": "all", "negative_mining": "all"},
    {"mining": "easy_hard", "positive_mining": "semihard", "negative_mining": "easy"},
    {"mining": "distance_weighted", "generator": Seeded(0)},
    {"mining": "random", "n_negatives": 3, "generator": Seeded(3)},
    {"mining": "soft", "temperature": 0.7},
    {"mining": "soft", "temperature": 0.7, "detach_weights": True},
]


def variant_name(variant: dict[str, Any]) -> str:
    words = (value for name, value in variant.items() if name != "generator")
    return "-".join(str(word) for word in words)
