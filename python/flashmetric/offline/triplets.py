# SPDX-License-Identifier: BSD-3-Clause
"""Triplets of a whole data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from flashmetric._validate import data as check
from flashmetric.mining import mine_triplets
from flashmetric.reference import Triplets
from flashmetric.reference.mining import Comparison

from ._chunks import Columns, Job, Run, bounds_of, chunk_of, comparison_of, run
from ._store import fingerprint

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["mine_offline"]


def mine_offline(
    embeddings: Tensor | NDArray[Any],
    labels: Tensor | NDArray[Any] | Sequence[int],
    *,
    mining: Any = "hard",
    distance: Any = "euclidean",
    normalize: bool = False,
    ref_embeddings: Tensor | NDArray[Any] | None = None,
    ref_labels: Tensor | NDArray[Any] | Sequence[int] | None = None,
    self_index: Tensor | NDArray[Any] | None = None,
    ignore_label: float | None = None,
    generator: Generator | None = None,
    queries_per_chunk: int | None = None,
    progress: bool = True,
    out: str | os.PathLike[str] | None = None,
    resume: bool = True,
    impl: str = "auto",
    **rule: Any,
) -> Triplets:
    """Equals `mine_triplets(...)` of a whole data set, in chunks of queries, resumable on disk.

    Queries start to stop meet all references; which chunk a query is in does not change its
    triplets (except the random ones).

    Args:
        embeddings: (N, D) queries: a tensor, or a numpy array or memory map, which is not copied.
        labels: (N,) class ids or (N, C) multi-hot, as in `mine_triplets`; arrays and lists too.
        mining: a rule of `mine_triplets`.
        distance: as in `mine_triplets`.
        normalize: as in `mine_triplets`.
        ref_embeddings: (R, D) references, a tensor or an array. Without them the embeddings are the
            references, and no row is compared with itself.
        ref_labels: (R,) or (R, C), of the kind of labels.
        self_index: (N,) int64: the reference that is query i itself, -1 = none.
        ignore_label: rows of this class are neither anchors nor candidates.
        generator: of the random rules: a CPU torch.Generator, from which one seed is drawn; chunk k
            draws from seed + k.
        queries_per_chunk: None = all in one chunk where that is faster and takes less than 1 GiB
            (up to 131,072 rows without references), else 16,384.
        progress: show a bar, on a terminal, where tqdm is installed.
        out: write the triplets there: one file if it ends in .npz, else a directory of .npy files,
            which is what memory maps need. Needs numpy.
        resume: go on behind the chunks of an interrupted run of the same request at `out`, and
            return its triplets at once if it is complete. False: begin again, and replace it.
        impl: "auto", "fused" or "reference"; see `pairwise_distances`.
        rule: what `mine_triplets` takes for a rule of mining: fallback, hardness, mining_margin and
            so on. A callable is called once.

    Returns:
        Triplets(anchor, positive, negative): int64 (T,), ordered by anchor, on the device of the
        embeddings; with `out`, memory-mapped from the directory or read from the file.

    Raises:
        TypeError, ValueError, RuntimeError: as `mine_triplets`, before anything is written.
        ValueError: `out` holds a run of another request: other options, shapes, dtypes or labels,
            or other rows among the 1024 that are compared.

    Ties, empty input: as `mine_triplets`. Gradient: none.

    Memory: O((queries_per_chunk + R) D) beyond the inputs, and the triplets: of one chunk with
    `out`, of all without. Rules that list every triplet of a class need small chunks.

    References: Hermans, Beyer, Leibe, arXiv 1703.07737, section 2 (offline hard mining and what it
    costs); Schroff, Kalenichenko, Philbin, FaceNet, arXiv 1503.03832, section 3.2.

    Example:
        >>> import torch
        >>> from flashmetric import mine_offline, mine_triplets
        >>> embeddings, labels = torch.randn(1000, 8), torch.arange(1000) % 100
        >>> triplets = mine_offline(embeddings, labels, queries_per_chunk=300)
        >>> expected = mine_triplets(embeddings, labels)
        >>> all(torch.equal(ours, whole) for ours, whole in zip(triplets, expected))
        True
    """
    op = "mine_offline"
    given = comparison_of(
        *(op, embeddings, labels),
        ref_embeddings=ref_embeddings,
        ref_labels=ref_labels,
        self_index=self_index,
        ignore_label=ignore_label,
    )
    options = {"mining": mining, "distance": distance, "normalize": normalize, "impl": impl}
    options |= {name: _now(name, value) for name, value in rule.items()}
    _try(given, options)
    seed = None if generator is None else check.random_seed(op, 0, generator)
    bounds = bounds_of(op, given, queries_per_chunk)

    def mine(chunk: int) -> Columns:
        start, stop = bounds[chunk]
        rows = {name: _of_rows(value, start, stop) for name, value in options.items()}
        if seed is not None:
            rows["generator"] = Generator().manual_seed(seed + chunk)
        anchor, *others = mine_triplets(**chunk_of(given, start, stop), **rows)
        return (anchor + start, *others)

    remembered = {name: fingerprint(value) for name, value in options.items()} | {"seed": seed}
    job = Job(op, Triplets._fields, given, bounds, mine, remembered)
    return Triplets(*run(job, Run(progress, out, resume)))


def _now(name: str, value: Any) -> Any:
    """A schedule as it stands now, the same for all chunks."""
    return value() if name in ("hardness", "mining_margin") and callable(value) else value


def _of_rows(value: Any, start: int, stop: int) -> Any:
    """The part of an option that has one number per anchor."""
    return value[start:stop] if isinstance(value, Tensor) and value.ndim else value


def _try(given: Comparison, options: dict[str, Any]) -> None:
    """Refuses wrong options at once, and not after files were written."""
    assert given.labels is not None
    empty = {name: _of_rows(value, 0, 0) for name, value in options.items()}
    with torch.random.fork_rng(devices=[]):
        mine_triplets(given.embeddings[:0], given.labels[:0], **empty)
