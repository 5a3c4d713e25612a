# SPDX-License-Identifier: BSD-3-Clause
"""Random numbers that depend on a seed and three indices only, and the weights they are used on."""

from __future__ import annotations

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def draw_seed(generator: torch.Generator | None = None) -> Tensor:
    """0-dim int64: the one number that a call takes from the generator."""
    return torch.randint(2**63 - 1, (), generator=generator, device="cpu")


def uniform(seed: Tensor, anchor: Tensor, positive: Tensor, draw: Tensor) -> Tensor:
    """Float64 in [0, 1), of the broadcast shape: splitmix64 of seed, anchor, positive and draw.

    Every triplet has a number of its own, whatever the order in which they are visited.
    """
    state = seed.to(anchor.device)
    for index in (anchor, positive, draw):
        state = _mix(state + _signed(_GOLDEN) * (index + 1))
    return _shifted(state, 11).double() / 2**53


def sphere_weights(distance: Tensor, allowed: Tensor, features: int) -> Tensor:
    """1 / q(d) per row, up to a factor; 0 where not allowed or from 1.4 on.

    q(d) = d^(D-2) (1 - d^2/4)^((D-3)/2) is the density of the distance of two random points of the
    unit sphere; below 0.5 it is taken as at 0.5 (Wu et al., arXiv 1706.07567, section 4.1).
    """
    near = allowed & (distance < 1.4)
    d = torch.where(near, distance, 1.0).clamp(min=0.5)
    log_density = (features - 2) * d.log() + (features - 3) / 2 * (1 - d * d / 4).log()
    logit = torch.where(near, -log_density, -torch.inf)
    return torch.where(near, (logit - logit.amax(1, keepdim=True)).exp(), 0.0)


def _mix(z: Tensor) -> Tensor:
    """The finaliser of splitmix64; int64 wraps around as uint64 does."""
    for shift, factor in _MIX:
        z = (z ^ _shifted(z, shift)) * _signed(factor)
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, by: int) -> Tensor:
    """Shifted right without its sign."""
    return (z >> by) & ((1 << 64 - by) - 1)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
