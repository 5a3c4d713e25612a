# SPDX-License-Identifier: BSD-3-Clause
"""The two assertions every generic test ends in. Their own tests: test_compare.py."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

Real = np.longdouble


def exact(tensor: Tensor) -> np.ndarray:
    """The values in the widest type of numpy, into which every dtype of torch fits without loss."""
    return tensor.detach().cpu().double().numpy().astype(Real)


def ulp(magnitude: float, dtype: torch.dtype) -> float:
    """Distance between neighbouring numbers of `dtype` at `magnitude`."""
    info = torch.finfo(dtype)
    scale = max(float(magnitude), info.smallest_normal)
    return info.eps * 2.0 ** np.floor(np.log2(scale))


def assert_no_worse_than(
    ours: Tensor,
    *,
    baseline: Tensor,
    truth: np.ndarray,
    factor: float = 2.0,
    ulps: float = 2.0,
    what: str = "value",
) -> None:
    """max|ours - truth| <= factor * max|baseline - truth| + ulps * ulp(max|truth|).

    `baseline` is plain torch in the dtype of `ours`, so the rule scales with dtype, size and
    depth, and no tolerance is chosen by hand. Non-finite values must sit at the same places.
    """
    assert ours.dtype == baseline.dtype, f"{what}: dtype {ours.dtype}, plain torch {baseline.dtype}"
    assert ours.shape == baseline.shape == truth.shape, (
        f"{what}: shapes {tuple(ours.shape)}, {tuple(baseline.shape)}, {truth.shape}"
    )
    if truth.size == 0:
        return
    got, plain, truth = exact(ours), exact(baseline), np.asarray(truth, dtype=Real)
    finite = np.isfinite(truth)
    np.testing.assert_array_equal(got[~finite], truth[~finite], err_msg=f"{what}: non-finite")
    assert np.isfinite(got[finite]).all(), f"{what}: not finite where the truth is"
    if not finite.any():
        return
    truth, error = truth[finite], np.abs(got[finite] - truth[finite])
    error_plain = np.abs(plain[finite] - truth).max()
    bound = factor * error_plain + ulps * ulp(np.abs(truth).max(), ours.dtype)
    worst = int(error.argmax())
    assert error[worst] <= bound, (
        f"{what}: error {float(error[worst]):.3e} at flat position {worst} of the finite values "
        f"(got {float(got[finite][worst])!r}, truth {float(truth[worst])!r}); allowed "
        f"{float(bound):.3e}, plain torch is at {float(error_plain):.3e}"
    )


def assert_same_choice(ours: Tensor, expected: np.ndarray, *, what: str = "choice") -> None:
    """The same int64 row indices, exactly: equal keys are decided by the lowest index."""
    assert ours.dtype == torch.int64, f"{what}: dtype {ours.dtype}, must be torch.int64"
    assert tuple(ours.shape) == expected.shape, (
        f"{what}: shape {tuple(ours.shape)}, expected {expected.shape}"
    )
    ours = ours.cpu()
    different = np.flatnonzero(ours.numpy() != expected)
    assert different.size == 0, (
        f"{what}: {different.size} of {expected.size} differ, first at row {different[0]}: "
        f"got {int(ours[different[0]])}, expected {int(expected[different[0]])}"
    )


def assert_same_bits(left: Tensor, right: Tensor, *, what: str = "value") -> None:
    """Equal bit for bit: NaN equals NaN, and 0.0 is not -0.0."""
    assert left.dtype == right.dtype, f"{what}: dtypes {left.dtype} and {right.dtype}"
    assert left.shape == right.shape, f"{what}: shapes {left.shape} and {right.shape}"
    left, right = left.detach().cpu(), right.detach().cpu()
    bits = (t.contiguous().view(-1).view(torch.uint8) for t in (left, right))
    assert torch.equal(*bits), f"{what}: bits differ by at most {(left - right).abs().max()}"
