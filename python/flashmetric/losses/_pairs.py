# SPDX-License-Identifier: BSD-3-Clause
"""Losses that are sums over distances which the kernels have measured.

Sums are float64 and in a fixed order. On the CPU torch.sum splits a long one among the threads, so
its last bits would depend on how many there are. On a GPU index_add, and so the backward of
index_select, adds in the order in which threads arrive; what adds by sorted index is index_put, and
the backward of numbers[index].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from flashmetric import _autograd
from flashmetric._compat import is_compiling
from flashmetric._mining import Number
from flashmetric.reference import Stats

__all__ = [
    "Terms",
    "active",
    "at_anchors",
    "distances",
    "distances_once",
    "given_sides",
    "quadruplet_value",
    "selected",
    "widened",
]

Side = tuple[Tensor, Tensor | None]  # rows, and int64 (T,) which of them; None = row t

_SERIAL = 2**15  # torch.sum adds fewer numbers than this in one thread
_SLOTS = 256  # partial sums of a longer sum


def active(value: Tensor) -> Tensor:
    """Which values are above 0. A NaN is: it must show."""
    return ~(value <= 0)


def at_anchors(number: Number, anchor: Tensor | None, dtype: torch.dtype) -> Number:
    """A number as it is; a tensor of one per anchor at the anchors of the terms, with gradient."""
    if not isinstance(number, Tensor) or anchor is None:
        return number.to(dtype) if isinstance(number, Tensor) else number
    if number.ndim == 0:
        if not number.requires_grad:
            return number.to(dtype)
        if not number.is_cpu:
            return number.double().expand(anchor.shape[0]).to(dtype)
        number, anchor = number.expand(_SLOTS), _slots(anchor)
    return selected(number, anchor).to(dtype)


def widened(rows: Tensor) -> Tensor:
    """Float32 at least: the gradients of several distances add up before they are rounded."""
    return rows.float() if rows.itemsize == 2 else rows


def given_sides(
    sides: tuple[Tensor, ...], embeddings: Tensor | None, refs: Tensor | None
) -> list[Side]:
    """Rows (T, D); or indices (T,) into the embeddings, all but the first into refs if given."""
    if embeddings is None:
        return [(widened(rows), None) for rows in sides]
    x = widened(embeddings)
    r = x if refs is None else widened(refs)
    return [(r if n else x, index) for n, index in enumerate(sides)]


def distances(op: str, first: Side, second: Side, metric: tuple[str, bool]) -> Tensor:
    """(T,) distances of one side to the other, by the kernels, with gradient."""
    (x, index_x), (r, index_r) = first, second
    return _autograd.paired(op, x, None if r is x else r, index_x, index_r, *metric)


def distances_once(
    op: str, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], metric: tuple[str, bool]
) -> Tensor:
    """The same, of pairs that recur: each is measured once, and its gradients are added first."""
    n = max(1, second[0].shape[0])
    pair, which = (first[1] * n + second[1]).unique(return_inverse=True)
    sides = (first[0], pair // n), (second[0], pair % n)
    return selected(distances(op, *sides, metric), which)


def selected(numbers: Tensor, index: Tensor) -> Tensor:
    """numbers[index], whose backward adds in a fixed order and in float64."""
    return numbers.double()[index].to(numbers.dtype)


def quadruplet_value(
    triple: tuple[Tensor, Tensor, Tensor],
    margins: tuple[Number, Number],
    has_second: Tensor | None = None,
) -> Tensor:
    """(T,) loss of (d_ap, d_an1, d_n1n2); the second summand only where there is an n2."""
    dist_ap, dist_an, dist_nn = triple
    margin1, margin2 = (at_anchors(each, None, dist_ap.dtype) for each in margins)
    second = (dist_ap - dist_nn + margin2).relu()
    if has_second is not None:
        second = torch.where(has_second, second, 0)
    return (dist_ap - dist_an + margin1).relu() + second


class Terms(NamedTuple):
    """The values that a loss is made of, and whose they are."""

    value: Tensor  # (T,) with gradient; 0 where not counted
    counted: Tensor  # (T,) bool: what "mean" is over
    n_active: Tensor  # (T,) bool or int: for how many each counts in "mean_active"
    size: int  # anchors
    anchor: Tensor | None = None  # (T,) int64; None = term t is that of anchor t

    def reduce(self, weights: Tensor | None, reduction: str) -> Tensor:
        """The loss; without anything to count 0, connected to the graph, with zero gradients."""
        terms = self._at_anchors(self.value, weights)
        if reduction == "none":
            return terms.to(self.value.dtype)
        loss = _total(terms)
        if reduction != "sum":
            counted = self.counted if reduction == "mean" else self.n_active
            weight = _total(self._at_anchors(counted, weights))
            loss = torch.where(weight == 0, 0, loss / torch.where(weight == 0, 1, weight))
        return loss.to(self.value.dtype)

    @torch.no_grad()
    def stats(self, dist_ap: Tensor, dist_an: Tensor, rows: Tensor) -> Stats:
        """Of the terms that are counted; rows: the anchor side."""
        n = _total(self.counted.double())

        def mean(numbers: Tensor) -> Tensor:
            return _total(torch.where(self.counted, numbers, 0).double()) / n.clamp(min=1)

        far, near = (
            torch.where(self.counted, dist_ap, -torch.inf),
            torch.where(self.counted, -dist_an, -torch.inf),
        )
        norm = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
        numbers = (
            self._n_anchors(),
            mean(self.n_active > 0),
            mean(dist_ap),
            mean(dist_an),
            torch.where(n == 0, 0, _largest(far)),
            torch.where(n == 0, 0, -_largest(near)),
            _total(norm) / max(1, norm.shape[0]),
        )
        return Stats(*(each.to(self.value.dtype) for each in numbers))

    def _at_anchors(self, numbers: Tensor, weights: Tensor | None) -> Tensor:
        """(size,) float64: the sum of each anchor, times its weight."""
        sums = numbers.double()
        if self.anchor is not None:
            sums = sums.new_zeros(self.size).index_put((self.anchor,), sums, accumulate=True)
        return sums if weights is None else sums * weights.double()

    def _n_anchors(self) -> Tensor:
        """How many have a term that is counted."""
        return (self._at_anchors(self.counted, None) > 0).sum()


def _total(numbers: Tensor) -> Tensor:
    if not numbers.is_cpu or (numbers.shape[0] < _SERIAL and not is_compiling()):
        return numbers.sum()
    return numbers.new_zeros(_SLOTS).index_add(0, _slots(numbers), numbers).sum()


def _slots(terms: Tensor) -> Tensor:
    return torch.arange(terms.shape[0], device=terms.device) % _SLOTS


def _largest(numbers: Tensor) -> Tensor:
    """The largest, or -inf if there is none."""
    return torch.cat([numbers, numbers.new_full((1,), -torch.inf)]).amax()
