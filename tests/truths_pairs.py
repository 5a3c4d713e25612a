# SPDX-License-Identifier: BSD-3-Clause
"""From the arguments of the contrastive and the quadruplet losses to the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

import oracle
from compare import Real
from oracle import Array, Rows
from oracle_losses import Reduction, Sides
from oracle_mining import Batch, nearest
from oracle_pairs import Hinges, contrastive_outcome, given_pairs_outcome, quadruplet_outcome
from samples import Sample
from truths import Truth, as_array, batch_of, by_role, choice, pair_options, roles_of
from truths_rules import number, reduction_of, sides_of, truth_of

PAIR = ("x1", "x2")
QUADRUPLET = ("anchor", "positive", "negative1", "negative2")


def hinges_of(sample: Sample, real: Any) -> Hinges:
    options = sample.options
    margin, pos_margin = (
        as_array(number(options.get(name, default)), real)
        for name, default in (("margin", 1.0), ("pos_margin", 0.0))
    )
    return Hinges(margin, pos_margin, options.get("power", 2), options.get("half", False))


def _with_pair_weights(sample: Sample, sides: Sides, reduction: Reduction) -> Reduction:
    """w_i w_j within a batch; references have no weights."""
    columns = np.ones(len(sides.r), sides.r.dtype)
    if "ref_embeddings" not in sample.tensors:
        columns = reduction.weights
    weights = reduction.weights[:, None] * columns
    return Reduction(reduction.name, weights, reduction.cotangent)


def contrastive_truth(sample: Sample, cotangent: Tensor | float = 1.0, real: Any = Real) -> Truth:
    sides, masks = sides_of(sample, real, pair_options(sample)), batch_of(sample).masks()
    reduction = reduction_of(sample, len(sides.x), cotangent, real)
    reduction = _with_pair_weights(sample, sides, reduction)
    apart = reduction.name in ("mean", "mean_active")
    kinds = list(masks) if apart else [masks[0] | masks[1]]
    outcome = contrastive_outcome(sides, masks, kinds, hinges_of(sample, real), reduction)
    return truth_of(sample, outcome)


def online_contrastive_truth(
    sample: Sample, cotangent: Tensor | float = 1.0, real: Any = Real
) -> Truth:
    sides, batch = sides_of(sample, real, pair_options(sample)), batch_of(sample)
    reduction = reduction_of(sample, len(sides.x), cotangent, real, default="sum")
    reduction = _with_pair_weights(sample, sides, reduction)
    positive, negative = batch.masks()
    selected = np.zeros_like(positive)
    if positive.any() and negative.any():
        nearest, farthest = batch.keys[negative].min(), batch.keys[positive].max()
        selected = (positive & ~(batch.keys <= nearest)) | (negative & ~(batch.keys >= farthest))
    hinges = hinges_of(sample, real)
    outcome = contrastive_outcome(sides, (positive, negative), [selected], hinges, reduction)
    return truth_of(sample, outcome)


def contrastive_pairs_truth(
    sample: Sample, cotangent: Tensor | float = 1.0, real: Any = Real
) -> Truth:
    roles = roles_of(sample, PAIR, real)
    similar = sample.options["similar"].double().numpy()
    reduction = reduction_of(sample, len(similar), cotangent, real)
    metric, hinges = pair_options(sample), hinges_of(sample, real)
    outcome = given_pairs_outcome(roles, similar, hinges, metric, reduction)
    return Truth(outcome.loss, by_role(sample, PAIR, outcome.grads))


def quadruplet_truth(sample: Sample, cotangent: Tensor | float = 1.0, real: Any = Real) -> Truth:
    """Mined: the roles point into the batch."""
    metric = pair_options(sample, "sqeuclidean")
    sides = sides_of(sample, real, metric)
    positive, negative1 = choice(sample.with_options(distance=metric[0]))
    negative2 = _second_negatives(sample, batch_of(sample, metric), negative1)
    anchor = Rows(sides.x, np.arange(len(sides.x)))
    roles = [anchor, *(Rows(sides.r, index) for index in (positive, negative1, negative2))]
    reduction = reduction_of(sample, len(sides.x), cotangent, real)
    outcome = quadruplet_outcome(roles, _two_margins(sample, real), metric, reduction)
    grads = by_role(sample, QUADRUPLET, outcome.grads)
    return Truth(outcome.loss, grads, outcome.stats)


def quadruplet_margin_truth(
    sample: Sample, cotangent: Tensor | float = 1.0, real: Any = Real
) -> Truth:
    roles, metric = roles_of(sample, QUADRUPLET, real), pair_options(sample, "sqeuclidean")
    reduction = reduction_of(sample, len(roles[0].index), cotangent, real)
    outcome = quadruplet_outcome(roles, _two_margins(sample, real), metric, reduction)
    return Truth(outcome.loss, by_role(sample, QUADRUPLET, outcome.grads))


def _two_margins(sample: Sample, real: Any) -> tuple[Array, Array]:
    first, second = (
        as_array(number(sample.options.get(name, default)), real)
        for name, default in (("margin1", 1.0), ("margin2", 0.5))
    )
    return first, second


def _second_negatives(sample: Sample, batch: Batch, negative1: Array) -> Array:
    """(B,): the row nearest to negative1 that is of its class no more than of the anchor's."""
    options = sample.options
    alike = options.get("same_mask")
    if alike is None:
        labels = options["ref_labels" if "ref_embeddings" in sample.tensors else "labels"].numpy()
        alike = oracle.same_class(labels, labels)
    alike, chosen = np.asarray(alike), np.full(len(negative1), -1)
    keys = oracle.rank_keys(batch.refs, batch.refs, batch.distance, batch.normalize)
    for a, n1 in enumerate(negative1):
        if n1 >= 0:
            allowed = batch.candidates[a] & ~batch.same[a] & ~alike[n1]
            allowed[n1] = False
            if allowed.any():
                chosen[a] = nearest(keys[n1], np.flatnonzero(allowed))
    return chosen
