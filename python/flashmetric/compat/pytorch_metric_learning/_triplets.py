# SPDX-License-Identifier: BSD-3-Clause
"""Losses of triplets: all of a batch, those of a miner, or listed ones."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from pytorch_metric_learning import losses as _peer
from torch import Tensor

from flashmetric import functional
from flashmetric._compat import certainly, is_compiling
from flashmetric.compat._peer import like
from flashmetric.losses.triplet import known_triplet_loss

from ._indices import triplets_of
from ._known import Words, keep, known, reducer_words, words_of
from ._loss import Call, FusedLoss, reduced
from ._metric import (
    Batch,
    Metric,
    batch_of,
    distance_of,
    n_triplets,
    reduction_of,
    unusual,
)
from ._mined import Mined, Ruling

__all__ = ["MarginLoss", "TripletMarginLoss"]

FM: Any = functional  # called with options from dictionaries, which overloads cannot follow
Rule = dict[str, Any]
# The options of a TripletMarginLoss that a call of mined triplets depends on.
_WORDS = itemgetter("margin", "swap", "smooth_loss", "embedding_regularizer", "collect_stats")


class _OfTriplets(FusedLoss):
    triplets_per_anchor: int | str
    name: str

    def fused_losses(self, call: Call) -> dict[str, Any]:
        ruled = self._rule(call)
        loss = self._by_rule(call, ruled)
        if loss is not None:
            return self.sub_losses(reduced(loss, call.embeddings))
        if ruled is not None and call.indices is None:
            call = call._replace(indices=FM.mine_triplets(**ruled[0]._asdict(), **ruled[1]))
        triplets = triplets_of(call, self.triplets_per_anchor)
        if certainly(triplets[0].shape[0] == 0):
            none: dict[str, Any] = self.zero_losses()
            return none
        return self.sub_losses(self.of_triplets(call, triplets))

    def _rule(self, call: Call) -> tuple[Batch, Rule] | None:
        """What is compared, and the rule by which it is mined, if one says it."""
        if call.indices is None:
            return (call.batch(), {"mining": "all"}) if self.triplets_per_anchor == "all" else None
        if not isinstance(call.indices, Mined):
            return None
        recipe = call.indices.recipe
        if recipe.ruling.metric != call.metric or not recipe.is_of(call.embeddings, call.ref):
            return None
        sides = call.embeddings, recipe.labels, call.ref, recipe.ref_labels
        return batch_of(call.metric, *sides), recipe.ruling.rule

    def _by_rule(self, call: Call, ruled: tuple[Batch, Rule] | None) -> Tensor | None:
        """What the reducer makes of a loss that a rule mines; None if there is no such number."""
        reduction = reduction_of(self.reducer, self.name)
        if ruled is None or reduction is None:
            return None
        return self.of_rule(call, *ruled, reduction)

    def of_rule(self, call: Call, batch: Batch, rule: Rule, reduction: str) -> Tensor | None:
        """The loss, or None if only the list of triplets tells."""
        raise NotImplementedError

    def of_triplets(self, call: Call, triplets: Any) -> dict[str, Any]:
        raise NotImplementedError

    def sub_losses(self, loss: dict[str, Any]) -> dict[str, Any]:
        return {self.name: loss}


class TripletMarginLoss(_OfTriplets, _peer.TripletMarginLoss):
    """`pytorch_metric_learning.losses.TripletMarginLoss`, in O((B + R) D) memory.

    Values and gradients are the peer's, but for swap=True with references, where the peer looks up
    d(positive, negative) in the wrong matrix; here it is that of the references. With swap, an int
    for triplets_per_anchor, a tuple of other miners, or a reducer that asks for each loss, memory
    is O(T) for T triplets. Not fused: distances that are no classes of the peer.
    """

    name = "loss"
    margin: float
    swap: bool
    smooth_loss: bool
    embedding_regularizer: Any

    def forward(
        self,
        embeddings: Tensor,
        labels: Any = None,
        indices_tuple: Any = None,
        ref_emb: Any = None,
        ref_labels: Any = None,
    ) -> Any:
        """The peer's; of what a miner was asked, by what the call before it meant."""
        words = None
        alone = ref_emb is None and ref_labels is None and not is_compiling()
        if alone and type(indices_tuple) is Mined and type(self) is TripletMarginLoss:
            words = self._all_words()
            meant = known(self, words)
            if meant is not None and self._means(meant[0], embeddings, labels, indices_tuple):
                loss = meant[1].loss(embeddings, labels)
                if loss is not None:
                    return like(loss, embeddings)
        loss = super().forward(embeddings, labels, indices_tuple, ref_emb, ref_labels)
        if words is not None:
            self._keep(words, embeddings, labels, indices_tuple)
        return loss

    def metric(self) -> Metric | str:
        return unusual(self.margin) or super().metric()

    def _all_words(self) -> Words | None:
        reducer = reducer_words(self)
        options = None if reducer is None else words_of(self, _WORDS, type(self).compute_loss)
        if reducer is None or options is None:
            return None
        # A tensor that equals a number may want a gradient.
        return (*reducer, *options, type(self.__dict__["margin"]))

    def _means(self, ruling: Ruling, embeddings: Tensor, labels: Any, indices: Mined) -> bool:
        """Whether the batch was mined by that ruling among its own rows."""
        recipe = indices.recipe
        own = recipe.labels is labels and recipe.ref_labels is labels
        return own and recipe.ruling is ruling and recipe.is_of(embeddings, embeddings)

    def _keep(self, words: Words, embeddings: Tensor, labels: Any, indices: Mined) -> None:
        """A call that comes to no more than a loss of ours, in the dtype of its rows."""
        ruling, reduction = indices.recipe.ruling, reduction_of(self.reducer, self.name)
        if ruling.rule != {"mining": "hard"} or reduction not in ("mean", "mean_active", "sum"):
            return
        extra = self.swap or self.embedding_regularizer is not None or ruling.metric.first
        same = ruling.metric == self.metric()
        if extra or not same or not self._means(ruling, embeddings, labels, indices):
            return
        options = self._options(ruling.metric, reduction)
        call = known_triplet_loss(embeddings, labels, **ruling.rule, **options)
        if call is not None:
            keep(self, words, (ruling, call))

    def _options(self, metric: Metric, reduction: str) -> Rule:
        options = {
            "margin": self.margin,
            "soft_margin": bool(self.smooth_loss),
            "reduction": reduction,
        }
        return {**options, **metric.options()}

    def kernel_of(self, indices: Any) -> str:
        if isinstance(indices, Mined):
            hard = indices.recipe.ruling.rule.get("mining") == "hard"
            return "mined_triplet" if hard else "listed_triplet"
        return "dense" if indices is None and self.triplets_per_anchor == "all" else "triplet"

    def of_rule(self, call: Call, batch: Batch, rule: Rule, reduction: str) -> Tensor | None:
        if "below" in rule:
            # What the margin of the miner excludes has no loss if that of the loss is smaller.
            if self.smooth_loss or self.margin > rule["below"] or reduction == "mean":
                return None
            rule = {"mining": "all"}
        if self.swap or reduction == "divisor":
            return None
        one_each = rule["mining"] in ("hard", "easy_hard")
        if reduction == "mean" and not one_each and rule["mining"] != "all":
            return None
        ask = "sum" if reduction == "mean" and not one_each else reduction
        options = self._options(call.metric, ask)
        loss: Tensor = FM.triplet_loss(**batch._asdict(), **rule, **options)
        return loss if ask == reduction else loss / n_triplets(batch).clamp(min=1)

    def of_triplets(self, call: Call, triplets: Any) -> dict[str, Any]:
        losses = FM.triplet_margin_loss(
            *triplets,
            **call.given(),
            margin=self.margin,
            swap=bool(self.swap),
            soft_margin=bool(self.smooth_loss),
            reduction="none",
        )
        found = {"losses": call.as_measured(losses), "indices": triplets}
        return {**found, "reduction_type": "triplet"}


class MarginLoss(_OfTriplets, _peer.MarginLoss):
    """`pytorch_metric_learning.losses.MarginLoss`, in O((B + R) D + T) memory for T triplets.

    Not fused: inner products without normalisation; nu with a beta of each class.
    """

    name = "margin_loss"
    margin: float
    nu: float
    beta: Tensor
    learn_beta: bool

    def metric(self) -> Metric | str:
        if self._regularized() and len(self.beta) > 1:
            return "there is no kernel for nu with a beta of each class"
        return unusual(self.margin) or distance_of(self.distance)

    def kernel_of(self, indices: Any) -> str:
        if isinstance(indices, Mined):
            return (
                "paired" if indices.recipe.ruling.rule.get("mining") == "hard" else "list_triplets"
            )
        return "list_triplets" if indices is None else "paired"

    def _regularized(self) -> bool:
        return self.nu != 0 and self.learn_beta

    def _beta(self, call: Call, anchor: Tensor | None) -> Tensor:
        beta = self.beta.to(call.embeddings.device)
        if len(beta) == 1:
            beta = beta[0]
        else:
            beta = beta[call.labels if anchor is None else call.labels[anchor]]
        return call.metric.boundary(beta)

    def of_rule(self, call: Call, batch: Batch, rule: Rule, reduction: str) -> Tensor | None:
        # Other reducers count triplets, where ours counts summands; and nu asks if there are any.
        if "below" in rule or reduction not in ("divisor", "sum") or self._regularized():
            return None
        loss: Tensor = FM.margin_loss(
            **batch._asdict(),
            **rule,
            margin=self.margin,
            beta=self._beta(call, None),
            reduction="mean_active" if reduction == "divisor" else "sum",
            **call.metric.options(),
        )
        return loss

    def of_triplets(self, call: Call, triplets: Any) -> dict[str, Any]:
        anchor, positive, negative = triplets
        rows = call.rows()
        dist_ap, dist_an = (
            call.metric.distances((anchor, other), **rows) for other in (positive, negative)
        )
        beta = self._beta(call, anchor)
        pulled = (dist_ap - beta + self.margin).relu()
        pushed = (beta - dist_an + self.margin).relu()
        return {
            "losses": call.as_measured(pulled + pushed),
            "indices": triplets,
            "reduction_type": "triplet",
            "divisor": (pulled > 0).sum() + (pushed > 0).sum(),
        }

    def sub_losses(self, loss: dict[str, Any]) -> dict[str, Any]:
        # Of one number: it looks at no triplet.
        beta = self.compute_reg_loss(self.beta, None, None) if self._regularized() else None
        return {self.name: loss, "beta_reg_loss": beta or self.zero_loss()}
