# SPDX-License-Identifier: BSD-3-Clause
"""Numbers: of Python, or in tensors. What a callable gave is checked as if it had been given."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ._basic import REALS, error, not_a_tensor, other_device, readable, shape_of


def number(
    op: str,
    argument: str,
    value: Any,
    rows: Tensor,
    n: int | None = None,
    *,
    optional: bool = False,
    grad: bool = False,
    each: str = "anchor",
) -> None:
    """A finite number; a tensor of one, or with n of one per anchor; or, if optional, None."""
    if isinstance(value, Tensor):
        _tensor(op, argument, value, n, rows, each)
        if value.requires_grad and not grad:
            raise _grad(op, argument)
        if readable(value) and not value.isfinite().all():
            text = f"{argument} must be finite; got inf or NaN among its values."
            raise error(ValueError, op, text)
    elif value is not None or not optional:
        if not isinstance(value, (int, float, Real)):
            forms = "a number, a tensor" + (
                ", a callable or None" if optional else " or a callable"
            )
            raise error(TypeError, op, f"{argument} must be {forms}; got {type(value).__name__}.")
        if value - value != 0:  # inf or NaN, in a form that torch.compile can trace
            raise error(ValueError, op, f"{argument} must be finite; got {value}.")


def start(op: str, argument: str, value: Any, n: int | None) -> None:
    """What a learned number, or one per class, starts from."""
    if callable(value):
        text = f"{argument} must be a number or a tensor to start from; got {type(value).__name__}."
        raise error(TypeError, op, text)
    number(op, argument, value, value, n, grad=True, each="class")


def hardness(op: str, value: Any, rows: Tensor) -> None:
    number(op, "hardness", value, rows, optional=True)
    if isinstance(value, Tensor):
        if not readable(value):
            return
        value = value.item()
    if value is not None and not 0 <= value <= 1:
        raise error(ValueError, op, f"hardness must lie in [0, 1]; got {value}.")


def temperature(op: str, value: Any) -> None:
    if not isinstance(value, (int, float, Real)):
        text = f"temperature must be a number; got {type(value).__name__}."
        raise error(TypeError, op, text)
    if not 0 < float(value) < float("inf"):
        raise error(ValueError, op, f"temperature must be finite and above 0; got {value}.")


def weights(op: str, value: Any, n: int, rows: Tensor) -> None:
    """One real number per anchor, or per given pair, triplet or quadruplet."""
    if value is None:
        return
    if not isinstance(value, Tensor):
        raise not_a_tensor(op, "weights", value)
    if value.ndim != 1:
        raise error(ValueError, op, f"weights must have shape ({n},); got {shape_of(value)}.")
    _tensor(op, "weights", value, n, rows, "anchor")
    if value.requires_grad:
        raise _grad(op, "weights")


def power(op: str, value: Any) -> None:
    if not isinstance(value, int) or value not in (1, 2):
        raise error(ValueError, op, f"power must be 1 or 2; got {value!r}.")


def count(op: str, argument: str, value: Any) -> None:
    if not isinstance(value, int) or value < 1:
        raise error(ValueError, op, f"{argument} must be an integer above 0; got {value!r}.")


def generator(op: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, torch.Generator):
        text = f"generator must be a torch.Generator; got {type(value).__name__}."
        raise error(TypeError, op, text)
    if value.device.type != "cpu":
        raise error(ValueError, op, f"generator must be on the CPU; got {value.device}.")


def _tensor(op: str, argument: str, value: Tensor, n: int | None, rows: Tensor, each: str) -> None:
    if value.dtype not in REALS:
        raise error(TypeError, op, f"{argument} must be real; got {value.dtype}.")
    if value.ndim and (n is None or value.shape != (n,)):
        forms = "()" if n is None else f"() or ({n},), one per {each}"
        text = f"{argument} must have shape {forms}; got {shape_of(value)}."
        raise error(ValueError, op, text)
    if value.device != rows.device:
        raise other_device(op, argument, value, "the embeddings", rows)


def _grad(op: str, argument: str) -> Exception:
    cure = f"no gradient flows to it. Pass {argument}.detach()."
    return error(ValueError, op, f"{argument} must not require grad: {cure}")
