"""Noise schedules of variance-preserving diffusion, over numbered training timesteps or over noise levels.

x_t = alpha(t) * x_0 + sigma(t) * noise, with alpha(t)^2 + sigma(t)^2 = 1. `NoiseSchedule` has the training timesteps
t = 0 (almost clean) to N - 1 (almost pure or pure noise) of Stable Diffusion; `KarrasSchedule` has continuous
timesteps, for networks that were trained on any noise level of a range (Stable Video Diffusion).
"""

import abc

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.diffusion.timesteps import timesteps_for

DISCRETE_SCHEDULES = ("linear", "scaled_linear", "cosine")
SCHEDULES = (*DISCRETE_SCHEDULES, "karras")


def append_axes(coefficient: jax.typing.ArrayLike, ndim: int) -> jax.Array:
    """Append axes of length 1 to a coefficient of shape (), (B,), (B, T), ... until it has `ndim` axes.

    Raises:
      ValueError: the coefficient already has more axes than that.
    """
    coefficient = jnp.asarray(coefficient)
    if coefficient.ndim > ndim:
        raise ValueError(f"a coefficient of shape {coefficient.shape} does not fit an array of {ndim} axes")
    return coefficient.reshape(coefficient.shape + (1,) * (ndim - coefficient.ndim))


class Schedule(abc.ABC):
    """What training and samplers need of a noise schedule.

    `alpha`, `sigma`, `snr` and `add_noise` are for JAX arrays and may be traced. The other methods prepare a sampler's
    coefficients on the host, in NumPy.
    """

    @abc.abstractmethod
    def alpha(self, t: jax.typing.ArrayLike) -> jax.Array:
        """Signal scale at timesteps t, of any shape: float32, t's shape."""

    @abc.abstractmethod
    def sigma(self, t: jax.typing.ArrayLike) -> jax.Array:
        """Noise scale at timesteps t, of any shape: float32, t's shape."""

    @abc.abstractmethod
    def snr(self, t: jax.typing.ArrayLike) -> jax.Array:
        """Signal-to-noise ratio alpha(t)^2 / sigma(t)^2 at timesteps t, of any shape: float32, t's shape."""

    def add_noise(self, x0: jax.Array, noise: jax.Array, t: jax.typing.ArrayLike) -> jax.Array:
        """Compute x_t from the clean sample and standard normal noise (Ho et al. 2020, eq. 4).

        Args:
          x0: `(B, ...)`, about unit variance.
          noise: of x0's shape.
          t: `(B,)` or `()`, timesteps of this schedule.

        Returns:
          x_t `(B, ...)`, at least float32.
        """
        return append_axes(self.alpha(t), x0.ndim) * x0 + append_axes(self.sigma(t), x0.ndim) * noise

    @abc.abstractmethod
    def sampling_timesteps(
        self, num_steps: int, spacing: str, steps_offset: int, *, omit_lowest: bool, fractional: bool
    ) -> np.ndarray:
        """Choose the timesteps of `num_steps` sampling steps.

        Args:
          num_steps: at least 1.
          spacing, steps_offset, omit_lowest, fractional: see `timesteps_for`; without effect on continuous timesteps.

        Returns:
          `(num_steps,)`, strictly falling; an integer type, or floating point where timesteps are not whole numbers.

        Raises:
          ValueError: the schedule does not have that many timesteps.
        """

    @abc.abstractmethod
    def alphas_cumprod_of(self, timesteps: np.ndarray) -> np.ndarray:
        """alpha^2 at timesteps of any shape, as from `sampling_timesteps`, in float64."""

    @abc.abstractmethod
    def end_alphas_cumprod(self, set_alpha_to_one: bool) -> float:
        """alpha^2 where the last sampling step ends.

        Args:
          set_alpha_to_one: whether that step removes all noise, rather than ending at the first training timestep.
        """

    @abc.abstractmethod
    def start_scale(self, spacing: str) -> float:
        """What the Euler sampler multiplies standard normal noise by to start from it."""


@flax.struct.dataclass
class NoiseSchedule(Schedule):
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

    def sampling_timesteps(
        self, num_steps: int, spacing: str, steps_offset: int, *, omit_lowest: bool, fractional: bool
    ) -> np.ndarray:
        return timesteps_for(
            self.num_train_timesteps, num_steps, spacing, steps_offset, omit_lowest=omit_lowest, fractional=fractional
        )

    def float64(self) -> np.ndarray:
        """`alphas_cumprod` `(N,)` as float64 on the host. ValueError: the schedule is traced."""
        if isinstance(self.alphas_cumprod, jax.core.Tracer):
            raise ValueError("schedule is traced: close over it as a constant instead of passing it through jit")
        return np.asarray(self.alphas_cumprod, np.float64)

    def alphas_cumprod_of(self, timesteps: np.ndarray) -> np.ndarray:
        """alpha^2 at timesteps in [0, N - 1], in float64; sigma / alpha is interpolated at fractional ones."""
        alphas_cumprod = self.float64()
        if np.issubdtype(timesteps.dtype, np.integer):
            return alphas_cumprod[timesteps]
        with np.errstate(divide="ignore"):
            ratio = np.sqrt((1.0 - alphas_cumprod) / alphas_cumprod)
        return 1.0 / (1.0 + np.interp(timesteps, np.arange(len(ratio)), ratio) ** 2)

    def end_alphas_cumprod(self, set_alpha_to_one: bool) -> float:
        return 1.0 if set_alpha_to_one else float(self.float64()[0])

    def start_scale(self, spacing: str) -> float:
        """sigma of timestep N - 1, as in diffusers, except that "leading" spacing starts below it and does not scale.

        Both other spacings begin at timestep N - 1, however many steps there are.
        """
        return 1.0 if spacing == "leading" else float(np.sqrt(1.0 - self.float64()[-1]))


@flax.struct.dataclass
class KarrasSchedule(Schedule):
    """Continuous timesteps t = ln(ratio) / 4 of the noise levels ratio = sigma / alpha (Karras et al. 2022).

    Karras et al. call the ratio sigma and write noisy samples as x_0 + ratio * noise. Here they are divided by
    sqrt(1 + ratio^2), as they are at the network's input: alpha = 1 / sqrt(1 + ratio^2), sigma = ratio * alpha, so

        alpha(t)^2 = 1 / (1 + exp(8 t))

    Attributes:
      sigma_min, sigma_max: lowest and highest ratio of a sampling step. Training may draw timesteps beyond both.
      rho: how strongly the sampling steps concentrate at low noise (Karras et al. 2022, eq. 5).
      sigmas: falling ratios of the sampling steps instead of those of eq. 5: n + 1 of them for n steps, of which the
        last is where the last step ends (0 or above), as in "Align Your Steps" (Sabour et al. 2024). Empty: eq. 5, and
        the last step removes all noise.

    Raises:
      ValueError: a value is out of range, or `sigmas` do not fall.
    """

    sigma_min: float = flax.struct.field(pytree_node=False, default=0.002)
    sigma_max: float = flax.struct.field(pytree_node=False, default=700.0)
    rho: float = flax.struct.field(pytree_node=False, default=7.0)
    sigmas: tuple[float, ...] = flax.struct.field(pytree_node=False, default=())

    def __post_init__(self):
        if not 0.0 < self.sigma_min < self.sigma_max < np.inf:
            raise ValueError(
                f"sigma_min {self.sigma_min} and sigma_max {self.sigma_max} must satisfy 0 < sigma_min < sigma_max"
            )
        if not self.rho > 0.0:
            raise ValueError(f"rho is {self.rho}: it must be positive")
        if not self.sigmas:
            return
        falling = len(self.sigmas) > 1 and np.all(np.diff(self.sigmas) < 0)
        if not falling or self.sigmas[-1] < 0.0 or not np.isfinite(self.sigmas[0]):
            raise ValueError(
                f"sigmas are {self.sigmas}, but must be two or more finite numbers that fall, the last 0 or above"
            )

    @property
    def num_train_timesteps(self) -> int:
        """Raise ValueError: the timesteps are not numbered."""
        raise ValueError(
            "a 'karras' schedule has continuous timesteps and no num_train_timesteps: training with it needs an"
            " objective that draws noise levels"
        )

    @staticmethod
    def timestep(ratio: jax.typing.ArrayLike) -> jax.Array:
        """The timestep t = ln(ratio) / 4 of noise levels ratio = sigma / alpha > 0 of any shape: float32."""
        return 0.25 * jnp.log(jnp.asarray(ratio, jnp.float32))

    def alpha(self, t: jax.typing.ArrayLike) -> jax.Array:
        """Signal scale 1 / sqrt(1 + exp(8 t)) at timesteps t (any shape, float): float32, t's shape.

        Raises:
          ValueError: t is of an integer type, and so not a timestep of this schedule.
        """
        return jnp.sqrt(jax.nn.sigmoid(-8.0 * _continuous(t)))

    def sigma(self, t: jax.typing.ArrayLike) -> jax.Array:
        """Noise scale 1 / sqrt(1 + exp(-8 t)); arguments, result and errors as of `alpha`."""
        return jnp.sqrt(jax.nn.sigmoid(8.0 * _continuous(t)))  # not 1 - alpha^2, which float32 rounds at low noise

    def snr(self, t: jax.typing.ArrayLike) -> jax.Array:
        """Signal-to-noise ratio exp(-8 t); arguments, result and errors as of `alpha`."""
        return jnp.exp(-8.0 * _continuous(t))

    def sampling_timesteps(
        self, num_steps: int, spacing: str, steps_offset: int, *, omit_lowest: bool, fractional: bool
    ) -> np.ndarray:
        """Timesteps `(num_steps,)` float64 of eq. 5 of Karras et al. 2022, or of `sigmas` without the last.

        spacing, steps_offset, omit_lowest and fractional are of numbered timesteps, and have no effect.

        Raises:
          ValueError: num_steps is below 1, or is not the number of steps of `sigmas`.
        """
        del spacing, steps_offset, omit_lowest, fractional
        if num_steps < 1:
            raise ValueError(f"num_steps is {num_steps}: a sampler needs at least 1")
        if self.sigmas:
            if num_steps != len(self.sigmas) - 1:
                raise ValueError(f"num_steps is {num_steps}, but the schedule's sigmas are of {len(self.sigmas) - 1}")
            return 0.25 * np.log(np.asarray(self.sigmas[:-1], np.float64))
        highest, lowest = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        return 0.25 * self.rho * np.log(np.linspace(highest, lowest, num_steps))

    def alphas_cumprod_of(self, timesteps: np.ndarray) -> np.ndarray:
        return 1.0 / (1.0 + np.exp(8.0 * np.asarray(timesteps, np.float64)))

    def end_alphas_cumprod(self, set_alpha_to_one: bool) -> float:
        """1, or that of the last of `sigmas`. ValueError: set_alpha_to_one is False."""
        if not set_alpha_to_one:
            raise ValueError("set_alpha_to_one is False, but a 'karras' schedule has no first training timestep")
        return 1.0 / (1.0 + self.sigmas[-1] ** 2) if self.sigmas else 1.0

    def start_scale(self, spacing: str) -> float:
        """1 with any spacing: x_t at the highest noise level is taken to be noise of unit variance.

        diffusers multiplies by sqrt(1 + sigma_max^2) ("leading"), and divides by it again before it calls the network.
        """
        del spacing
        return 1.0


def _continuous(t: jax.typing.ArrayLike) -> jax.Array:
    t = jnp.asarray(t)
    if not jnp.issubdtype(t.dtype, jnp.floating):
        raise ValueError(f"timesteps of a 'karras' schedule are ln(sigma / alpha) / 4, floats, but t is {t.dtype}")
    return t.astype(jnp.float32)


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
    sigma_min: float = 0.002,
    sigma_max: float = 700.0,
    rho: float = 7.0,
    sigmas: tuple[float, ...] = (),
) -> Schedule:
    """Build a noise schedule; the defaults are Stable Diffusion's, and for "karras" Stable Video Diffusion's.

    Numbered timesteps are computed in float64 and stored as float32.

    Args:
      name: "linear", "scaled_linear" (linear in sqrt(beta)) or "cosine" (which ignores beta_start and beta_end): a
        `NoiseSchedule`. Or "karras": a `KarrasSchedule`, which takes the last four arguments alone.
      num_train_timesteps: N, at least 2.
      beta_start, beta_end: 0 < beta_start <= beta_end < 1.
      rescale_zero_terminal_snr: make the last timestep pure noise (Lin et al. 2023); it then needs v- or x0-prediction.
      least_alphas_cumprod: lower bound on all entries, for samplers that stop just short of zero terminal SNR.
      sigma_min, sigma_max, rho, sigmas: see `KarrasSchedule`; the other schedules ignore the first three.

    Raises:
      ValueError: an unknown name, a value out of range, or one that this schedule cannot have.
    """
    if name == "karras":
        if rescale_zero_terminal_snr or least_alphas_cumprod:
            raise ValueError("rescale_zero_terminal_snr and least_alphas_cumprod do not apply to a 'karras' schedule")
        return KarrasSchedule(sigma_min, sigma_max, rho, tuple(sigmas))
    if len(sigmas):
        raise ValueError(f"sigmas are those of a 'karras' schedule: schedule '{name}' has numbered timesteps")
    if num_train_timesteps < 2:
        raise ValueError(f"num_train_timesteps is {num_train_timesteps}: a schedule needs at least 2")
    if name != "cosine" and not 0.0 < beta_start <= beta_end < 1.0:
        raise ValueError(f"beta_start {beta_start} and beta_end {beta_end} must satisfy 0 < beta_start <= beta_end < 1")
    alphas_cumprod = _alphas_cumprod(name, num_train_timesteps, beta_start, beta_end)
    if rescale_zero_terminal_snr:
        alphas_cumprod = _rescale_zero_terminal_snr(alphas_cumprod)
    return NoiseSchedule(alphas_cumprod=np.maximum(alphas_cumprod, least_alphas_cumprod).astype(np.float32))
