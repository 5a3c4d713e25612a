# SPDX-License-Identifier: BSD-3-Clause
"""Every check a user can fail, and every message: [op] argument, rule, what was got.

Shapes, dtypes, devices and names are checked on every call; they cost attribute reads, no kernel.
Values (NaN labels, an index out of range) are read only where that costs no synchronisation: on the
CPU, or anywhere under FLASHMETRIC_CHECK=1; and never while torch.compile or torch.func trace.
"""

from __future__ import annotations

import os
import warnings
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from . import _ops
from ._compat import functorch_is_active, is_compiling
from ._names import NAMES
from .reference.mining import Comparison

_FLOATS = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64))
_SIGNED = (torch.bool, torch.int8, torch.int16, torch.int32, torch.int64)
_REALS = _FLOATS.union(_SIGNED, (torch.uint8, torch.uint16, torch.uint32, torch.uint64))
_CHECK_EVERYWHERE = os.environ.get("FLASHMETRIC_CHECK") == "1"
_warned: set[str] = set()


def _error(kind: type[Exception], op: str, text: str) -> Exception:
    return kind(f"[{op}] {text}")


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _readable(tensor: Tensor) -> bool:
    """May the values be looked at?"""
    plain = type(tensor) is Tensor and (tensor.is_cpu or _CHECK_EVERYWHERE)
    return plain and not is_compiling() and not functorch_is_active()


def names(op: str, **values: Any) -> None:
    """Each value is one of the words its argument knows."""
    for argument, value in values.items():
        if value not in NAMES[argument]:
            known = ", ".join(repr(name) for name in NAMES[argument])
            raise _error(ValueError, op, f"{argument} must be one of {known}; got {value!r}.")


def flags(op: str, **values: Any) -> None:
    for argument, value in values.items():
        if value is not True and value is not False:
            raise _error(TypeError, op, f"{argument} must be True or False; got {value!r}.")


def use_fused(op: str, impl: str, device: torch.device) -> bool:
    """Whether the kernels run; if they should and cannot, an error, or once a warning."""
    if impl != "auto":
        names(op, impl=impl)
    if impl == "reference":
        return False
    reason = _ops.why_not_fused(device)
    if not reason:
        return True
    if impl == "fused":
        raise _error(RuntimeError, op, f"impl='fused' is not possible: {reason}.")
    if reason not in _warned:
        _warned.add(reason)
        text = f"[{op}] runs as plain torch: {reason}. impl='reference' asks for that in silence."
        warnings.warn(text, RuntimeWarning, stacklevel=3)
    return False


def _not_a_tensor(op: str, argument: str, value: Any) -> Exception:
    return _error(TypeError, op, f"{argument} must be a tensor; got {type(value).__name__}.")


def _has_dtype(op: str, argument: str, value: Any, dtype: torch.dtype) -> None:
    if not isinstance(value, Tensor):
        raise _not_a_tensor(op, argument, value)
    if value.dtype != dtype:
        rule = f"{argument} must be of dtype {str(dtype).removeprefix('torch.')}"
        raise _error(TypeError, op, f"{rule}; got {value.dtype}.")


def matrix(op: str, argument: str, value: Any, shape: str) -> None:
    """A dense floating matrix."""
    if not isinstance(value, Tensor):
        raise _not_a_tensor(op, argument, value)
    if type(value) is not Tensor and type(value).__name__ == "DTensor":
        text = f"{argument} must be a plain tensor; got a DTensor. Pass {argument}.to_local()."
        raise _error(TypeError, op, text)
    if value.layout is not torch.strided:
        raise _error(TypeError, op, f"{argument} must be dense; got layout {value.layout}.")
    if value.dtype not in _FLOATS:
        text = f"{argument} must be float16, bfloat16, float32 or float64; got {value.dtype}."
        raise _error(TypeError, op, text)
    if value.ndim != 2:
        raise _error(ValueError, op, f"{argument} must have shape {shape}; got {_shape(value)}.")


def _like(op: str, argument: str, value: Tensor, other: str, model: Tensor) -> None:
    """Rows that are compared with `model`: same dtype, device and number of features."""
    if value.dtype != model.dtype:
        text = f"{argument} must have the dtype of {other}, {model.dtype}; got {value.dtype}."
        raise _error(TypeError, op, text)
    if value.device != model.device:
        raise _other_device(op, argument, value, other, model)
    if value.shape[1] != model.shape[1]:
        text = f"{argument} must have {model.shape[1]} columns, like {other}; got {_shape(value)}."
        raise _error(ValueError, op, text)


def _other_device(op: str, argument: str, value: Tensor, other: str, model: Tensor) -> Exception:
    text = f"{argument} must be on the device of {other}, {model.device}; got {value.device}."
    return _error(ValueError, op, text)


def pair(op: str, x: Any, y: Any) -> None:
    """The two sides of pairwise_distances."""
    matrix(op, "x", x, "(M, D)")
    if y is not None:
        matrix(op, "y", y, "(N, D)")
        _like(op, "y", y, "x", x)


def comparison(op: str, c: Comparison) -> None:
    """Embeddings, references, and what says which of them are of one class."""
    matrix(op, "embeddings", c.embeddings, "(B, D)")
    n = n_ref = c.embeddings.shape[0]
    if c.ref_embeddings is not None:
        matrix(op, "ref_embeddings", c.ref_embeddings, "(R, D)")
        _like(op, "ref_embeddings", c.ref_embeddings, "embeddings", c.embeddings)
        n_ref = c.ref_embeddings.shape[0]
    if c.same_mask is not None:
        _mask(op, c, c.same_mask, (n, n_ref))
    elif c.labels is None:
        raise _error(ValueError, op, "labels or same_mask must be given; got neither.")
    else:
        _labels(op, "labels", c.labels, n, c.embeddings)
        if c.ref_embeddings is not None or c.ref_labels is not None:
            _ref_labels(op, c, c.labels, n_ref)
    if c.self_index is not None:
        _self_index(op, c, c.self_index)
    if c.ignore_label is not None:
        _ignore_label(op, c.ignore_label, c.labels)


def _mask(op: str, c: Comparison, mask: Tensor, shape: tuple[int, int]) -> None:
    if c.labels is not None or c.ref_labels is not None:
        raise _error(ValueError, op, "same_mask replaces labels and ref_labels; got both.")
    _has_dtype(op, "same_mask", mask, torch.bool)
    if mask.shape != shape:
        text = f"same_mask must have shape {shape}, a row per embedding; got {_shape(mask)}."
        raise _error(ValueError, op, text)
    if mask.device != c.embeddings.device:
        raise _other_device(op, "same_mask", mask, "embeddings", c.embeddings)


def _labels(op: str, argument: str, labels: Any, n: int, rows: Tensor) -> None:
    if not isinstance(labels, Tensor):
        raise _not_a_tensor(op, argument, labels)
    if labels.dtype not in _REALS:
        text = f"{argument} must have an integer, bool or float dtype; got {labels.dtype}."
        raise _error(TypeError, op, text)
    if labels.ndim not in (1, 2) or labels.shape[0] != n:
        forms = f"({n},), one per embedding, or ({n}, C), multi-hot"
        text = f"{argument} must have shape {forms}; got {_shape(labels)}."
        raise _error(ValueError, op, text)
    if labels.device != rows.device:
        raise _other_device(op, argument, labels, "the embeddings", rows)
    if labels.dtype in _FLOATS and _readable(labels) and labels.isnan().any():
        raise _error(ValueError, op, f"{argument} must not be NaN.")


def _ref_labels(op: str, c: Comparison, labels: Tensor, n_ref: int) -> None:
    refs = c.ref_labels
    if c.ref_embeddings is None or refs is None:
        text = "ref_embeddings and ref_labels must be given together; got one of them."
        raise _error(ValueError, op, text)
    _labels(op, "ref_labels", refs, n_ref, c.ref_embeddings)
    if refs.ndim != labels.ndim or refs.shape[1:] != labels.shape[1:]:
        text = f"ref_labels must be of the form of labels, {_shape(labels)}; got {_shape(refs)}."
        raise _error(ValueError, op, text)
    if _kind(refs.dtype) != _kind(labels.dtype):
        rule = "both integer (or bool), both uint64 or both float"
        text = f"labels and ref_labels must be {rule}; got {labels.dtype} and {refs.dtype}."
        raise _error(TypeError, op, text)


def _kind(dtype: torch.dtype) -> str:
    """Labels of one kind compare exactly."""
    wide = "uint64" if dtype == torch.uint64 else "integer"
    return "float" if dtype in _FLOATS else wide


def _self_index(op: str, c: Comparison, index: Tensor) -> None:
    if c.ref_embeddings is None:
        text = "self_index needs ref_embeddings; without them no row meets itself."
        raise _error(ValueError, op, text)
    _index(op, "self_index", index, c.embeddings.shape[0], c.embeddings)
    _in_range(op, "self_index", index, -1, c.ref_embeddings.shape[0])


def _index(op: str, argument: str, index: Any, n: int | None, rows: Tensor) -> None:
    _has_dtype(op, argument, index, torch.int64)
    if index.ndim != 1 or n not in (None, index.shape[0]):
        size = "T" if n is None else n
        raise _error(ValueError, op, f"{argument} must have shape ({size},); got {_shape(index)}.")
    if index.device != rows.device:
        raise _other_device(op, argument, index, "the embeddings", rows)


def _in_range(op: str, argument: str, index: Tensor, low: int, end: int) -> None:
    if _readable(index) and index.numel():
        least, most = (int(bound) for bound in index.aminmax())
        if least < low or most >= end:
            text = f"{argument} must lie in [{low}, {end}); got [{least}, {most}]."
            raise _error(ValueError, op, text)


def _ignore_label(op: str, value: Any, labels: Tensor | None) -> None:
    if labels is None or labels.ndim != 1:
        why = "multi-hot rows and masks have no such class"
        raise _error(ValueError, op, f"ignore_label needs labels of shape (B,); {why}.")
    if isinstance(value, int):
        low, end = (0, 2**64) if labels.dtype == torch.uint64 else (-(2**63), 2**63)
        if labels.is_floating_point() or low <= value < end:
            return
    elif isinstance(value, float) and labels.is_floating_point() and value == value:  # no NaN
        return
    raise _error(ValueError, op, f"ignore_label must be a value of {labels.dtype}; got {value!r}.")


def margin(op: str, value: Any, n: int, rows: Tensor) -> None:
    """A finite number, or a tensor of one, or of one per anchor."""
    if isinstance(value, Tensor):
        _per_anchor(op, "margin", value, n, rows)
        if _readable(value) and not value.isfinite().all():
            raise _error(ValueError, op, "margin must be finite; got inf or NaN among its values.")
    elif value is not None:
        if not isinstance(value, (int, float, Real)):
            text = f"margin must be a number, a tensor or None; got {type(value).__name__}."
            raise _error(TypeError, op, text)
        if value - value != 0:  # inf or NaN, in a form that torch.compile can trace
            raise _error(ValueError, op, f"margin must be finite; got {value}.")


def weights(op: str, value: Any, n: int, rows: Tensor) -> None:
    """One real number per anchor."""
    if value is None:
        return
    if not isinstance(value, Tensor):
        raise _not_a_tensor(op, "weights", value)
    if value.ndim != 1:
        raise _error(ValueError, op, f"weights must have shape ({n},); got {_shape(value)}.")
    _per_anchor(op, "weights", value, n, rows)


def _per_anchor(op: str, argument: str, value: Tensor, n: int, rows: Tensor) -> None:
    if value.dtype not in _REALS:
        raise _error(TypeError, op, f"{argument} must be real; got {value.dtype}.")
    if value.ndim > 1 or (value.ndim and value.shape[0] != n):
        text = f"{argument} must have shape () or ({n},), one per anchor; got {_shape(value)}."
        raise _error(ValueError, op, text)
    if value.device != rows.device:
        raise _other_device(op, argument, value, "the embeddings", rows)
    if value.requires_grad:
        cure = f"no gradient flows to it. Pass {argument}.detach()."
        raise _error(ValueError, op, f"{argument} must not require grad: {cure}")


def triplets(op: str, index: tuple[Any, Any, Any], embeddings: Any, refs: Any) -> None:
    """Given triplets: three matrices of rows, or three indices into embeddings and refs."""
    named = dict(zip(("anchor", "positive", "negative"), index, strict=True))
    if embeddings is not None:
        matrix(op, "embeddings", embeddings, "(B, D)")
        if refs is not None:
            matrix(op, "ref_embeddings", refs, "(R, D)")
            _like(op, "ref_embeddings", refs, "embeddings", embeddings)
        n = None
        for argument, value in named.items():
            _index(op, argument, value, n, embeddings)
            target = embeddings if argument == "anchor" or refs is None else refs
            _in_range(op, argument, value, 0, target.shape[0])
            n = value.shape[0]
        return
    if refs is not None:
        raise _error(ValueError, op, "ref_embeddings needs embeddings; got rows as triplets.")
    for argument, value in named.items():
        matrix(op, argument, value, "(T, D)")
        if argument != "anchor":
            _like(op, argument, value, "anchor", index[0])
        if value.shape[0] != index[0].shape[0]:
            text = f"{argument} must have as many rows as anchor, {index[0].shape[0]}"
            raise _error(ValueError, op, f"{text}; got {_shape(value)}.")
