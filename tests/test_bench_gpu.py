# SPDX-License-Identifier: BSD-3-Clause
"""bench/gpu.py as far as it goes without a GPU: its result, its table, its errors.

The clock is a fake: every call takes a millisecond.
"""

from __future__ import annotations

import importlib
import json

import pytest
import torch

from sources import ROOT

OTHERS = ("float32-semihard", "bfloat16-semihard", "float32-contrastive")
SIZES = ["--device", "cpu", "--quick", "--seconds", "600", "--sizes", "64", "96"]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    gpu, clock = importlib.import_module("gpu"), importlib.import_module("gpu_clock")

    def a_millisecond(_host, step, _calls):
        step()
        return 1e-3

    torch.set_num_threads(1)
    monkeypatch.setattr(clock.Host, "clock", a_millisecond)
    monkeypatch.setattr(gpu, "EACH", (0.01, 0.01))
    return gpu


def _run(script, folder, *more):
    status = script.main([*SIZES, "--output", str(folder), *more])
    (path,) = folder.glob("*.json")
    return status, json.loads(path.read_text())


def test_a_result_has_every_problem_and_its_floors(script, tmp_path, capsys):
    status, result = _run(script, tmp_path, "--contenders", "eager", "mm_out", "matmul_tf32")
    assert status == 0
    assert {"date", "commit", "machine", "gpu", "torch", "rates", "agreement"} <= set(result)
    kinds = ("float32", "bfloat16", *OTHERS)
    names = {f"{n}x128-{kind}" for n in (64, 96) for kind in kinds}
    assert set(result["problems"]) == names
    rate = result["rates"]["bfloat16_flops_per_second"]
    for name, problem in result["problems"].items():
        rows = problem["contenders"]
        assert rows["flashmetric"]["seconds"]["median"] == 1e-3
        # A graph runs all four sets of inputs.
        assert rows["flashmetric/graph"]["seconds"]["median"] == pytest.approx(0.25e-3)
        assert ("skipped" in rows["matmul_tf32"]) == ("bfloat16" in name)
        assert problem["floors"]["arithmetic"] == problem["batch"] ** 2 * 128 / rate
    table = capsys.readouterr().out
    assert all(name in table for name in names)
    assert "250 us" in table


def test_every_loss_has_contenders_of_its_own(script, tmp_path):
    pytest.importorskip("pytorch_metric_learning", reason="times a peer of the extra `bench`")
    _, result = _run(script, tmp_path, "--contenders", "eager", "pytorch_metric_learning")
    assert {f"96x128-{kind}" for kind in OTHERS} < set(result["agreement"])
    usual = {f"{name}{graph}" for name in ("matmul", "flashmetric") for graph in ("", "/graph")}
    peer = {"pytorch_metric_learning", "pytorch_metric_learning/graph"}
    expected = {
        "semihard": usual,
        "contrastive": usual | peer,
        "hard": usual | peer | {"eager", "eager/graph"},
    }
    for problem in result["problems"].values():
        assert set(problem["contenders"]) == expected[problem["loss"]]


@pytest.mark.slow  # the import alone
@pytest.mark.usefixtures("script")
@pytest.mark.parametrize("loss", ["semihard", "contrastive"])
def test_peers_have_the_value_of_ours(loss):
    for package in ("pytorch_metric_learning", "sentence_transformers"):
        pytest.importorskip(package, reason="compares with a peer of the extra `bench`")
    losses = importlib.import_module("gpu_losses")
    case = losses.Case(64, 16, loss=loss)
    rows, labels = case.embeddings(), case.labels()
    for contender in losses.LOSSES[loss].values():
        leaf = rows.clone().requires_grad_()
        value = contender(case)(leaf, labels)
        ours = losses.LOSSES[loss]["flashmetric"](case)(rows, labels)
        assert value.item() == pytest.approx(ours.item(), rel=1e-5)


@pytest.mark.usefixtures("script")
@pytest.mark.parametrize("loss", ["semihard", "contrastive"])
@pytest.mark.parametrize("wrong", [0, 1], ids=["value", "gradient"])
def test_another_loss_that_is_a_little_wrong_does_not_agree(monkeypatch, loss, wrong):
    losses = importlib.import_module("gpu_losses")
    case, ours = losses.Case(64, 128, loss=loss), losses.LOSSES[loss]["flashmetric"]
    assert losses.check(case, torch.device("cpu"))["holds"]

    def a_little_wrong(case):
        right = ours(case)

        def value(x, labels):
            found = right(x, labels)
            off = (1e-5 * found.detach(), 1e-5 * (found - found.detach()))[wrong]
            return found + off

        return value

    monkeypatch.setitem(losses.LOSSES[loss], "flashmetric", a_little_wrong)
    assert not losses.check(case, torch.device("cpu"))["holds"]


@pytest.mark.usefixtures("script")
@pytest.mark.parametrize(
    ("loss", "peer"),
    [("semihard", "sentence_transformers"), ("contrastive", "pytorch_metric_learning")],
)
def test_a_peer_that_needs_too_much_memory_is_skipped(loss, peer):
    losses, steps = importlib.import_module("gpu_losses"), importlib.import_module("gpu_steps")
    if missing := steps.CONTENDERS[peer].unavailable():
        pytest.skip(missing)
    assert not steps.why_not(peer, losses.Case(1024, 128, loss=loss), graph=False)
    why = steps.why_not(peer, losses.Case(32768, 128, loss=loss), graph=False)
    assert why.startswith("would take ")


@pytest.mark.usefixtures("script")
def test_a_result_without_a_loss_is_of_batch_hard():
    """Those of before the other losses were timed; these get a table of their own."""
    report = importlib.import_module("gpu_report")
    timed = {"flashmetric/graph": {"seconds": {"median": 1e-4}}}
    timed["matmul/graph"] = {"seconds": {"median": 2e-4}}
    problem = {"batch": 64, "dim": 128, "layout": "k4", "dtype": "float32", "contenders": timed}
    row = "| float32 | 64 | 128 | 200 us | 100 us | 0.50 |"
    usual = report.markdown({"problems": {"a": problem}})
    assert usual.splitlines()[2:] == [row]
    both = report.markdown({"problems": {"b": problem | {"loss": "semihard"}, "a": problem}})
    assert both.startswith(usual + "\n\n| loss |")
    assert both.splitlines()[-1] == "| semi-hard " + row


def test_a_contender_that_fails_is_named(script, tmp_path, capsys, monkeypatch):
    losses = importlib.import_module("gpu_losses")

    def no_memory(_):
        msg = "tried to allocate too much"
        raise torch.OutOfMemoryError(msg)

    monkeypatch.setitem(losses.LOSSES["hard"], "eager", no_memory)
    status, result = _run(script, tmp_path, "--contenders", "eager")
    assert status == 0
    reason = "OutOfMemoryError: tried to allocate too much"
    for problem in (each for each in result["problems"].values() if each["loss"] == "hard"):
        assert problem["contenders"]["eager"] == {"skipped": reason}
        assert "seconds" in problem["contenders"]["flashmetric"]
    assert f"skipped eager: {reason} (4: " in capsys.readouterr().out


def test_a_loss_that_is_wrong_is_an_error(script, tmp_path, capsys, monkeypatch):
    losses = importlib.import_module("gpu_losses")
    wrong = {"flashmetric": lambda _: lambda x, _: x.square().mean()}
    monkeypatch.setitem(losses.LOSSES, "hard", losses.LOSSES["hard"] | wrong)
    assert _run(script, tmp_path, "--contenders", "matmul")[0] == 1
    assert "DISAGREES" in capsys.readouterr().out


def test_what_the_time_does_not_suffice_for_is_named(script, tmp_path, capsys):
    _, result = _run(script, tmp_path, "--contenders", "matmul", "--seconds", "1e-9")
    assert {"skipped": "the time was up"} in result["problems"].values()
    assert "the time was up" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_without_a_gpu_it_says_so(script, capsys):
    assert script.main([]) == 2
    assert "no CUDA device answers" in capsys.readouterr().err
