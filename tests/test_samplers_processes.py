# SPDX-License-Identifier: BSD-3-Clause
"""PKSampler across interruptions, workers and processes."""

from __future__ import annotations

import copy
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from flashmetric import PKSampler
from fresh_python import run_python
from sampler_data import epoch_of_ranks, shuffled_labels


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_resuming_within_an_epoch(copied):
    labels = shuffled_labels([12] * 8)
    whole = PKSampler(labels, 3, 4, seed=1)
    epochs = [list(whole) for _ in range(3)]
    sampler = PKSampler(labels, 3, 4, seed=1)
    list(sampler)
    running = iter(sampler)
    for _ in range(3):
        next(running)
    state = copied(sampler.state_dict())
    for set_epoch in (False, True):
        resumed = PKSampler(labels, 3, 4, seed=1)
        resumed.load_state_dict(state)
        if set_epoch:
            resumed.set_epoch(1)
        assert list(resumed) == epochs[1][3:]
        assert list(resumed) == epochs[2]


def test_a_state_at_the_end_of_an_epoch_is_the_start_of_the_next():
    sampler = PKSampler(shuffled_labels([12] * 8), 3, 4)
    list(sampler)
    assert sampler.state_dict()["epoch"] == 1
    assert sampler.state_dict()["consumed"] == 0
    expected = list(sampler)
    resumed = PKSampler(shuffled_labels([12] * 8), 3, 4)
    resumed.load_state_dict(sampler.state_dict(consumed=0))
    assert list(resumed) == expected


def test_workers_fetch_ahead_so_training_says_what_it_consumed():
    labels = shuffled_labels([12] * 8)
    dataset = TensorDataset(torch.arange(len(labels)), labels)
    sampler = PKSampler(labels, 3, 4)
    loader = DataLoader(dataset, batch_sampler=sampler, num_workers=2)
    assert len(loader) == len(sampler)
    running = iter(loader)
    rows = [next(running)[0].tolist() for _ in range(2)]
    assert sampler.state_dict()["consumed"] > 2
    state = sampler.state_dict(consumed=2)
    rows += [batch[0].tolist() for batch in running]
    resumed = PKSampler(labels, 3, 4)
    resumed.load_state_dict(state)
    assert rows[2:] == [b[0].tolist() for b in DataLoader(dataset, batch_sampler=resumed)]
    assert rows == list(PKSampler(labels, 3, 4))


def test_the_process_group_says_how_many_replicas(monkeypatch):
    labels = shuffled_labels([12] * 8)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    assert list(PKSampler(labels, 3, 4)) == epoch_of_ranks(labels, 3, 4, replicas=2)[1]
    assert PKSampler(labels, 3, 4, num_replicas=1, rank=0).num_replicas == 1


def test_two_processes(tmp_path):
    script = """
        import json, sys, torch
        from flashmetric import PKSampler
        rank, file = int(sys.argv[1]), sys.argv[2]
        torch.distributed.init_process_group("gloo", f"file://{file}", rank=rank, world_size=2)
        print(json.dumps(list(PKSampler(torch.arange(96) % 8, 3, 4))))
        torch.distributed.destroy_process_group()
        """
    with ThreadPoolExecutor(2) as pool:
        run = partial(run_python, script)
        ranks = list(pool.map(run, ("0", "1"), [str(tmp_path / "store")] * 2))
    assert [json.loads(batches) for batches in ranks] == epoch_of_ranks(
        torch.arange(96) % 8, 3, 4, replicas=2
    )
