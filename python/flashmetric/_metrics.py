# SPDX-License-Identifier: BSD-3-Clause
"""Distances with parameters, and what every function does with `distance=` first: it finds the name
that the kernels know and the rows that this name compares.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from . import _validate, reference
from ._names import Distance
from .reference.distances import comparable
from .reference.mining import Comparison

__all__ = ["Mahalanobis", "Metric", "Minkowski", "compared", "given_rows", "two_sides"]

Metric: TypeAlias = tuple[Any, bool]  # a name of the kernels, or a callable; normalize

_ROUTES = {1.0: "manhattan", 2.0: "euclidean", math.inf: "chebyshev"}


class Minkowski:
    """The distance ``(sum |x - y|^p)^(1/p)``, for ``distance=``.

    p = 1, 2 and inf are "manhattan", "euclidean" and "chebyshev". A whole p up to 64 is computed by
    multiplications, any other by powers: the same up to the last bits of a power, and slower.

    Args:
        p: a number of at least 1, or inf.

    Raises:
        TypeError: p is no number.
        ValueError: p is below 1, where the triangle inequality ends.

    Gradient: where the distance is 0, its subgradient 0.

    Example:
        >>> import torch
        >>> from flashmetric import Minkowski, pairwise_distances
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
        >>> pairwise_distances(x, distance=Minkowski(3))[0, 1] ** 3  # 1 + 8
        tensor(9.)
    """

    def __init__(self, p: float) -> None:
        self.p = _validate.exponent("Minkowski", p)

    @property
    def name(self) -> str:
        """What errors, logs and the kernels call it."""
        return _ROUTES.get(self.p, f"minkowski({self.p!r})")

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """(M, N) distances in plain torch."""
        return reference.pairwise_distances(x, y, distance=self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Minkowski) and self.p == other.p

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"Minkowski({self.p:g})"


class Mahalanobis(nn.Module):
    """The distance ``|L (x - y)|`` = ``sqrt((x - y)^T M (x - y))`` with M = L^T L, for `distance=`.

    The rows are multiplied by L, then compared by euclidean distance. A module: a factor that is a
    parameter is one of the loss that has the distance. With normalize=True rows have length 1
    before they are multiplied. Statistics and rules that speak of norms see the products.

    Args:
        factor: L, (K, D), of any rank; gradient flows to it. Of fewer rows than columns, it also
            makes comparing cheaper.
        matrix: or M, (D, D): symmetric and positive semi-definite; it may be singular.

    Raises:
        TypeError: no tensor, or a dtype that is not floating.
        ValueError: neither or both; a shape that does not fit; a matrix that is not symmetric, has
            an eigenvalue below zero or requires grad.

    Gradient: to the rows and the factor; where the distance is 0, its subgradient 0.

    Example:
        >>> import torch
        >>> from flashmetric import Mahalanobis, pairwise_distances
        >>> x = torch.tensor([[0.0, 0.0], [3.0, 1.0]])
        >>> distance = Mahalanobis(matrix=torch.tensor([[1.0, 0.0], [0.0, 16.0]]))
        >>> pairwise_distances(x, distance=distance)[0, 1].item()  # sqrt(9 + 16)
        5.0
    """

    factor: Tensor

    def __init__(self, *, factor: Tensor | None = None, matrix: Tensor | None = None) -> None:
        super().__init__()
        op = type(self).__name__
        if (factor is None) == (matrix is None):
            raise _validate.not_one_of(op, "factor", "matrix", both=factor is not None)
        if matrix is not None:
            _validate.symmetric(op, "matrix", matrix)
            eigenvalues, vectors = torch.linalg.eigh(matrix.double())
            _validate.not_below_zero(op, "matrix", eigenvalues, matrix.dtype)
            factor = (eigenvalues.clamp(min=0).sqrt()[:, None] * vectors.T).to(matrix.dtype)
        _validate.factor(op, "factor", factor)
        if isinstance(factor, nn.Parameter):
            self.factor = factor
        else:
            self.register_buffer("factor", factor, persistent=False)

    @classmethod
    def from_covariance(cls, x: Tensor) -> Mahalanobis:
        """By the inverse covariance of the rows x (N, D), N > 1.

        Directions in which the rows do not vary, up to rounding, are left out.
        """
        _validate.rows_of_covariance(cls.__name__, x)
        rows = x.detach().double()
        rows = rows - rows.mean(0)
        variance, vectors = torch.linalg.eigh(rows.T @ rows / (len(rows) - 1))
        floor = len(variance) * torch.finfo(x.dtype).eps * variance.abs().amax()
        varying = variance > floor
        factor = vectors.T[varying] / variance[varying].sqrt()[:, None]
        return cls(factor=factor.to(torch.float64 if x.dtype == torch.float64 else torch.float32))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(M, N) distances in plain torch."""
        return reference.pairwise_distances(self.project(x), self.project(y))

    def project(self, rows: Tensor) -> Tensor:
        """L times each row, (N, K), in float32 at least; autocast does not reach it."""
        wide = rows.float() if rows.itemsize == 2 else rows
        with torch.autocast(rows.device.type, enabled=False):
            return wide @ self.factor.to(wide.dtype).T

    def extra_repr(self) -> str:
        return f"factor={tuple(self.factor.shape)}"


def compared(
    op: str, given: Comparison, distance: Distance, normalize: bool
) -> tuple[Comparison, Metric]:
    """A batch, checked, as rows that a distance of the kernels compares, if it is one of theirs."""
    if distance == "jaccard":
        given = given._replace(
            embeddings=_counted(given.embeddings), ref_embeddings=_counted(given.ref_embeddings)
        )
    _validate.comparison(op, given)
    if isinstance(distance, str) and distance != "jaccard":
        return given, (_name(op, distance), normalize)
    sides: dict[str, Any] = {
        "embeddings": given.embeddings,
        "ref_embeddings": given.ref_embeddings,
    }
    sides, metric = _resolved(op, sides, distance, normalize)
    return given._replace(**sides), metric


def two_sides(
    op: str, x: Tensor, y: Tensor | None, distance: Distance, normalize: bool
) -> tuple[Tensor, Tensor | None, Metric]:
    """The same of the sides of pairwise_distances."""
    if distance == "jaccard":
        x, y = _counted(x), _counted(y)
    _validate.pair(op, x, y)
    sides, metric = _resolved(op, {"x": x, "y": y}, distance, normalize)
    return sides["x"], sides["y"], metric


Given: TypeAlias = tuple[dict[str, Tensor], Tensor | None, Tensor | None]


def given_rows(op: str, given: Given, distance: Distance, normalize: bool) -> tuple[Given, Metric]:
    """The same of given pairs, triplets, quadruplets: the roles (rows, or indices into embeddings
    and references), the embeddings, the references."""
    roles, embeddings, refs = given
    if distance == "jaccard":
        embeddings, refs = _counted(embeddings), _counted(refs)
        if embeddings is None:
            roles = {role: _counted(rows) for role, rows in roles.items()}
    _validate.given(op, embeddings, refs, **roles)
    if embeddings is None:
        roles, metric = _resolved(op, roles, distance, normalize)
        return (roles, None, None), metric
    sides = {"embeddings": embeddings, "ref_embeddings": refs}
    sides, metric = _resolved(op, sides, distance, normalize)
    return (roles, sides["embeddings"], sides["ref_embeddings"]), metric


def _counted(rows: Any) -> Any:
    """Sets and counts as numbers."""
    counted = isinstance(rows, Tensor) and rows.dtype in _validate.COUNTED
    return rows.float() if counted else rows


def _name(op: str, distance: str) -> str:
    p = None if distance[-1] != ")" else _validate.minkowski_exponent(op, distance)
    return distance if p is None else Minkowski(p).name


def _resolved(
    op: str, sides: dict[str, Any], distance: Distance, normalize: bool
) -> tuple[dict[str, Any], Any]:
    if distance == "jaccard":
        for argument, rows in sides.items():
            if rows is not None:
                _validate.not_negative(op, argument, rows)
    if isinstance(distance, Minkowski):
        return sides, (distance.name, normalize)
    if isinstance(distance, Mahalanobis):
        return _projected(op, distance, sides, normalize), ("euclidean", False)
    if isinstance(distance, str):
        return sides, (_name(op, distance), normalize)
    return sides, (_Checked(op, distance), normalize)


def _projected(
    op: str, distance: Mahalanobis, sides: dict[str, Any], normalize: bool
) -> dict[str, Any]:
    def project(rows: Tensor) -> Tensor:
        _validate.factor(op, "factor", distance.factor, rows)
        return distance.project(comparable(rows, "euclidean", normalize))

    return {name: rows if rows is None else project(rows) for name, rows in sides.items()}


class _Checked:
    """A callable whose results are looked at."""

    def __init__(self, op: str, distance: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.op, self.distance = op, distance

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        found = self.distance(x, y)
        _validate.distances(self.op, found, (x.shape[0], y.shape[0]))
        return found.to(x.dtype)
