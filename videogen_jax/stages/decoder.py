"""The video decoder: latents to frames with temporal layers, trained on video without text (VideoGen, section 3.4)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient

from videogen_jax.models.autoencoder import AutoencoderKLTemporalDecoder, TemporalDecoder, inflate_decoder
from videogen_jax.models.discriminator import VideoDiscriminator
from videogen_jax.models.vgg import VGG16Features, perceptual_distance
from videogen_jax.runtime.arrays import to_unit
from videogen_jax.stages.stage import Batch, InputSizes, Metrics, ModelReader, Params, Spec, Stage, build_network


@dataclasses.dataclass(frozen=True)
class DecoderStage(Stage):
    """Video decoder, trained against a discriminator.

    Attributes:
      decoder: fields of `TemporalDecoder`.
      discriminator: fields of `VideoDiscriminator`.
      difference_weight: weight of the mean squared error of the differences between neighbouring frames (flicker)
        against the mean absolute error of the frames.
      perceptual_weight: weight of the perceptual term; above 0 it needs VGG-16's weights, `config.perceptual_weights`.
      adversarial_weight: weight of the hinge term; 0 trains without a discriminator.
      latent_noise: standard deviation of the noise added to the latents in training (unit variance), which makes the
        decoder robust to small errors of generated latents.
    """

    decoder: Mapping[str, Any]
    discriminator: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    difference_weight: float = 10.0
    perceptual_weight: float = 0.0
    adversarial_weight: float = 0.05
    latent_noise: float = 0.0

    name = "decoder"
    inference_fields: ClassVar[Mapping[str, Any]] = {"adversarial_weight": 0.0}  # no discriminator

    @property
    def network(self) -> TemporalDecoder:
        return build_network(TemporalDecoder, self.decoder, "config.model.decoder")

    @property
    def critic(self) -> VideoDiscriminator:
        return build_network(VideoDiscriminator, self.discriminator, "config.model.discriminator")

    def input_spec(self, sizes: InputSizes) -> Spec:
        side = sizes.resolution * 2 ** (len(self.network.block_out_channels) - 1)
        return {
            "latents": jax.ShapeDtypeStruct(
                (sizes.num_frames, sizes.resolution, sizes.resolution, sizes.latent_channels), jnp.float16
            ),
            "video": jax.ShapeDtypeStruct((sizes.num_frames, side, side, 3), jnp.uint8),
        }

    def init(self, rng: jax.Array, batch: Batch) -> Params:
        decoder_rng, critic_rng = jax.random.split(rng)
        latents = jnp.zeros((1, *batch["latents"].shape[1:]))
        params = {"video_decoder": self.network.init(decoder_rng, latents)["params"]}
        if self.adversarial_weight:
            video = jnp.zeros((1, *batch["video"].shape[1:]))
            params["discriminator"] = self.critic.init(critic_rng, video)["params"]
        return params

    def frozen_spec(self, inputs: Spec) -> Params:
        del inputs
        spec: dict[str, Any] = {
            name: jax.ShapeDtypeStruct((), jnp.float32) for name in ("scaling_factor", "shift_factor")
        }
        if self.perceptual_weight:
            images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
            spec["vgg"] = jax.eval_shape(VGG16Features().init, jax.random.key(0), images)["params"]
        return spec

    def load_frozen(self, model: ModelReader) -> Params:
        autoencoder = model.autoencoder()
        frozen: dict[str, Any] = {
            "scaling_factor": np.float32(autoencoder.scaling_factor),
            "shift_factor": np.float32(autoencoder.shift_factor),
        }
        if self.perceptual_weight:
            if not model.perceptual_weights:
                raise ValueError(
                    "config.model.perceptual_weight is on: set config.perceptual_weights to a folder with the "
                    "safetensors of torchvision's VGG-16 features, or config.model.perceptual_weight to 0"
                )
            frozen["vgg"] = model.perceptual_params(self.frozen_spec({})["vgg"])
        return frozen

    def warm_start(self, fresh: Params, model: ModelReader, init_from: ModelReader | None) -> Params:
        """From `init_from`: this stage, or Stable Video Diffusion's decoder; else from the model's image decoder.

        A model with Stable Video Diffusion's autoencoder has no image decoder, and is its own `init_from`.
        """
        if init_from is None and isinstance(model.autoencoder().network, AutoencoderKLTemporalDecoder):
            return {**fresh, "video_decoder": model.part("vae", fresh["video_decoder"])}
        if init_from is None:
            return {**fresh, "video_decoder": inflate_decoder(model.autoencoder_params, fresh["video_decoder"])}
        folder = "video_decoder" if init_from.has("video_decoder") else "vae"
        return {**fresh, "video_decoder": init_from.part(folder, fresh["video_decoder"])}

    def decode(self, params: Params, latents: jax.Array) -> jax.Array:
        """Unscaled latents `(B, T, h, w, C)` -> frames `(B, T, H, W, 3)` float32 in [-1, 1] (not clipped)."""
        return self.network.apply({"params": params}, latents).astype(jnp.float32)

    def loss(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
        """The decoder's and the discriminator's losses in one scalar; stop_gradient separates the two.

        Args:
          frozen: `scaling_factor` and `shift_factor` of the autoencoder; `vgg`, if the perceptual term is on.
          batch: `latents` `(B, T, h, w, C)` of unit variance, `video` uint8 `(B, T, H, W, 3)`.
        """
        truth, latents = to_unit(batch["video"]), batch["latents"].astype(jnp.float32)
        latents = latents + self.latent_noise * jax.random.normal(rng, latents.shape)
        decoded = self.decode(params["video_decoder"], latents / frozen["scaling_factor"] + frozen["shift_factor"])
        error = decoded - truth
        l1 = jnp.mean(jnp.abs(error))
        difference = jnp.mean(jnp.diff(error, axis=1) ** 2)
        psnr = -10.0 * jnp.log10(jnp.mean(error**2) / 4.0)
        total = l1 + self.difference_weight * difference
        metrics = {"l1": l1, "difference": difference, "psnr": psnr}
        if self.perceptual_weight:
            vgg = VGG16Features()
            maps = [vgg.apply({"params": frozen["vgg"]}, x.reshape(-1, *x.shape[2:])) for x in (decoded, truth)]
            metrics["perceptual"] = perceptual_distance(*maps)
            total += self.perceptual_weight * metrics["perceptual"]
        if self.adversarial_weight:
            critic = params["discriminator"]
            scores = self.critic.apply({"params": stop_gradient(critic)}, decoded)
            metrics["adversarial"] = -sum(logits.mean() for logits in scores.values())
            total += self.adversarial_weight * metrics["adversarial"]
            real = self.critic.apply({"params": critic}, truth)
            fake = self.critic.apply({"params": critic}, stop_gradient(decoded))
            metrics["discriminator"] = sum(hinge(real[head], fake[head]) for head in real)
            total += metrics["discriminator"]
        return total, metrics

    def sample(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
        """The latents are among the results: decoded by the image decoder, they are what to compare with."""
        latents = batch["latents"].astype(jnp.float32)
        decoded = self.decode(params["video_decoder"], latents / frozen["scaling_factor"] + frozen["shift_factor"])
        return {"truth": to_unit(batch["video"]), "decoded": decoded, "image decoder": latents}

    def parts(self) -> dict[str, tuple[str, dict]]:
        return {"video_decoder": ("video_decoder", {"_class_name": "DecoderStage", "decoder": self.decoder})}


def hinge(real: jax.Array, fake: jax.Array) -> jax.Array:
    """The discriminator's hinge loss (Lim and Ye 2017, eq. 12)."""
    return jnp.mean(nn.relu(1.0 - real)) + jnp.mean(nn.relu(1.0 + fake))
