# SPDX-License-Identifier: BSD-3-Clause
"""What a loss has to know of a batch before it looks at all pairs: ops made of `mine`.

How many rows `apart` asks for may depend on the data, so these are ops of their own, which
torch.compile calls and does not trace.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from flashmetric._labels import class_keys
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


def apart(query: Tensor, ref: Tensor | None, *options: Any) -> Tensor:
    """(B,) int64: the nearest to the negative, of another class than both, or -1."""
    return _apart(query, ref, *options, waits=True)


def apart_without_waiting(query: Tensor, ref: Tensor | None, *options: Any) -> Tensor:
    """The same on a device: of all rows, for who needs none is not known on the host."""
    return _apart(query, ref, *options, waits=False)


def _apart(
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
    *,
    waits: bool,
) -> Tensor:
    search = _Search(query if ref is None else ref, ignore_label, distance, normalize, waits)
    found = torch.full_like(negative, -1)
    if not search.refs.shape[0]:
        return found
    if waits:
        anchor = (negative >= 0).nonzero().squeeze(1)
        near = negative[anchor]
    else:  # some row in place of none
        anchor, near = torch.arange(len(negative), device=query.device), negative.clamp(min=0)
    own = None if self_index is None else self_index[anchor]
    of_refs = labels if ref_labels is None else ref_labels
    if relation == "classes":
        keys = _wide(labels)
        if ref is None and waits:
            # What is nearest to the negative, of another class than its own, is known already, and
            # mostly of another class than the anchor's as well.
            after = negative[near]
            settled = (after >= 0) & (keys[after] != keys[anchor])
            found = found.index_copy(0, anchor[settled], after[settled])
            anchor, near = anchor[~settled], near[~settled]
        nearest = search.of_third_class(near, keys[anchor], of_refs, own)
    elif relation == "multi_hot":
        nearest = search.without_shared_label(near, labels[anchor] != 0, of_refs != 0, own)
    else:
        nearest = search.outside_both_masks(near, labels, anchor)
    if waits:
        return found.index_copy(0, anchor, nearest)
    return torch.where(negative >= 0, nearest, found)


class _Search(NamedTuple):
    """For references `near`, the nearest other reference of no class of theirs.

    A kernel leaves out one reference of each row by its place.
    """

    refs: Tensor
    ignore_label: float | None
    distance: str
    normalize: bool
    waits: bool

    def of_third_class(
        self, near: Tensor, keys: Tensor, of_refs: Tensor, own: Tensor | None
    ) -> Tensor:
        """keys: the class, beside its own, that each row must not choose; own: where it is left
        out by its place."""
        back = None
        if own is None and self.waits:  # anchors of one class often share their negative
            # Numbered, since unique(dim=0) takes sixteen times as long as two of one dimension.
            classes, which = keys.unique(return_inverse=True)
            n = max(1, classes.shape[0])
            pairs, back = (near * n + which).unique(return_inverse=True)
            near, keys = pairs // n, classes[pairs % n]
        known = torch.stack((_wide(of_refs)[near], keys), 1)
        nearest = self._nearest(near, known, of_refs, own, "either")
        return nearest if back is None else nearest[back]

    def without_shared_label(
        self, near: Tensor, hot: Tensor, of_refs: Tensor, own: Tensor | None
    ) -> Tensor:
        """hot: the labels, beside its own, that no choice of a row may have."""
        known = hot | of_refs[near]
        bare = ~of_refs[near].any(1)  # not even of its own class: to be left out by its place
        if own is None:
            return self._nearest(near, known, of_refs, near, "multi_hot")
        out = torch.where(bare, near, own)
        nearest = self._nearest(near, known, of_refs, out, "multi_hot")
        # A device waits here: how many have two to be left out is known nowhere else.
        both = (bare & (own >= 0)).nonzero().squeeze(1)
        for part in both.split(_COLUMNS):
            # The own row as well: it comes to share one more label with the row, a column for each.
            n = part.shape[0]
            more = of_refs.new_zeros(self.refs.shape[0], n)
            more[own[part], torch.arange(n, device=part.device)] = True
            each = torch.eye(n, dtype=torch.bool, device=part.device)
            known_of_part = torch.cat((known[part], each), 1)
            sides = (known_of_part, torch.cat((of_refs, more), 1), near[part])
            nearest[part] = self._nearest(near[part], *sides, "multi_hot")
        return nearest

    def outside_both_masks(self, near: Tensor, mask: Tensor, anchor: Tensor) -> Tensor:
        """Among the anchors themselves, of which `anchor` gave the rows."""
        known = mask[anchor] | mask[near]
        known.scatter_(1, torch.stack((anchor, near), 1), True)
        return self._nearest(near, known, None, None, "mask")

    def _nearest(
        self,
        near: Tensor,
        known: Tensor,
        of_refs: Tensor | None,
        own: Tensor | None,
        relation: str,
    ) -> Tensor:
        if not near.shape[0]:
            return near
        rule = (relation, self.ignore_label, "hard", self.distance, self.normalize)
        return mine(self.refs[near], self.refs, known, of_refs, own, *rule)[1]


def _wide(labels: Tensor) -> Tensor:
    """Class ids of any dtype in one that holds those of others of their kind."""
    return labels.double() if labels.is_floating_point() else class_keys(labels)
