"""The parts of a model, loaded: a function for each kind of model index."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from absl import logging

from videogen_jax.sampling.text_to_image import TEXT, TextToImage
from videogen_jax.stages import sparse_control
from videogen_jax.stages.cascade import CascadeStage
from videogen_jax.stages.decoder import DecoderStage
from videogen_jax.stages.frozen_autoencoder import FrozenAutoencoder
from videogen_jax.stages.stage import Params
from videogen_jax.stages.temporal import TemporalStage
from videogen_jax.stages.text_to_video import TextToVideoStage, VideoToVideoStage
from videogen_jax.stages.video_sampling import VideoSampling
from videogen_jax.weights.animatediff import AnimateDiffIndex, PIAIndex, SparseControlIndex
from videogen_jax.weights.model_index import DECODER, IMAGE_ENCODER, REFERENCE, UNET, UPSAMPLER, VAE, ModelIndex
from videogen_jax.weights.motion_adapter import add_motion, build_motion_stage, load_motion, load_sparse_control
from videogen_jax.weights.parts import TextPart, load_autoencoder, load_stage, load_text_encoder
from videogen_jax.weights.public_parts import (
    ImagePart,
    SquareImagePart,
    load_i2vgen_xl,
    load_image_encoder,
    load_image_to_video,
    load_temporal_decoder_config,
    load_text_to_video,
)
from videogen_jax.weights.public_video import I2VGenXLIndex, StableVideoDiffusionIndex, TextToVideoIndex


class Parts(NamedTuple):
    """The parts of a model; those that it lacks are None.

    Attributes:
      text: tokenizer and encoder of what the cascade reads; None for a model that reads no text.
      autoencoder: of the latents.
      reference: the text-to-image model that draws reference images.
      cascade: the stages that make videos, from the lowest resolution up; of a public model one.
      temporal: puts frames between the frames.
      decoder: the video decoder.
      params: the parameters of each part, on the device, by the part's folder; under "reference" those of all parts of
        the text-to-image model.
      image_encoder: of a public model that reads an embedding of the reference image.
    """

    text: TextPart | None
    autoencoder: FrozenAutoencoder
    reference: TextToImage | None
    cascade: tuple[VideoSampling, ...]
    temporal: TemporalStage | None
    decoder: DecoderStage | None
    params: dict[str, Params]
    image_encoder: ImagePart | None = None


def load_parts(index: ModelIndex, dtype: str) -> Parts:
    """Load the parts of a model.

    Args:
      index: what its folder says of itself.
      dtype: in which the networks compute.

    Raises:
      ValueError: a part is missing, of another kind, or does not fit its weights or its neighbours.
    """
    return _LOADERS[type(index)](index, dtype)


def _videogen(index: ModelIndex, dtype: str) -> Parts:
    """Load a model that was trained here."""
    text = load_text_encoder(index.folder, dtype)
    autoencoder, vae_params = load_autoencoder(index.folder, dtype)
    channels, width = autoencoder.network.latent_channels, text.network.hidden_size
    params = {TEXT[0]: text.params, VAE: vae_params}

    def load(part: str, kind: type, without: str = "") -> Any:
        if without and not index.has(part):
            logging.warning("The model has no %s: %s", part, without)
            return None
        stage, params[part] = load_stage(index.folder / part, kind, channels, width, dtype)
        return stage

    reference = None
    if index.reference_folder is not None:
        reference, params[REFERENCE] = TextToImage.from_pretrained(index.reference_folder, dtype)
    elif index.has(UNET):
        shared = {"text": text, "autoencoder": (autoencoder, vae_params)}
        reference, parts = TextToImage.from_pretrained(index.folder, dtype, **shared)
        params[REFERENCE] = {UNET: parts[UNET]}
    else:
        logging.warning("The model has no %s: a reference image has to be given", UNET)
    cascade = tuple(load(part, CascadeStage) for part in index.cascade)
    temporal = load(UPSAMPLER, TemporalStage, "videos stay at the base frame rate")
    decoder = load(DECODER, DecoderStage, "frames are decoded one by one, by the image decoder")
    _check_cascade(index, cascade)
    params = jax.device_put(params)
    if reference is not None and index.reference_folder is None:
        params[REFERENCE] |= {part: params[part] for part in (TEXT[0], VAE)}
    return Parts(text._replace(params=None), autoencoder, reference, cascade, temporal, decoder, params)


def _stable_video_diffusion(index: StableVideoDiffusionIndex, dtype: str) -> Parts:
    """Load Stable Video Diffusion, and the text-to-image model that draws for it if there is one."""
    reference, params = None, {}
    if index.reference_folder is not None:
        reference, params[REFERENCE] = TextToImage.from_pretrained(index.reference_folder, dtype)
    image_encoder = load_image_encoder(index.folder, dtype)
    autoencoder, params[VAE] = load_autoencoder(index.folder, dtype)
    (name,) = index.cascade
    resolution = index.resolution // autoencoder.network.downsampling
    width = image_encoder.network.projection_dim
    stage, params[name] = load_image_to_video(index.folder, width, resolution, dtype)
    params[IMAGE_ENCODER] = image_encoder.params
    params = jax.device_put(params)
    params[DECODER] = params[VAE]["decoder"]
    return Parts(
        text=None,
        autoencoder=autoencoder,
        reference=reference,
        cascade=(stage,),
        temporal=None,
        decoder=load_temporal_decoder_config(index.folder, dtype),
        params=params,
        image_encoder=image_encoder._replace(params=None),
    )


def _text_to_video(index: TextToVideoIndex, dtype: str) -> Parts:
    """Load ModelScope's text-to-video model or ZeroScope, and ZeroScope XL above it.

    Of the latter the UNet alone: its text encoder and its autoencoder are the lower one's.
    """
    text = load_text_encoder(index.folder, dtype)
    autoencoder, vae_params = load_autoencoder(index.folder, dtype)
    params, stages = {TEXT[0]: text.params, VAE: vae_params}, []
    folders = ((index.folder, index.lower_size, TextToVideoStage), (index.upper_folder, index.size, VideoToVideoStage))
    for name, (folder, size, kind) in zip(index.cascade, folders, strict=False):
        resolution = min(size) // autoencoder.network.downsampling
        stage, params[name] = load_text_to_video(folder, text.network.hidden_size, resolution, dtype, kind)
        stages.append(stage)
    return Parts(text._replace(params=None), autoencoder, None, tuple(stages), None, None, jax.device_put(params))


def _i2vgen_xl(index: I2VGenXLIndex, dtype: str) -> Parts:
    """Load I2VGen-XL, and the text-to-image model that draws for it if there is one."""
    reference, params = None, {}
    if index.reference_folder is not None:
        reference, params[REFERENCE] = TextToImage.from_pretrained(index.reference_folder, dtype)
    text = load_text_encoder(index.folder, dtype)
    image_encoder = load_image_encoder(index.folder, dtype, SquareImagePart)
    autoencoder, params[VAE] = load_autoencoder(index.folder, dtype)
    width = text.network.hidden_size
    if image_encoder.network.projection_dim != width:
        raise ValueError(
            f"{index.folder}: the image encoder's embeddings are {image_encoder.network.projection_dim} wide, but the "
            f"text states {width}"
        )
    (name,) = index.cascade
    stage, params[name] = load_i2vgen_xl(
        index.folder, width, index.resolution // autoencoder.network.downsampling, dtype
    )
    params |= {TEXT[0]: text.params, IMAGE_ENCODER: image_encoder.params}
    return Parts(
        text=text._replace(params=None),
        autoencoder=autoencoder,
        reference=reference,
        cascade=(stage,),
        temporal=None,
        decoder=None,
        params=jax.device_put(params),
        image_encoder=image_encoder._replace(params=None),
    )


def _animatediff(index: AnimateDiffIndex, dtype: str) -> Parts:
    """Load a Stable Diffusion folder with a motion adapter, and another that draws for PIA if there is one.

    The image model's own parameters are on the device once, for images and for videos.
    """
    images, loaded = TextToImage.from_pretrained(index.folder, dtype)
    stage = build_motion_stage(index, images.stage)
    motion = load_motion(stage, loaded[UNET], index.adapter, dtype)
    loaded, motion = jax.device_put((loaded, motion))
    (name,) = index.cascade
    params = {REFERENCE: loaded, VAE: loaded[VAE], TEXT[0]: loaded[TEXT[0]], name: add_motion(loaded[UNET], motion)}
    if isinstance(index, SparseControlIndex):
        control = jax.device_put(load_sparse_control(stage, index.control, dtype))
        params[name] = {sparse_control.UNET: params[name], sparse_control.CONTROL: control}
    # Of XL, which has two text encoders, the conditioning is the image model's own.
    text = images.texts[0] if len(images.texts) == 1 else None
    reference = images
    if text is not None and not index.reads_reference:
        reference = None
        del params[REFERENCE]
    elif index.reference_folder is not None:
        if text is None:
            raise ValueError("reference_model cannot be another one where Stable Diffusion XL is animated")
        reference, other = TextToImage.from_pretrained(index.reference_folder, dtype)
        params[REFERENCE] = jax.device_put(other)
    return Parts(text, images.autoencoder, reference, (stage,), None, None, params)


_LOADERS: dict[type[ModelIndex], Callable[..., Parts]] = {
    ModelIndex: _videogen,
    StableVideoDiffusionIndex: _stable_video_diffusion,
    TextToVideoIndex: _text_to_video,
    I2VGenXLIndex: _i2vgen_xl,
    AnimateDiffIndex: _animatediff,
    PIAIndex: _animatediff,
    SparseControlIndex: _animatediff,
}


def _check_cascade(index: ModelIndex, cascade: tuple[CascadeStage, ...]) -> None:
    """Raise ValueError unless each stage takes the latents that the one below it makes."""
    below = None
    for part, stage in zip(index.cascade, cascade, strict=True):
        if stage.lower_resolution != below:
            raise ValueError(
                f"{index.folder / part} takes latents of side {stage.lower_resolution}, "
                f"but the stage below it in the cascade makes {below}"
            )
        below = stage.resolution
