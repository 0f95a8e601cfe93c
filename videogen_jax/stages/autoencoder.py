"""The KL autoencoder: frames to latents and back (Rombach et al. 2022), trained on single frames.

The cascade's low resolutions are latents of smaller frames from the same autoencoder, so it is trained at several
scales at once.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.models.autoencoder import AutoencoderKL
from videogen_jax.runtime.arrays import resize, to_unit
from videogen_jax.stages.frozen_autoencoder import FrozenAutoencoder
from videogen_jax.stages.stage import Batch, InputSizes, Metrics, ModelWriter, Params, Spec, Stage, build_network

CALIBRATION_FRAMES = 64  # frames whose latents set the scaling factor


@dataclasses.dataclass(frozen=True)
class AutoencoderStage(Stage):
    """Autoencoder of frames.

    Attributes:
      autoencoder: fields of `AutoencoderKL`.
      scales: pairs of a fraction of the training resolution and the number of the batch's images that are trained on at
        that scale (0: all). Small frames are cheap and teach as much, so there may be many of them.
      mse_weight: weight of the mean squared error beside the mean absolute error.
      kl_weight: weight of the KL term (per latent element) against the mean absolute error (per pixel and channel).
    """

    autoencoder: Mapping[str, Any]
    scales: tuple[tuple[float, int], ...] = ((1.0, 0),)
    mse_weight: float = 0.0
    kl_weight: float = 1e-6

    name = "autoencoder"

    @property
    def network(self) -> AutoencoderKL:
        return build_network(AutoencoderKL, self.autoencoder, "config.model.autoencoder")

    def input_spec(self, sizes: InputSizes) -> Spec:
        return {"images": jax.ShapeDtypeStruct((sizes.resolution, sizes.resolution, 3), jnp.uint8)}

    def init(self, rng: jax.Array, batch: Batch) -> Params:
        size = 2 * self.network.downsampling
        return {"vae": self.network.init(rng, jnp.zeros((1, size, size, 3)), rng)["params"]}

    def loss(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
        """batch: `images` uint8 `(B, H, W, 3)`."""
        images = to_unit(batch["images"])
        terms = []
        for i, (scale, count) in enumerate(self.scales):
            scaled = resize(images[: count or None], round(images.shape[1] * scale))
            decoded, posterior = self.network.apply({"params": params["vae"]}, scaled, jax.random.fold_in(rng, i))
            error = decoded - scaled
            mse = jnp.mean(error**2)
            terms.append((jnp.mean(jnp.abs(error)), mse, posterior.kl(), posterior.mean.std()))
        l1, mse, kl, std = (jnp.stack(values) for values in zip(*terms, strict=True))
        loss = l1.mean() + self.mse_weight * mse.mean() + self.kl_weight * kl.mean()
        psnr = {f"psnr_{scale:g}": -10.0 * jnp.log10(mse[i] / 4.0) for i, (scale, _) in enumerate(self.scales)}
        return loss, {"l1": l1.mean(), "kl": kl.mean(), "latent_std": std[0], **psnr}

    def sample(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
        images = to_unit(batch["images"])
        posterior = self.network.apply({"params": params["vae"]}, images, method="encode")
        decoded = self.network.apply({"params": params["vae"]}, posterior.mean, method="decode")
        return {"truth": images, "decoded": decoded}

    def parts(self) -> dict[str, tuple[str, dict]]:
        return {"vae": ("vae", {"_class_name": "AutoencoderKL", **self.autoencoder})}

    def export(self, params: Params, writer: ModelWriter) -> None:
        """With the factors of the latents: measured, or those of `init_from` if the encoder was not trained, since
        later stages were trained with these."""
        ((folder, config),) = self.parts().values()
        untrained = writer.untrained(params)["vae"]
        if writer.init_from is not None and all(
            jax.tree.leaves([untrained["encoder"], untrained.get("quant_conv", True)])
        ):
            before = writer.init_from.autoencoder()
            factors = {"scaling_factor": before.scaling_factor, "shift_factor": before.shift_factor}
        else:
            factors = self.latent_factors(params["vae"], writer.examples(CALIBRATION_FRAMES)["images"])
        writer.save(folder, {**config, **factors}, params["vae"])

    def latent_factors(self, params: Params, images: jax.Array) -> dict[str, float]:
        """`scaling_factor` and `shift_factor` that bring latents to zero mean and unit variance.

        Args:
          params: the autoencoder's parameters.
          images: frames uint8 `(N, H, W, 3)`; they are encoded as they are and at the scales of training.
        """
        autoencoder = FrozenAutoencoder(self.network, 1.0)
        frames = to_unit(jnp.asarray(images))
        encode = jax.jit(autoencoder.encode)
        sides = {frames.shape[1], *(round(frames.shape[1] * scale) for scale, _ in self.scales)}
        latents = [encode(params, resize(frames, side)).reshape(-1) for side in sorted(sides)]
        means, stds = zip(*((float(x.mean()), float(x.std())) for x in latents), strict=True)
        return {"scaling_factor": 1.0 / float(np.mean(stds)), "shift_factor": float(np.mean(means))}
