# SPDX-License-Identifier: BSD-3-Clause
"""Error inputs of the contrastive, quadruplet and margin losses, where they differ from others."""

from __future__ import annotations

import torch

from error_inputs import (
    INDEX,
    LABELS,
    NAN,
    REF_LABELS,
    REFS,
    ROWS,
    ErrorInput,
    type_error,
    value_error,
)

_LEARNED = torch.ones((), requires_grad=True)
_NO_DOT = "distance must be one that is 0 on equal rows; got 'dot'."
_NUMBER = "must be a number, a tensor or a callable; got"
_SAME = LABELS[:, None] == LABELS


def _constant(argument: str) -> str:
    return f"{argument} must not require grad: no gradient flows to it. Pass {argument}.detach()."


def _number_errors(base: str, argument: str, each: str = "() or (6,), one per anchor"):
    """Of an argument that takes a number, a tensor or a callable, without gradient."""
    return [
        type_error(base, f"{argument} {_NUMBER} NoneType.", **{argument: None}),
        type_error(base, f"{argument} {_NUMBER} list.", **{argument: [1.0]}),
        value_error(base, f"{argument} must be finite; got inf.", **{argument: float("inf")}),
        value_error(base, f"{argument} must be finite; got nan.", **{argument: lambda: NAN}),
        value_error(base, _constant(argument), **{argument: _LEARNED}),
        value_error(
            base,
            f"{argument} must have shape {each}; got (2,).",
            **{argument: lambda: torch.ones(2)},
        ),
    ]


CONTRASTIVE_ERRORS = [
    *_number_errors("contrastive_loss", "margin", "()"),
    *_number_errors("contrastive_loss", "pos_margin", "()"),
    *_number_errors("online", "margin", "()"),
    *_number_errors("similar", "margin", "()"),
    *_number_errors("similar", "pos_margin", "()"),
    *(
        value_error(base, _NO_DOT, distance="dot")
        for base in ("contrastive_loss", "online", "similar", "quadruplet_loss", "quadruplets")
    ),
    *(
        value_error(base, f"power must be 1 or 2; got {power!r}.", power=power)
        for base in ("contrastive_loss", "similar")
        for power in (3, 2.0)
    ),
    type_error("contrastive_loss", "half must be True or False; got 0.5.", half=0.5),
    type_error("similar", "half must be True or False; got None.", half=None),
    value_error(
        "contrastive_loss",
        "reduction must be one of 'mean', 'mean_active', 'mean_pairs', 'sum', 'none'; got 'avg'.",
        reduction="avg",
    ),
    value_error(
        "online",
        "reduction must be one of 'sum', 'mean', 'none'; got 'mean_active'.",
        reduction="mean_active",
    ),
    value_error(
        "similar",
        "reduction must be one of 'mean', 'mean_active', 'sum', 'none'; got 'mean_pairs'.",
        reduction="mean_pairs",
    ),
    value_error("contrastive_loss", "weights must have shape (6,); got ().", weights=_LEARNED),
    value_error("online", "labels or same_mask must be given; got neither.", labels=None),
]

SIMILAR_ERRORS: list[ErrorInput] = [
    type_error("similar", "similar must be a tensor; got list.", similar=[1, 0]),
    type_error(
        "similar",
        "similar must have a bool, integer or float dtype; got torch.complex64.",
        similar=torch.ones(6, dtype=torch.complex64),
    ),
    value_error(
        "similar",
        "similar must have shape (6,), one per pair; got (6, 1).",
        similar=torch.ones(6, 1),
    ),
    value_error(
        "similar",
        "similar must be on the device of the rows, cpu; got meta.",
        similar=LABELS.to("meta"),
    ),
    value_error("similar", "similar must be 0 or 1; got 2.", similar=LABELS),
    value_error("similar", "similar must be 0 or 1; got 0.5.", similar=torch.full((6,), 0.5)),
    value_error("similar", "similar must be 0 or 1; got nan.", similar=torch.full((6,), NAN)),
    value_error("similar", "x2 must have as many rows as x1, 6; got (4, 3).", x2=REFS),
    type_error("similar", "x1 must be a tensor; got NoneType.", x1=None),
    value_error("similar_index", "x2 must lie in [0, 4); got [0, 4].", x2=torch.tensor([0, 4])),
    value_error("similar_index", "x1 must have shape (T,); got (2, 1).", x1=INDEX[:, None]),
]

QUADRUPLET_ERRORS = [
    *_number_errors("quadruplet_loss", "margin1"),
    *_number_errors("quadruplet_loss", "margin2"),
    *_number_errors("quadruplets", "margin1"),
    *_number_errors("quadruplets", "margin2"),
    value_error(
        "quadruplet_loss",
        "same_mask must not be given with ref_embeddings: it does not say which references are of "
        "one class. Pass labels and ref_labels.",
        labels=None,
        same_mask=_SAME[:, :4],
        ref_embeddings=REFS,
    ),
    type_error("quadruplets", "negative1 must be a tensor; got str.", negative1="row"),
    value_error("quadruplets", "negative2 must have shape (T, D); got (3,).", negative2=ROWS[0]),
    type_error(
        "quadruplet_index",
        "negative2 must be of dtype int64; got torch.float32.",
        negative2=INDEX.float(),
    ),
    value_error(
        "quadruplet_index",
        "negative1 must lie in [0, 4); got [0, 5].",
        negative1=torch.tensor([0, 5]),
        ref_embeddings=REFS,
    ),
]

MARGIN_ERRORS = [
    *_number_errors("margin_loss", "margin"),
    type_error("margin_loss", f"beta {_NUMBER} NoneType.", beta=None),
    value_error("margin_loss", "beta must be finite; got inf.", beta=float("inf")),
    value_error(
        "margin_loss",
        "beta must have shape () or (6,), one per anchor; got (3,).",
        beta=torch.ones(3, requires_grad=True),
    ),
    type_error(
        "margin_loss",
        "beta must be real; got torch.complex64.",
        beta=torch.ones(6, dtype=torch.complex64),
    ),
    value_error(
        "margin_loss",
        "mining must be one of 'hard', 'semihard', 'all', 'semihard_all', 'hard_all', 'easy_all', "
        "'easy_hard', 'distance_weighted', 'random'; got 'soft'.",
        mining="soft",
    ),
    value_error(
        "margin_loss",
        "hardness needs mining='semihard'; got 'distance_weighted'.",
        hardness=0.5,
    ),
    value_error(
        "margin_loss",
        "ref_embeddings and ref_labels must be given together; got one of them.",
        ref_labels=REF_LABELS,
    ),
]

PAIR_ERRORS = [*CONTRASTIVE_ERRORS, *SIMILAR_ERRORS, *QUADRUPLET_ERRORS, *MARGIN_ERRORS]
