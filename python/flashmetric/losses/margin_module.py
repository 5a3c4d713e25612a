# SPDX-License-Identifier: BSD-3-Clause
"""The module of the margin loss: its boundary may be learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flashmetric import _validate
from flashmetric._mining import Schedulable
from flashmetric._names import Distance, Fallback, Impl, ListMining, Reduction, Strategy
from flashmetric.reference import Stats

from ._module import BatchLoss
from ._pairs import selected
from .margin import margin_loss

__all__ = ["MarginLoss"]


class MarginLoss(BatchLoss):
    """`margin_loss` with remembered options; its docstring says what they mean.

    Args:
        beta: the boundary, or where it starts from if it is learned.
        learn_beta: make beta a parameter, ``criterion.beta``. It learns what the embeddings learn,
            so it belongs into an optimizer.
        num_classes: one boundary per class, (num_classes,). Labels are then (B,) integers from 0 to
            num_classes - 1, or ignore_label. beta is a number for all, or one number each.

    Without learn_beta the module is stateless: no parameters, nothing in the state_dict.

    Example:
        >>> import torch
        >>> from flashmetric import MarginLoss
        >>> criterion = MarginLoss(beta=1.0, learn_beta=True, num_classes=3, mining="hard")
        >>> criterion
        MarginLoss(beta=tensor([1., 1., 1.]), learn_beta=True, num_classes=3, mining='hard')
        >>> rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> criterion(rows, torch.tensor([0, 0, 2])).backward()
        >>> criterion.beta.grad.tolist()
        [0.0, 0.0, 0.0]
    """

    function = staticmethod(margin_loss)

    def __init__(
        self,
        beta: Schedulable = 1.2,
        margin: Schedulable = 0.2,
        *,
        learn_beta: bool = False,
        num_classes: int | None = None,
        mining: ListMining = "distance_weighted",
        fallback: Fallback = "farthest",
        hardness: Schedulable | None = None,
        mining_margin: Schedulable | None = None,
        positive_mining: Strategy = "easy",
        negative_mining: Strategy = "semihard",
        n_negatives: int = 1,
        generator: torch.Generator | None = None,
        distance: Distance = "euclidean",
        normalize: bool = True,
        ignore_label: float | None = None,
        reduction: Reduction = "mean",
        return_stats: bool = False,
        impl: Impl = "auto",
    ) -> None:
        name = type(self).__name__
        _validate.word(name, "mining", mining, "list_mining")
        _validate.names(name, reduction=reduction, impl=impl)
        _validate.distance(name, distance)
        rule = {
            "mining": mining,
            "fallback": fallback,
            "hardness": hardness,
            "mining_margin": mining_margin,
            "positive_mining": positive_mining,
            "negative_mining": negative_mining,
            "n_negatives": n_negatives,
            "generator": generator,
        }
        _validate.rule_words(name, _validate.RuleOptions(**rule))
        super().__init__(
            beta=_boundary(name, beta, learn_beta, num_classes),
            margin=margin,
            **rule,
            distance=distance,
            normalize=normalize,
            ignore_label=ignore_label,
            reduction=reduction,
            return_stats=return_stats,
            impl=impl,
        )
        self.learn_beta = learn_beta
        self.num_classes = num_classes

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        *,
        ref_embeddings: Tensor | None = None,
        ref_labels: Tensor | None = None,
        same_mask: Tensor | None = None,
        self_index: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Stats]:
        """`margin_loss` of this batch: (B, D) embeddings and their labels."""
        options = self.options()
        if self.num_classes is not None:
            name, ignored = type(self).__name__, options["ignore_label"]
            which = _validate.class_ids(name, labels, self.num_classes, ignored)
            options["beta"] = selected(options["beta"], which)
        result: Tensor | tuple[Tensor, Stats] = margin_loss(
            embeddings,
            labels,
            ref_embeddings=ref_embeddings,
            ref_labels=ref_labels,
            same_mask=same_mask,
            self_index=self_index,
            weights=weights,
            **options,
        )
        return result


def _boundary(
    op: str, beta: Schedulable, learned: bool, num_classes: int | None
) -> Schedulable | nn.Parameter:
    """What the module remembers as beta: as given; or of one number per class; or a parameter."""
    _validate.flags(op, learn_beta=learned)
    if num_classes is not None:
        _validate.count(op, "num_classes", num_classes)
    if not learned and num_classes is None:
        return beta
    _validate.start(op, "beta", beta, num_classes)
    values = torch.as_tensor(
        beta, dtype=None if isinstance(beta, Tensor) else torch.get_default_dtype()
    )
    values = values.detach().expand(() if num_classes is None else (num_classes,)).clone()
    return nn.Parameter(values) if learned else values
