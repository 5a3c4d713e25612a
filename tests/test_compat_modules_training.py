# SPDX-License-Identifier: BSD-3-Clause
"""Modules of flashmetric.compat without a peer, within what surrounds a loss in training."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from compat_data import rows_of
from flashmetric.compat import oml, reid, tfa
from flashmetric.compat import torch as compat_torch

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])


def _triplets(embeddings):
    return embeddings, embeddings.roll(3, 0), embeddings.roll(1, 0)


# From embeddings (8, D) to a loss.
LOSSES = {
    "oml all": lambda x: oml.TripletLossWithMiner(1.0)(x, LABELS),
    "oml hard": lambda x: oml.TripletLossWithMiner(None, oml.HardTripletsMiner())(x, LABELS),
    "reid hard": lambda x: reid.TripletLoss()(x, LABELS),
    "reid soft": lambda x: reid.triplet_loss(x, LABELS),
    "tfa semi-hard": lambda x: tfa.TripletSemiHardLoss()(LABELS, x),
    "tfa hard": lambda x: tfa.TripletHardLoss(soft=True)(LABELS, x),
    "torch triplets": lambda x: compat_torch.TripletMarginLoss()(*_triplets(x)),
    "torch swap": lambda x: compat_torch.TripletMarginLoss(swap=True)(*_triplets(x)),
    "torch cosine": lambda x: compat_torch.CosineEmbeddingLoss()(x, x.flip(0), LABELS % 2 * 2 - 1),
}


def _network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 4))


def _inputs():
    return rows_of(LABELS.tolist())[0].float()


def _gradients(network, loss):
    return torch.autograd.grad(loss, list(network.parameters()))


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_checkpointing(name):
    network, loss = _network(), LOSSES[name]
    plain = _gradients(network, loss(network(_inputs())))
    for again in (
        loss(checkpoint(network, _inputs(), use_reentrant=False)),
        checkpoint(lambda rows: loss(network(rows)), _inputs(), use_reentrant=False),
    ):
        for mine, expected in zip(_gradients(network, again), plain, strict=True):
            assert torch.equal(mine, expected)


@pytest.mark.parametrize("name", LOSSES)
def test_a_scaled_loss_of_half_precision(name):
    """The scale is divided out again."""
    network, loss = _network(), LOSSES[name]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)

    def half():
        with torch.autocast("cpu", torch.float16):
            return loss(network(_inputs()))

    expected = _gradients(network, half())
    scaler.scale(half()).backward()
    scaler.unscale_(optimizer)
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=0.02, atol=1e-3)


def test_distributed_data_parallel(tmp_path):
    """One process: every loss through the hooks that average gradients."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        for loss in LOSSES.values():
            network = _network()
            expected = _gradients(network, loss(network(_inputs())))
            loss(nn.parallel.DistributedDataParallel(network)(_inputs())).backward()
            for parameter, gradient in zip(network.parameters(), expected, strict=True):
                torch.testing.assert_close(parameter.grad, gradient)
    finally:
        torch.distributed.destroy_process_group()
