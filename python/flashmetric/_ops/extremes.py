# SPDX-License-Identifier: BSD-3-Clause
"""What a loss has to know of a batch before it looks at all pairs: ops made of `mine`.

How many rows are asked for depends on the data, so these are ops of their own, which torch.compile
calls and does not trace.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flashmetric._labels import compared
from flashmetric.reference.distances import paired_key

from .cpu import mine


def bounds(query: Tensor, ref: Tensor | None, *options: Any) -> Tensor:
    """(2,) float64 keys of a batch: of its nearest negative pair and of its farthest positive one.

    Without pairs of one kind: bounds that no pair is beyond.
    """
    *comparison, distance, normalize = options
    metric = {"distance": distance, "normalize": normalize}
    keys = []
    for chosen in mine(query, ref, *comparison, "hard", distance, normalize):
        rows = (chosen >= 0).nonzero().squeeze(1)
        others = (query if ref is None else ref)[chosen[rows]]
        keys.append(paired_key(query[rows], others, **metric))
    positive, negative = keys
    if not positive.shape[0] or not negative.shape[0]:
        return torch.tensor([torch.inf, -torch.inf], dtype=torch.float64)
    return torch.stack((negative.amin(), positive.amax()))


def apart(
    query: Tensor,
    ref: Tensor | None,
    labels: Tensor,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    negative: Tensor,
    relation: str,
    ignore_label: float | None,
    distance: str,
    normalize: bool,
) -> Tensor:
    """(B,) int64: the nearest to the negative, of another class than both, or -1."""
    refs = query if ref is None else ref
    found = torch.full_like(negative, -1)
    anchor = (negative >= 0).nonzero().squeeze(1)
    near, back = negative[anchor], torch.arange(anchor.shape[0])
    own = None if self_index is None else self_index[anchor]
    rows = torch.arange(refs.shape[0])
    if relation == "mask":
        known, of_refs = labels[anchor] | labels[near], None
        known.scatter_(1, torch.stack((anchor, near), 1), True)
    elif relation == "multi_hot":
        of_refs = labels if ref_labels is None else ref_labels
        known, own = (labels[anchor] != 0) | (of_refs[near] != 0), near  # n1 may have no label
    else:
        keys, kept = compared(labels, relation, ignore_label)
        of_refs = keys
        if ref_labels is not None:
            of_refs, kept = compared(ref_labels, relation, ignore_label)
        pairs = torch.stack((near, keys[anchor]), 1)
        if ref is None:
            # What is nearest to the negative, of another class than its own, is known already, and
            # mostly of another class than the anchor's as well.
            after = negative[near]
            settled = (after >= 0) & (keys[after] != pairs[:, 1])
            found = found.index_copy(0, anchor[settled], after[settled])
            anchor, pairs = anchor[~settled], pairs[~settled]
        if own is None:  # anchors of one class often share their negative
            pairs, back = pairs.unique(dim=0, return_inverse=True)
        near = pairs[:, 0]
        known, relation = torch.stack((of_refs[near], pairs[:, 1]), 1), "either"
        if kept is not None:
            rows = kept.nonzero().squeeze(1)
            own = None if own is None else _places(rows, own, refs.shape[0])
            of_refs = of_refs[rows]
    if not rows.shape[0] or not near.shape[0]:
        return found
    candidates = refs if rows.shape[0] == refs.shape[0] else refs[rows]
    sides = (known, of_refs, own, relation, None)
    _, nearest = mine(refs[near], candidates, *sides, "hard", distance, normalize)
    nearest = torch.where(nearest >= 0, rows[nearest.clamp(min=0)], -1)
    return found.index_copy(0, anchor, nearest[back])


def _places(rows: Tensor, wanted: Tensor, n: int) -> Tensor:
    """Where among `rows` each wanted row is; -1 = nowhere."""
    place = torch.full((n + 1,), -1)
    place[rows] = torch.arange(rows.shape[0])
    return place[wanted]  # -1 reads the last entry, which is -1
