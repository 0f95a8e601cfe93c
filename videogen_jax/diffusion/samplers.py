"""Samplers as one `lax.scan` over precomputed coefficients.

Every sampler here moves from timestep t to the next lower one by a linear rule in the variance-preserving space,

    x <- c_x * x + c_x0 * x0(t) + c_previous * x0(t of the step before) + c_noise * z,

so a sampler is a table of coefficients. All stay finite at zero terminal SNR (alpha = 0 at the first step), where the
forms in sigma / alpha or log-SNR found elsewhere divide by zero. The tables are computed in float64.
"""

from collections.abc import Callable

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


def _check(
    schedule: NoiseSchedule,
    sampler: str,
    prediction_type: str,
    eta: float,
    key: jax.Array | None,
    clip_x0: float | None,
) -> None:
    check_prediction_type(prediction_type)
    if isinstance(schedule.alphas_cumprod, jax.core.Tracer):
        raise ValueError("schedule is traced: close over it as a constant instead of passing it through jit")
    if eta != 0.0 and sampler != "ddim":
        raise ValueError(f"eta is {eta}: only sampler 'ddim' takes one, leave it at 0 for '{sampler}'")
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta is {eta}: it must lie between 0 (deterministic) and 1 (ancestral)")
    if sampler == "pndm" and (prediction_type == "sample" or clip_x0 is not None):
        raise ValueError("sampler 'pndm' has no x0: it takes neither prediction_type 'sample' nor clip_x0")
    if (eta > 0.0 or sampler == "euler_ancestral") and key is None:
        raise ValueError(f"key is missing: sampler '{sampler}' with eta {eta} draws noise at every step")


def sample(
    denoise: Callable[[jax.Array, jax.Array], jax.Array],
    schedule: NoiseSchedule,
    x_T: jax.Array,
    num_steps: int,
    sampler: str = "ddim",
    *,
    prediction_type: str,
    spacing: str = "trailing",
    eta: float = 0.0,
    key: jax.Array | None = None,
    clip_x0: float | None = None,
    steps_offset: int = 0,
    end: float = 1.0,
    on_step: Callable[[int], None] | None = None,
) -> jax.Array:
    """Draw samples by running the diffusion backwards from noise.

    denoise: (x_t (B, ...) float32, t (B,) as in `timesteps_for`) -> network output (B, ...), already guided.
    schedule: a constant; x_T: (B, ...) standard normal noise, whatever the sampler.
    sampler: "ddim" (Song et al. 2021; eta 0 deterministic, 1 ancestral), "dpmpp_2m" (DPM-Solver++(2M), Lu et al. 2022),
    "euler" (Euler's method for the probability-flow ODE in sigma / alpha, Karras et al. 2022), "euler_ancestral" or
    "pndm" (Liu et al. 2022, the linear multistep form; one call more than num_steps, no "sample" prediction).
    In exact arithmetic Euler's step is the DDIM step with eta 0, the ancestral one that with eta 1; "euler" and
    "euler_ancestral" differ from these in the start, scaled to sigma(t) instead of 1 unless spacing is "leading".
    prediction_type: "epsilon", "v_prediction" or "sample". spacing, steps_offset: see `timesteps_for`.
    key: random key for eta > 0 and "euler_ancestral". clip_x0: bound on |x0| at every step (the noise then follows from
    the clipped x0), or None. end: alphas_cumprod where the last step ends: 1 for none of the noise, or
    `schedule.alphas_cumprod[0]`, which leaves some ("set_alpha_to_one": false in diffusers). on_step: called on the
    host with the index 0 ... num_steps - 1 of each finished step.

    Returns x_0 (B, ...) float32. To be called under `jax.jit`: x_T, key and all that `denoise` closes over may be
    traced; everything else is static.

    Raises ValueError for unknown choices, a traced schedule, a missing key, or "epsilon" prediction where a timestep
    has zero SNR (there the noise says nothing of x0).
    """
    _check(schedule, sampler, prediction_type, eta, key, clip_x0)
    timesteps = timesteps_for(schedule.num_train_timesteps, num_steps, spacing, steps_offset, sampler)
    all_alphas_cumprod = np.asarray(schedule.alphas_cumprod, np.float64)
    alphas_cumprod = _alphas_cumprod_at(all_alphas_cumprod, timesteps)
    if prediction_type == "epsilon" and np.any(alphas_cumprod == 0.0):
        raise ValueError(
            "prediction_type 'epsilon' cannot start from zero terminal SNR: use 'v_prediction' or 'sample',"
            " or spacing 'leading'"
        )
    if sampler == "pndm":
        if np.any(alphas_cumprod == 0.0):
            raise ValueError("sampler 'pndm' cannot start from zero terminal SNR: use another, or spacing 'leading'")
        return _pndm(denoise, _pndm_table(all_alphas_cumprod, timesteps, end), x_T, prediction_type, on_step)
    alpha = np.sqrt(np.append(alphas_cumprod, end))
    sigma = np.sqrt(1.0 - np.append(alphas_cumprod, end))
    if sampler == "dpmpp_2m":
        table = _dpmpp_2m_table(alpha, sigma)
    else:
        table = _ddim_table(alpha, sigma, 1.0 if sampler == "euler_ancestral" else eta)
    draws_noise = bool(np.any(table["noise"] > 0.0))
    table |= {"alpha": alpha[:-1], "sigma": sigma[:-1]}
    steps = {name: jnp.asarray(column, jnp.float32) for name, column in table.items()}
    steps |= {"t": jnp.asarray(timesteps), "index": jnp.arange(num_steps, dtype=jnp.int32)}

    def step(carry, at):
        x, x0_previous = carry
        output = denoise(x, jnp.full((x.shape[0],), at["t"])).astype(jnp.float32)
        x0 = x0_from_prediction(prediction_type, output, x, at["alpha"], at["sigma"])
        if clip_x0 is not None:
            x0 = jnp.clip(x0, -clip_x0, clip_x0)
        x = at["x"] * x + at["x0"] * x0
        if sampler == "dpmpp_2m":
            x += at["previous"] * x0_previous
        if draws_noise:
            x += at["noise"] * jax.random.normal(jax.random.fold_in(key, at["index"]), x.shape, jnp.float32)
        x = _reported(on_step, x, at["index"])
        return (x, x0 if sampler == "dpmpp_2m" else None), None

    x = jnp.asarray(x_T, jnp.float32)
    if sampler.startswith("euler") and spacing != "leading":
        x *= sigma[0].astype(np.float32)
    (x, _), _ = jax.lax.scan(step, (x, jnp.zeros_like(x) if sampler == "dpmpp_2m" else None), steps)
    return x


def _pndm(denoise: Callable, table: dict[str, np.ndarray], x_T: jax.Array, prediction_type: str, on_step) -> jax.Array:
    """The steps of `_pndm_table`. on_step hears of the first step twice, as the network is called."""
    calls = {name: jnp.asarray(column, jnp.float32) for name, column in table.items() if name != "t"}
    calls |= {"t": jnp.asarray(table["t"]), "index": jnp.maximum(jnp.arange(len(table["t"])) - 1, 0)}

    def call(carry, at):
        x, x_before, outputs = carry
        output = denoise(x, jnp.full((x.shape[0],), at["t"])).astype(jnp.float32)
        begin = jnp.where(at["again"] > 0, x_before, x)
        seen = jnp.concatenate([output[None], outputs])
        noise = jnp.tensordot(at["mean"], seen, 1)
        if prediction_type == "v_prediction":
            noise = at["alpha"] * noise + at["sigma"] * begin
        outputs = jnp.where(at["again"] > 0, outputs, seen[:3])
        return (_reported(on_step, at["x"] * begin + at["e"] * noise, at["index"]), begin, outputs), None

    x = jnp.asarray(x_T, jnp.float32)
    (x, _, _), _ = jax.lax.scan(call, (x, x, jnp.zeros((3, *x.shape))), calls)
    return x


def _reported(on_step: Callable[[int], None] | None, x: jax.Array, index: jax.Array) -> jax.Array:
    """x; on_step is told of the index once x is there."""
    if on_step is None:
        return x
    # The barrier ties the report to the step's result, so that it is not sent ahead of the work.
    x, index = jax.lax.optimization_barrier((x, index))
    jax.debug.callback(lambda i: on_step(int(i)), index)
    return x
