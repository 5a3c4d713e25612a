# SPDX-License-Identifier: BSD-3-Clause
"""Losses of a whole batch in one op: of listed triplets, and of all triplets or pairs."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import Tensor
from torch.autograd import Function

from flashmetric import _ops
from flashmetric._compat import apply_of
from flashmetric._labels import relation_of, signed
from flashmetric.reference.mining import Comparison, Rule, Triplets

from .formula import Formula, PairFormula, margin_of
from .guard import by_input, finished, scaled, wanted_of

__all__ = [
    "apart",
    "contrastive",
    "dense_triplet",
    "list_triplets",
    "listed_triplet",
    "online_contrastive",
]

_STRATEGIES = ("easy", "hard", "semihard", "all")  # in the order of Strategy in csrc/flashmetric.h


def list_triplets(
    op: str,  # noqa: ARG001
    comparison: Comparison,
    rule: Rule,
    distance: str,
    normalize: bool,
) -> Triplets:
    """The triplets of a rule, int64."""
    rows, labels, relation = _compared(comparison)
    tensors, numbers = _rule(rule)
    metric = (rule.name, distance, normalize)
    found = _ops.list_triplets(*rows, *labels, *tensors, *relation, *metric, *numbers, False)
    return Triplets(*found)


def listed_triplet(
    op: str, comparison: Comparison, rule: Rule, formula: Formula
) -> tuple[Tensor, Tensor]:
    """Loss and statistics of the triplets that a rule lists."""
    rows, labels, relation = _compared(comparison)
    rule_tensors, numbers = _rule(rule)
    margin, margins = margin_of(formula.margin, 0.0 if formula.soft_margin else 1.0)
    tensors = (*labels, *rule_tensors, margins, formula.weights)
    metric = (formula.distance, formula.normalize, formula.soft_margin)
    options = (*relation, rule.name, *numbers, formula.count_invalid, margin, *metric)
    return _loss(op, "listed_triplet", rows, tensors, options, formula)


def dense_triplet(
    op: str, comparison: Comparison, rule: Rule, formula: Formula
) -> tuple[Tensor, Tensor]:
    """The same of all, semihard_all, hard_all, easy_all and soft."""
    rows, labels, relation = _compared(comparison)
    margin, margins = margin_of(formula.margin, 0.0 if formula.soft_margin else 1.0)
    mining_margin, mining_margins = margin_of(rule.mining_margin, margin)
    tensors = (*labels, mining_margins, margins, None, formula.weights)
    softness = (formula.soft_margin, float(rule.temperature), rule.detach_weights)
    metric = (formula.distance, formula.normalize)
    options = (*relation, rule.name, margin, mining_margin, *softness, 2, 1.0, *metric)
    return _loss(op, "dense", rows, tensors, options, formula)


def contrastive(op: str, comparison: Comparison, formula: PairFormula) -> tuple[Tensor, Tensor]:
    """Loss and statistics of all pairs."""
    return _contrastive(op, "contrastive", comparison, formula, None)


def online_contrastive(
    op: str, comparison: Comparison, formula: PairFormula
) -> tuple[Tensor, Tensor]:
    """The same of the hard pairs only."""
    rows, labels, relation = _compared(comparison)
    metric = (formula.distance, formula.normalize)
    bounds = _ops.bounds(*_detached(rows), *labels, *relation, *metric)
    return _contrastive(op, "online_contrastive", comparison, formula, bounds)


def _contrastive(
    op: str, loss: str, comparison: Comparison, formula: PairFormula, bounds: Tensor | None
) -> tuple[Tensor, Tensor]:
    rows, labels, relation = _compared(comparison)
    margin, margins = margin_of(formula.margin, 1.0)
    pos_margin, pos_margins = margin_of(formula.pos_margin, 0.0)
    tensors = (*labels, pos_margins, margins, bounds, formula.weights)
    shape = (formula.power, 0.5 if formula.half else 1.0)
    metric = (formula.distance, formula.normalize)
    options = (*relation, loss, margin, pos_margin, False, 1.0, False, *shape, *metric)
    return _loss(op, "dense", rows, tensors, options, formula)


def apart(
    op: str,  # noqa: ARG001
    comparison: Comparison,
    negative: Tensor,
    distance: str,
    normalize: bool,
) -> Tensor:
    """(B,) int64: the nearest to the negative, of another class than both, or -1."""
    rows, labels, relation = _compared(comparison)
    metric = (distance, normalize)
    found: Tensor = _ops.apart(*_detached(rows), *labels, negative, *relation, *metric)
    return found


def _detached(rows: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    query, ref = rows
    return query.detach(), None if ref is None else ref.detach()


def _compared(
    comparison: Comparison,
) -> tuple[tuple[Tensor, Tensor | None], tuple[Tensor | None, ...], tuple[str, Any]]:
    """Rows; labels, ref_labels, self_index; relation and ignore_label: as the ops take them."""
    query, labels, ref, ref_labels, same_mask, self_index, ignore_label = comparison
    relation, labels = relation_of(labels, same_mask)
    return (query, ref), (labels, ref_labels, self_index), (relation, signed(ignore_label, labels))


def _rule(rule: Rule) -> tuple[tuple[Tensor | None, ...], tuple[Any, ...]]:
    mining_margin, mining_margins = margin_of(rule.mining_margin, 1.0)
    hardness, moved = margin_of(rule.hardness, 0.5)
    strategies = (_STRATEGIES.index(rule.positive), _STRATEGIES.index(rule.negative))
    numbers = (rule.fallback == "drop", hardness, *strategies, rule.n_negatives, mining_margin)
    return (mining_margins, moved, rule.seed), numbers


def _loss(
    op: str,
    kernel: str,
    rows: tuple[Tensor, Tensor | None],
    tensors: tuple[Tensor | None, ...],
    options: tuple[Any, ...],
    formula: Formula | PairFormula,
) -> tuple[Tensor, Tensor]:
    wanted = wanted_of(rows, formula.reduction)
    request = (wanted, formula.with_stats, op)
    outputs = _apply_batch_loss(*rows, kernel, tensors, (*options, formula.reduction), request)
    return outputs[0], outputs[1 + sum(wanted)] if formula.with_stats else outputs[0]


class _BatchLoss(Function):
    """Any op of the form (query, ref, tensors, cotangent, options, wanted, with_stats)."""

    @staticmethod
    def forward(
        query: Tensor,
        ref: Tensor | None,
        kernel: str,
        tensors: tuple[Tensor | None, ...],
        options: tuple[Any, ...],
        request: tuple[list[bool], bool, str],
    ) -> tuple[Tensor, ...]:
        return tuple(_ops.forward(kernel, query, ref, *tensors, None, *options, *request[:2]))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *rows, ctx.kernel, tensors, ctx.options, (wanted, _, ctx.op) = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)  # else each output without a gradient gets a zero for one
        again = ctx.options[-1] == "none"
        ctx.save_for_backward(*rows, *(tensors if again else by_input(output[1:], wanted)))

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if grad_loss is None:
            return (None,) * 6
        saved = ctx.saved_tensors  # may be read once only: activation checkpointing
        if ctx.options[-1] == "none":
            needed = ctx.needs_input_grad[:2]
            run = getattr(_ops, ctx.kernel)
            found = run(*saved, grad_loss, *ctx.options, needed, False)
            grads = finished(ctx.op, by_input(found[1:], needed), saved[:2])
        else:
            grads = scaled(ctx.op, saved[2:], grad_loss, saved[:2])
        return *grads, None, None, None, None

    @staticmethod
    def vmap(*_: Any) -> NoReturn:
        _ops.refuse_vmap()


_apply_batch_loss = apply_of(_BatchLoss)
