# SPDX-License-Identifier: BSD-3-Clause
"""Mining rules and losses of the reference on lines of points, with values found by hand."""

from __future__ import annotations

import math

import pytest
import torch

from flashmetric import reference
from flashmetric.reference.sampling import sphere_weights, uniform

# Rows 0, 2 | 3, 7. d_ap: 2, 2, 4, 4; d_an: (3, 7), (1, 5), (3, 1), (7, 5).
LINE = torch.tensor([[0.0], [2.0], [3.0], [7.0]])
PAIRED = torch.tensor([0, 0, 1, 1])


def _mined(mining, **options):
    triplets = reference.mine_triplets(LINE, PAIRED, mining=mining, **options)
    return [tuple(each) for each in torch.stack(triplets, 1).tolist()]


NEGATIVES = {  # of anchors 0, 1, 2, 3, whose positives are 1, 0, 3, 2
    0.0: [3, 3, 0, 0],  # the farthest
    0.25: [3, 3, 0, 0],  # beyond 2 + 5/2, 2 + 3/2, 4 (none, so the farthest), 4 + 3/2
    0.5: [2, 3, 0, 1],  # beyond 2, 2, 4 (none), 4
    0.75: [2, 3, 0, 1],  # from 2, 2 - 1/2, 4 - 3/2, 4 on
    1.0: [2, 2, 1, 1],  # the nearest
}


@pytest.mark.parametrize("hardness", NEGATIVES)
def test_semihard_by_hardness(hardness):
    expected = list(zip(range(4), (1, 0, 3, 2), NEGATIVES[hardness], strict=True))
    assert _mined("semihard", hardness=hardness) == expected
    assert _mined("semihard", hardness=torch.tensor(hardness)) == expected
    if hardness == 0.5:
        assert _mined("semihard") == expected
        assert _mined("semihard", fallback="drop") == [expected[i] for i in (0, 1, 3)]
        assert _mined("easy_hard") == [expected[i] for i in (0, 1, 3)]


def test_sets_part_all_triplets_by_their_gap():
    semihard, hard, easy = (_mined(f"{name}_all") for name in ("semihard", "hard", "easy"))
    assert semihard == [(0, 1, 2), (3, 2, 1)]
    assert hard == [(1, 0, 2), (2, 3, 0), (2, 3, 1)]
    assert easy == [(0, 1, 3), (1, 0, 3), (3, 2, 0)]
    assert sorted(semihard + hard + easy) == _mined("all")
    per_anchor = torch.tensor([5.0, 1.0, 1.0, 0.5])
    assert _mined("semihard_all", mining_margin=per_anchor) == [(0, 1, 2), (0, 1, 3)]


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [
        ("hard", "hard", [(2, 4)]),
        ("easy", "hard", [(1, 4)]),
        ("hard", "easy", [(2, 3)]),
        ("easy", "semihard", [(1, 5)]),
        ("hard", "semihard", [(2, 3)]),
        ("semihard", "hard", []),
        ("semihard", "easy", [(2, 3)]),
        ("all", "hard", [(1, 4), (2, 4)]),
        ("easy", "all", [(1, 3), (1, 4), (1, 5)]),
    ],
)
def test_easy_and_hard_sides(positive, negative, expected):
    """Anchor 0 has positives at 3 and 6, negatives at 9, 2 and 4."""
    rows = torch.tensor([[0.0], [3.0], [-6.0], [9.0], [2.0], [-4.0]])
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    triplets = reference.mine_triplets(
        rows, labels, mining="easy_hard", positive_mining=positive, negative_mining=negative
    )
    of_anchor_0 = torch.stack(triplets[1:], 1)[triplets.anchor == 0].tolist()
    assert [tuple(each) for each in of_anchor_0] == expected


def test_random_numbers_are_those_of_splitmix64():
    """Of seed 0, splitmix64 gives 0xE220A8397B1DCDAF first: the state after the anchor 0."""
    wrap = 2**64

    def mixed(z):
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
            z = (z ^ z >> shift) * factor % wrap
        return z

    golden = 0x9E3779B97F4A7C15
    assert mixed(golden) == 0xE220A8397B1DCDAF
    state = mixed((0xE220A8397B1DCDAF + 8 * golden) % wrap)
    expected = (mixed((state + 3 * golden) % wrap) >> 11) / 2**53
    indices = torch.tensor([[0], [7], [2]])
    assert uniform(torch.tensor(0), *indices).tolist() == [expected]


def test_each_triplet_has_a_random_number_of_its_own():
    """Leaving out a row changes no draw of the others, nor does the number of draws."""
    labels = torch.arange(30) % 3
    rows = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))

    def draw(n, **options):
        generator = torch.Generator().manual_seed(1)
        return reference.mine_triplets(rows[:n], labels[:n], generator=generator, **options)

    triplets = draw(30, mining="random", n_negatives=5)
    assert (labels[triplets.anchor] == labels[triplets.positive]).all()
    assert (labels[triplets.anchor] != labels[triplets.negative]).all()
    assert len(triplets.anchor) == 30 * 9 * 5
    assert triplets.negative.bincount().min() > 0
    once = draw(30, mining="random")
    assert torch.equal(once.negative, triplets.negative[::5])
    assert torch.equal(draw(30, mining="random").negative, once.negative)


def test_weights_on_the_sphere():
    """In three dimensions q(d) = d; from 1.4 on there is no weight, below 0.5 it is flat."""
    distance = torch.tensor([[0.25, 0.5, 1.0, 1.5, 1.0]], dtype=torch.float64)
    allowed = torch.tensor([[True, True, True, True, False]])
    weights = sphere_weights(distance, allowed, 3)
    assert weights.tolist() == [[1.0, 1.0, pytest.approx(0.5), 0.0, 0.0]]
    flat = sphere_weights(distance, allowed, 2)  # q(d) = (1 - d^2 / 4)^(-1/2)
    assert flat[0, 2] == pytest.approx(math.sqrt(0.75 / (1 - 1 / 16)))
    far = torch.tensor([[1.5, 1.9]], dtype=torch.float64)
    assert sphere_weights(far, torch.ones(1, 2, dtype=torch.bool), 3).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
    ("options", "each", "mean"),
    [
        ({"mining": "semihard"}, [0.0, 0.0, 2.0, 0.0], 0.5),
        ({"mining": "semihard", "reduction": "mean_active"}, None, 2.0),
        ({"mining": "semihard", "fallback": "drop"}, [0.0, 0.0, 0.0, 0.0], 0.0),
        ({"mining": "all"}, [0.0, 2.0, 6.0, 0.0], 8 / 3),
        ({"mining": "all", "margin": 2.0}, [1.0, 3.0, 8.0, 1.0], 13 / 5),
        ({"mining": "hard_all"}, [0.0, 2.0, 6.0, 0.0], 8 / 3),
        ({"mining": "easy_all", "mining_margin": 0.5, "margin": 2.0}, [1.0, 0.0, 0.0, 1.0], 1.0),
        ({"mining": "easy_hard", "negative_mining": "all"}, [0.0, 2.0, 6.0, 0.0], 1.0),
        ({"mining": "soft", "temperature": 1e-3}, [0.0, 2.0, 4.0, 0.0], 1.5),
    ],
)
def test_triplet_losses_on_a_line(options, each, mean):
    """With margin 1, anchor 0: 2 - 3 + 1, 2 - 7 + 1; 1: 2 - 1 + 1, 2 - 5 + 1; and so on."""
    assert reference.triplet_loss(LINE, PAIRED, **options) == pytest.approx(mean)
    if each is not None:
        none = reference.triplet_loss(LINE, PAIRED, reduction="none", **options)
        assert none.tolist() == each


def test_statistics_of_a_set_count_each_pair_once():
    _, stats = reference.triplet_loss(LINE, PAIRED, mining="all", return_stats=True)
    assert [value.item() for value in stats] == [4, 3 / 8, 3, 4, 4, 1, 3]
    _, stats = reference.triplet_loss(LINE, PAIRED, mining="hard_all", return_stats=True)
    assert [value.item() for value in stats] == [2, 1, 3, 4, 4, 1, 3]
    _, stats = reference.triplet_loss(LINE, PAIRED, mining="semihard", return_stats=True)
    assert [value.item() for value in stats] == [4, 1 / 4, 3, 4, 4, 3, 3]


def test_semihard_counts_pairs_without_any_negative():
    """The value of TensorFlow and sentence-transformers: d_an = 0."""
    rows, labels = LINE[:2].clone().requires_grad_(), torch.zeros(2)
    options = {"mining": "semihard", "return_stats": True}
    loss, stats = reference.triplet_loss(rows, labels, invalid="count", **options)
    loss.backward()
    assert loss == 2.0 + 1.0
    assert rows.grad.flatten().tolist() == [-1.0, 1.0]
    assert not any(stats[:-1])
    assert reference.triplet_loss(rows, labels, **options)[0] == 0


@pytest.mark.parametrize("detach_weights", [False, True])
def test_softmax_weights(detach_weights):
    """Negatives at 2 and 2 + ln 2 weigh 2/3 and 1/3; the slope of their mean m is
    w_k (1 - (d_k - m)), or w_k without a gradient through the weights."""
    far = 2 + math.log(2)
    rows = torch.tensor([[0.0], [1.0], [2.0], [far]], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[0, 1, 0, 0]] + [[1, 1, 1, 1]] * 3, dtype=torch.bool)
    options = {"mining": "soft", "detach_weights": detach_weights, "reduction": "none"}
    each = reference.triplet_loss(rows, same_mask=mask, margin=3.0, **options)
    mean = 2 + math.log(2) / 3
    assert each.tolist() == [pytest.approx(1 - mean + 3), 0, 0, 0]
    each.sum().backward()
    slopes = [weight * (1 - (d - mean)) for weight, d in ((2 / 3, 2), (1 / 3, far))]
    if detach_weights:
        slopes = [2 / 3, 1 / 3]
    assert rows.grad.flatten().tolist() == pytest.approx([-1 + 1, 1, -slopes[0], -slopes[1]])


def test_contrastive_pairs_of_the_specification():
    x = torch.tensor([(0, 0), (1, 1), (2, 2), (5, 5)], dtype=torch.float64)
    y = torch.tensor([(0.1, -0.1), (1.2, 1.1), (3, 2.8), (4.6, 5.2)], dtype=torch.float64)
    similar = torch.tensor([1, 1, 0, 0])
    loss = reference.contrastive_pairs_loss(x, y, similar)
    assert f"{loss.item():.7f}" == "0.0938932"
    index = torch.arange(4)
    options = {"embeddings": x, "ref_embeddings": y, "half": True, "reduction": "none"}
    each = reference.contrastive_pairs_loss(index, index, similar.bool(), **options)
    assert each.tolist() == pytest.approx([0.01, 0.025, 0.0, (1 - math.sqrt(0.2)) ** 2 / 2])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 1 + 0.25 / 2),
        ({"reduction": "mean_active"}, 1 + 0.25),
        ({"reduction": "mean_pairs"}, 2.5 / 6),
        ({"reduction": "sum"}, 2.5),
        ({"reduction": "sum", "half": True}, 1.25),
        ({"reduction": "sum", "power": 1, "pos_margin": 0.25}, 2 * 0.75 + 2 * 0.5),
        ({"reduction": "sum", "weights": torch.tensor([1.0, 3.0, 5.0])}, 2 * 3 + 2 * 15 / 4),
        ({"weights": torch.tensor([1.0, 3.0, 5.0])}, 1 + 15 / 4 / (15 + 5)),
    ],
)
def test_contrastive_loss_on_a_line(options, expected):
    """Rows 0, 1 | 3: a positive pair at 1, negative pairs at 3 and 2 (margin 2.5), all twice."""
    rows = torch.tensor([[0.0], [1.0], [3.0]], requires_grad=True)
    labels = torch.tensor([0, 0, 1])
    loss = reference.contrastive_loss(rows, labels, margin=2.5, **options)
    assert loss.item() == pytest.approx(expected)
    if options == {"reduction": "sum"}:
        loss.backward()
        assert rows.grad.flatten().tolist() == [-4.0, 4.0 + 2.0, -2.0]
        options = {"margin": 2.5, "reduction": "none", "return_stats": True}
        each, stats = reference.contrastive_loss(rows, labels, **options)
        assert each.tolist() == [1.0, 1.25, 0.25]
        assert [value.item() for value in stats[:6]] == [2, pytest.approx(4 / 6), 1, 2.5, 1, 2]


def test_online_contrastive_loss_on_a_line():
    """Rows 0, 4 | 1, 9: positives at 4 and 8, both beyond 1; negatives 1, 9, 3, 5: 9 is not below
    8, and within the margin is 1 only."""
    rows, labels = torch.tensor([[0.0], [4.0], [1.0], [9.0]]), torch.tensor([0, 0, 1, 1])
    loss, stats = reference.online_contrastive_loss(rows, labels, margin=2.0, return_stats=True)
    assert loss == 2 * (16 + 64 + 1)
    assert [value.item() for value in stats[:6]] == [4, 0.5, 6, 4.5, 8, 1]
    options = {"margin": 2.0, "reduction": "mean"}
    assert reference.online_contrastive_loss(rows, labels, **options) == pytest.approx(16.2)
    apart = torch.tensor([0, 1, 0, 1])  # positives at 1 and 5, negatives at 4, 9, 3 and 8
    assert reference.online_contrastive_loss(rows, apart, margin=2.0) == 2 * 25
    assert reference.online_contrastive_loss(rows[:3], apart[:3]) == 0


def test_quadruplet_loss_on_a_line():
    """Rows 0, 1 | 3 | 4: n1 is row 2 for both anchors, at 9 and 4, and n2 is row 3, at 1."""
    rows, labels = torch.tensor([[0.0], [1.0], [3.0], [4.0]]), torch.tensor([0, 0, 1, 2])
    assert reference.quadruplet_loss(rows, labels) == 0.5
    options = {"margin1": 5.0, "reduction": "none"}
    assert reference.quadruplet_loss(rows, labels, **options).tolist() == [0.5, 2.5, 0, 0]
    without = torch.tensor([0, 0, 1, 1])
    assert reference.quadruplet_loss(rows, without, **options).tolist() == [0, 2, 2, 0]
    index = torch.tensor([[0], [1], [2], [3]])
    assert reference.quadruplet_margin_loss(*index, embeddings=rows, margin1=9.0) == 1.5


def test_margin_loss_on_a_line():
    """Rows 0, 1 | 3, beta 1.5, margin 1: 1/2 and 0 of anchor 0, 1/2 and 1/2 of anchor 1."""
    rows, labels = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([0, 0, 1])
    beta = torch.tensor(1.5, requires_grad=True)
    options = {"margin": 1.0, "mining": "hard", "normalize": False}
    loss = reference.margin_loss(rows, labels, beta=beta, **options)
    loss.backward()
    assert loss == 0.75
    assert beta.grad == (-1 + (-1 + 1)) / 2
    assert reference.margin_loss(rows, labels, beta=1.5, reduction="mean_active", **options) == 0.5
    betas = torch.full((3,), 1.5, requires_grad=True)
    reference.margin_loss(rows, labels, beta=betas, reduction="sum", **options).backward()
    assert betas.grad.tolist() == [-1.0, 0.0, 0.0]
