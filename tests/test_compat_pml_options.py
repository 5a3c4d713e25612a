# SPDX-License-Identifier: BSD-3-Clause
"""Options of pytorch-metric-learning outside the grids of its three losses: values, gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip(
    "pytorch_metric_learning", reason="compares with pytorch-metric-learning 2.9, of `test`"
)

from pytorch_metric_learning import reducers, regularizers

from pml_grid import DISTANCES, LAYOUTS, REDUCERS, assert_equal, batch_of, twins

FALLS_BACK = pytest.mark.filterwarnings("ignore:.*runs the code of its peer:RuntimeWarning")
LOSSES = ["TripletMarginLoss", "ContrastiveLoss", "MarginLoss"]
PAIR_LOSSES = ["ContrastiveLoss", "SignalToNoiseRatioContrastiveLoss"]
MINERS = {
    "none": lambda: None,
    "hard": lambda: twins("BatchHardMiner"),
    "easy semihard": lambda: twins("BatchEasyHardMiner"),
    "margin": lambda: twins("TripletMarginMiner", margin=0.3),
    "pairs": lambda: twins("PairMarginMiner"),
}
BATCHES = [((1, 6, 2, 3), 1), ((2, 9), 3)]


def _refs(wanted: bool) -> Any:
    return batch_of((3, 3, 2), 104) if wanted else None


class _Called(torch.nn.Module):
    """A loss, and what a test makes of its answer."""

    def __init__(self, loss: Any, made: Any) -> None:
        super().__init__()
        self.loss, self.made = loss, made

    def forward(self, *given: Any) -> Any:
        return self.made(self.loss(*given)) + 0 * given[0].sum()  # without a triplet: a number


def _seeds(*_: Any) -> None:
    """In the place of a miner: both losses draw the same."""
    torch.manual_seed(7)


@pytest.mark.parametrize("references", [False, True])
@pytest.mark.parametrize("reducer", ["default", "mean", "sum", "threshold"])
@pytest.mark.parametrize("name", ["TripletMarginLoss", "MarginLoss"])
def test_triplets_per_anchor(name, reducer, references):
    for batch in BATCHES:
        for count in (1, 5):
            for distance in ("L2", "L1", "snr", "cosine"):
                options = {"distance": DISTANCES[distance], "reducer": REDUCERS[reducer]}
                losses = twins(name, triplets_per_anchor=count, **options)
                assert_equal(*losses, *batch_of(*batch), (_seeds, _seeds), _refs(references))


@pytest.mark.parametrize("references", [False, True])
@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("name", LOSSES)
def test_a_reducer_that_does_nothing(name, miner, references):
    """The losses of every triplet or pair in the order of the peer, and their indices."""
    answers: list[Any] = []

    def summed(found: Any) -> Any:
        answers.append(found)
        parts = [each["losses"] for each in found.values() if torch.is_tensor(each["losses"])]
        # Weights of their own: a gradient that went to another triplet would show.
        return sum((part * torch.arange(1.0, 1 + part.numel())).sum() for part in parts)

    for batch in BATCHES:
        losses = twins(name, reducer=reducers.DoNothingReducer)
        called = [_Called(loss, summed) for loss in losses]
        assert_equal(*called, *batch_of(*batch), MINERS[miner](), _refs(references))
        ours, theirs = answers[-2:]
        assert ours.keys() == theirs.keys()
        for part, other in zip(ours.values(), theirs.values(), strict=True):
            assert part["reduction_type"] == other["reduction_type"]
            for one, two in zip(part["indices"] or (), other["indices"] or (), strict=True):
                assert torch.equal(one, two)


PER_ANCHOR = {
    "mean": reducers.MeanReducer,
    "avg non zero": reducers.AvgNonZeroReducer,
    "threshold": lambda: reducers.ThresholdReducer(low=0.2),
    "sum": reducers.SumReducer,
}


@pytest.mark.parametrize("reducer", PER_ANCHOR)
@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_a_reducer_of_every_anchor(name, miner, reducer):
    for batch in BATCHES:
        losses = twins(name, reducer=lambda: reducers.PerAnchorReducer(PER_ANCHOR[reducer]()))
        assert_equal(*losses, *batch_of(*batch), MINERS[miner]())


def test_a_reducer_for_each_part():
    for miner in MINERS.values():
        for parts in (
            {"pos_loss": reducers.MeanReducer, "neg_loss": reducers.SumReducer},
            {"pos_loss": reducers.SumReducer, "neg_loss": reducers.PerAnchorReducer},
            {"neg_loss": reducers.AvgNonZeroReducer},
        ):

            def several(parts=parts):
                return reducers.MultipleReducers({name: kind() for name, kind in parts.items()})

            losses = twins("ContrastiveLoss", reducer=several)
            assert_equal(*losses, *batch_of((4, 4, 4), 5), miner())


REGULARIZERS = {
    "length": regularizers.LpRegularizer,
    "squared": lambda: regularizers.LpRegularizer(p=2, power=2),
    "mean": regularizers.ZeroMeanRegularizer,
}


@pytest.mark.parametrize("references", [False, True])
@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("name", [*LOSSES, PAIR_LOSSES[1]])
def test_embedding_regularizer(name, regularizer, miner, references):
    for reducer in ("default", "sum"):
        losses = twins(
            name,
            embedding_regularizer=REGULARIZERS[regularizer],
            embedding_reg_weight=0.3,
            reducer=REDUCERS[reducer],
        )
        batch = batch_of((1, 6, 2, 3), 8)
        assert_equal(*losses, *batch, MINERS[miner](), _refs(references))
        assert losses[0].sub_loss_names() == losses[1].sub_loss_names()


@pytest.mark.parametrize("references", [False, True])
@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("reducer", sorted(REDUCERS))
def test_signal_to_noise_ratio_contrastive_loss(reducer, miner, references):
    for batch in BATCHES:
        for near, far in ((0, 1), (0.2, 0.8), (0.01, 0.2)):
            losses = twins(
                PAIR_LOSSES[1], pos_margin=near, neg_margin=far, reducer=REDUCERS[reducer]
            )
            assert_equal(*losses, *batch_of(*batch), MINERS[miner](), _refs(references))


def test_signal_to_noise_ratio_contrastive_loss_takes_no_other_distance():
    for kind in (0, 1):
        with pytest.raises(AssertionError, match="SNRDistance"):
            twins(PAIR_LOSSES[1], distance=DISTANCES["L2"])[kind]


CUTOFFS = [
    *(
        ("TripletMarginMiner", {"margin": margin, "type_of_triplets": kind})
        for margin in (-0.2, 0.0, 0.05, 1.5)
        for kind in ("all", "hard", "semihard", "easy")
    ),
    *(
        ("PairMarginMiner", {"pos_margin": near, "neg_margin": far})
        for near, far in ((0.2, 0.8), (0.0, 2.0), (0.9, 0.5), (-1.0, 0.0))
    ),
    *(
        ("BatchEasyHardMiner", {"allowed_pos_range": near, "allowed_neg_range": far})
        for near, far in (((0.2, 1.1), None), (None, (0.9, 1.3)), ((0.4, 1.4), (0.3, 1.5)))
    ),
]


@FALLS_BACK
@pytest.mark.parametrize("references", [False, True])
@pytest.mark.parametrize(("name", "options"), CUTOFFS)
def test_cutoffs_of_miners(name, options, references):
    refs = _refs(references)
    for batch in (batch_of(layout, 6) for layout in LAYOUTS):
        ours, theirs = twins(name, **options)
        found, expected = (each(*batch, *(refs or ())) for each in (ours, theirs))
        assert [each.tolist() for each in found] == [each.tolist() for each in expected]
        if max(map(len, expected)) <= 1:
            continue  # ContrastiveLoss of the peer ignores one pair of each kind
        for loss in LOSSES:
            assert_equal(*twins(loss), *batch, (ours, theirs), refs)


@FALLS_BACK
def test_other_cutoffs_of_weights_draw_as_the_peer():
    rows, labels = batch_of((4, 4, 4), 9)
    for options in ({"cutoff": 0.3}, {"nonzero_loss_cutoff": 1.2}):
        found = []
        for miner in twins("DistanceWeightedMiner", **options):
            torch.manual_seed(3)
            found.append([each.tolist() for each in miner(rows, labels)])
        assert found[0] == found[1]
