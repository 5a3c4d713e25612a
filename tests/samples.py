# SPDX-License-Identifier: BSD-3-Clause
"""Sample inputs: what a row of op_db.py becomes for a dtype. Seeded, never the global RNG."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

Row = dict[str, Any]

# (rows, reference rows, features): for gradcheck; below and above a block of 96 rows; long rows.
SHAPES = {"6x3": (6, 5, 3), "33x7": (33, 40, 7), "97x24": (97, 120, 24), "26x130": (26, 31, 130)}


@dataclass(frozen=True)
class Seeded:
    """Stands for a generator in the options of a sample: each call gets one in the same state."""

    seed: int

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True)
class Sample:
    """One call: the tensors that carry gradients, and every other keyword."""

    name: str
    tensors: dict[str, Tensor]
    options: dict[str, Any] = field(default_factory=dict)

    def arguments(self, **options: Any) -> dict[str, Any]:
        """What to call the function with; `options` take the place of those of the sample."""
        given = {**self.tensors, **self.options, **options}
        return {
            name: value.generator() if isinstance(value, Seeded) else value
            for name, value in given.items()
        }

    def matrices(self) -> dict[str, Tensor]:
        """The tensors of rows: all but a beta."""
        return {name: tensor for name, tensor in self.tensors.items() if tensor.ndim == 2}

    def with_tensors(self, **tensors: Tensor) -> Sample:
        return replace(self, tensors={**self.tensors, **tensors})

    def with_options(self, **options: Any) -> Sample:
        return replace(self, options={**self.options, **options})

    def to(self, device: torch.device | str) -> Sample:
        """The same call on a device."""
        tensors, options = (
            {name: v.to(device) if isinstance(v, Tensor) else v for name, v in values.items()}
            for values in (self.tensors, self.options)
        )
        return replace(self, tensors=tensors, options=options)

    def requiring_grad(self) -> Sample:
        tensors = {name: t.detach().clone().requires_grad_() for name, t in self.tensors.items()}
        return replace(self, tensors=tensors)


def row_name(row: Row) -> str:
    return "-".join(f"{key}={value}" for key, value in row.items())


def generator_for(row: Row) -> torch.Generator:
    """A seed that depends on the row alone: adding rows to a table moves no other sample."""
    return torch.Generator().manual_seed(crc32(row_name(row).encode()))


def triplet_loss_sample(row: Row, dtype: torch.dtype) -> Sample:
    generator = generator_for(row)
    sample = comparison_sample(row, dtype, generator)
    if "reduction" not in row:
        return sample
    n = len(sample.tensors["embeddings"])
    return sample.with_options(**loss_options(row, n, dtype, generator))


def comparison_sample(row: Row, dtype: torch.dtype, generator: torch.Generator) -> Sample:
    """Queries, references and their relation."""
    n, n_ref, dim = SHAPES[row["shape"]]
    tensors = {"embeddings": _normal(generator, n, dim, dtype=dtype)}
    options = {key: row[key] for key in ("distance", "normalize")}
    options |= relation(row, n, n_ref if row["refs"] != "none" else None, generator)
    if row["refs"] != "none":
        tensors["ref_embeddings"] = _normal(generator, n_ref, dim, dtype=dtype)
    if row["refs"] == "self":
        tensors["ref_embeddings"], options["self_index"] = _plant_self(
            tensors["embeddings"], tensors["ref_embeddings"], generator
        )
    tensors = {name: suited(rows, row["distance"]) for name, rows in tensors.items()}
    return Sample(row_name(row), tensors, options)


def suited(rows: Tensor, distance: str) -> Tensor:
    """Rows that the distance accepts: jaccard compares what is not negative."""
    return rows.abs() if distance == "jaccard" else rows


def relation(row: Row, n: int, n_ref: int | None, generator: torch.Generator) -> Row:
    """labels and ref_labels, or same_mask, of the kind the row names; and ignore_label."""
    kind, n_all = row["labels"], n + (n_ref or 0)
    if kind == "mask":
        columns = n if n_ref is None else n_ref
        return {"same_mask": torch.rand(n, columns, generator=generator) < 0.15}
    classes = torch.randint(0, max(n // 3, 2), (n_all,), generator=generator)
    if kind == "multi_hot":
        labels = (torch.rand(n_all, 11, generator=generator) < 0.12).to(torch.uint8)
    elif kind == "bool":
        labels = classes % 2 == 0
    elif kind.startswith("float"):
        labels = (classes * 0.5 - 1.0).to(getattr(torch, kind))
    elif kind == "uint8":
        labels = (classes + 250 - n // 3).to(torch.uint8)
    else:
        labels = (classes - 3).to(getattr(torch, kind))
    options: Row = {"labels": labels[:n]}
    if n_ref is not None:
        options["ref_labels"] = labels[n:]
    if row.get("ignore"):
        options["ignore_label"] = labels[1].item()
    return options


def loss_options(row: Row, n: int, dtype: torch.dtype, generator: torch.Generator) -> Row:
    """What is left when rows and relation are chosen; shared by both triplet losses."""
    options = {key: row[key] for key in ("reduction", "soft_margin")}
    options |= {key: row[key] for key in ("invalid", "swap") if key in row}
    if row["margin"] == "number":
        options["margin"] = 0.3
    elif row["margin"] == "zero_dim":
        options["margin"] = torch.tensor(0.7, dtype=dtype)
    elif row["margin"] == "per_anchor":
        options["margin"] = (2 * torch.rand(n, generator=generator)).to(dtype)
    return options | weight_options(row, n, dtype, generator)


def weight_options(row: Row, n: int, dtype: torch.dtype, generator: torch.Generator) -> Row:
    if row["weights"] == "none":
        return {}
    weights = (0.5 + torch.rand(n, generator=generator)).to(dtype)
    if row["weights"] == "some_zero":
        weights[torch.rand(n, generator=generator) < 0.3] = 0
    return {"weights": weights}


def triplet_margin_sample(row: Row, dtype: torch.dtype) -> Sample:
    generator = generator_for(row)
    options = loss_options(row, n_given(row), dtype, generator)
    given = given_sample(row, ("anchor", "positive", "negative"), dtype, generator)
    return given.with_options(**options)


def n_given(row: Row) -> int:
    """How many triplets, pairs or quadruplets are given; as indices, some rows are in several."""
    n = SHAPES[row["shape"]][0]
    return n if row["form"] == "rows" else 2 * n + 1


def given_sample(
    row: Row, roles: tuple[str, ...], dtype: torch.dtype, generator: torch.Generator
) -> Sample:
    """A set of rows for each role, or indices into embeddings and, after the first, references."""
    n, n_ref, dim = SHAPES[row["shape"]]
    count = n_given(row)
    options = {key: row[key] for key in ("distance", "normalize")}
    if row["form"] == "rows":
        tensors = {role: _normal(generator, count, dim, dtype=dtype) for role in roles}
        tensors = {role: suited(rows, row["distance"]) for role, rows in tensors.items()}
        return Sample(row_name(row), tensors, options)
    tensors = {"embeddings": _normal(generator, n, dim, dtype=dtype)}
    n_target = n
    if row["form"] == "index_refs":
        tensors["ref_embeddings"] = _normal(generator, n_ref, dim, dtype=dtype)
        n_target = n_ref
    tensors = {name: suited(rows, row["distance"]) for name, rows in tensors.items()}
    for role in roles:
        size = n if role == roles[0] else n_target
        options[role] = torch.randint(0, size, (count,), generator=generator)
    return Sample(row_name(row), tensors, options)


def pairwise_sample(row: Row, dtype: torch.dtype) -> Sample:
    generator = generator_for(row)
    n, n_ref, dim = SHAPES[row["shape"]]
    tensors = {"x": _normal(generator, n, dim, dtype=dtype)}
    if row["y"]:
        tensors["y"] = _normal(generator, n_ref, dim, dtype=dtype)
    tensors = {name: suited(rows, row["distance"]) for name, rows in tensors.items()}
    return Sample(row_name(row), tensors, {key: row[key] for key in ("distance", "normalize")})


def cotangent_for(result: Tensor, seed: int = 0) -> Tensor:
    """Random, never ones: a gradient that ignores its cotangent must fail."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return torch.randn(result.shape, generator=generator, dtype=torch.float64).to(result)


def class_batch(
    n: int, dim: int, n_classes: int, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Embeddings and balanced, shuffled labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % max(n_classes, 1)
    order = torch.randperm(n, generator=generator)
    return _normal(generator, n, dim, dtype=dtype), labels[order]


def layouts(tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The same values behind other strides, offsets and alignments."""
    rows, dim = tensor.shape
    yield "transposed", tensor.t().contiguous().t()
    wide = tensor.new_full((rows, 2 * dim + 3), float("nan"))
    wide[:, 1 : dim + 1] = tensor
    yield "offset", wide[:, 1 : dim + 1]
    tall = tensor.new_full((3 * rows + 1, dim), float("nan"))
    tall[1::3] = tensor
    yield "row_step", tall[1::3]
    flat = tensor.new_full((rows, 2 * dim), float("nan"))
    flat[:, ::2] = tensor
    yield "feature_step", flat[:, ::2]
    misaligned = tensor.new_empty(rows * dim + 1)[1:].view(rows, dim)
    yield "misaligned", misaligned.copy_(tensor)


def _normal(generator: torch.Generator, *shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def _plant_self(rows: Tensor, refs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two thirds of the queries sit among the references, each its own best match."""
    place = torch.randperm(len(refs), generator=generator)[: len(rows)]
    present = torch.rand(len(place), generator=generator) < 0.67
    self_index = torch.full((len(rows),), -1, dtype=torch.int64)
    self_index[: len(place)] = torch.where(present, place, -1)
    refs = refs.clone()
    refs[place[present]] = rows[: len(place)][present]
    return refs, self_index
