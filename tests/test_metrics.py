# SPDX-License-Identifier: BSD-3-Clause
"""Distances with parameters, distances of the user's own, and what either refuses."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.spatial.distance
import torch

from compare import assert_same_bits
from flashmetric import (
    Mahalanobis,
    Minkowski,
    TripletLoss,
    mine_pairs,
    pairwise_distances,
    triplet_loss,
)
from samples import class_batch

IMPLS = ("fused", "reference")


@pytest.mark.parametrize("p", [1, 2, torch.inf])
def test_minkowski_goes_its_own_way(p):
    rows, labels = class_batch(40, 6, 5)
    name = {1: "manhattan", 2: "euclidean"}.get(p, "chebyshev")
    assert Minkowski(p).name == name
    assert_same_bits(
        triplet_loss(rows, labels, distance=Minkowski(p)),
        triplet_loss(rows, labels, distance=name),
    )


def test_a_name_with_its_exponent_is_the_object():
    rows, labels = class_batch(40, 6, 5)
    losses = [triplet_loss(rows, labels, distance=d) for d in (Minkowski(3), "minkowski(3)")]
    assert_same_bits(*losses)
    assert Minkowski(3) == Minkowski(3.0)
    assert repr(Minkowski(2.5)) == "Minkowski(2.5)"


def test_mahalanobis_is_the_euclidean_distance_of_projected_rows():
    rows, labels = class_batch(60, 8, 7)
    factor = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    leaves = [rows.clone().requires_grad_() for _ in range(2)]
    ours = triplet_loss(leaves[0], labels, distance=Mahalanobis(factor=factor))
    expected = triplet_loss(leaves[1] @ factor.T, labels)
    assert_same_bits(ours, expected)
    found, wanted = (
        torch.autograd.grad(loss, (leaf, factor), retain_graph=True)
        for loss, leaf in zip((ours, expected), leaves, strict=True)
    )
    for mine, theirs in zip(found, wanted, strict=True):
        assert_same_bits(mine, theirs)


def test_mahalanobis_by_a_matrix_agrees_with_scipy():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(20, 5, generator=generator, dtype=torch.float64)
    half = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    matrix = half.T @ half  # of rank 4
    ours = pairwise_distances(x, distance=Mahalanobis(matrix=matrix))
    expected = scipy.spatial.distance.cdist(x, x, "mahalanobis", VI=matrix)
    torch.testing.assert_close(ours, torch.from_numpy(expected), rtol=1e-7, atol=1e-6)
    by_rows = pairwise_distances(x, distance=Mahalanobis.from_covariance(x))
    inverse = np.linalg.inv(np.cov(x.numpy().T))
    expected = scipy.spatial.distance.cdist(x, x, "mahalanobis", VI=inverse)
    torch.testing.assert_close(by_rows, torch.from_numpy(expected), rtol=1e-9, atol=1e-9)


def test_a_learned_factor_is_a_parameter_of_the_loss():
    factor = torch.nn.Parameter(torch.eye(2, 6))
    criterion = TripletLoss(distance=Mahalanobis(factor=factor), normalize=True)
    assert [name for name, _ in criterion.named_parameters()] == ["distance.factor"]
    rows, labels = class_batch(30, 6, 5)
    criterion(rows.half(), labels).backward()
    assert factor.grad.abs().sum() > 0
    assert "factor=(2, 6)" in repr(criterion)


def _own(x, y):
    return (x[:, None] - y).abs().sum(-1)


@pytest.mark.parametrize("mining", ["hard", "semihard", "all", "soft"])
def test_a_function_is_a_distance_with_one_warning(mining):
    rows, labels = class_batch(24, 5, 4, dtype=torch.float64)
    leaves = [rows.clone().requires_grad_() for _ in range(2)]
    own = triplet_loss(leaves[0], labels, mining=mining, distance=_own, impl="reference")
    named = triplet_loss(leaves[1], labels, mining=mining, distance="manhattan")
    torch.testing.assert_close(own, named)
    grads = [torch.autograd.grad(*each)[0] for each in zip((own, named), leaves, strict=True)]
    torch.testing.assert_close(*grads)
    pairs = [mine_pairs(rows, labels, distance=d, impl="reference") for d in (_own, "manhattan")]
    for mine, theirs in zip(*pairs, strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(RuntimeError, match="no kernels for a distance that is a function"):
        triplet_loss(rows, labels, distance=_own, impl="fused")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(2):
            pairwise_distances(rows, distance=_own)
    assert len(seen) <= 1


ERRORS = [
    (lambda: Minkowski(0.5), ValueError, "[Minkowski] p must be at least 1; got 0.5."),
    (
        lambda: Minkowski("3"),  # type: ignore[arg-type]
        TypeError,
        "[Minkowski] p must be a number; got str.",
    ),
    (Mahalanobis, ValueError, "[Mahalanobis] factor or matrix must be given; got neither."),
    (
        lambda: Mahalanobis(matrix=torch.tensor([[1.0, 2.0], [0.0, 1.0]])),
        ValueError,
        "[Mahalanobis] matrix must be symmetric; got entries 2 from their mirror images.",
    ),
    (
        lambda: Mahalanobis(matrix=torch.diag(torch.tensor([1.0, -0.5]))),
        ValueError,
        "[Mahalanobis] matrix must be positive semi-definite; got the eigenvalue -0.5.",
    ),
    (
        lambda: Mahalanobis(matrix=torch.ones(2, 3)),
        ValueError,
        "[Mahalanobis] matrix must have shape (D, D); got (2, 3).",
    ),
    (
        lambda: Mahalanobis(matrix=torch.eye(2).requires_grad_()),
        ValueError,
        "[Mahalanobis] matrix must not require grad: a step would leave the symmetric matrices. "
        "Learn a factor instead.",
    ),
    (
        lambda: Mahalanobis.from_covariance(torch.ones(1, 3)),
        ValueError,
        "[Mahalanobis] x must have at least 2 rows; got (1, 3).",
    ),
    (
        lambda: pairwise_distances(torch.ones(2, 3), distance=Mahalanobis(factor=torch.eye(2))),
        ValueError,
        "[pairwise_distances] factor of the distance must have 3 columns, like the rows; "
        "got (2, 2).",
    ),
    (
        lambda: pairwise_distances(-torch.ones(2, 3), distance="jaccard"),
        ValueError,
        "[pairwise_distances] x must not be negative with distance='jaccard'; got -1.",
    ),
    (
        lambda: pairwise_distances(
            torch.ones(2, 3), distance=lambda x, _: x.sum(1), impl="reference"
        ),
        ValueError,
        "[pairwise_distances] distance must return a tensor of shape (2, 2) of so many rows; "
        "got (2,).",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[e[2] for e in ERRORS])
def test_message(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message
