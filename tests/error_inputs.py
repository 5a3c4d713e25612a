# SPDX-License-Identifier: BSD-3-Clause
"""What the error inputs (op_errors*.py) are made of: valid calls, and how one is made wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

ROWS = torch.arange(18.0).view(6, 3)
REFS = torch.arange(12.0).view(4, 3)
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])
REF_LABELS = torch.tensor([0, 1, 1, 2])
HOT = torch.eye(6, dtype=torch.int64)
INDEX = torch.tensor([0, 1])
NAN = float("nan")

# A valid call of each op, under the name the rows below use.
BASE: dict[str, tuple[str, dict[str, Any]]] = {
    "triplet_loss": ("triplet_loss", {"embeddings": ROWS, "labels": LABELS}),
    "mine_triplets": ("mine_triplets", {"embeddings": ROWS, "labels": LABELS}),
    "refs": (
        "triplet_loss",
        {"embeddings": ROWS, "labels": LABELS, "ref_embeddings": REFS, "ref_labels": REF_LABELS},
    ),
    "rows": ("triplet_margin_loss", {"anchor": ROWS, "positive": ROWS, "negative": ROWS}),
    "index": (
        "triplet_margin_loss",
        {"anchor": INDEX, "positive": INDEX, "negative": INDEX, "embeddings": ROWS},
    ),
    "pairs": ("pairwise_distances", {"x": ROWS, "y": REFS}),
    "contrastive_loss": ("contrastive_loss", {"embeddings": ROWS, "labels": LABELS}),
    "online": ("online_contrastive_loss", {"embeddings": ROWS, "labels": LABELS}),
    "similar": ("contrastive_pairs_loss", {"x1": ROWS, "x2": ROWS, "similar": LABELS // 2}),
    "similar_index": (
        "contrastive_pairs_loss",
        {"x1": INDEX, "x2": INDEX, "similar": INDEX, "embeddings": ROWS, "ref_embeddings": REFS},
    ),
    "quadruplet_loss": ("quadruplet_loss", {"embeddings": ROWS, "labels": LABELS}),
    "quadruplets": (
        "quadruplet_margin_loss",
        {"anchor": ROWS, "positive": ROWS, "negative1": ROWS, "negative2": ROWS},
    ),
    "quadruplet_index": (
        "quadruplet_margin_loss",
        dict.fromkeys(("anchor", "positive", "negative1", "negative2"), INDEX)
        | {"embeddings": ROWS},
    ),
    "margin_loss": ("margin_loss", {"embeddings": ROWS, "labels": LABELS}),
}


@dataclass(frozen=True)
class ErrorInput:
    base: str
    change: dict[str, Any]
    error: type[Exception]
    message: str  # without the name of the op


def value_error(base: str, message: str, **change: Any) -> ErrorInput:
    return ErrorInput(base, change, ValueError, message)


def type_error(base: str, message: str, **change: Any) -> ErrorInput:
    return ErrorInput(base, change, TypeError, message)
