# SPDX-License-Identifier: BSD-3-Clause
"""Splits identities, not samples, between training and validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral, Real
from typing import Any

import torch
from torch import Generator, Tensor

from flashmetric._validate import data as check

__all__ = ["split_identities"]


def split_identities(
    labels: Tensor | Sequence[int],
    parts: float | Sequence[float] | Sequence[int],
    *,
    stratify: Tensor | Sequence[int] | None = None,
    seed: int = 0,
    generator: Generator | None = None,
) -> tuple[Tensor, ...]:
    """Indices of the samples in each part; all samples of one identity are in the same part.

    What a metric has learned shows on identities it has not seen. A split of samples would put
    photographs of the same person on both sides, and measure memory.

    Of C identities, part k of a share s_k gets those from round(C (s_0 + ... + s_(k-1))) to
    round(C (s_0 + ... + s_k)) of a random order.

    Args:
        labels: (N,) identity of each sample: a tensor, array or list of integers or bools.
        parts: the share of the identities that go to validation, between 0 and 1; or the shares of
            several parts, which add up to 1; or their numbers of identities, which add up to C.
        stratify: (N,) stratum of each sample, such as the camera, the domain or the superclass;
            all samples of an identity must agree. Each stratum is then split alike, up to the
            rounding of a few identities. The sizes of the parts do not change.
        seed: decides the split; by default it is the same in every run and on every rank.
        generator: a CPU torch.Generator; the seed is drawn from it, in place of `seed`.

    Returns:
        A tuple of int64 tensors, ascending: (training, validation) for one share, else one for
        each part. Together they hold every sample once.

    Raises:
        TypeError: labels or strata that are not integers; parts that are not numbers.
        ValueError: a shape that does not fit; shares or sizes that do not add up; a part without
            an identity; an identity of two strata.

    Memory: O(N).

    Example:
        >>> import torch
        >>> from flashmetric import split_identities
        >>> labels = torch.tensor([7, 7, 8, 8, 9, 9, 9, 5])
        >>> training, validation = split_identities(labels, 0.25)
        >>> set(labels[training].tolist()) & set(labels[validation].tolist())
        set()
        >>> [len(labels[part].unique()) for part in split_identities(labels, [2, 1, 1])]
        [2, 1, 1]
    """
    op = "split_identities"
    ids = check.class_ids(op, "labels", labels)
    identity = ids.unique(return_inverse=True)[1]
    n = int(identity.max()) + 1
    sizes = _sizes(op, parts, n)
    random = Generator().manual_seed(check.random_seed(op, seed, generator))
    order = torch.randperm(n, generator=random)
    if stratify is None:
        part_at = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    else:
        stratum = _stratum_of(op, identity, stratify)
        # Strata in a random order: else it would decide where the rounding goes.
        shuffled = torch.randperm(int(stratum.max()) + 1, generator=random)
        order = order[shuffled[stratum[order]].argsort(stable=True)]
        part_at = _spread(sizes)
    part_of = torch.empty_like(order)
    part_of[order] = part_at
    return tuple((part_of[identity] == k).nonzero().squeeze(1) for k in range(len(sizes)))


def _spread(sizes: list[int]) -> Tensor:
    """sizes[k] times k, each spread evenly: any stretch holds the parts in proportion."""
    parts = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    places = torch.cat([(torch.arange(size) + 0.5) / size for size in sizes])
    return parts[places.argsort(stable=True)]


def _sizes(op: str, parts: Any, n: int) -> list[int]:
    """Identities in each part."""
    if isinstance(parts, Real):
        share = check.fraction(op, "parts", parts)
        parts = [1 - share, share]
    elif not isinstance(parts, Sequence) or isinstance(parts, str) or not parts:
        text = f"parts must be a share or a sequence of shares or sizes; got {parts!r}."
        raise check.error(TypeError, op, text)
    if all(isinstance(part, Integral) for part in parts):
        check.counts(op, **{f"parts[{k}]": size for k, size in enumerate(parts)})
        sizes = [int(size) for size in parts]
        if sum(sizes) != n:
            text = f"parts must add up to {n}, the number of identities; got {sum(sizes)}."
            raise check.error(ValueError, op, text)
        return sizes
    shares = [check.fraction(op, f"parts[{k}]", share) for k, share in enumerate(parts)]
    if not math.isclose(sum(shares), 1.0):
        text = f"parts must add up to 1; got {sum(shares)}."
        raise check.error(ValueError, op, text)
    bounds = [round(n * sum(shares[:k])) for k in range(len(shares) + 1)]
    sizes = [end - start for start, end in pairwise(bounds)]
    if min(sizes) == 0:
        text = f"parts must leave each part an identity; got {sizes} of {n} identities."
        raise check.error(ValueError, op, text)
    return sizes


def _stratum_of(op: str, identity: Tensor, stratify: Any) -> Tensor:
    """(C,) the stratum of each identity, as a number from 0 on."""
    strata = check.class_ids(op, "stratify", stratify)
    if len(strata) != len(identity):
        text = f"stratify must have shape ({len(identity)},); got {tuple(strata.shape)}."
        raise check.error(ValueError, op, text)
    strata = strata.unique(return_inverse=True)[1]
    stratum_of = torch.empty(int(identity.max()) + 1, dtype=torch.int64)
    stratum_of[identity] = strata
    mixed = (stratum_of[identity] != strata).nonzero()
    if len(mixed):
        text = f"stratify must be the same for all samples of an identity; sample {int(mixed[0])}"
        raise check.error(ValueError, op, f"{text} differs from another one.")
    return stratum_of
