# SPDX-License-Identifier: BSD-3-Clause
"""The loss of semi-hard triplets in large classes goes without a list of them, and is the same.

The gradient shows the choices: a negative in another one's place moves rows by a whole slope.
"""

from __future__ import annotations

import pytest
import torch

from compare import assert_same_bits
from flashmetric import _C, triplet_loss
from keys_data import KINDS, hard_rows
from op_db import DISTANCES, OP
from samples import Sample
from test_gradients import assert_value_and_gradient, gradients, judge
from test_narrow_tiles import slack_times

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
OP_SEMIHARD = OP["triplet_loss[semihard]"]
MARGINS = {"euclidean": 1.0, "sqeuclidean": 4.0, "cosine": 0.3, "dot": 2.0}
# Where plain torch in float32 has no numbers to compare with, or float32 cannot hold the result.
NOT_IN_FLOAT32 = (
    *("with_nan", "with_infinity", "beyond_tiles", "squares_overflow", "keys_overflow"),
    *("keys_underflow", "subnormal"),
)
ORDINARY = [kind for kind in KINDS if kind not in NOT_IN_FLOAT32]
VARIANTS = (
    {"reduction": "none"},
    {"reduction": "mean", "fallback": "drop", "normalize": True},
    {"reduction": "mean_active", "margin": 0.05, "invalid": "count"},
    {"reduction": "sum", "soft_margin": True},
)


def _sample(kind="random", n=150, dim=9, n_classes=2, **options):
    rows, _ = hard_rows(kind, n, dim, n_classes, torch.float32)
    options = {"labels": torch.arange(n) % n_classes, "mining": "semihard"} | options
    return Sample(kind, {"embeddings": rows}, options)


def _among_references(sample):
    """The same rows as references, in another order, each query among them."""
    rows, labels = sample.tensors["embeddings"], sample.options["labels"]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(3))
    refs = {"ref_labels": labels[order], "self_index": order.argsort()}
    return sample.with_tensors(ref_embeddings=rows[order]).with_options(**refs)


def _moved(call):
    before = _C.counters()
    call()
    return {name: count - before[name] for name, count in _C.counters().items()}


def _assert_dense(sample, judged=None):
    """Checks value and gradient; returns how many anchors were settled without all their keys."""
    moved = _moved(lambda: assert_value_and_gradient(OP_SEMIHARD, sample, judged))
    assert moved["dense"] > 0
    assert moved["list_triplets"] == 0
    return moved["sorted_anchors"]


@pytest.mark.parametrize(
    ("options", "dense"),
    [
        ({}, True),
        ({"labels": torch.arange(150) // 64}, False),
        ({"labels": torch.arange(150) // 65}, True),
        ({"hardness": 0.75}, False),
        ({"hardness": 0.5}, True),
        ({"distance": "manhattan"}, False),
        ({"distance": "snr"}, False),
        ({"labels": torch.eye(2).repeat(75, 1)}, False),
        ({"labels": torch.zeros(150), "invalid": "count"}, True),
        ({"ignore_label": 0}, True),
    ],
)
def test_what_is_dense(options, dense):
    moved = _moved(lambda: gradients(OP_SEMIHARD, _sample(**options)))
    assert (moved["dense"] > 0) == dense
    assert (moved["list_triplets"] == 0) == dense
    wide = _sample(**options)
    wide = wide.with_tensors(embeddings=wide.tensors["embeddings"].double())
    assert _moved(lambda: gradients(OP_SEMIHARD, wide))["dense"] == 0


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("kind", ORDINARY)
def test_hard_rows(kind, distance):
    """Every variant, half of them among references: for each distance the other half of it."""
    turn = ORDINARY.index(kind) + list(DISTANCES).index(distance)
    for number, variant in enumerate(VARIANTS):
        margin = {"margin": MARGINS[distance]} if "soft_margin" not in variant else {}
        sample = _sample(kind, 140 + number, 7 + 5 * number, **margin | variant, distance=distance)
        among_references = (turn + number) % 2 == 0
        assert_value_and_gradient(
            OP_SEMIHARD, _among_references(sample) if among_references else sample
        )


@pytest.mark.parametrize("n", [129, 130, 131, 192, 193, 257, 400])
@pytest.mark.parametrize("n_classes", [1, 2, 3])
def test_sizes(n, n_classes):
    for options in ({"invalid": "count"}, {"fallback": "drop", "reduction": "none"}):
        sample = _sample(n=n, dim=33, n_classes=n_classes, **options)
        if n // n_classes > 64:
            settled = _assert_dense(sample)
            assert (settled > 0) == (n_classes > 1)


def test_one_large_class_among_small_ones():
    labels = torch.cat((torch.zeros(80, dtype=torch.int64), 1 + torch.arange(120) // 3))
    labels = labels[torch.randperm(200, generator=torch.Generator().manual_seed(1))]
    sample = _sample(n=200, labels=labels, reduction="none")
    assert _assert_dense(sample) > 100
    assert _assert_dense(_among_references(sample)) > 100
    assert _assert_dense(sample.with_options(ignore_label=int(labels[0]))) > 100


@pytest.mark.parametrize("soft_margin", [False, True])
def test_weights_margins_and_self_index(soft_margin):
    generator = torch.Generator().manual_seed(2)
    weights = torch.rand(170, generator=generator) * (torch.arange(170) % 3 > 0)
    margins = 2 * torch.rand(170, generator=generator)
    for reduction in ("mean", "mean_active", "none"):
        options = {"weights": weights, "margin": margins, "reduction": reduction}
        sample = _sample(n=170, soft_margin=soft_margin, **options)
        assert _assert_dense(sample) > 100
        refs = _among_references(sample)
        # A query may also stand for a reference of another class, or for none.
        self_index = torch.randint(-1, 170, (170,), generator=generator)
        assert _assert_dense(refs.with_options(self_index=self_index)) > 100
        del refs.options["self_index"]
        assert _assert_dense(refs) > 100


def test_a_class_without_references():
    sample = _sample(n=150, reduction="none")
    rows = {"ref_embeddings": sample.tensors["embeddings"][:130].clone()}
    refs = sample.with_tensors(**rows).with_options(
        ref_labels=torch.ones(130, dtype=torch.int64), labels=torch.arange(150) % 3
    )
    for invalid in ("drop", "count"):
        _assert_dense(refs.with_options(invalid=invalid))


@pytest.mark.parametrize("kind", ["random", "crowded"])
def test_near_ties_among_many(kind):
    """Enough numbers that some decisions are left to keys in every row, or to a radix sort."""
    sample = _sample(n=700, dim=5)
    if kind == "crowded":
        rows = sample.tensors["embeddings"]
        rows[::7] *= 8
        rows[::2] += 3
    assert _assert_dense(sample) > 500


def test_a_bound_that_is_too_small_is_noticed():
    """By the gradient of some choices among half a million."""
    sample = _sample(n=1000, dim=64)
    judged = judge(OP_SEMIHARD, sample)
    with slack_times(2.0**-10), pytest.raises(AssertionError):
        assert_value_and_gradient(OP_SEMIHARD, sample, judged)
    assert_value_and_gradient(OP_SEMIHARD, sample, judged)


def test_near_ties_everywhere():
    """One long row takes the precision of all others: keys of whole rows."""
    assert _assert_dense(_sample("outliers", 300, 5)) == 0


@pytest.mark.parametrize("kind", NOT_IN_FLOAT32)
def test_numbers_that_float32_does_not_hold(kind):
    """Anchors are undefined where the list of their triplets makes them so, and nowhere else."""
    rows, _ = hard_rows(kind, 150, 9, 2, torch.float32)
    for distance in DISTANCES:
        options = {"reduction": "none", "distance": distance, "margin": MARGINS[distance]}
        sample = _sample(**options).with_tensors(embeddings=rows)
        ours = OP_SEMIHARD.run(sample)
        listed = OP_SEMIHARD.run(sample.with_tensors(embeddings=rows.double())).float()
        torch.testing.assert_close(ours, listed, rtol=1e-3, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("soft_margin", [False, True])
def test_statistics(soft_margin):
    for options in ({}, {"fallback": "drop"}, {"margin": -0.2}, {"labels": torch.zeros(150)}):
        sample = _sample(soft_margin=soft_margin, invalid="count", **options)
        _, ours = OP_SEMIHARD.run(sample, return_stats=True)
        _, plain = OP_SEMIHARD.run(sample, "reference", return_stats=True)
        torch.testing.assert_close(tuple(ours), tuple(plain), rtol=1e-6, atol=0)


@pytest.mark.parametrize("n", [300, 2300])
def test_threads_do_not_change_a_bit(n):
    """Rows whose pairs are added up at once, and in chunks."""
    sample = _sample(n=n, dim=5, reduction="none")
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        value, grads = gradients(OP_SEMIHARD, sample)
        results.append((value, grads["embeddings"]))
    for other in results[1:]:
        for ours, expected in zip(other, results[0], strict=True):
            assert_same_bits(ours, expected)


@pytest.mark.parametrize("kind", ["random", "integers", "duplicates", "offset", "outliers"])
def test_every_isa(forced_isa, kind):
    assert forced_isa
    sample = _sample(kind, 200, 21, reduction="none")
    _assert_dense(sample, judge(OP_SEMIHARD, sample))


def test_chunks_give_what_all_pairs_at_once_do():
    """As many rows as are too many for one chunk, against float64, which lists."""
    sample = _sample(n=2300, dim=5, n_classes=23)
    rows = sample.tensors["embeddings"]
    narrow, wide = (
        gradients(OP_SEMIHARD, sample.with_tensors(embeddings=each))[1]["embeddings"]
        for each in (rows, rows.double())
    )
    torch.testing.assert_close(narrow, wide.float(), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    sample = _sample(n=150, reduction="none")
    rows = sample.tensors["embeddings"].to(dtype)
    assert _assert_dense(sample.with_tensors(embeddings=rows)) > 100


def test_every_anchor_of_a_batch_of_duplicates_goes_by_keys():
    rows = torch.ones(140, 3, requires_grad=True)
    loss = triplet_loss(rows, torch.arange(140) % 2, mining="semihard", margin=0.5)
    loss.backward()
    assert loss == 0.5
    assert rows.grad.count_nonzero() == 0
