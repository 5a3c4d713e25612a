# SPDX-License-Identifier: BSD-3-Clause
"""The dispatcher ops `torch.ops.flashmetric.*`: tensors become pointers here, and nowhere else.

    mine               the chosen positive and negative of every query
    triplet            loss of given triplets, with gradients and statistics where wanted
    mined_triplet      the two in one
    pairwise           distances of all pairs
    pairwise_backward  their gradient

Each op has a kernel per device and a fake kernel that knows the shapes (_outputs.py). Arguments
were checked by _validate; outputs and scratch memory come from torch. The ops carry no autograd
formula (_autograd.py does): called directly they return constants.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from . import _outputs
from ._labels import compared
from ._outputs import HALF

try:
    from flashmetric import _C

    _WHY_NO_KERNELS = ""
except ImportError as error:  # a source tree that was never built, or a damaged installation
    _WHY_NO_KERNELS = f"the compiled module flashmetric._C cannot be imported ({error})"

__all__ = [
    "mine",
    "mined_triplet",
    "pairwise",
    "pairwise_backward",
    "refuse_vmap",
    "triplet",
    "why_not_fused",
]

# Scratch memory of up to 16 MiB stays with its thread: the first touch of fresh pages costs more
# than what is written to them. Measured: 3 % of a call at 4096 x 128, 6 % at 4096 x 512.
_KEEP = 2**24
_NO_SCRATCH = torch.empty(0, dtype=torch.uint8)
_kept = threading.local()
_SOMEWHERE = torch.empty(1, dtype=torch.float64)
_CPU = torch.device("cpu")


# What _C takes. A tensor must outlive the call that reads its pointer: keep it in a variable.
# Few, large helpers: on a small batch a Python call costs as much as a kernel does.

_Call = tuple[Callable[..., int], tuple[Any, ...], Any]  # kernel, arguments, what they point into


def _rows(rows: Tensor) -> Tensor:
    """The same rows in the dtype of the arithmetic, the features of a row next to each other."""
    if rows.dtype in HALF:
        return rows.to(torch.float32, memory_format=torch.contiguous_format)
    return rows if rows.stride()[1] == 1 else rows.contiguous()


def _numbers(*sets: Tensor | None) -> list[int]:
    """dtype, features; pointer, length and stride of each set of rows, zeros if it is absent."""
    first = sets[0]
    assert first is not None
    numbers = [1 if first.dtype == torch.float64 else 0, first.shape[1]]
    for rows in sets:
        if rows is None:
            numbers += (0, 0, 0)
        else:  # an empty tensor has no address, but an empty set of references is not an absent one
            numbers += (rows.data_ptr() or _SOMEWHERE.data_ptr(), rows.shape[0], rows.stride()[0])
    return numbers


def _pointers(*tensors: Tensor | None) -> list[int]:
    return [0 if tensor is None else tensor.data_ptr() for tensor in tensors]


def _mine_call(
    numbers: list[int],
    tensors: tuple[Tensor, Tensor | None, Tensor | None],
    rule: Sequence[Any],
    found: list[int],
) -> _Call:
    """Mines into the two addresses `found`."""
    labels, ref_labels, self_index = tensors
    relation, ignore_label, mining, distance, normalize = rule
    keys, kept = compared(labels, relation, ignore_label)
    ref_keys, ref_kept = None, None
    if ref_labels is not None:
        ref_keys, ref_kept = compared(ref_labels, relation, ignore_label)
    if self_index is not None:
        self_index = self_index.contiguous()
    n_classes = labels.shape[1] if relation == "multi_hot" else 0
    alive = (keys, ref_keys, self_index, kept, ref_kept)
    query_labels, other_labels, *others = _pointers(*alive)
    sides = (relation, query_labels, other_labels, n_classes, *others)
    return _C.mine, (mining, distance, normalize, *numbers, *sides, *found), alive


def _triplet_call(
    numbers: list[int], index: list[int], options: Sequence[Any], outputs: Sequence[Tensor]
) -> _Call:
    """Fills the outputs; index = how many triplets, addresses of their rows in the three sets."""
    margin_values, weights, cotangent, margin, distance, normalize, *flags = options
    soft_margin, swap, count_invalid, reduction, wanted, with_stats = flags
    if margin_values is not None:
        margin_values = margin_values.double().contiguous()
    if weights is not None:
        weights = weights.double().contiguous()
    alive = (margin_values, weights, cotangent)
    margins, weight, factor, loss, *rest = _pointers(*alive, *outputs)
    margin_step = margin_values.ndim if margins else 0
    factor_step = cotangent.stride()[0] if factor else 0
    grads = [rest.pop(0) if want else 0 for want in wanted]
    formula = (margin, margins, margin_step, soft_margin, swap, weight, count_invalid, reduction)
    results = (factor, factor_step, loss, *grads, rest[0] if with_stats else 0)
    return _C.triplet, (distance, normalize, *numbers, *index, *formula, *results), alive


def _run(*calls: _Call) -> None:
    """Calls the kernels with as much scratch memory as they ask for."""
    threads, scratch = torch.get_num_threads(), getattr(_kept, "scratch", _NO_SCRATCH)
    for kernel, arguments, _ in calls:
        needed = kernel(*arguments, scratch.data_ptr(), scratch.numel(), threads)
        if needed:
            scratch = torch.empty(needed, dtype=torch.uint8)
            if needed <= _KEEP:
                _kept.scratch = scratch
            kernel(*arguments, scratch.data_ptr(), needed, threads)


# Kernels of the CPU. Arguments come by position: the dispatcher takes 6 us more for keywords.


def _mine(
    query: Tensor,
    ref: Tensor | None,
    labels: Tensor,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    *rule: Any,
) -> tuple[Tensor, Tensor]:
    found = _outputs.mine(query)
    x, y = _rows(query), None if ref is None else _rows(ref)
    tensors = (labels, ref_labels, self_index)
    _run(_mine_call(_numbers(x, y), tensors, rule, _pointers(*found)))
    return found


def _triplet(
    anchor_rows: Tensor,
    positive_rows: Tensor | None,
    negative_rows: Tensor | None,
    anchor: Tensor | None,
    positive: Tensor | None,
    negative: Tensor | None,
    *options: Any,
) -> list[Tensor]:
    given = (anchor_rows, positive_rows, negative_rows)
    outputs = _outputs.triplet(*given, anchor, *options)
    sets = [None if rows is None else _rows(rows) for rows in given]
    index = [None if each is None else each.contiguous() for each in (anchor, positive, negative)]
    n = (anchor_rows if anchor is None else anchor).shape[0]
    _run(_triplet_call(_numbers(*sets), [n, *_pointers(*index)], options, outputs))
    return outputs


def _mined_triplet(
    query: Tensor,
    ref: Tensor | None,
    labels: Tensor,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    *options: Any,
) -> list[Tensor]:
    margin_values, weights, relation, ignore_label, mining, *formula = options
    outputs = _outputs.mined_triplet(query, ref, *formula)
    x, y = _rows(query), None if ref is None else _rows(ref)
    n, numbers = x.shape[0], _numbers(x, y)
    if formula[-3] == "none":  # the backward wants to know them
        found = _pointers(*outputs[-2:])
    else:
        chosen = torch.empty(2 * n, dtype=torch.int64)
        found = [chosen.data_ptr(), chosen.data_ptr() + 8 * n]
    rule = (relation, ignore_label, mining, formula[1], formula[2])
    rest = (margin_values, weights, None, *formula)
    _run(
        _mine_call(numbers, (labels, ref_labels, self_index), rule, found),
        _triplet_call([*numbers, 0, 0, 0], [n, 0, *found], rest, outputs),
    )
    return outputs


def _pairwise(x: Tensor, y: Tensor | None, distance: str, normalize: bool) -> Tensor:
    out = _outputs.pairwise(x, y)
    x = _rows(x)
    y = x if y is None else _rows(y)
    _run((_C.pairwise, (distance, normalize, *_numbers(x, y), out.data_ptr()), None))
    return out


def _pairwise_backward(
    x: Tensor,
    y: Tensor | None,
    cotangent: Tensor,
    distance: str,
    normalize: bool,
    wanted: list[bool],
) -> list[Tensor]:
    grads = _outputs.pairwise_backward(x, y, cotangent, wanted)
    x = _rows(x)
    other = x if y is None else _rows(y)

    def add(grad: Tensor, own: Tensor, other: Tensor, cotangent: Tensor) -> None:
        factor = (cotangent.data_ptr(), *cotangent.stride())
        arguments = (distance, normalize, *_numbers(own, other), *factor, grad.data_ptr())
        _run((_C.pairwise_backward, arguments, None))

    if wanted[0]:
        add(grads[0], x, other, cotangent)
    if y is None:  # the columns are the same rows: their share goes to the same gradient
        add(grads[0], x, x, cotangent.T)
    elif wanted[1]:
        add(grads[-1], other, x, cotangent.T)
    return grads


# Registration. A device is one more name in the loop below.


def refuse_vmap(*_: Any, **__: Any) -> NoReturn:
    message = (
        "[flashmetric] torch.vmap is not supported: a batch of embeddings is one comparison of all "
        "rows. Loop over the batches, or use same_mask to keep groups of one batch apart."
    )
    raise RuntimeError(message)


_SCHEMAS = {
    "mine": """(
        Tensor query, Tensor? ref, Tensor labels, Tensor? ref_labels, Tensor? self_index,
        str relation, Scalar? ignore_label, str mining, str distance, bool normalize
    ) -> (Tensor positive, Tensor negative)""",
    "triplet": """(
        Tensor anchor_rows, Tensor? positive_rows, Tensor? negative_rows,
        Tensor? anchor, Tensor? positive, Tensor? negative,
        Tensor? margin_values, Tensor? weights, Tensor? cotangent, float margin,
        str distance, bool normalize, bool soft_margin, bool swap, bool count_invalid,
        str reduction, bool[3] wanted, bool with_stats
    ) -> Tensor[]""",
    "mined_triplet": """(
        Tensor query, Tensor? ref, Tensor labels, Tensor? ref_labels, Tensor? self_index,
        Tensor? margin_values, Tensor? weights,
        str relation, Scalar? ignore_label, str mining, float margin,
        str distance, bool normalize, bool soft_margin, bool swap, bool count_invalid,
        str reduction, bool[3] wanted, bool with_stats
    ) -> Tensor[]""",
    "pairwise": "(Tensor x, Tensor? y, str distance, bool normalize) -> Tensor",
    "pairwise_backward": """(
        Tensor x, Tensor? y, Tensor cotangent, str distance, bool normalize, bool[2] wanted
    ) -> Tensor[]""",
}
_FAKES = (
    *(_outputs.mine, _outputs.triplet, _outputs.mined_triplet),
    *(_outputs.pairwise, _outputs.pairwise_backward),
)
_KERNELS = {"CPU": (_mine, _triplet, _mined_triplet, _pairwise, _pairwise_backward)}
_DEVICES = {"meta", *(name.lower() for name in _KERNELS)}  # meta: the fake kernels

_LIBRARY = torch.library.Library("flashmetric", "DEF")
for _position, (_name, _schema) in enumerate(_SCHEMAS.items()):
    _LIBRARY.define(_name + _schema, tags=torch.Tag.pt2_compliant_tag)
    torch.library.register_fake(f"flashmetric::{_name}", _FAKES[_position], lib=_LIBRARY)
    _LIBRARY.impl(_name, torch.library.fallthrough_kernel, "Autograd")
    _LIBRARY.impl(_name, refuse_vmap, "FuncTorchBatched")
    for _device, _kernels in () if _WHY_NO_KERNELS else _KERNELS.items():
        _LIBRARY.impl(_name, _kernels[_position], _device)

mine = torch.ops.flashmetric.mine.default
triplet = torch.ops.flashmetric.triplet.default
mined_triplet = torch.ops.flashmetric.mined_triplet.default
pairwise = torch.ops.flashmetric.pairwise.default
pairwise_backward = torch.ops.flashmetric.pairwise_backward.default


def why_not_fused(device: torch.device) -> str:
    """The reason why tensors of this device have no kernels; empty if they have."""
    if _WHY_NO_KERNELS:
        return _WHY_NO_KERNELS
    if device == _CPU or device.type in _DEVICES:  # reading the type costs five comparisons
        return ""
    return f"there are no kernels for device {device.type!r} yet"
