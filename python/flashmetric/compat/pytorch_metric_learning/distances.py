# SPDX-License-Identifier: BSD-3-Clause
"""`pytorch_metric_learning.distances`: the matrix, for whoever asks for it, by our kernels.

    LpDistance    exact zeros, any p at speed, half precision without a (B, R, D) tensor
    SNRDistance   likewise

Every other name is the peer's own. Fused losses and miners read the options of a distance and never
ask it for the matrix.
"""

from __future__ import annotations

from pytorch_metric_learning import distances as _peer
from torch import Tensor

from flashmetric.compat._peer import passing_through
from flashmetric.distances import Minkowski, pairwise_distances

from ._metric import measured_dtype, stands_for

__all__ = ["LpDistance", "SNRDistance"]

__getattr__, __dir__ = passing_through(globals(), _peer)


@stands_for
class LpDistance(_peer.LpDistance):
    """`pytorch_metric_learning.distances.LpDistance`; p below 1 is left to the peer."""

    p: float

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor | None) -> Tensor:
        if self.p < 1:
            return super().compute_mat(query_emb, ref_emb)
        dtype = measured_dtype(query_emb.dtype, query_emb.device.type)
        return pairwise_distances(query_emb, ref_emb, distance=Minkowski(self.p)).to(dtype)


@stands_for
class SNRDistance(_peer.SNRDistance):
    """`pytorch_metric_learning.distances.SNRDistance`."""

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor | None) -> Tensor:
        return pairwise_distances(query_emb, ref_emb, distance="snr").to(query_emb.dtype)
