# SPDX-License-Identifier: BSD-3-Clause
"""Mined tuples that are found when somebody reads them.

``pairs = miner(embeddings, labels); loss(embeddings, labels, pairs)`` names the same pairs twice.
The miner answers with a tuple of tensors that know how they would be found. A fused loss that is
given the rows which were mined finds and evaluates in one pass; whoever else touches one of the
tensors, with any function of torch, gets the indices.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flashmetric._compat import is_compiling

from ._metric import Metric

__all__ = ["Mined", "Recipe", "Ruling", "answer"]


class Ruling(NamedTuple):
    """By which distance and which rule a miner answers."""

    metric: Metric
    rule: dict[str, Any]  # what is mined, as keywords of `triplet_loss`; or {"below": margin}
    sets: list[dict[str, Any]]  # the same as keywords of `mine_triplets`, of one set after another
    length: int  # of the tuple


class Recipe:
    """What a miner was asked, and by which rule it answers.

    Args:
        miner: has `find(ruling, *asked)`, which finds the indices.
        ruling: of the miner when it was asked.
        asked: (embeddings, labels, ref_emb, ref_labels) as the peer's `mine` gets them.
    """

    def __init__(self, miner: Any, ruling: Ruling, asked: tuple[Tensor, ...]) -> None:
        self.miner, self.ruling = miner, ruling
        embeddings, self.labels, ref_emb, self.ref_labels = asked
        # Without the graph, which must not outlive its loss; they share their version counters.
        rows = refs = embeddings.detach()
        self._query = self._ref = weakref.ref(embeddings)
        if ref_emb is not embeddings:
            refs, self._ref = ref_emb.detach(), weakref.ref(ref_emb)
        self._asked = (rows, self.labels, refs, self.ref_labels)
        self._versions: tuple[int, ...] | None = None
        self._found: tuple[Tensor, ...] | None = None
        try:
            self._versions = self._now()
        except RuntimeError:  # of torch.inference_mode: nothing would notice that they changed
            self._found = miner.find(ruling, *self._asked)

    def _now(self) -> tuple[int, ...]:
        rows, labels, refs, ref_labels = self._asked
        if refs is rows and ref_labels is labels:
            return rows._version, labels._version
        return rows._version, labels._version, refs._version, ref_labels._version

    def is_of(self, embeddings: Tensor, ref_emb: Tensor) -> bool:
        """Whether these are the rows that were mined, unchanged."""
        same = self._query() is embeddings and self._ref() is ref_emb
        return same and self._versions is not None and self._versions == self._now()

    @torch.no_grad()
    def found(self) -> tuple[Tensor, ...]:
        """The indices. In the graphs of torch.compile no versions can be compared."""
        if self._found is None:
            if not is_compiling() and self._versions != self._now():
                text = (
                    f"[{type(self.miner).__name__}] embeddings and labels must stay as they are "
                    "until the mined indices are read; they were changed in place. Read them "
                    "before: pairs = [index.clone() for index in pairs]."
                )
                raise RuntimeError(text)
            self._found = self.miner.find(self.ruling, *self._asked)
        return self._found


def answer(miner: Any, ruling: Ruling, asked: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a miner returns: nothing of it is found yet; torch.compile cannot wait."""
    if is_compiling():
        found: tuple[Tensor, ...] = miner.find(ruling, *asked)
        return found
    return Mined.of(Recipe(miner, ruling, asked))


class _Index(Tensor):
    """(T,) int64: one of the tensors of a mined tuple; T is known once it is read."""

    recipe: Recipe
    position: int

    def read(self) -> Tensor:
        return self.recipe.found()[self.position]

    @classmethod
    def __torch_function__(cls, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*_read(args), **_read(kwargs or {}))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, _: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return function(*_read(args), **_read(kwargs or {}))


def _read(arguments: Any) -> Any:
    """Arguments of a function of torch with indices in the place of every `_Index`."""
    if isinstance(arguments, _Index):
        return arguments.read()
    if isinstance(arguments, Mined):
        return arguments.recipe.found()
    if type(arguments) in (tuple, list):
        return type(arguments)(_read(each) for each in arguments)
    if type(arguments) is dict:
        return {name: _read(each) for name, each in arguments.items()}
    return arguments


class Mined(tuple[Tensor, ...]):
    """(anchor, positive, negative), or (anchor, positive, anchor, negative), with its recipe."""

    recipe: Recipe

    @staticmethod
    def of(recipe: Recipe) -> Mined:
        base = _base(recipe.labels.device)
        items = []
        for position in range(recipe.ruling.length):
            index = Tensor._make_subclass(_Index, base)
            index.recipe, index.position = recipe, position
            items.append(index)
        mined = Mined(items)
        mined.recipe = recipe
        return mined

    def __reduce__(self) -> Any:
        return tuple, (self.recipe.found(),)

    def __deepcopy__(self, _: Any) -> tuple[Tensor, ...]:
        return tuple(each.clone() for each in self.recipe.found())

    def __repr__(self) -> str:
        return repr(self.recipe.found())


def _base(device: torch.device) -> Tensor:
    """An empty tensor there."""
    base = _BASES.get(device)
    if base is None:
        base = _BASES[device] = torch.empty(0, dtype=torch.int64, device=device)
    return base


_BASES: dict[torch.device, Tensor] = {}
