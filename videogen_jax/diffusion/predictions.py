"""What the network predicts (noise, velocity or clean sample), how these convert, and how their losses are weighted.

Throughout: output, x_t, x0, noise are (B, ...); alpha and sigma are () or (B,), the schedule's scales at each sample's
timestep, broadcast over the trailing axes. Velocity is v = alpha * noise - sigma * x0 (Salimans & Ho 2022, section 4).
"""

import jax
import jax.numpy as jnp

from videogen_jax.diffusion.schedules import append_axes

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


def check_prediction_type(prediction_type: str) -> None:
    """Raise ValueError, naming the choices, unless the prediction type is known."""
    if prediction_type not in PREDICTION_TYPES:
        raise ValueError(
            f"prediction_type '{prediction_type}' is not known: choose one of {', '.join(PREDICTION_TYPES)}"
        )


def x0_from_prediction(
    prediction_type: str,
    output: jax.Array,
    x_t: jax.Array,
    alpha: jax.typing.ArrayLike,
    sigma: jax.typing.ArrayLike,
) -> jax.Array:
    """The clean sample (B, ...) that a network output stands for.

    Defined at alpha = 0 for "v_prediction" and "sample"; "epsilon" does not determine x0 there, and gives inf or nan.
    Raises ValueError for an unknown prediction type.
    """
    check_prediction_type(prediction_type)
    alpha, sigma = append_axes(alpha, x_t.ndim), append_axes(sigma, x_t.ndim)
    if prediction_type == "epsilon":
        return (x_t - sigma * output) / alpha
    if prediction_type == "v_prediction":
        return alpha * x_t - sigma * output
    return output


def eps_from_prediction(
    prediction_type: str,
    output: jax.Array,
    x_t: jax.Array,
    alpha: jax.typing.ArrayLike,
    sigma: jax.typing.ArrayLike,
) -> jax.Array:
    """The noise (B, ...) that a network output stands for.

    For "sample" at sigma = 0, where x_t holds no noise to read off, the answer is 0 (with a zero gradient).
    Raises ValueError for an unknown prediction type.
    """
    check_prediction_type(prediction_type)
    alpha, sigma = append_axes(alpha, x_t.ndim), append_axes(sigma, x_t.ndim)
    if prediction_type == "epsilon":
        return output
    if prediction_type == "v_prediction":
        return alpha * output + sigma * x_t
    noiseless = sigma == 0
    return jnp.where(noiseless, 0.0, (x_t - alpha * output) / jnp.where(noiseless, 1.0, sigma))


def target(
    prediction_type: str,
    x0: jax.Array,
    noise: jax.Array,
    alpha: jax.typing.ArrayLike,
    sigma: jax.typing.ArrayLike,
) -> jax.Array:
    """What the network is trained to put out (B, ...), for x_t = alpha * x0 + sigma * noise.

    Raises ValueError for an unknown prediction type.
    """
    check_prediction_type(prediction_type)
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        return append_axes(alpha, x0.ndim) * noise - append_axes(sigma, x0.ndim) * x0
    return x0


def loss_weight(prediction_type: str, snr: jax.typing.ArrayLike, min_snr_gamma: float | None = None) -> jax.Array:
    """Weight of each sample's mean squared error between the network's output and `target` (same shape as snr).

    min_snr_gamma None: 1 everywhere. Otherwise min-SNR-gamma (Hang et al. 2023, section 3.4; 5 is their choice): a
    weight of min(snr, gamma) on the squared error of x0, which on the network's own target is min(snr, gamma) / snr
    for "epsilon", min(snr, gamma) / (snr + 1) for "v_prediction" and min(snr, gamma) for "sample". Defined at snr = 0
    ("epsilon": the limit, 1). There the weight of the other two is 0: the terminal timestep of a zero-terminal-SNR
    schedule is then not trained, so None suits such schedules better.

    Raises ValueError for an unknown prediction type or a gamma that is not positive.
    """
    check_prediction_type(prediction_type)
    snr = jnp.asarray(snr)
    if min_snr_gamma is None:
        return jnp.ones_like(snr)
    if min_snr_gamma <= 0:
        raise ValueError(f"min_snr_gamma is {min_snr_gamma}: it must be positive, or None for uniform weights")
    clipped = jnp.minimum(snr, min_snr_gamma)
    if prediction_type == "epsilon":
        return min_snr_gamma / jnp.maximum(snr, min_snr_gamma)
    if prediction_type == "v_prediction":
        return clipped / (snr + 1.0)
    return clipped
