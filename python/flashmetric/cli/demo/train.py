# SPDX-License-Identifier: BSD-3-Clause
"""The network and its training loop: what a user of the library would write."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import flashmetric
from flashmetric._names import Impl
from flashmetric._progress import Progress
from flashmetric.cli.demo.data import Digits

__all__ = ["BATCH", "DIM", "MARGIN", "TrainingRun", "gaps", "loss_step", "train"]

BATCH = 256
DIM = 32
MARGIN = 1.0
LEARNING_RATE = 2e-3
# Two trainings, measuring and drawing stay below a minute; 300 steps take a few seconds.
SECONDS = 20.0
# The first steps load code and start threads.
WARM_UP_STEPS = 5


@dataclass(frozen=True)
class TrainingRun:
    """A network before and after training, and what happened on the way."""

    before: nn.Module
    after: nn.Module
    losses: list[float]
    fused_losses: list[float]  # the fused loss of the same embeddings, step by step
    step_seconds: float  # median


def train(digits: Digits, *, impl: Impl, steps: int, seed: int, bar: Progress) -> TrainingRun:
    """Batch-hard triplet loss and Adam; equal seeds see equal batches.

    Stops early after SECONDS: the reference on a busy machine.
    """
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, DIM))
    before = copy.deepcopy(network)
    criterion = flashmetric.BatchHardTripletLoss(margin=MARGIN, impl=impl)
    fused = flashmetric.BatchHardTripletLoss(margin=MARGIN, impl="fused")
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    losses: list[float] = []
    fused_losses: list[float] = []
    seconds: list[float] = []
    stop = time.perf_counter() + SECONDS
    while len(losses) < steps and time.perf_counter() < stop:
        batch = torch.randperm(len(digits.train_labels))[:BATCH]
        images, labels = digits.train_images[batch], digits.train_labels[batch]
        start = time.perf_counter()
        optimizer.zero_grad()
        embeddings = network(images)
        loss = criterion(embeddings, labels)
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
        losses.append(float(loss.detach()))
        fused_losses.append(float(fused(embeddings.detach(), labels)))
        bar.step(f"{impl}: loss {losses[-1]:.3f}")
    median = statistics.median(seconds[WARM_UP_STEPS:] or seconds)
    return TrainingRun(before, network, losses, fused_losses, median)


def loss_step(
    embeddings: Tensor,  # (B, D)
    labels: Tensor,  # (B,)
    impl: Impl,
) -> Callable[[], None]:
    """The loss alone, forward and backward, as a function to call again and again."""
    criterion = flashmetric.BatchHardTripletLoss(margin=MARGIN, impl=impl)
    leaf = embeddings.detach().clone().requires_grad_()

    def step() -> None:
        leaf.grad = None
        criterion(leaf, labels).backward()

    return step


def gaps(left: list[float], right: list[float]) -> list[float]:
    """How far two curves are apart, step by step, as long as both last."""
    return [abs(a - b) for a, b in zip(left, right, strict=False)]
