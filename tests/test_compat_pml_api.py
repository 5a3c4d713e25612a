# SPDX-License-Identifier: BSD-3-Clause
"""What surrounds the classes of pytorch-metric-learning: wrappers, reducers, statistics, dtypes."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

from samples import class_batch

pytest.importorskip(
    "pytorch_metric_learning", reason="compares with pytorch-metric-learning 2.9, of `test`"
)

import pytorch_metric_learning as pml
from pytorch_metric_learning import losses as their_losses
from pytorch_metric_learning import miners as their_miners
from pytorch_metric_learning import reducers, regularizers

from flashmetric.compat import pytorch_metric_learning as ours
from flashmetric.compat.pytorch_metric_learning import distances, losses, miners

FALLS_BACK = "ignore:.*runs the code of its peer:RuntimeWarning"


def _batch(n: int = 40, n_classes: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    rows, labels = class_batch(n, 6, n_classes, seed=n, dtype=torch.float64)
    return rows.requires_grad_(), labels


def test_classes_are_those_of_the_peer():
    for name in losses.__all__:
        assert issubclass(getattr(losses, name), getattr(their_losses, name))
        assert getattr(losses, name).__module__ == losses.__name__
    for name in miners.__all__:
        assert issubclass(getattr(miners, name), getattr(their_miners, name))
    assert losses.NTXentLoss is their_losses.NTXentLoss
    assert miners.MultiSimilarityMiner is their_miners.MultiSimilarityMiner
    assert ours.reducers.AvgNonZeroReducer is reducers.AvgNonZeroReducer
    assert "ArcFaceLoss" in dir(losses)
    with pytest.raises(AttributeError):
        losses.NoSuchLoss  # noqa: B018


def test_other_modules_pass_through():
    samplers = importlib.import_module(f"{ours.__name__}.samplers")
    assert samplers is ours.samplers
    theirs = importlib.import_module(f"{pml.__name__}.samplers")
    assert samplers.MPerClassSampler is theirs.MPerClassSampler
    assert ours.regularizers.LpRegularizer is regularizers.LpRegularizer
    assert ours.__version__ == pml.__version__


@pytest.mark.parametrize("memory_size", [40, 100])
def test_cross_batch_memory(memory_size):
    """It looks at the name of the loss class, and at the type of what the miner returns."""
    results = []
    for kind, mining in ((losses, miners), (their_losses, their_miners)):
        torch.manual_seed(0)
        loss = kind.TripletMarginLoss(margin=0.3)
        wrapped = kind.CrossBatchMemory(loss, 6, memory_size, mining.BatchHardMiner()).double()
        values = []
        for seed in range(4):
            rows, labels = class_batch(20, 6, 5, seed=seed, dtype=torch.float64)
            rows.requires_grad_()
            value = wrapped(rows, labels)
            value.backward()
            values += [value.detach(), rows.grad]
        results.append(values)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def test_distributed_loss_wrapper():
    from pytorch_metric_learning.utils.distributed import DistributedLossWrapper

    rows, labels = _batch()
    with pytest.warns(UserWarning, match="non-distributed"):
        found = DistributedLossWrapper(losses.TripletMarginLoss())(rows, labels)
    torch.testing.assert_close(found, their_losses.TripletMarginLoss()(rows, labels))


def test_reducers_that_ask_for_every_loss():
    rows, labels = _batch()
    found = losses.TripletMarginLoss(reducer=reducers.DoNothingReducer())(rows, labels)
    expected = their_losses.TripletMarginLoss(reducer=reducers.DoNothingReducer())(rows, labels)
    torch.testing.assert_close(found["loss"]["losses"], expected["loss"]["losses"])
    for one, other in zip(found["loss"]["indices"], expected["loss"]["indices"], strict=True):
        assert torch.equal(one, other)
    reducer = reducers.PerAnchorReducer(reducers.AvgNonZeroReducer())
    for kwargs in (
        {},
        {"distance": distances.CosineSimilarity(), "pos_margin": 1, "neg_margin": 0},
    ):
        torch.testing.assert_close(
            losses.ContrastiveLoss(reducer=reducer, **kwargs)(rows, labels),
            their_losses.ContrastiveLoss(reducer=reducer, **kwargs)(rows, labels),
        )


def test_embedding_regularizer():
    rows, labels = _batch()
    options = {"embedding_regularizer": regularizers.LpRegularizer(), "embedding_reg_weight": 0.3}
    for name in ("TripletMarginLoss", "ContrastiveLoss"):
        one, other = (getattr(each, name)(**options) for each in (losses, their_losses))
        torch.testing.assert_close(one(rows, labels), other(rows, labels))
        assert one.sub_loss_names() == other.sub_loss_names()


@pytest.mark.filterwarnings(FALLS_BACK)
def test_statistics():
    rows, labels = _batch()
    for name in ("BatchHardMiner", "BatchEasyHardMiner", "TripletMarginMiner", "PairMarginMiner"):
        one, other = (getattr(each, name)(collect_stats=True) for each in (miners, their_miners))
        one(rows, labels), other(rows, labels)
        for stat in other._record_these_stats:
            assert getattr(one, stat) == pytest.approx(getattr(other, stat), rel=1e-5), stat
    one, other = (
        kind.TripletMarginLoss(
            distance=distances.LpDistance(collect_stats=True),
            reducer=reducers.AvgNonZeroReducer(collect_stats=True),
        )
        for kind in (losses, their_losses)
    )
    one(rows, labels), other(rows, labels)
    for part in ("distance", "reducer"):
        mine, theirs = getattr(one, part), getattr(other, part)
        for stat in theirs._record_these_stats:
            assert getattr(mine, stat) == pytest.approx(getattr(theirs, stat)), stat


def test_random_triplets_are_the_peers():
    rows, labels = _batch()
    for refs in ((), class_batch(30, 6, 8, seed=1, dtype=torch.float64)):
        found = []
        for kind in (losses, their_losses):
            torch.manual_seed(7)
            loss = kind.TripletMarginLoss(margin=0.4, triplets_per_anchor=5)
            found.append(loss(rows, labels, None, *refs))
        torch.testing.assert_close(*found)


def test_embeddings_that_are_triplets():
    rows, _ = _batch(36)
    labels = torch.zeros(36)
    triplets = miners.EmbeddingsAlreadyPackagedAsTriplets()(rows, labels)
    torch.testing.assert_close(
        losses.TripletMarginLoss(margin=0.4)(rows, indices_tuple=triplets),
        their_losses.TripletMarginLoss(margin=0.4)(rows, indices_tuple=triplets),
    )


def test_distance_weighted_miner():
    """As many triplets as the peer; positives and negatives as often as it draws them."""
    torch.manual_seed(0)
    rows, labels = class_batch(24, 4, 4, seed=0, dtype=torch.float64)
    refs, ref_labels = class_batch(30, 4, 4, seed=5, dtype=torch.float64)
    for sides in ((rows, labels), (rows, labels, refs, ref_labels)):
        n = sides[-1].shape[0]
        counts = {}
        for kind in (miners, their_miners):
            positive, negative, total = np.zeros(24 * n), np.zeros(24 * n), 0
            for _ in range(400):
                a, p, n_ = kind.DistanceWeightedMiner()(*sides)
                positive += np.bincount(a * n + p, minlength=24 * n)
                negative += np.bincount(a * n + n_, minlength=24 * n)
                total += len(a)
                assert (labels[a] == sides[-1][p]).all()
                assert (labels[a] != sides[-1][n_]).all()
            counts[kind] = (positive, negative, total)
        assert counts[miners][2] == counts[their_miners][2]
        for one, other in zip(counts[miners][:2], counts[their_miners][:2], strict=True):
            # Both count the same law: their difference has at most the variance of the sum.
            assert (np.abs(one - other) <= 5 * np.sqrt(one + other + 1)).all()


def test_swap_with_references_looks_among_the_references():
    rows, labels = _batch()
    refs, ref_labels = class_batch(60, 6, 8, seed=1, dtype=torch.float64)
    found = losses.TripletMarginLoss(margin=0.5, swap=True, reducer=reducers.MeanReducer())(
        rows, labels, None, refs, ref_labels
    )
    x, r = (torch.nn.functional.normalize(each) for each in (rows, refs))
    d, among = torch.cdist(x, r), torch.cdist(r, r)
    same = labels[:, None] == ref_labels
    a, p, n = (same[:, :, None] & ~same[:, None, :]).nonzero(as_tuple=True)
    expected = (d[a, p] - torch.minimum(d[a, n], among[p, n]) + 0.5).relu().mean()
    torch.testing.assert_close(found, expected)


def test_one_pair_of_each_kind_counts():
    """The peer's ContrastiveLoss ignores them."""
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    pairs = tuple(torch.tensor([each]) for each in (0, 1, 1, 2))
    found = losses.ContrastiveLoss()(rows, None, pairs)
    assert their_losses.ContrastiveLoss()(rows, None, pairs) == 0
    near = torch.linalg.vector_norm(rows[1] - rows[2])
    torch.testing.assert_close(found, torch.tensor(2.0).sqrt() + 1 - near)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_result_has_the_dtype_of_the_embeddings(dtype):
    rows, labels = _batch()
    rows = rows.detach().to(dtype).requires_grad_()
    pairs = miners.BatchHardMiner()(rows, labels)
    for loss in (losses.TripletMarginLoss(), losses.ContrastiveLoss(), losses.MarginLoss()):
        for tuples in (None, pairs):
            value = loss(rows, labels, tuples)
            assert value.dtype == dtype
            value.backward()
    assert rows.grad.dtype == dtype
    assert distances.LpDistance()(rows).dtype == dtype


def test_autocast_leaves_the_loss_in_float32():
    rows, labels = _batch()
    rows = rows.detach().to(torch.bfloat16).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = losses.TripletMarginLoss()(rows, labels)
    assert loss.dtype == torch.float32
    loss.backward()


def test_labels_of_other_dtypes():
    rows, labels = _batch()
    refs, ref_labels = class_batch(30, 6, 8, seed=1, dtype=torch.float64)
    for dtypes in ((torch.int32, torch.int64), (torch.float32, torch.int16), (torch.uint8,) * 2):
        sides = (rows, labels.to(dtypes[0]), None, refs, ref_labels.to(dtypes[1]))
        torch.testing.assert_close(
            losses.TripletMarginLoss()(*sides), their_losses.TripletMarginLoss()(*sides)
        )


def test_what_has_no_kernel_says_so_once():
    class Mine(pml.distances.LpDistance):
        def compute_mat(self, query_emb, ref_emb):
            return 2 * super().compute_mat(query_emb, ref_emb)

    rows, labels = _batch()
    with pytest.warns(RuntimeWarning, match=r"\[TripletMarginLoss\] runs the code of its peer: "):
        found = losses.TripletMarginLoss(distance=Mine())(rows, labels)
    torch.testing.assert_close(found, their_losses.TripletMarginLoss(distance=Mine())(rows, labels))
    losses.TripletMarginLoss(distance=Mine())(rows, labels)  # in silence: warnings are errors here


@pytest.mark.parametrize("name", ["TripletMarginLoss", "ContrastiveLoss", "MarginLoss"])
def test_a_device_without_a_kernel_runs_the_code_of_the_peer(monkeypatch, name):
    rows, labels = _batch()
    reason = f"there is no kernel of {name} here"  # of its own: it is said once
    monkeypatch.setattr("flashmetric._ops.why_not_fused", lambda *_: reason)
    monkeypatch.setattr("flashmetric.functional.mine_triplets", None)
    with pytest.warns(RuntimeWarning, match=reason):
        pairs = miners.BatchHardMiner()(rows, labels)
    with pytest.warns(RuntimeWarning, match=reason):
        found = getattr(losses, name)()(rows, labels, pairs)
    theirs = their_miners.BatchHardMiner()(rows, labels)
    torch.testing.assert_close(found, getattr(their_losses, name)()(rows, labels, theirs))


def test_errors_are_the_peers():
    rows, labels = _batch()
    for kind in (losses, their_losses):
        with pytest.raises(ValueError, match="Number of embeddings must equal"):
            kind.TripletMarginLoss()(rows, labels[1:])
        with pytest.raises(ValueError, match="cannot both be None"):
            kind.ContrastiveLoss()(rows)
