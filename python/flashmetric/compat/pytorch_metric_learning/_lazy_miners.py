# SPDX-License-Identifier: BSD-3-Clause
"""Miners whose tuples are found when they are read."""

from __future__ import annotations

import copy
from operator import itemgetter
from typing import Any

import torch
from pytorch_metric_learning import miners as _peer
from torch import Tensor

from flashmetric import _ops, functional
from flashmetric._compat import is_compiling
from flashmetric.compat._peer import not_fused

from ._known import are_usual, keep, known, words_of
from ._metric import Metric, batch_of, keeps_stats, labels_of, metric_of, record
from ._mined import Mined, Ruling, answer

__all__ = ["BatchEasyHardMiner", "BatchHardMiner", "FusedMiner", "TripletMarginMiner"]

FM: Any = functional  # called with options from dictionaries, which overloads cannot follow


class FusedMiner:
    """Mines by our kernels, or says why by the peer's own code."""

    distance: Any
    collect_stats: bool

    def metric(self) -> Metric | str:
        """That of the miner, or why our kernels do not mine."""
        return self._unknown_option() or metric_of(self.distance)

    def why_not_fused(self) -> str:
        """Empty if our kernels mine."""
        metric = self.metric()
        return metric if isinstance(metric, str) else ""

    def _unknown_option(self) -> str:
        return ""

    def kernel(self) -> str:
        """The op that mines; not every device has every one."""
        return "list_triplets"

    def _metric(self, embeddings: Tensor, ref_emb: Tensor) -> Metric | None:
        """None, having said so, where the peer's own code mines."""
        metric = self.metric()
        if isinstance(metric, Metric):
            metric = _ops.why_not_fused(embeddings.device, self.kernel()) or metric
        if isinstance(metric, str):
            not_fused(type(self).__name__, metric)
            return None
        record(self.distance, embeddings, ref_emb)
        return metric


class _Counter:
    """How many of something the last call mined, found when somebody asks."""

    def __init__(self, length: int, position: int) -> None:
        self.length, self.position = length, position

    def __set_name__(self, _: type, name: str) -> None:
        self.name = f"_{name}"

    def __get__(self, miner: Any, _: type) -> int:
        output = miner.__dict__.get("_last")
        if isinstance(output, Mined) and len(output) == self.length:
            return len(output.recipe.found()[self.position])
        count: int = miner.__dict__.get(self.name, 0)
        return count

    def __set__(self, miner: Any, count: int) -> None:
        miner.__dict__[self.name] = count


class _Lazy(FusedMiner):
    """Its tuples are found when they are read."""

    mine: Any
    _words: Any  # reads the options of a class from the dictionary of a miner
    num_triplets = _Counter(3, 0)
    num_pos_pairs = _Counter(4, 0)
    num_neg_pairs = _Counter(4, 2)

    def forward(
        self, embeddings: Any, labels: Any, ref_emb: Any = None, ref_labels: Any = None
    ) -> tuple[Tensor, ...]:
        """The peer's; of usual rows among themselves, by what the call before them meant."""
        words = None
        alone = ref_emb is None and ref_labels is None and not is_compiling()
        if alone and type(self) in _OURS:
            words = words_of(self, self._words, type(self).mine)
            meant = known(self, words)
            if meant is not None and meant[0] == are_usual(embeddings, labels):
                asked = embeddings, labels, embeddings, labels
                self.__dict__["_last"] = output = answer(self, meant[1], asked)
                return output
        output = super().forward(  # type: ignore[misc]
            embeddings, labels, ref_emb, labels_of(ref_emb, ref_labels, labels)
        )
        device = 0 if words is None else are_usual(embeddings, labels)
        if device and type(output) is Mined and output.recipe.miner is self:
            keep(self, words, (device, output.recipe.ruling))
        return output

    def reset_stats(self) -> None:
        self.__dict__["_last"] = None
        if keeps_stats(self):
            super().reset_stats()  # type: ignore[misc]

    def output_assertion(self, output: tuple[Tensor, ...]) -> None:
        self.__dict__["_last"] = output
        if not isinstance(output, Mined):
            super().output_assertion(output)  # type: ignore[misc]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}


class _EasyHard(_Lazy):
    pos_strategy: str
    neg_strategy: str
    allowed_pos_range: Any
    allowed_neg_range: Any
    length = 4
    _words = itemgetter(
        "pos_strategy", "neg_strategy", "allowed_pos_range", "allowed_neg_range", "collect_stats"
    )

    def _unknown_option(self) -> str:
        ranges = self.allowed_pos_range, self.allowed_neg_range
        return "" if ranges == (None, None) else "there is no kernel for allowed ranges"

    def rule(self) -> dict[str, Any]:
        if self.pos_strategy == self.neg_strategy == "hard":
            return {"mining": "hard"}
        names = {"positive_mining": self.pos_strategy, "negative_mining": self.neg_strategy}
        return {"mining": "easy_hard", **names}

    def kernel(self) -> str:
        return "mine" if self.rule() == {"mining": "hard"} else "list_triplets"

    def mine(self, *asked: Tensor) -> tuple[Tensor, ...]:
        listed = "all" in (self.pos_strategy, self.neg_strategy)
        metric = self._metric(asked[0], asked[2])
        if metric is None or (listed and self.collect_stats):
            with torch.no_grad():
                return super().mine(*asked)
        rule = self.rule()
        # The peer lists by the options of the miner, which may have others when it is read.
        miner = copy.deepcopy(self) if listed and not is_compiling() else self
        output = answer(miner, Ruling(metric, rule, [] if listed else [rule], self.length), asked)
        if self.collect_stats:
            self._measure(metric, asked, tuple(output))
        return output

    def find(self, ruling: Ruling, *asked: Tensor) -> tuple[Tensor, ...]:
        if not ruling.sets:  # pairs of whole classes are no triplets: the peer lists them
            found: tuple[Tensor, ...] = super().mine(*asked)
            return found
        anchor, positive, negative = _triplets(ruling, *asked)
        longer = (anchor, positive, anchor, negative)
        return longer if ruling.length == 4 else (anchor, positive, negative)

    def _measure(
        self, metric: Metric, asked: tuple[Tensor, ...], found: tuple[Tensor, ...]
    ) -> None:
        """The statistics of the peer, of the chosen pairs alone."""
        if metric.distance == "dot":
            distances = (
                self.distance.pairwise_distance(asked[0][found[0]], asked[2][index])
                for index in (found[1], found[-1])
            )
        else:
            rows = {"embeddings": metric.rows(asked[0]), "ref_embeddings": metric.rows(asked[2])}
            distances = (
                metric.boundary(metric.distances((found[0], index), **rows))
                for index in (found[1], found[-1])
            )
        self.set_stats(*distances)  # type: ignore[attr-defined]


class BatchEasyHardMiner(_EasyHard, _peer.BatchEasyHardMiner):
    """`pytorch_metric_learning.miners.BatchEasyHardMiner`; its tuple is lazy.

    Not fused: allowed_pos_range, allowed_neg_range.
    """


class BatchHardMiner(_EasyHard, _peer.BatchHardMiner):
    """`pytorch_metric_learning.miners.BatchHardMiner`; its tuple is lazy."""

    length = 3


class TripletMarginMiner(_Lazy, _peer.TripletMarginMiner):
    """`pytorch_metric_learning.miners.TripletMarginMiner`; its tuple is lazy.

    Not fused: collect_stats, whose numbers are over all triplets; a negative margin with "all" or
    "hard".
    """

    margin: float
    type_of_triplets: str
    _words = itemgetter("margin", "type_of_triplets", "collect_stats")

    def _unknown_option(self) -> str:
        if self.margin < 0 and self.type_of_triplets in ("all", "hard"):
            return "there is no kernel for a negative margin"
        return "collect_stats asks for every triplet" if self.collect_stats else ""

    def sets(self) -> list[dict[str, Any]]:
        """The rules whose triplets it returns."""
        names = ("hard", "semihard") if self.type_of_triplets == "all" else (self.type_of_triplets,)
        rules: list[dict[str, Any]] = [{"mining": f"{name}_all"} for name in names]
        # Below 0, where hard triplets are, there is no margin.
        return [
            r if r["mining"] == "hard_all" else {**r, "mining_margin": self.margin} for r in rules
        ]

    def mine(self, *asked: Tensor) -> tuple[Tensor, ...]:
        metric = self._metric(asked[0], asked[2])
        if metric is None:
            with torch.no_grad():
                return super().mine(*asked)

        sets = self.sets()
        # Both sets together are the triplets below a margin: a loss may know what to do with them.
        rule = sets[0] if len(sets) == 1 else {"below": self.margin}
        return answer(self, Ruling(metric, rule, sets, 3), asked)

    def find(self, ruling: Ruling, *asked: Tensor) -> tuple[Tensor, ...]:
        return _triplets(ruling, *asked)


_OURS = BatchEasyHardMiner, BatchHardMiner, TripletMarginMiner


def _triplets(ruling: Ruling, *asked: Tensor) -> tuple[Tensor, ...]:
    options = {**batch_of(ruling.metric, *asked)._asdict(), **ruling.metric.options()}
    lists = [FM.mine_triplets(**options, **rule) for rule in ruling.sets]
    return lists[0] if len(lists) == 1 else _merged(lists)


def _merged(lists: list[Any]) -> tuple[Tensor, ...]:
    """Triplets in the order of their anchors, positives and negatives."""
    sides = [torch.cat(side) for side in zip(*lists, strict=True)]
    order = torch.arange(sides[0].shape[0], device=sides[0].device)
    for side in reversed(sides):
        order = order[side[order].argsort(stable=True)]
    return tuple(side[order] for side in sides)
