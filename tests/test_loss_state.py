# SPDX-License-Identifier: BSD-3-Clause
"""What loss modules remember beyond options: learned boundaries, tensors, generators, schedules."""

from __future__ import annotations

import copy
import pickle
import re

import pytest
import torch

import flashmetric
from compare import assert_same_bits
from flashmetric import functional
from samples import class_batch

ROWS, LABELS = class_batch(24, 6, 6)
LEARNED = {"learn_beta": True, "mining": "all", "normalize": False, "margin": 0.5}


def _learned(**options):
    return flashmetric.MarginLoss(1.5, **LEARNED, **options)


def test_a_learned_boundary_is_a_parameter():
    module = _learned()
    assert [name for name, _ in module.named_parameters()] == ["beta"]
    assert list(module.state_dict()) == ["beta"]
    assert module.beta.shape == ()
    module(ROWS, LABELS).backward()
    beta = torch.tensor(1.5, requires_grad=True)
    options = {"mining": "all", "normalize": False, "margin": 0.5}
    functional.margin_loss(ROWS, LABELS, beta=beta, **options).backward()
    assert beta.grad != 0
    assert_same_bits(module.beta.grad, beta.grad)


def test_one_boundary_per_class_learns_from_its_own_class():
    module = _learned(num_classes=8)
    assert module.beta.shape == (8,)
    module(ROWS, LABELS).backward()
    beta = torch.full((24,), 1.5, requires_grad=True)
    options = {"mining": "all", "normalize": False, "margin": 0.5}
    functional.margin_loss(ROWS, LABELS, beta=beta, **options).backward()
    for number in range(8):
        share = beta.grad[LABELS.eq(number)].double().sum()
        torch.testing.assert_close(module.beta.grad[number].double(), share)


def test_a_boundary_per_class_need_not_be_learned():
    beta = torch.linspace(0.5, 2.5, 6)
    module = flashmetric.MarginLoss(beta, num_classes=6, mining="hard")
    assert list(module.parameters()) == []
    assert module.state_dict() == {}
    expected = functional.margin_loss(ROWS, LABELS, beta=beta[LABELS], mining="hard")
    assert_same_bits(module(ROWS, LABELS), expected)


def test_an_ignored_label_needs_no_boundary():
    labels = LABELS.clone()
    labels[::5] = -1
    module = _learned(num_classes=6, ignore_label=-1)
    kept = labels >= 0
    assert_same_bits(module(ROWS, labels), _learned(num_classes=6)(ROWS[kept], labels[kept]))


def test_a_boundary_moves_an_optimizer_step():
    module = _learned(num_classes=6)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    before = module(ROWS, LABELS)
    before.backward()
    optimizer.step()
    assert module(ROWS, LABELS) < before


def test_copies_of_a_learned_boundary_are_their_own():
    module = _learned(num_classes=6)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert isinstance(twin.beta, torch.nn.Parameter)
        assert_same_bits(twin(ROWS, LABELS).detach(), module(ROWS, LABELS).detach())
        with torch.no_grad():
            twin.beta.add_(1)
        assert module.beta.eq(1.5).all()
    fresh = flashmetric.MarginLoss(0.0, **LEARNED, num_classes=6)
    fresh.load_state_dict(module.state_dict())
    assert_same_bits(fresh(ROWS, LABELS).detach(), module(ROWS, LABELS).detach())


def test_what_starts_a_boundary_is_not_changed():
    start = torch.tensor(1.5)
    module = flashmetric.MarginLoss(start, learn_beta=True)
    with torch.no_grad():
        module.beta.add_(1)
    assert start == 1.5


def test_a_boundary_shows_its_numbers():
    assert repr(flashmetric.MarginLoss()) == "MarginLoss()"
    assert repr(_learned()) == (
        "MarginLoss(beta=tensor(1.5000), margin=0.5, learn_beta=True, mining='all', "
        "normalize=False)"
    )


BOUNDARY_ERRORS = [
    (TypeError, {"learn_beta": 1}, "learn_beta must be True or False; got 1."),
    (ValueError, {"num_classes": 0}, "num_classes must be an integer above 0; got 0."),
    (
        TypeError,
        {"beta": lambda: 1.0, "learn_beta": True},
        "beta must be a number or a tensor to start from; got function.",
    ),
    (
        ValueError,
        {"beta": torch.ones(5), "num_classes": 6},
        "beta must have shape () or (6,), one per class; got (5,).",
    ),
    (
        ValueError,
        {"beta": torch.ones(5), "learn_beta": True},
        "beta must have shape (); got (5,).",
    ),
    (ValueError, {"beta": float("nan"), "learn_beta": True}, "beta must be finite; got nan."),
]


@pytest.mark.parametrize(("error", "options", "message"), BOUNDARY_ERRORS)
def test_a_boundary_that_cannot_be_is_refused(error, options, message):
    with pytest.raises(error, match=re.escape(f"[MarginLoss] {message}")):
        flashmetric.MarginLoss(**options)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (LABELS.float(), ValueError, "got torch.float32 of shape (24,)."),
        (LABELS[:, None], ValueError, "num_classes needs integer labels of shape (B,); got"),
        (None, TypeError, "labels must be a tensor; got NoneType."),
        (LABELS + 1, ValueError, "labels must lie in [0, 6); got [1, 6]."),
        (LABELS - 1, ValueError, "labels must lie in [0, 6); got [-1, 4]."),
    ],
)
def test_labels_that_name_no_boundary_are_refused(labels, error, message):
    with pytest.raises(error, match=re.escape(message)) as caught:
        _learned(num_classes=6)(ROWS, labels)
    assert str(caught.value).startswith("[MarginLoss] ")


REFUSED = [
    (flashmetric.TripletLoss, {"mining": "semi"}, "mining must be one of 'hard'"),
    (flashmetric.TripletLoss, {"hardness": 0.5}, "hardness needs mining='semihard'; got 'hard'."),
    (
        flashmetric.TripletLoss,
        {"mining": "soft", "invalid": "count"},
        "invalid='count' needs mining='hard', 'semihard' or 'all'; got 'soft'.",
    ),
    (flashmetric.BatchSemiHardTripletLoss, {"fallback": "no"}, "fallback must be one of"),
    (flashmetric.MarginLoss, {"mining": "soft"}, "mining must be one of 'hard'"),
    (flashmetric.MarginLoss, {"n_negatives": 2}, "n_negatives needs mining='random'"),
    (flashmetric.ContrastiveLoss, {"reduction": "avg"}, "'mean_pairs', 'sum', 'none'; got 'avg'"),
    (flashmetric.ContrastivePairsLoss, {"reduction": "mean_pairs"}, "reduction must be one of"),
    (flashmetric.OnlineContrastiveLoss, {"reduction": "mean_active"}, "'sum', 'mean', 'none'; got"),
    (flashmetric.ContrastiveLoss, {"power": 0}, "power must be 1 or 2; got 0."),
    (flashmetric.ContrastivePairsLoss, {"power": 1.5}, "power must be 1 or 2; got 1.5."),
    *(
        (module, {"distance": "dot"}, "distance must be one that is 0 on equal rows; got 'dot'.")
        for module in (
            flashmetric.ContrastiveLoss,
            flashmetric.ContrastivePairsLoss,
            flashmetric.OnlineContrastiveLoss,
            flashmetric.QuadrupletLoss,
            flashmetric.QuadrupletMarginLoss,
        )
    ),
]


@pytest.mark.parametrize(("module", "options", "message"), REFUSED)
def test_a_module_refuses_what_its_function_refuses(module, options, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        module(**options)
    assert str(caught.value).startswith(f"[{module.__name__}] ")


@pytest.mark.parametrize("mining", ["random", "distance_weighted"])
def test_a_generator_lives_in_the_module(mining):
    """Each call takes a number from it; a copy goes on from where it was copied."""
    generator = torch.Generator().manual_seed(7)
    module = flashmetric.TripletLoss(mining=mining, generator=generator, normalize=True)
    twins = [copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
    first, second = module(ROWS, LABELS), module(ROWS, LABELS)
    for twin in twins:
        assert_same_bits(twin(ROWS, LABELS), first)
        assert_same_bits(twin(ROWS, LABELS), second)
    assert generator.initial_seed() == 7
    assert not torch.equal(generator.get_state(), torch.Generator().manual_seed(7).get_state())


def test_without_a_generator_the_seed_of_torch_decides():
    module = flashmetric.TripletLoss(mining="random", n_negatives=3)
    torch.manual_seed(3)
    first = module(ROWS, LABELS)
    torch.manual_seed(3)
    assert_same_bits(module(ROWS, LABELS), first)


def test_rules_that_draw_nothing_leave_the_generator_alone():
    before = torch.get_rng_state()
    for mining in ("hard", "semihard", "all", "soft"):
        flashmetric.TripletLoss(mining=mining)(ROWS, LABELS)
    assert torch.equal(torch.get_rng_state(), before)


def test_callables_are_asked_on_every_call():
    values = iter([0.5, 1.0, 2.0])
    module = flashmetric.QuadrupletLoss(lambda: next(values), 0.25)
    for margin1 in (0.5, 1.0, 2.0):
        expected = functional.quadruplet_loss(ROWS, LABELS, margin1=margin1, margin2=0.25)
        assert_same_bits(module(ROWS, LABELS), expected)


def test_a_schedule_is_a_submodule():
    schedule = flashmetric.LinearSchedule(0.0, 1.0, steps=4)
    module = flashmetric.BatchSemiHardTripletLoss(hardness=schedule)
    schedule.step()
    assert_same_bits(
        module(ROWS, LABELS),
        functional.triplet_loss(ROWS, LABELS, mining="semihard", hardness=0.25),
    )
    assert set(module.state_dict()) == {"hardness.value", "hardness.count"}
    assert repr(module).count("LinearSchedule") == 1


def test_tensors_follow_the_module_without_being_its_state():
    module = flashmetric.QuadrupletLoss(torch.tensor(0.5), torch.tensor(0.25))
    assert module.state_dict() == {}
    module.to("meta")
    assert module.margin1.is_meta
    assert module.margin2.is_meta


@pytest.mark.parametrize("name", ["ContrastiveLoss", "ContrastivePairsLoss"])
def test_half_is_an_option_and_a_method(name):
    module = getattr(flashmetric, name)(margin=torch.tensor(1.0), half=True)
    assert repr(module) == f"{name}(margin=tensor(1.), half=True)"
    assert module.half_ is True
    assert module.half() is module
    assert module.margin.dtype == torch.float16
