"""What the network predicts (noise, velocity or clean sample), how these convert, and how their losses are weighted.

Throughout, output, x_t, x0 and noise are `(B, ...)`; alpha and sigma, `()` or `(B,)`, are the schedule's scales at each
sample's timestep, with x_t = alpha * x0 + sigma * noise. Velocity is v = alpha * noise - sigma * x0 (Salimans & Ho
2022, section 4). All functions raise ValueError for an unknown prediction type.
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
    """Convert a network output to the clean sample x0 `(B, ...)`.

    Defined at alpha = 0 for "v_prediction" and "sample"; "epsilon" does not determine x0 there, and gives inf or nan.
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
    """Convert a network output to the noise `(B, ...)`.

    For "sample" at sigma = 0, where x_t contains no noise, the result is 0 (with a zero gradient).
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
    """The output `(B, ...)` that the network is trained to give for x_t = alpha * x0 + sigma * noise."""
    check_prediction_type(prediction_type)
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        return append_axes(alpha, x0.ndim) * noise - append_axes(sigma, x0.ndim) * x0
    return x0


def loss_weight(prediction_type: str, snr: jax.typing.ArrayLike, min_snr_gamma: float | None = None) -> jax.Array:
    """Weight each sample's mean squared error between the network's output and `target`.

    Min-SNR-gamma (Hang et al. 2023, section 3.4) weighs the squared error of x0 by min(snr, gamma). On the network's
    own target that is min(snr, gamma) / snr for "epsilon", min(snr, gamma) / (snr + 1) for "v_prediction" and
    min(snr, gamma) for "sample". At snr = 0 it is 1 for "epsilon", the limit, and 0 for the other two: the terminal
    timestep of a zero-terminal-SNR schedule is then not trained, so None suits such schedules better.

    Args:
      prediction_type: one of PREDICTION_TYPES.
      snr: alpha^2 / sigma^2 of each sample, any shape.
      min_snr_gamma: gamma, positive (5 in the paper); None: weights of 1.

    Returns:
      The weights, of snr's shape.

    Raises:
      ValueError: an unknown prediction type, or a gamma that is not positive.
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
