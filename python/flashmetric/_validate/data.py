# SPDX-License-Identifier: BSD-3-Clause
"""What surrounds a batch: samplers, schedules, offline mining.

These checks run once per object or data set, so all of them may look at values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from ._basic import error

__all__ = [
    "choice",
    "class_ids",
    "counts",
    "error",
    "fraction",
    "integers",
    "number",
    "random_seed",
    "tensor_of",
]


def choice(op: str, argument: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        words = ", ".join(repr(name) for name in known)
        raise error(ValueError, op, f"{argument} must be one of {words}; got {value!r}.")


def counts(op: str, *, least: int = 1, **values: Any) -> None:
    for argument, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Integral):
            text = f"{argument} must be an integer; got {type(value).__name__}."
            raise error(TypeError, op, text)
        if value < least:
            raise error(ValueError, op, f"{argument} must be at least {least}; got {value}.")


def number(op: str, argument: str, value: Any) -> float:
    """A finite number; bool is none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise error(TypeError, op, f"{argument} must be a number; got {type(value).__name__}.")
    if not math.isfinite(value):
        raise error(ValueError, op, f"{argument} must be finite; got {value}.")
    return float(value)


def fraction(op: str, argument: str, value: Any) -> float:
    share = number(op, argument, value)
    if not 0 < share < 1:
        raise error(ValueError, op, f"{argument} must lie between 0 and 1; got {value}.")
    return share


def random_seed(op: str, seed: Any, generator: Any) -> int:
    """The seed, or one drawn from the generator."""
    if generator is None:
        counts(op, least=0, seed=seed)
        return int(seed)
    if not isinstance(generator, torch.Generator):
        text = f"generator must be a torch.Generator; got {type(generator).__name__}."
        raise error(TypeError, op, text)
    if generator.device.type != "cpu":
        text = f"generator must be one of the CPU; got one of {generator.device}."
        raise error(ValueError, op, text)
    return int(torch.randint(2**63 - 1, (), generator=generator))


def class_ids(op: str, argument: str, labels: Any) -> Tensor:
    """(N,) int64 on the CPU, equal where the labels are equal; N > 0."""
    ids = integers(op, argument, labels)
    if not len(ids):
        raise error(ValueError, op, f"{argument} must not be empty.")
    return ids


def integers(op: str, argument: str, values: Any) -> Tensor:
    """(N,) int64 on the CPU, of a tensor, an array or a list; a uint64 keeps its bits."""
    column = values if isinstance(values, Tensor) else tensor_of(op, argument, values)
    if column.ndim != 1:
        text = f"{argument} must have shape (N,), one per sample; got {tuple(column.shape)}."
        raise error(ValueError, op, text)
    if len(column) and (column.is_floating_point() or column.is_complex()):
        raise error(TypeError, op, f"{argument} must be integers or bools; got {column.dtype}.")
    column = column.detach().cpu()
    return column.view(torch.int64) if column.dtype == torch.uint64 else column.to(torch.int64)


def tensor_of(op: str, argument: str, values: Any) -> Tensor:
    """A tensor of an array (numpy, pandas) or of a sequence."""
    array = getattr(values, "__array__", None)
    try:
        return torch.tensor(values if array is None else array())
    except (TypeError, ValueError, RuntimeError) as reason:
        text = f"{argument} must be a tensor, an array or a list of integers"
        raise error(TypeError, op, f"{text}; got {type(values).__name__}: {reason}.") from reason
