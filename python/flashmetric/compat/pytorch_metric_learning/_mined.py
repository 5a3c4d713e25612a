# SPDX-License-Identifier: BSD-3-Clause
"""Mined tuples that are found when somebody reads them.

``pairs = miner(embeddings, labels); loss(embeddings, labels, pairs)`` names the same pairs twice.
The miner answers with a tuple of tensors that know how they would be found. A fused loss that is
given the rows which were mined finds and evaluates in one pass; whoever else touches one of the
tensors, with any function of torch, gets the indices.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flashmetric._compat import is_compiling

from ._metric import Metric

__all__ = ["Mined", "Recipe"]


class Recipe:
    """What a miner was asked, and by which rule it answers.

    Args:
        name: of the miner, for errors.
        asked: (embeddings, labels, ref_emb, ref_labels) as the peer's `mine` gets them.
        metric: of the miner.
        rule: keywords of `triplet_loss` that say what is mined.
        find: finds the indices in `asked`.
    """

    def __init__(
        self,
        name: str,
        asked: tuple[Tensor, ...],
        metric: Metric,
        rule: dict[str, Any],
        find: Callable[..., tuple[Tensor, ...]],
    ) -> None:
        self.name, self.metric, self.rule = name, metric, rule
        self.labels, self.ref_labels = asked[1], asked[3]
        self._sides = weakref.ref(asked[0]), weakref.ref(asked[2])
        # Without the graph, which must not outlive its loss; they share their version counters.
        embeddings = asked[0].detach()
        ref_emb = embeddings if asked[2] is asked[0] else asked[2].detach()
        self._asked = (embeddings, asked[1], ref_emb, asked[3])
        own = asked[2] is asked[0] and asked[3] is asked[1]
        self._watched = self._asked[:2] if own else self._asked
        self._find = find
        # torch.compile cannot wait. Tensors of torch.inference_mode have no versions: nothing would
        # notice that they changed.
        self._compiling = is_compiling()
        try:
            self._versions = None if self._compiling else self._now()
        except RuntimeError:
            self._versions = None
        self._found = _eagerly(find, self._asked) if self._versions is None else None

    def tuple_of(self, length: int) -> tuple[Tensor, ...]:
        """What the miner returns; nothing of it is found yet, if it can wait."""
        if self._compiling:
            return self.found()
        device = self.labels.device
        result = Mined([_Index(self, position, device) for position in range(length)])
        result.recipe = self
        return result

    def _now(self) -> list[int]:
        return [each._version for each in self._watched]

    def is_of(self, embeddings: Tensor, ref_emb: Tensor) -> bool:
        """Whether these are the rows that were mined, unchanged."""
        same = self._sides[0]() is embeddings and self._sides[1]() is ref_emb
        return same and self._versions is not None and self._versions == self._now()

    @torch.no_grad()
    def found(self) -> tuple[Tensor, ...]:
        """The indices."""
        if self._found is None:
            if self._versions != self._now():
                text = (
                    f"[{self.name}] embeddings and labels must stay as they are until the mined "
                    "indices are read; they were changed in place. Read them before: "
                    "pairs = [index.clone() for index in pairs]."
                )
                raise RuntimeError(text)
            self._found = self._find(*self._asked)
        return self._found


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _eagerly(find: Callable[..., tuple[Tensor, ...]], asked: Any) -> tuple[Tensor, ...]:
    return find(*asked)


class _Index(Tensor):
    """(T,) int64: one of the tensors of a mined tuple; T is known once it is read."""

    recipe: Recipe
    position: int

    @staticmethod
    def __new__(cls, recipe: Recipe, position: int, device: torch.device) -> _Index:
        # It has no memory: code that reads it past both of the protocols below fails loudly.
        index = Tensor._make_wrapper_subclass(cls, (0,), dtype=torch.int64, device=device)
        index.recipe, index.position = recipe, position
        result: _Index = index
        return result

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

    def __reduce__(self) -> Any:
        return tuple, (self.recipe.found(),)

    def __deepcopy__(self, _: Any) -> tuple[Tensor, ...]:
        return tuple(each.clone() for each in self.recipe.found())

    def __repr__(self) -> str:
        return repr(tuple(self.recipe.found()))
