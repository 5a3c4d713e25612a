# SPDX-License-Identifier: BSD-3-Clause
"""What a loss has to know of a batch before it looks at all pairs: ops made of `mine`.

How many rows `apart` asks for depends on the data, so these are ops of their own, which
torch.compile calls and does not trace.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from flashmetric._labels import compared
from flashmetric.reference.distances import paired_key

from . import cpu, cuda

_COLUMNS = 64  # one word of packed labels


def mine(query: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """By the kernels of the device."""
    return cuda.mine(query, *rest) if query.is_cuda else cpu.mine(query, *rest)


def bounds(query: Tensor, ref: Tensor | None, *options: Any) -> Tensor:
    """(2,) float64 keys of a batch: of its nearest negative pair and of its farthest positive one.

    Without pairs of one kind: bounds that no pair is beyond.
    """
    *comparison, distance, normalize = options
    refs = query if ref is None else ref
    lowest = query.new_full((1,), torch.inf, dtype=torch.float64)
    highest = -lowest
    if query.shape[0] and refs.shape[0]:  # known without a look at the data, unlike who has pairs
        chosen = mine(query, ref, *comparison, "hard", distance, normalize)
        positive, negative = (
            paired_key(query, refs[each.clamp(min=0)], distance=distance, normalize=normalize)
            for each in chosen
        )
        both = (chosen[0] >= 0).any() & (chosen[1] >= 0).any()
        lowest = torch.where(both & (chosen[1] >= 0), negative, lowest)
        highest = torch.where(both & (chosen[0] >= 0), positive, highest)
    return torch.stack((lowest.amin(), highest.amax()))


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
    search = _Search(query if ref is None else ref, distance, normalize)
    found = torch.full_like(negative, -1)
    anchor = (negative >= 0).nonzero().squeeze(1)
    near = negative[anchor]
    own = None if self_index is None else self_index[anchor]
    if relation == "classes":
        keys, kept = compared(labels, relation, ignore_label)
        of_refs = keys
        if ref_labels is not None:
            of_refs, kept = compared(ref_labels, relation, ignore_label)
        if ref is None:
            # What is nearest to the negative, of another class than its own, is known already, and
            # mostly of another class than the anchor's as well.
            after = negative[near]
            settled = (after >= 0) & (keys[after] != keys[anchor])
            found = found.index_copy(0, anchor[settled], after[settled])
            anchor, near = anchor[~settled], near[~settled]
        nearest = search.of_third_class(near, keys[anchor], of_refs, kept, own)
    elif relation == "multi_hot":
        of_refs = (labels if ref_labels is None else ref_labels) != 0
        nearest = search.without_shared_label(near, labels[anchor] != 0, of_refs, own)
    else:
        nearest = search.outside_both_masks(near, labels, anchor)
    return found.index_copy(0, anchor, nearest)


class _Search(NamedTuple):
    """For references `near`, the nearest other reference of no class of theirs.

    A kernel leaves out one reference of each row by its place.
    """

    refs: Tensor
    distance: str
    normalize: bool

    def of_third_class(
        self,
        near: Tensor,
        keys: Tensor,
        of_refs: Tensor,
        kept: Tensor | None,
        own: Tensor | None,
    ) -> Tensor:
        """keys: the class, beside its own, that each row must not choose; own: where it is left
        out by its place."""
        back = None
        if own is None:  # anchors of one class often share their negative
            # Numbered, since unique(dim=0) takes sixteen times as long as two of one dimension.
            classes, which = keys.unique(return_inverse=True)
            n = max(1, classes.shape[0])
            pairs, back = (near * n + which).unique(return_inverse=True)
            near, keys = pairs // n, classes[pairs % n]
        known, refs = torch.stack((of_refs[near], keys), 1), self.refs
        if kept is None:
            nearest = self._nearest(near, refs, known, of_refs, own, "either")
        else:
            rows = kept.nonzero().squeeze(1)
            own = None if own is None else _places(rows, own, refs.shape[0])
            nearest = self._nearest(near, refs[rows], known, of_refs[rows], own, "either")
            nearest = torch.where(nearest >= 0, rows[nearest.clamp(min=0)], -1)
        return nearest if back is None else nearest[back]

    def without_shared_label(
        self, near: Tensor, hot: Tensor, of_refs: Tensor, own: Tensor | None
    ) -> Tensor:
        """hot: the labels, beside its own, that no choice of a row may have."""
        known = hot | of_refs[near]
        bare = ~of_refs[near].any(1)  # not even of its own class: to be left out by its place
        places = torch.full_like(near, -1) if own is None else own
        out = near if own is None else torch.where(bare, near, own)
        nearest = self._nearest(near, self.refs, known, of_refs, out, "multi_hot")
        both = (bare & (places >= 0)).nonzero().squeeze(1)
        for part in both.split(_COLUMNS):
            # The own row as well: it comes to share one more label with the row, a column for each.
            n = part.shape[0]
            more = of_refs.new_zeros(self.refs.shape[0], n)
            more[places[part], torch.arange(n, device=part.device)] = True
            each = torch.eye(n, dtype=torch.bool, device=part.device)
            known_of_part = torch.cat((known[part], each), 1)
            sides = (known_of_part, torch.cat((of_refs, more), 1), near[part])
            nearest[part] = self._nearest(near[part], self.refs, *sides, "multi_hot")
        return nearest

    def outside_both_masks(self, near: Tensor, mask: Tensor, anchor: Tensor) -> Tensor:
        """Among the anchors themselves, of which `anchor` gave the rows."""
        known = mask[anchor] | mask[near]
        known.scatter_(1, torch.stack((anchor, near), 1), True)
        return self._nearest(near, self.refs, known, None, None, "mask")

    def _nearest(
        self,
        near: Tensor,
        refs: Tensor,
        known: Tensor,
        of_refs: Tensor | None,
        own: Tensor | None,
        relation: str,
    ) -> Tensor:
        if not refs.shape[0] or not near.shape[0]:
            return torch.full_like(near, -1)
        sides = (known, of_refs, own, relation, None)
        return mine(self.refs[near], refs, *sides, "hard", self.distance, self.normalize)[1]


def _places(rows: Tensor, wanted: Tensor, n: int) -> Tensor:
    """Where among `rows` each wanted row is; -1 = nowhere."""
    place = torch.full((n + 1,), -1, device=rows.device)
    place[rows] = torch.arange(rows.shape[0], device=rows.device)
    return place[wanted]  # -1 reads the last entry, which is -1
