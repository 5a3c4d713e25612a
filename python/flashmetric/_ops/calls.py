# SPDX-License-Identifier: BSD-3-Clause
"""Tensors become the pointers and numbers that _C takes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from flashmetric import _outputs
from flashmetric._labels import compared
from flashmetric._outputs import HALF

try:
    from flashmetric import _C

    WHY_NO_KERNELS = ""
except ImportError as error:  # a source tree that was never built, or a damaged installation
    WHY_NO_KERNELS = f"the compiled module flashmetric._C cannot be imported ({error})"

# Scratch memory of up to 16 MiB stays with its thread: the first touch of fresh pages costs more
# than what is written to them. Measured: 3 % of a call at 4096 x 128, 6 % at 4096 x 512.
_KEEP = 2**24
_NO_SCRATCH = torch.empty(0, dtype=torch.uint8)
_kept = threading.local()
_NOT_TOLD = (None, None)
# What _C takes: tensors as they are, None where there is none, and numbers. Few, large helpers: on a
# small batch a Python call costs as much as a kernel does.

Rows = tuple[Tensor, Tensor | None]  # queries; references, if they are others


def rows_of(rows: Tensor) -> Tensor:
    """The same rows in the dtype of the arithmetic, the features of a row next to each other."""
    if rows.dtype in HALF:
        return rows.to(torch.float32, memory_format=torch.contiguous_format)
    return rows if rows.stride()[1] == 1 else rows.contiguous()


def numbers(values: Tensor | None) -> Tensor | None:
    """As kernels read numbers in tensors."""
    return None if values is None else values.double().contiguous()


def by_role(outputs: Iterable[Tensor], wanted: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """The gradients that are wanted, None in the place of others."""
    found = iter(outputs)
    return tuple([next(found) if want else None for want in wanted])


def comparison_of(
    rows: Rows, tensors: Sequence[Tensor | None], rule: Sequence[Any]
) -> tuple[Any, ...]:
    """What C++ calls a Comparison.

    tensors = labels, ref_labels, self_index; rule = relation, ignore_label, distance, normalize.
    """
    labels, ref_labels, self_index = tensors
    assert labels is not None
    relation, ignore_label, distance, normalize = rule
    keys, kept = compared(labels, relation, ignore_label)
    ref_keys, ref_kept = None, None
    if ref_labels is not None:
        ref_keys, ref_kept = compared(ref_labels, relation, ignore_label)
    if self_index is not None:
        self_index = self_index.contiguous()
    return (distance, normalize, *rows, relation, keys, ref_keys, self_index, kept, ref_kept)


def terms_of(
    options: Sequence[Any],
    outputs: Sequence[Tensor],
    far_from_none: bool = False,
    totals: Tensor | None = None,
) -> tuple[Any, ...]:
    """What a loss of triplets is, and the outputs it fills."""
    margins, weights, cotangent, margin, _, _, soft_margin, swap, count_invalid, *request = options
    reduction, wanted, with_stats = request
    formula = (margin, numbers(margins), soft_margin, swap, numbers(weights), count_invalid)
    stats = outputs[1 + sum(wanted)] if with_stats else None
    results = (outputs[0], *by_role(outputs[1:], wanted), stats, totals)
    return (*formula, far_from_none, reduction, cotangent, *results)


def list_call(rows: Rows, options: Sequence[Any], *, for_loss: bool = False) -> tuple[Any, ...]:
    """What C++ calls a ListProblem, but for where triplets go.

    options = those of the op list_triplets, where a hardness or a seed is a number by now.
    """
    labels, ref_labels, self_index, margins, hardness, seed, relation, ignore_label, *rest = options
    mining, distance, normalize, drop, moved, *strategies, draws, margin, uncovered = rest
    metric = (relation, ignore_label, distance, normalize)
    arguments = comparison_of(rows, (labels, ref_labels, self_index), metric)
    hardness = moved if hardness is None else hardness
    rule = (drop, hardness, *strategies, draws, margin, numbers(margins))
    return (mining, *arguments, *rule, 0 if seed is None else seed, uncovered, for_loss)


# What the ops of every device have in common: outputs, and the calls that fill them. `as_rows`
# gives rows in the form that its kernels read.


def mine_of(
    as_rows: Callable[[Tensor], Tensor],
    query: Tensor,
    ref: Tensor | None,
    labels: Tensor,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    relation: str,
    ignore_label: float | None,
    mining: str,
    *metric: Any,
) -> tuple[tuple[Tensor, Tensor], tuple[Any, ...]]:
    found = _outputs.mine(query)
    rows, tensors = both(as_rows, query, ref), (labels, ref_labels, self_index)
    arguments = comparison_of(rows, tensors, (relation, ignore_label, *metric))
    return found, (mining, *arguments, *found)


def triplet_of(
    as_rows: Callable[[Tensor], Tensor],
    anchor_rows: Tensor,
    positive_rows: Tensor | None,
    negative_rows: Tensor | None,
    anchor: Tensor | None,
    positive: Tensor | None,
    negative: Tensor | None,
    *options: Any,
) -> tuple[list[Tensor], tuple[Any, ...]]:
    given = (anchor_rows, positive_rows, negative_rows)
    outputs = _outputs.triplet(*given, anchor, *options)
    sets = [None if rows is None else as_rows(rows) for rows in given]
    index = [None if each is None else each.contiguous() for each in (anchor, positive, negative)]
    return outputs, (*options[4:6], *sets, *index, *terms_of(options, outputs))


def mined_triplet_of(
    as_rows: Callable[[Tensor], Tensor],
    query: Tensor,
    ref: Tensor | None,
    labels: Tensor,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    margins: Tensor | None,
    weights: Tensor | None,
    relation: str,
    ignore_label: float | None,
    mining: str,
    *formula: Any,
) -> tuple[list[Tensor], tuple[Any, ...]]:
    outputs = _outputs.mined_triplet(query, ref, *formula)
    rows, tensors = both(as_rows, query, ref), (labels, ref_labels, self_index)
    compared = comparison_of(rows, tensors, (relation, ignore_label, formula[1], formula[2]))
    # The backward of reduction "none" wants to know them.
    chosen = outputs[-2:] if formula[-3] == "none" else _NOT_TOLD
    terms = terms_of((margins, weights, None, *formula), outputs)
    return outputs, (mining, *compared, *chosen, *terms)


def both(as_rows: Callable[[Tensor], Tensor], query: Tensor, ref: Tensor | None) -> Rows:
    return as_rows(query), None if ref is None else as_rows(ref)


def run(kernel: Callable[..., int], arguments: tuple[Any, ...]) -> None:
    """Calls the kernel with as much scratch memory as it asks for."""
    threads, scratch = torch.get_num_threads(), getattr(_kept, "scratch", _NO_SCRATCH)
    needed = kernel(*arguments, scratch, threads)
    if needed:
        scratch = torch.empty(needed, dtype=torch.uint8)
        if needed <= _KEEP:
            _kept.scratch = scratch
        kernel(*arguments, scratch, threads)
