"""What the reference stage and the cascade have in common: denoising of latents with text, learned and sampled."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from videogen_jax.diffusion.predictions import check_prediction_type, loss_weight, target
from videogen_jax.diffusion.samplers import Sampler, SamplerState
from videogen_jax.diffusion.schedules import NoiseSchedule, make_schedule
from videogen_jax.models.unet import UNet
from videogen_jax.stages.stage import Metrics, ModelReader, Params, Spec, Stage, build_network


@dataclasses.dataclass(frozen=True)
class LatentDiffusion(Stage):
    """Settings of a latent diffusion model.

    Attributes:
      unet: fields of `UNet`.
      schedule: arguments of `make_schedule`.
      prediction_type: "epsilon", "v_prediction" or "sample".
      min_snr_gamma: min-SNR loss weighting (Hang et al. 2023), or None for uniform weights.
      timestep_logit_normal: mean and standard deviation of the logit of the training timesteps (as a share of all), by
        which training dwells where it matters (Esser et al. 2024, section 3.1); None for uniform timesteps.
      text_dropout: share of training examples that see the empty prompt, for classifier-free guidance.
      timestep_spacing: of the sampler's steps: "trailing", "leading" or "linspace".
      steps_offset: of "leading" spacing.
      set_alpha_to_one: whether a sampler's last step takes off all of the noise, or ends at the first timestep.
    """

    unet: Mapping[str, Any]
    schedule: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"name": "scaled_linear"})
    prediction_type: str = "v_prediction"
    min_snr_gamma: float | None = None
    timestep_logit_normal: tuple[float, float] | None = None
    text_dropout: float = 0.1
    timestep_spacing: str = "trailing"
    steps_offset: int = 0
    set_alpha_to_one: bool = True

    def __post_init__(self):
        check_prediction_type(self.prediction_type)

    @functools.cached_property
    def network(self) -> UNet:
        return build_network(UNet, self.unet, f"{type(self).__name__}.unet")

    @functools.cached_property
    def noise_schedule(self) -> NoiseSchedule:
        return make_schedule(**self.schedule)

    def drop_text(self, rng: jax.Array, context: jax.Array, null_context: jax.Array) -> jax.Array:
        """Replaces the context `(B, L, D)` of a random share of the examples by the empty prompt's `(L, D)`."""
        drop = jax.random.bernoulli(rng, self.text_dropout, (context.shape[0],))
        return jnp.where(drop[:, None, None], null_context, context)

    def denoising_loss(
        self,
        rng: jax.Array,
        latents: jax.Array,
        predict: Callable[[jax.Array, jax.Array], jax.Array],
        frame_weights: jax.Array | None = None,
    ) -> tuple[jax.Array, Metrics]:
        """Weighted mean squared error of the prediction at random timesteps (Ho et al. 2020, eq. 14).

        The metrics `mse_low_noise` and `mse_high_noise` are of the half of the batch at lower and at higher timesteps.

        Args:
          latents: clean, `(B, T, h, w, C)`, unit variance.
          predict: `(x_t, timesteps (B,)) -> ` prediction of the same shape.
          frame_weights: `(B, T)`, what each frame counts in its example's mean; None: all the same.
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

    def sampler(self, name: str) -> Sampler:
        """The sampler of that name (`samplers.SAMPLERS`) for what the network predicts."""
        end = 1.0 if self.set_alpha_to_one else float(self.noise_schedule.alphas_cumprod[0])
        return Sampler(name, self.prediction_type, self.timestep_spacing, self.steps_offset, end=end)

    def start_sampler(self, name: str, rng: jax.Array, shape: tuple[int, ...]) -> SamplerState:
        """Noise of `shape`; each example has that of its own key, so a batch gives what singles give.

        rng: `(B,)` keys, one an example.
        """
        x_T = jax.vmap(lambda key: jax.random.normal(key, shape[1:], jnp.float32))(rng)
        return self.sampler(name).start(self.noise_schedule, x_T)

    def run_sampler(
        self,
        name: str,
        num_steps: int,
        state: SamplerState,
        step: Callable[[SamplerState, Mapping[str, jax.Array]], SamplerState],
    ) -> SamplerState:
        """All steps as one `lax.scan`. step: the state after the row of the sampler's table that it is given."""
        table = jax.tree.map(jnp.asarray, self.sampler(name).table(self.noise_schedule, num_steps))
        return jax.lax.scan(lambda state, row: (step(state, row), None), state, table)[0]

    def diffusion_config(self) -> dict[str, Any]:
        """The settings that a sampler needs, for the part's config.json."""
        names = ("schedule", "prediction_type", "timestep_spacing", "steps_offset", "set_alpha_to_one")
        return {name: getattr(self, name) for name in names}

    def predict(self, params: Params, *args, **kwargs) -> jax.Array:
        """The UNet applied: `params` is its parameter tree."""
        return self.network.apply({"params": params}, *args, **kwargs).astype(jnp.float32)

    def frozen_spec(self, inputs: Spec) -> Params:
        return {"null_context": jax.ShapeDtypeStruct(inputs["context"].shape, jnp.float32)}

    def load_frozen(self, model: ModelReader) -> Params:
        return {"null_context": model.null_context()}


def repeat_batch(x: jax.Array, times: int) -> jax.Array:
    """`(B, ...)` -> `(times * B, ...)`: the batch once for each branch of guidance."""
    return jnp.tile(x, (times,) + (1,) * (x.ndim - 1))
