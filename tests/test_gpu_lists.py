# SPDX-License-Identifier: BSD-3-Clause
"""Mining rules and the losses of their lists on a GPU: data made to mislead them, sizes, graphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from compare import assert_same_bits
from device import DEVICE, GPU, gpu_counters, on_cuda
from flashmetric import _C, Triplets
from flashmetric.functional import mine_triplets, triplet_loss
from like_the_cpu import assert_like_given
from op_db import DTYPES, OP
from rules_data import BATCHES, VARIANTS, variant_name
from samples import Sample, Seeded, class_batch
from test_gradients import gradients
from test_rules import (
    LOSS_BATCHES,
    assert_exact_triplets,
    assert_like_the_truth,
    losses_of_triplets,
    sample_under,
)

pytestmark = [*GPU, pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")]
LISTED = ("semihard", "easy_hard", "distance_weighted", "random")
LISTS = [variant for variant in VARIANTS if variant["mining"] != "hard"]
RULES: list[dict[str, Any]] = [
    {"mining": "semihard"},
    {"mining": "semihard", "hardness": 0.3, "fallback": "drop"},
    {"mining": "easy_hard", "positive_mining": "hard", "negative_mining": "semihard"},
    {"mining": "easy_hard", "positive_mining": "all", "negative_mining": "hard"},
    {"mining": "distance_weighted", "generator": Seeded(0), "normalize": True},
    {"mining": "random", "n_negatives": 2, "generator": Seeded(3)},
]
# The ways to a loss of a rule: its lists evaluated in place, or all triplets without a list.
PATHS = {"cuda_list_triplets", "cuda_triplet", "cuda_dense"}
MINE, LOSS = OP["mine_triplets[random]"], OP["triplet_loss[random]"]


@pytest.mark.parametrize("name", BATCHES)
def test_triplets(name):
    for number, variant in enumerate(LISTS):
        assert_exact_triplets(sample_under(name, variant, number + len(name)), DEVICE)


@pytest.mark.parametrize("name", LOSS_BATCHES)
def test_losses(name):
    for op, sample in losses_of_triplets(name):
        if sample.options["mining"] in LISTED:
            assert_like_the_truth(op, sample, DEVICE)


def _batch(n: int, dim: int, n_classes: int, dtype: torch.dtype, rule: dict[str, Any]) -> Sample:
    rows, labels = class_batch(n, dim, n_classes, seed=n, dtype=dtype)
    name = f"{n}x{dim} {n_classes} {variant_name(rule)}"
    return Sample(name, {"embeddings": rows}, {"labels": labels} | rule)


def _assert_like_the_cpu(sample: Sample) -> None:
    """Its triplets; and the loss of triplets that are given, in the 2x rule."""
    ours, triplets = MINE.run(sample.to(DEVICE)), MINE.run(sample)
    for field, one, other in zip(Triplets._fields, ours, triplets, strict=True):
        assert_same_bits(one, other, what=f"{field} of {sample.name}")
    before = _C.counters()
    value, grads = gradients(LOSS, sample.to(DEVICE))
    moved = {name for name, count in _C.counters().items() if count > before[name]}
    again, grads_again = gradients(LOSS, sample.to(DEVICE))
    assert_same_bits(value, again, what="value again")
    if DEVICE.type == "cuda":
        assert moved & PATHS == gpu_counters(LOSS, sample)
    for name, grad in grads.items():
        assert_same_bits(grad, grads_again[name], what=f"gradient of {name} again")
    assert_like_given(sample, triplets, value, grads)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES, ids=variant_name)
@pytest.mark.parametrize(("n", "dim", "n_classes"), [(257, 65, 60), (500, 20, 2), (3000, 40, 700)])
def test_sizes(n, dim, n_classes, rule, dtype):
    """Few positives, so many that the negatives are sorted, and several chunks of anchors."""
    _assert_like_the_cpu(_batch(n, dim, n_classes, dtype, rule))


@pytest.mark.sanitize
@pytest.mark.parametrize("rule", RULES, ids=variant_name)
def test_every_rule_on_few_rows(rule):
    """What compute-sanitizer can wait for."""
    _assert_like_the_cpu(_batch(70, 9, 12, torch.float32, rule))


@on_cuda
@pytest.mark.parametrize("rule", RULES, ids=variant_name)
def test_a_graph_replays_on_new_rows_and_labels(rule):
    """However many triplets the new ones form."""
    rows, labels = (each.to(DEVICE) for each in class_batch(300, 40, 70))

    def step(rows, labels):
        leaf = rows.detach().requires_grad_()
        options = Sample("rule", {}, rule).arguments()
        value = triplet_loss(leaf, labels, impl="fused", **options)
        return value.detach(), torch.autograd.grad(value, leaf)[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step(rows, labels)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = step(rows, labels)
    for seed, n_classes in ((1, 70), (2, 2), (3, 1), (4, 300)):
        others = [each.to(DEVICE) for each in class_batch(300, 40, n_classes, seed=seed)]
        rows.copy_(others[0])
        labels.copy_(others[1])
        graph.replay()
        for one, other in zip(recorded, step(*others), strict=True):
            assert_same_bits(one, other, what=f"replay {seed}")


@on_cuda
@pytest.mark.parametrize("rule", [RULES[0], RULES[4]], ids=variant_name)
def test_peak_memory(rule):
    """The matrix of distances would take 2 GiB."""
    n, dim = 16384, 64
    rows, labels = (each.to(DEVICE) for each in class_batch(n, dim, 4096))
    options = Sample("rule", {}, rule).arguments()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    triplet_loss(rows.requires_grad_(), labels, impl="fused", **options).backward()
    mine_triplets(rows, labels, impl="fused", **Sample("rule", {}, rule).arguments())
    assert torch.cuda.max_memory_allocated() - before <= 2**27 + 16 * n * dim * 4
