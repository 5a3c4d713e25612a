# SPDX-License-Identifier: BSD-3-Clause
"""The mining rules on data made to mislead them: their triplets, and what the losses make of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from compare import assert_no_worse_than, assert_same_choice
from op_db import DISTANCES, NO_DOT, OP, Op
from rules_data import BATCHES, LOSS_VARIANTS, VARIANTS, variant_name
from samples import Sample, cotangent_for, relation
from test_gradients import gradients

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
NOT_FINITE = ("with_nan", "with_infinity")
PAIR_LOSSES = ("contrastive_loss", "online_contrastive_loss", "quadruplet_loss")


def op_name(function: str, variant: dict) -> str:
    return function if variant["mining"] == "hard" else f"{function}[{variant['mining']}]"


def sample_under(name: str, variant: dict, number: int, **options) -> Sample:
    """The batch under a rule; distances take turns over the variants."""
    rows, labels = BATCHES[name]()
    options |= {"labels": labels} | variant
    options.setdefault("distance", DISTANCES[number % 4])
    options.setdefault("normalize", number % 8 >= 4)
    return Sample(f"{name} {variant_name(variant)}", {"embeddings": rows}, options)


def assert_exact_triplets(sample: Sample, device: torch.device | str = "cpu") -> None:
    op = OP[op_name("mine_triplets", sample.options)]
    truth = OP["mine_triplets[random]"].truth(sample).value  # by the rule of the sample
    for impl in op.impls:
        for ours, expected in zip(op.run(sample.to(device), impl), truth, strict=True):
            assert_same_choice(ours, expected, what=f"{sample.name} {impl}")


@pytest.mark.parametrize("name", BATCHES)
def test_triplets(name):
    for number, variant in enumerate(VARIANTS):
        assert_exact_triplets(sample_under(name, variant, number + len(name)))


@pytest.mark.slow
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("name", BATCHES)
def test_triplets_by_every_distance(name, distance, normalize):
    for variant in VARIANTS:
        assert_exact_triplets(
            sample_under(name, variant, 0, distance=distance, normalize=normalize)
        )


@pytest.mark.parametrize("labels", ["multi_hot", "mask", "float32"])
@pytest.mark.parametrize("n_ref", [None, 30])
def test_triplets_of_every_relation(labels, n_ref):
    rows, _ = BATCHES["ties"]()
    options = relation({"labels": labels}, 25, n_ref, torch.Generator().manual_seed(1))
    tensors = {"embeddings": rows[:25]}
    if n_ref is not None:
        tensors["ref_embeddings"] = rows[torch.arange(n_ref) % len(rows)]
        options["self_index"] = torch.arange(25)
    for variant in VARIANTS:
        assert_exact_triplets(Sample(f"{labels} {n_ref}", tensors, options | variant))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_triplets_of_every_dtype(dtype):
    for number, variant in enumerate(VARIANTS):
        sample = sample_under("ties", variant, number)
        assert_exact_triplets(
            sample.with_tensors(embeddings=sample.tensors["embeddings"].to(dtype))
        )


def assert_like_the_truth(op, sample: Sample, device: torch.device | str = "cpu") -> None:
    """Value and gradient in float64, within 64 ulps of the largest: sums run in orders of their
    own, and on integers the oracle does not err at all. test_gradients.py has the sharper rule."""
    wide = sample.with_tensors(embeddings=sample.tensors["embeddings"].double())
    for impl in op.impls:
        value, grads = gradients(op, wide.to(device), impl=impl)
        cotangent = cotangent_for(value.cpu())
        narrow, truth = op.truth(wide, cotangent, np.float64), op.truth(wide, cotangent)
        for ours, plain, expected in (
            (value, narrow.value, truth.value),
            *((grads[name], narrow.grads[name], truth.grads[name]) for name in grads),
        ):
            baseline, what = torch.as_tensor(plain), f"{op.name} {sample.name} {impl}"
            assert_no_worse_than(
                ours, baseline=baseline, truth=expected, factor=8.0, ulps=64.0, what=what
            )


LOSS_BATCHES = (
    *("random", "ties", "duplicates", "all_equal", "two_of_each", "near"),
    *("one_class", "all_distinct", "one_row", "empty"),
)


@pytest.mark.parametrize("name", LOSS_BATCHES)
def test_losses_of_triplets(name):
    for op, sample in losses_of_triplets(name):
        assert_like_the_truth(op, sample)


def losses_of_triplets(name: str) -> Iterator[tuple[Op, Sample]]:
    """Every variant; reductions, hinge and softplus, and counting take turns."""
    for number, variant in enumerate(LOSS_VARIANTS):
        turn = number + len(name)
        reduction = ("mean", "none", "sum", "mean_active")[turn % 4]
        options = {"reduction": reduction, "soft_margin": turn % 5 == 0}
        if variant["mining"] in ("semihard", "all"):
            options["invalid"] = ("drop", "count")[turn % 2]
        sample = sample_under(name, variant, turn, **options)
        yield OP[op_name("triplet_loss", variant)], sample


@pytest.mark.parametrize("name", ["random", "duplicates", "all_equal", "one_class", "all_distinct"])
def test_losses_of_boundaries_pairs_and_quadruplets(name):
    rules = [variant for variant in LOSS_VARIANTS if variant["mining"] != "soft"]
    for turn, reduction in enumerate(("mean", "none", "sum")):
        options = {"reduction": reduction, "distance": NO_DOT[turn], "normalize": turn % 2 == 1}
        for op in PAIR_LOSSES:
            assert_like_the_truth(OP[op], sample_under(name, {}, 0, **options))
        for variant in rules[turn::3]:
            assert_like_the_truth(OP["margin_loss[all]"], sample_under(name, variant, 0, **options))


@pytest.mark.parametrize("name", NOT_FINITE)
def test_not_a_number_shows_where_it_should(name):
    """In the losses of the anchors that met it, and in no other."""
    for number, variant in enumerate(LOSS_VARIANTS):
        op = OP[op_name("triplet_loss", variant)]
        _assert_same_nan(op, sample_under(name, variant, number, reduction="none", margin=0.5))
    for number, op in enumerate(PAIR_LOSSES):
        _assert_same_nan(OP[op], sample_under(name, {}, number, reduction="none"))


def _assert_same_nan(op, sample: Sample) -> None:
    truth = np.asarray(op.truth(sample).value)
    for impl in op.impls:
        ours = op.run(sample, impl).double().numpy()
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(truth), f"{op.name} {sample.name}")
