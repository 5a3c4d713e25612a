# SPDX-License-Identifier: BSD-3-Clause
"""Given pairs, triplets and quadruplets: rows, or indices of rows."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ._basic import (
    REALS,
    error,
    in_range,
    index_of,
    like,
    matrix,
    not_a_tensor,
    other_device,
    readable,
    shape_of,
)


def pair(op: str, x: Any, y: Any) -> None:
    """The two sides of pairwise_distances."""
    matrix(op, "x", x, "(M, D)")
    if y is not None:
        matrix(op, "y", y, "(N, D)")
        like(op, "y", y, "x", x)


def given(op: str, embeddings: Any, refs: Any, **roles: Any) -> None:
    """The rows of each role; or indices: of the first role into embeddings, then into refs."""
    if embeddings is None:
        if refs is not None:
            raise error(ValueError, op, "ref_embeddings needs embeddings; got rows.")
        _rows(op, roles)
        return
    matrix(op, "embeddings", embeddings, "(B, D)")
    if refs is not None:
        matrix(op, "ref_embeddings", refs, "(R, D)")
        like(op, "ref_embeddings", refs, "embeddings", embeddings)
    n, target = None, embeddings
    for argument, index in roles.items():
        index_of(op, argument, index, n, embeddings)
        in_range(op, argument, index, 0, target.shape[0])
        n, target = index.shape[0], embeddings if refs is None else refs


def _rows(op: str, roles: dict[str, Any]) -> None:
    (first, model), *others = roles.items()
    matrix(op, first, model, "(T, D)")
    for argument, rows in others:
        matrix(op, argument, rows, "(T, D)")
        like(op, argument, rows, first, model)
        if rows.shape[0] != model.shape[0]:
            text = f"{argument} must have as many rows as {first}, {model.shape[0]}"
            raise error(ValueError, op, f"{text}; got {shape_of(rows)}.")


def similar(op: str, value: Any, n: int, rows: Tensor) -> None:
    """What is known of each pair: 1, similar, or 0."""
    if not isinstance(value, Tensor):
        raise not_a_tensor(op, "similar", value)
    if value.dtype not in REALS:
        text = f"similar must have a bool, integer or float dtype; got {value.dtype}."
        raise error(TypeError, op, text)
    if value.shape != (n,):
        text = f"similar must have shape ({n},), one per pair; got {shape_of(value)}."
        raise error(ValueError, op, text)
    if value.device != rows.device:
        raise other_device(op, "similar", value, "the rows", rows)
    if readable(value):
        wrong = value[(value != 0) & (value != 1)]
        if wrong.numel():
            raise error(ValueError, op, f"similar must be 0 or 1; got {wrong[0].item()}.")
