# SPDX-License-Identifier: BSD-3-Clause
"""What must not change under any rule or loss when the input changes in a way that does not matter.

Rows and margins are small integers and distances their squares, so that every sum is exact and its
order says nothing: each property holds to the last bit, ties included. Only the losses over all
pairs, whose kernels subtract means, may round.
"""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from compare import assert_same_bits
from op_db import OP, Op
from rules_data import LOSS_VARIANTS
from samples import Sample
from samples_rules import SEEDED

BY_RULE = [
    (function, {"margin": 3.0} | variant)
    for function in ("triplet_loss", "margin_loss")
    for variant in LOSS_VARIANTS
    if variant["mining"] != "soft"  # of exponentials: sums of it round
]
OF_PAIRS: list[tuple[str, dict[str, Any]]] = [
    ("contrastive_loss", {"margin": 9.0, "pos_margin": 2.0}),
    ("contrastive_loss", {"margin": 9.0, "power": 1, "half": True}),
    ("online_contrastive_loss", {"margin": 9.0}),
]
# Of two nearest negatives the one has a negative of its own that is nearer: rows without ties.
OF_QUADRUPLETS: list[tuple[str, dict[str, Any]]] = [("quadruplet_loss", {"margin1": 3.0})]

ALL = BY_RULE + OF_PAIRS + OF_QUADRUPLETS
# Random numbers belong to the positions of rows.
NOT_DRAWN = [loss for loss in BY_RULE if loss[1]["mining"] not in SEEDED]
# Distance-weighted sampling looks at the directions of rows.
NOT_OF_DIRECTIONS = [loss for loss in ALL if loss[1].get("mining") != "distance_weighted"]
# The others choose a far negative, or draw from one more, or have a term without the negative.
NOT_OF_FAR_NEGATIVES = [
    loss
    for loss in ALL
    if loss in OF_PAIRS + OF_QUADRUPLETS
    or loss[1]["mining"] in ("all", "semihard_all", "hard_all", "easy_all")
    or loss[1].get("negative_mining") in ("hard", "all")
    if loss[0] != "margin_loss"
]

Loss = tuple[str, dict[str, Any]]
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(2, 40)


def _problem(seed: int, n: int, dim: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, max(2, n // 3), (n,), generator=generator)
    rows = 2 * torch.randint(-3, 4, (n, dim), generator=generator)
    return rows.double(), labels, generator


def _op(loss: Loss) -> Op:
    function, options = loss
    rule = {"triplet_loss": f"[{options.get('mining')}]", "margin_loss": "[all]"}
    return OP[function + rule.get(function, "")]


def _each(loss: Loss, rows, labels, **options) -> torch.Tensor:
    """(B,) the losses of the anchors, in squared Euclidean distances."""
    function, given_options = loss
    op = _op(loss)
    metric: dict[str, Any] = {"distance": "sqeuclidean", "reduction": "none"}
    if function == "margin_loss":
        metric |= {"normalize": False, "beta": 20.0}
    sample = Sample(function, {"embeddings": rows}, {"labels": labels} | metric | given_options)
    return op.run(sample.with_options(**options), op.impls[0])


def _is_dense(loss: Loss) -> bool:
    kernels, strategies = _op(loss).kernels, ("positive_mining", "negative_mining")
    every_triplet = all(loss[1].get(side) == "all" for side in strategies)
    return kernels is not None and (every_triplet or "dense" in kernels.forward)


def _assert_same(loss: Loss, ours: torch.Tensor, expected: torch.Tensor) -> None:
    if not _is_dense(loss):
        assert_same_bits(ours, expected)
        return
    # Squares of at most 4 * 12^2, each right to a few ulps; an anchor has at most 20^2 triplets.
    bound = 20**2 * 4 * 576 * torch.finfo(torch.float64).eps
    torch.testing.assert_close(ours, expected, rtol=0, atol=bound)


@given(st.sampled_from(NOT_DRAWN + OF_PAIRS), seeds, sizes)
def test_permuting_the_batch_permutes_the_losses(loss, seed, n):
    rows, labels, generator = _problem(seed, n)
    order = torch.randperm(n, generator=generator)
    _assert_same(loss, _each(loss, rows[order], labels[order]), _each(loss, rows, labels)[order])


@given(st.sampled_from(OF_QUADRUPLETS), seeds, sizes)
def test_permuting_the_batch_permutes_the_losses_of_quadruplets(loss, seed, n):
    _, labels, generator = _problem(seed, n)
    rows = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    order = torch.randperm(n, generator=generator)
    _assert_same(loss, _each(loss, rows[order], labels[order]), _each(loss, rows, labels)[order])


@given(st.sampled_from(ALL), seeds, sizes)
def test_names_of_classes_do_not_matter(loss, seed, n):
    rows, labels, generator = _problem(seed, n)
    names = torch.randperm(10_000, generator=generator)[: labels.max() + 1] - 5_000
    expected = _each(loss, rows, labels)
    _assert_same(loss, _each(loss, rows, names[labels]), expected)
    _assert_same(loss, _each(loss, rows, torch.nn.functional.one_hot(labels)), expected)


@given(st.sampled_from(NOT_OF_DIRECTIONS), seeds, sizes, st.integers(-1000, 1000))
def test_translation_changes_nothing(loss, seed, n, shift):
    rows, labels, generator = _problem(seed, n)
    vector = shift + torch.randint(-9, 10, (4,), generator=generator)
    _assert_same(loss, _each(loss, rows + vector, labels), _each(loss, rows, labels))


# Of length 1 and at right angles, with halves for entries: even rows stay integers.
ROTATION = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]).double() / 2


@given(st.sampled_from(NOT_OF_DIRECTIONS), seeds, sizes)
def test_rotation_changes_nothing(loss, seed, n):
    rows, labels, _ = _problem(seed, n)
    _assert_same(loss, _each(loss, rows @ ROTATION, labels), _each(loss, rows, labels))


@given(st.sampled_from(NOT_OF_FAR_NEGATIVES), seeds, sizes)
def test_a_far_negative_changes_nothing(loss, seed, n):
    rows, labels, _ = _problem(seed, n)
    labels[:2] = torch.tensor([0, 1])
    far = torch.full((1, 4), 1e6, dtype=torch.float64)
    more = _each(loss, torch.cat([rows, far]), torch.cat([labels, labels.new_tensor([-1])]))
    _assert_same(loss, more[:n], _each(loss, rows, labels))
    assert more[n] == 0


@given(st.sampled_from(ALL), seeds, sizes)
def test_the_batch_as_its_own_references(loss, seed, n):
    """self_index turns the reference form into the plain one, and a mask says what labels say."""
    rows, labels, _ = _problem(seed, n)
    expected = _each(loss, rows, labels)
    refs = {"ref_embeddings": rows, "ref_labels": labels, "self_index": torch.arange(n)}
    _assert_same(loss, _each(loss, rows, labels, **refs), expected)
    mask = labels[:, None] == labels
    _assert_same(loss, _each(loss, rows, None, same_mask=mask), expected)


@given(st.sampled_from(NOT_DRAWN), seeds, sizes)
def test_a_query_alone_is_the_query_in_its_batch(loss, seed, n):
    rows, labels, generator = _problem(seed, n)
    refs = {"ref_embeddings": rows.flip(0), "ref_labels": labels.flip(0)}
    one = int(torch.randint(0, n, (), generator=generator))
    together = _each(loss, rows, labels, **refs)
    alone = _each(loss, rows[one : one + 1], labels[one : one + 1], **refs)
    _assert_same(loss, alone, together[one : one + 1])


@given(seeds, sizes, st.sampled_from([1.0, 0.3]), st.booleans())
def test_soft_weights_do_not_know_positions(seed, n, temperature, detach):
    """Up to rounding in the order of the exponentials; and a far negative has weight 0."""
    rows, labels, generator = _problem(seed, n)
    loss = ("triplet_loss", {"mining": "soft", "temperature": temperature, "margin": 3.0})
    loss[1]["detach_weights"] = detach
    order = torch.randperm(n, generator=generator)
    plain = _each(loss, rows, labels)
    shuffled = _each(loss, rows[order], labels[order])
    # Distances are at most 4 * 12^2; a softmax of n of them errs by as many ulps, times d / T.
    bound = 576 * (n + 576 / temperature) * torch.finfo(torch.float64).eps
    assert (shuffled - plain[order]).abs().max() <= bound
    assert (_each(loss, rows @ ROTATION, labels) - plain).abs().max() == 0
    if labels.unique().numel() > 1:
        far = torch.cat([rows, torch.full((1, 4), 1e6, dtype=torch.float64)])
        more = _each(loss, far, torch.cat([labels, labels.new_tensor([-1])]))
        assert_same_bits(more[:n], plain)
