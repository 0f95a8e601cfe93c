"""The Fréchet distance between two sets of features, from sums over a stream of features.

    d^2 = |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))

of the means m and covariances S, the 2-Wasserstein distance of two Gaussians (Dowson and Landau 1982): FID on the
features of Inception-v3 (Heusel et al. 2017), FVD on those of I3D (Unterthiner et al. 2018). All sums are float64; the
features themselves are not stored.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import linalg, stats


@dataclasses.dataclass(frozen=True)
class Moments:
    """Count, mean `(D,)` and sum of outer products of deviations `(D, D)`; float64."""

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> "Moments":
        """Compute the moments of features `(N, D)`, N at least 1."""
        features = np.asarray(features, np.float64)
        mean = features.mean(axis=0)
        centred = features - mean
        return cls(len(features), mean, centred.T @ centred)

    def __add__(self, other: "Moments") -> "Moments":
        """Combine the moments of two sets (Chan et al. 1979), without a difference of large sums of squares."""
        count = self.count + other.count
        step = other.mean - self.mean
        mean = self.mean + step * (other.count / count)
        scatter = self.scatter + other.scatter + np.outer(step, step) * (self.count * other.count / count)
        return Moments(count, mean, scatter)

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased estimate `(D, D)`, as in FID and FVD; count must be at least 2."""
        return self.scatter / (self.count - 1)


class BlockMoments:
    """Moments of a stream of features, in blocks, so that an interval can be computed without the features.

    Feature number i belongs to block i mod `blocks`: every block is a sample of the whole stream, whatever its order,
    and the result does not depend on how the stream was cut into batches, except for the rounding of sums.

    Args:
      blocks: their number, at least 2; memory is blocks * D^2 numbers.
    """

    def __init__(self, blocks: int = 10):
        if blocks < 2:
            raise ValueError(f"blocks is {blocks}, but must be at least 2")
        self.count = 0
        self._blocks: list[Moments | None] = [None] * blocks

    def update(self, features: np.ndarray, unit: int | None = None) -> None:
        """Add features `(N, D)`.

        Args:
          unit: the number of the independent sample to which all of them belong, as the frames of one video do, and
            which decides their block. None: each is an independent sample.

        Raises:
          ValueError: for another shape, or features that are not finite.
        """
        features = np.asarray(features)
        shape = next((block.mean.shape for block in self._blocks if block is not None), features.shape[1:])
        if features.ndim != 2 or features.shape[1:] != shape:
            raise ValueError(f"features must be (N, D), D always the same; got shape {features.shape}")
        if not np.isfinite(features).all():
            raise ValueError("features are not finite")
        units = self.count + np.arange(len(features)) if unit is None else np.full(len(features), unit)
        numbers = units % len(self._blocks)
        for number in np.unique(numbers):
            moments = Moments.of(features[numbers == number])
            block = self._blocks[number]
            self._blocks[number] = moments if block is None else block + moments
        self.count += len(features)

    @property
    def total(self) -> Moments:
        """The moments of all features. ValueError: there are fewer than 2."""
        return _sum(self._filled())

    def without_each(self) -> list[Moments]:
        """Return for each block that has features the moments of all others."""
        filled = self._filled()
        return [_sum(filled[:i] + filled[i + 1 :]) for i in range(len(filled))]

    def _filled(self) -> list[Moments]:
        filled = [block for block in self._blocks if block is not None]
        if self.count < 2:
            raise ValueError(f"a Fréchet distance takes at least 2 samples on either side; got {self.count}")
        return filled


def _sum(moments: Sequence[Moments]) -> Moments:
    total = moments[0]
    for other in moments[1:]:
        total = total + other
    return total


def frechet_distance(a: Moments, b: Moments) -> float:
    """Compute the squared distance, which is what FID and FVD report, of two sets of at least 2 samples each."""
    return _distance(a, b, _root(a.covariance))


def _root(covariance: np.ndarray) -> np.ndarray:
    """Return the symmetric square root, with eigenvalues below zero (rounding) set to zero."""
    values, vectors = linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def _distance(a: Moments, b: Moments, root_a: np.ndarray) -> float:
    # S_a S_b has the eigenvalues of the symmetric R S_b R, R^2 = S_a. The square root of the unsymmetric product itself
    # would be badly conditioned, and complex, where samples are fewer than features.
    inner = root_a @ b.covariance @ root_a
    values = linalg.eigvalsh((inner + inner.T) / 2)
    trace = np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.sqrt(np.maximum(values, 0.0)).sum()
    return float(max(((a.mean - b.mean) ** 2).sum() + trace, 0.0))


def frechet_estimate(a: BlockMoments, b: BlockMoments) -> dict[str, Any]:
    """Compute the distance with a 95% interval and its bias, by leaving out each block of either set once (jackknife).

    The bootstrap does not work here: samples drawn twice lower the rank of the covariances, so that the distances of
    all its draws lie above the distance itself. The jackknife (Efron and Stein 1981; two samples: Arvesen 1969) repeats
    no samples, and its estimate of the bias is, for a bias of c_a / N_a + c_b / N_b, exactly the extrapolation to
    infinitely many samples that Chong and Forsyth (2020) fit by regression. The expansion, and with it `extrapolated`,
    is meaningful only where both sets have many more samples than there are features; `interval` is around `value`, for
    comparison with others of the same number of samples, and does not account for the bias.

    Returns: `value`, `interval` (None if there are fewer than 3 samples on a side), `extrapolated` (likewise), `counts`
      of both sets, `features` D.
    """
    total_a, total_b = a.total, b.total
    root_a, root_b = _root(total_a.covariance), _root(total_b.covariance)
    value = _distance(total_a, total_b, root_a)
    result = {"value": value, "counts": [a.count, b.count], "features": len(total_a.mean)}
    if min(a.count, b.count) < 3:
        return {**result, "interval": None, "extrapolated": None}
    left_out = (
        np.array([_distance(total_b, part, root_b) for part in a.without_each()]),
        np.array([_distance(total_a, part, root_a) for part in b.without_each()]),
    )
    variance, bias, freedom = 0.0, 0.0, np.inf
    for values in left_out:
        blocks = len(values)
        variance += (blocks - 1) / blocks * ((values - values.mean()) ** 2).sum()
        bias += (blocks - 1) * (values.mean() - value)
        freedom = min(freedom, blocks - 1)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    return {
        **result,
        "interval": [max(value - half, 0.0), value + half],
        "extrapolated": value - bias,
    }
