"""Image and text to video by I2VGen-XL (Zhang et al. 2023, arXiv 2311.04145): a public cascade of one stage.

The reference image enters three times: its latents are joined to the noisy latents, in the first frame as they are and
in the others as a mask of the frame's place; they are tokens of the context beside the text; and so is its CLIP
embedding.

Shapes: B videos, T frames, latents of h x w with C channels; text of L tokens with D features, and CLIP embeddings of D
features; P guidance passes.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.diffusion.samplers import SamplerState
from videogen_jax.models.i2vgen import I2VGenXLUNet, image_latents_of
from videogen_jax.models.unet import UNet
from videogen_jax.stages.latent_diffusion import repeat_batch
from videogen_jax.stages.public_video import zero_dropped
from videogen_jax.stages.reference import Prompts
from videogen_jax.stages.settings import StageSettings
from videogen_jax.stages.stage import Batch, InputSizes, Params, Spec
from videogen_jax.stages.text_to_video import TextGuided
from videogen_jax.stages.video_sampling import Encoders


class ReferenceViews(NamedTuple):
    """What the stage takes of the reference images.

    Attributes:
      embedding: their CLIP embeddings `(B, D)`.
      latents: `(B, 1, h, w, C)` of unit variance, which have the video's size.
    """

    embedding: jax.Array
    latents: jax.Array


class I2VGenInputs(NamedTuple):
    """What a batch of videos is sampled from.

    Attributes:
      context, empty: text states of the prompts `(B, L, D)` and of the empty one `(B or 1, L, D)`.
      reference: of the images.
      fps: frames a second `(B,)`.
    """

    context: jax.Array
    empty: jax.Array
    reference: ReferenceViews
    fps: jax.Array


class I2VGenConditioning(NamedTuple):
    """What the UNet takes beside the noisy latents, for N = P * B examples.

    Attributes:
      context: `(N, L, D)`.
      embedding: `(N, D)`, zeros in "uncond".
      latents: `(N, T, h, w, C)`, see `image_latents_of`; the same in all passes.
      fps: `(N,)`.
    """

    context: jax.Array
    embedding: jax.Array
    latents: jax.Array
    fps: jax.Array


@dataclasses.dataclass(frozen=True)
class I2VGenXLStage(TextGuided):
    """I2VGen-XL's UNet with its sampling.

    Attributes:
      resolution: of the shorter side of the latents of 704x1280 pixels.
      reference_dropout: share of the training examples without the image's embedding, 0 to 1; its latents stay.
    """

    resolution: int = 88
    prediction_type: str = "v_prediction"
    reference_dropout: float = 0.1
    preview_guidance_scale: float = 9.0

    unet_kind: ClassVar[type[UNet]] = I2VGenXLUNet
    square_image: ClassVar[bool] = True
    kept_parts: ClassVar[tuple[str, ...]] = (
        *("vae", "text_encoder", "tokenizer"),
        *("image_encoder", "feature_extractor"),
    )

    # Sampling: `start`, then `step` for each of `step_coeffs`.

    def scalars(self, settings: StageSettings) -> np.ndarray:
        """Frames a second that the network is given, `(1,)` float32."""
        return np.asarray([settings.conditioning_fps], np.float32)

    def encode_reference(
        self, encoders: Encoders, frames: jax.Array, size: tuple[int, int], keys: jax.Array, scalars: jax.Array
    ) -> ReferenceViews:
        """The images' embeddings and latents.

        The latents are the posterior's mean; the authors take a sample of it, which is the same but for a little noise.
        """
        del size, keys, scalars  # the latents have the video's size
        embedding = encoders.image.encode(encoders.image_params, frames[:, 0])
        return ReferenceViews(embedding, encoders.autoencoder.encode(encoders.params, frames))

    def inputs(
        self,
        prompts: Prompts,
        empty: Prompts,
        reference: ReferenceViews,
        lower: jax.Array | None,
        scalars: jax.Array,
        fps: float,
    ) -> I2VGenInputs:
        del lower, fps  # there is no stage below, and the rate is a setting
        return I2VGenInputs(
            prompts.context, empty.context, reference, jnp.broadcast_to(scalars, (len(reference.embedding),))
        )

    def start(
        self,
        keys: jax.Array,
        inputs: I2VGenInputs,
        num_frames: int,
        sampler: str,
        passes: tuple[str, ...],
        noise: jax.Array | None = None,
        size: tuple[int, int] | None = None,
    ) -> tuple[SamplerState, I2VGenConditioning]:
        """See `VideoSampling`; the conditioning has N = P * B examples."""
        del size  # the image's
        batch, (embedding, latents) = len(keys), inputs.reference
        shown = jnp.repeat(jnp.array([float(name == "full") for name in passes]), batch)  # (N,)
        texts = {"uncond": jnp.broadcast_to(inputs.empty, inputs.context.shape), "full": inputs.context}
        conditioning = I2VGenConditioning(
            context=jnp.concatenate([texts[name] for name in passes]),
            embedding=repeat_batch(embedding, len(passes)) * shown[:, None],
            latents=repeat_batch(image_latents_of(latents[:, 0], num_frames), len(passes)),
            fps=repeat_batch(inputs.fps, len(passes)),
        )
        shape = (batch, num_frames, *latents.shape[2:])
        return self.start_sampler(sampler, keys, shape, noise), conditioning

    def outputs(self, params: Params, x_t: jax.Array, t: jax.Array, conditioning: I2VGenConditioning) -> jax.Array:
        context, embedding, latents, fps = conditioning
        return self.predict(params, x_t, t, context, latents, embedding, fps)

    # Training.

    def training_inputs(self, batch: Batch, frozen: Params) -> I2VGenInputs:
        reference = ReferenceViews(batch["embedding"], batch["latents"][:, :1])
        return I2VGenInputs(batch["context"], frozen["null_context"][None], reference, batch["fps"])

    def training_conditioning(self, rng: jax.Array, batch: Batch, context: jax.Array) -> I2VGenConditioning:
        """The clip's first frame is its reference."""
        latents = batch["latents"]
        dropped = jax.random.bernoulli(rng, self.reference_dropout, (len(latents),))
        image = image_latents_of(latents[:, 0], latents.shape[1])
        return I2VGenConditioning(context, zero_dropped(batch["embedding"], dropped), image, batch["fps"])

    def init(self, rng: jax.Array, batch: Batch) -> Params:
        """Initialise the UNet for the shapes of `latents`, `context` and `embedding` in `batch`."""
        latents, context, embedding = (
            batch[name][:1].astype(jnp.float32) for name in ("latents", "context", "embedding")
        )
        inputs = (latents, jnp.zeros((1,)), context, latents, embedding, jnp.zeros((1,)))
        return {self.name: self.network.init(rng, *inputs)["params"]}

    def input_spec(self, sizes: InputSizes) -> Spec:
        return self.spec(sizes, "context", "embedding", "fps")
