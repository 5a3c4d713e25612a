# SPDX-License-Identifier: BSD-3-Clause
"""The parts of the loss on their own: where does the time go?"""

import pytest
import torch

from flashmetric import functional
from flashmetric.cli.bench.problems import Problem

PROBLEM = Problem(1024, 128)
DISTANCES = ("euclidean", "sqeuclidean", "cosine", "dot")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def test_loss_of_dtype(benchmark, dtype):
    benchmark.group = "loss by dtype"
    rows = PROBLEM.embeddings().to(dtype).requires_grad_()
    labels = PROBLEM.labels()

    def step() -> None:
        rows.grad = None
        functional.triplet_loss(rows, labels, impl="fused").backward()

    benchmark(step)


@pytest.mark.parametrize("distance", DISTANCES)
def test_mining(benchmark, distance):
    benchmark.group = "mining"
    rows, labels = PROBLEM.embeddings(), PROBLEM.labels()
    benchmark(functional.mine_triplets, rows, labels, distance=distance, impl="fused")


@pytest.mark.parametrize("distance", DISTANCES)
def test_given_triplets(benchmark, distance):
    benchmark.group = "given triplets, forward and backward"
    rows, labels = PROBLEM.embeddings().requires_grad_(), PROBLEM.labels()
    triplets = functional.mine_triplets(rows.detach(), labels)

    def step() -> None:
        rows.grad = None
        functional.triplet_margin_loss(
            *triplets, embeddings=rows, distance=distance, impl="fused"
        ).backward()

    benchmark(step)


@pytest.mark.parametrize("distance", DISTANCES)
def test_pairwise_distances(benchmark, distance):
    benchmark.group = "pairwise distances"
    rows = PROBLEM.embeddings()
    benchmark(functional.pairwise_distances, rows, distance=distance, impl="fused")
