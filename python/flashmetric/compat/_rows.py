# SPDX-License-Identifier: BSD-3-Clause
"""Given rows as peers take them: an epsilon in the difference, dtypes that a peer would promote."""

from __future__ import annotations

import torch
from torch import Tensor

from flashmetric import _ops
from flashmetric._names import Distance
from flashmetric.losses import contrastive_pairs_loss

__all__ = ["batch_of", "distances", "shapes_of", "shifted", "why_not"]

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def why_not(kernel: str, *rows: Tensor) -> str:
    """Why that op does not take these rows; "" if it does. Shapes are not looked at."""
    first = rows[0]
    for each in rows:
        if each.layout is not torch.strided:
            return "rows are not dense"
        if each.dtype not in _DTYPES:
            return f"rows are {each.dtype}"
        if each.dtype != first.dtype:
            return f"rows are {first.dtype} and {each.dtype}"
        if each.device != first.device:
            return f"rows are on {first.device} and {each.device}"
    return _ops.why_not_fused(first.device, kernel)


def shapes_of(*tensors: Tensor) -> str:
    return ", ".join(str(tuple(each.shape)) for each in tensors)


def shifted(eps: float, first: Tensor, *others: Tensor) -> list[Tensor]:
    """Rows of which first - other is what it was, plus eps in every feature.

    Half precision would swallow the eps: such rows become float32.
    """
    rows = [first, *others]
    if eps == 0:
        return rows
    if first.itemsize == 2:
        rows = [each.float() for each in rows]
    return [rows[0] + eps, *rows[1:]]


def distances(x: Tensor, y: Tensor, distance: Distance, eps: float = 0.0) -> Tensor:
    """(T,) distances of rows x + eps to rows y, with gradient; float32 for half precision."""
    x, y = shifted(eps, x, y)
    every = torch.ones(x.shape[0], dtype=torch.bool, device=x.device)
    return contrastive_pairs_loss(x, y, every, power=1, distance=distance, reduction="none")


def batch_of(op: str, name: str, labels: Tensor, rows_name: str, rows: Tensor) -> Tensor:
    """(B,) labels of any shape with one for each of the rows (B, D), whatever they are called."""
    for argument, value in ((rows_name, rows), (name, labels)):
        if not isinstance(value, Tensor):
            text = f"[{op}] {argument} must be a tensor; got {type(value).__name__}."
            raise TypeError(text)
    if rows.dtype not in _DTYPES:
        text = f"[{op}] {rows_name} must be of a floating dtype; got {rows.dtype}."
        raise TypeError(text)
    if rows.ndim != 2 or labels.numel() != rows.shape[0]:
        rule = f"{rows_name} must be (B, D) and {name} have B elements"
        text = f"[{op}] {rule}; got {shapes_of(rows, labels)}."
        raise ValueError(text)
    return labels.reshape(-1)
