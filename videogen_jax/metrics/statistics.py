"""Confidence intervals: of fractions, and of means and ratios of paired measurements."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_Z = 1.959963984540054  # the 97.5% quantile of the normal distribution
_RESAMPLES = 10_000
_CHUNK = 100  # resamples in memory; all at once of tens of thousands of samples would fill it


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """Compute the 95% score interval of a fraction of independent trials (Wilson 1927).

    Raises:
      ValueError: unless 0 <= successes <= count and count >= 1.
    """
    if not 0 <= successes <= count or count < 1:
        raise ValueError(f"successes must be from 0 to count, count at least 1; got {successes} of {count}")
    fraction, z2 = successes / count, _Z**2
    middle = (fraction + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z / (1 + z2 / count) * math.sqrt(fraction * (1 - fraction) / count + z2 / (4 * count**2))
    # At 0 and at 1 the ends are exact, which rounding must not change.
    return (0.0 if successes == 0 else middle - half), (1.0 if successes == count else middle + half)


def tally(values: Sequence[bool]) -> dict[str, Any]:
    """Return `fraction`, `right`, `count` and `interval` (see `wilson_interval`) of at least one trial."""
    right = sum(map(bool, values))
    return {
        "fraction": right / len(values),
        "right": right,
        "count": len(values),
        "interval": list(wilson_interval(right, len(values))),
    }


def bootstrap(statistic: Callable[..., np.ndarray], *samples: Sequence[float]) -> dict[str, Any]:
    """Compute a statistic of paired samples and its 95% percentile interval over resampled pairs (Efron 1979).

    Args:
      statistic: takes arrays `(..., N)` and reduces the last axis.
      samples: N numbers each, N >= 1, paired by their index. The resampling is the same in every call.

    Returns: `{"value", "interval"}`.
    """
    arrays = [np.asarray(sample, np.float64) for sample in samples]
    count, rng, drawn = len(arrays[0]), np.random.default_rng(0), []
    for first in range(0, _RESAMPLES, _CHUNK):
        chosen = rng.integers(count, size=(min(_CHUNK, _RESAMPLES - first), count))
        drawn.append(statistic(*(array[chosen] for array in arrays)))
    drawn = np.concatenate(drawn)
    return {"value": float(statistic(*arrays)), "interval": np.quantile(drawn, [0.025, 0.975]).tolist()}


def mean_difference(a: Sequence[float], b: Sequence[float]) -> dict[str, Any]:
    """Compute the mean of a - b over pairs, with `bootstrap`'s interval."""
    return bootstrap(lambda x, y: (x - y).mean(axis=-1), a, b)


def ratio_of_means(a: Sequence[float], b: Sequence[float]) -> dict[str, Any]:
    """Compute the mean of a over the mean of b, b above 0, with `bootstrap`'s interval."""
    return bootstrap(lambda x, y: x.mean(axis=-1) / y.mean(axis=-1), a, b)
