# SPDX-License-Identifier: BSD-3-Clause
"""Values that change as training goes on: of a margin, or of a hardness."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ._validate import data as check

__all__ = ["CosineSchedule", "LinearSchedule", "Schedule", "StepSchedule"]


class Schedule(nn.Module):
    """A value v(t) of the number of steps t taken so far; constant from t = `steps` on.

    Calling it gives the value of now, calling `step()` takes a step. The value is one 0-dim tensor
    for as long as the schedule lives, changed in place: torch.compile does not compile again, and
    no number travels between device and host.

    A subclass says what the value is, `at(t)`, and what it is backwards, `anti_curriculum()`.

    Buffers: value, float32, and count, int64, both 0-dim. They are in the state_dict, so a loss
    that holds a schedule resumes where it stood, and move with the module from device to device.

    References: Bengio, Louradour, Collobert, Weston, Curriculum Learning, ICML 2009 (easy examples
    first); Hacohen, Weinshall, On the Power of Curriculum Learning in Training Deep Networks,
    arXiv 1904.03626, section 2 (anti-curriculum: hard examples first); Wu, Dyer, Neyshabur, When Do
    Curricula Work?, arXiv 2012.03107 (the order matters with little time or with noisy labels).
    """

    value: Tensor
    count: Tensor

    def __init__(self, steps: int) -> None:
        super().__init__()
        check.counts(type(self).__name__, steps=steps)
        self.steps = int(steps)
        self.register_buffer("value", torch.zeros((), dtype=torch.float32))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def at(self, count: Tensor) -> Tensor:
        """The value after `count` steps, a 0-dim integer tensor of at most `steps`."""
        raise NotImplementedError

    def anti_curriculum(self) -> Schedule:
        """A new schedule from the last value to the first: hard to easy, if this is easy to hard.

        Its count is 0.
        """
        raise NotImplementedError

    def forward(self) -> Tensor:
        """The value of now: the buffer itself, not a copy."""
        return self.value

    @torch.no_grad()
    def step(self) -> None:
        """One step further. Call it after the backward pass, as a scheduler of learning rates."""
        self.count += 1
        self.value.copy_(self.at(self.count.clamp(max=self.steps)))

    def _start(self) -> None:
        self.value.copy_(self.at(self.count))


class LinearSchedule(Schedule):
    """From `start` to `end` in a straight line: v(t) = start + (end - start) min(t / steps, 1).

    A margin that grows, or a hardness that grows, is a curriculum: easy triplets first.

    Args:
        start, end: finite numbers.
        steps: how many steps the way takes, at least 1.

    Raises:
        TypeError: an argument that is not a number.
        ValueError: a number that is not finite; fewer than 1 step.

    Returns of a call: the value, a 0-dim tensor; see `Schedule`.

    Example:
        >>> import torch
        >>> from flashmetric import LinearSchedule, triplet_loss
        >>> margin = LinearSchedule(0.0, 1.0, steps=4)
        >>> rows = torch.tensor([[0.0], [3.0], [5.0], [6.0]])
        >>> for _ in range(3):
        ...     loss = triplet_loss(rows, torch.tensor([0, 0, 1, 1]), margin=margin())
        ...     print(margin().item(), loss.item())
        ...     margin.step()
        0.0 0.25
        0.25 0.3125
        0.5 0.375
        >>> LinearSchedule(0.0, 1.0, steps=4).anti_curriculum()
        LinearSchedule(start=1.0, end=0.0, steps=4)
    """

    def __init__(self, start: float, end: float, steps: int) -> None:
        super().__init__(steps)
        self.start = check.number(type(self).__name__, "start", start)
        self.end = check.number(type(self).__name__, "end", end)
        self._start()

    def at(self, count: Tensor) -> Tensor:
        return self._between(count / self.steps)

    def anti_curriculum(self) -> LinearSchedule:
        return type(self)(self.end, self.start, self.steps)

    def _between(self, share: Tensor) -> Tensor:
        """start at 0, end at 1, both exactly."""
        start, end = (torch.full_like(share, value) for value in (self.start, self.end))
        return torch.lerp(start, end, share)

    def extra_repr(self) -> str:
        return f"start={self.start}, end={self.end}, steps={self.steps}"


class CosineSchedule(LinearSchedule):
    """From `start` to `end` along half a cosine, slow at both ends.

    v(t) = start + (end - start) (1 - cos(pi min(t / steps, 1))) / 2. Arguments and errors are those
    of `LinearSchedule`.

    References: Loshchilov, Hutter, SGDR, arXiv 1608.03983, section 3 (the shape).

    Example:
        >>> from flashmetric import CosineSchedule
        >>> hardness = CosineSchedule(0.0, 0.5, steps=100)
        >>> for _ in range(50):
        ...     hardness.step()
        >>> round(hardness().item(), 6)
        0.25
    """

    def at(self, count: Tensor) -> Tensor:
        return self._between((1 - torch.cos(math.pi * (count / self.steps))) / 2)


class StepSchedule(Schedule):
    """`values[k]` between milestones: v(t) = values[number of milestones that are at most t].

    Args:
        values: finite numbers, one more than milestones.
        milestones: increasing numbers of steps, the first at least 1.

    Raises:
        TypeError: a value that is not a number, a milestone that is not an integer.
        ValueError: values and milestones that do not fit; milestones that do not increase.

    Example:
        >>> from flashmetric import StepSchedule
        >>> margin = StepSchedule([0.1, 0.5], milestones=[2])
        >>> for _ in range(3):
        ...     print(round(margin().item(), 6))
        ...     margin.step()
        0.1
        0.1
        0.5
    """

    def __init__(self, values: Sequence[float], milestones: Sequence[int]) -> None:
        op = type(self).__name__
        if len(values) != len(milestones) + 1 or not milestones:
            rule = f"values must be one more than milestones, of which there is {len(milestones)}"
            raise check.error(ValueError, op, f"{rule}; got {len(values)}.")
        for k, milestone in enumerate(milestones):
            least = milestones[k - 1] + 1 if k else 1
            check.counts(op, least=least, **{f"milestones[{k}]": milestone})
        super().__init__(milestones[-1])
        self.values = [check.number(op, f"values[{k}]", value) for k, value in enumerate(values)]
        self.milestones = [int(milestone) for milestone in milestones]
        self._start()

    def at(self, count: Tensor) -> Tensor:
        value = torch.full_like(self.value, self.values[0])
        for milestone, later in zip(self.milestones, self.values[1:], strict=True):
            value = torch.where(count >= milestone, later, value)
        return value

    def anti_curriculum(self) -> StepSchedule:
        return type(self)(self.values[::-1], self.milestones)

    def extra_repr(self) -> str:
        return f"values={self.values}, milestones={self.milestones}"
