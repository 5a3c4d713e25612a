# SPDX-License-Identifier: BSD-3-Clause
"""Calls whose words passed every check before: of plain tensors, the checks need no repetition.

On a batch of 8 rows they take longer than the kernels do.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from flashmetric import _ops
from flashmetric._compat import is_compiling
from flashmetric.reference.mining import Comparison

from .formula import Formula
from .triplet import apply_triplet_loss

__all__ = ["KnownCalls"]

_NONE = (None,) * 4  # ref_labels, self_index, tensors of margins and of weights
_NUMBERS = (float, int)


class _Known(NamedTuple):
    """A batch-hard loss of embeddings by their labels; tensors and margin are still open."""

    op: str
    rule: tuple[Any, ...]
    margin: float  # where none is given
    options: tuple[Any, ...]


class KnownCalls:
    """What calls mean, by their words: all they are given but tensors and the margin."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, tuple[Any, ...]], _Known] = {}

    def loss(
        self, words: tuple[Any, ...], embeddings: Any, labels: Any, margin: Any
    ) -> Tensor | None:
        """Of a call without other tensors; None where it is not known, or has to be checked: its
        tensors must be rows and their class ids, of one device, its margin a finite number."""
        if is_compiling() or type(embeddings) is not Tensor or type(labels) is not Tensor:
            return None
        if margin is not None and (type(margin) not in _NUMBERS or margin - margin != 0):
            return None
        try:
            known = self._known.get((_ops.usual_device(embeddings, labels), words))
        except TypeError:  # a word that has no hash; the checks have more to say
            return None
        if known is None:
            return None
        op, rule, number, options = known
        wanted = embeddings.requires_grad and options[-1] != "none" and torch.is_grad_enabled()
        formula = (number if margin is None else float(margin), *options)
        request = ([wanted, False, False], False, op)
        tensors = (labels, *_NONE)
        loss: Tensor = apply_triplet_loss(embeddings, None, None, tensors, rule, formula, request)[
            0
        ]
        return loss

    def learn(
        self, words: tuple[Any, ...], op: str, given: Comparison, formula: Formula, mining: str
    ) -> None:
        """Of a call that passed the checks; where there is more to it than words, nothing."""
        embeddings, labels, *others = given
        alone = labels is not None and all(each is None for each in (*others, formula.weights))
        plain = all(type(word) in (str, bool, int, float, type(None)) for word in words)
        if not alone or not plain or formula.with_stats or is_compiling():
            return
        device = _ops.usual_device(embeddings, labels)  # type: ignore[arg-type]
        if device:
            rule, margin = ("classes", None, mining), 0.0 if formula.soft_margin else 1.0
            self._known[device, words] = _Known(op, rule, margin, tuple(formula[2:-1]))
