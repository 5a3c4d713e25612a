# SPDX-License-Identifier: BSD-3-Clause
"""Batches of P classes with K samples of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Literal, cast

import torch
from torch import Generator, Tensor, distributed
from torch.utils.data import Sampler

from flashmetric._validate import data as check

from ._seating import seating, seats

__all__ = ["PKSampler"]

SMALL_CLASSES = ("replace", "skip")


class PKSampler(Sampler[list[int]]):
    """Batches of P classes with K samples of each: positives and negatives for every anchor.

    An epoch is one global order of the data. The samples of each class are shuffled and cut into
    groups of K; batches are filled with groups of P different classes, at random, as many batches
    as there can be. With n_c samples, class c brings G_c = ceil(n_c / K) groups, and the largest
    T with ::

        sum_c min(G_c, T) >= P T

    is the number of full batches: the length is known before the first epoch, and is the same in
    every epoch and on every rank.

    Every sample is seen once an epoch, with three exceptions: the last group of a class is filled
    up with other samples of the class; a class that brings more groups than there are batches
    shows as many as there are batches, different ones each epoch; and groups that are left when
    the batches are full, and do not fill the smaller ones of drop_last=False, wait for another
    epoch.

    Args:
        labels: (N,) class of each sample: a tensor, array or list of integers or bools.
        classes_per_batch: P, at least 1. Below 2 no row has a negative in its batch.
        samples_per_class: K, at least 1. Below 2 no row has a positive in its batch.
        small_classes: what becomes of classes with fewer than K samples. "replace": they form one
            group, in which samples repeat; "skip": they are not drawn.
        drop_last: False ends the epoch with one batch of fewer than P classes, K samples of each,
            if 2 or more classes are left for every rank (on all of them the same number).
        ignore_label: samples of this class are not drawn (for example -1 = unlabelled).
        seed: decides all epochs.
        generator: a CPU torch.Generator; the seed is drawn from it, once, in place of `seed`.
        num_replicas, rank: the ranks draw disjoint parts of one order. Default: those of
            torch.distributed where it is initialised, else 1 and 0. All ranks need equal labels,
            options and seeds.

    Epochs: each pass over the sampler is the next epoch, from 0 on. `set_epoch(e)` makes the next
    pass epoch e. Equal seeds and epochs give equal batches.

    Resuming: `state_dict(consumed=...)` in a checkpoint, `load_state_dict` before the next pass,
    which then starts behind the batches that were consumed. The workers of a DataLoader fetch
    ahead, so with them say how many batches training has consumed. A `set_epoch` with the epoch of
    the state keeps the position.

    Raises:
        TypeError: labels that are not integers; an option of another type.
        ValueError: labels of another shape, or none; fewer than P classes to draw from, or fewer
            batches than replicas; an option out of range; the state of another sampler.

    Memory: O(N). Each rank seats the batches of all, at a few microseconds for each class in each.

    References: Hermans, Beyer, Leibe, In Defense of the Triplet Loss for Person Re-Identification,
    arXiv 1703.07737, section 2 (P classes, K samples).

    Example:
        >>> import torch
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from flashmetric import PKSampler
        >>> labels = torch.arange(12) % 3  # 3 classes of 4 samples
        >>> sampler = PKSampler(labels, classes_per_batch=2, samples_per_class=2)
        >>> len(sampler)
        3
        >>> dataset = TensorDataset(torch.randn(12, 5), labels)
        >>> for rows, classes in DataLoader(dataset, batch_sampler=sampler):
        ...     print(tuple(rows.shape), len(classes.unique()))
        (4, 5) 2
        (4, 5) 2
        (4, 5) 2
    """

    def __init__(
        self,
        labels: Tensor | Sequence[int],
        classes_per_batch: int,
        samples_per_class: int,
        *,
        small_classes: Literal["replace", "skip"] = "replace",
        drop_last: bool = False,
        ignore_label: int | None = None,
        seed: int = 0,
        generator: Generator | None = None,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        op = type(self).__name__
        check.counts(op, classes_per_batch=classes_per_batch, samples_per_class=samples_per_class)
        check.choice(op, "small_classes", small_classes, SMALL_CLASSES)
        self.classes_per_batch = int(classes_per_batch)
        self.samples_per_class = int(samples_per_class)
        self.seed = check.random_seed(op, seed, generator)
        self.num_replicas, self.rank = _replicas(op, num_replicas, rank)
        self._rows, self._class_of = _drawn_rows(op, labels, ignore_label)
        self._sizes = self._class_of.bincount()
        groups = -(-self._sizes // samples_per_class)
        if small_classes == "skip":
            groups[self._sizes < samples_per_class] = 0
        self._check_classes(op, int((groups > 0).sum()))
        self._seating = seating(groups, classes_per_batch, self.num_replicas, drop_last=drop_last)
        if not len(self):
            text = f"labels must fill a batch for each of {self.num_replicas} replicas; got fewer."
            raise check.error(ValueError, op, text)
        self._starts = self._sizes.cumsum(0) - self._sizes
        self._epoch = 0
        self._consumed = 0
        self._pass_begins_here = True

    def __len__(self) -> int:
        """Batches of this rank in an epoch; equal on all ranks."""
        return self._seating.steps

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of the next epoch, or of the rest of the one that was loaded."""
        # Runs at the first next(): a DataLoader with workers asks twice for the iterator of a pass.
        if not self._pass_begins_here:
            self._epoch, self._consumed = self._epoch + 1, 0
        self._pass_begins_here = False
        for batch in self._batches(self._epoch, self._consumed):
            self._consumed += 1
            yield batch

    def set_epoch(self, epoch: int) -> None:
        """The next pass is this epoch; from its start, unless a state within it was loaded."""
        check.counts(type(self).__name__, least=0, epoch=epoch)
        if not (self._pass_begins_here and epoch == self._epoch):
            self._epoch, self._consumed = int(epoch), 0
        self._pass_begins_here = True

    def state_dict(self, consumed: int | None = None) -> dict[str, Any]:
        """Where the epoch stands: after `consumed` batches of it, or after all handed out so far.

        The same on every rank.
        """
        if consumed is None:
            consumed = self._consumed
        check.counts(type(self).__name__, least=0, consumed=consumed)
        ahead, consumed = divmod(consumed, len(self))
        return {"epoch": self._epoch + ahead, "consumed": consumed, "of": self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next pass continues where the state was taken."""
        if state["of"] != self._identity():
            text = f"state must be of a sampler with {self._identity()}; got {state['of']}."
            raise check.error(ValueError, type(self).__name__, text)
        self._epoch, self._consumed = state["epoch"], state["consumed"]
        self._pass_begins_here = True

    def _batches(self, epoch: int, start: int) -> Iterator[list[int]]:
        # torch keeps 32 bits of a seed. The odd factor keeps runs of seeds 0, 1, ... from having
        # each other's epochs, as they would with seed + epoch.
        generator = Generator().manual_seed((self.seed * 0x9E3779B1 + epoch) % 2**32)
        order = torch.randperm(len(self._rows), generator=generator)
        order = order[self._class_of[order].argsort(stable=True)]
        column = torch.arange(self.samples_per_class)
        first = self.rank + start * self.num_replicas
        for seated in islice(seats(self._seating, generator), first, None, self.num_replicas):
            classes, numbers = (torch.tensor(part)[:, None] for part in seated)
            # Wraps around in the order of the class: no sample twice unless it has fewer than K.
            place = (numbers * self.samples_per_class + column) % self._sizes[classes]
            yield cast(
                "list[int]", self._rows[order[self._starts[classes] + place]].flatten().tolist()
            )

    def _check_classes(self, op: str, usable: int) -> None:
        if self.classes_per_batch > usable:
            rule = f"classes_per_batch must be at most {usable}, the number of classes to draw from"
            raise check.error(ValueError, op, f"{rule}; got {self.classes_per_batch}.")

    def _identity(self) -> dict[str, int]:
        """What must be equal for a position in an epoch to mean the same."""
        return {
            "seed": self.seed,
            "samples": len(self._rows),
            "classes_per_batch": self.classes_per_batch,
            "samples_per_class": self.samples_per_class,
            "num_replicas": self.num_replicas,
            "batches": len(self),
        }


def _drawn_rows(op: str, labels: Any, ignore_label: int | None) -> tuple[Tensor, Tensor]:
    """The samples that may be drawn, and the class of each as a number from 0 on."""
    ids = check.class_ids(op, "labels", labels)
    if ignore_label is None:
        rows = torch.arange(len(ids))
    else:
        check.counts(op, least=-(2**63), ignore_label=ignore_label)
        signed = ignore_label - 2**64 if ignore_label >= 2**63 else ignore_label  # of a uint64
        rows = torch.ne(ids, signed).nonzero().squeeze(1)
    return rows, ids[rows].unique(return_inverse=True)[1]


def _replicas(op: str, num_replicas: int | None, rank: int | None) -> tuple[int, int]:
    running = distributed.is_available() and distributed.is_initialized()
    if num_replicas is None:
        num_replicas = distributed.get_world_size() if running else 1
    if rank is None:
        rank = distributed.get_rank() if running else 0
    check.counts(op, num_replicas=num_replicas)
    check.counts(op, least=0, rank=rank)
    if rank >= num_replicas:
        text = f"rank must be below num_replicas, {num_replicas}; got {rank}."
        raise check.error(ValueError, op, text)
    return int(num_replicas), int(rank)
