# SPDX-License-Identifier: BSD-3-Clause
"""Schedules: their values, what a state_dict carries, and that nothing compiles twice."""

from __future__ import annotations

import copy
import io
import math
import pickle

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from compare import ulp
from flashmetric import (
    CosineSchedule,
    LinearSchedule,
    StepSchedule,
    TripletLoss,
    triplet_loss,
)
from flashmetric.schedules import Schedule
from samples import class_batch

SCHEDULES = [
    (LinearSchedule(0.1, 0.7, 7), lambda t: 0.1 + 0.6 * min(t / 7, 1)),
    (LinearSchedule(2, -1.0, 3), lambda t: 2 - 3 * min(t / 3, 1)),
    (CosineSchedule(0.0, 0.9, 6), lambda t: 0.9 * (1 - math.cos(math.pi * min(t / 6, 1))) / 2),
    (StepSchedule([0.1, 0.4, 0.3], [2, 5]), lambda t: 0.1 if t < 2 else 0.4 if t < 5 else 0.3),
]
ids = [repr(schedule) for schedule, _ in SCHEDULES]


@pytest.mark.parametrize(("schedule", "formula"), SCHEDULES, ids=ids)
def test_values(schedule, formula):
    schedule = copy.deepcopy(schedule)
    value = schedule()
    address = value.data_ptr()
    for taken in range(10):
        assert (value.dtype, value.shape) == (torch.float32, ())
        # t / steps, the cosine and the way between the ends: each rounds once, of numbers below 3.
        assert abs(value.item() - formula(taken)) <= 4 * ulp(3.0, torch.float32)
        assert schedule.count.item() == taken
        schedule.step()
    assert schedule() is value
    assert value.data_ptr() == address


@pytest.mark.parametrize(("schedule", "formula"), SCHEDULES, ids=ids)
def test_ends_are_exact(schedule, formula):
    schedule = copy.deepcopy(schedule)
    assert schedule().item() == torch.tensor(formula(0), dtype=torch.float32).item()
    for _ in range(schedule.steps + 2):
        schedule.step()
    assert schedule().item() == torch.tensor(formula(99), dtype=torch.float32).item()


@pytest.mark.parametrize(("schedule", "formula"), SCHEDULES, ids=ids)
def test_an_anti_curriculum_goes_from_the_last_value_to_the_first(schedule, formula):
    backwards = schedule.anti_curriculum()
    assert type(backwards) is type(schedule)
    assert backwards.steps == schedule.steps
    assert backwards().item() == torch.tensor(formula(99), dtype=torch.float32).item()
    for _ in range(schedule.steps):
        backwards.step()
    assert backwards().item() == torch.tensor(formula(0), dtype=torch.float32).item()
    assert repr(backwards.anti_curriculum()) == repr(schedule)


@pytest.mark.parametrize(("schedule", "formula"), SCHEDULES, ids=ids)
def test_a_state_dict_resumes(schedule, formula):
    running, resumed = copy.deepcopy(schedule), copy.deepcopy(schedule)
    for _ in range(2):
        running.step()
    buffer = io.BytesIO()
    torch.save(running.state_dict(), buffer)
    buffer.seek(0)
    value = resumed()
    resumed.load_state_dict(torch.load(buffer))
    assert resumed() is value
    assert resumed().item() == running().item()
    for each in (running, resumed, pickle.loads(pickle.dumps(running))):
        each.step()
        assert each().item() == pytest.approx(formula(3), rel=2**-22)


def test_an_outer_module_carries_and_moves_it():
    outer = torch.nn.Module()
    outer.margin = LinearSchedule(0.0, 1.0, 10)
    assert set(outer.state_dict()) == {"margin.value", "margin.count"}
    assert list(outer.parameters()) == []
    outer.to(torch.float64)
    outer.margin.step()
    assert outer.margin().dtype == torch.float64
    assert outer.margin.count.dtype == torch.int64
    outer.to("meta")
    assert outer.margin().device.type == "meta"


def test_a_step_moves_no_number_to_the_host():
    """A fake tensor has no value: whoever reads one fails."""
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        for kind in (lambda: CosineSchedule(0.0, 1.0, 10), lambda: StepSchedule([0, 1], [3])):
            schedule = kind()
            schedule.step()
            assert schedule().shape == ()


def test_it_is_a_margin_and_compiles_once():
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    margin = LinearSchedule(0.25, 1.25, 4)
    rows, labels = class_batch(24, 6, 6)

    def training_step(rows, labels):
        return triplet_loss(rows, labels, margin=margin())

    compiled = torch.compile(training_step, fullgraph=True, backend=counter)
    for expected in (0.25, 0.5, 0.75):
        assert margin().item() == expected
        loss = compiled(rows, labels)
        assert loss.item() == triplet_loss(rows, labels, margin=expected).item()
        margin.step()
    assert counter.frame_count == 1
    torch._dynamo.reset()


def test_a_loss_holds_its_schedules():
    """As margin and as hardness: asked on every call, carried by the state_dict, moved along."""
    rows, labels = class_batch(24, 6, 6)

    def made():
        return TripletLoss(
            margin=LinearSchedule(0.25, 1.25, 4),
            mining="semihard",
            hardness=StepSchedule([0.0, 1.0], [2]),
        )

    criterion = made()
    for margin, hardness in ((0.25, 0.0), (0.5, 0.0), (0.75, 1.0)):
        options = {"mining": "semihard", "margin": margin, "hardness": hardness}
        assert criterion(rows, labels).item() == triplet_loss(rows, labels, **options).item()
        criterion.margin.step()
        criterion.hardness.step()
    resumed = made()
    resumed.load_state_dict(criterion.state_dict())
    assert resumed(rows, labels).item() == criterion(rows, labels).item()
    assert [name for name, _ in criterion.named_buffers() if name.endswith("value")] == [
        "margin.value",
        "hardness.value",
    ]


def test_a_schedule_of_ones_own():
    class Inverse(Schedule):
        def at(self, count):
            return 1.0 / count

    schedule = Inverse(3)
    values = []
    for _ in range(4):
        schedule.step()
        values.append(schedule().item())
    assert values == [1.0, 0.5, torch.tensor(1 / 3).item(), torch.tensor(1 / 3).item()]
    with pytest.raises(NotImplementedError):
        schedule.anti_curriculum()


ERRORS = [
    (LinearSchedule, (0.0, 1.0, 0), "steps must be at least 1; got 0."),
    (LinearSchedule, (0.0, 1.0, 2.5), "steps must be an integer; got float."),
    (LinearSchedule, ("a", 1.0, 2), "start must be a number; got str."),
    (CosineSchedule, (0.0, math.nan, 2), "end must be finite; got nan."),
    (StepSchedule, ([0.1], []), "values must be one more than milestones, of which there is 0;"),
    (StepSchedule, ([0.1], [3]), "values must be one more than milestones, of which there is 1;"),
    (StepSchedule, ([0, 1], [0]), "milestones[0] must be at least 1; got 0."),
    (StepSchedule, ([0, 1, 2], [4, 4]), "milestones[1] must be at least 5; got 4."),
    (StepSchedule, ([0, True], [4]), "values[1] must be a number; got bool."),
]


@pytest.mark.parametrize(("kind", "arguments", "message"), ERRORS, ids=[e[2] for e in ERRORS])
def test_message(kind, arguments, message):
    with pytest.raises((TypeError, ValueError)) as caught:
        kind(*arguments)
    assert str(caught.value).startswith(f"[{kind.__name__}] {message}")
