# SPDX-License-Identifier: BSD-3-Clause
"""The main loops of capabilities 8.0 and 9.0 without a GPU: their tiles rank, and the choices are
those of keys.

Matrix instructions, barriers and copies are written out for the host (emulated_gpu/ptx.cuh,
ptx_sm90.cuh).
"""

from __future__ import annotations

import pytest
import torch

import emulation
from compare import assert_same_bits
from flashmetric._ops import cpu, cuda
from keys_data import KINDS, hard_rows
from samples import class_batch
from test_emulated_gpu import module  # noqa: F401  a fixture

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
# Shared memory for a ring of three stages, and for two; and products of warpgroups.
GPUS = {
    "three_stages": emulation.GPUS["mma"] | {"EMULATED_SHARED_BYTES": "166912"},
    "two_stages": emulation.GPUS["mma"] | {"EMULATED_SHARED_BYTES": "101376"},
    "warpgroups": emulation.GPUS["wgmma"],
}


@pytest.fixture(scope="session", params=GPUS)
def gpu(request, module, tmp_path_factory):  # noqa: F811
    return emulation.copied(module, tmp_path_factory.mktemp(request.param)), GPUS[request.param]


@pytest.fixture(autouse=True)
def forced(gpu, monkeypatch):
    for name, value in gpu[1].items():
        monkeypatch.setenv(name, value)
    yield from emulation.in_place_of_the_cpu(gpu[0], monkeypatch)


def assert_same_choices(module, rows, labels, refs=None, ref_labels=None, *, distance="euclidean"):  # noqa: F811
    arguments = (rows, refs, labels, ref_labels, None, "classes", None, "hard", distance, False)
    before = module.counters()["cuda_tiles"]
    ours, expected = cuda.mine(*arguments), cpu.mine(*arguments)
    assert module.counters()["cuda_tiles"] == before + 1
    for role, one, other in zip(("positive", "negative"), ours, expected, strict=True):
        assert_same_bits(one, other, what=role)


def test_a_copy_of_the_file_is_another_gpu(gpu, module):  # noqa: F811
    rows, labels = class_batch(8, 4, 2, seed=1)
    before = module.counters()
    assert_same_choices(gpu[0], rows, labels)
    assert module.counters() == before


@pytest.mark.parametrize("dim", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("n", [1, 2, 127, 129, 257])
def test_sizes_around_every_edge(gpu, n, dim):
    rows, labels = class_batch(n, dim, max(1, n // 4), seed=n)
    assert_same_choices(gpu[0], rows, labels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dim", [16, 128, 512])
def test_rings_of_tiles(gpu, dim, dtype):
    """Several blocks of queries, which stay in shared memory or, with many features, come again."""
    rows, labels = class_batch(300, dim, 75, seed=dim)
    assert_same_choices(gpu[0], rows.to(dtype), labels)


@pytest.mark.parametrize("distance", ["euclidean", "cosine", "dot"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_made_to_mislead(gpu, kind, distance):
    rows, labels = hard_rows(kind, 140, 24, 20, torch.float32)
    assert_same_choices(gpu[0], rows, labels, distance=distance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n_classes", [1, 2, 40])
def test_references_and_classes(gpu, n_classes, dtype):
    rows, labels = class_batch(130, 70, n_classes, seed=1)
    refs, ref_labels = class_batch(300, 70, n_classes, seed=2)
    sides = (rows.to(dtype), labels, refs.to(dtype), ref_labels)
    if dtype == torch.float32:
        assert_same_choices(gpu[0], *sides)
    else:  # the CPU widens them first
        arguments = (*sides[::2], *sides[1::2], None, "classes", None, "hard", "euclidean", False)
        for one, other in zip(cuda.mine(*arguments), cpu.mine(*arguments), strict=True):
            assert_same_bits(one, other)
