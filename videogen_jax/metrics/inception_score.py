"""The Inception score (Salimans et al. 2016) of a stream of logits; on video they are C3D's (Saito et al. 2017)."""

from typing import Any

import numpy as np
from scipy import stats
from scipy.special import log_softmax, xlogy


class InceptionScore:
    """exp of the mean of KL(p(y|x) || p(y)), in splits, from sums over a stream of logits; float64.

    Sample number i belongs to split i mod `splits`. The usual code cuts the samples into consecutive pieces instead,
    which is equivalent for samples in random order, needs their number beforehand, and yields pieces of one class where
    they are sorted.

    Args:
      splits: at least 1; 10 is usual.
    """

    def __init__(self, splits: int = 10):
        if splits < 1:
            raise ValueError(f"splits is {splits}, but must be at least 1")
        self.count = 0
        self._counts = np.zeros(splits, np.int64)
        self._negative_entropies = np.zeros(splits)
        self._probabilities: np.ndarray | None = None

    def update(self, logits: np.ndarray) -> None:
        """Add logits `(N, classes)`.

        Raises:
          ValueError: for another shape, or logits that are not finite.
        """
        logits = np.asarray(logits, np.float64)
        if logits.ndim != 2 or not np.isfinite(logits).all():
            raise ValueError(f"logits must be finite and (N, classes); got shape {logits.shape}")
        if self._probabilities is None:
            self._probabilities = np.zeros((len(self._counts), logits.shape[1]))
        splits = (self.count + np.arange(len(logits))) % len(self._counts)
        logs = log_softmax(logits, axis=1)
        probabilities = np.exp(logs)
        np.add.at(self._counts, splits, 1)
        np.add.at(self._negative_entropies, splits, (probabilities * logs).sum(axis=1))
        np.add.at(self._probabilities, splits, probabilities)
        self.count += len(logits)

    def result(self) -> dict[str, Any]:
        """Compute the score.

        Returns: `value`, the mean over splits; `std` over splits, as papers quote it; `count` of samples; `interval`,
          95%, of the mean, by Student's t, None with fewer than two splits.

        Raises:
          ValueError: a split has no sample.
        """
        if self._probabilities is None or not self._counts.all():
            raise ValueError(
                f"an Inception score in {len(self._counts)} splits takes as many samples; got {self.count}"
            )
        mean = self._probabilities / self._counts[:, None]
        scores = np.exp(self._negative_entropies / self._counts - xlogy(mean, mean).sum(axis=1))
        result = {"value": float(scores.mean()), "std": float(scores.std()), "count": self.count, "interval": None}
        if len(scores) > 1:
            half = stats.t.ppf(0.975, len(scores) - 1) * scores.std(ddof=1) / np.sqrt(len(scores))
            result["interval"] = [float(scores.mean() - half), float(scores.mean() + half)]
        return result
