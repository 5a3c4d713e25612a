# SPDX-License-Identifier: BSD-3-Clause
"""Tensors become the pointers and numbers that _C takes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
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
_SOMEWHERE = torch.empty(1, dtype=torch.float64)

# In the order of DType in csrc/flashmetric.h.
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

# What _C takes. A tensor must outlive the call that reads its pointer: keep it in a variable.
# Few, large helpers: on a small batch a Python call costs as much as a kernel does.

Call = tuple[Callable[..., int], tuple[Any, ...], Any]  # kernel, arguments, what they point into


def rows_of(rows: Tensor) -> Tensor:
    """The same rows in the dtype of the arithmetic, the features of a row next to each other."""
    if rows.dtype in HALF:
        return rows.to(torch.float32, memory_format=torch.contiguous_format)
    return rows if rows.stride()[1] == 1 else rows.contiguous()


def numbers_of(*sets: Tensor | None) -> list[int]:
    """dtype, features; pointer, length and stride of each set of rows, zeros if it is absent."""
    first = sets[0]
    assert first is not None
    numbers = [_DTYPES.index(first.dtype), first.shape[1]]
    for rows in sets:
        if rows is None:
            numbers += (0, 0, 0)
        else:  # an empty tensor has no address, but an empty set of references is not an absent one
            numbers += (rows.data_ptr() or _SOMEWHERE.data_ptr(), rows.shape[0], rows.stride()[0])
    return numbers


def pointers(*tensors: Tensor | None) -> list[int]:
    return [0 if tensor is None else tensor.data_ptr() for tensor in tensors]


def comparison_of(
    numbers: list[int], tensors: Sequence[Tensor | None], rule: Sequence[Any]
) -> tuple[tuple[Any, ...], Any]:
    """What C++ calls a Comparison, and what its pointers point into.

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
    n_classes = labels.shape[1] if relation == "multi_hot" else 0
    alive = (keys, ref_keys, self_index, kept, ref_kept)
    query_labels, other_labels, *others = pointers(*alive)
    sides = (relation, query_labels, other_labels, n_classes, *others)
    return (distance, normalize, *numbers, *sides), alive


def mine_call(
    numbers: list[int], tensors: Sequence[Tensor | None], rule: Sequence[Any], found: list[int]
) -> Call:
    """Mines into the two addresses `found`; rule = relation, ignore_label, mining, metric."""
    relation, ignore_label, mining, *metric = rule
    arguments, alive = comparison_of(numbers, tensors, (relation, ignore_label, *metric))
    return _C.mine, (mining, *arguments, *found), alive


def triplet_call(
    numbers: list[int],
    index: list[int],
    options: Sequence[Any],
    outputs: Sequence[Tensor],
    far_from_none: bool = False,
    totals: int = 0,
) -> Call:
    """Fills the outputs; index = how many triplets, addresses of their rows in the three sets."""
    margin_values, weights, cotangent, margin, distance, normalize, *flags = options
    soft_margin, swap, count_invalid, reduction, wanted, with_stats = flags
    if margin_values is not None:
        margin_values = margin_values.double().contiguous()
    if weights is not None:
        weights = weights.double().contiguous()
    alive = (margin_values, weights, cotangent)
    margins, weight, factor, loss, *rest = pointers(*alive, *outputs)
    margin_step = margin_values.ndim if margins else 0
    factor_step = cotangent.stride()[0] if factor else 0
    grads = [rest.pop(0) if want else 0 for want in wanted]
    formula = (margin, margins, margin_step, soft_margin, swap, weight, count_invalid)
    results = (factor, factor_step, loss, *grads, rest[0] if with_stats else 0, totals)
    metric = (distance, normalize, *numbers)
    arguments = (*metric, *index, *formula, far_from_none, reduction, *results)
    return _C.triplet, arguments, alive


def list_call(
    rows: tuple[Tensor, Tensor | None], options: Sequence[Any], *, for_loss: bool = False
) -> tuple[tuple[Any, ...], Any]:
    """What C++ calls a ListProblem, but for where triplets go; and what its pointers point into.

    options = those of the op list_triplets, where a hardness or a seed is a number by now.
    """
    labels, ref_labels, self_index, margins, hardness, seed, relation, ignore_label, *rest = options
    mining, distance, normalize, drop, moved, *strategies, draws, margin, uncovered = rest
    metric = (relation, ignore_label, distance, normalize)
    arguments, alive = comparison_of(numbers_of(*rows), (labels, ref_labels, self_index), metric)
    if margins is not None:
        margins = margins.double().contiguous()
    step = margins.ndim if margins is not None else 0
    hardness = moved if hardness is None else hardness
    numbers = (drop, hardness, *strategies, draws, margin, *pointers(margins), step)
    words = (0 if seed is None else seed, uncovered, for_loss)
    return (mining, *arguments, *numbers, *words), (alive, rows, margins)


# What the ops of every device have in common: outputs, and the calls that fill them. `as_rows`
# gives rows in the form that its kernels read.


def mine_of(
    as_rows: Callable[[Tensor], Tensor],
    query: Tensor,
    ref: Tensor | None,
    labels: Tensor,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    *rule: Any,
) -> tuple[tuple[Tensor, Tensor], Call]:
    found = _outputs.mine(query)
    sets = (as_rows(query), None if ref is None else as_rows(ref))
    tensors = (labels, ref_labels, self_index)
    kernel, arguments, alive = mine_call(numbers_of(*sets), tensors, rule, pointers(*found))
    return found, (kernel, arguments, (sets, alive))


def triplet_of(
    as_rows: Callable[[Tensor], Tensor],
    anchor_rows: Tensor,
    positive_rows: Tensor | None,
    negative_rows: Tensor | None,
    anchor: Tensor | None,
    positive: Tensor | None,
    negative: Tensor | None,
    *options: Any,
) -> tuple[list[Tensor], Call]:
    given = (anchor_rows, positive_rows, negative_rows)
    outputs = _outputs.triplet(*given, anchor, *options)
    sets = [None if rows is None else as_rows(rows) for rows in given]
    index = [None if each is None else each.contiguous() for each in (anchor, positive, negative)]
    places = [(anchor_rows if anchor is None else anchor).shape[0], *pointers(*index)]
    kernel, arguments, alive = triplet_call(numbers_of(*sets), places, options, outputs)
    return outputs, (kernel, arguments, (sets, index, alive))


def mined_triplet_of(
    as_rows: Callable[[Tensor], Tensor],
    query: Tensor,
    ref: Tensor | None,
    labels: Tensor,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    *options: Any,
) -> tuple[list[Tensor], Call]:
    margin_values, weights, relation, ignore_label, mining, *formula = options
    outputs = _outputs.mined_triplet(query, ref, *formula)
    sets = (as_rows(query), None if ref is None else as_rows(ref))
    n, numbers = query.shape[0], numbers_of(*sets)
    if formula[-3] == "none":  # the backward wants to know them
        chosen, found = None, pointers(*outputs[-2:])
    else:
        chosen = torch.empty(2 * n, dtype=torch.int64, device=query.device)
        found = [chosen.data_ptr(), chosen.data_ptr() + 8 * n]
    rule = (relation, ignore_label, mining, formula[1], formula[2])
    rest = (margin_values, weights, None, *formula)
    _, mined, compared = mine_call(numbers, (labels, ref_labels, self_index), rule, found)
    _, terms, alive = triplet_call([*numbers, 0, 0, 0], [n, 0, *found], rest, outputs)
    return outputs, (_C.mined_triplet, (*mined, *terms), (sets, chosen, compared, alive))


def run(call: Call) -> None:
    """Calls the kernel with as much scratch memory as it asks for."""
    kernel, arguments, _ = call
    threads, scratch = torch.get_num_threads(), getattr(_kept, "scratch", _NO_SCRATCH)
    needed = kernel(*arguments, scratch.data_ptr(), scratch.numel(), threads)
    if needed:
        scratch = torch.empty(needed, dtype=torch.uint8)
        if needed <= _KEEP:
            _kept.scratch = scratch
        kernel(*arguments, scratch.data_ptr(), needed, threads)
