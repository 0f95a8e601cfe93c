"""Training straight from pictures: a stage that reads latents, behind the frozen networks that make them."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from videogen_jax.data.encoding import Encoder
from videogen_jax.stages.stage import Batch, InputSizes, Metrics, Params, Spec, Stage
from videogen_jax.stages.video_sampling import Encoders
from videogen_jax.weights.model_folder import ModelFolder


@dataclasses.dataclass(frozen=True)
class EncodedStage(Stage):
    """`stage` on batches of `video` uint8 `(B, T, H, W, 3)` and, where it reads text, `tokens` int32 `(B, L)`.

    The encoder's parameters are in `frozen["encoder"]`. Of the latents, those of the first frame are the `reference`.
    """

    stage: Stage
    encoder: Encoder

    @property
    def name(self) -> str:
        return self.stage.name

    def input_spec(self, sizes: InputSizes) -> Spec:
        inputs = self.stage.input_spec(sizes)
        encoded = {*self.encoder.resolutions, "reference", "context"}
        spec = {name: x for name, x in inputs.items() if name not in encoded}
        num_frames, side = inputs["latents"].shape[0], self.encoder.pixels
        spec["video"] = jax.ShapeDtypeStruct((num_frames, side, side, 3), jnp.uint8)
        if self.encoder.text is not None:
            spec["tokens"] = jax.ShapeDtypeStruct((self.encoder.text.tokenizer.model_max_length,), jnp.int32)
        return spec

    def init(self, rng: jax.Array, batch: Batch) -> Params:
        shapes = self.encoder.shapes(batch["video"].shape[1])
        encoded = {name: jnp.zeros((1, *shape)) for name, shape in shapes.items()}
        return self.stage.init(rng, {**batch, **encoded})

    def loss(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
        return self.stage.loss(params, frozen, self._encode(frozen, batch), rng)

    def sample(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
        return self.stage.sample(params, frozen, self._encode(frozen, batch), rng)

    def parts(self) -> dict[str, tuple[str, dict]]:
        return self.stage.parts()

    def _encode(self, frozen: Params, batch: Batch) -> dict[str, jax.Array]:
        encoded = self.encoder.encode(frozen["encoder"], batch)
        return {**batch, **encoded, "reference": encoded["latents"][:, :1]}


@dataclasses.dataclass(frozen=True)
class ReferenceEncodedStage(Stage):
    """A stage that reads an image encoder's embedding of the clip's first frame, on batches of latents alone.

    That frame is decoded from its latents. The networks' parameters are in `frozen["reference_encoders"]`.

    Attributes:
      stage: reads `embedding`, and maybe `image_latents` and `noise_aug_strength`.
      encoders: the networks, without their parameters.
    """

    stage: Stage
    encoders: Encoders

    made: ClassVar[tuple[str, ...]] = ("embedding", "image_latents", "noise_aug_strength")

    @property
    def name(self) -> str:
        return self.stage.name

    def input_spec(self, sizes: InputSizes) -> Spec:
        return {name: x for name, x in self.stage.input_spec(sizes).items() if name not in self.made}

    def init(self, rng: jax.Array, batch: Batch) -> Params:
        width = self.encoders.image.network.projection_dim
        return self.stage.init(rng, {**batch, "embedding": jnp.zeros((1, width))})

    def loss(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
        own, rng = jax.random.split(rng)
        return self.stage.loss(params, frozen, self._encode(frozen, batch, own), rng)

    def sample(self, params: Params, frozen: Params, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
        own, rng = jax.random.split(rng)
        return self.stage.sample(params, frozen, self._encode(frozen, batch, own), rng)

    def parts(self) -> dict[str, tuple[str, dict]]:
        return self.stage.parts()

    def _encode(self, frozen: Params, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
        params, (autoencoder, _, image, _) = frozen["reference_encoders"], self.encoders
        frames = autoencoder.decode(params["vae"], batch["latents"][:, :1].astype(jnp.float32))
        frames = jnp.clip(frames, -1.0, 1.0)
        made = {"embedding": image.encode(params["image_encoder"], frames[:, 0])}
        if "image_latents" in self.stage.input_spec(InputSizes()):
            strength_rng, noise_rng = jax.random.split(rng)
            strength = self.stage.noise_strength(strength_rng, len(frames))
            noise = jax.random.normal(noise_rng, frames.shape)
            noised = frames + strength[:, None, None, None, None] * noise
            made |= {"image_latents": autoencoder.encode_unscaled(params["vae"], noised)}
            made |= {"noise_aug_strength": strength}
        return {**batch, **made}


def with_reference_encoders(stage: Stage, model: ModelFolder) -> tuple[Stage, Params]:
    """A stage as it is trained, and the parameters that this adds to the frozen ones: nothing for most stages.

    Raises:
      ValueError: the stage reads embeddings of images, but the model has no image encoder.
    """
    if "embedding" not in stage.input_spec(InputSizes()):
        return stage, {}
    image = model.image_encoder(square=stage.square_image)
    params = {"vae": model.autoencoder_params, "image_encoder": image.params}
    encoders = Encoders(model.autoencoder(), None, image._replace(params=None))
    return ReferenceEncodedStage(stage, encoders), {"reference_encoders": params}
