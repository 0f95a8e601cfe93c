"""Noise schedules of discrete-time variance-preserving diffusion.

x_t = alpha(t) * x_0 + sigma(t) * noise, with alpha(t)^2 = alphas_cumprod[t] and alpha(t)^2 + sigma(t)^2 = 1, for the
training timesteps t = 0 (almost clean) to N - 1 (almost pure or pure noise).
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

SCHEDULES = ("linear", "scaled_linear", "cosine")


def append_axes(coefficient: jax.typing.ArrayLike, ndim: int) -> jax.Array:
    """Append axes of length 1 to a coefficient of shape (), (B,), (B, T), ... until it has `ndim` axes.

    Raises:
      ValueError: the coefficient already has more axes than that.
    """
    coefficient = jnp.asarray(coefficient)
    if coefficient.ndim > ndim:
        raise ValueError(f"a coefficient of shape {coefficient.shape} does not fit an array of {ndim} axes")
    return coefficient.reshape(coefficient.shape + (1,) * (ndim - coefficient.ndim))


@flax.struct.dataclass
class NoiseSchedule:
    """A noise schedule over N training timesteps.

    Attributes:
      alphas_cumprod: `(N,)` float32, in [0, 1), falling: the product of (1 - beta) up to and including t. The last
        entry is exactly 0 in a schedule of zero terminal SNR.
    """

    alphas_cumprod: jax.typing.ArrayLike

    @property
    def num_train_timesteps(self) -> int:
        """N, the number of training timesteps."""
        return self.alphas_cumprod.shape[0]

    def alpha(self, t: jax.typing.ArrayLike) -> jax.Array:
        """Signal scale at timesteps t (any shape, int, in [0, N)): sqrt(alphas_cumprod[t]), float32, t's shape."""
        return jnp.sqrt(jnp.asarray(self.alphas_cumprod)[t])

    def sigma(self, t: jax.typing.ArrayLike) -> jax.Array:
        """Noise scale at timesteps t (any shape, int, in [0, N)): sqrt(1 - alphas_cumprod[t]), float32, t's shape."""
        return jnp.sqrt(1.0 - jnp.asarray(self.alphas_cumprod)[t])

    def snr(self, t: jax.typing.ArrayLike) -> jax.Array:
        """Signal-to-noise ratio alpha(t)^2 / sigma(t)^2 at timesteps t (any shape, int, in [0, N))."""
        alphas_cumprod = jnp.asarray(self.alphas_cumprod)[t]
        return alphas_cumprod / (1.0 - alphas_cumprod)

    def add_noise(self, x0: jax.Array, noise: jax.Array, t: jax.typing.ArrayLike) -> jax.Array:
        """Compute x_t from the clean sample and standard normal noise (Ho et al. 2020, eq. 4).

        Args:
          x0: `(B, ...)`, about unit variance.
          noise: of x0's shape.
          t: `(B,)` or `()` int in [0, N).

        Returns:
          x_t `(B, ...)`, at least float32.
        """
        return append_axes(self.alpha(t), x0.ndim) * x0 + append_axes(self.sigma(t), x0.ndim) * noise


def _alphas_cumprod(name: str, num_train_timesteps: int, beta_start: float, beta_end: float) -> np.ndarray:
    if name == "linear":
        # Ho et al. 2020, section 4.
        betas = np.linspace(beta_start, beta_end, num_train_timesteps, dtype=np.float64)
    elif name == "scaled_linear":
        # Linear in sqrt(beta): latent diffusion (Rombach et al. 2022) and Stable Diffusion.
        betas = np.linspace(beta_start**0.5, beta_end**0.5, num_train_timesteps, dtype=np.float64) ** 2
    elif name == "cosine":
        # Nichol & Dhariwal 2021, eq. 17, with betas clipped at 0.999.
        time = np.arange(num_train_timesteps + 1, dtype=np.float64) / num_train_timesteps
        alpha_bar = np.cos((time + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], 0.999)
    else:
        raise ValueError(f"noise schedule '{name}' is not known: choose one of {', '.join(SCHEDULES)}")
    return np.cumprod(1.0 - betas)


def _rescale_zero_terminal_snr(alphas_cumprod: np.ndarray) -> np.ndarray:
    """Shift and scale sqrt(alphas_cumprod): the first stays, the last becomes 0 (Lin et al. 2023, algorithm 1)."""
    alphas = np.sqrt(alphas_cumprod)
    return (alphas[0] * (alphas - alphas[-1]) / (alphas[0] - alphas[-1])) ** 2


def make_schedule(
    name: str,
    num_train_timesteps: int = 1000,
    beta_start: float = 0.00085,
    beta_end: float = 0.012,
    rescale_zero_terminal_snr: bool = False,
    least_alphas_cumprod: float = 0.0,
) -> NoiseSchedule:
    """Build a noise schedule, computed in float64 and stored as float32; the defaults are Stable Diffusion's.

    Args:
      name: "linear", "scaled_linear" (linear in sqrt(beta)) or "cosine" (which ignores beta_start and beta_end).
      num_train_timesteps: N, at least 2.
      beta_start, beta_end: 0 < beta_start <= beta_end < 1.
      rescale_zero_terminal_snr: make the last timestep pure noise (Lin et al. 2023); it then needs v- or x0-prediction.
      least_alphas_cumprod: lower bound on all entries, for samplers that stop just short of zero terminal SNR.

    Raises:
      ValueError: an unknown name or a value out of range.
    """
    if num_train_timesteps < 2:
        raise ValueError(f"num_train_timesteps is {num_train_timesteps}: a schedule needs at least 2")
    if name != "cosine" and not 0.0 < beta_start <= beta_end < 1.0:
        raise ValueError(f"beta_start {beta_start} and beta_end {beta_end} must satisfy 0 < beta_start <= beta_end < 1")
    alphas_cumprod = _alphas_cumprod(name, num_train_timesteps, beta_start, beta_end)
    if rescale_zero_terminal_snr:
        alphas_cumprod = _rescale_zero_terminal_snr(alphas_cumprod)
    return NoiseSchedule(alphas_cumprod=np.maximum(alphas_cumprod, least_alphas_cumprod).astype(np.float32))
