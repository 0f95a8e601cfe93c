"""The parts of public video models as the networks that the stages use."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from videogen_jax.models.vision_encoder import MEAN, STD, CLIPVisionEncoder
from videogen_jax.runtime.arrays import resize_antialiased
from videogen_jax.stages.decoder import DecoderStage
from videogen_jax.stages.image_to_video import ImageToVideoStage
from videogen_jax.stages.stage import InputSizes, Params, batch_spec, build_network
from videogen_jax.weights.diffusers_config import (
    spatio_temporal_fields,
    temporal_decoder_fields,
    vision_encoder_fields,
)
from videogen_jax.weights.folder import CONFIG_NAME, load_config, load_part
from videogen_jax.weights.parts import floats, load_scheduler, named
from videogen_jax.weights.templates import parameter_shapes


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


def load_image_encoder(model_folder: str | Path, dtype: Any = None) -> ImagePart:
    """The CLIP image encoder in `model_folder/image_encoder` and its parameters.

    Args:
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
    return ImagePart(network, load_part(folder, template, dtype))


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
    folder = Path(model_folder) / "unet"
    where = str(folder / CONFIG_NAME)
    fields = spatio_temporal_fields(load_config(folder), where)
    scheduler = load_scheduler(model_folder)
    stage = ImageToVideoStage(
        unet=fields | ({} if dtype is None else {"dtype": dtype}),
        schedule=scheduler.schedule,
        prediction_type=scheduler.prediction_type,
        timestep_spacing=scheduler.timestep_spacing,
        steps_offset=scheduler.steps_offset,
        resolution=resolution,
    )
    if fields["cross_attention_dim"] != embedding_size:
        raise ValueError(
            f"{where}: the UNet attends to embeddings of width {fields['cross_attention_dim']}, but those of the image "
            f"encoder are {embedding_size} wide"
        )
    batch = batch_spec(named(where, stage.input_spec, InputSizes(resolution=2 ** len(fields["block_out_channels"]))))
    template = named(where, parameter_shapes, stage, stage.init, batch)[stage.name]
    return stage, load_part(folder, template, dtype)
