# SPDX-License-Identifier: BSD-3-Clause
"""Mining over a data set: chunks change nothing, and memory is bounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from flashmetric import LinearSchedule, mine_offline, mine_triplets
from fresh_python import run_python
from offline_data import N, assert_equal, data_set
from samples import class_batch

RULES: list[dict[str, Any]] = [
    {},
    {"distance": "cosine"},
    {"mining": "semihard", "hardness": 0.8, "normalize": True},
    {"mining": "semihard", "fallback": "drop"},
    {"mining": "semihard_all", "mining_margin": torch.linspace(0.1, 2.0, N)},
    {"mining": "all", "distance": "sqeuclidean"},
    {"mining": "easy_hard", "positive_mining": "hard", "negative_mining": "semihard"},
    {"ignore_label": 3},
    {"impl": "reference"},
]
rule_ids = [" ".join(map(str, (k for k in rule))) or "hard" for rule in RULES]


@pytest.mark.parametrize("chunk", [1, 64, 209, 210, 1000, None])
def test_chunks_of_any_size(chunk):
    rows, labels = data_set()
    assert_equal(mine_offline(rows, labels, queries_per_chunk=chunk), mine_triplets(rows, labels))


@pytest.mark.parametrize("rule", RULES, ids=rule_ids)
def test_every_rule_in_chunks(rule):
    rows, labels = data_set()
    expected = mine_triplets(rows, labels, **rule)
    assert len(expected.anchor)
    assert_equal(mine_offline(rows, labels, queries_per_chunk=50, **rule), expected)


def test_references_and_self():
    rows, labels = data_set()
    options = {
        "ref_embeddings": torch.cat([rows.flip(0), class_batch(90, 12, 20, seed=1)[0]]),
        "ref_labels": torch.cat([labels.flip(0), torch.arange(90) % 20]),
        "self_index": torch.arange(N).flip(0),
    }
    for missing in ((), ("self_index",)):
        given = {name: value for name, value in options.items() if name not in missing}
        expected = mine_triplets(rows, labels, **given)
        assert_equal(mine_offline(rows, labels, queries_per_chunk=64, **given), expected)


def test_multi_hot_labels():
    rows, _ = data_set()
    hot = torch.rand(N, 9, generator=torch.Generator().manual_seed(0)) < 0.2
    assert_equal(mine_offline(rows, hot, queries_per_chunk=64), mine_triplets(rows, hot))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_memory_maps_and_lists(tmp_path, dtype):
    rows, labels = data_set()
    rows = rows.to(getattr(torch, dtype))
    np.save(tmp_path / "rows.npy", rows.numpy())
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    expected = mine_triplets(rows, labels)
    for names in (labels.numpy(), labels.tolist(), labels):
        assert_equal(mine_offline(mapped, names, queries_per_chunk=64), expected)
    refs = {"ref_embeddings": mapped, "ref_labels": labels.numpy()}
    refs["self_index"] = np.arange(N)
    assert_equal(mine_offline(mapped, labels.numpy(), queries_per_chunk=64, **refs), expected)


@pytest.mark.parametrize("mining", ["random", "distance_weighted"])
def test_a_generator_decides_the_random_rules(mining, tmp_path):
    rows, labels = data_set()

    def mined(**options):
        options |= {"generator": torch.Generator().manual_seed(5), "queries_per_chunk": 64}
        return mine_offline(rows, labels, mining=mining, normalize=True, **options)

    first = mined()
    assert_equal(mined(), first)
    assert_equal(mined(out=tmp_path / "out"), first)
    state = torch.get_rng_state()
    mine_offline(rows, labels, queries_per_chunk=64)
    assert torch.equal(torch.get_rng_state(), state), "hard mining draws nothing"


def test_a_schedule_stands_still_for_the_whole_run():
    rows, labels = data_set()
    hardness = LinearSchedule(0.0, 1.0, 4)
    hardness.step()
    mined = mine_offline(rows, labels, mining="semihard", hardness=hardness, queries_per_chunk=64)
    assert_equal(mined, mine_triplets(rows, labels, mining="semihard", hardness=0.25))


ROWS, LABELS = class_batch(8, 3, 2)
ERRORS = [
    ({"labels": LABELS[:5]}, "[mine_offline] labels must have shape (8,), one per embedding, or"),
    ({"embeddings": ROWS.tolist()}, "[mine_offline] embeddings must be a tensor; got list."),
    ({"embeddings": ROWS.numpy()[:, ::-1]}, "[mine_offline] embeddings must be an array that tor"),
    ({"embeddings": ROWS.numpy() > 0}, "[mine_offline] embeddings must be float16, bfloat16, fl"),
    ({"labels": ["a"] * 8}, "[mine_offline] labels must be a tensor, an array or a list of int"),
    ({"queries_per_chunk": 0}, "[mine_offline] queries_per_chunk must be at least 1; got 0."),
    ({"progress": 1}, "[mine_offline] progress must be True or False; got 1."),
    ({"resume": None}, "[mine_offline] resume must be True or False; got None."),
    ({"generator": 3}, "[mine_offline] generator must be a torch.Generator; got int."),
    ({"mining": "soft"}, "[mine_triplets] mining must be one of"),
    ({"distance": "l2"}, "[mine_triplets] distance must be one of"),
    ({"mining": "semihard", "hardness": 2.0}, "[mine_triplets] hardness must lie in [0, 1]"),
    ({"hardnes": 2.0}, "mine_triplets() got an unexpected keyword argument 'hardnes'"),
    ({"same_mask": LABELS[:, None] == LABELS}, "[mine_triplets] same_mask replaces labels"),
]


@pytest.mark.parametrize(("change", "message"), ERRORS, ids=[e[1] for e in ERRORS])
def test_message(change, message, tmp_path):
    with pytest.raises((TypeError, ValueError)) as caught:
        mine_offline(**({"embeddings": ROWS, "labels": LABELS, "out": tmp_path / "out"} | change))
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "out").exists(), "refused before anything is written"


_MEMORY = """
import sys, tempfile, numpy as np, torch
from flashmetric import mine_offline
n, dim, chunk = map(int, sys.argv[1:])
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
with tempfile.TemporaryDirectory() as folder:
    generator = torch.Generator().manual_seed(0)
    np.save(folder + "/rows.npy", torch.randn(n, dim, generator=generator).numpy())
    rows, labels = np.load(folder + "/rows.npy", mmap_mode="r"), torch.arange(n) % (n // 4)
    mine_offline(rows[:500], labels[:500], queries_per_chunk=100, out=folder + "/small")
    start = peak()
    mine_offline(rows, labels, queries_per_chunk=chunk or None, out=folder + "/mined")
    print(peak() - start)
"""


def test_memory_is_bounded():
    n, dim = 16384, 16
    growth = int(run_python(_MEMORY, str(n), str(dim), "2000"))
    assert growth < 8 * n * dim * 4 + 64 * 2**20
    assert growth < n * n * 4 / 8


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [0, 16384])
def test_memory_at_100_000_rows(chunk):
    assert int(run_python(_MEMORY, "100000", "128", str(chunk))) < 2**30
