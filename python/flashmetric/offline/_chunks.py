# SPDX-License-Identifier: BSD-3-Clause
"""Queries in chunks, each against all references."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from flashmetric import _validate
from flashmetric._progress import Progress
from flashmetric._validate import data as check
from flashmetric.reference.mining import Comparison

from ._store import Store, fingerprint

__all__ = ["Columns", "Job", "Run", "bounds_of", "chunk_of", "comparison_of", "run"]

Columns: TypeAlias = tuple[Tensor, ...]  # int64, of one length

# One call on so many rows compares them both ways at once, for half the work of chunks: under 5 s
# on two cores. Its memory, at most 32 bytes per row and feature, stays below 1 GiB.
WHOLE_ROWS, WHOLE_NUMBERS = 1 << 17, 1 << 25
# Each chunk packs all references again, which costs as much as comparing them with some 100 rows:
# below 1 % of it.
CHUNK_ROWS = 1 << 14


class Job(NamedTuple):
    op: str
    fields: tuple[str, ...]  # names of the columns
    given: Comparison
    bounds: list[tuple[int, int]]  # first and last query of each chunk
    mine: Callable[[int], Columns]  # the rows of a chunk
    options: dict[str, Any]  # all else that decides the result


class Run(NamedTuple):
    """How it is run: nothing that decides the result."""

    progress: bool
    out: str | os.PathLike[str] | None
    resume: bool


def run(job: Job, how: Run) -> Columns:
    _validate.flags(job.op, progress=how.progress, resume=how.resume)
    n = len(job.given.embeddings)
    store = None
    if how.out is not None:
        data = {name: fingerprint(part) for name, part in job.given._asdict().items()}
        request = {"op": job.op, "queries_per_chunk": job.bounds[0][1], **job.options, **data}
        store = Store(job.op, how.out, job.fields, request, resume=how.resume)
        if store.is_complete():
            return store.load()
    parts = []
    with Progress(job.op, n, shown=how.progress) as bar:
        for chunk, (start, stop) in enumerate(job.bounds):
            if store is None:
                parts.append(job.mine(chunk))
            elif not store.has(chunk):
                store.write(chunk, job.mine(chunk))
            bar.step(count=stop - start)
    if store is not None:
        store.complete(len(job.bounds))
        return store.load()
    return tuple(torch.cat(columns) for columns in zip(*parts, strict=True))


def bounds_of(op: str, given: Comparison, queries_per_chunk: int | None) -> list[tuple[int, int]]:
    """At least one chunk, so that an empty data set has a result."""
    n, dim = given.embeddings.shape
    if queries_per_chunk is None:
        whole = given.ref_embeddings is None and n <= WHOLE_ROWS and n * dim <= WHOLE_NUMBERS
        queries_per_chunk = max(n, 1) if whole else CHUNK_ROWS
    check.counts(op, queries_per_chunk=queries_per_chunk)
    size = int(queries_per_chunk)
    return [(start, min(start + size, n)) for start in range(0, max(n, 1), size)]


def chunk_of(given: Comparison, start: int, stop: int) -> dict[str, Any]:
    """The keywords that compare queries start to stop with all references."""
    rows = slice(start, stop)
    common = {"ignore_label": given.ignore_label}
    if given.ref_embeddings is None and stop - start == len(given.embeddings):
        return {"embeddings": given.embeddings, "labels": given.labels, **common}
    own = given.self_index if given.self_index is None else given.self_index[rows]
    if given.ref_embeddings is None:
        own = torch.arange(start, stop, device=given.embeddings.device)
    assert given.labels is not None
    return {
        "embeddings": given.embeddings[rows],
        "labels": given.labels[rows],
        "ref_embeddings": given.refs,
        "ref_labels": given.labels if given.ref_embeddings is None else given.ref_labels,
        "self_index": own,
        **common,
    }


def comparison_of(op: str, embeddings: Any, labels: Any, **rest: Any) -> Comparison:
    """Arrays as tensors, without a copy of the embeddings; all checked."""
    rows = _rows(op, "embeddings", embeddings)
    device = rows.device if isinstance(rows, Tensor) else torch.device("cpu")
    columns = {"labels": labels} | {name: rest[name] for name in ("ref_labels", "self_index")}
    given = Comparison(
        rows,
        ref_embeddings=_rows(op, "ref_embeddings", rest["ref_embeddings"]),
        ignore_label=rest["ignore_label"],
        **{name: _column(op, name, value, device) for name, value in columns.items()},
    )
    _validate.comparison(op, given)
    return given


def _rows(op: str, argument: str, value: Any) -> Any:
    """What is neither a tensor nor an array is refused later, with all else."""
    if not hasattr(value, "__array_interface__"):
        return value
    try:
        with warnings.catch_warnings():
            # A memory map that cannot be written to is as good: nobody writes.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
            return torch.from_numpy(value)
    except (TypeError, ValueError) as reason:
        text = f"{argument} must be an array that torch.from_numpy takes; {reason}"
        raise check.error(TypeError, op, text) from reason


def _column(op: str, argument: str, value: Any, device: torch.device) -> Any:
    if value is None or isinstance(value, Tensor):
        return value
    return check.tensor_of(op, argument, value).to(device)
