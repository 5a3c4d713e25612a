# SPDX-License-Identifier: BSD-3-Clause
"""What the ops return, not yet filled: a fake kernel is this and no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "HALF",
    "apart",
    "batch_loss",
    "bounds",
    "list_triplets",
    "loss",
    "loss_dtype",
    "mine",
    "mined_triplet",
    "paired",
    "paired_backward",
    "pairwise",
    "pairwise_backward",
    "triplet",
]

HALF = (torch.float16, torch.bfloat16)
_ROW_BY_ROW = torch.contiguous_format


def loss_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in HALF else dtype


def mine(query: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    positive = query.new_empty(query.shape[0], dtype=torch.int64)
    return positive, torch.empty_like(positive)


def apart(query: Tensor, *_: Any) -> Tensor:
    return query.new_empty(query.shape[0], dtype=torch.int64)


def bounds(query: Tensor, *_: Any) -> Tensor:
    return query.new_empty(2, dtype=torch.float64)


def list_triplets(query: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    """For fake tensors: how many triplets there are depends on the data."""
    size = torch.library.get_ctx().new_dynamic_size()
    anchor, positive, negative = (query.new_empty(size, dtype=torch.int64) for _ in range(3))
    return anchor, positive, negative


def triplet(
    anchor_rows: Tensor,
    positive_rows: Tensor | None,
    negative_rows: Tensor | None,
    anchor: Tensor | None,
    *options: Any,
) -> list[Tensor]:
    """loss; the gradient of each set of rows that is wanted; stats if wanted."""
    n = (anchor_rows if anchor is None else anchor).shape[0]
    return loss((anchor_rows, positive_rows, negative_rows), n, *options[-3:])


def mined_triplet(query: Tensor, ref: Tensor | None, *options: Any) -> list[Tensor]:
    """Those of `triplet`; and with reduction "none" those of `mine`."""
    reduction, wanted, with_stats = options[-3:]
    outputs = loss((query, ref, None), query.shape[0], reduction, wanted, with_stats)
    return [*outputs, *mine(query)] if reduction == "none" else outputs


def batch_loss(query: Tensor, ref: Tensor | None, *options: Any) -> list[Tensor]:
    """loss; the gradients of query and ref that are wanted; stats if wanted."""
    reduction, wanted, with_stats = options[-3:]
    return loss((query, ref, None), query.shape[0], reduction, [*wanted, False], with_stats)


def loss(
    sets: Sequence[Tensor | None],
    n: int,
    reduction: str,
    wanted: Sequence[bool],
    with_stats: bool,
) -> list[Tensor]:
    """loss, of n terms with reduction "none"; the gradients that are wanted; stats if wanted."""
    first = sets[0]
    assert first is not None
    dtype = loss_dtype(first.dtype)
    outputs = [first.new_empty((n,) if reduction == "none" else (), dtype=dtype)]
    for role, rows in enumerate(sets):
        if rows is not None and wanted[role]:
            outputs.append(torch.empty_like(rows, dtype=dtype, memory_format=_ROW_BY_ROW))
    if with_stats:
        outputs.append(first.new_empty(7, dtype=torch.float64))
    return outputs


def paired(x: Tensor, _: Tensor | None, index_x: Tensor | None, *__: Any) -> Tensor:
    rows = x if index_x is None else index_x
    return x.new_empty(rows.shape[0], dtype=loss_dtype(x.dtype))


def paired_backward(x: Tensor, r: Tensor | None, *options: Any) -> list[Tensor]:
    """The gradient of each side that is wanted."""
    return [
        torch.empty_like(rows, dtype=loss_dtype(x.dtype), memory_format=_ROW_BY_ROW)
        for rows, want in zip((x, r), options[-1], strict=True)
        if want and rows is not None
    ]


def pairwise(x: Tensor, y: Tensor | None, *_: Any) -> Tensor:
    n = (x if y is None else y).shape[0]
    return x.new_empty((x.shape[0], n), dtype=loss_dtype(x.dtype))


def pairwise_backward(
    x: Tensor, y: Tensor | None, cotangent: Tensor, *options: Any
) -> list[Tensor]:
    """The gradient of each side that is wanted, as zeros: the kernel adds."""
    return [
        torch.zeros_like(rows, dtype=cotangent.dtype, memory_format=_ROW_BY_ROW)
        for rows, want in zip((x, y), options[-1], strict=True)
        if want and rows is not None
    ]
