# SPDX-License-Identifier: BSD-3-Clause
"""Batches with nothing to learn from: exactly zero, connected to the graph, with zero gradients."""

from __future__ import annotations

import math

import pytest
import torch

from flashmetric.functional import (
    mine_triplets,
    pairwise_distances,
    triplet_loss,
    triplet_margin_loss,
)
from op_db import DISTANCES, DTYPES, REDUCTIONS

IMPLS = ("fused", "reference")


def _rows(n: int, dim: int = 5, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, dim, generator=generator).to(dtype).requires_grad_()


def _far_apart(n: int) -> torch.Tensor:
    """Two rows at each corner, corners so far apart that no triplet is active."""
    return (1000.0 * (torch.arange(n) // 2)[:, None].expand(n, 5)).requires_grad_()


DEGENERATE = {
    "empty": (lambda: _rows(0), torch.zeros(0, dtype=torch.int64)),
    "one_row": (lambda: _rows(1), torch.zeros(1, dtype=torch.int64)),
    "one_class": (lambda: _rows(7), torch.zeros(7, dtype=torch.int64)),
    "all_distinct": (lambda: _rows(7), torch.arange(7)),
    "no_active_triplet": (lambda: _far_apart(8), torch.arange(8) // 2),
    "one_bool_class_left": (lambda: _rows(6), torch.arange(6) % 2 == 0),
}


def _assert_zero(loss: torch.Tensor, rows: torch.Tensor) -> None:
    assert loss.count_nonzero() == 0
    assert loss.requires_grad, "the loss must stay connected to the graph"
    loss.sum().backward()
    assert rows.grad is not None
    assert rows.grad.shape == rows.shape
    assert rows.grad.count_nonzero() == 0


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", DEGENERATE)
def test_nothing_to_learn_is_zero(name, reduction, impl):
    make, labels = DEGENERATE[name]
    ignore = {"ignore_label": True} if labels.dtype == torch.bool else {}
    for distance in DISTANCES if name != "no_active_triplet" else ("euclidean", "sqeuclidean"):
        rows = make()
        options = {"distance": distance, "reduction": reduction, "impl": impl} | ignore
        _assert_zero(triplet_loss(rows, labels, **options), rows)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", [name for name in DEGENERATE if name != "no_active_triplet"])
def test_the_soft_margin_of_no_triplet_is_zero(name, impl):
    make, labels = DEGENERATE[name]
    ignore = {"ignore_label": True} if labels.dtype == torch.bool else {}
    rows = make()
    _assert_zero(triplet_loss(rows, labels, soft_margin=True, impl=impl, **ignore), rows)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_in_every_dtype(dtype, impl):
    rows = _rows(4, dtype=dtype)
    loss = triplet_loss(rows, torch.arange(4), impl=impl)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    _assert_zero(loss, rows)
    assert rows.grad.dtype == dtype


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("n", "n_ref"), [(0, 0), (0, 5), (5, 0), (1, 1)])
def test_empty_sides(n, n_ref, reduction, impl):
    rows, refs = _rows(n), _rows(n_ref)
    loss = triplet_loss(
        rows,
        torch.zeros(n, dtype=torch.int64),
        ref_embeddings=refs,
        ref_labels=torch.zeros(n_ref, dtype=torch.int64),
        reduction=reduction,
        impl=impl,
    )
    assert loss.shape == ((n,) if reduction == "none" else ())
    _assert_zero(loss, rows)
    assert refs.grad.count_nonzero() == 0


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_zero_weights(reduction, impl):
    """The denominator is 0: the loss is 0, not 0/0."""
    rows = _rows(8)
    options = {"weights": torch.zeros(8), "reduction": reduction, "impl": impl}
    _assert_zero(triplet_loss(rows, torch.arange(8) % 2, **options), rows)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_no_triplets_given(reduction, impl):
    leaves = [_rows(0), _rows(0), _rows(0)]
    loss = triplet_margin_loss(*leaves, reduction=reduction, impl=impl)
    assert loss.shape == ((0,) if reduction == "none" else ())
    for leaf in leaves:
        leaf.grad = None
    _assert_zero(loss, leaves[0])
    rows, none = _rows(5), torch.zeros(0, dtype=torch.int64)
    _assert_zero(triplet_margin_loss(none, none, none, embeddings=rows, impl=impl), rows)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", [name for name in DEGENERATE if name != "no_active_triplet"])
def test_nothing_is_mined_from_nothing(name, impl):
    make, labels = DEGENERATE[name]
    ignore = {"ignore_label": True} if labels.dtype == torch.bool else {}
    triplets = mine_triplets(make(), labels, impl=impl, **ignore)
    assert all(t.shape == (0,) and t.dtype == torch.int64 for t in triplets)


@pytest.mark.parametrize("impl", IMPLS)
def test_statistics_of_nothing_are_zero(impl):
    for n in (0, 3):
        _, stats = triplet_loss(_rows(n), torch.arange(n), return_stats=True, impl=impl)
        assert all(value == 0 for value in stats[:-1])
        assert (stats.mean_norm > 0) == (n > 0)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("reduction", ["mean", "mean_active", "sum"])
@pytest.mark.parametrize("n", [1, 5])
def test_counting_a_single_class_gives_the_margin(n, reduction, impl):
    """TensorFlow's and sentence-transformers' batch-hard value, with zero gradients."""
    rows = _rows(n)
    options = {"invalid": "count", "reduction": reduction, "impl": impl}
    loss = triplet_loss(rows, torch.zeros(n, dtype=torch.int64), margin=0.5, **options)
    assert loss == (0.5 * n if reduction == "sum" else 0.5)
    loss.backward()
    assert rows.grad.count_nonzero() == 0


@pytest.mark.parametrize("impl", IMPLS)
def test_counting_a_single_class_gives_log_two_for_the_soft_margin(impl):
    labels = torch.zeros(3, dtype=torch.int64)
    loss = triplet_loss(
        _rows(3, dtype=torch.float64), labels, soft_margin=True, invalid="count", impl=impl
    )
    # Three equal terms are added and divided: two roundings beside that of the term.
    assert abs(loss.item() - math.log(2)) <= 3 * math.ulp(math.log(2))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("margin", [1.0, 6.0])
def test_counting_an_anchor_without_a_positive_takes_its_distance_as_zero(margin, impl):
    """Rows 0, 4, 5 of three classes: the terms are m - (x1 - x0) and twice m - (x2 - x1)."""
    rows = torch.tensor([[0.0], [4.0], [5.0]], requires_grad=True)
    options = {"margin": margin, "invalid": "count", "reduction": "sum", "impl": impl}
    loss = triplet_loss(rows, torch.arange(3), **options)
    loss.backward()
    if margin == 1.0:
        assert loss == 0
        assert rows.grad.count_nonzero() == 0
    else:
        assert loss == 2.0 + 5.0 + 5.0
        assert rows.grad.flatten().tolist() == [1.0, 1.0, -2.0]


@pytest.mark.parametrize("impl", IMPLS)
def test_an_ignored_anchor_is_not_counted(impl):
    rows, labels = _rows(6), torch.tensor([0, 0, 0, 0, 7, 7])
    options = {"invalid": "count", "margin": 2.0, "ignore_label": 7, "impl": impl}
    assert triplet_loss(rows, labels, reduction="sum", **options) == 8.0
    each = triplet_loss(rows, labels, reduction="none", **options)
    assert each.tolist() == [2.0, 2.0, 2.0, 2.0, 0.0, 0.0]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("distance", DISTANCES)
def test_rows_without_features(distance, impl):
    """D = 0: every distance is that of two zero rows."""
    rows = torch.zeros(6, 0, requires_grad=True)
    loss = triplet_loss(rows, torch.arange(6) % 2, distance=distance, margin=0.25, impl=impl)
    assert loss == 0.25
    loss.backward()
    assert rows.grad.shape == (6, 0)
    expected = torch.ones(6, 6) if distance == "cosine" else torch.zeros(6, 6)
    assert torch.equal(pairwise_distances(rows, distance=distance, impl=impl).abs(), expected)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(("n", "n_ref"), [(0, 0), (0, 3), (3, 0), (1, 1)])
def test_pairwise_of_empty_sides(n, n_ref, impl):
    x, y = _rows(n), _rows(n_ref)
    result = pairwise_distances(x, y, impl=impl)
    assert result.shape == (n, n_ref)
    result.sum().backward()
    assert x.grad.shape == x.shape
    assert y.grad.shape == y.shape
