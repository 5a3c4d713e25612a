# SPDX-License-Identifier: BSD-3-Clause
"""Where other libraries mean the same they must say the same: values, gradients and triplets.

They compute distances by |x|^2 + |y|^2 - 2 x.y, or keep an epsilon: on float64 rows without ties
and near-ties their answers are right to many more digits than are compared here.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from op_db import OP
from samples import class_batch

MARGIN = 2.5
# Few rows of a class and many; class 0 of one row only.
SIZES = [(24, 8), (30, 3), (31, 11)]


def _batch(n: int, n_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows, labels = class_batch(n, 6, n_classes, seed=n, dtype=torch.float64)
    labels[labels == 0] = torch.where(torch.arange(int((labels == 0).sum())) == 0, 0, 1)
    return rows, labels


def _assert_same_loss(name: str, theirs, rows, labels, **options: Any) -> None:
    """`theirs(rows)` and the op of that name, with gradients."""
    leaf = rows.clone().requires_grad_()
    expected = theirs(leaf)
    (expected_grad,) = torch.autograd.grad(expected, leaf)
    op = OP[name]
    for impl in op.impls:
        ours_leaf = rows.clone().requires_grad_()
        ours = op.function(ours_leaf, labels, impl=impl, **options)
        (grad,) = torch.autograd.grad(ours, ours_leaf)
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=0)
        torch.testing.assert_close(grad, expected_grad, rtol=1e-7, atol=1e-10)


@pytest.fixture(scope="module")
def st_losses():
    return pytest.importorskip(
        "sentence_transformers.sentence_transformer.losses",
        reason="compares with sentence-transformers 6.2, of the extra `bench`",
    )


@pytest.fixture(scope="module")
def pml():
    reason = "compares with pytorch-metric-learning 2.9, of the extra `bench`"
    parts = ("distances", "losses", "miners", "utils.loss_and_miner_utils")
    modules = [
        pytest.importorskip(f"pytorch_metric_learning.{part}", reason=reason) for part in parts
    ]
    return SimpleNamespace(
        **dict(zip(("distances", "losses", "miners", "utils"), modules, strict=True))
    )


@pytest.mark.slow  # the import alone
@pytest.mark.parametrize(("n", "n_classes"), SIZES)
def test_sentence_transformers_semi_hard(st_losses, n, n_classes):
    rows, labels = _batch(n, n_classes)
    theirs = st_losses.BatchSemiHardTripletLoss(None, margin=MARGIN)
    options = {"mining": "semihard", "margin": MARGIN, "invalid": "count"}

    def loss(rows):
        return theirs.batch_semi_hard_triplet_loss(labels, rows)

    _assert_same_loss("triplet_loss[semihard]", loss, rows, labels, **options)


@pytest.mark.slow
def test_sentence_transformers_semi_hard_of_one_class(st_losses):
    """Counted with d_an = 0: the mean distance plus the margin."""
    rows, labels = _batch(7, 7)[0], torch.zeros(7, dtype=torch.int64)
    theirs = st_losses.BatchSemiHardTripletLoss(None, margin=MARGIN)
    options = {"mining": "semihard", "margin": MARGIN, "invalid": "count"}

    def loss(rows):
        return theirs.batch_semi_hard_triplet_loss(labels, rows)

    _assert_same_loss("triplet_loss[semihard]", loss, rows, labels, **options)
    assert loss(rows) > MARGIN


@pytest.mark.slow  # the import alone
@pytest.mark.parametrize(("n", "n_classes"), SIZES)
def test_sentence_transformers_all_and_hard(st_losses, n, n_classes):
    rows, labels = _batch(n, n_classes)
    every = st_losses.BatchAllTripletLoss(None, margin=MARGIN)
    hard = st_losses.BatchHardTripletLoss(None, margin=MARGIN)
    for name, theirs, options in (
        ("triplet_loss[all]", every.batch_all_triplet_loss, {"mining": "all"}),
        ("triplet_loss", hard.batch_hard_triplet_loss, {"invalid": "count"}),
    ):

        def loss(rows, theirs=theirs):
            return theirs(labels, rows)

        _assert_same_loss(name, loss, rows, labels, margin=MARGIN, **options)


@pytest.mark.slow  # the import alone
@pytest.mark.parametrize(("n", "n_classes"), SIZES)
def test_sentence_transformers_online_contrastive(st_losses, n, n_classes):
    """Given every ordered pair of the batch."""
    rows, labels = _batch(n, n_classes)
    i, j = (~torch.eye(n, dtype=torch.bool)).nonzero(as_tuple=True)
    same = (labels[i] == labels[j]).long()

    def euclidean(x, y):
        return torch.linalg.vector_norm(x - y, dim=1)

    theirs = st_losses.OnlineContrastiveLoss(None, distance_metric=euclidean, margin=MARGIN)

    def loss(rows):
        return theirs.compute_loss_from_embeddings([rows[i], rows[j]], same)

    _assert_same_loss("online_contrastive_loss", loss, rows, labels, margin=MARGIN)


def _assert_same_triplets(name: str, theirs, rows, labels, **options: Any) -> None:
    expected = sorted(zip(*(index.tolist() for index in theirs), strict=True))
    for impl in OP[name].impls:
        ours = OP[name].function(rows, labels, impl=impl, **options)
        assert sorted(zip(*(index.tolist() for index in ours), strict=True)) == expected
    assert expected, "no triplet says nothing"


def _distances(pml) -> dict[str, Any]:
    return {
        "euclidean": pml.distances.LpDistance(normalize_embeddings=False),
        "cosine": pml.distances.CosineSimilarity(),
    }


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize(("n", "n_classes"), SIZES)
def test_pytorch_metric_learning_sets_of_triplets(pml, n, n_classes, distance):
    rows, labels = _batch(n, n_classes)
    for kind in ("semihard", "hard", "easy"):
        miner = pml.miners.TripletMarginMiner(0.3, kind, distance=_distances(pml)[distance])
        mining = f"{kind}_all"
        options = {"mining": mining, "distance": distance}
        if kind != "hard":
            options["mining_margin"] = 0.3
        _assert_same_triplets(
            f"mine_triplets[{mining}]", miner(rows, labels), rows, labels, **options
        )


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("negative", ["easy", "hard", "semihard", "all"])
@pytest.mark.parametrize("positive", ["easy", "hard", "semihard", "all"])
def test_pytorch_metric_learning_easy_and_hard(pml, positive, negative, distance):
    options = {"mining": "easy_hard", "positive_mining": positive, "negative_mining": negative}
    strategies = {"pos_strategy": positive, "neg_strategy": negative}
    for n, n_classes in SIZES:
        rows, labels = _batch(n, n_classes)
        ours = OP["mine_triplets[easy_hard]"].function
        if "semihard" in (positive, negative) and {positive, negative} <= {"semihard", "all"}:
            with pytest.raises(ValueError, match="semihard"):
                pml.miners.BatchEasyHardMiner(**strategies)
            with pytest.raises(ValueError, match="semihard"):
                ours(rows, labels, **options)
            continue
        miner = pml.miners.BatchEasyHardMiner(**strategies, distance=_distances(pml)[distance])
        theirs = miner(rows, labels)
        pairs_of_two_lists = "all" in (positive, negative)
        triplets = (theirs[0], theirs[1], theirs[3])
        if pairs_of_two_lists:
            triplets = pml.utils.convert_to_triplets(theirs, labels, labels)
        _assert_same_triplets(
            *("mine_triplets[easy_hard]", triplets, rows, labels), distance=distance, **options
        )


@pytest.mark.parametrize(("n", "n_classes"), SIZES)
def test_pytorch_metric_learning_losses(pml, n, n_classes):
    rows, labels = _batch(n, n_classes)
    plain = {"distance": _distances(pml)["euclidean"]}
    for name, theirs, options in (
        (
            "contrastive_loss",
            pml.losses.ContrastiveLoss(0.5, MARGIN, **plain),
            {"pos_margin": 0.5, "margin": MARGIN, "power": 1, "reduction": "mean_active"},
        ),
        (
            "triplet_loss[all]",
            pml.losses.TripletMarginLoss(MARGIN, **plain),
            {"mining": "all", "margin": MARGIN},
        ),
        (
            "triplet_loss[all]",
            pml.losses.TripletMarginLoss(0.3, smooth_loss=True, **plain),
            {"mining": "all", "margin": 0.3, "soft_margin": True},
        ),
        (
            "margin_loss[all]",
            pml.losses.MarginLoss(0.2, beta=1.125),
            {"mining": "all", "margin": 0.2, "beta": 1.125, "reduction": "mean_active"},
        ),
    ):

        def loss(rows, theirs=theirs):
            return theirs(rows, labels)

        _assert_same_loss(name, loss, rows, labels, **options)


@pytest.mark.parametrize("swap", [False, True])
def test_torch_triplet_margin_loss(swap):
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randn(40, 6, generator=generator, dtype=torch.float64) for _ in range(3)]
    theirs = torch.nn.TripletMarginLoss(margin=MARGIN, swap=swap, eps=0.0)
    ours = OP["triplet_margin_loss"].function(*rows, margin=MARGIN, swap=swap)
    torch.testing.assert_close(ours, theirs(*rows), rtol=1e-12, atol=0)


@pytest.mark.parametrize("margin", [0.0, 0.4, -0.2])
def test_torch_cosine_embedding_loss(margin):
    """1 - cos for similar pairs, max(0, cos - m) for others: hinges on 1 - cos of margin 1 - m."""
    generator = torch.Generator().manual_seed(2)
    x, y = (torch.randn(50, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    similar = torch.arange(50) % 3 == 0
    theirs = torch.nn.CosineEmbeddingLoss(margin)(x, y, torch.where(similar, 1, -1))
    op = OP["contrastive_pairs_loss"]
    options = {"distance": "cosine", "power": 1, "margin": 1 - margin}
    for impl in op.impls:
        ours = op.function(x, y, similar, impl=impl, **options)
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)


def _tfa_semihard(rows: np.ndarray, labels: np.ndarray, margin: float, squared: bool) -> float:
    """TensorFlow Addons' triplet_semihard_loss: masks filled with extremes, then sums. Without a
    negative the row's masked maximum is its minimum, the distance 0 of a row to itself."""
    d = np.linalg.norm(rows[:, None] - rows, axis=2) ** (2 if squared else 1)
    other, terms = labels[:, None] != labels, []
    for i, j in np.argwhere(~other & ~np.eye(len(rows), dtype=bool)):
        beyond = other[i] & (d[i] > d[i, j])
        inside = (d[i] * other[i]).max()
        terms.append(max(0.0, d[i, j] - (d[i, beyond].min() if beyond.any() else inside) + margin))
    return float(np.mean(terms))


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize(("n", "n_classes"), [*SIZES, (9, 1)])
def test_tensorflow_addons_semi_hard(n, n_classes, squared):
    rows, labels = class_batch(n, 6, n_classes, seed=3, dtype=torch.float64)
    expected = _tfa_semihard(rows.numpy(), labels.numpy(), 1.0, squared)
    op = OP["triplet_loss[semihard]"]
    options = {"mining": "semihard", "invalid": "count", "margin": 1.0}
    for impl in op.impls:
        distance = "sqeuclidean" if squared else "euclidean"
        ours = op.function(rows, labels, distance=distance, impl=impl, **options)
        assert ours.item() == pytest.approx(expected, rel=1e-12)


def test_tensorflow_addons_values_of_a_single_class():
    """Of its documentation: 1 + sqrt(2) for semi-hard, the margin for hard."""
    rows, labels = torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    for name, expected in (("triplet_loss[semihard]", 1 + 2**0.5), ("triplet_loss", 1.0)):
        op = OP[name]
        for impl in op.impls:
            ours = op.function(rows, labels, invalid="count", impl=impl, **op.options)
            assert ours.item() == pytest.approx(expected, rel=1e-15)


def test_sampling_by_distance_follows_its_density():
    """One query, five negatives on the unit circle of a sphere in 8 dimensions, 4000 positives:
    frequencies within five standard deviations of 1/q(d), none beyond the cut-off."""
    angles, dim, count = np.array([0.3, 0.9, 1.2, 1.5, 2.0]), 8, 4000
    rows = torch.zeros(count + 5, dim, dtype=torch.float64)
    rows[:, 0] = 1.0
    rows[:5, 0], rows[:5, 1] = torch.tensor(np.cos(angles)), torch.tensor(np.sin(angles))
    labels = torch.ones(count + 5, dtype=torch.int64)
    labels[:5] = 0
    d = np.maximum(2 * np.sin(angles / 2), 0.5)
    weight = d ** (2.0 - dim) * (1 - d * d / 4) ** (-(dim - 3) / 2)
    weight[2 * np.sin(angles / 2) >= 1.4] = 0
    refs = {"ref_embeddings": rows, "ref_labels": labels}
    op = OP["mine_triplets[distance_weighted]"]
    for mining, expected in (("distance_weighted", weight / weight.sum()), ("random", 5 * [0.2])):
        generator = torch.Generator().manual_seed(11)
        found = op.function(
            *(rows[-1:], labels[-1:]), mining=mining, generator=generator, **refs, impl=op.impls[0]
        )
        frequency = np.bincount(found.negative.numpy(), minlength=5) / count
        deviation = np.sqrt(np.multiply(expected, 1 - np.asarray(expected)) / count)
        assert (np.abs(frequency - expected) <= 5 * deviation).all()
