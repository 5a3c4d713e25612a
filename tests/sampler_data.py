# SPDX-License-Identifier: BSD-3-Clause
"""Labels, and epochs of every rank, for the tests of PKSampler."""

from __future__ import annotations

import torch

from flashmetric import PKSampler


def shuffled_labels(sizes):
    """Shuffled labels of classes of these sizes."""
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]


def epoch_of_ranks(labels, *options, replicas=1, epoch=0, **keywords):
    """The batches of one epoch, for each rank."""
    found = []
    for rank in range(replicas):
        sampler = PKSampler(labels, *options, num_replicas=replicas, rank=rank, **keywords)
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        found.append(batches)
    return found
