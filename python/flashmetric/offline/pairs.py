# SPDX-License-Identifier: BSD-3-Clause
"""The hardest pairs of a whole data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from flashmetric import _validate
from flashmetric._metrics import compared
from flashmetric._mining import hardest
from flashmetric.reference import mining
from flashmetric.reference.mining import Comparison

from ._chunks import Columns, Job, Run, bounds_of, chunk_of, comparison_of, run
from ._store import fingerprint

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Pairs", "mine_pairs"]


class Pairs(NamedTuple):
    """Mined pairs, ordered by x1, the similar one first: three int64 tensors (T,)."""

    x1: Tensor  # rows of the embeddings
    x2: Tensor  # rows of the references; of the embeddings when there are none
    similar: Tensor  # 1 = of one class, 0 = of two


def mine_pairs(
    embeddings: Tensor | NDArray[Any],
    labels: Tensor | NDArray[Any] | Sequence[int],
    *,
    distance: Any = "euclidean",
    normalize: bool = False,
    ref_embeddings: Tensor | NDArray[Any] | None = None,
    ref_labels: Tensor | NDArray[Any] | Sequence[int] | None = None,
    self_index: Tensor | NDArray[Any] | None = None,
    ignore_label: float | None = None,
    queries_per_chunk: int | None = None,
    progress: bool = True,
    out: str | os.PathLike[str] | None = None,
    resume: bool = True,
    impl: str = "auto",
) -> Pairs:
    """The farthest positive and the nearest negative of every row, as pairs for a contrastive loss.

    Row i gives the pair (i, farthest row of its class, 1) if it has a positive, and the pair
    (i, nearest row of another class, 0) if it has a negative: 2 N pairs at most. Two rows that are
    each other's hardest form a pair from each side.

    Args:
        embeddings, labels, distance, normalize, ref_embeddings, ref_labels, self_index,
            ignore_label, queries_per_chunk, progress, out, resume, impl: as in `mine_offline`.
            Without `out` nothing is written, and a batch is as good as a data set.

    Returns:
        Pairs(x1, x2, similar): int64 (T,), on the device of the embeddings; with `out`,
        memory-mapped from the directory or read from the file.

    Raises:
        TypeError, ValueError, RuntimeError: as `mine_offline`.

    Ties: rows are compared by float64 keys (`reference.rank_key`); of equal keys the lowest index
    is chosen, and a row with a NaN key before any other.

    Empty input: rows without candidates give no pair. Gradient: none.

    Memory: O((queries_per_chunk + R) D) beyond the inputs, and 48 bytes for each row.

    References: Hadsell, Chopra, LeCun, Dimensionality Reduction by Learning an Invariant Mapping,
    CVPR 2006 (the loss of pairs); Simo-Serra et al., Discriminative Learning of Deep Convolutional
    Feature Point Descriptors, ICCV 2015, section 3.2 (mining hard positive and negative pairs).

    Example:
        >>> import torch
        >>> from flashmetric import contrastive_pairs_loss, mine_pairs
        >>> embeddings = torch.tensor([[0.0], [1.0], [5.0]])
        >>> pairs = mine_pairs(embeddings, torch.tensor([0, 0, 1]))
        >>> torch.stack(pairs, dim=1).tolist()  # row 2 is alone in its class
        [[0, 1, 1], [0, 2, 0], [1, 0, 1], [1, 2, 0], [2, 1, 0]]
        >>> contrastive_pairs_loss(*pairs, embeddings=embeddings, reduction="sum").item()
        2.0
    """
    op = "mine_pairs"
    _validate.distance(op, distance)
    _validate.flags(op, normalize=normalize)
    given = comparison_of(
        *(op, embeddings, labels),
        ref_embeddings=ref_embeddings,
        ref_labels=ref_labels,
        self_index=self_index,
        ignore_label=ignore_label,
    )
    options = {"distance": fingerprint(distance), "normalize": normalize, "impl": impl}
    given, metric = compared(op, given, distance, normalize)
    fused = _validate.use_fused(op, impl, given.embeddings.device, "mine", metric[0])
    bounds = bounds_of(op, given, queries_per_chunk)

    def mine(chunk: int) -> Columns:
        part = Comparison(**chunk_of(given, *bounds[chunk]))
        if fused:
            positive, negative = hardest(part, *metric)
        else:
            positive, negative = mining.choose_hard(part, *metric)
        return _pairs(positive, negative, bounds[chunk][0])

    job = Job(op, Pairs._fields, given, bounds, mine, options)
    return Pairs(*run(job, Run(progress, out, resume)))


def _pairs(positive: Tensor, negative: Tensor, start: int) -> Columns:
    x2 = torch.stack([positive, negative], dim=1)  # a negative number: no such row
    found = x2 >= 0
    row, column = found.nonzero().unbind(1)
    return row + start, x2[found], 1 - column
