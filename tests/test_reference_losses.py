# SPDX-License-Identifier: BSD-3-Clause
"""Every loss of the reference: both derivatives, nothing to learn, rows that take no part."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from flashmetric import reference

MINING = (
    "hard",
    "semihard",
    "all",
    "semihard_all",
    "hard_all",
    "easy_all",
    "easy_hard",
    "distance_weighted",
    "random",
)


def _seeded(loss, rows, labels, **options):
    return loss(rows, labels, generator=torch.Generator().manual_seed(0), **options)


LOSSES = {
    **{
        f"{name}_{mining}": partial(_seeded, loss, mining=mining)
        for name, loss in (("triplet", reference.triplet_loss), ("margin", reference.margin_loss))
        for mining in MINING
    },
    "triplet_soft": partial(reference.triplet_loss, mining="soft", temperature=0.5),
    "contrastive": partial(reference.contrastive_loss, margin=2.0),
    "contrastive_linear": partial(reference.contrastive_loss, power=1, pos_margin=0.1),
    "online_contrastive": partial(reference.online_contrastive_loss, margin=2.0),
    "quadruplet": reference.quadruplet_loss,
}


def _rows(n, dtype=torch.float64):
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, 3, generator=generator, dtype=dtype).requires_grad_()


@pytest.mark.parametrize("name", LOSSES)
def test_both_derivatives(name):
    labels = torch.tensor([0, 0, 1, 1, 2, 0])
    weights = torch.tensor([1.0, 0.5, 2.0, 0.0, 1.0, 3.0])

    def function(rows):
        return LOSSES[name](rows, labels, weights=weights)

    assert torch.autograd.gradcheck(function, (_rows(6),))
    assert torch.autograd.gradgradcheck(function, (_rows(6),))


@pytest.mark.parametrize("beta", [torch.tensor(1.1), torch.full((6,), 1.2)])
def test_both_derivatives_to_beta(beta):
    beta, labels = beta.double().requires_grad_(), torch.tensor([0, 0, 1, 1, 2, 0])

    def function(rows, beta):
        return reference.margin_loss(rows, labels, beta=beta, mining="all")

    assert torch.autograd.gradcheck(function, (_rows(6), beta))
    assert torch.autograd.gradgradcheck(function, (_rows(6), beta))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("labels", [[], [0], [0] * 5, [*range(5)]])
def test_without_positives_or_without_negatives(labels, reduction, name):
    """Zero, connected to the graph, with zero gradients; a pair loss has pairs of one kind."""
    rows, labels = _rows(len(labels), torch.float32), torch.tensor(labels)
    loss, stats = LOSSES[name](rows, labels, reduction=reduction, return_stats=True)
    assert loss.shape == (labels.shape if reduction == "none" else ())
    loss.sum().backward()
    assert rows.grad.isfinite().all()
    assert stats.valid_anchors == 0
    if not name.startswith("contrastive") or len(labels) < 2:
        assert loss.count_nonzero() == 0
        assert rows.grad.count_nonzero() == 0
        assert not any(stats[1:2])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("rows", [torch.zeros(6, 3), torch.ones(6, 3), torch.zeros(6, 0)])
def test_equal_rows_have_finite_gradients(rows, name):
    rows = rows.clone().requires_grad_()
    loss = LOSSES[name](rows, torch.arange(6) % 3)
    loss.backward()
    assert loss.isfinite()
    assert rows.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_an_ignored_row_spoils_nothing(name):
    labels = torch.tensor([0, 7, 0, 1, 1, 7, 2])
    spoiled = _rows(7).detach().clone()
    spoiled[labels == 7] = float("nan")
    spoiled.requires_grad_()
    loss = LOSSES[name](spoiled, labels, ignore_label=7)
    loss.backward()
    assert loss.isfinite()
    assert spoiled.grad.isfinite().all()
    assert spoiled.grad[labels == 7].count_nonzero() == 0
