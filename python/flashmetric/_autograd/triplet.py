# SPDX-License-Identifier: BSD-3-Clause
"""The triplet loss of one triplet per anchor, and of given triplets."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import Tensor
from torch.autograd import Function

from flashmetric import _ops
from flashmetric._compat import apply_of
from flashmetric._labels import relation_of, signed

from .formula import Formula, margin_of
from .guard import MaybeTensors, by_input, finished, scaled, wanted_of

__all__ = ["mined_triplet", "triplet"]


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
    number, values = margin_of(margin, 0.0 if formula.soft_margin else 1.0)
    wanted = wanted_of(rows, formula.reduction)
    tensors, numbers = (*tensors, values, weights), (number, *options)
    outputs = _apply_triplet_loss(*rows, tensors, rule, numbers, (wanted, with_stats, op))
    return outputs[0], outputs[1 + sum(wanted)] if with_stats else outputs[0]


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
        wanted, with_stats, _ = request
        options = (*formula, wanted, with_stats)
        if rule:
            op = "mined_triplet"
            return tuple(_ops.forward(op, anchor_rows, positive_rows, *tensors, *rule, *options))
        rows = (anchor_rows, positive_rows, negative_rows)
        return tuple(_ops.forward("triplet", *rows, *tensors, None, *options))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        anchor_rows, positive_rows, negative_rows, tensors, rule, formula, request = inputs
        ctx.formula, ctx.op = formula, request[-1]
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)  # else each output without a gradient gets a zero for one
        if formula[-1] != "none":
            kept = by_input(output[1:], request[0])
        else:
            kept = [*((None, *output[-2:]) if rule else tensors[:3]), *tensors[3:]]
        ctx.save_for_backward(anchor_rows, positive_rows, negative_rows, *kept)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if grad_loss is None:
            return (None,) * 7
        saved = ctx.saved_tensors  # may be read once only: activation checkpointing
        if ctx.formula[-1] == "none":
            needed = ctx.needs_input_grad[:3]
            found = _ops.triplet(*saved, grad_loss, *ctx.formula, needed, False)
            grads = finished(ctx.op, by_input(found[1:], needed), saved[:3])
        else:
            grads = scaled(ctx.op, saved[3:6], grad_loss, saved[:3])
        return *grads, None, None, None, None

    @staticmethod
    def vmap(*_: Any) -> NoReturn:
        _ops.refuse_vmap()


_apply_triplet_loss = apply_of(_TripletLoss)
