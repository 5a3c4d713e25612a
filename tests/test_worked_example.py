# SPDX-License-Identifier: BSD-3-Clause
"""A linear map of the plane learns from random triplets of two classes, or has nothing to learn.

The map starts as the identity and is trained by SGD on squared Euclidean distances with margin 0.5.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from flashmetric.functional import triplet_margin_loss

IMPLS = ("fused", "reference")
MARGIN, SIGMA, PER_CLASS = 0.5, 0.2, 100
EPOCHS, TRIPLETS, LEARNING_RATE = 50, 200, 0.05


class Training(NamedTuple):
    losses: list[float]  # one per epoch
    weight: Tensor  # (2, 2)
    points: Tensor
    labels: Tensor

    def separation(self, weight: Tensor) -> float:
        """Distance of the class means over the spread within a class."""
        mapped = self.points @ weight.T
        first, second = mapped[self.labels == 0], mapped[self.labels == 1]
        spread = (first.std() + second.std()) / 2
        return ((first.mean(0) - second.mean(0)).norm() / spread).item()


def _two_classes(centre: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2 * PER_CLASS) % 2
    noise = SIGMA * torch.randn(2 * PER_CLASS, 2, generator=generator)
    return centre * labels[:, None] + noise, labels


def _random_triplets(labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Of each class half; a positive is another row than its anchor."""
    anchor = torch.randint(0, len(labels), (TRIPLETS,), generator=generator)
    step = torch.randint(1, PER_CLASS, (TRIPLETS,), generator=generator)
    positive = (anchor + 2 * step) % len(labels)
    negative = (anchor + 1 + 2 * step.flip(0)) % len(labels)
    return anchor, positive, negative


def _train(centre, impl):
    torch.set_num_threads(1)  # a step is too small to share
    points, labels = _two_classes(centre)
    network = torch.nn.Linear(2, 2, bias=False)
    torch.nn.init.eye_(network.weight)
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
    generator, losses = torch.Generator().manual_seed(1), []
    for _ in range(EPOCHS):
        triplets = _random_triplets(labels, generator)
        optimizer.zero_grad()
        options = {"distance": "sqeuclidean", "margin": MARGIN, "impl": impl}
        loss = triplet_margin_loss(*triplets, embeddings=network(points), **options)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return Training(losses, network.weight.detach(), points, labels)


@pytest.mark.parametrize("impl", IMPLS)
def test_far_classes_leave_the_map_as_it_is(impl):
    """Around (0, 0) and (3, 3) every negative is beyond the margin: loss and gradient are 0."""
    training = _train(3.0, impl)
    assert training.losses == [0.0] * EPOCHS
    assert torch.equal(training.weight, torch.eye(2))


@pytest.mark.parametrize("impl", IMPLS)
def test_near_classes_are_pulled_apart(impl):
    """Around (0, 0) and (0.6, 0.6) some triplets are active until the map has stretched."""
    training = _train(0.6, impl)
    first, last = (sum(training.losses[part]) for part in (slice(0, 5), slice(-5, None)))
    assert 0 < last < 0.8 * first
    separation = training.separation(training.weight)
    assert separation > training.separation(torch.eye(2))
    apart = torch.tensor([1.0, 1.0])
    assert (training.weight @ apart).norm() > apart.norm(), "stretched along the centres"


def test_both_implementations_learn_the_same_map():
    fused, reference = (_train(0.6, impl) for impl in IMPLS)
    torch.testing.assert_close(fused.weight, reference.weight, rtol=1e-5, atol=0)


@pytest.mark.parametrize("impl", IMPLS)
def test_gradients_are_the_closed_forms(impl):
    """2 (n - p), 2 (p - a), 2 (a - n) of each active triplet, 0 of the others."""
    points, labels = _two_classes(0.6)
    triplets = _random_triplets(labels, torch.Generator().manual_seed(1))
    a, p, n = leaves = [points[index].double().requires_grad_() for index in triplets]
    options = {"distance": "sqeuclidean", "margin": MARGIN, "reduction": "sum", "impl": impl}
    triplet_margin_loss(*leaves, **options).backward()
    active = (a - p).square().sum(1) - (a - n).square().sum(1) + MARGIN > 0
    assert 0 < active.sum() < TRIPLETS
    for leaf, closed in zip(leaves, (n - p, p - a, a - n), strict=True):
        expected = 2 * closed.detach() * active[:, None]
        torch.testing.assert_close(leaf.grad, expected, rtol=1e-14, atol=1e-15)
