# SPDX-License-Identifier: BSD-3-Clause
"""What is saved and what flows back: the only autograd.Function classes.

A scalar loss computes its gradients in the forward, together with the distances they are made of,
and only those that an input requires; the backward multiplies them by its cotangent, on the device.
`reduction="none"` has one cotangent per triplet, so its backward calls the op again.

Forward and backward call dispatcher ops only, which is what torch.compile and torch.func follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.autograd import Function

from . import _ops
from ._compat import apply_of
from ._labels import relation_of, signed

__all__ = ["Formula", "mined_triplet", "pairwise", "triplet"]

MaybeTensors = Sequence[Tensor | None]


class Formula(NamedTuple):
    """From chosen rows to the loss."""

    margin: float | Tensor | None  # a number, 0-dim or (T,); None = 1 for the hinge, 0 for softplus
    weights: Tensor | None  # (T,)
    distance: str
    normalize: bool
    soft_margin: bool
    swap: bool
    count_invalid: bool
    reduction: str
    with_stats: bool


def triplet(
    op: str, rows: MaybeTensors, index: MaybeTensors, formula: Formula
) -> tuple[Tensor, Tensor]:
    """Loss, and statistics (7,) if asked for; `op` is the public function, for messages.

    rows are the sets of rows of the anchors, positives and negatives (None = the set before it);
    index[role][t] is the row of triplet t in the set of its role (None = row t).
    """
    return _triplet_loss(op, rows, index, (), formula)


def mined_triplet(
    op: str, compared_rows: tuple[Any, ...], mining: str, formula: Formula
) -> tuple[Tensor, Tensor]:
    """The same of the triplets mined from a reference.mining.Comparison."""
    query, labels, ref, ref_labels, same_mask, self_index, ignore_label = compared_rows
    relation, labels = relation_of(labels, same_mask)
    rule = (relation, signed(ignore_label, labels), mining)
    tensors = (labels, ref_labels, self_index)
    return _triplet_loss(op, (query, ref, None), tensors, rule, formula)


def _triplet_loss(
    op: str, rows: MaybeTensors, tensors: MaybeTensors, rule: tuple[Any, ...], formula: Formula
) -> tuple[Tensor, Tensor]:
    margin, weights, *options, with_stats = formula
    number, values = 0.0, None
    if margin is None:
        number = 0.0 if formula.soft_margin else 1.0
    elif isinstance(margin, Tensor):
        values = margin
    else:
        number = float(margin)
    wanted = _wanted(rows, formula.reduction)
    tensors, numbers = (*tensors, values, weights), (number, *options)
    outputs = _apply_triplet_loss(*rows, tensors, rule, numbers, (wanted, with_stats, op))
    return outputs[0], outputs[1 + sum(wanted)] if with_stats else outputs[0]


def pairwise(x: Tensor, y: Tensor | None, distance: str, normalize: bool) -> Tensor:
    """(M, N) distances of all pairs."""
    distances: Tensor = _apply_pairwise(x, y, distance, normalize)
    return distances


def _wanted(rows: MaybeTensors, reduction: str) -> list[bool]:
    """Whose gradient the forward computes: it runs before ctx.needs_input_grad is known."""
    if reduction == "none" or not torch.is_grad_enabled():
        return [False] * len(rows)
    return [each is not None and each.requires_grad for each in rows]


class _TripletLoss(Function):
    """The op `triplet`; or, if there is a mining rule, `mined_triplet`."""

    @staticmethod
    def forward(
        anchor_rows: Tensor,
        positive_rows: Tensor | None,
        negative_rows: Tensor | None,
        tensors: MaybeTensors,
        rule: tuple[Any, ...],
        formula: tuple[Any, ...],
        request: tuple[list[bool], bool, str],
    ) -> tuple[Tensor, ...]:
        rows, (wanted, with_stats, _) = (anchor_rows, positive_rows), request
        if rule:
            return tuple(_ops.mined_triplet(*rows, *tensors, *rule, *formula, wanted, with_stats))
        return tuple(
            _ops.triplet(*rows, negative_rows, *tensors, None, *formula, wanted, with_stats)
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *rows, tensors, rule, ctx.formula, (wanted, _, ctx.op) = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)  # else each output without a gradient gets a zero for one
        if ctx.formula[-1] != "none":
            kept = _by_input(output[1:], wanted)
        else:
            kept = [*((None, *output[-2:]) if rule else tensors[:3]), *tensors[3:]]
        ctx.save_for_backward(*rows, *kept)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if grad_loss is None:
            return (None,) * 7
        saved = ctx.saved_tensors  # may be read once only: activation checkpointing
        rows, kept, needed = saved[:3], saved[3:], ctx.needs_input_grad[:3]
        if ctx.formula[-1] == "none":
            found = _ops.triplet(*rows, *kept, grad_loss, *ctx.formula, needed, False)
            grads = _by_input(found[1:], needed)
        else:
            grads = [kept[i] * grad_loss if needed[i] else None for i in range(3)]
        return *_finished(ctx.op, grads, rows), None, None, None, None

    @staticmethod
    def vmap(*_: Any) -> NoReturn:
        _ops.refuse_vmap()


class _Pairwise(Function):
    @staticmethod
    def forward(x: Tensor, y: Tensor | None, distance: str, normalize: bool) -> Tensor:
        distances: Tensor = _ops.pairwise(x, y, distance, normalize)
        return distances

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        *rows, distance, normalize = inputs
        ctx.options = (distance, normalize)
        ctx.save_for_backward(*rows)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        rows, needed = ctx.saved_tensors, ctx.needs_input_grad[:2]
        found = _ops.pairwise_backward(*rows, cotangent, *ctx.options, needed)
        return *_finished("pairwise_distances", _by_input(found, needed), rows), None, None

    @staticmethod
    def vmap(*_: Any) -> NoReturn:
        _ops.refuse_vmap()


class _SecondDerivative(Function):
    """Passes gradients through, and refuses to be differentiated.

    The gradients are constants to autograd; without this a second derivative would be a silent 0.
    """

    generate_vmap_rule = True  # torch.func.jacrev maps the backward over its cotangents

    @staticmethod
    def forward(op: str, n: int, *tensors: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG004
        """The first n tensors; the others only connect them to what they depend on."""
        return tuple(each.view_as(each) for each in tensors[:n])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG004
        ctx.op = inputs[0]

    @staticmethod
    def backward(ctx: Any, *_: Any) -> NoReturn:
        message = (
            f"[{ctx.op}] double backward is not supported by the fused kernels; "
            "use impl='reference'."
        )
        raise RuntimeError(message)


_apply_triplet_loss = apply_of(_TripletLoss)
_apply_pairwise = apply_of(_Pairwise)
_refuse_second_derivative = apply_of(_SecondDerivative)


def _by_input(found: Sequence[Tensor], wanted: Sequence[bool]) -> list[Tensor | None]:
    """The tensors that were asked for, each in the place of its input."""
    remaining = iter(found)
    return [next(remaining) if want else None for want in wanted]


def _finished(op: str, grads: list[Tensor | None], rows: MaybeTensors) -> Sequence[Tensor | None]:
    """Gradients in the dtype of their rows, guarded against a second derivative."""
    for i, (grad, each) in enumerate(zip(grads, rows, strict=True)):
        if grad is not None and each is not None and grad.dtype != each.dtype:
            grads[i] = grad.to(each.dtype)
    if torch.is_grad_enabled():  # create_graph=True, or torch.func
        needed = [grad is not None for grad in grads]
        found, inputs = ([each for each in some if each is not None] for some in (grads, rows))
        return _by_input(_refuse_second_derivative(op, len(found), *found, *inputs), needed)
    return grads
