# SPDX-License-Identifier: BSD-3-Clause
"""Error inputs of the table: what is changed in a valid call, and the exact message it gives."""

from __future__ import annotations

import torch

from error_inputs import HOT, INDEX, LABELS, NAN, REF_LABELS, REFS, ROWS, type_error, value_error
from op_errors_pairs import PAIR_ERRORS
from op_errors_rules import RULE_ERRORS

_FLOAT = "must be float16, bfloat16, float32 or float64; got torch.int64."
_DISTANCES = (
    "must be one of 'euclidean', 'sqeuclidean', 'cosine', 'dot', 'manhattan', 'chebyshev', "
    "'jaccard', 'snr', Minkowski(p), Mahalanobis(...) or a function of two sets of rows; got"
)
_REDUCTIONS = "reduction must be one of 'mean', 'mean_active', 'sum', 'none'; got 'avg'."
_HALF_ROWS = ROWS.half()
_META = ROWS.to("meta")

ROW_ERRORS = [
    type_error("triplet_loss", "embeddings must be a tensor; got list.", embeddings=[[1.0]]),
    type_error("mine_triplets", f"embeddings {_FLOAT}", embeddings=ROWS.long()),
    value_error(
        "triplet_loss", "embeddings must have shape (B, D); got (6,).", embeddings=ROWS[:, 0]
    ),
    value_error(
        "triplet_loss",
        "embeddings must have shape (B, D); got (6, 3, 1).",
        embeddings=ROWS[..., None],
    ),
    type_error(
        "triplet_loss",
        "embeddings must be dense; got layout torch.sparse_coo.",
        embeddings=ROWS.to_sparse(),
    ),
    type_error(
        "refs",
        "ref_embeddings must have the dtype of embeddings, torch.float32; got torch.float16.",
        ref_embeddings=REFS.half(),
    ),
    value_error(
        "refs",
        "ref_embeddings must have 3 columns, like embeddings; got (4, 2).",
        ref_embeddings=REFS[:, :2],
    ),
    value_error(
        "refs",
        "ref_embeddings must be on the device of embeddings, cpu; got meta.",
        ref_embeddings=REFS.to("meta"),
    ),
    type_error("pairs", "x must be a tensor; got NoneType.", x=None),
    type_error("pairs", f"y {_FLOAT}", y=REFS.long()),
    value_error("pairs", "x must have shape (M, D); got (3,).", x=ROWS[0]),
    value_error("pairs", "y must have shape (N, D); got (3,).", y=ROWS[0]),
    type_error(
        "pairs", "y must have the dtype of x, torch.float32; got torch.float64.", y=REFS.double()
    ),
    value_error("pairs", "y must have 3 columns, like x; got (4, 1).", y=REFS[:, :1]),
    value_error("pairs", "y must be on the device of x, cpu; got meta.", y=REFS.to("meta")),
    type_error("rows", "positive must be a tensor; got int.", positive=3),
    value_error("rows", "negative must have shape (T, D); got (6,).", negative=ROWS[:, 0]),
    type_error(
        "rows",
        "positive must have the dtype of anchor, torch.float32; got torch.float16.",
        positive=_HALF_ROWS,
    ),
    value_error("rows", "negative must have as many rows as anchor, 6; got (4, 3).", negative=REFS),
    value_error("rows", "negative must be on the device of anchor, cpu; got meta.", negative=_META),
    value_error("rows", "ref_embeddings needs embeddings; got rows.", ref_embeddings=REFS),
]

RELATION_ERRORS = [
    value_error("triplet_loss", "labels or same_mask must be given; got neither.", labels=None),
    type_error("triplet_loss", "labels must be a tensor; got list.", labels=[0, 1]),
    value_error(
        "triplet_loss",
        "labels must have shape (6,), one per embedding, or (6, C), multi-hot; got (5,).",
        labels=LABELS[:5],
    ),
    type_error(
        "triplet_loss",
        "labels must have an integer, bool or float dtype; got torch.complex64.",
        labels=LABELS.to(torch.complex64),
    ),
    value_error(
        "triplet_loss", "labels must not be NaN.", labels=torch.tensor([0, 1, 0, 1, 0, NAN])
    ),
    value_error(
        "triplet_loss",
        "labels must be on the device of the embeddings, cpu; got meta.",
        labels=LABELS.to("meta"),
    ),
    value_error(
        "refs",
        "ref_embeddings and ref_labels must be given together; got one of them.",
        ref_labels=None,
    ),
    value_error(
        "triplet_loss",
        "ref_embeddings and ref_labels must be given together; got one of them.",
        ref_labels=REF_LABELS,
    ),
    value_error(
        "refs",
        "ref_labels must have shape (4,), one per embedding, or (4, C), multi-hot; got (3,).",
        ref_labels=REF_LABELS[:3],
    ),
    value_error(
        "refs",
        "ref_labels must be of the form of labels, (6, 6); got (4,).",
        labels=HOT,
    ),
    value_error(
        "refs",
        "ref_labels must be of the form of labels, (6, 6); got (4, 5).",
        labels=HOT,
        ref_labels=HOT[:4, :5],
    ),
    type_error(
        "refs",
        "labels and ref_labels must be both integer (or bool), both uint64 or both float; "
        "got torch.int64 and torch.float32.",
        ref_labels=REF_LABELS.float(),
    ),
    type_error(
        "refs",
        "labels and ref_labels must be both integer (or bool), both uint64 or both float; "
        "got torch.int64 and torch.uint64.",
        ref_labels=REF_LABELS.to(torch.uint64),
    ),
    value_error(
        "triplet_loss",
        "same_mask replaces labels and ref_labels; got both.",
        same_mask=LABELS[:, None] == LABELS,
    ),
    type_error(
        "mine_triplets",
        "same_mask must be of dtype bool; got torch.int64.",
        labels=None,
        same_mask=HOT,
    ),
    value_error(
        "mine_triplets",
        "same_mask must have shape (6, 6), a row per embedding; got (6, 5).",
        labels=None,
        same_mask=HOT[:, :5].bool(),
    ),
    value_error(
        "triplet_loss",
        "self_index needs ref_embeddings; without them no row meets itself.",
        self_index=torch.arange(6),
    ),
    type_error(
        "refs", "self_index must be of dtype int64; got torch.int32.", self_index=LABELS.int()
    ),
    value_error("refs", "self_index must have shape (6,); got (2,).", self_index=INDEX),
    value_error("refs", "self_index must lie in [-1, 4); got [0, 5].", self_index=torch.arange(6)),
    value_error(
        "refs", "self_index must lie in [-1, 4); got [-2, 3].", self_index=torch.arange(6) - 2
    ),
    value_error(
        "triplet_loss",
        "ignore_label needs labels of shape (B,); multi-hot rows and masks have no such class.",
        labels=HOT,
        ignore_label=0,
    ),
    value_error(
        "triplet_loss", "ignore_label must be a value of torch.int64; got 0.5.", ignore_label=0.5
    ),
]

OPTION_ERRORS = [
    value_error("triplet_loss", f"distance {_DISTANCES} 'l2'.", distance="l2"),
    value_error("pairs", f"distance {_DISTANCES} 'minkowski(x)'.", distance="minkowski(x)"),
    value_error("triplet_loss", _REDUCTIONS, reduction="avg"),
    value_error("rows", _REDUCTIONS, reduction="avg"),
    value_error("triplet_loss", "invalid must be one of 'drop', 'count'; got None.", invalid=None),
    value_error(
        "pairs", "impl must be one of 'auto', 'fused', 'reference'; got 'cuda'.", impl="cuda"
    ),
    type_error("triplet_loss", "normalize must be True or False; got 1.", normalize=1),
    type_error("rows", "swap must be True or False; got 'yes'.", swap="yes"),
    type_error("triplet_loss", "soft_margin must be True or False; got None.", soft_margin=None),
    type_error("triplet_loss", "return_stats must be True or False; got 0.", return_stats=0),
    type_error(
        "triplet_loss",
        "margin must be a number, a tensor, a callable or None; got str.",
        margin="1",
    ),
    value_error("triplet_loss", "margin must be finite; got nan.", margin=NAN),
    value_error("rows", "margin must be finite; got inf.", margin=float("inf")),
    value_error(
        "triplet_loss",
        "margin must be finite; got inf or NaN among its values.",
        margin=torch.tensor(NAN),
    ),
    value_error(
        "triplet_loss",
        "margin must have shape () or (6,), one per anchor; got (4,).",
        margin=torch.ones(4),
    ),
    value_error(
        "triplet_loss",
        "margin must not require grad: no gradient flows to it. Pass margin.detach().",
        margin=torch.ones(6, requires_grad=True),
    ),
    value_error("triplet_loss", "weights must have shape (6,); got ().", weights=torch.ones(())),
    type_error("triplet_loss", "weights must be a tensor; got float.", weights=1.0),
    type_error(
        "rows",
        "weights must be real; got torch.complex64.",
        weights=torch.ones(6, dtype=torch.complex64),
    ),
    value_error(
        "rows",
        "weights must not require grad: no gradient flows to it. Pass weights.detach().",
        weights=torch.ones(6, requires_grad=True),
    ),
    type_error("index", "anchor must be of dtype int64; got torch.int32.", anchor=INDEX.int()),
    value_error("index", "positive must have shape (2,); got (3,).", positive=torch.arange(3)),
    value_error("index", "anchor must have shape (T,); got (1, 2).", anchor=INDEX[None]),
    value_error("index", "negative must lie in [0, 6); got [0, 6].", negative=torch.tensor([0, 6])),
    value_error("index", "anchor must lie in [0, 6); got [-1, 2].", anchor=torch.tensor([-1, 2])),
    value_error(
        "index",
        "positive must lie in [0, 4); got [0, 5].",
        positive=torch.tensor([0, 5]),
        ref_embeddings=REFS,
    ),
]

ERRORS = [*ROW_ERRORS, *RELATION_ERRORS, *OPTION_ERRORS, *RULE_ERRORS, *PAIR_ERRORS]
