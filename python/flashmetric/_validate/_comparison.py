# SPDX-License-Identifier: BSD-3-Clause
"""Embeddings, references, and what says which of them are of one class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flashmetric.reference.mining import Comparison

from ._basic import (
    FLOATS,
    REALS,
    SIGNED,
    error,
    has_dtype,
    in_range,
    index_of,
    like,
    matrix,
    not_a_tensor,
    other_device,
    readable,
    shape_of,
)


def comparison(op: str, c: Comparison) -> None:
    matrix(op, "embeddings", c.embeddings, "(B, D)")
    n = n_ref = c.embeddings.shape[0]
    if c.ref_embeddings is not None:
        matrix(op, "ref_embeddings", c.ref_embeddings, "(R, D)")
        like(op, "ref_embeddings", c.ref_embeddings, "embeddings", c.embeddings)
        n_ref = c.ref_embeddings.shape[0]
    if c.same_mask is not None:
        _mask(op, c, c.same_mask, (n, n_ref))
    elif c.labels is None:
        raise error(ValueError, op, "labels or same_mask must be given; got neither.")
    else:
        _labels(op, "labels", c.labels, n, c.embeddings)
        if c.ref_embeddings is not None or c.ref_labels is not None:
            _ref_labels(op, c, c.labels, n_ref)
    if c.self_index is not None:
        _self_index(op, c, c.self_index)
    if c.ignore_label is not None:
        _ignore_label(op, c.ignore_label, c.labels)


def no_mask_of_references(op: str, c: Comparison) -> None:
    """For losses that compare a reference with a reference."""
    if c.same_mask is not None and c.ref_embeddings is not None:
        why = "it does not say which references are of one class. Pass labels and ref_labels"
        raise error(ValueError, op, f"same_mask must not be given with ref_embeddings: {why}.")


def class_ids(op: str, labels: Any, n_classes: int, ignore_label: float | None) -> Tensor:
    """The labels as positions in a table of n_classes; an ignored one as some position."""
    if not isinstance(labels, Tensor):
        raise not_a_tensor(op, "labels", labels)
    if labels.dtype not in (*SIGNED, torch.uint8) or labels.ndim != 1:
        got = f"{labels.dtype} of shape {shape_of(labels)}"
        raise error(ValueError, op, f"num_classes needs integer labels of shape (B,); got {got}.")
    positions = labels.long()
    if ignore_label is not None:
        positions = torch.where(positions == ignore_label, 0, positions)
    in_range(op, "labels", positions, 0, n_classes)
    return positions


def _mask(op: str, c: Comparison, mask: Tensor, shape: tuple[int, int]) -> None:
    if c.labels is not None or c.ref_labels is not None:
        raise error(ValueError, op, "same_mask replaces labels and ref_labels; got both.")
    has_dtype(op, "same_mask", mask, torch.bool)
    if mask.shape != shape:
        text = f"same_mask must have shape {shape}, a row per embedding; got {shape_of(mask)}."
        raise error(ValueError, op, text)
    if mask.device != c.embeddings.device:
        raise other_device(op, "same_mask", mask, "embeddings", c.embeddings)


def _labels(op: str, argument: str, labels: Any, n: int, rows: Tensor) -> None:
    if not isinstance(labels, Tensor):
        raise not_a_tensor(op, argument, labels)
    if labels.dtype not in REALS:
        text = f"{argument} must have an integer, bool or float dtype; got {labels.dtype}."
        raise error(TypeError, op, text)
    if labels.ndim not in (1, 2) or labels.shape[0] != n:
        forms = f"({n},), one per embedding, or ({n}, C), multi-hot"
        text = f"{argument} must have shape {forms}; got {shape_of(labels)}."
        raise error(ValueError, op, text)
    if labels.device != rows.device:
        raise other_device(op, argument, labels, "the embeddings", rows)
    if labels.dtype in FLOATS and readable(labels) and labels.isnan().any():
        raise error(ValueError, op, f"{argument} must not be NaN.")


def _ref_labels(op: str, c: Comparison, labels: Tensor, n_ref: int) -> None:
    refs = c.ref_labels
    if c.ref_embeddings is None or refs is None:
        text = "ref_embeddings and ref_labels must be given together; got one of them."
        raise error(ValueError, op, text)
    _labels(op, "ref_labels", refs, n_ref, c.ref_embeddings)
    if refs.ndim != labels.ndim or refs.shape[1:] != labels.shape[1:]:
        text = f"ref_labels must be of the form of labels, {shape_of(labels)}"
        raise error(ValueError, op, f"{text}; got {shape_of(refs)}.")
    if _kind(refs.dtype) != _kind(labels.dtype):
        rule = "both integer (or bool), both uint64 or both float"
        text = f"labels and ref_labels must be {rule}; got {labels.dtype} and {refs.dtype}."
        raise error(TypeError, op, text)


def _kind(dtype: torch.dtype) -> str:
    """Labels of one kind compare exactly."""
    wide = "uint64" if dtype == torch.uint64 else "integer"
    return "float" if dtype in FLOATS else wide


def _self_index(op: str, c: Comparison, index: Tensor) -> None:
    if c.ref_embeddings is None:
        text = "self_index needs ref_embeddings; without them no row meets itself."
        raise error(ValueError, op, text)
    index_of(op, "self_index", index, c.embeddings.shape[0], c.embeddings)
    in_range(op, "self_index", index, -1, c.ref_embeddings.shape[0])


def _ignore_label(op: str, value: Any, labels: Tensor | None) -> None:
    if labels is None or labels.ndim != 1:
        why = "multi-hot rows and masks have no such class"
        raise error(ValueError, op, f"ignore_label needs labels of shape (B,); {why}.")
    if isinstance(value, int):
        low, end = (0, 2**64) if labels.dtype == torch.uint64 else (-(2**63), 2**63)
        if labels.is_floating_point() or low <= value < end:
            return
    elif isinstance(value, float) and labels.is_floating_point() and value == value:  # no NaN
        return
    raise error(ValueError, op, f"ignore_label must be a value of {labels.dtype}; got {value!r}.")
