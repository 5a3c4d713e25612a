# SPDX-License-Identifier: BSD-3-Clause
"""Recipes of docs/recipes.md: what is written there, and that gradients of joined losses add."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import flashmetric
from compare import assert_no_worse_than, assert_same_bits, exact
from samples import class_batch


class Embedder(nn.Module):
    """Features for the distances, and logits for the classes of training."""

    def __init__(self, n_inputs, dim, n_classes):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(n_inputs, 32), nn.ReLU(), nn.Linear(32, dim))
        self.neck = nn.BatchNorm1d(dim)
        self.head = nn.Linear(dim, n_classes, bias=False)

    def forward(self, inputs):
        features = self.body(inputs)
        return features, self.head(self.neck(features))


def joint_loss(features, logits, labels, weight=1.0):
    """Cross-entropy of the logits, and `weight` times the triplet loss of the features."""
    triplet = flashmetric.triplet_loss(features, labels, margin=0.3)
    return nn.functional.cross_entropy(logits, labels) + weight * triplet


def _cross_entropy(features, logits, labels):  # noqa: ARG001
    return nn.functional.cross_entropy(logits, labels)


def _triplet(features, logits, labels):  # noqa: ARG001
    return flashmetric.triplet_loss(features, labels, margin=0.3)


# Powers of two scale without rounding.
@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_gradients_add_where_the_branches_meet(weight):
    network = Embedder(10, 8, 6)
    inputs, labels = class_batch(36, 10, 6)
    features = network.body(inputs).detach().requires_grad_()

    def gradient(loss, **options):
        value = loss(features, network.head(network.neck(features)), labels, **options)
        return torch.autograd.grad(value, features)[0]

    of_each = gradient(_cross_entropy), gradient(_triplet)
    assert all(each.count_nonzero() for each in of_each)
    assert_same_bits(gradient(joint_loss, weight=weight), of_each[0] + weight * of_each[1])


def test_gradients_of_the_network_add():
    inputs, labels = class_batch(36, 10, 6)

    def gradients(network, inputs, *losses):
        """Of each parameter, the sum over the losses, each with a backward pass of its own."""
        network.zero_grad()
        for loss in losses:
            loss(*network(inputs), labels).backward()
        return {
            name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
            for name, p in network.named_parameters()
        }

    network = Embedder(10, 8, 6)
    double = copy.deepcopy(network).double()
    joint = gradients(network, inputs, joint_loss)
    apart = gradients(network, inputs, _cross_entropy, _triplet)
    truth = gradients(double, inputs.double(), _cross_entropy, _triplet)
    for name, gradient in joint.items():
        assert_no_worse_than(gradient, baseline=apart[name], truth=exact(truth[name]), what=name)


def test_both_losses_fall_together():
    torch.manual_seed(0)
    labels = torch.arange(240) % 12
    inputs = torch.eye(12)[labels] @ torch.randn(12, 10) + 0.3 * torch.randn(240, 10)
    network = Embedder(10, 8, 12)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    history = []
    for _ in range(3):
        for rows in flashmetric.PKSampler(labels, 6, 4):
            outputs = network(inputs[rows])
            parts = _cross_entropy(*outputs, labels[rows]), _triplet(*outputs, labels[rows])
            history.append([part.item() for part in parts])
            optimizer.zero_grad()
            joint_loss(*outputs, labels[rows]).backward()
            optimizer.step()
    first, last = torch.tensor(history[:5]).mean(0), torch.tensor(history[-5:]).mean(0)
    assert (last < first).all()
