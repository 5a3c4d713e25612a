# SPDX-License-Identifier: BSD-3-Clause
"""What mine_triplets and the losses share: from options to a rule, and from a rule to rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, overload

from torch import Tensor

from . import _autograd, _ops, _validate
from ._compat import functorch_is_active, is_batched, is_compiling
from ._labels import relation_of, signed
from .reference.mining import Comparison, Rule, Triplets

__all__ = ["Number", "Schedulable", "current", "hardest", "rule_of", "triplets_of"]

Number: TypeAlias = float | Tensor
Schedulable: TypeAlias = Number | Callable[[], Number]  # asked for its value on every call


@overload
def current(value: Schedulable) -> Number: ...
@overload
def current(value: Schedulable | None) -> Number | None: ...


def current(value: Schedulable | None) -> Number | None:
    """The value of an option now: what a callable returns, else the value itself."""
    return value() if callable(value) else value


def rule_of(
    op: str, options: _validate.RuleOptions, margin: Number | None, embeddings: Tensor
) -> Rule:
    """The mining rule, checked and with its seed drawn; `margin` is where it has none of its own.

    The words were checked before (`_validate.rule_words`), when no tensor had been.
    """
    if options.mining == "hard":  # reads none of them
        return Rule(temperature=options.temperature)
    options = options._replace(
        hardness=current(options.hardness),
        mining_margin=current(options.mining_margin),
    )
    _validate.rule_numbers(op, options, embeddings)
    name, sides = options.mining, (options.positive_mining, options.negative_mining)
    if name == "easy_hard" and sides == ("all", "all"):
        name = "all"
    if not is_compiling() and functorch_is_active() and is_batched(embeddings):
        _ops.refuse_vmap()  # here, for drawing a seed would be refused first, in other words
    return Rule(
        name,
        fallback=options.fallback,
        hardness=options.hardness,
        mining_margin=margin if options.mining_margin is None else options.mining_margin,
        positive=sides[0],
        negative=sides[1],
        n_negatives=options.n_negatives,
        temperature=options.temperature,
        detach_weights=options.detach_weights,
    ).seeded(options.generator)


def hardest(given: Comparison, distance: str, normalize: bool) -> tuple[Tensor, Tensor]:
    """(B,) int64 each, by the kernels: the farthest positive and the nearest negative, or < 0."""
    query, labels, ref, ref_labels, same_mask, self_index, ignore_label = given
    relation, labels = relation_of(labels, same_mask)
    rule = (relation, signed(ignore_label, labels), "hard", distance, normalize)
    found: tuple[Tensor, Tensor] = _ops.mine(query, ref, labels, ref_labels, self_index, *rule)
    return found


def triplets_of(op: str, given: Comparison, rule: Rule, distance: str, normalize: bool) -> Triplets:
    """The triplets of a rule, by the kernels."""
    if rule.name != "hard":
        return _autograd.list_triplets(op, given, rule, distance, normalize)
    positive, negative = hardest(given, distance, normalize)
    anchor = ((positive >= 0) & (negative >= 0)).nonzero().squeeze(1)
    return Triplets(anchor, positive[anchor], negative[anchor])
