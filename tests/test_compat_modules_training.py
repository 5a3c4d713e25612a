# SPDX-License-Identifier: BSD-3-Clause
"""Modules of flashmetric.compat without a peer, within what surrounds a loss in training."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from compat_data import rows_of
from flashmetric.compat import oml, reid, tfa
from flashmetric.compat import torch as compat_torch
from fresh_python import run_python

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


# For a process of their own: losses of embeddings x and labels y (12,).
IN_PROCESSES = {
    "without a peer": """
from flashmetric.compat import oml, reid, tfa, torch as compat_torch

losses = [
    oml.TripletLossWithMiner(1.0),
    oml.TripletLossWithMiner(None, oml.HardTripletsMiner()),
    reid.TripletLoss(),
    lambda x, y: reid.triplet_loss(x, y, margin=0.3, hard_mining=False),
    lambda x, y: tfa.TripletSemiHardLoss()(y, x),
    lambda x, y: tfa.TripletHardLoss(soft=True)(y, x),
    lambda x, y: compat_torch.TripletMarginLoss()(x, x.roll(3, 0), x.roll(1, 0)),
    lambda x, y: compat_torch.CosineEmbeddingLoss()(x, x.flip(0), y % 2 * 2 - 1),
    lambda x, y: compat_torch.PairwiseDistance()(x, x.flip(0)).mean(),
]
""",
    "sentence_transformers": """
from flashmetric.compat import sentence_transformers as st

def of(name, sides):
    loss = getattr(st, name)(torch.nn.Identity())
    return lambda x, y: loss.compute_loss_from_embeddings(*sides(x, y))

names = (
    "BatchHardTripletLoss", "BatchHardSoftMarginTripletLoss", "BatchSemiHardTripletLoss",
    "BatchAllTripletLoss",
)
losses = [of(name, lambda x, y: ([x], y)) for name in names]
losses += [of("TripletLoss", lambda x, y: ([x, x.roll(3, 0), x.roll(1, 0)], y))]
for name in ("ContrastiveLoss", "OnlineContrastiveLoss"):
    losses += [of(name, lambda x, y: ([x, x.flip(0)], y % 2))]
""",
}


@pytest.mark.parametrize(
    "peer",
    ["without a peer", pytest.param("sentence_transformers", marks=pytest.mark.slow)],  # the import
)
def test_two_processes(peer, tmp_path):
    """Each parameter gets the mean of the gradients of both processes' batches."""
    if peer == "sentence_transformers":
        pytest.importorskip(peer, reason="trains with sentence-transformers 6.2")
    script = f"""
import os, sys
import torch, torch.distributed as dist
{IN_PROCESSES[peer]}
rank, path = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", f"file://{{path}}", rank=rank, world_size=2)
def batch(rank, number):
    generator = torch.Generator().manual_seed(2 * number + rank)
    return torch.randn(12, 6, generator=generator, dtype=torch.float64), torch.arange(12) % 4

def network():
    torch.manual_seed(0)
    return torch.nn.Linear(6, 5).double()

for number, loss in enumerate(losses):
    alone = network()
    values = [loss(alone(rows), labels) for rows, labels in (batch(0, number), batch(1, number))]
    expected = torch.autograd.grad(sum(values) / 2, list(alone.parameters()))
    shared = torch.nn.parallel.DistributedDataParallel(network())
    rows, labels = batch(rank, number)
    value = loss(shared(rows), labels)
    value.backward()
    torch.testing.assert_close(value, values[rank])
    for parameter, gradient in zip(shared.parameters(), expected):
        torch.testing.assert_close(parameter.grad, gradient)
        assert gradient.any()
dist.barrier()
dist.destroy_process_group()
print("same", len(losses), flush=True)
os._exit(0)  # threads of gloo may still run, and end the interpreter's exit by an abort
"""
    store = str(tmp_path / "store")
    with ThreadPoolExecutor(2) as pool:  # a Python each: a forked one may inherit a held lock
        outputs = list(pool.map(lambda rank: run_python(script, rank, store), ("0", "1")))
    assert outputs[0] == outputs[1]
    assert outputs[0].startswith("same")


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
