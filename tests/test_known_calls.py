# SPDX-License-Identifier: BSD-3-Clause
"""Calls that repeat the words of an earlier one skip the checks: never what they would refuse, and
never with another result."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.autograd import forward_ad

from error_inputs import BASE, LABELS
from flashmetric import _C, TripletLoss
from flashmetric.functional import mine_triplets, triplet_loss
from op_errors import ERRORS
from test_dispatcher import _Recorder

ROWS = torch.randn(6, 3, generator=torch.Generator().manual_seed(3))
WORDS: list[dict[str, Any]] = [
    {},
    {"distance": "cosine", "normalize": True},
    {"distance": "minkowski(3)", "soft_margin": True},
    {"invalid": "count", "soft_margin": True},
    {"reduction": "sum", "impl": "fused"},
    {"reduction": "mean_active"},
]
# What is no word of a call, but changes what it means.
OTHERS: list[dict[str, Any]] = [
    {"ignore_label": 0},
    {"weights": torch.tensor([1.0, 0.0, 2.0, 1.0, 0.0, 3.0])},
    {"ref_embeddings": ROWS[:4] + 1, "ref_labels": LABELS[:4]},
    {"labels": None, "same_mask": LABELS[:, None] != LABELS.flip(0)},
]


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    """A table of its own for each test."""
    monkeypatch.setitem(triplet_loss.__globals__, "_known", type(_table())())


def _table() -> Any:
    return triplet_loss.__globals__["_known"]


def _step(rows: torch.Tensor, labels: torch.Tensor, **options: Any) -> list[torch.Tensor]:
    rows = rows.detach().clone().requires_grad_()
    loss = triplet_loss(rows, labels, **options)
    cotangent = torch.linspace(1, 2, loss.numel()).reshape(loss.shape).to(loss.dtype)
    (gradient,) = torch.autograd.grad(loss, rows, cotangent)
    return [loss.detach(), gradient]


@pytest.mark.parametrize("words", WORDS, ids=str)
@pytest.mark.parametrize("margin", [None, 1, 0.25])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_second_call_is_the_first(words, margin, dtype):
    rows = ROWS.to(dtype)
    first = _step(rows, LABELS, margin=margin, **words)
    assert _table()._known
    before = _C.counters()
    second = _step(rows, LABELS, margin=margin, **words)
    after = _C.counters()
    assert after["mine"] == before["mine"] + 1
    assert after["triplet"] > before["triplet"]
    for one, other in zip(first, second, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_the_margin_is_that_of_the_call():
    losses = [triplet_loss(ROWS, LABELS, margin=margin).item() for margin in (0.5, 7, None, 0.5)]
    assert losses[0] == losses[3]
    assert losses[2] == triplet_loss(ROWS, LABELS, margin=1.0).item()
    assert losses[1] > losses[2] > losses[0]


@pytest.mark.parametrize("others", OTHERS, ids=lambda others: next(reversed(others)))
def test_what_is_no_word_is_never_left_out(others):
    """Neither learned from a call that has it, nor dropped after one without it."""
    given = {"embeddings": ROWS, "labels": LABELS} | others
    with_others = triplet_loss(**given)
    assert not _table()._known
    plain = triplet_loss(ROWS, LABELS)
    assert _table()._known
    assert torch.equal(triplet_loss(**given), with_others)
    assert torch.equal(triplet_loss(ROWS, LABELS), plain)
    assert not torch.equal(with_others, plain)


@pytest.mark.parametrize(
    "case", [each for each in ERRORS if each.base == "triplet_loss"], ids=lambda case: case.message
)
def test_checks_still_refuse(case):
    name, options = BASE[case.base]
    triplet_loss(**options)
    assert _table()._known
    with pytest.raises(case.error) as caught:
        triplet_loss(**(options | case.change))
    assert str(caught.value) == f"[{name}] {case.message}"


def test_rows_of_jaccard_are_looked_at_every_time():
    rows = ROWS.abs()
    first = triplet_loss(rows, LABELS, distance="jaccard")
    assert torch.equal(triplet_loss(rows, LABELS, distance="jaccard"), first)
    with pytest.raises(ValueError, match="embeddings must not be negative"):
        triplet_loss(-rows, LABELS, distance="jaccard")


@pytest.mark.parametrize("margin", [float("nan"), float("inf"), torch.tensor(float("nan")), "1"])
def test_margins_are_looked_at_every_time(margin):
    triplet_loss(ROWS, LABELS, margin=0.5)
    with pytest.raises((ValueError, TypeError), match="margin must be"):
        triplet_loss(ROWS, LABELS, margin=margin)


@pytest.mark.parametrize("words", WORDS, ids=str)
def test_any_layout(words):
    wide = torch.randn(3, 12, generator=torch.Generator().manual_seed(4))
    rows, labels = wide.t()[::2], LABELS.repeat_interleave(2)[::2]
    assert not rows.is_contiguous()
    assert not labels.is_contiguous()
    expected = _step(rows.contiguous(), LABELS, **words)
    leaf = wide.clone().requires_grad_()
    loss = triplet_loss(leaf.t()[::2], labels, **words)
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert torch.equal(loss, expected[0])
    assert torch.equal(gradient.t()[::2], expected[1])
    assert not gradient.t()[1::2].any()


def test_the_graph_of_a_known_call():
    triplet_loss(ROWS, LABELS, margin=3)
    rows = ROWS.clone().requires_grad_()
    loss = triplet_loss(rows, LABELS, margin=3)
    (once,) = torch.autograd.grad(loss, rows, torch.tensor(2.0), retain_graph=True)
    (again,) = torch.autograd.grad(loss, rows, torch.tensor(1.0), retain_graph=True)
    assert once.any()
    assert torch.equal(once, 2 * again)
    again.zero_()  # what a caller does to a gradient is no matter of the graph
    (first,) = torch.autograd.grad(loss, rows, create_graph=True)
    assert torch.equal(2 * first, once)
    with pytest.raises(RuntimeError, match=r"\[triplet_loss\] double backward is not supported"):
        first.sum().backward()


def test_who_watches_sees_the_op():
    expected = triplet_loss(ROWS, LABELS)
    with _Recorder() as recorder:
        loss = triplet_loss(ROWS.clone().requires_grad_(), LABELS)
    assert torch.equal(loss, expected)
    assert [call.name() for call, *_ in recorder.calls] == ["flashmetric::mined_triplet"]


def test_the_reference_and_statistics_are_not_learned():
    expected, stats = triplet_loss(ROWS, LABELS, return_stats=True)
    before = _C.counters()["mine"]
    triplet_loss(ROWS, LABELS, impl="reference")
    assert _C.counters()["mine"] == before
    triplet_loss(ROWS, LABELS, reduction="none")
    assert not _table()._known
    assert torch.equal(triplet_loss(ROWS, LABELS), expected)
    again = triplet_loss(ROWS, LABELS, return_stats=True)[1]
    assert all(torch.equal(a, b) for a, b in zip(stats, again, strict=True))


def test_without_gradient():
    triplet_loss(ROWS.clone().requires_grad_(), LABELS)
    assert not triplet_loss(ROWS, LABELS).requires_grad
    with torch.no_grad():
        assert not triplet_loss(ROWS.clone().requires_grad_(), LABELS).requires_grad


def test_transforms_and_labels_of_other_dtypes_go_by_the_checks():
    expected = triplet_loss(ROWS, LABELS)
    gradient = torch.func.grad(lambda rows: triplet_loss(rows, LABELS))(ROWS)
    assert torch.equal(gradient, _step(ROWS, LABELS)[1])
    for dtype in (torch.int32, torch.uint8, torch.float32):
        assert torch.equal(triplet_loss(ROWS, LABELS.to(dtype)), expected)
    with pytest.raises(RuntimeError, match=r"torch\.vmap is not supported"):
        torch.func.vmap(lambda rows: triplet_loss(rows, LABELS))(ROWS[None])


def test_a_module_profits():
    loss = TripletLoss(margin=0.5)
    first = loss(ROWS, LABELS)
    assert len(_table()._known) == 1
    assert torch.equal(loss(ROWS, LABELS), first)
    assert len(_table()._known) == 1


def test_forward_mode_differentiation_is_refused_every_time():
    rows = ROWS.clone()
    for _ in range(3):
        triplet_loss(rows, LABELS)
        with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="jvp"):
            triplet_loss(forward_ad.make_dual(rows, torch.ones_like(rows)), LABELS)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_trace_of_torch_jit_is_refused():
    """It would see outputs that nothing ever fills."""
    triplet_loss(ROWS, LABELS)
    with pytest.raises(RuntimeError, match=r"torch\.jit\.trace is not supported"):
        torch.jit.trace(triplet_loss, (ROWS, LABELS), check_trace=False)


def test_torch_compile_does_not_look_into_kernels():
    """pytest makes its warning an error: of a list, whose length breaks the graph by default."""

    def mine(rows: torch.Tensor) -> Any:
        return mine_triplets(rows, LABELS, mining="hard_all")

    compiled, expected = torch.compile(mine, backend="aot_eager"), mine(ROWS)
    for ours, theirs in zip(compiled(ROWS), expected, strict=True):
        assert torch.equal(ours, theirs)
