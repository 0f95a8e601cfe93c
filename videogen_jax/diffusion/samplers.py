"""Samplers: diffusion run backwards from noise, one class for each method.

A sampler has three methods. `coefficients` works out everything that the steps need to know of the noise schedule, on
the host and in float64; `start` makes the state before the first step from noise; `step` calls the network once and
moves on to the next lower timestep. (A method that calls the network twice a step spreads it over two rows of
coefficients: see `PNDM`.) `sample_loop` runs all steps as one `lax.scan`; a program that reports on its steps or stops
between them compiles `step` once and feeds it the coefficients of one step after another, however many.

Notation: x_t = alpha_t x_0 + sigma_t noise with alpha_t^2 + sigma_t^2 = 1; a step goes from timestep t to the lower
timestep s. Steps are written with alpha and sigma themselves, so that all coefficients are finite at zero terminal SNR
(alpha_t = 0), where forms in sigma / alpha or in log-SNR divide by zero.

A new sampler is a class here and a line in SAMPLERS (and its name in `stages.settings`).
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.diffusion.predictions import check_prediction_type, x0_from_prediction
from videogen_jax.diffusion.schedules import NoiseSchedule, Schedule

Denoise = Callable[[jax.Array, jax.Array], jax.Array]  # (x_t (B, ...) float32, t (B,)) -> network output (B, ...)
Coefficients = Mapping[str, jax.typing.ArrayLike]


class SamplerState(NamedTuple):
    """What one step hands to the next.

    Attributes:
      x: `(B, ...)` float32, x_t at the timestep of the next step; after the last step the sample x_0.
      history: what a multistep method remembers of earlier steps; None for the others.
    """

    x: jax.Array
    history: Any = None


@dataclasses.dataclass(frozen=True)
class Sampler(abc.ABC):
    """What all samplers share.

    Attributes:
      schedule: the noise schedule that the network was trained with; not traced.
      prediction_type: what the network predicts: "epsilon", "v_prediction" or "sample".
      spacing, steps_offset: see `timesteps_for`; without effect on a `KarrasSchedule`.
      set_alpha_to_one: whether the last step removes all noise. False: it ends at the first training timestep, with a
        little noise, as diffusers' option of that name. (A `KarrasSchedule` has its own end, and takes True alone.)

    Raises:
      ValueError: unknown choices, or ones that do not go together.
    """

    name: ClassVar[str]
    omit_lowest: ClassVar[bool] = False  # see `timesteps_for`
    fractional: ClassVar[bool] = False

    schedule: Schedule
    prediction_type: str
    spacing: str = "trailing"
    steps_offset: int = 0
    set_alpha_to_one: bool = True

    def __post_init__(self):
        check_prediction_type(self.prediction_type)

    @abc.abstractmethod
    def coefficients(self, num_steps: int, strength: float = 1.0) -> dict[str, np.ndarray]:
        """Work out the coefficients of all steps.

        Args:
          num_steps: 1 to the number of training timesteps; any number of steps of a `KarrasSchedule`.
          strength: share of them that is taken, the last ones, where sampling starts from something that is noised: see
            `start_from`.

        Returns:
          Arrays with one row for each call of the network, in order (one a step, `PNDM` one more): "t", the timestep
          (int32; float32 where `timesteps` are fractional), and the coefficients of the class's equation, float32,
          computed in float64. Names, dtypes and the other axes do not depend on num_steps.

        Raises:
          ValueError: a traced schedule, a num_steps that does not fit it, or a method or a prediction type that cannot
            start from zero terminal SNR with one.
        """

    def start(self, noise: jax.Array) -> SamplerState:
        """The state before the first step, from standard normal noise `(B, ...)`."""
        return self.state(jnp.asarray(noise, jnp.float32))

    def start_from(self, clean: jax.Array, noise: jax.Array, alpha: jax.Array, sigma: jax.Array) -> SamplerState:
        """The state before the first of the steps that a `strength` below 1 leaves (SDEdit, Meng et al. 2022).

        Args:
          clean: what is noised, and by sampling made again, `(B, ...)`.
          noise: standard normal, of its shape.
          alpha, sigma: of the first of those steps.
        """
        return self.state(alpha * clean + sigma * jnp.asarray(noise, jnp.float32))

    def state(self, x: jax.Array) -> SamplerState:
        """The state before a step at which nothing is remembered, from x_t `(B, ...)` float32."""
        return SamplerState(x)

    @abc.abstractmethod
    def step(self, denoise: Denoise, state: SamplerState, coeffs: Coefficients) -> SamplerState:
        """Take one step.

        Args:
          denoise: `(x_t (B, ...) float32, t (B,))` -> the network's output `(B, ...)`, guided already.
          state: from `start` or the step before.
          coeffs: those of this step, from `coefficients`; may be traced.
        """

    def timesteps(self, num_steps: int, strength: float = 1.0) -> np.ndarray:
        """The timesteps of the steps, strictly falling: `num_steps`, or the share `strength` of them, rounded down.

        Raises:
          ValueError: no step is left.
        """
        timesteps = self.schedule.sampling_timesteps(
            num_steps, self.spacing, self.steps_offset, omit_lowest=self.omit_lowest, fractional=self.fractional
        )
        taken = int(num_steps * strength)
        if taken < 1:
            raise ValueError(f"strength is {strength}, but of {num_steps} steps that leaves none")
        return timesteps[num_steps - taken :]

    def alphas_cumprod_of(self, timesteps: np.ndarray) -> np.ndarray:
        """The noise schedule at `timesteps`, float64. ValueError: the network cannot predict from one of them."""
        alphas_cumprod = self.schedule.alphas_cumprod_of(timesteps)
        if self.prediction_type == "epsilon" and np.any(alphas_cumprod == 0.0):
            raise ValueError(
                "prediction_type 'epsilon' cannot start from zero terminal SNR: use 'v_prediction' or 'sample',"
                " or spacing 'leading'"
            )
        return alphas_cumprod

    def scales_of(self, timesteps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """alpha and sigma at `timesteps` and at the end of the last step: `(num_steps + 1,)` each, float64."""
        end = self.schedule.end_alphas_cumprod(self.set_alpha_to_one)
        alphas_cumprod = np.append(self.alphas_cumprod_of(timesteps), end)
        return np.sqrt(alphas_cumprod), np.sqrt(1.0 - alphas_cumprod)

    def network_output(self, denoise: Denoise, x: jax.Array, coeffs: Coefficients) -> jax.Array:
        """Call the network on x_t `(B, ...)`: its output, float32."""
        return denoise(x, jnp.full((x.shape[0],), coeffs["t"])).astype(jnp.float32)

    def predict_x0(self, denoise: Denoise, x: jax.Array, coeffs: Coefficients) -> jax.Array:
        """Call the network on x_t `(B, ...)`: its estimate of the clean sample."""
        output = self.network_output(denoise, x, coeffs)
        return x0_from_prediction(self.prediction_type, output, x, coeffs["alpha"], coeffs["sigma"])


class DPMSolverPlusPlus2M(Sampler):
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, algorithm 2).

        x_s = sigma_s / sigma_t x_t + alpha_s (1 - exp(-h)) D,    D = (1 + 1 / 2r) x0(t) - 1 / 2r x0(t before)

    with lambda = log(alpha / sigma), h = lambda_s - lambda_t and r = h of the step before / h. The first and the last
    step are of first order (D = x0), and so is the step after one that began at alpha = 0, where r is infinite.
    `history` is x0 `(B, ...)` of the step before.
    """

    name = "dpmpp_2m"
    omit_lowest = True  # the last step goes to noise level 0 at once

    def coefficients(self, num_steps: int, strength: float = 1.0) -> dict[str, np.ndarray]:
        timesteps = self.timesteps(num_steps, strength)
        alpha, sigma = self.scales_of(timesteps)
        first_order = alpha[1:] - alpha[:-1] * sigma[1:] / sigma[:-1]  # alpha_s (1 - exp(-h))
        half_inverse_r = np.zeros(len(timesteps))  # 1 / 2r, 0 for a step of first order
        if len(timesteps) > 2:
            with np.errstate(divide="ignore"):
                log_snr = np.log(alpha[:-1]) - np.log(sigma[:-1])
            h = np.diff(log_snr)
            half_inverse_r[1:-1] = 0.5 * h[1:] / h[:-1]
        return _as_float32(
            timesteps,
            alpha=alpha[:-1],
            sigma=sigma[:-1],
            x=sigma[1:] / sigma[:-1],
            x0=first_order * (1.0 + half_inverse_r),
            previous_x0=-first_order * half_inverse_r,
        )

    def state(self, x: jax.Array) -> SamplerState:
        return SamplerState(x, history=jnp.zeros_like(x))

    def step(self, denoise: Denoise, state: SamplerState, coeffs: Coefficients) -> SamplerState:
        x0 = self.predict_x0(denoise, state.x, coeffs)
        x = coeffs["x"] * state.x + coeffs["x0"] * x0 + coeffs["previous_x0"] * state.history
        return SamplerState(x, history=x0)


class DDIM(Sampler):
    """DDIM, deterministic (Song et al. 2021, arXiv 2010.02502, eq. 12 with sigma = 0).

    x_s = alpha_s x0(t) + sigma_s noise(t),    noise(t) = (x_t - alpha_t x0(t)) / sigma_t
    """

    name = "ddim"

    def coefficients(self, num_steps: int, strength: float = 1.0) -> dict[str, np.ndarray]:
        timesteps = self.timesteps(num_steps, strength)
        alpha, sigma = self.scales_of(timesteps)
        x = sigma[1:] / sigma[:-1]
        return _as_float32(timesteps, alpha=alpha[:-1], sigma=sigma[:-1], x=x, x0=alpha[1:] - alpha[:-1] * x)

    def step(self, denoise: Denoise, state: SamplerState, coeffs: Coefficients) -> SamplerState:
        x0 = self.predict_x0(denoise, state.x, coeffs)
        return SamplerState(coeffs["x"] * state.x + coeffs["x0"] * x0)


class Euler(DDIM):
    """Euler's method for the probability-flow ODE (Karras et al. 2022, arXiv 2206.00364, algorithm 1 without churn).

        y_s = y_t + (rho_s - rho_t) noise(t),    y = x / alpha, rho = sigma / alpha

    Multiplied by alpha_s that is DDIM's step. Two things differ, with a `NoiseSchedule` alone: the timesteps of
    "linspace" are not rounded, and the noise at the start is scaled to sigma of timestep N - 1, unless spacing is
    "leading".
    """

    name = "euler"
    fractional = True

    def coefficients(self, num_steps: int, strength: float = 1.0) -> dict[str, np.ndarray]:
        coeffs = super().coefficients(num_steps, strength)
        # Whether any timestep is fractional depends on num_steps; the dtype must not.
        return coeffs | {"t": coeffs["t"].astype(np.float32)} if self.spacing == "linspace" else coeffs

    def start(self, noise: jax.Array) -> SamplerState:
        scale = self.schedule.start_scale(self.spacing)
        return self.state(jnp.asarray(noise, jnp.float32) * np.float32(scale))


class PNDM(Sampler):
    """PNDM without its Runge-Kutta start, called PLMS (Liu et al. 2022, arXiv 2202.09778, eq. 9 and 12; start: eq. 23).

        x_s = alpha_s / alpha_t x_t + (sigma_s - alpha_s sigma_t / alpha_t) e

    where e is a weighted mean of the newest four network outputs, converted to noise. It takes num_steps + 1 calls of
    the network: the second call repeats the first step, from the same x, with the mean of the outputs at both of its
    ends, and its own output is not remembered. `history` is (x_t of the step before, the newest three outputs
    `(3, B, ...)`, the newest first).
    """

    name = "pndm"

    # Weights of the outputs, the newest first, in the first call, the second, and so on: Adams-Bashforth of rising
    # order, except for the second call, which is the trapezoidal rule.
    _WEIGHTS = (
        (1, 0, 0, 0),
        (1 / 2, 1 / 2, 0, 0),
        (3 / 2, -1 / 2, 0, 0),
        (23 / 12, -16 / 12, 5 / 12, 0),
        (55 / 24, -59 / 24, 37 / 24, -9 / 24),
    )

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.schedule, NoiseSchedule):
            raise ValueError(
                "sampler 'pndm' takes equal strides of numbered timesteps, which a 'karras' schedule lacks"
            )
        if self.prediction_type == "sample":
            raise ValueError("sampler 'pndm' has no x0: it does not take prediction_type 'sample'")

    def coefficients(self, num_steps: int, strength: float = 1.0) -> dict[str, np.ndarray]:
        timesteps, alphas_cumprod = self.timesteps(num_steps, strength), self.schedule.float64()
        if np.any(self.alphas_cumprod_of(timesteps) == 0.0):
            raise ValueError("sampler 'pndm' cannot start from zero terminal SNR: use another, or spacing 'leading'")
        stride = len(alphas_cumprod) // num_steps
        calls = np.concatenate([timesteps[:2], timesteps[1:]]) if len(timesteps) > 1 else timesteps
        begins, ends = calls.copy(), calls - stride  # of the step that each call takes
        if len(timesteps) > 1:
            begins[1], ends[1] = calls[1] + stride, calls[1]
        # A stride above the last timestep or below the first leaves the schedule.
        begin = alphas_cumprod[np.minimum(begins, len(alphas_cumprod) - 1)]
        last = self.schedule.end_alphas_cumprod(self.set_alpha_to_one)
        end = np.where(ends >= 0, alphas_cumprod[np.maximum(ends, 0)], last)
        return _as_float32(
            calls,
            alpha=np.sqrt(begin),
            sigma=np.sqrt(1.0 - begin),
            x=np.sqrt(end / begin),
            noise=np.sqrt(1.0 - end) - np.sqrt(end * (1.0 - begin) / begin),
            weights=np.array([self._WEIGHTS[min(call, 4)] for call in range(len(calls))], np.float64),
            repeat=np.arange(len(calls)) == 1,
        )

    def state(self, x: jax.Array) -> SamplerState:
        return SamplerState(x, history=(x, jnp.zeros((3, *x.shape))))

    def step(self, denoise: Denoise, state: SamplerState, coeffs: Coefficients) -> SamplerState:
        previous_x, previous_outputs = state.history
        repeat = coeffs["repeat"] > 0
        output = self.network_output(denoise, state.x, coeffs)
        x = jnp.where(repeat, previous_x, state.x)
        outputs = jnp.concatenate([output[None], previous_outputs])  # (4, B, ...)
        noise = jnp.tensordot(coeffs["weights"], outputs, 1)
        if self.prediction_type == "v_prediction":
            noise = coeffs["alpha"] * noise + coeffs["sigma"] * x
        remembered = jnp.where(repeat, previous_outputs, outputs[:3])
        return SamplerState(coeffs["x"] * x + coeffs["noise"] * noise, history=(x, remembered))


SAMPLERS: dict[str, type[Sampler]] = {sampler.name: sampler for sampler in (DPMSolverPlusPlus2M, DDIM, Euler, PNDM)}


def make_sampler(name: str, schedule: Schedule, prediction_type: str, **fields: Any) -> Sampler:
    """Build a sampler.

    Args:
      name: a key of SAMPLERS.
      schedule, prediction_type, fields: the attributes of `Sampler`.

    Raises:
      ValueError: an unknown name, or as `Sampler` does.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler '{name}' is not known: choose one of {', '.join(SAMPLERS)}")
    return SAMPLERS[name](schedule, prediction_type, **fields)


def sample_loop(
    step: Callable[[SamplerState, Coefficients], SamplerState], state: SamplerState, coeffs: Coefficients
) -> SamplerState:
    """Run all steps as one `lax.scan`.

    Args:
      step: `(state, coefficients of one call of the network) -> next state`.
      state: from `Sampler.start`.
      coeffs: of all steps, from `Sampler.coefficients`.

    Returns:
      The state after the last step, whose `x` is the sample.
    """
    coeffs = jax.tree.map(jnp.asarray, dict(coeffs))
    return jax.lax.scan(lambda state, coeffs: (step(state, coeffs), None), state, coeffs)[0]


def _as_float32(timesteps: np.ndarray, **coefficients: np.ndarray) -> dict[str, np.ndarray]:
    """Coefficients as they are handed out: float32, and the timesteps int32 or float32."""
    whole = np.issubdtype(timesteps.dtype, np.integer)
    return {"t": timesteps.astype(np.int32 if whole else np.float32)} | {
        name: values.astype(np.float32) for name, values in coefficients.items()
    }
