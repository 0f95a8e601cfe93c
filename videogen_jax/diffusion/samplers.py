"""Samplers as tables of coefficients, and one step that applies a row of them.

Every sampler here moves from timestep t to the next lower one by a linear rule in the variance-preserving space,

    x <- c_x * x + c_x0 * x0(t) + c_previous * x0(t of the step before) + c_noise * z,

so a sampler is a table of coefficients. `sample` runs through a table in one `lax.scan`; a program that is to be told
of its steps, or stopped between them, compiles `Sampler.step` once and is given one row after the other, whatever
their number. All coefficients stay finite at zero terminal SNR (alpha = 0 at the first step), where the forms in
sigma / alpha or log-SNR found elsewhere divide by zero. The tables are computed in float64.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.diffusion.predictions import check_prediction_type, x0_from_prediction
from videogen_jax.diffusion.schedules import NoiseSchedule

SAMPLERS = ("ddim", "dpmpp_2m", "euler", "euler_ancestral", "pndm")
SPACINGS = ("leading", "trailing", "linspace")


def timesteps_for(
    schedule_len: int, num_steps: int, spacing: str, steps_offset: int = 0, sampler: str = "ddim"
) -> np.ndarray:
    """The timesteps (num_steps,), strictly falling, at which a sampler calls the network: int32, float32 where said.

    schedule_len: the number N of training timesteps; num_steps: 1 to N. spacing (Lin et al. 2023, table 2):
    "leading": multiples of N // num_steps plus steps_offset, never the last timestep N - 1 for num_steps > 1.
    "trailing": from N - 1 down in equal steps; the choice for few steps and for zero terminal SNR.
    "linspace": from N - 1 to 0, rounded, but for the Euler samplers, which take them as they fall.
    steps_offset is used by "leading" alone (Stable Diffusion 1 and 2 have 1).
    sampler: "dpmpp_2m" leaves out the lowest of num_steps + 1 "leading" or "linspace" timesteps, since it goes from the
    last to noise level 0 in one step; the others do not. "pndm" calls the network at the second of them twice.

    Raises ValueError for an unknown spacing or sampler, or where N does not hold that many different timesteps.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler '{sampler}' is not known: choose one of {', '.join(SAMPLERS)}")
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}: a sampler needs at least 1")
    num_points = num_steps + 1 if sampler == "dpmpp_2m" else num_steps
    if spacing == "leading":
        timesteps = (np.arange(num_points) * (schedule_len // num_points))[::-1][:num_steps] + steps_offset
    elif spacing == "trailing":
        timesteps = np.round(schedule_len - np.arange(num_steps) * (schedule_len / num_steps)) - 1
    elif spacing == "linspace":
        timesteps = np.linspace(0, schedule_len - 1, num_points)[::-1][:num_steps]
        timesteps = timesteps if sampler.startswith("euler") else np.round(timesteps)
    else:
        raise ValueError(f"spacing '{spacing}' is not known: choose one of {', '.join(SPACINGS)}")
    if np.any(np.diff(timesteps) >= 0) or timesteps[0] >= schedule_len or timesteps[-1] < 0:
        raise ValueError(
            f"num_steps {num_steps} with spacing '{spacing}' and steps_offset {steps_offset} does not fit"
            f" a schedule of {schedule_len} timesteps: take fewer steps or a smaller offset"
        )
    whole = np.all(timesteps == np.round(timesteps))
    return timesteps.astype(np.int32 if whole else np.float32)


def _alphas_cumprod_at(alphas_cumprod: np.ndarray, timesteps: np.ndarray) -> np.ndarray:
    """The schedule at timesteps; sigma / alpha is interpolated between two of them, as by diffusers' Euler sampler."""
    if np.issubdtype(timesteps.dtype, np.integer):
        return alphas_cumprod[timesteps]
    with np.errstate(divide="ignore"):
        ratio = np.sqrt((1.0 - alphas_cumprod) / alphas_cumprod)
    return 1.0 / (1.0 + np.interp(timesteps, np.arange(len(ratio)), ratio) ** 2)


def _ddim_table(alpha: np.ndarray, sigma: np.ndarray, eta: float) -> dict[str, np.ndarray]:
    """Coefficients of DDIM (Song et al. 2021, eq. 12 and 16), the noise written out as (x - alpha * x0) / sigma.

    alpha, sigma: (num_steps + 1,), the last entry the end point 1, 0.
    """
    (alpha_t, alpha_s), (sigma_t, sigma_s) = (alpha[:-1], alpha[1:]), (sigma[:-1], sigma[1:])
    noise = eta * sigma_s / sigma_t * np.sqrt(1.0 - (alpha_t / alpha_s) ** 2)
    x = np.sqrt(np.maximum(sigma_s**2 - noise**2, 0.0)) / sigma_t
    return {"x": x, "x0": alpha_s - alpha_t * x, "previous": np.zeros_like(x), "noise": noise}


def _dpmpp_2m_table(alpha: np.ndarray, sigma: np.ndarray) -> dict[str, np.ndarray]:
    """Coefficients of DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, alg. 2); first and last step of first order.

    With lambda = log(alpha / sigma), h = lambda_s - lambda_t and r = h of the step before / h; a step before that began
    at alpha = 0 has r = inf, and the step is then of first order too. alpha, sigma: as in `_ddim_table`.
    """
    num_steps = len(alpha) - 1
    first_order = alpha[1:] - alpha[:-1] * sigma[1:] / sigma[:-1]  # = alpha_s * (1 - exp(-h))
    half_inverse_r = np.zeros(num_steps)
    if num_steps > 2:
        with np.errstate(divide="ignore"):
            log_snr = np.log(alpha[:-1]) - np.log(sigma[:-1])
        h = np.diff(log_snr)
        half_inverse_r[1:-1] = 0.5 * h[1:] / h[:-1]
    return {
        "x": sigma[1:] / sigma[:-1],
        "x0": first_order * (1.0 + half_inverse_r),
        "previous": -first_order * half_inverse_r,
        "noise": np.zeros(num_steps),
    }


def _pndm_table(alphas_cumprod: np.ndarray, timesteps: np.ndarray, end: float) -> dict[str, np.ndarray]:
    """Coefficients of PNDM without its Runge-Kutta start (PLMS): Liu et al. 2022, eq. 9 and 12, and eq. 23 to begin.

    Each call makes the step from one timestep to the next with a mean of this and up to three outputs before; the
    second call makes the first step again, from the same x, with the mean of the outputs at both its ends, and is
    forgotten.

    end: alphas_cumprod where the last step ends. Returns columns of num_steps + 1 calls: the timestep t of the call;
    alpha and sigma where its step begins; x and e, the factors of x and of the noise in the step; mean (4), the weights
    of the outputs, the newest first; again, 1 where the step begins at the x before.
    """
    stride = len(alphas_cumprod) // len(timesteps)
    calls = np.concatenate([timesteps[:2], timesteps[1:]]) if len(timesteps) > 1 else timesteps
    begins, ends = calls.copy(), calls - stride
    if len(calls) > 1:
        begins[1], ends[1] = calls[1] + stride, calls[1]
    at = alphas_cumprod[np.minimum(begins, len(alphas_cumprod) - 1)]
    to = np.where(ends >= 0, alphas_cumprod[np.maximum(ends, 0)], end)
    means = np.zeros((len(calls), 4))
    orders = ([1], [0.5, 0.5], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24])
    for i, mean in enumerate(means):
        weights = orders[min(i, 4)]
        mean[: len(weights)] = weights
    return {
        "t": calls,
        "alpha": np.sqrt(at),
        "sigma": np.sqrt(1.0 - at),
        "x": np.sqrt(to / at),
        "e": np.sqrt(1.0 - to) - np.sqrt(to * (1.0 - at) / at),
        "mean": means,
        "again": (np.arange(len(calls)) == 1).astype(np.float64),
    }


class SamplerState(NamedTuple):
    """What goes from one step to the next.

    Attributes:
      x: `(B, ...)` float32, the samples at the timestep of the next row; in the end x_0.
      previous: "dpmpp_2m": x0 `(B, ...)` of the step before; "pndm": (x of the step before, the three network outputs
        before `(3, B, ...)`); else None.
    """

    x: jax.Array
    previous: Any = None


@dataclasses.dataclass(frozen=True)
class Sampler:
    """A sampler, taken apart into a table, a start and a step.

    Attributes:
      name: "ddim" (Song et al. 2021; eta 0 deterministic, 1 ancestral), "dpmpp_2m" (DPM-Solver++(2M), Lu et al. 2022),
        "euler" (Euler's method for the probability-flow ODE in sigma / alpha, Karras et al. 2022), "euler_ancestral" or
        "pndm" (Liu et al. 2022, the linear multistep form; one call more than num_steps, no "sample" prediction).
        In exact arithmetic Euler's step is the DDIM step with eta 0, the ancestral one that with eta 1; "euler" and
        "euler_ancestral" differ from these in the start, scaled to sigma(t) instead of 1 unless spacing is "leading".
      prediction_type: "epsilon", "v_prediction" or "sample".
      spacing, steps_offset: see `timesteps_for`.
      eta: share of the ancestral noise, for "ddim".
      clip_x0: bound on |x0| at every step (the noise then follows from the clipped x0), or None.
      end: alphas_cumprod where the last step ends: 1 for none of the noise, or `schedule.alphas_cumprod[0]`, which
        leaves some ("set_alpha_to_one": false in diffusers).

    Raises:
      ValueError: for unknown choices, or ones that do not go together.
    """

    name: str
    prediction_type: str
    spacing: str = "trailing"
    steps_offset: int = 0
    eta: float = 0.0
    clip_x0: float | None = None
    end: float = 1.0

    def __post_init__(self):
        check_prediction_type(self.prediction_type)
        if self.name not in SAMPLERS:
            raise ValueError(f"sampler '{self.name}' is not known: choose one of {', '.join(SAMPLERS)}")
        if self.eta != 0.0 and self.name != "ddim":
            raise ValueError(f"eta is {self.eta}: only sampler 'ddim' takes one, leave it at 0 for '{self.name}'")
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"eta is {self.eta}: it must lie between 0 (deterministic) and 1 (ancestral)")
        if self.name == "pndm" and (self.prediction_type == "sample" or self.clip_x0 is not None):
            raise ValueError("sampler 'pndm' has no x0: it takes neither prediction_type 'sample' nor clip_x0")

    @property
    def draws_noise(self) -> bool:
        """Whether each step draws noise, and so needs a key."""
        return self.eta > 0.0 or self.name == "euler_ancestral"

    def table(self, schedule: NoiseSchedule, num_steps: int) -> dict[str, np.ndarray]:
        """The coefficients of all calls of the network: columns with a row for each, num_steps of them ("pndm": one
        more). Names, dtypes and what is in a row do not depend on num_steps. Computed on the host, in float64.

        Raises ValueError for a traced schedule, a num_steps that it does not hold, or "epsilon" prediction where a
        timestep has zero SNR (there the noise says nothing of x0).
        """
        if isinstance(schedule.alphas_cumprod, jax.core.Tracer):
            raise ValueError("schedule is traced: close over it as a constant instead of passing it through jit")
        timesteps = timesteps_for(schedule.num_train_timesteps, num_steps, self.spacing, self.steps_offset, self.name)
        all_alphas_cumprod = np.asarray(schedule.alphas_cumprod, np.float64)
        alphas_cumprod = _alphas_cumprod_at(all_alphas_cumprod, timesteps)
        if self.prediction_type == "epsilon" and np.any(alphas_cumprod == 0.0):
            raise ValueError(
                "prediction_type 'epsilon' cannot start from zero terminal SNR: use 'v_prediction' or 'sample',"
                " or spacing 'leading'"
            )
        if self.name == "pndm":
            if np.any(alphas_cumprod == 0.0):
                raise ValueError(
                    "sampler 'pndm' cannot start from zero terminal SNR: use another, or spacing 'leading'"
                )
            table = _pndm_table(all_alphas_cumprod, timesteps, self.end)
        else:
            alpha = np.sqrt(np.append(alphas_cumprod, self.end))
            sigma = np.sqrt(1.0 - np.append(alphas_cumprod, self.end))
            if self.name == "dpmpp_2m":
                table = _dpmpp_2m_table(alpha, sigma)
            else:
                table = _ddim_table(alpha, sigma, 1.0 if self.name == "euler_ancestral" else self.eta)
            table |= {"alpha": alpha[:-1], "sigma": sigma[:-1], "t": timesteps}
        whole = not (self.name.startswith("euler") and self.spacing == "linspace")
        t = table.pop("t").astype(np.int32 if whole else np.float32)
        columns = {name: column.astype(np.float32) for name, column in table.items()}
        return columns | {"t": t, "index": np.arange(len(t), dtype=np.int32)}

    def start(self, schedule: NoiseSchedule, x_T: jax.Array) -> SamplerState:
        """The state before the first step. x_T: `(B, ...)` standard normal noise, whatever the sampler."""
        x = jnp.asarray(x_T, jnp.float32)
        if self.name.startswith("euler") and self.spacing != "leading":
            # Both other spacings begin at the last timestep, however many steps there are.
            x *= np.sqrt(1.0 - np.asarray(schedule.alphas_cumprod, np.float64)[-1]).astype(np.float32)
        if self.name == "pndm":
            return SamplerState(x, (x, jnp.zeros((3, *x.shape))))
        return SamplerState(x, jnp.zeros_like(x) if self.name == "dpmpp_2m" else None)

    def step(
        self,
        denoise: Callable[[jax.Array, jax.Array], jax.Array],
        state: SamplerState,
        row: Mapping[str, jax.Array],
        key: jax.Array | None = None,
    ) -> SamplerState:
        """One call of the network: the state after it.

        denoise: (x_t (B, ...) float32, t (B,) as in `timesteps_for`) -> network output (B, ...), already guided.
        row: of `table`, may be traced. key: the same for all steps, needed with `draws_noise`.
        """
        x = state.x
        output = denoise(x, jnp.full((x.shape[0],), row["t"])).astype(jnp.float32)
        if self.name == "pndm":
            x_before, outputs = state.previous
            begin = jnp.where(row["again"] > 0, x_before, x)
            seen = jnp.concatenate([output[None], outputs])
            noise = jnp.tensordot(row["mean"], seen, 1)
            if self.prediction_type == "v_prediction":
                noise = row["alpha"] * noise + row["sigma"] * begin
            outputs = jnp.where(row["again"] > 0, outputs, seen[:3])
            return SamplerState(row["x"] * begin + row["e"] * noise, (begin, outputs))
        x0 = x0_from_prediction(self.prediction_type, output, x, row["alpha"], row["sigma"])
        if self.clip_x0 is not None:
            x0 = jnp.clip(x0, -self.clip_x0, self.clip_x0)
        x = row["x"] * x + row["x0"] * x0
        if self.name == "dpmpp_2m":
            x += row["previous"] * state.previous
        if self.draws_noise:
            x += row["noise"] * jax.random.normal(jax.random.fold_in(key, row["index"]), x.shape, jnp.float32)
        return SamplerState(x, x0 if self.name == "dpmpp_2m" else None)


def sample(
    denoise: Callable[[jax.Array, jax.Array], jax.Array],
    schedule: NoiseSchedule,
    x_T: jax.Array,
    num_steps: int,
    sampler: str = "ddim",
    *,
    key: jax.Array | None = None,
    **fields: Any,
) -> jax.Array:
    """Draw samples by running the diffusion backwards from noise, all steps in one `lax.scan`.

    denoise: see `Sampler.step`. schedule: a constant; x_T: (B, ...) standard normal noise. sampler: the name, fields:
    the other attributes of a `Sampler`, `prediction_type` among them. key: random key for eta > 0 and
    "euler_ancestral".

    Returns x_0 (B, ...) float32. To be called under `jax.jit`: x_T, key and all that `denoise` closes over may be
    traced; everything else is static.

    Raises ValueError as `Sampler` and `Sampler.table` do, and for a missing key.
    """
    chosen = Sampler(sampler, **fields)
    if chosen.draws_noise and key is None:
        raise ValueError(f"key is missing: sampler '{sampler}' with eta {chosen.eta} draws noise at every step")
    table = jax.tree.map(jnp.asarray, chosen.table(schedule, num_steps))

    def step(state, row):
        return chosen.step(denoise, state, row, key), None

    return jax.lax.scan(step, chosen.start(schedule, x_T), table)[0].x
