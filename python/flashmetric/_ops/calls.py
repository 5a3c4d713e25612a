# SPDX-License-Identifier: BSD-3-Clause
"""From the arguments of an op to those that _C takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flashmetric._labels import compared
from flashmetric._outputs import HALF

try:
    from flashmetric import _C

    WHY_NO_KERNELS = ""
    usual_device: Callable[[Tensor, Tensor], int] = _C.usual_device
except ImportError as error:  # a source tree that was never built, or a damaged installation
    WHY_NO_KERNELS = f"the compiled module flashmetric._C cannot be imported ({error})"

    def usual_device(_: Tensor, __: Tensor) -> int:
        return 0


# What _C takes: tensors as they are, None where there is none, and numbers. Few, large helpers: on
# a small batch a Python call costs as much as a kernel does.

Rows = tuple[Tensor, Tensor | None]  # queries; references, if they are others


class Device(NamedTuple):
    """How its kernels read rows, and what runs the kernel of a name where a tensor is."""

    as_rows: Callable[[Tensor], Tensor]
    run: Callable[[str, Tensor, tuple[Any, ...]], None]


def numbers(values: Tensor | None) -> Tensor | None:
    """As kernels read numbers in tensors."""
    return None if values is None else values.double().contiguous()


def comparison_of(
    rows: Rows, sides: Sequence[Tensor | None], relation: str, ignore_label: float | None
) -> tuple[Any, ...]:
    """What C++ calls a Comparison; sides = labels, ref_labels, self_index."""
    labels, ref_labels, self_index = sides
    assert labels is not None
    keys, kept = compared(labels, relation, ignore_label)
    ref_keys = ref_kept = None
    if ref_labels is not None:
        ref_keys, ref_kept = compared(ref_labels, relation, ignore_label)
    if self_index is not None:
        self_index = self_index.contiguous()
    return (*rows, keys, ref_keys, self_index, kept, ref_kept, relation)


def list_call(rows: Rows, *options: Any, for_loss: bool = False) -> tuple[Any, ...]:
    """What C++ calls a ListProblem, but for where triplets go.

    options = those of the op list_triplets, where a hardness or a seed is a number by now.
    """
    sides, (margins, hardness, seed, relation, ignore_label) = options[:3], options[3:8]
    *metric, drop, moved, positives, negatives, draws, margin, uncovered = options[8:]
    comparison = comparison_of(rows, sides, relation, ignore_label)
    hardness = moved if hardness is None else hardness
    rule = (drop, hardness, positives, negatives, draws, margin, numbers(margins))
    return (*comparison, *metric, *rule, 0 if seed is None else seed, uncovered, for_loss)


def rows_of(rows: Tensor) -> Tensor:
    """The same rows in the dtype of the arithmetic, the features of a row next to each other."""
    if rows.dtype in HALF:
        return rows.to(torch.float32, memory_format=torch.contiguous_format)
    return rows if rows.stride()[1] == 1 else rows.contiguous()


def both(as_rows: Callable[[Tensor], Tensor], query: Tensor, ref: Tensor | None) -> Rows:
    return as_rows(query), None if ref is None else as_rows(ref)
