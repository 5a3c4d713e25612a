# SPDX-License-Identifier: BSD-3-Clause
"""Losses over all triplets or pairs, also of batches that brute force takes too long for: then the
truth is what the CPU kernels, which are proven, make of the rows in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compare import Real, assert_no_worse_than, exact
from keys_data import hard_rows
from op_db import OP, Op
from samples import Sample, class_batch, cotangent_for
from test_gradients import gradients

__all__ = [
    "CLASSES",
    "LOSSES",
    "MARGINS",
    "assert_beside_float64",
    "assert_near_the_truth",
    "batch",
    "with_nan",
    "with_references",
]

LOSSES = (
    *(f"triplet_loss[{name}]" for name in ("all", "semihard_all", "hard_all", "easy_all")),
    *("triplet_loss[soft]", "triplet_loss[semihard]", "contrastive_loss"),
)
# Distances made of inner products, and one of each other kind.
MARGINS = {"euclidean": 1.0, "sqeuclidean": 4.0, "cosine": 0.3, "dot": 2.0, "manhattan": 3.0}
CLASSES: dict[str, Callable[[int], Tensor]] = {
    "four_each": lambda n: torch.arange(n) // 4,
    "two": lambda n: torch.arange(n) % 2,
    "one_against_all": lambda n: (torch.arange(n) > 0).long(),
    "one": lambda n: torch.zeros(n, dtype=torch.int64),
    "all_distinct": lambda n: torch.arange(n),
}
Run = Callable[[Op, Sample, Tensor], tuple[Tensor, dict[str, Tensor]]]
_FEW = 150  # rows, which brute force takes


def batch(name: str, n: int, dim: int, classes: str = "four_each", **options: Any) -> Sample:
    """With `kind` among the options: rows made to mislead."""
    kind = options.pop("kind", None)
    rows, _ = class_batch(n, dim, 1, seed=n + dim)
    if kind is not None:
        rows, _ = hard_rows(kind, n, dim, 5, torch.float32)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(n))
    options = {"labels": CLASSES[classes](n)[order], "reduction": "mean"} | options
    if options.get("distance") in MARGINS and not options.get("soft_margin"):
        options = {"margin": MARGINS[str(options["distance"])]} | options
    return Sample(f"{name} {n}x{dim} {classes}", {"embeddings": rows}, OP[name].options | options)


def with_nan(sample: Sample) -> Sample:
    """One feature of one row."""
    rows = sample.tensors["embeddings"].clone()
    rows[3, 0] = torch.nan
    return sample.with_tensors(embeddings=rows)


def with_references(sample: Sample, n_ref: int) -> Sample:
    """Some of them are the query itself, and are not offered to it."""
    rows, labels = sample.tensors["embeddings"], sample.options["labels"]
    place = torch.randint(0, len(rows), (n_ref,), generator=torch.Generator().manual_seed(n_ref))
    self_index = torch.full((len(rows),), -1)
    self_index[place] = torch.arange(n_ref)
    refs = rows[place] + (self_index[place] != torch.arange(n_ref))[:, None] * 0.5
    return sample.with_tensors(ref_embeddings=refs).with_options(
        ref_labels=labels[place], self_index=self_index
    )


def assert_beside_float64(name: str, sample: Sample, run: Run) -> None:
    """The 2x rule for what `run` gives."""
    op = OP[name]
    cotangent = cotangent_for(op.run(sample))
    baselines = [gradients(op, sample, cotangent)]
    if len(sample.tensors["embeddings"]) <= _FEW:
        baselines.append(gradients(op, sample, cotangent, "reference"))
        truth = op.truth(sample, cotangent)
        value, grads = truth.value, truth.grads
    else:
        value, grads = _by_kernels_in_float64(op, sample, cotangent)
    ours = run(op, sample, cotangent)
    _assert_no_worse(ours[0], [each[0] for each in baselines], value, f"value of {sample.name}")
    for key, expected in grads.items():
        others = [each[1][key] for each in baselines]
        what = f"gradient of {key} of {sample.name}"
        _assert_no_worse(ours[1][key], others, expected, what)


def assert_near_the_truth(name: str, sample: Sample, run: Run) -> None:
    """To some roundings: where float32 vanishes or overflows, no baseline is a measure."""
    op = OP[name]
    cotangent = cotangent_for(op.run(sample))
    value, grads = run(op, sample, cotangent)
    truth = op.truth(sample, cotangent)
    expected = {"value": truth.value, **truth.grads}
    for key, ours in {"value": value, **grads}.items():
        rounded = torch.from_numpy(_held(expected[key], ours).astype(np.float32))
        what = f"{key} of {sample.name}"
        assert_no_worse_than(ours, baseline=rounded, truth=exact(rounded), ulps=8.0, what=what)


def _by_kernels_in_float64(op: Op, sample: Sample, cotangent: Tensor) -> tuple[Any, dict[str, Any]]:
    rows = {key: each.double() for key, each in sample.tensors.items()}
    numbers = {
        key: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
        for key, value in sample.options.items()
    }
    value, grads = gradients(op, Sample(sample.name, rows, numbers), cotangent.double())
    return exact(value), {key: exact(grad) for key, grad in grads.items()}


def _assert_no_worse(ours: Tensor, baselines: list[Tensor], truth: np.ndarray, what: str) -> None:
    """Than the less lucky baseline, of those that are finite where the truth is."""
    truth = _held(truth, ours)

    def error(each: Tensor) -> float:
        finite = np.isfinite(truth)
        found = np.abs(exact(each) - truth)[finite].max(initial=0)
        return float(found) if np.isfinite(found) else -1.0

    assert_no_worse_than(ours.cpu(), baseline=max(baselines, key=error), truth=truth, what=what)


def _held(truth: np.ndarray, ours: Tensor) -> np.ndarray:
    """Infinite where the dtype cannot hold it."""
    truth = np.asarray(truth, dtype=Real)
    with np.errstate(over="ignore"):
        infinite = np.abs(truth) > Real(torch.finfo(ours.dtype).max)
    return np.where(infinite, np.sign(truth) * Real(np.inf), truth)
