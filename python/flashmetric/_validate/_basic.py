# SPDX-License-Identifier: BSD-3-Clause
"""What the other checks are made of: words, flags, matrices, indices."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from flashmetric._compat import functorch_is_active, is_compiling
from flashmetric._names import NAMES

FLOATS = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64))
SIGNED = (torch.bool, torch.int8, torch.int16, torch.int32, torch.int64)
REALS = FLOATS.union(SIGNED, (torch.uint8, torch.uint16, torch.uint32, torch.uint64))
_CHECK_EVERYWHERE = os.environ.get("FLASHMETRIC_CHECK") == "1"


def error(kind: type[Exception], op: str, text: str) -> Exception:
    return kind(f"[{op}] {text}")


def shape_of(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def readable(tensor: Tensor) -> bool:
    """May the values be looked at?"""
    plain = type(tensor) is Tensor and (tensor.is_cpu or _CHECK_EVERYWHERE)
    return plain and not is_compiling() and not functorch_is_active()


def names(op: str, **values: Any) -> None:
    """Each value is one of the words its argument knows."""
    for argument, value in values.items():
        if value not in NAMES[argument]:
            word(op, argument, value, argument)


def word(op: str, argument: str, value: Any, kind: str) -> None:
    """The same of one value, where functions differ in the words they know."""
    if value not in NAMES[kind]:
        known = ", ".join(repr(name) for name in NAMES[kind])
        raise error(ValueError, op, f"{argument} must be one of {known}; got {value!r}.")


def not_dot(op: str, distance: Any) -> None:
    """For losses whose margins are measured from 0."""
    if distance == "dot":
        raise error(ValueError, op, "distance must be one that is 0 on equal rows; got 'dot'.")


def flags(op: str, **values: Any) -> None:
    for argument, value in values.items():
        if value is not True and value is not False:
            raise error(TypeError, op, f"{argument} must be True or False; got {value!r}.")


def not_a_tensor(op: str, argument: str, value: Any) -> Exception:
    return error(TypeError, op, f"{argument} must be a tensor; got {type(value).__name__}.")


def has_dtype(op: str, argument: str, value: Any, dtype: torch.dtype) -> None:
    if not isinstance(value, Tensor):
        raise not_a_tensor(op, argument, value)
    if value.dtype != dtype:
        rule = f"{argument} must be of dtype {str(dtype).removeprefix('torch.')}"
        raise error(TypeError, op, f"{rule}; got {value.dtype}.")


def matrix(op: str, argument: str, value: Any, shape: str) -> None:
    """A dense floating matrix."""
    if not isinstance(value, Tensor):
        raise not_a_tensor(op, argument, value)
    if type(value) is not Tensor and type(value).__name__ == "DTensor":
        text = f"{argument} must be a plain tensor; got a DTensor. Pass {argument}.to_local()."
        raise error(TypeError, op, text)
    if value.layout is not torch.strided:
        raise error(TypeError, op, f"{argument} must be dense; got layout {value.layout}.")
    if value.dtype not in FLOATS:
        text = f"{argument} must be float16, bfloat16, float32 or float64; got {value.dtype}."
        raise error(TypeError, op, text)
    if value.ndim != 2:
        raise error(ValueError, op, f"{argument} must have shape {shape}; got {shape_of(value)}.")


def like(op: str, argument: str, value: Tensor, other: str, model: Tensor) -> None:
    """Rows that are compared with `model`: same dtype, device and number of features."""
    if value.dtype != model.dtype:
        text = f"{argument} must have the dtype of {other}, {model.dtype}; got {value.dtype}."
        raise error(TypeError, op, text)
    if value.device != model.device:
        raise other_device(op, argument, value, other, model)
    if value.shape[1] != model.shape[1]:
        text = f"{argument} must have {model.shape[1]} columns, like {other}"
        raise error(ValueError, op, f"{text}; got {shape_of(value)}.")


def other_device(op: str, argument: str, value: Tensor, other: str, model: Tensor) -> Exception:
    text = f"{argument} must be on the device of {other}, {model.device}; got {value.device}."
    return error(ValueError, op, text)


def index_of(op: str, argument: str, index: Any, n: int | None, rows: Tensor) -> None:
    has_dtype(op, argument, index, torch.int64)
    if index.ndim != 1 or n not in (None, index.shape[0]):
        size = "T" if n is None else n
        text = f"{argument} must have shape ({size},); got {shape_of(index)}."
        raise error(ValueError, op, text)
    if index.device != rows.device:
        raise other_device(op, argument, index, "the embeddings", rows)


def in_range(op: str, argument: str, index: Tensor, low: int, end: int) -> None:
    if readable(index) and index.numel():
        least, most = (int(bound) for bound in index.aminmax())
        if least < low or most >= end:
            text = f"{argument} must lie in [{low}, {end}); got [{least}, {most}]."
            raise error(ValueError, op, text)
