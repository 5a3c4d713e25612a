# SPDX-License-Identifier: BSD-3-Clause
"""Samples of mined triplets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor
from torch.utils.data import Dataset

from flashmetric._validate import data as check
from flashmetric.reference import Triplets

from ._store import read_columns
from .pairs import Pairs

__all__ = ["TripletDataset", "load_mined"]

Sample = TypeVar("Sample")


def load_mined(out: str | os.PathLike[str]) -> Triplets | Pairs:
    """What `mine_offline` or `mine_pairs` has written to `out`, when it is complete.

    Args:
        out: the path that was given to it.

    Returns:
        Triplets or Pairs of int64 tensors: memory-mapped from a directory, read from an .npz.

    Raises:
        ValueError: nothing is there, or not all of it yet.

    Example:
        >>> import tempfile, torch
        >>> from flashmetric import load_mined, mine_offline
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     embeddings = torch.tensor([[0.0], [1.0], [5.0], [7.0]])
        ...     _ = mine_offline(embeddings, torch.tensor([0, 0, 1, 1]), out=f"{folder}/mined")
        ...     load_mined(f"{folder}/mined").negative.tolist()
        [2, 2, 1, 1]
    """
    path = Path(out)
    complete = path.exists() if path.suffix == ".npz" else (path / "request.json").exists()
    columns = read_columns(path) if complete else {}
    for kind in (Triplets, Pairs):
        if set(kind._fields) <= set(columns):
            return kind(*(columns[field] for field in kind._fields))
    text = f"out must hold a complete result of mine_offline or mine_pairs; got {path}."
    raise check.error(ValueError, "load_mined", text)


class TripletDataset(Dataset[tuple[Sample, Sample, Sample]], Generic[Sample]):
    """Sample t is (dataset[anchor[t]], dataset[positive[t]], dataset[negative[t]]).

    A DataLoader's default collation makes of it three batches. The indices of a path stay on disk:
    each worker maps the same files, and pickling carries the path.

    Args:
        dataset: anything with dataset[i].
        triplets: Triplets, or three tensors, arrays or lists of integers; or a path to which
            `mine_offline` has written.
        references: where positive and negative point, if they were mined with ref_embeddings;
            None = the dataset itself.

    Raises:
        TypeError: triplets that are none.
        ValueError: three columns of different lengths; a path without triplets.

    Example:
        >>> import torch
        >>> from flashmetric import TripletDataset, mine_offline
        >>> rows, labels = torch.tensor([[0.0], [1.0], [5.0], [7.0]]), torch.tensor([0, 0, 1, 1])
        >>> triplets = TripletDataset(rows, mine_offline(rows, labels))
        >>> len(triplets), [sample.item() for sample in triplets[0]]
        (4, [0.0, 1.0, 5.0])
    """

    def __init__(
        self,
        dataset: Any,
        triplets: Triplets | Sequence[Any] | str | os.PathLike[str],
        *,
        references: Any = None,
    ) -> None:
        self.dataset = dataset
        self.references = dataset if references is None else references
        self._path = Path(triplets) if isinstance(triplets, (str, os.PathLike)) else None
        self._columns = self._load() if self._path is not None else _columns(triplets)

    def __len__(self) -> int:
        return len(self._columns[0])

    def __getitem__(self, index: int) -> tuple[Sample, Sample, Sample]:
        if not -len(self) <= index < len(self):
            text = f"index must lie in [{-len(self)}, {len(self)}); got {index}."
            raise check.error(IndexError, type(self).__name__, text)
        anchor, positive, negative = (int(column[index]) for column in self._columns)
        return self.dataset[anchor], self.references[positive], self.references[negative]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | ({} if self._path is None else {"_columns": None})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._path is not None:
            self._columns = self._load()

    def _load(self) -> tuple[Tensor, ...]:
        assert self._path is not None
        found = load_mined(self._path)
        if not isinstance(found, Triplets):
            text = f"triplets must be a path of mine_offline; {self._path} holds pairs."
            raise check.error(ValueError, type(self).__name__, text)
        return tuple(found)


def _columns(triplets: Any) -> tuple[Tensor, ...]:
    op = TripletDataset.__name__
    if not isinstance(triplets, Sequence) or len(triplets) != 3:
        text = f"triplets must be three columns or a path; got {type(triplets).__name__}."
        raise check.error(TypeError, op, text)
    names = (f"triplets.{field}" for field in Triplets._fields)
    columns = tuple(
        check.integers(op, name, column) for name, column in zip(names, triplets, strict=True)
    )
    if len({len(column) for column in columns}) != 1:
        text = f"triplets must be of one length; got {[len(column) for column in columns]}."
        raise check.error(ValueError, op, text)
    return columns
