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
from oracle_mining import Batch
from samples import Sample

TRIPLET = ("anchor", "positive", "negative")


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


def batch_of(sample: Sample, metric: tuple[str, bool] | None = None) -> Batch:
    """Who is compared with whom, and the float64 keys of the rows as given."""
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
    distance, normalize = metric or pair_options(sample)
    return Batch(rows, refs, distance, normalize, same, candidates, kept)


def choice(sample: Sample) -> tuple[Array, Array]:
    """The farthest positive and the nearest negative, by brute force."""
    batch = batch_of(sample)
    return oracle.choose(batch.keys, batch.same, batch.candidates, batch.kept)


def pair_options(
    sample: Sample, distance: str = "euclidean", normalize: bool = False
) -> tuple[str, bool]:
    """As given, or the defaults of a function."""
    return sample.options.get("distance", distance), sample.options.get("normalize", normalize)


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
    return Truth(outcome.loss, by_role(sample, TRIPLET, outcome.grads), outcome.stats)


def triplet_margin_truth(
    sample: Sample, cotangent: Tensor | float = 1.0, real: Any = Real
) -> Truth:
    roles = roles_of(sample, TRIPLET, real)
    outcome = oracle.triplet_outcome(roles, formula(sample, real), as_array(cotangent, real))
    return Truth(outcome.loss, by_role(sample, TRIPLET, outcome.grads), outcome.stats)


def roles_of(sample: Sample, names: tuple[str, ...], real: Any) -> list[Rows]:
    """Rows given one by one, or as rows of the embeddings and, from the second on, references."""
    if names[0] in sample.tensors:
        rows = [as_array(sample.tensors[name], real) for name in names]
        return [Rows(role, np.arange(len(role))) for role in rows]
    embeddings = as_array(sample.tensors["embeddings"], real)
    refs = as_array(sample.tensors.get("ref_embeddings"), real)
    sets = [embeddings] + (len(names) - 1) * [embeddings if refs is None else refs]
    return [
        Rows(rows, sample.options[name].numpy()) for rows, name in zip(sets, names, strict=True)
    ]


def by_role(sample: Sample, names: tuple[str, ...], grads: list[Array]) -> dict[str, Array]:
    """Roles that point into the same rows share one gradient."""
    if names[0] in sample.tensors:
        return dict(zip(names, grads, strict=True))
    first, others = grads[0], np.sum(grads[1:], axis=0)
    if "ref_embeddings" in sample.tensors:
        return {"embeddings": first, "ref_embeddings": others}
    return {"embeddings": first + others}


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
