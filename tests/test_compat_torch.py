# SPDX-License-Identifier: BSD-3-Clause
"""flashmetric.compat.torch against torch.nn: values, gradients, and where they differ."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from compat_data import (
    NARROW,
    assert_as_precise,
    assert_same,
    assert_zero,
    rows_of,
    value_and_gradients,
)
from flashmetric.compat import torch as ours

NORMS = (1, 1.5, 2, 2.0, 3, math.inf)
EPS = (0.0, 1e-6, 0.1)
REDUCTIONS = ("mean", "sum", "none")
# Of the sides; the last ones broadcast.
SHAPES = (
    [(6, 4)] * 3,
    [(4,)] * 3,
    [(2, 3, 4)] * 3,
    [(5, 1), (1, 4), (5, 4)],
    [(1, 4), (3, 4), (1, 1)],
)
CLASSES = (
    "CosineEmbeddingLoss",
    "PairwiseDistance",
    "TripletMarginLoss",
    "TripletMarginWithDistanceLoss",
)


def _sides(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]


def _call(name, signs=None, **options):
    """Functions of the sides, ours first; signs: the target of a cosine embedding."""

    def of(module):
        criterion = getattr(module, name)(**options)
        more = () if signs is None else (signs,)
        return lambda *sides: criterion(*sides, *more)

    return of(ours), of(nn)


@given(
    shapes=st.sampled_from(SHAPES),
    seed=st.integers(0, 999),
    p=st.sampled_from(NORMS),
    eps=st.sampled_from(EPS),
    swap=st.booleans(),
    margin=st.sampled_from([0.1, 1.0, 5.0]),
    reduction=st.sampled_from(REDUCTIONS),
)
def test_triplet_margin_loss(shapes, seed, **options):
    assert_same(*_call("TripletMarginLoss", **options), _sides(shapes, seed))


@given(
    shapes=st.sampled_from(SHAPES),
    seed=st.integers(0, 999),
    p=st.sampled_from(NORMS),
    eps=st.sampled_from(EPS),
    keepdim=st.booleans(),
)
def test_pairwise_distance(shapes, seed, **options):
    for sides in (shapes[:2], [(4,), (6, 4)]):
        assert_same(*_call("PairwiseDistance", **options), _sides(sides, seed))


@given(
    shape=st.sampled_from([(6, 4), (4,), (2, 3, 4)]),
    seed=st.integers(0, 999),
    p=st.sampled_from(NORMS),
    eps=st.sampled_from(EPS),
    swap=st.booleans(),
    margin=st.sampled_from([0.1, 1.0, 5.0]),
    reduction=st.sampled_from(REDUCTIONS),
)
def test_triplet_margin_with_distance_loss(shape, seed, p, eps, **options):
    functions = (None, nn.functional.pairwise_distance, ours.PairwiseDistance(p, eps))
    for function in (*functions, nn.PairwiseDistance(p, eps)):
        losses = _call("TripletMarginWithDistanceLoss", distance_function=function, **options)
        assert_same(*losses, _sides([shape] * 3, seed))


@given(
    n=st.integers(1, 9),
    seed=st.integers(0, 999),
    margin=st.sampled_from([-0.5, 0.0, 0.3, 1.0]),
    reduction=st.sampled_from(REDUCTIONS),
    data=st.data(),
)
def test_cosine_embedding_loss(n, seed, data, **options):
    signs = torch.tensor(data.draw(st.lists(st.sampled_from([1, -1]), min_size=n, max_size=n)))
    shapes = data.draw(st.sampled_from([[(n, 5)] * 2, [(1, 5), (n, 5)], [(1, 5), (1, 5)]]))
    sides = _sides(shapes, seed)
    assert_same(*_call("CosineEmbeddingLoss", signs, **options), sides)
    assert_same(*_call("CosineEmbeddingLoss", signs.double(), **options), sides)
    assert_same(*_call("CosineEmbeddingLoss", signs[0], **options), [each[0] for each in sides])


def test_other_targets_are_0_and_count():
    signs = torch.tensor([1, 0, -1, 2])
    for reduction in REDUCTIONS:
        losses = _call("CosineEmbeddingLoss", signs, reduction=reduction, margin=-1.0)
        assert_same(*losses, _sides([(4, 5)] * 2))


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_as_precise_as_torch(dtype):
    sides = _sides([(40, 24)] * 3, seed=5)
    signs = torch.where(torch.arange(40) % 3 == 0, 1, -1)
    for reduction in REDUCTIONS:
        for p in NORMS:
            for swap in (False, True):
                options = {"p": p, "swap": swap, "reduction": reduction, "margin": 2.0}
                assert_as_precise(*_call("TripletMarginLoss", **options), sides, dtype)
        losses = _call("CosineEmbeddingLoss", signs, reduction=reduction, margin=-0.2)
        assert_as_precise(*losses, sides[:2], dtype)
    for p in NORMS:
        assert_as_precise(*_call("PairwiseDistance", p=p), sides[:2], dtype)


@pytest.mark.filterwarnings("ignore:size_average and reduce")
@pytest.mark.parametrize("reduce", [None, False, True])
@pytest.mark.parametrize("size_average", [None, False, True])
def test_options_of_old(size_average, reduce):
    old = {"size_average": size_average, "reduce": reduce}
    assert_same(*_call("TripletMarginLoss", **old), _sides([(5, 3)] * 3))
    assert_same(*_call("CosineEmbeddingLoss", torch.ones(5), **old), _sides([(5, 3)] * 2))


def test_no_rows_are_0_where_torch_has_nan():
    for reduction in ("mean", "sum"):
        for swap in (False, True):
            loss = ours.TripletMarginLoss(reduction=reduction, swap=swap)
            assert_zero(loss, _sides([(0, 4)] * 3))
        mine = _call("CosineEmbeddingLoss", torch.ones(0), reduction=reduction)[0]
        assert_zero(mine, _sides([(0, 4)] * 2))
    assert nn.TripletMarginLoss()(*_sides([(0, 4)] * 3)).isnan()
    assert_same(*_call("TripletMarginLoss", reduction="none"), _sides([(0, 4)] * 3))
    assert_same(*_call("PairwiseDistance"), _sides([(0, 4)] * 2))


def test_equal_rows():
    """The shift by eps is as exact as the rows: to many digits in float64, to 1e-7 of their size in
    float32. Without eps the distance is 0, and its gradient."""
    (x,) = rows_of([0] * 5)
    for p in NORMS:
        if p != math.inf:  # whose gradient goes to the largest of gaps that differ by rounding
            assert_same(*_call("PairwiseDistance", p=p, eps=1e-3), [x, x.clone()])
        assert_zero(lambda a, b, p=p: ours.PairwiseDistance(p, eps=0.0)(a, b).sum(), [x, x])
    mine, theirs = (call(x.float(), x.float()) for call in _call("PairwiseDistance"))
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-7 * x.abs().max().item())


def test_a_hinge_at_exactly_0_has_no_slope():
    """Where the loss ends; torch goes on."""
    sides = [torch.tensor([[0.0]]), torch.tensor([[1.0]]), torch.tensor([[3.0]])]
    assert_zero(ours.TripletMarginLoss(margin=2.0, eps=0.0), sides)
    theirs = value_and_gradients(nn.TripletMarginLoss(margin=2.0, eps=0.0), sides)
    assert theirs[0] == 0
    assert theirs[2].any()


def test_a_row_of_zeros_has_no_cosine_and_no_gradient():
    x, y = torch.zeros(1, 3, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64)
    mine, theirs = (
        value_and_gradients(f, [x, y]) for f in _call("CosineEmbeddingLoss", torch.ones(1))
    )
    assert mine[0] == theirs[0] == 1
    assert not mine[1].any()
    assert theirs[1].abs().max() > 1e5


@pytest.fixture
def _unsaid(monkeypatch):
    monkeypatch.setattr("flashmetric.compat._peer._said", set())


@pytest.mark.usefixtures("_unsaid")
def test_what_has_no_kernel_runs_in_torch_and_says_so_once():
    def largest(x, y):
        return (x - y).abs().amax(-1)

    sides = _sides([(6, 4)] * 3)
    for name, options, n, reason in (
        ("PairwiseDistance", {"p": 0.5}, 2, "p is 0.5, below 1"),
        ("TripletMarginLoss", {"p": -1.0}, 3, "p is -1.0, below 1"),
        ("TripletMarginWithDistanceLoss", {"distance_function": largest}, 3, "distance_function"),
    ):
        losses = _call(name, **options)
        with pytest.warns(RuntimeWarning, match=rf"\[{name}\] runs the code of its peer: {reason}"):
            losses[0](*sides[:n])
        assert_same(*losses, sides[:n])
    keepdim = ours.PairwiseDistance(keepdim=True)
    with pytest.warns(RuntimeWarning, match="rows are torch.float64 and torch.float32"):
        keepdim(sides[0], sides[1].float())


@pytest.mark.usefixtures("_unsaid")
def test_a_device_without_kernels_runs_in_torch(monkeypatch):
    monkeypatch.setattr("flashmetric._ops.why_not_fused", lambda *_: "no such kernel")
    for name in CLASSES:
        sides = _sides([(6, 4)] * (2 if name in CLASSES[:2] else 3))
        mine, theirs = _call(name, torch.ones(6) if name == "CosineEmbeddingLoss" else None)
        with pytest.warns(RuntimeWarning, match=rf"\[{name}\] .*: no such kernel"):
            found = mine(*sides)
        assert torch.equal(found, theirs(*sides))


def test_errors_name_the_argument():
    x, y, z = _sides([(6, 4), (5, 4), (6, 4)])
    with pytest.raises(
        ValueError, match=r"\[PairwiseDistance\] x1, x2 must be rows .*got \(6, 4\), "
    ):
        ours.PairwiseDistance()(x, y)
    with pytest.raises(ValueError, match=r"\[TripletMarginLoss\] anchor, positive, negative must"):
        ours.TripletMarginLoss()(x, y, z)
    with pytest.raises(ValueError, match=r"\[TripletMarginLoss\] .* one number of dimensions"):
        ours.TripletMarginLoss()(x, z, z[0])
    with pytest.raises(ValueError, match=r"\[CosineEmbeddingLoss\] input1, input2 and target must"):
        ours.CosineEmbeddingLoss()(x, z, torch.ones(6, 1))
    with pytest.raises(ValueError, match="margin to be greater than 0"):  # torch's own
        ours.TripletMarginLoss(margin=0.0)


@pytest.mark.parametrize("name", CLASSES)
def test_modules_are_theirs(name):
    mine, theirs = getattr(ours, name)(), getattr(nn, name)()
    assert isinstance(mine, type(theirs))
    assert repr(mine) == repr(theirs)
    assert mine.state_dict() == theirs.state_dict()
    sides = _sides([(6, 4)] * (2 if name in CLASSES[:2] else 3))
    more = (torch.ones(6),) if name == "CosineEmbeddingLoss" else ()
    for twin in (copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))):
        assert torch.equal(twin(*sides, *more), mine(*sides, *more))


@pytest.mark.parametrize("name", CLASSES)
def test_a_full_graph_and_autocast(name):
    torch._dynamo.reset()
    sides = [side.float().requires_grad_() for side in _sides([(6, 4)] * 3)]
    sides = sides[: 2 if name in CLASSES[:2] else 3]
    more = (torch.ones(6),) if name == "CosineEmbeddingLoss" else ()
    criterion = getattr(ours, name)()
    expected = criterion(*sides, *more).sum()
    found = torch.compile(criterion, fullgraph=True, backend="aot_eager")(*sides, *more).sum()
    torch.testing.assert_close(found, expected)
    for got, right in zip(*(torch.autograd.grad(x, sides) for x in (found, expected)), strict=True):
        torch.testing.assert_close(got, right)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = [side.bfloat16() for side in sides]
        assert criterion(*narrow, *more).dtype == torch.float32
        torch.testing.assert_close(criterion(*narrow, *more).sum(), expected, rtol=0.03, atol=0.01)
