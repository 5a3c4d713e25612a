# SPDX-License-Identifier: BSD-3-Clause
"""Distances: their names, the parameters they have, and the rows they accept."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from torch import Tensor

from flashmetric._names import NAMES

from ._basic import error, matrix, not_a_tensor, other_device, readable, shape_of

COUNTED = (torch.bool, torch.uint8)  # rows of 0 and 1, or of counts, that jaccard takes as well


def distance(op: str, value: Any) -> None:
    """A name, "minkowski(p)", or what can be called with two sets of rows."""
    if isinstance(value, str):
        if value not in NAMES["distance"] and minkowski_exponent(op, value) is None:
            raise _unknown(op, value)
    elif not callable(value) or isinstance(value, type):
        raise _unknown(op, value)


def minkowski_exponent(op: str, name: str) -> float | None:
    """p of "minkowski(p)"; None of another name."""
    head, _, number = name.partition("(")
    if head != "minkowski" or not number.endswith(")"):
        return None
    try:
        return exponent(op, float(number[:-1]))
    except ValueError:
        raise _unknown(op, name) from None


def exponent(op: str, p: Any) -> float:
    if isinstance(p, bool) or not isinstance(p, (int, float, Real)):
        raise error(TypeError, op, f"p must be a number; got {type(p).__name__}.")
    if not float(p) >= 1:
        raise error(ValueError, op, f"p must be at least 1; got {p}.")
    return float(p)


def not_negative(op: str, argument: str, rows: Tensor) -> None:
    """For jaccard."""
    if readable(rows) and bool((rows < 0).any()):
        least = rows.detach().amin().item()
        text = f"{argument} must not be negative with distance='jaccard'; got {least:.6g}."
        raise error(ValueError, op, text)


def factor(op: str, argument: str, value: Any, rows: Tensor | None = None) -> None:
    """The matrix of a Mahalanobis distance; `rows` are what it is about to measure."""
    if rows is None:
        matrix(op, argument, value, "(K, D)")
        return
    if value.shape[1] != rows.shape[1]:
        text = f"{argument} of the distance must have {rows.shape[1]} columns, like the rows"
        raise error(ValueError, op, f"{text}; got {shape_of(value)}.")
    if value.device != rows.device:
        raise other_device(op, f"{argument} of the distance", value, "the rows", rows)


def symmetric(op: str, argument: str, value: Any) -> None:
    matrix(op, argument, value, "(D, D)")
    if value.shape[0] != value.shape[1]:
        raise error(ValueError, op, f"{argument} must have shape (D, D); got {shape_of(value)}.")
    if value.requires_grad:
        cure = "a step would leave the symmetric matrices. Learn a factor instead"
        raise error(ValueError, op, f"{argument} must not require grad: {cure}.")
    apart = (value - value.T).abs().amax().item() if value.numel() else 0.0
    # Each of the two entries may have been rounded once, and a product of matrices rounds D times.
    if not apart <= value.shape[0] * torch.finfo(value.dtype).eps * value.abs().amax().item():
        text = f"{argument} must be symmetric; got entries {apart:.3g} from their mirror images."
        raise error(ValueError, op, text)


def not_below_zero(op: str, argument: str, eigenvalues: Tensor, dtype: torch.dtype) -> None:
    """Eigenvalues of a symmetric matrix that was given in this dtype, up to its rounding."""
    if not eigenvalues.numel():
        return
    least, most = eigenvalues.amin().item(), eigenvalues.abs().amax().item()
    if not least >= -len(eigenvalues) * torch.finfo(dtype).eps * most:
        text = f"{argument} must be positive semi-definite; got the eigenvalue {least:.6g}."
        raise error(ValueError, op, text)


def not_one_of(op: str, first: str, second: str, *, both: bool) -> Exception:
    got = "both" if both else "neither"
    return error(ValueError, op, f"{first} or {second} must be given; got {got}.")


def rows_of_covariance(op: str, rows: Any) -> None:
    if not isinstance(rows, Tensor):
        raise not_a_tensor(op, "x", rows)
    matrix(op, "x", rows, "(N, D)")
    if rows.shape[0] < 2:
        raise error(ValueError, op, f"x must have at least 2 rows; got {shape_of(rows)}.")


def distances(op: str, found: Any, shape: tuple[int, int]) -> None:
    """What a callable distance returned."""
    if not isinstance(found, Tensor) or found.shape != shape:
        got = shape_of(found) if isinstance(found, Tensor) else type(found).__name__
        text = f"distance must return a tensor of shape {shape} of so many rows; got {got}."
        raise error(ValueError, op, text)


def _unknown(op: str, value: Any) -> Exception:
    known = ", ".join(repr(name) for name in NAMES["distance"])
    objects = "Minkowski(p), Mahalanobis(...) or a function of two sets of rows"
    return error(ValueError, op, f"distance must be one of {known}, {objects}; got {value!r}.")
