"""How sure a measured number is: intervals for fractions and for means and ratios of paired measurements."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_Z = 1.959963984540054  # the 97.5% quantile of the normal distribution
_RESAMPLES = 10_000
_AT_ONCE = 100  # of them; all of tens of thousands of samples would fill the memory


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """The 95% score interval of a fraction (Wilson 1927); trials are taken to be independent.

    Raises:
      ValueError: unless 0 <= successes <= count and count >= 1.
    """
    if not 0 <= successes <= count or count < 1:
        raise ValueError(f"successes must be from 0 to count, count at least 1; got {successes} of {count}")
    fraction, z2 = successes / count, _Z**2
    middle = (fraction + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z / (1 + z2 / count) * math.sqrt(fraction * (1 - fraction) / count + z2 / (4 * count**2))
    # At 0 and at 1 the ends are exactly these; rounding must not take them away.
    return (0.0 if successes == 0 else middle - half), (1.0 if successes == count else middle + half)


def tally(values: Sequence[bool]) -> dict[str, Any]:
    """`{"fraction", "right", "count", "interval"}` of at least one trial, the interval that of `wilson_interval`."""
    right = sum(map(bool, values))
    return {
        "fraction": right / len(values),
        "right": right,
        "count": len(values),
        "interval": list(wilson_interval(right, len(values))),
    }


def bootstrap(statistic: Callable[..., np.ndarray], *samples: Sequence[float]) -> dict[str, Any]:
    """A statistic of paired samples and its 95% percentile interval over resampled pairs (Efron 1979).

    Args:
      statistic: takes arrays `(..., N)` and reduces the last axis.
      samples: N numbers each, N >= 1; what has one index belongs together. The resampling is the same every time.

    Returns: `{"value", "interval"}`.
    """
    arrays = [np.asarray(sample, np.float64) for sample in samples]
    count, rng, drawn = len(arrays[0]), np.random.default_rng(0), []
    for first in range(0, _RESAMPLES, _AT_ONCE):
        chosen = rng.integers(count, size=(min(_AT_ONCE, _RESAMPLES - first), count))
        drawn.append(statistic(*(array[chosen] for array in arrays)))
    drawn = np.concatenate(drawn)
    return {"value": float(statistic(*arrays)), "interval": np.quantile(drawn, [0.025, 0.975]).tolist()}


def mean_difference(a: Sequence[float], b: Sequence[float]) -> dict[str, Any]:
    """The mean of a - b over pairs, with `bootstrap`'s interval."""
    return bootstrap(lambda x, y: (x - y).mean(axis=-1), a, b)


def ratio_of_means(a: Sequence[float], b: Sequence[float]) -> dict[str, Any]:
    """The mean of a over the mean of b, b above 0, with `bootstrap`'s interval."""
    return bootstrap(lambda x, y: x.mean(axis=-1) / y.mean(axis=-1), a, b)
