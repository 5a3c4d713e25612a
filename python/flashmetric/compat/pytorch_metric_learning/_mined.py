# SPDX-License-Identifier: BSD-3-Clause
"""Mined tuples that are found when somebody reads them.

``pairs = miner(embeddings, labels); loss(embeddings, labels, pairs)`` names the same pairs twice.
The miner answers with a tuple that knows how its indices would be found. A fused loss that is given
the rows which were mined finds and evaluates in one pass; whoever unpacks the tuple, or gives it to
a function of torch, gets the indices.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flashmetric._compat import is_compiling

from ._metric import Metric

__all__ = ["Mined", "Recipe", "Ruling"]


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
        # torch.compile cannot wait. Tensors of torch.inference_mode have no versions: nothing would
        # notice that they changed.
        self._compiling = is_compiling()
        try:
            self._versions = None if self._compiling else self._now()
        except RuntimeError:
            self._versions = None
        self._found = _eagerly(miner, ruling, self._asked) if self._versions is None else None

    def answer(self) -> tuple[Tensor, ...]:
        """What the miner returns; nothing of it is found yet, if it can wait."""
        return self.found() if self._compiling else Mined.of(self)

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
        """The indices."""
        if self._found is None:
            if self._versions != self._now():
                text = (
                    f"[{type(self.miner).__name__}] embeddings and labels must stay as they are "
                    "until the mined indices are read; they were changed in place. Read them "
                    "before: pairs = tuple(pairs)."
                )
                raise RuntimeError(text)
            self._found = self.miner.find(self.ruling, *self._asked)
        return self._found


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _eagerly(miner: Any, ruling: Ruling, asked: tuple[Tensor, ...]) -> Any:
    return miner.find(ruling, *asked)


class Mined(tuple[Tensor, ...]):
    """(anchor, positive, negative), or (anchor, positive, anchor, negative), with its recipe.

    Whoever unpacks it gets the indices. Functions of torch look at the items of a tuple without
    asking it: these are no tensors but say that the function is to be called with the indices.
    """

    recipe: Recipe

    def __new__(cls, items: Iterable[Tensor]) -> Any:
        """Code that makes another tuple of the same type has read the items: of one without."""
        return tuple(items)

    @staticmethod
    def of(recipe: Recipe) -> Mined:
        mined = tuple.__new__(Mined, _UNREAD[: recipe.ruling.length])
        mined.recipe = recipe
        return mined

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.recipe.found())

    def __getitem__(self, place: Any) -> Any:
        return self.recipe.found()[place]

    def __add__(self, others: Any) -> Any:
        return self.recipe.found() + others

    def __radd__(self, others: Any) -> Any:
        return others + self.recipe.found()

    def __reduce__(self) -> Any:
        return tuple, (self.recipe.found(),)

    def __deepcopy__(self, _: Any) -> tuple[Tensor, ...]:
        return tuple(each.clone() for each in self.recipe.found())

    def __repr__(self) -> str:
        return repr(self.recipe.found())


class _Unread:
    """An item of a tuple that nobody has read."""

    @classmethod
    def __torch_function__(cls, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*_read(args), **_read(kwargs or {}))


_UNREAD: Any = (_Unread(),) * 4


def _read(arguments: Any) -> Any:
    """Arguments of a function of torch with indices in the place of every mined tuple."""
    if isinstance(arguments, Mined):
        return arguments.recipe.found()
    if type(arguments) in (tuple, list):
        return type(arguments)(_read(each) for each in arguments)
    if type(arguments) is dict:
        return {name: _read(each) for name, each in arguments.items()}
    return arguments
