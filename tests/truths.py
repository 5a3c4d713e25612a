# SPDX-License-Identifier: BSD-3-Clause
"""From the arguments of a public function to the oracle: what must come out of a Sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

import oracle
from compare import Real
from oracle import Array, Formula, Rows
from samples import Sample


@dataclass
class Truth:
    """The value, the gradient of each tensor of a sample, and statistics of triplet losses."""

    value: Any
    grads: dict[str, Array] = field(default_factory=dict)
    stats: dict[str, Array] = field(default_factory=dict)


def as_array(value: Tensor | float | None, real: Any) -> Array | None:
    if value is None:
        return None
    return np.asarray(
        value.detach().double().numpy() if isinstance(value, Tensor) else value, dtype=real
    )


def choice(sample: Sample) -> tuple[Array, Array]:
    """Brute force over the float64 keys of the rows as given."""
    options = sample.options
    rows = as_array(sample.tensors["embeddings"], np.float64)
    refs = as_array(sample.tensors.get("ref_embeddings"), np.float64)
    symmetric = refs is None
    refs = rows if symmetric else refs
    candidates = (
        ~np.eye(len(rows), dtype=bool) if symmetric else np.ones((len(rows), len(refs)), bool)
    )
    if options.get("self_index") is not None:
        present = options["self_index"].numpy() >= 0
        candidates[present, options["self_index"].numpy()[present]] = False
    kept = np.ones(len(rows), bool)
    if options.get("same_mask") is not None:
        same = options["same_mask"].numpy()
    else:
        labels = options["labels"].numpy()
        ref_labels = labels if symmetric else options["ref_labels"].numpy()
        same = oracle.same_class(labels, ref_labels)
        if options.get("ignore_label") is not None:
            kept = labels != options["ignore_label"]
            candidates &= (ref_labels != options["ignore_label"])[None, :]
    keys = oracle.rank_keys(rows, refs, *pair_options(sample))
    return oracle.choose(keys, same, candidates, kept)


def pair_options(sample: Sample) -> tuple[str, bool]:
    return sample.options.get("distance", "euclidean"), sample.options.get("normalize", False)


def formula(sample: Sample, real: Any) -> Formula:
    options = sample.options
    distance, normalize = pair_options(sample)
    soft_margin = options.get("soft_margin", False)
    margin = options.get("margin")
    return Formula(
        distance=distance,
        normalize=normalize,
        margin=as_array((0.0 if soft_margin else 1.0) if margin is None else margin, real),
        soft_margin=soft_margin,
        swap=options.get("swap", False),
        weights=as_array(options.get("weights"), real),
        count_invalid=options.get("invalid", "drop") == "count",
        reduction=options.get("reduction", "mean"),
    )


def triplet_loss_truth(sample: Sample, cotangent: Tensor | float = 1.0, real: Any = Real) -> Truth:
    positive, negative = choice(sample)
    rows = as_array(sample.tensors["embeddings"], real)
    refs = as_array(sample.tensors.get("ref_embeddings"), real)
    targets = rows if refs is None else refs
    roles = [Rows(rows, np.arange(len(rows))), Rows(targets, positive), Rows(targets, negative)]
    outcome = oracle.triplet_outcome(roles, formula(sample, real), as_array(cotangent, real))
    return Truth(outcome.loss, _by_set(outcome.grads, refs is not None), outcome.stats)


def triplet_margin_truth(
    sample: Sample, cotangent: Tensor | float = 1.0, real: Any = Real
) -> Truth:
    names = ("anchor", "positive", "negative")
    if "anchor" in sample.tensors:
        rows = [as_array(sample.tensors[name], real) for name in names]
        roles = [Rows(role, np.arange(len(role))) for role in rows]
    else:
        embeddings = as_array(sample.tensors["embeddings"], real)
        refs = as_array(sample.tensors.get("ref_embeddings"), real)
        sets = [embeddings] + 2 * [embeddings if refs is None else refs]
        roles = [
            Rows(rows, sample.options[name].numpy()) for rows, name in zip(sets, names, strict=True)
        ]
    outcome = oracle.triplet_outcome(roles, formula(sample, real), as_array(cotangent, real))
    if "anchor" in sample.tensors:
        grads = dict(zip(names, outcome.grads, strict=True))
    else:
        grads = _by_set(outcome.grads, refs is not None)
    return Truth(outcome.loss, grads, outcome.stats)


def _by_set(grads: list[Array], has_refs: bool) -> dict[str, Array]:
    """Roles that point into the same rows share one gradient."""
    anchor, positive, negative = grads
    if has_refs:
        return {"embeddings": anchor, "ref_embeddings": positive + negative}
    return {"embeddings": anchor + positive + negative}


def pairwise_truth(sample: Sample, cotangent: Tensor | None = None, real: Any = Real) -> Truth:
    x = as_array(sample.tensors["x"], real)
    y = as_array(sample.tensors.get("y"), real)
    r = x if y is None else y
    weight = np.ones((len(x), len(r)), real) if cotangent is None else as_array(cotangent, real)
    value, grad_x, grad_r = oracle.pairwise_outcome(x, r, *pair_options(sample), weight)
    grads = {"x": grad_x + grad_r} if y is None else {"x": grad_x, "y": grad_r}
    return Truth(value, grads)


def mined_truth(sample: Sample) -> Truth:
    positive, negative = choice(sample)
    anchor = np.flatnonzero((positive >= 0) & (negative >= 0))
    return Truth((anchor, positive[anchor], negative[anchor]))
