"""The video decoder: latents to frames with temporal layers, trained on video without text (VideoGen, section 3.4)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from videogen_jax.models.autoencoder import TemporalDecoder, inflate_decoder
from videogen_jax.models.discriminator import VideoDiscriminator
from videogen_jax.models.vgg import VGG16Features, perceptual_distance
from videogen_jax.runtime.arrays import to_unit
from videogen_jax.stages.stage import Batch, Metrics, Params, build_network


@dataclasses.dataclass(frozen=True)
class DecoderStage:
    """Video decoder, trained against a discriminator.

    Attributes:
      decoder: fields of `TemporalDecoder`.
      discriminator: fields of `VideoDiscriminator`.
      difference_weight: weight of the mean squared error of the differences between neighbouring frames, which is what
        flickers, against the mean absolute error of the frames.
      perceptual_weight: weight of the perceptual term; it needs VGG-16 weights in `frozen["vgg"]`.
      adversarial_weight: weight of the hinge term; 0 leaves the discriminator out of the decoder's loss.
      latent_noise: standard deviation of the noise added to the latents in training (unit variance), so that the
        decoder bears the small errors of generated latents.
    """

    decoder: Mapping[str, Any]
    discriminator: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    difference_weight: float = 10.0
    perceptual_weight: float = 0.0
    adversarial_weight: float = 0.05
    latent_noise: float = 0.0

    @property
    def network(self) -> TemporalDecoder:
        return build_network(TemporalDecoder, self.decoder, "config.model.decoder")

    @property
    def critic(self) -> VideoDiscriminator:
        return build_network(VideoDiscriminator, self.discriminator, "config.model.discriminator")

    def init(self, rng: jax.Array, batch: Batch) -> Params:
        decoder_rng, critic_rng = jax.random.split(rng)
        latents = jnp.zeros((1, *batch["latents"].shape[1:]))
        params = {"video_decoder": self.network.init(decoder_rng, latents)["params"]}
        if self.adversarial_weight:
            video = jnp.zeros((1, *batch["video"].shape[1:]))
            params["discriminator"] = self.critic.init(critic_rng, video)["params"]
        return params

    def start_from_autoencoder(self, params: Params, autoencoder: Params) -> Params:
        """`params` with the decoder's spatial layers taken from an image autoencoder."""
        return {**params, "video_decoder": inflate_decoder(autoencoder, params["video_decoder"])}

    def decode(self, params: Params, latents: jax.Array) -> jax.Array:
        """Unscaled latents `(B, T, h, w, C)` -> frames `(B, T, H, W, 3)` float32 in [-1, 1] (not clipped)."""
        return self.network.apply({"params": params}, latents).astype(jnp.float32)

    def loss(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
        """The decoder's and the discriminator's losses in one scalar; stop_gradient keeps the two apart.

        batch: `latents` `(B, T, h, w, C)` of unit variance, `video` uint8 `(B, T, H, W, 3)`. frozen: `scaling_factor`
        and `shift_factor` of the autoencoder; `vgg`, if the perceptual term is on.
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
            judged = self.critic.apply({"params": stop_gradient(critic)}, decoded)
            metrics["adversarial"] = -sum(logits.mean() for logits in judged.values())
            total += self.adversarial_weight * metrics["adversarial"]
            real = self.critic.apply({"params": critic}, truth)
            fake = self.critic.apply({"params": critic}, stop_gradient(decoded))
            metrics["discriminator"] = sum(hinge(real[head], fake[head]) for head in real)
            total += metrics["discriminator"]
        return total, metrics

    def sample(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
        """The latents too, which are shown as the image decoder sees them."""
        latents = batch["latents"].astype(jnp.float32)
        decoded = self.decode(params["video_decoder"], latents / frozen["scaling_factor"] + frozen["shift_factor"])
        return {"truth": to_unit(batch["video"]), "decoded": decoded, "image decoder": latents}

    def parts(self) -> dict[str, tuple[str, dict]]:
        return {"video_decoder": ("video_decoder", {"_class_name": "DecoderStage", "decoder": self.decoder})}


def hinge(real: jax.Array, fake: jax.Array) -> jax.Array:
    """The discriminator's hinge loss (Lim and Ye 2017, eq. 12)."""
    return jnp.mean(nn.relu(1.0 - real)) + jnp.mean(nn.relu(1.0 + fake))
