# SPDX-License-Identifier: BSD-3-Clause
"""The dispatcher ops `torch.ops.flashmetric.*`: tensors become pointers here, and nowhere else.

    mine               the chosen positive and negative of every query
    triplet            loss of chosen triplets, with gradients and statistics where wanted
    pairwise           distances of all pairs
    pairwise_backward  their gradient

Each op has a kernel per device and a fake kernel that knows the shapes (_outputs.py). Arguments
were checked by _validate; outputs and scratch memory come from torch. The ops carry no autograd
formula (_autograd.py does): called directly they return constants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from . import _outputs
from ._labels import compared, relation_of, signed
from ._outputs import HALF

try:
    from flashmetric import _C

    _WHY_NO_KERNELS = ""
except ImportError as error:  # a source tree that was never built, or a damaged installation
    _WHY_NO_KERNELS = f"the compiled module flashmetric._C cannot be imported ({error})"

__all__ = [
    "choose",
    "mine",
    "pairwise",
    "pairwise_backward",
    "refuse_vmap",
    "triplet",
    "why_not_fused",
]

_SOMEWHERE = torch.empty(1, dtype=torch.float64)


# What _C takes. A tensor must outlive the call that reads its pointer: keep it in a variable.


def _rows(rows: Tensor) -> Tensor:
    """The same rows in the dtype of the arithmetic, the features of a row next to each other."""
    if rows.dtype in HALF:
        return rows.to(torch.float32, memory_format=torch.contiguous_format)
    return rows if rows.stride(1) == 1 else rows.contiguous()


def _set(rows: Tensor | None) -> tuple[int, int, int]:
    """Pointer, number of rows and row stride; zeros where there is no such set."""
    if rows is None:
        return 0, 0, 0
    # An empty tensor has no address, but an empty set of references is not an absent one.
    return rows.data_ptr() or _SOMEWHERE.data_ptr(), rows.shape[0], rows.stride(0)


def _pointer(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _step(values: Tensor | None) -> int:
    """Stride of one number per triplet; 0 where one number serves all."""
    return values.stride(0) if values is not None and values.ndim else 0


def _wide(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.double().contiguous()


def _index(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.contiguous()


def _run(kernel: Callable[..., int], *arguments: Any) -> None:
    """Asks the kernel how much scratch memory this call needs, then calls it with as much."""
    threads = torch.get_num_threads()
    scratch = torch.empty(kernel(*arguments, 0, threads), dtype=torch.uint8)
    kernel(*arguments, scratch.data_ptr(), threads)


def _dtype_code(dtype: torch.dtype) -> int:
    return 1 if dtype == torch.float64 else 0


# Kernels of the CPU. The dispatcher takes 10 us for keywords it takes 4 us for by position.


def _mine(
    query: Tensor,
    ref: Tensor | None,
    labels: Tensor,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    *options: Any,
) -> tuple[Tensor, Tensor]:
    relation, ignore_label, mining, distance, normalize = options
    positive, negative = _outputs.mine(query)
    x, y = _rows(query), None if ref is None else _rows(ref)
    keys, kept = compared(labels, relation, ignore_label)
    ref_keys, ref_kept = None, None
    if ref_labels is not None:
        ref_keys, ref_kept = compared(ref_labels, relation, ignore_label)
    self_index = _index(self_index)
    dim = x.shape[1]
    n_classes = labels.shape[1] if relation == "multi_hot" else 0
    dtype = _dtype_code(x.dtype)
    _run(
        _C.mine,
        *(mining, distance, normalize, dtype, dim, *_set(x), *_set(y)),
        *(relation, keys.data_ptr(), _pointer(ref_keys), n_classes),
        *(_pointer(self_index), _pointer(kept), _pointer(ref_kept)),
        *(positive.data_ptr(), negative.data_ptr()),
    )
    return positive, negative


def _triplet(
    anchor_rows: Tensor,
    positive_rows: Tensor | None,
    negative_rows: Tensor | None,
    anchor: Tensor | None,
    positive: Tensor | None,
    negative: Tensor | None,
    *options: Any,
) -> list[Tensor]:
    margin_values, weights, cotangent, *formula, reduction, wanted, with_stats = options
    margin, distance, normalize, soft_margin, swap, count_invalid = formula
    outputs = _outputs.triplet(anchor_rows, positive_rows, negative_rows, anchor, *options)
    x = _rows(anchor_rows)
    y = None if positive_rows is None else _rows(positive_rows)
    z = None if negative_rows is None else _rows(negative_rows)
    first, second, third = _set(x), _set(y), _set(z)
    anchor, positive, negative = _index(anchor), _index(positive), _index(negative)
    margin_values, weights = _wide(margin_values), _wide(weights)
    n, dim = (x if anchor is None else anchor).shape[0], x.shape[1]
    dtype = _dtype_code(x.dtype)
    loss, *addresses = [each.data_ptr() for each in outputs]
    stats = addresses.pop() if with_stats else 0
    grads = [addresses.pop(0) if want else 0 for want in wanted]
    _run(
        _C.triplet,
        *(distance, normalize, dtype, dim, *first, *second, *third),
        *(n, _pointer(anchor), _pointer(positive), _pointer(negative)),
        *(margin, _pointer(margin_values), _step(margin_values), soft_margin, swap),
        *(_pointer(weights), count_invalid, reduction, _pointer(cotangent), _step(cotangent)),
        *(loss, *grads, stats),
    )
    return outputs


def _pairwise(x: Tensor, y: Tensor | None, distance: str, normalize: bool) -> Tensor:
    out = _outputs.pairwise(x, y)
    x = _rows(x)
    y = x if y is None else _rows(y)
    dim, dtype = x.shape[1], _dtype_code(x.dtype)
    _run(_C.pairwise, distance, normalize, dtype, dim, *_set(x), *_set(y), out.data_ptr())
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
    dim, dtype = x.shape[1], _dtype_code(x.dtype)

    def add(grad: Tensor, own: Tensor, other: Tensor, cotangent: Tensor) -> None:
        _run(
            _C.pairwise_backward,
            *(distance, normalize, dtype, dim, *_set(own), *_set(other)),
            *(cotangent.data_ptr(), cotangent.stride(0), cotangent.stride(1), grad.data_ptr()),
        )

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
    "pairwise": "(Tensor x, Tensor? y, str distance, bool normalize) -> Tensor",
    "pairwise_backward": """(
        Tensor x, Tensor? y, Tensor cotangent, str distance, bool normalize, bool[2] wanted
    ) -> Tensor[]""",
}
_FAKES = (_outputs.mine, _outputs.triplet, _outputs.pairwise, _outputs.pairwise_backward)
_KERNELS = {"CPU": (_mine, _triplet, _pairwise, _pairwise_backward)}
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
pairwise = torch.ops.flashmetric.pairwise.default
pairwise_backward = torch.ops.flashmetric.pairwise_backward.default


def choose(
    compared_rows: tuple[Any, ...], mining: str, distance: str, normalize: bool
) -> tuple[Tensor, Tensor]:
    """`mine` of a reference.mining.Comparison: positive and negative of every query, or -1, -2."""
    query, labels, ref, ref_labels, same_mask, self_index, ignore_label = compared_rows
    relation, labels = relation_of(labels, same_mask)
    sides = (query, ref, labels, ref_labels, self_index)
    ignored = signed(ignore_label, labels)
    positive, negative = mine(*sides, relation, ignored, mining, distance, normalize)
    return positive, negative


def why_not_fused(device: torch.device) -> str:
    """The reason why tensors of this device have no kernels; empty if they have."""
    if _WHY_NO_KERNELS:
        return _WHY_NO_KERNELS
    if device.type in _DEVICES:
        return ""
    return f"there are no kernels for device {device.type!r} yet"
