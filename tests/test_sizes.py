# SPDX-License-Identifier: BSD-3-Clause
"""Sizes on both sides of every edge of the kernels: blocks of 96 rows, micro tiles of 6 or 12 rows
by 8, 16 or 32 columns, eight partial sums, vectors of 4 to 16 features."""

from __future__ import annotations

import pytest
import torch

from compare import assert_same_choice
from flashmetric import _C
from op_db import DISTANCES, OP
from samples import Sample, class_batch
from test_choices import assert_exact_choice
from test_gradients import assert_value_and_gradient, judge
from truths import mined_truth

ROWS = (0, 1, 2, 5, 6, 7, 11, 12, 13, 31, 32, 33, 95, 96, 97, 295)
DIMS = (0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 127, 129, 255, 257, 511, 513, 1025)
# Each count of queries meets counts of references below, equal and above it.
PAIRS = [(m, ROWS[(5 * i + step) % len(ROWS)]) for i, m in enumerate(ROWS) for step in (3, 8, 14)]
LOSS, PAIRWISE = OP["triplet_loss"], OP["pairwise_distances"]
LOSS_CHOICE = OP["mine_triplets"].function


def _check_loss(sample: Sample) -> None:
    """Choice, value and gradient of one size, from one sample."""
    mined = {k: v for k, v in sample.options.items() if k not in ("reduction", "margin")}
    assert_exact_choice(Sample(sample.name, sample.tensors, mined))
    assert_value_and_gradient(LOSS, sample)


def _batch(n: int, n_ref: int | None, dim: int, dtype: torch.dtype, **options) -> Sample:
    rows, labels = class_batch(n + (n_ref or 0), dim, max(1, n // 4), seed=n, dtype=dtype)
    tensors = {"embeddings": rows[:n]}
    options |= {"labels": labels[:n], "margin": 2.0}
    if n_ref is not None:
        tensors["ref_embeddings"] = rows[n:]
        options["ref_labels"] = labels[n:]
    return Sample(f"{n}x{n_ref}x{dim}", tensors, options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", ROWS)
def test_rows_within_the_batch(n, dtype):
    for distance, reduction in zip(DISTANCES, ("mean", "none", "sum", "mean_active"), strict=True):
        _check_loss(_batch(n, None, 5, dtype, distance=distance, reduction=reduction))


@pytest.mark.parametrize(("n", "n_ref"), PAIRS)
def test_rows_and_references(n, n_ref):
    _check_loss(_batch(n, n_ref, 6, torch.float32, reduction="none"))
    _check_loss(_batch(n, n_ref, 3, torch.float64, distance="dot", reduction="mean"))


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("dim", DIMS)
def test_features(dim, distance):
    for dtype in (torch.float32, torch.float64):
        _check_loss(_batch(35, None, dim, dtype, distance=distance, reduction="sum"))
    _check_loss(_batch(18, 23, dim, torch.float32, distance=distance, normalize=True))


@pytest.mark.parametrize(("n", "n_ref"), PAIRS)
def test_pairwise_rows(n, n_ref):
    for distance in DISTANCES:
        rows, _ = class_batch(n + n_ref, 7, 1, seed=n_ref)
        sample = Sample("pairwise", {"x": rows[:n], "y": rows[n:]}, {"distance": distance})
        assert_value_and_gradient(PAIRWISE, sample)


@pytest.mark.parametrize("dim", DIMS)
def test_pairwise_features(dim):
    for distance in DISTANCES:
        for dtype in (torch.float32, torch.float64):
            rows, _ = class_batch(20, dim, 1, dtype=dtype)
            assert_value_and_gradient(
                PAIRWISE, Sample("pairwise", {"x": rows}, {"distance": distance})
            )


@pytest.mark.parametrize("n", ROWS)
def test_given_triplets(n):
    op = OP["triplet_margin_loss"]
    generator = torch.Generator().manual_seed(n)
    for distance in DISTANCES:
        rows = [torch.randn(n, 9, generator=generator) for _ in range(3)]
        tensors = dict(zip(("anchor", "positive", "negative"), rows, strict=True))
        assert_value_and_gradient(
            op, Sample("rows", tensors, {"distance": distance, "swap": n % 2 == 0})
        )


@pytest.mark.parametrize(("n", "n_ref", "dim"), [(97, None, 129), (295, None, 3), (97, 110, 17)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sizes_on_every_isa(n, n_ref, dim, dtype):
    sample = _batch(n, n_ref, dim, dtype, reduction="none")
    judged = judge(LOSS, sample)
    for name, supported in _C.isas():
        if supported:
            _C.force_isa(name)
            assert_value_and_gradient(LOSS, sample, judged)


# 25 blocks are 13 groups of 2, 28 are 14; 65 are 17 of 4, 129 are 17 of 8.
SYMMETRIC = [(2310, None), (2600, None), (6200, None), (12300, None)]
RECTANGULAR = [(300, 2350), (200, 6300), (100, 12400)]


@pytest.mark.parametrize(("n", "n_ref"), [*SYMMETRIC, *RECTANGULAR])
@pytest.mark.parametrize("n_classes", [3, 700])
def test_choice_among_many_blocks(n, n_ref, n_classes):
    """From 24, 64 and 128 blocks on, blocks are visited in groups. Truth by slices of rows."""
    rows, labels = class_batch(n + (n_ref or 0), 2, n_classes, seed=n)
    queries = {"embeddings": rows[:n], "labels": labels[:n]}
    refs = {} if n_ref is None else {"ref_embeddings": rows[n:], "ref_labels": labels[n:]}
    chosen = torch.stack(list(LOSS_CHOICE(**queries, **refs)))
    targets = (rows, labels) if n_ref is None else (rows[n:], labels[n:])
    for some in torch.arange(n).split(500):
        sample = Sample(
            "slice",
            {"embeddings": rows[some], "ref_embeddings": targets[0]},
            {"labels": labels[some], "ref_labels": targets[1]}
            | ({"self_index": some} if n_ref is None else {}),
        )
        anchor, *rest = mined_truth(sample).value
        ours = chosen[:, (chosen[0] >= some[0]) & (chosen[0] <= some[-1])]
        for found, expected in zip(ours, (anchor + int(some[0]), *rest), strict=True):
            assert_same_choice(found, expected)
