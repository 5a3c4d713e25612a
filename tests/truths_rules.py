# SPDX-License-Identifier: BSD-3-Clause
"""From the arguments of mine_triplets, triplet_loss and margin_loss to the oracle, rule by rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from compare import Real
from oracle import Array, Outcome
from oracle_losses import (
    Reduction,
    Sides,
    TripletLoss,
    list_outcome,
    margin_outcome,
    soft_outcome,
)
from oracle_mining import Batch, Rule, pairs_without_negatives, triplets_of
from samples import Sample
from truths import Truth, as_array, batch_of, pair_options, triplet_loss_truth

SETS = ("all", "semihard_all", "hard_all", "easy_all")  # mean over active triplets


def mined_by_rule_truth(sample: Sample) -> Truth:
    return Truth(tuple(triplets_of(batch_of(sample), rule_of(sample)).T))


def rule_of(sample: Sample, mining: str = "hard", margin: Any = None) -> Rule:
    """The defaults are those of triplet_loss and mine_triplets unless given."""
    options = sample.options
    words = ("mining", "fallback", "positive_mining", "negative_mining", "n_negatives")
    given = {word: options[word] for word in words if word in options}
    if options.get("hardness") is not None:
        given["hardness"] = float(number(options["hardness"]))
    if options.get("generator") is not None:
        generator = options["generator"].generator()
        given["seed"] = int(torch.randint(2**63 - 1, (), generator=generator))
    bound = number(options.get("mining_margin"))
    if bound is None:
        bound = margin_of(sample, np.float64) if margin is None else margin
    bound = as_array(bound, np.float64) + np.zeros(len(sample.tensors["embeddings"]))
    return Rule(**{"mining": mining, "mining_margin": bound} | given)


def number(value: Any) -> Any:
    """What is read at call time may be a callable."""
    return value() if callable(value) else value


def margin_of(sample: Sample, real: Any) -> Array:
    """(B,): the margin of each anchor."""
    margin = number(sample.options.get("margin"))
    if margin is None:
        margin = 0.0 if sample.options.get("soft_margin", False) else 1.0
    return as_array(margin, real) + np.zeros(len(sample.tensors["embeddings"]), real)


def sides_of(sample: Sample, real: Any, metric: tuple[str, bool]) -> Sides:
    rows = as_array(sample.tensors["embeddings"], real)
    refs = as_array(sample.tensors.get("ref_embeddings"), real)
    return Sides(rows, rows if refs is None else refs, *metric)


def reduction_of(
    sample: Sample, n: int, cotangent: Any, real: Any, default: str = "mean"
) -> Reduction:
    weights = as_array(sample.options.get("weights"), real)
    weights = np.ones(n, real) if weights is None else weights
    name = sample.options.get("reduction", default)
    return Reduction(name, weights, as_array(cotangent, real))


def truth_of(sample: Sample, outcome: Outcome) -> Truth:
    """The gradients are by x and by r; without references these are the same rows."""
    by_x, by_r, *others = outcome.grads
    grads = {"embeddings": by_x, "ref_embeddings": by_r}
    if "ref_embeddings" not in sample.tensors:
        grads = {"embeddings": by_x + by_r}
    if "beta" in sample.tensors:
        grads["beta"] = others[0] if sample.tensors["beta"].ndim else others[0].sum()
    return Truth(outcome.loss, grads, outcome.stats)


def rule_truth(sample: Sample, cotangent: Tensor | float = 1.0, real: Any = Real) -> Truth:
    """triplet_loss under any mining rule."""
    options, batch = sample.options, batch_of(sample)
    mining = options.get("mining", "hard")
    if mining == "hard":
        return triplet_loss_truth(sample, cotangent, real)
    sides = sides_of(sample, real, pair_options(sample))
    reduction = reduction_of(sample, len(sides.x), cotangent, real)
    soft_margin = options.get("soft_margin", False)
    loss_of = TripletLoss(margin_of(sample, real), soft_margin, reduction)
    if mining == "soft":
        extra = (options.get("temperature", 1.0), options.get("detach_weights", False))
        outcome = soft_outcome(sides, batch.masks(), loss_of, *extra)
        return truth_of(sample, outcome)
    count = options.get("invalid", "drop") == "count" and mining == "semihard"
    uncovered = pairs_without_negatives(batch) if count else np.zeros((0, 2), np.int64)
    rule = rule_of(sample)
    masks = _pairs_of_valid_anchors(batch) if _is_a_set(rule) else None
    outcome = list_outcome(sides, triplets_of(batch, rule), uncovered, loss_of, masks)
    return truth_of(sample, outcome)


def _is_a_set(rule: Rule) -> bool:
    """easy_hard with all on both sides is the rule "all"."""
    both = {rule.positive_mining, rule.negative_mining}
    return rule.mining in SETS or (rule.mining == "easy_hard" and both == {"all"})


def _pairs_of_valid_anchors(batch: Batch) -> tuple[Array, Array]:
    positive, negative = batch.masks()
    valid = positive.any(1, keepdims=True) & negative.any(1, keepdims=True)
    return positive & valid, negative & valid


def margin_loss_truth(sample: Sample, cotangent: Tensor | float = 1.0, real: Any = Real) -> Truth:
    options, metric = sample.options, pair_options(sample, normalize=True)
    sides, margin = sides_of(sample, real, metric), number(options.get("margin", 0.2))
    rule = rule_of(sample, "distance_weighted", margin)
    reduction = reduction_of(sample, len(sides.x), cotangent, real)
    beta = sample.tensors.get("beta", options.get("beta", 1.2))
    beta = as_array(number(beta), real) + np.zeros(len(sides.x), real)
    batch = batch_of(sample, metric)
    masks = _pairs_of_valid_anchors(batch) if _is_a_set(rule) else None
    terms = (beta, as_array(margin, real), reduction, masks)
    return truth_of(sample, margin_outcome(sides, triplets_of(batch, rule), *terms))
