# SPDX-License-Identifier: BSD-3-Clause
"""Sample inputs of the mining rules and of the losses over lists, pairs and quadruplets."""

from __future__ import annotations

from typing import Any

import torch

from samples import (
    SHAPES,
    Row,
    Sample,
    Seeded,
    comparison_sample,
    generator_for,
    given_sample,
    n_given,
    triplet_loss_sample,
    weight_options,
)

SEEDED = ("distance_weighted", "random")  # the rules that draw
_WORDS = ("fallback", "n_negatives", "temperature", "detach_weights")


def rule_sample(row: Row, dtype: torch.dtype) -> Sample:
    """triplet_loss and mine_triplets under a rule."""
    return triplet_loss_sample(row, dtype).with_options(**rule_options(row, dtype))


def rule_options(row: Row, dtype: torch.dtype) -> Row:
    options = fixed_options(row["mining"])
    options |= {word: row[word] for word in _WORDS if word in row}
    if "strategies" in row:
        options["positive_mining"], options["negative_mining"] = row["strategies"].split("/")
    for name in ("hardness", "mining_margin"):
        if row.get(name) is not None:
            options[name] = _read_at_call_time(row[name], dtype)
    return options


def fixed_options(mining: str) -> Row:
    """What a call under the rule needs: equal calls draw equal triplets."""
    return {"mining": mining} | ({"generator": Seeded(7)} if mining in SEEDED else {})


def _read_at_call_time(text: str, dtype: torch.dtype) -> Any:
    """ "0.25", "tensor 0.25" or "callable 0.25"."""
    value = float(text.split()[-1])
    if text.startswith("tensor"):
        return torch.tensor(value, dtype=dtype)
    return (lambda: value) if text.startswith("callable") else value


def contrastive_sample(row: Row, dtype: torch.dtype) -> Sample:
    """Both contrastive losses of a batch."""
    generator = generator_for(row)
    sample = comparison_sample(row, dtype, generator)
    options: Row = {key: row[key] for key in ("power", "half", "reduction") if key in row}
    options |= weight_options(row, len(sample.tensors["embeddings"]), dtype, generator)
    return sample.with_options(**options, **_pair_margins(row, dtype))


def _middle(row: Row) -> float:
    """About the middle of the distances of the rows, where some hinges are active and some not."""
    dim = SHAPES[row["shape"]][2]
    length = 1.0 if row["normalize"] else dim**0.5
    by_name = {"euclidean": 1.4 * length, "sqeuclidean": 2 * length**2, "cosine": 1.0, "dot": 0.0}
    by_name |= {"manhattan": 1.13 * length * dim**0.5, "chebyshev": 3 * length / dim**0.5}
    # The mean p-th power of a difference of normal numbers is 4.5 for p = 3 and 2.9 for 2.5.
    by_name |= {"minkowski(3.0)": (4.5 * dim) ** (1 / 3) * length / dim**0.5}
    by_name |= {
        "minkowski(2.5)": (2.9 * dim) ** 0.4 * length / dim**0.5,
        "jaccard": 0.6,
        "snr": 2.0,
    }
    return round(by_name[row["distance"]], 2)


def _pair_margins(row: Row, dtype: torch.dtype) -> Row:
    margins: Row = {}
    if row["margin"] != "default":
        margins["margin"] = _read_at_call_time(f"{row['margin']} {_middle(row)}", dtype)
    if row.get("pos_margin", "default") != "default":
        value = _middle(row) / 2
        margins["pos_margin"] = _read_at_call_time(f"{row['pos_margin']} {value}", dtype)
    return margins


def contrastive_pairs_sample(row: Row, dtype: torch.dtype) -> Sample:
    generator = generator_for(row)
    sample = given_sample(row, ("x1", "x2"), dtype, generator)
    count = n_given(row)
    similar = torch.rand(count, generator=generator) < 0.4
    options = {key: row[key] for key in ("power", "half", "reduction")}
    options |= weight_options(row, count, dtype, generator) | _pair_margins(row, dtype)
    return sample.with_options(similar=similar.to(getattr(torch, row["similar"])), **options)


def quadruplet_sample(row: Row, dtype: torch.dtype) -> Sample:
    generator = generator_for(row)
    sample = comparison_sample(row, dtype, generator)
    n = len(sample.tensors["embeddings"])
    options = weight_options(row, n, dtype, generator) | _two_margins(row, dtype)
    return sample.with_options(reduction=row["reduction"], **options)


def _two_margins(row: Row, dtype: torch.dtype) -> Row:
    """Below zero they leave some of the hinges of mined rows inactive."""
    if row["margins"] == "default":
        return {}
    values = {"margin1": -_middle(row) / 8, "margin2": -_middle(row) / 4}
    return {
        name: _read_at_call_time(f"{row['margins']} {value}", dtype)
        for name, value in values.items()
    }


def quadruplet_margin_sample(row: Row, dtype: torch.dtype) -> Sample:
    generator = generator_for(row)
    roles = ("anchor", "positive", "negative1", "negative2")
    sample = given_sample(row, roles, dtype, generator)
    options = weight_options(row, n_given(row), dtype, generator) | _two_margins(row, dtype)
    return sample.with_options(reduction=row["reduction"], **options)


def margin_loss_sample(row: Row, dtype: torch.dtype) -> Sample:
    """beta is a tensor with a gradient, of one number or one per anchor, or an option."""
    generator = generator_for(row)
    sample = comparison_sample(row, dtype, generator)
    n = len(sample.tensors["embeddings"])
    options = weight_options(row, n, dtype, generator) | rule_options(row, dtype)
    options["reduction"] = row["reduction"]
    if row["margin"] != "default":
        options["margin"] = _read_at_call_time(f"{row['margin']} 0.3", dtype)
    if row["beta"] == "number":
        options["beta"] = _middle(row)
    elif row["beta"] == "learned":
        sample = sample.with_tensors(beta=torch.tensor(_middle(row), dtype=dtype))
    elif row["beta"] == "learned_each":
        each = 0.5 * torch.rand(n, generator=generator) + _middle(row)
        sample = sample.with_tensors(beta=each.to(dtype))
    return sample.with_options(**options)
