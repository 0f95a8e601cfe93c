import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videogen_jax.diffusion.predictions import (
    PREDICTION_TYPES,
    eps_from_prediction,
    loss_weight,
    target,
    x0_from_prediction,
)

X0 = jax.random.normal(jax.random.key(0), (3, 2, 4))
NOISE = jax.random.normal(jax.random.key(1), (3, 2, 4))
ALPHA = jnp.array([0.95, 0.5, 0.1])
SIGMA = jnp.sqrt(1 - ALPHA**2)


def noised(alpha, sigma):
    return alpha[:, None, None] * X0 + sigma[:, None, None] * NOISE


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_the_target_gives_back_sample_and_noise(prediction_type):
    output = target(prediction_type, X0, NOISE, ALPHA, SIGMA)
    arguments = (prediction_type, output, noised(ALPHA, SIGMA), ALPHA, SIGMA)
    np.testing.assert_allclose(x0_from_prediction(*arguments), X0, atol=1e-5)
    np.testing.assert_allclose(eps_from_prediction(*arguments), NOISE, atol=1e-5)


def test_velocity_is_alpha_noise_minus_sigma_sample():
    assert float(target("v_prediction", jnp.full((1,), 2.0), jnp.full((1,), 5.0), 0.6, 0.8)[0]) == pytest.approx(1.4)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
def test_zero_snr(prediction_type):
    alpha, sigma = jnp.zeros(3), jnp.ones(3)
    arguments = (prediction_type, target(prediction_type, X0, NOISE, alpha, sigma), noised(alpha, sigma), alpha, sigma)
    np.testing.assert_allclose(x0_from_prediction(*arguments), X0, atol=1e-6)
    np.testing.assert_allclose(eps_from_prediction(*arguments), NOISE, atol=1e-6)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_zero_noise(prediction_type):
    output = target(prediction_type, X0, NOISE, 1.0, 0.0)
    np.testing.assert_allclose(x0_from_prediction(prediction_type, output, X0, 1.0, 0.0), X0, atol=1e-6)
    eps = eps_from_prediction(prediction_type, output, X0, 1.0, 0.0)
    np.testing.assert_allclose(eps, np.zeros_like(X0) if prediction_type == "sample" else NOISE, atol=1e-6)
    gradient = jax.grad(lambda o: eps_from_prediction(prediction_type, o, X0, 1.0, 0.0).sum())(output)
    assert np.all(np.isfinite(gradient))


def test_min_snr_weights_follow_the_formula():
    snr = np.array([0.01, 1.0, 5.0, 400.0])
    clipped = np.minimum(snr, 5.0)
    np.testing.assert_allclose(loss_weight("epsilon", snr, 5.0), clipped / snr, 1e-6)
    np.testing.assert_allclose(loss_weight("v_prediction", snr, 5.0), clipped / (snr + 1), 1e-6)
    np.testing.assert_allclose(loss_weight("sample", snr, 5.0), clipped, 1e-6)


def test_min_snr_weights_at_zero_snr():
    assert [float(loss_weight(p, 0.0, 5.0)) for p in PREDICTION_TYPES] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_weights_are_uniform_without_gamma(prediction_type):
    np.testing.assert_array_equal(loss_weight(prediction_type, jnp.array([0.0, 7.0])), [1.0, 1.0])


def test_min_snr_weights_mean_one_loss_on_x0():
    """One wrong x0 costs the same after weighting, whichever the prediction type."""
    alpha, sigma = jnp.float32(0.8), jnp.float32(0.6)
    x_t, snr = alpha * X0 + sigma * NOISE, (alpha / sigma) ** 2
    wrong_x0 = X0 + 0.3
    wrong_noise = (x_t - alpha * wrong_x0) / sigma
    costs = [
        loss_weight(p, snr, 5.0)
        * jnp.mean((target(p, wrong_x0, wrong_noise, alpha, sigma) - target(p, X0, NOISE, alpha, sigma)) ** 2)
        for p in PREDICTION_TYPES
    ]
    np.testing.assert_allclose(costs, min(float(snr), 5.0) * 0.09, rtol=1e-4)


@pytest.mark.parametrize(
    "call",
    [
        lambda p: x0_from_prediction(p, X0, X0, 1.0, 0.0),
        lambda p: eps_from_prediction(p, X0, X0, 1.0, 0.0),
        lambda p: target(p, X0, NOISE, 1.0, 0.0),
        lambda p: loss_weight(p, 1.0),
    ],
)
def test_unknown_prediction_type_is_refused(call):
    with pytest.raises(ValueError, match=r"'flow'.*epsilon, v_prediction, sample"):
        call("flow")


def test_gamma_must_be_positive():
    with pytest.raises(ValueError, match="min_snr_gamma"):
        loss_weight("epsilon", 1.0, 0.0)
