"""Fréchet distances against scipy's matrix square root and against what is known of Gaussians."""

import numpy as np
import pytest
from scipy import linalg

from videogen_jax.metrics.frechet import BlockMoments, Moments, frechet_distance, frechet_estimate


def _features(seed, count, dim, shift=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, dim)) @ rng.normal(size=(dim, dim)) + shift


def _blocks(features, blocks=10, batch=7):
    moments = BlockMoments(blocks)
    for start in range(0, len(features), batch):
        moments.update(features[start : start + batch])
    return moments


def test_against_the_closed_form_by_scipy():
    a, b = _features(0, 300, 24), _features(1, 500, 24, shift=0.5)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(cov_a @ cov_b).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert frechet_distance(_blocks(a).total, _blocks(b).total) == pytest.approx(expected, rel=1e-6)


def test_against_the_analytic_value_of_gaussians():
    """Covariances that commute: the distance is that of the means and of the standard deviations."""
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))[0]
    std_a, std_b = np.array([1.0, 2.0, 0.5, 3.0, 1.0, 0.1]), np.array([2.0, 1.0, 0.5, 0.0, 4.0, 0.1])
    mean = np.arange(6.0)

    def gaussian(std, mean):
        return Moments(11, mean, 10 * (rotation * std**2) @ rotation.T)

    expected = (mean**2).sum() + ((std_a - std_b) ** 2).sum()
    assert frechet_distance(gaussian(std_a, mean), gaussian(std_b, 0 * mean)) == pytest.approx(expected, rel=1e-6)


def test_fewer_samples_than_features_and_equal_sets():
    a, b = _features(3, 20, 64), _features(4, 30, 64)
    there, back = (frechet_distance(_blocks(x).total, _blocks(y).total) for x, y in ((a, b), (b, a)))
    assert there == pytest.approx(back, rel=1e-6)
    scale = np.trace(_blocks(a).total.covariance)
    assert frechet_distance(_blocks(a).total, _blocks(a).total) == pytest.approx(0, abs=1e-6 * scale)


def test_sums_do_not_depend_on_batches_and_stand_a_large_offset():
    features = _features(5, 101, 5) + 1e6
    whole, pieces = _blocks(features, batch=101).total, _blocks(features, batch=3).total
    assert pieces.count == 101
    np.testing.assert_allclose(pieces.mean, features.mean(0), rtol=1e-12)
    np.testing.assert_allclose(pieces.covariance, np.cov(features, rowvar=False), rtol=1e-6)
    np.testing.assert_allclose(pieces.covariance, whole.covariance, rtol=1e-6)


def test_without_each_block():
    features = _features(6, 25, 3)
    blocks = _blocks(features, blocks=4)
    for number, moments in enumerate(blocks.without_each()):
        rest = features[np.arange(25) % 4 != number]
        assert moments.count == len(rest)
        np.testing.assert_allclose(moments.covariance, np.cov(rest, rowvar=False), rtol=1e-9)


def test_interval_covers_and_extrapolation_takes_the_bias_off():
    """Two samples of one Gaussian: the distance is nothing, its estimate is not. Of two that differ: is it covered?"""
    rng = np.random.default_rng(7)
    values, extrapolated, covered = [], [], []
    for _ in range(60):
        same = frechet_estimate(*(_blocks(rng.normal(size=(200, 4)), batch=200) for _ in range(2)))
        values.append(same["value"])
        extrapolated.append(same["extrapolated"])
        other = frechet_estimate(
            _blocks(rng.normal(size=(400, 4)), batch=400), _blocks(rng.normal(size=(400, 4)) + 1.0, batch=400)
        )
        low, high = other["interval"]
        covered.append(low <= 4.0 <= high)
    assert abs(np.mean(extrapolated)) < 0.2 * np.mean(values)
    assert np.mean(covered) > 0.85  # 57 of 60 expected; below 51 less than one time in a hundred


def test_too_little_or_wrong_input():
    few = _blocks(_features(8, 2, 3))
    assert frechet_estimate(few, few)["interval"] is None
    with pytest.raises(ValueError, match="at least 2 samples on either side; got 1"):
        _ = _blocks(_features(8, 1, 3)).total
    with pytest.raises(ValueError, match="always the same"):
        few.update(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="not finite"):
        few.update(np.full((2, 3), np.nan))
    with pytest.raises(ValueError, match="blocks is 1"):
        BlockMoments(1)
