# SPDX-License-Identifier: BSD-3-Clause
"""Error inputs of the table: what is changed in a valid call, and the exact message it gives."""

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
}


@dataclass(frozen=True)
class ErrorInput:
    base: str
    change: dict[str, Any]
    error: type[Exception]
    message: str  # without the name of the op


def _value(base: str, message: str, **change: Any) -> ErrorInput:
    return ErrorInput(base, change, ValueError, message)


def _type(base: str, message: str, **change: Any) -> ErrorInput:
    return ErrorInput(base, change, TypeError, message)


_FLOAT = "must be float16, bfloat16, float32 or float64; got torch.int64."
_DISTANCES = "must be one of 'euclidean', 'sqeuclidean', 'cosine', 'dot'; got"
_REDUCTIONS = "reduction must be one of 'mean', 'mean_active', 'sum', 'none'; got 'avg'."
_HALF_ROWS = ROWS.half()
_META = ROWS.to("meta")

ROW_ERRORS = [
    _type("triplet_loss", "embeddings must be a tensor; got list.", embeddings=[[1.0]]),
    _type("mine_triplets", f"embeddings {_FLOAT}", embeddings=ROWS.long()),
    _value("triplet_loss", "embeddings must have shape (B, D); got (6,).", embeddings=ROWS[:, 0]),
    _value(
        "triplet_loss",
        "embeddings must have shape (B, D); got (6, 3, 1).",
        embeddings=ROWS[..., None],
    ),
    _type(
        "triplet_loss",
        "embeddings must be dense; got layout torch.sparse_coo.",
        embeddings=ROWS.to_sparse(),
    ),
    _type(
        "refs",
        "ref_embeddings must have the dtype of embeddings, torch.float32; got torch.float16.",
        ref_embeddings=REFS.half(),
    ),
    _value(
        "refs",
        "ref_embeddings must have 3 columns, like embeddings; got (4, 2).",
        ref_embeddings=REFS[:, :2],
    ),
    _value(
        "refs",
        "ref_embeddings must be on the device of embeddings, cpu; got meta.",
        ref_embeddings=REFS.to("meta"),
    ),
    _type("pairs", "x must be a tensor; got NoneType.", x=None),
    _type("pairs", f"y {_FLOAT}", y=REFS.long()),
    _value("pairs", "x must have shape (M, D); got (3,).", x=ROWS[0]),
    _value("pairs", "y must have shape (N, D); got (3,).", y=ROWS[0]),
    _type(
        "pairs", "y must have the dtype of x, torch.float32; got torch.float64.", y=REFS.double()
    ),
    _value("pairs", "y must have 3 columns, like x; got (4, 1).", y=REFS[:, :1]),
    _value("pairs", "y must be on the device of x, cpu; got meta.", y=REFS.to("meta")),
    _type("rows", "positive must be a tensor; got int.", positive=3),
    _value("rows", "negative must have shape (T, D); got (6,).", negative=ROWS[:, 0]),
    _type(
        "rows",
        "positive must have the dtype of anchor, torch.float32; got torch.float16.",
        positive=_HALF_ROWS,
    ),
    _value("rows", "negative must have as many rows as anchor, 6; got (4, 3).", negative=REFS),
    _value("rows", "negative must be on the device of anchor, cpu; got meta.", negative=_META),
    _value("rows", "ref_embeddings needs embeddings; got rows as triplets.", ref_embeddings=REFS),
]

RELATION_ERRORS = [
    _value("triplet_loss", "labels or same_mask must be given; got neither.", labels=None),
    _type("triplet_loss", "labels must be a tensor; got list.", labels=[0, 1]),
    _value(
        "triplet_loss",
        "labels must have shape (6,), one per embedding, or (6, C), multi-hot; got (5,).",
        labels=LABELS[:5],
    ),
    _type(
        "triplet_loss",
        "labels must have an integer, bool or float dtype; got torch.complex64.",
        labels=LABELS.to(torch.complex64),
    ),
    _value("triplet_loss", "labels must not be NaN.", labels=torch.tensor([0, 1, 0, 1, 0, NAN])),
    _value(
        "triplet_loss",
        "labels must be on the device of the embeddings, cpu; got meta.",
        labels=LABELS.to("meta"),
    ),
    _value(
        "refs",
        "ref_embeddings and ref_labels must be given together; got one of them.",
        ref_labels=None,
    ),
    _value(
        "triplet_loss",
        "ref_embeddings and ref_labels must be given together; got one of them.",
        ref_labels=REF_LABELS,
    ),
    _value(
        "refs",
        "ref_labels must have shape (4,), one per embedding, or (4, C), multi-hot; got (3,).",
        ref_labels=REF_LABELS[:3],
    ),
    _value(
        "refs",
        "ref_labels must be of the form of labels, (6, 6); got (4,).",
        labels=HOT,
    ),
    _value(
        "refs",
        "ref_labels must be of the form of labels, (6, 6); got (4, 5).",
        labels=HOT,
        ref_labels=HOT[:4, :5],
    ),
    _type(
        "refs",
        "labels and ref_labels must be both integer (or bool), both uint64 or both float; "
        "got torch.int64 and torch.float32.",
        ref_labels=REF_LABELS.float(),
    ),
    _type(
        "refs",
        "labels and ref_labels must be both integer (or bool), both uint64 or both float; "
        "got torch.int64 and torch.uint64.",
        ref_labels=REF_LABELS.to(torch.uint64),
    ),
    _value(
        "triplet_loss",
        "same_mask replaces labels and ref_labels; got both.",
        same_mask=LABELS[:, None] == LABELS,
    ),
    _type(
        "mine_triplets",
        "same_mask must be of dtype bool; got torch.int64.",
        labels=None,
        same_mask=HOT,
    ),
    _value(
        "mine_triplets",
        "same_mask must have shape (6, 6), a row per embedding; got (6, 5).",
        labels=None,
        same_mask=HOT[:, :5].bool(),
    ),
    _value(
        "triplet_loss",
        "self_index needs ref_embeddings; without them no row meets itself.",
        self_index=torch.arange(6),
    ),
    _type("refs", "self_index must be of dtype int64; got torch.int32.", self_index=LABELS.int()),
    _value("refs", "self_index must have shape (6,); got (2,).", self_index=INDEX),
    _value("refs", "self_index must lie in [-1, 4); got [0, 5].", self_index=torch.arange(6)),
    _value("refs", "self_index must lie in [-1, 4); got [-2, 3].", self_index=torch.arange(6) - 2),
    _value(
        "triplet_loss",
        "ignore_label needs labels of shape (B,); multi-hot rows and masks have no such class.",
        labels=HOT,
        ignore_label=0,
    ),
    _value(
        "triplet_loss", "ignore_label must be a value of torch.int64; got 0.5.", ignore_label=0.5
    ),
]

OPTION_ERRORS = [
    _value("triplet_loss", f"distance {_DISTANCES} 'l2'.", distance="l2"),
    _value("pairs", f"distance {_DISTANCES} 'manhattan'.", distance="manhattan"),
    _value("mine_triplets", "mining must be one of 'hard'; got 'easy'.", mining="easy"),
    _value("triplet_loss", _REDUCTIONS, reduction="avg"),
    _value("rows", _REDUCTIONS, reduction="avg"),
    _value("triplet_loss", "invalid must be one of 'drop', 'count'; got None.", invalid=None),
    _value("pairs", "impl must be one of 'auto', 'fused', 'reference'; got 'cuda'.", impl="cuda"),
    _type("triplet_loss", "normalize must be True or False; got 1.", normalize=1),
    _type("rows", "swap must be True or False; got 'yes'.", swap="yes"),
    _type("triplet_loss", "soft_margin must be True or False; got None.", soft_margin=None),
    _type("triplet_loss", "return_stats must be True or False; got 0.", return_stats=0),
    _type("triplet_loss", "margin must be a number, a tensor or None; got str.", margin="1"),
    _value("triplet_loss", "margin must be finite; got nan.", margin=NAN),
    _value("rows", "margin must be finite; got inf.", margin=float("inf")),
    _value(
        "triplet_loss",
        "margin must be finite; got inf or NaN among its values.",
        margin=torch.tensor(NAN),
    ),
    _value(
        "triplet_loss",
        "margin must have shape () or (6,), one per anchor; got (4,).",
        margin=torch.ones(4),
    ),
    _value(
        "triplet_loss",
        "margin must not require grad: no gradient flows to it. Pass margin.detach().",
        margin=torch.ones(6, requires_grad=True),
    ),
    _value("triplet_loss", "weights must have shape (6,); got ().", weights=torch.ones(())),
    _type("triplet_loss", "weights must be a tensor; got float.", weights=1.0),
    _type(
        "rows",
        "weights must be real; got torch.complex64.",
        weights=torch.ones(6, dtype=torch.complex64),
    ),
    _value(
        "rows",
        "weights must not require grad: no gradient flows to it. Pass weights.detach().",
        weights=torch.ones(6, requires_grad=True),
    ),
    _type("index", "anchor must be of dtype int64; got torch.int32.", anchor=INDEX.int()),
    _value("index", "positive must have shape (2,); got (3,).", positive=torch.arange(3)),
    _value("index", "anchor must have shape (T,); got (1, 2).", anchor=INDEX[None]),
    _value("index", "negative must lie in [0, 6); got [0, 6].", negative=torch.tensor([0, 6])),
    _value("index", "anchor must lie in [0, 6); got [-1, 2].", anchor=torch.tensor([-1, 2])),
    _value(
        "index",
        "positive must lie in [0, 4); got [0, 5].",
        positive=torch.tensor([0, 5]),
        ref_embeddings=REFS,
    ),
]

ERRORS = [*ROW_ERRORS, *RELATION_ERRORS, *OPTION_ERRORS]
