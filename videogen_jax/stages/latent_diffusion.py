"""What the reference stage and the cascade have in common: training and sampling of a latent diffusion model."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.diffusion.guidance import GuidanceScales, guide
from videogen_jax.diffusion.predictions import check_prediction_type, loss_weight, target
from videogen_jax.diffusion.samplers import Sampler, SamplerState, make_sampler, sample_loop
from videogen_jax.diffusion.schedules import Schedule, make_schedule
from videogen_jax.models.unet import UNet
from videogen_jax.stages.settings import StageSettings
from videogen_jax.stages.stage import Metrics, ModelReader, Params, Spec, Stage, build_network


@dataclasses.dataclass(frozen=True)
class LatentSampling:
    """A latent diffusion model as it is sampled.

    Attributes:
      unet: fields of `UNet`.
      schedule: arguments of `make_schedule`.
      prediction_type: "epsilon", "v_prediction" or "sample".
      timestep_spacing: of the sampling steps: "trailing", "leading" or "linspace" (`timesteps.timesteps_for`).
      steps_offset: of "leading" spacing.
      set_alpha_to_one: whether the last sampling step removes all noise, or ends at the first training timestep.

    Raises:
      ValueError: a value is unknown.
    """

    unet: Mapping[str, Any]
    schedule: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"name": "scaled_linear"})
    prediction_type: str = "v_prediction"
    timestep_spacing: str = "trailing"
    steps_offset: int = 0
    set_alpha_to_one: bool = True

    unet_kind: ClassVar[type[UNet]] = UNet

    def __post_init__(self):
        check_prediction_type(self.prediction_type)

    @functools.cached_property
    def network(self) -> UNet:
        """The UNet."""
        return build_network(self.unet_kind, self.unet, f"{type(self).__name__}.unet")

    @functools.cached_property
    def noise_schedule(self) -> Schedule:
        """The noise schedule."""
        return make_schedule(**self.schedule)

    def predict(self, params: Params, *args, **kwargs) -> jax.Array:
        """Apply the UNet with its parameters `params`; float32."""
        return self.network.apply({"params": params}, *args, **kwargs).astype(jnp.float32)

    def sampler(self, name: str) -> Sampler:
        """The sampler of that name (a key of `samplers.SAMPLERS`) for this noise schedule and prediction type."""
        return make_sampler(
            name,
            self.noise_schedule,
            self.prediction_type,
            spacing=self.timestep_spacing,
            steps_offset=self.steps_offset,
            set_alpha_to_one=self.set_alpha_to_one,
        )

    def coefficients(self, settings: StageSettings) -> dict[str, np.ndarray]:
        """The sampler's coefficients of all steps; see `Sampler.coefficients`."""
        strength = 1.0 if settings.strength is None else settings.strength
        return self.sampler(settings.sampler).coefficients(settings.steps, strength)

    def step_coeffs(self, settings: StageSettings) -> list[dict[str, np.ndarray]]:
        """The sampler's coefficients, one dict for each call of the network, in order; see `Sampler.coefficients`."""
        coeffs = self.coefficients(settings)
        return [{name: values[call] for name, values in coeffs.items()} for call in range(len(coeffs["t"]))]

    def start_sampler(
        self, name: str, keys: jax.Array, shape: tuple[int, ...], noise: jax.Array | None = None
    ) -> SamplerState:
        """The state before the first step, from noise of `shape`.

        Args:
          name: of the sampler.
          keys: `(B,)`. Each example's noise comes from its own key, so its sample does not depend on the batch.
          shape: `(B, T, h, w, C)`.
          noise: standard normal noise of that shape to start from; None: drawn from `keys`.
        """
        return self.sampler(name).start(self.noise(keys, shape) if noise is None else noise)

    def noise(self, keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Standard normal noise of `shape`, `(B, ...)`, each example's from its own of `keys` `(B,)`."""
        return jax.vmap(lambda key: jax.random.normal(key, shape[1:], jnp.float32))(keys)

    def passes(self, settings: StageSettings) -> tuple[str, ...]:
        """The guidance passes that the settings need: applications of the UNet in every step."""
        raise NotImplementedError

    def scales(self, settings: StageSettings, num_frames: int) -> GuidanceScales:
        """The weights of guidance, which may differ from frame to frame."""
        raise NotImplementedError

    def outputs(self, params: Params, x_t: jax.Array, t: jax.Array, conditioning: Any) -> jax.Array:
        """Apply the UNet in all guidance passes at once.

        Args:
          params: the UNet's parameters.
          x_t: noisy latents `(N, T, h, w, C)`, the same B in each of P passes, N = P * B.
          t: timesteps `(N,)`.
          conditioning: of all passes, from `start`.

        Returns: what the UNet predicts, `(N, T, h, w, C)`.
        """
        raise NotImplementedError

    def step(
        self,
        params: Params,
        state: SamplerState,
        conditioning: Any,
        coeffs: Mapping[str, jax.Array],
        scales: GuidanceScales,
        sampler: str,
        passes: tuple[str, ...],
    ) -> SamplerState:
        """Take one sampling step: the UNet in every guidance pass, guidance, the sampler's update.

        Args:
          params: the UNet's parameters.
          state, conditioning: from `start`, or the state from the step before.
          coeffs: one of `step_coeffs`; may be traced.
          scales: weights of guidance that `passes` belong to; may be traced.
          sampler, passes: as in `start`.

        Returns:
          The next state. After the last step its `x` are latents of unit variance.
        """

        def predict(x_t: jax.Array, t: jax.Array) -> jax.Array:
            x_t, t = repeat_batch(x_t, len(passes)), repeat_batch(t, len(passes))  # the batch once for each pass
            return guide(self.outputs(params, x_t, t, conditioning), passes, scales)

        return self.sampler(sampler).step(predict, state, coeffs)

    def run_steps(
        self, params: Params, state: SamplerState, conditioning: Any, settings: StageSettings, num_frames: int
    ) -> jax.Array:
        """Take all sampling steps in one program; `settings` and `num_frames` are static. Returns the last `x`."""
        sampler, passes, scales = settings.sampler, self.passes(settings), self.scales(settings, num_frames)

        def step(state: SamplerState, coeffs: Mapping[str, jax.Array]) -> SamplerState:
            return self.step(params, state, conditioning, coeffs, scales, sampler, passes)

        return sample_loop(step, state, self.coefficients(settings)).x

    def diffusion_config(self) -> dict[str, Any]:
        """The fields that sampling needs, for the part's config.json."""
        names = ("schedule", "prediction_type", "timestep_spacing", "steps_offset", "set_alpha_to_one")
        return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True)
class LatentDiffusion(LatentSampling, Stage):
    """A latent diffusion model as it is trained, and sampled.

    Attributes:
      min_snr_gamma: min-SNR loss weighting (Hang et al. 2023), or None for uniform weights.
      timestep_logit_normal: mean and standard deviation of the logit of t / N for the training timesteps t, which
        concentrates training on them (Esser et al. 2024, section 3.1); None for uniform timesteps.
      text_dropout: share of the training examples whose prompt is replaced by the empty one, for classifier-free
        guidance, 0 to 1.
      preview_steps, preview_guidance_scale: how `sample` samples during training; see `StageSettings`.

    Raises:
      ValueError: a value is unknown or out of range.
    """

    min_snr_gamma: float | None = None
    timestep_logit_normal: tuple[float, float] | None = None
    text_dropout: float = 0.1
    preview_steps: int = 20
    preview_guidance_scale: float = 3.0

    def __post_init__(self):
        super().__post_init__()
        try:
            self.preview_settings  # noqa: B018  (checks the fields)
        except ValueError as error:
            raise ValueError(f"config.model.preview_{error}") from error

    @property
    def preview_settings(self) -> StageSettings:
        """How `sample` samples during training."""
        return StageSettings(guidance_scale=self.preview_guidance_scale, steps=self.preview_steps)

    def drop_text(self, rng: jax.Array, context: jax.Array, null_context: jax.Array) -> jax.Array:
        """Replace the context `(B, L, D)` of a random share of the examples by the empty prompt's `(L, D)`."""
        drop = jax.random.bernoulli(rng, self.text_dropout, (context.shape[0],))
        return jnp.where(drop[:, None, None], null_context, context)

    def denoising_loss(
        self,
        rng: jax.Array,
        latents: jax.Array,
        predict: Callable[[jax.Array, jax.Array], jax.Array],
        frame_weights: jax.Array | None = None,
    ) -> tuple[jax.Array, Metrics]:
        """Compute the weighted mean squared error of the prediction at random timesteps (Ho et al. 2020, eq. 14).

        Args:
          rng: for the timesteps and the noise.
          latents: clean, `(B, T, h, w, C)`, unit variance.
          predict: `(x_t (B, T, h, w, C), t (B,))` -> the prediction `(B, T, h, w, C)`.
          frame_weights: `(B, T)`, the weight of each frame in its example's mean; None: all the same.

        Returns:
          The loss, and the unweighted error `mse`, also for the halves of the batch at lower and at higher timesteps
          (`mse_low_noise`, `mse_high_noise`).

        Raises:
          ValueError: a schedule of continuous timesteps.
        """
        time_rng, noise_rng = jax.random.split(rng)
        schedule, batch = self.noise_schedule, latents.shape[0]
        # Stratified: one timestep from each of B equal parts, which leaves the expectation and lowers the variance.
        uniform = (jnp.arange(batch) + jax.random.uniform(time_rng, (batch,))) / batch
        if self.timestep_logit_normal is not None:
            mean, deviation = self.timestep_logit_normal
            uniform = jax.nn.sigmoid(mean + deviation * jax.scipy.special.ndtri(uniform))
        t = jnp.minimum(jnp.floor(uniform * schedule.num_train_timesteps), schedule.num_train_timesteps - 1)
        t = t.astype(jnp.int32)
        noise = jax.random.normal(noise_rng, latents.shape, jnp.float32)
        x_t = schedule.add_noise(latents, noise, t)
        goal = target(self.prediction_type, latents, noise, schedule.alpha(t), schedule.sigma(t))
        error = jnp.mean((predict(x_t, t).astype(jnp.float32) - goal) ** 2, axis=(2, 3, 4))
        error = jnp.average(error, axis=1, weights=frame_weights)
        weight = loss_weight(self.prediction_type, schedule.snr(t), self.min_snr_gamma)
        half = batch // 2
        metrics = {"mse": error.mean()}
        if half:
            metrics |= {"mse_low_noise": error[:half].mean(), "mse_high_noise": error[half:].mean()}
        return jnp.mean(weight * error), metrics

    def frozen_spec(self, inputs: Spec) -> Params:
        return {"null_context": jax.ShapeDtypeStruct(inputs["context"].shape, jnp.float32)}

    def load_frozen(self, model: ModelReader) -> Params:
        return {"null_context": model.null_context()}


def repeat_batch(x: jax.Array, times: int) -> jax.Array:
    """`(B, ...)` -> `(times * B, ...)`: the batch once for each guidance pass."""
    return jnp.tile(x, (times,) + (1,) * (x.ndim - 1))
