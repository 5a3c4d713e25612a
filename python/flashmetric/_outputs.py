# SPDX-License-Identifier: BSD-3-Clause
"""What the ops return, not yet filled: a fake kernel is this and no more."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["HALF", "loss_dtype", "mine", "pairwise", "pairwise_backward", "triplet"]

HALF = (torch.float16, torch.bfloat16)


def loss_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in HALF else dtype


def _room(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """For the gradient of a set of rows."""
    return torch.empty_like(rows, dtype=dtype, memory_format=torch.contiguous_format)


def mine(query: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    positive = query.new_empty(query.shape[0], dtype=torch.int64)
    return positive, torch.empty_like(positive)


def triplet(
    anchor_rows: Tensor,
    positive_rows: Tensor | None,
    negative_rows: Tensor | None,
    anchor: Tensor | None,
    *options: Any,
) -> list[Tensor]:
    """loss; the gradient of each set of rows that is wanted; stats if wanted."""
    reduction, wanted, with_stats = options[-3:]
    dtype = loss_dtype(anchor_rows.dtype)
    shape = (anchor_rows if anchor is None else anchor).shape[:1] if reduction == "none" else ()
    outputs = [anchor_rows.new_empty(shape, dtype=dtype)]
    for rows, want in zip((anchor_rows, positive_rows, negative_rows), wanted, strict=True):
        if want and rows is not None:
            outputs.append(_room(rows, dtype))
    if with_stats:
        outputs.append(anchor_rows.new_empty(7, dtype=torch.float64))
    return outputs


def pairwise(x: Tensor, y: Tensor | None, *_: Any) -> Tensor:
    n = (x if y is None else y).shape[0]
    return x.new_empty((x.shape[0], n), dtype=loss_dtype(x.dtype))


def pairwise_backward(
    x: Tensor, y: Tensor | None, cotangent: Tensor, *options: Any
) -> list[Tensor]:
    """The gradient of each side that is wanted, as zeros: the kernel adds."""
    sides = zip((x, y), options[-1], strict=True)
    return [
        _room(rows, cotangent.dtype).zero_() for rows, want in sides if want and rows is not None
    ]
