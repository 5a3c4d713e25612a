# SPDX-License-Identifier: BSD-3-Clause
"""Calls whose words passed every check before: of plain tensors, the checks need no repetition.

On a batch of 8 rows they take longer than the kernels do, and so does every call of Python that can
be left out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from flashmetric import _ops
from flashmetric._compat import direct_apply_of, is_compiling, is_watched, is_wrapped
from flashmetric.reference.mining import Comparison

from .formula import Formula
from .guard import scaled

__all__ = ["KnownCall", "KnownCalls"]

_NUMBERS = (float, int)


class KnownCall(NamedTuple):
    """A batch-hard loss of embeddings by their labels; the tensors are still open."""

    op: str
    mining: str
    margin: float
    options: tuple[Any, ...]
    device: int  # as _ops.usual_device counts

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor | None:
        """None where the tensors have to be checked, or are watched."""
        if is_watched() or type(embeddings) is not Tensor or type(labels) is not Tensor:
            return None
        usual = _ops.usual_device(embeddings, labels) == self.device
        return self.of_usual(embeddings, labels, self.margin) if usual else None

    def of_usual(self, embeddings: Tensor, labels: Tensor, margin: float) -> Tensor | None:
        if is_wrapped(embeddings) or is_wrapped(labels):
            return None
        terms = (self.mining, margin, *self.options)
        if embeddings.requires_grad and torch.is_grad_enabled():
            loss: Tensor = _apply_known_loss(embeddings, labels, terms, self.op)
            return loss
        return _ops.triplet_of_classes(embeddings, labels, False, *terms)[0]


class KnownCalls:
    """What calls mean, by their words: all they are given but tensors and the margin."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, tuple[Any, ...]], KnownCall] = {}

    def loss(
        self, words: tuple[Any, ...], embeddings: Any, labels: Any, margin: Any
    ) -> Tensor | None:
        """Of a call without other tensors; None where it is not known, has to be checked or is
        watched: its tensors must be rows and their class ids, of one device, its margin a finite
        number."""
        if is_watched() or type(embeddings) is not Tensor or type(labels) is not Tensor:
            return None
        if margin is not None and (type(margin) not in _NUMBERS or margin - margin != 0):
            return None
        try:
            known = self._known.get((_ops.usual_device(embeddings, labels), words))
        except TypeError:  # a word that has no hash; the checks have more to say
            return None
        if known is None:
            return None
        return known.of_usual(embeddings, labels, known.margin if margin is None else float(margin))

    def call(
        self, words: tuple[Any, ...], embeddings: Tensor, labels: Tensor, margin: Any
    ) -> KnownCall | None:
        """What `loss` found of these, for whoever will ask it of other tensors as well."""
        known = self._known.get((_ops.usual_device(embeddings, labels), words))
        if known is None or type(margin) not in _NUMBERS:
            return None
        return known._replace(margin=float(margin))

    def learn(
        self, words: tuple[Any, ...], op: str, given: Comparison, formula: Formula, mining: str
    ) -> None:
        """Of a call that passed the checks; where there is more to it than words, or than a scalar
        to return, nothing."""
        embeddings, labels, *others = given
        alone = labels is not None and all(each is None for each in (*others, formula.weights))
        plain = all(type(word) in (str, bool, int, float, type(None)) for word in words)
        scalar = formula.reduction != "none" and not formula.with_stats
        if not alone or not plain or not scalar or is_compiling():
            return
        device = _ops.usual_device(embeddings, labels)  # type: ignore[arg-type]
        if device:
            margin = 0.0 if formula.soft_margin else 1.0
            found = KnownCall(op, mining, margin, tuple(formula[2:-1]), device)
            self._known[device, words] = found


class _KnownLoss(Function):
    """`_TripletLoss` of a known call: in the form of one call, which only torch.func cannot use."""

    @staticmethod
    def forward(
        ctx: Any, embeddings: Tensor, labels: Tensor, terms: tuple[Any, ...], op: str
    ) -> Tensor:
        loss, gradient = _ops.triplet_of_classes(embeddings, labels, True, *terms)
        ctx.save_for_backward(embeddings, gradient)
        ctx.op = op
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        embeddings, gradient = ctx.saved_tensors
        (found,) = scaled(ctx.op, (gradient,), grad_loss, (embeddings,))
        return found, None, None, None


_apply_known_loss = direct_apply_of(_KnownLoss)
