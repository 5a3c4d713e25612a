# SPDX-License-Identifier: BSD-3-Clause
"""Values and gradients small enough to check by hand."""

from __future__ import annotations

import math

import pytest
import torch

from flashmetric.functional import pairwise_distances, triplet_loss, triplet_margin_loss
from op_db import DISTANCES, OP

IMPLS = ("fused", "reference")
A = [[1.0, 0.9, 1.1], [0.0, 0.1, -0.1]]
P = [[1.1, 1.0, 1.0], [0.05, 0.1, 0.0]]
N = [[3.0, -2.0, 0.0], [-1.0, 1.0, 1.0]]


def _rounded_like(value: torch.Tensor, digits: str) -> bool:
    """True when `value` prints as those digits."""
    return f"{value.item():.{len(digits.split('.')[1])}f}" == digits


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    ("normalize", "margin", "digits"),
    [(False, 0.5, "0.0"), (True, 0.5, "0.0"), (False, 20.0, "11.70125"), (True, 2.0, "0.5634132")],
)
def test_given_triplets_of_the_specification(impl, normalize, margin, digits):
    rows = (torch.tensor(rows, dtype=torch.float64) for rows in (A, P, N))
    loss = triplet_margin_loss(
        *rows, distance="sqeuclidean", normalize=normalize, margin=margin, impl=impl
    )
    assert _rounded_like(loss, digits)
    assert margin != 0.5 or loss == 0


@pytest.mark.parametrize("impl", IMPLS)
def test_pair_distances_of_the_specification(impl):
    """The contrastive value of the specification, from the distances of its four pairs."""
    x = torch.tensor([(0, 0), (1, 1), (2, 2), (5, 5)], dtype=torch.float64)
    y = torch.tensor([(0.1, -0.1), (1.2, 1.1), (3, 2.8), (4.6, 5.2)], dtype=torch.float64)
    distances = pairwise_distances(x, y, impl=impl).diagonal()
    positive, negative = distances[:2] ** 2, (1 - distances[2:]).clamp(min=0) ** 2
    assert _rounded_like((positive.sum() + negative.sum()) / 4, "0.0938932")


@pytest.mark.parametrize("impl", IMPLS)
def test_gradients_of_an_active_squared_euclidean_triplet(impl):
    """2(n-p), 2(p-a), 2(a-n), exactly: small integers round nowhere."""
    generator = torch.Generator().manual_seed(0)
    a, p, n = (torch.randint(-4, 5, (7, 5), generator=generator).float() for _ in range(3))
    leaves = [rows.requires_grad_() for rows in (a, p, n)]
    loss = triplet_margin_loss(
        *leaves, distance="sqeuclidean", margin=1e4, reduction="sum", impl=impl
    )
    loss.backward()
    for leaf, expected in zip(leaves, (2 * (n - p), 2 * (p - a), 2 * (a - n)), strict=True):
        assert torch.equal(leaf.grad, expected.detach())


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("reduction", ["mean", "mean_active", "sum", "none"])
def test_reductions_on_a_line(impl, reduction):
    """Rows 0, 3 | 1, 9 | 20: terms (margin 1) are 3-1+1, 3-2+1, 8-1+1, 8-6+1, and 20 is alone."""
    rows = torch.tensor([[0.0], [3.0], [1.0], [9.0], [20.0]])
    labels = torch.tensor([0, 0, 1, 1, 2])
    weights = torch.tensor([1.0, 2.0, 0.5, 0.0, 9.0])
    terms, weighted = [3.0, 2.0, 8.0, 3.0, 0.0], [3.0, 4.0, 4.0, 0.0, 0.0]
    options = {"reduction": reduction, "margin": 1.0, "impl": impl}
    plain = triplet_loss(rows, labels, **options)
    heavy = triplet_loss(rows, labels, weights=weights, **options)
    if reduction == "none":
        assert plain.tolist() == terms
        assert heavy.tolist() == weighted
    else:
        assert plain == (16.0 if reduction == "sum" else 4.0)
        assert heavy == 11.0 if reduction == "sum" else heavy == torch.tensor(11.0) / 3.5


@pytest.mark.parametrize("impl", IMPLS)
def test_mean_divides_by_valid_and_mean_active_by_active_anchors(impl):
    """Rows 0, 1 | 10, 14: terms (margin 0) are 1-10, 1-9, 4-9, 4-13; with margin 6: 0, 0, 1, 0."""
    rows, labels = torch.tensor([[0.0], [1.0], [10.0], [14.0]]), torch.tensor([5, 5, 6, 6])
    values = {
        reduction: triplet_loss(rows, labels, margin=6.0, reduction=reduction, impl=impl).item()
        for reduction in ("mean", "mean_active", "sum")
    }
    assert values == {"mean": 0.25, "mean_active": 1.0, "sum": 1.0}


@pytest.mark.parametrize("impl", IMPLS)
def test_soft_margin_is_softplus_of_the_violation(impl):
    rows = torch.tensor([[[0.0]], [[2.0]], [[5.0]]], dtype=torch.float64)
    assert _rounded_like(triplet_margin_loss(*rows, soft_margin=True, impl=impl), "0.04858735157")
    loss = triplet_margin_loss(*rows, soft_margin=True, margin=3.0, impl=impl)
    assert loss.item() == pytest.approx(math.log(2), rel=torch.finfo(torch.float64).eps)
    huge = triplet_margin_loss(*rows, soft_margin=True, margin=1e6, impl=impl)
    assert huge == 1e6 - 3


@pytest.mark.parametrize("impl", IMPLS)
def test_the_default_margin_is_one_for_the_hinge_and_zero_for_the_soft_margin(impl):
    rows = torch.tensor([[[0.0]], [[2.0]], [[2.5]]])
    assert triplet_margin_loss(*rows, impl=impl) == 0.5
    default = triplet_margin_loss(*rows, soft_margin=True, impl=impl)
    assert default == triplet_margin_loss(*rows, soft_margin=True, margin=0.0, impl=impl)


@pytest.mark.parametrize("impl", IMPLS)
def test_swap_takes_the_nearer_of_two_negatives_and_splits_a_tie(impl):
    a, p = torch.tensor([[0.0]]), torch.tensor([[2.0]])
    near_p = triplet_margin_loss(a, p, torch.tensor([[3.0]]), swap=True, impl=impl)
    assert near_p == 2.0 - 1.0 + 1.0
    leaves = [torch.tensor([[v]], requires_grad=True) for v in (0.0, 2.0, 1.0)]
    triplet_margin_loss(*leaves, swap=True, impl=impl).backward()
    # d_ap - (d_an + d_pn) / 2: a: -1 + 1/2, p: 1 - 1/2, n: -(1 - 1) / 2.
    assert [leaf.grad.item() for leaf in leaves] == [-0.5, 0.5, 0.0]


@pytest.mark.parametrize("impl", IMPLS)
def test_the_hinge_has_no_slope_at_exactly_zero(impl):
    leaves = [torch.tensor([[v]], requires_grad=True) for v in (0.0, 2.0, 3.0)]
    loss = triplet_margin_loss(*leaves, margin=1.0, impl=impl)
    loss.backward()
    assert loss == 0
    assert all(leaf.grad.item() == 0 for leaf in leaves)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [1, 7, 64, 129])
def test_the_distance_of_equal_rows(impl, dtype, dim):
    """Exactly 0, with a gradient of exactly 0; cosine may be off by rounding, never by NaN."""
    generator = torch.Generator().manual_seed(dim)
    base = torch.randn(9, dim, generator=generator, dtype=dtype) * 1e3
    for distance in DISTANCES:
        for normalize in (False, True):
            x, y = base.clone().requires_grad_(), base.clone()
            result = pairwise_distances(x, y, distance=distance, normalize=normalize, impl=impl)
            result.diagonal().sum().backward()
            if distance.endswith("euclidean"):
                assert result.diagonal().count_nonzero() == 0
                assert x.grad.count_nonzero() == 0
            elif distance == "cosine":
                # Both norms and the dot product are sums of dim products.
                assert result.diagonal().abs().max() <= 2 * (dim + 2) * torch.finfo(dtype).eps
            assert x.grad.isfinite().all()


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_a_zero_row_has_no_direction(impl, distance):
    """Normalised, it stays 0, at cosine distance 1 from everything; its gradient is 0, not 1e12."""
    x = torch.zeros(2, 3, requires_grad=True)
    y = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    result = pairwise_distances(x, y, distance=distance, normalize=True, impl=impl)
    expected = [[1.0, 1.0], [1.0, 1.0]] if distance == "cosine" else [[1.0, 0.0], [1.0, 0.0]]
    assert result.tolist() == expected
    result.sum().backward()
    assert x.grad.count_nonzero() == 0
    assert y.grad.count_nonzero() == 0


def test_smaller_is_closer_for_every_distance():
    near, far = torch.tensor([[1.0, 0.1]]), torch.tensor([[-1.0, 0.5]])
    x = torch.tensor([[1.0, 0.0]])
    for distance in DISTANCES:
        row = pairwise_distances(x, torch.cat([near, far]), distance=distance)[0]
        assert row[0] < row[1], distance


def test_self_index_excludes_the_query_before_mining():
    """Row 0 is also reference 1 under another label: without exclusion it would be the negative."""
    rows = torch.tensor([[0.0]])
    refs, ref_labels = torch.tensor([[2.0], [0.0], [5.0]]), torch.tensor([0, 1, 1])
    call = {"ref_embeddings": refs, "ref_labels": ref_labels}
    mine = OP["mine_triplets"].function
    labels = torch.tensor([0])
    assert mine(rows, labels, **call).negative.tolist() == [1]
    assert mine(rows, labels, **call, self_index=torch.tensor([1])).negative.tolist() == [2]
    assert mine(rows, labels, **call, self_index=torch.tensor([-1])).negative.tolist() == [1]


def test_an_ignored_label_is_neither_anchor_nor_candidate():
    rows = torch.tensor([[0.0], [1.0], [1.5], [4.0], [9.0]])
    labels = torch.tensor([0, 0, -1, 1, 1])
    triplets = OP["mine_triplets"].function(rows, labels, ignore_label=-1)
    assert triplets.anchor.tolist() == [0, 1, 3, 4]
    assert triplets.negative.tolist() == [3, 3, 1, 1]


def test_an_asymmetric_mask_is_read_by_rows():
    rows = torch.tensor([[0.0], [1.0], [3.0]])
    mask = torch.tensor([[0, 0, 1], [1, 0, 0], [0, 0, 0]], dtype=torch.bool)
    triplets = OP["mine_triplets"].function(rows, same_mask=mask)
    assert [t.tolist() for t in triplets] == [[0, 1], [2, 0], [1, 2]]


def test_multi_hot_rows_are_the_same_when_they_share_a_class():
    rows = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    labels = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    triplets = OP["mine_triplets"].function(rows, labels)
    assert [t.tolist() for t in triplets] == [[0, 1], [1, 0], [2, 2]]
