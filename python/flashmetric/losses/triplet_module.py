# SPDX-License-Identifier: BSD-3-Clause
"""Modules of the triplet loss of a batch."""

from __future__ import annotations

import torch

from flashmetric import _validate
from flashmetric._mining import Schedulable
from flashmetric._names import Distance, Fallback, Impl, Invalid, Mining, Reduction, Strategy

from ._module import BatchLoss
from .triplet import triplet_loss

__all__ = [
    "BatchAllTripletLoss",
    "BatchHardTripletLoss",
    "BatchSemiHardTripletLoss",
    "TripletLoss",
]


class TripletLoss(BatchLoss):
    """`triplet_loss` with remembered options; its docstring says what they mean.

    Stateless: no parameters, nothing in the state_dict. A margin tensor moves with the module.

    Example:
        >>> import torch
        >>> from flashmetric import TripletLoss
        >>> criterion = TripletLoss(margin=0.2, distance="sqeuclidean", normalize=True)
        >>> criterion
        TripletLoss(margin=0.2, distance='sqeuclidean', normalize=True)
        >>> embeddings = torch.nn.Linear(3, 2)(torch.ones(4, 3))
        >>> criterion(embeddings, torch.tensor([0, 0, 1, 1])).backward()
    """

    function = staticmethod(triplet_loss)

    def __init__(
        self,
        margin: Schedulable | None = None,
        *,
        mining: Mining = "hard",
        fallback: Fallback = "farthest",
        hardness: Schedulable | None = None,
        mining_margin: Schedulable | None = None,
        positive_mining: Strategy = "easy",
        negative_mining: Strategy = "semihard",
        n_negatives: int = 1,
        generator: torch.Generator | None = None,
        temperature: float = 1,
        detach_weights: bool = False,
        distance: Distance = "euclidean",
        normalize: bool = False,
        soft_margin: bool = False,
        ignore_label: float | None = None,
        invalid: Invalid = "drop",
        reduction: Reduction = "mean",
        return_stats: bool = False,
        impl: Impl = "auto",
    ) -> None:
        name = type(self).__name__
        words = {"invalid": invalid, "reduction": reduction, "impl": impl}
        _validate.names(name, mining=mining, **words)
        _validate.distance(name, distance)
        options = _validate.RuleOptions(
            *(mining, fallback, hardness, mining_margin, positive_mining, negative_mining),
            *(n_negatives, generator, temperature, detach_weights),
        )
        _validate.rule_words(name, options)
        _validate.counts_invalid(name, invalid, mining)
        super().__init__(
            margin=margin,
            **options._asdict(),
            distance=distance,
            normalize=normalize,
            soft_margin=soft_margin,
            ignore_label=ignore_label,
            return_stats=return_stats,
            **words,
        )


class BatchHardTripletLoss(TripletLoss):
    """`TripletLoss` with mining="hard": the farthest positive and the nearest negative per anchor.

    Reference: Hermans, Beyer, Leibe, arXiv 1703.07737, section 2. Their best variant is
    ``BatchHardTripletLoss(soft_margin=True)``.
    """

    def __init__(
        self,
        margin: Schedulable | None = None,
        *,
        distance: Distance = "euclidean",
        normalize: bool = False,
        soft_margin: bool = False,
        ignore_label: float | None = None,
        invalid: Invalid = "drop",
        reduction: Reduction = "mean",
        return_stats: bool = False,
        impl: Impl = "auto",
    ) -> None:
        super().__init__(
            margin,
            mining="hard",
            distance=distance,
            normalize=normalize,
            soft_margin=soft_margin,
            ignore_label=ignore_label,
            invalid=invalid,
            reduction=reduction,
            return_stats=return_stats,
            impl=impl,
        )


class BatchSemiHardTripletLoss(TripletLoss):
    """`TripletLoss` with mining="semihard": each positive with the nearest negative beyond it.

    Reference: Schroff, Kalenichenko, Philbin, FaceNet, arXiv 1503.03832, section 3.2. There
    embeddings have length 1 and distances are squared: ``BatchSemiHardTripletLoss(0.2,
    distance="sqeuclidean", normalize=True)``.
    """

    def __init__(
        self,
        margin: Schedulable | None = None,
        *,
        fallback: Fallback = "farthest",
        hardness: Schedulable | None = None,
        distance: Distance = "euclidean",
        normalize: bool = False,
        soft_margin: bool = False,
        ignore_label: float | None = None,
        invalid: Invalid = "drop",
        reduction: Reduction = "mean",
        return_stats: bool = False,
        impl: Impl = "auto",
    ) -> None:
        super().__init__(
            margin,
            mining="semihard",
            fallback=fallback,
            hardness=hardness,
            distance=distance,
            normalize=normalize,
            soft_margin=soft_margin,
            ignore_label=ignore_label,
            invalid=invalid,
            reduction=reduction,
            return_stats=return_stats,
            impl=impl,
        )


class BatchAllTripletLoss(TripletLoss):
    """`TripletLoss` with mining="all": every triplet; the mean is over the active ones.

    Reference: Hermans, Beyer, Leibe, arXiv 1703.07737, section 2 (batch all; the mean over the
    active triplets is the variant that ignores triplets of value 0).
    """

    def __init__(
        self,
        margin: Schedulable | None = None,
        *,
        distance: Distance = "euclidean",
        normalize: bool = False,
        soft_margin: bool = False,
        ignore_label: float | None = None,
        invalid: Invalid = "drop",
        reduction: Reduction = "mean",
        return_stats: bool = False,
        impl: Impl = "auto",
    ) -> None:
        super().__init__(
            margin,
            mining="all",
            distance=distance,
            normalize=normalize,
            soft_margin=soft_margin,
            ignore_label=ignore_label,
            invalid=invalid,
            reduction=reduction,
            return_stats=return_stats,
            impl=impl,
        )
