"""The Inception score against the definition, and where it is known."""

import numpy as np
import pytest
from scipy.special import softmax

from videogen_jax.metrics.inception_score import InceptionScore


def _score(logits, splits, batch=6):
    score = InceptionScore(splits)
    for start in range(0, len(logits), batch):
        score.update(logits[start : start + batch])
    return score.result()


def test_against_the_definition():
    logits = 3 * np.random.default_rng(0).normal(size=(50, 7))
    scores = []
    for split in range(5):
        p = softmax(logits[split::5], axis=1)
        scores.append(np.exp((p * (np.log(p) - np.log(p.mean(0)))).sum(1).mean()))
    result = _score(logits, 5)
    assert result["value"] == pytest.approx(np.mean(scores), rel=1e-9)
    assert result["std"] == pytest.approx(np.std(scores), rel=1e-9)
    assert result["interval"][0] < result["value"] < result["interval"][1]


def test_known_values():
    sure = np.tile(1000.0 * np.eye(4), (3, 1))
    assert _score(sure, 1)["value"] == pytest.approx(4.0)  # every class equally often, never in doubt
    assert _score(np.zeros((8, 4)), 2)["value"] == pytest.approx(1.0)
    assert _score(sure, 1)["interval"] is None


def test_wrong_input():
    with pytest.raises(ValueError, match="10 splits takes as many samples; got 3"):
        _score(np.zeros((3, 2)), 10)
    with pytest.raises(ValueError, match="finite"):
        InceptionScore().update(np.full((2, 3), np.inf))
