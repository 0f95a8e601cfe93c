"""The parts of public video models as the networks that the stages use."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from videogen_jax.models.vision_encoder import MEAN, STD, CLIPVisionEncoder
from videogen_jax.runtime.arrays import resize_antialiased
from videogen_jax.runtime.pillow_resize import apply_weights, pillow_weights
from videogen_jax.stages.decoder import DecoderStage
from videogen_jax.stages.i2vgen_xl import I2VGenXLStage
from videogen_jax.stages.image_to_video import ImageToVideoStage
from videogen_jax.stages.stage import InputSizes, Params, batch_spec, build_network
from videogen_jax.stages.text_to_video import TextToVideoStage
from videogen_jax.stages.video_sampling import VideoSampling
from videogen_jax.weights.diffusers_config import temporal_decoder_fields, vision_encoder_fields
from videogen_jax.weights.folder import CONFIG_NAME, load_config, load_part
from videogen_jax.weights.parts import floats, named
from videogen_jax.weights.scheduler_config import load_scheduler
from videogen_jax.weights.templates import parameter_shapes
from videogen_jax.weights.video_config import i2vgen_fields, spatio_temporal_fields, temporal_transformer_fields


class ImagePart(NamedTuple):
    """An image encoder and its parameters."""

    network: CLIPVisionEncoder
    params: Params

    def encode(self, params: Params, images: jax.Array) -> jax.Array:
        """Embed images as Stable Video Diffusion does for its cross-attention.

        Args:
          params: of the network.
          images: `(B, H, W, 3)` in [-1, 1], of any size; their shape is squeezed to a square, nothing is cut off.

        Returns:
          `(B, P)` float32, CLIP's projected embeddings, not of unit norm.
        """
        resized = resize_antialiased(images, self.network.image_size)
        normalised = ((resized + 1.0) / 2.0 - jnp.asarray(MEAN)) / jnp.asarray(STD)
        return self.network.apply({"params": params}, normalised).astype(jnp.float32)


class SquareImagePart(ImagePart):
    """An image encoder that sees the central square of an image, as in I2VGen-XL."""

    __slots__ = ()

    def encode(self, params: Params, images: jax.Array) -> jax.Array:
        """Embed the central squares of images, cut out and resized with Pillow's filters as diffusers does.

        Args:
          params: of the network.
          images: `(B, H, W, 3)` in [-1, 1], of whole pixel values.

        Returns:
          `(B, P)` float32, CLIP's projected embeddings, not of unit norm.
        """
        height, width = images.shape[1:3]
        pixels = jnp.round((images + 1.0) * 127.5)
        pixels = apply_weights(pixels, *_central_square(height, width))
        bilinear = pillow_weights(width, self.network.image_size, "bilinear")
        pixels = apply_weights(pixels, bilinear, bilinear)
        normalised = (pixels / 255.0 - jnp.asarray(MEAN)) / jnp.asarray(STD)
        return self.network.apply({"params": params}, normalised).astype(jnp.float32)


def _central_square(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The matrices `(width, H)` and `(width, W)` that cut the central square out of an image and make it `width` wide.

    The shorter side is brought to `width` with Pillow's box filter. The sizes are diffusers', which divides floats and
    rounds down, so that a side may be one short of `width`; the square is black there.
    """
    scale = min(1.0, height / width)
    cropped = []
    for side in (height, width):
        resized = round(side // scale)
        weights = pillow_weights(side, resized, "box")
        first = (resized - width) // 2
        rows = np.arange(first, first + width)
        inside = (rows >= 0) & (rows < resized)
        cropped.append(np.where(inside[:, None], weights[np.clip(rows, 0, resized - 1)], 0.0).astype(np.float32))
    return cropped[0], cropped[1]


def load_image_encoder(model_folder: str | Path, dtype: Any = None, kind: type[ImagePart] = ImagePart) -> ImagePart:
    """The CLIP image encoder in `model_folder/image_encoder` and its parameters.

    Args:
      kind: which says how images are prepared.
      dtype: name of the compute type of the network and of the parameters; None: float32.

    Raises:
      ValueError: missing, with a field that is not supported, or not fitting its weights.
    """
    folder = Path(model_folder) / "image_encoder"
    where = str(folder / CONFIG_NAME)
    fields = vision_encoder_fields(load_config(folder), where)
    network = build_network(CLIPVisionEncoder, fields | ({} if dtype is None else {"dtype": dtype}), where)
    images = floats(1, network.image_size, network.image_size, 3)
    template = named(where, parameter_shapes, network, network.init, images)["params"]
    return kind(network, load_part(folder, template, dtype))


def load_temporal_decoder_config(model_folder: str | Path, dtype: Any = None) -> DecoderStage:
    """The video decoder in Stable Video Diffusion's `model_folder/vae`, as a stage, without its parameters.

    They are those of `load_autoencoder` under "decoder". Arguments and errors as of `load_autoencoder_config`.
    """
    folder = Path(model_folder) / "vae"
    fields = temporal_decoder_fields(load_config(folder), str(folder / CONFIG_NAME))
    fields |= {} if dtype is None else {"dtype": dtype}
    return DecoderStage(decoder=fields, **DecoderStage.inference_fields)


def load_image_to_video(
    model_folder: str | Path, embedding_size: int, resolution: int, dtype: Any = None
) -> tuple[ImageToVideoStage, Params]:
    """Stable Video Diffusion's UNet and scheduler in a folder of diffusers, and the UNet's parameters.

    Args:
      embedding_size: width of the image encoder's embeddings.
      resolution: of the stage.
      dtype: as in `load_reference`.

    Raises:
      ValueError: missing, of another kind, with a field that is not supported, or not fitting its weights.
    """
    return _load_stage(ImageToVideoStage, spatio_temporal_fields, model_folder, embedding_size, resolution, dtype)


def load_text_to_video(
    model_folder: str | Path,
    context_size: int,
    resolution: int,
    dtype: Any = None,
    kind: type[TextToVideoStage] = TextToVideoStage,
) -> tuple[TextToVideoStage, Params]:
    """ModelScope's UNet and scheduler in a folder of diffusers, and the UNet's parameters.

    Args:
      context_size: width of the text states.
      resolution, dtype: as in `load_image_to_video`, as are the errors.
      kind: of the stage.
    """
    return _load_stage(kind, temporal_transformer_fields, model_folder, context_size, resolution, dtype)


def load_i2vgen_xl(
    model_folder: str | Path, context_size: int, resolution: int, dtype: Any = None
) -> tuple[I2VGenXLStage, Params]:
    """I2VGen-XL's UNet and scheduler in a folder of diffusers, and the UNet's parameters.

    Args:
      context_size: width of the text states and of the image encoder's embeddings.
      resolution, dtype: as in `load_image_to_video`, as are the errors.
    """
    return _load_stage(I2VGenXLStage, i2vgen_fields, model_folder, context_size, resolution, dtype)


def _load_stage(
    kind: type[VideoSampling],
    translate: Callable[[Mapping[str, Any], str], dict[str, Any]],
    model_folder: str | Path,
    context_size: int,
    resolution: int,
    dtype: Any,
) -> tuple[Any, Params]:
    """A stage of that kind from `unet` and `scheduler`, whose UNet's config `translate` reads, and its parameters."""
    folder = Path(model_folder) / "unet"
    where = str(folder / CONFIG_NAME)
    fields = translate(load_config(folder), where)
    if fields["cross_attention_dim"] != context_size:
        raise ValueError(
            f"{where}: the UNet attends to states of width {fields['cross_attention_dim']}, but those of the model's "
            f"encoders are {context_size} wide"
        )
    unet = fields | ({} if dtype is None else {"dtype": dtype})
    stage = kind(unet=unet, resolution=resolution, **load_scheduler(model_folder).stage_fields())
    side = 2 ** (len(fields["block_out_channels"]) - 1)
    batch = batch_spec(named(where, stage.input_spec, InputSizes(resolution=side)))
    template = named(where, parameter_shapes, stage, stage.init, batch)[stage.name]
    return stage, load_part(folder, template, dtype)
