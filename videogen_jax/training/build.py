"""From a config to its stage, the source of its training examples, and the networks that encode them."""

from pathlib import Path
from typing import Any

from videogen_jax.data.corpora import build_corpus
from videogen_jax.data.encoding import Encoder, load_encoder
from videogen_jax.data.loader import Source
from videogen_jax.data.prepared import PreparedClips
from videogen_jax.data.videos import VideoClips, Window
from videogen_jax.stages.autoencoder import AutoencoderStage
from videogen_jax.stages.cascade import CascadeStage
from videogen_jax.stages.decoder import DecoderStage
from videogen_jax.stages.i2vgen_xl import I2VGenXLStage
from videogen_jax.stages.image_to_video import ImageToVideoStage
from videogen_jax.stages.pia import PIAStage
from videogen_jax.stages.reference import ReferenceStage
from videogen_jax.stages.stage import InputSizes, Params, Spec, Stage, build_network
from videogen_jax.stages.temporal import TemporalStage
from videogen_jax.stages.text import TextStage
from videogen_jax.stages.text_to_video import TextToVideoStage
from videogen_jax.training.model_config import explicit_fields
from videogen_jax.training.worlds import WORLDS
from videogen_jax.weights.model_folder import ModelFolder
from videogen_jax.weights.public_unets import public_unet_fields

STAGES: dict[str, type[Stage]] = {
    "text": TextStage,
    "autoencoder": AutoencoderStage,
    "reference": ReferenceStage,
    "cascade": CascadeStage,
    "temporal": TemporalStage,
    "decoder": DecoderStage,
    "image_to_video": ImageToVideoStage,
    "text_to_video": TextToVideoStage,
    "pia": PIAStage,
    "i2vgen_xl": I2VGenXLStage,
    **{name: kind for world in WORLDS.values() for name, kind in world.stages.items()},
}
WORLD_SOURCES = {name: build for world in WORLDS.values() for name, build in world.sources.items()}
SOURCES = (*WORLD_SOURCES, "prepared", "videos")


def init_from(config: Any) -> ModelFolder | None:
    """The model that a config's training starts from; None: from scratch."""
    if not config.init_from:
        return None
    return ModelFolder(config.init_from, motion_adapter=config.get("motion_adapter") or "")


def stage_of(config: Any) -> Stage:
    """The stage of a training config.

    A cascade stage that starts from a public video model has that model's UNet: the fields that the config does not set
    follow from it, the kind of temporal layers among them.

    Raises:
      ValueError: as `build_stage`, or a part of the model that training starts from is missing.
    """
    settings = explicit_fields(config.model)
    model = init_from(config)
    if STAGES.get(config.stage) is CascadeStage and model is not None:
        fields = public_unet_fields(model.path, model.motion_adapter)
        settings["unet"] = {**fields, **settings["unet"]}
    return build_stage(config.stage, settings)


def build_stage(name: str, settings: dict[str, Any]) -> Stage:
    """The stage that configs call `name`, with the fields of a config's `model` section.

    Raises:
      ValueError: naming the unknown stage, or the unknown or missing field.
    """
    if name not in STAGES:
        raise ValueError(f"config.stage is {name!r}; the stages are {', '.join(STAGES)}")
    return build_network(STAGES[name], settings, f"config.model of stage {name}")


def build_source(
    config: Any, stage: Stage, model: ModelFolder, data: Any = None, skipped_file: str | Path | None = None
) -> Source:
    """The training examples of a config.

    Args:
      config: a training config.
      stage: whose inputs the examples hold.
      model: of `config.model_folder`.
      data: the section of the config that names the source and holds its fields; None: `config.data`.
      skipped_file: where a source of video files lists those that cannot be used.

    Raises:
      ValueError: naming the field that is unknown or missing.
    """
    data = dict(config.data if data is None else data)
    kind = data.pop("source")
    inputs = stage.input_spec(InputSizes())
    try:
        if kind in WORLD_SOURCES:
            return WORLD_SOURCES[kind](config, model, **data)
        if kind == "prepared":
            return PreparedClips(**data, text="context" in inputs)
        if kind == "videos":
            return _videos(inputs, model, skipped_file, **data)
    except TypeError as error:
        raise ValueError(f"config.data of source {kind!r}: {error}") from error
    raise ValueError(f"config.data.source is {kind!r}; it may be {', '.join(SOURCES)}")


def input_sizes(config: Any, stage: Stage, model: ModelFolder) -> InputSizes:
    """The sizes of a config's examples on which a stage's parameters may depend, without reading any data."""
    sizes = {name: config.data[name] for name in ("num_frames", "resolution") if name in config.data}
    if "latents" in stage.input_spec(InputSizes()):
        sizes["latent_channels"] = model.autoencoder().network.latent_channels
    return InputSizes(**sizes)


def is_encoded(config: Any, stage: Stage) -> bool:
    """Whether the examples are pictures and words, of which a stage that reads latents needs an `EncodedStage`."""
    return config.data.source == "videos" and "latents" in stage.input_spec(InputSizes())


def encoder_resolutions(config: Any) -> dict[str, int]:
    """Name of an array of latents -> its side: what the encoder of a config's examples makes."""
    resolutions = {"latents": config.data.resolution}
    if config.data.get("lower_resolution") is not None:
        resolutions["lower"] = config.data.lower_resolution
    return resolutions


def build_encoder(config: Any, stage: Stage, model: ModelFolder) -> tuple[Encoder, dict[str, Params]] | None:
    """The frozen networks that turn a config's examples into what its stage reads, and their parameters.

    None where the examples hold latents, or the stage reads pixels.
    """
    if not is_encoded(config, stage):
        return None
    text = "context" in stage.input_spec(InputSizes())
    return load_encoder(model, encoder_resolutions(config), text, config.data.get("encoder_dtype"))


def _videos(
    inputs: Spec,
    model: ModelFolder,
    skipped_file: str | Path | None,
    *,
    corpus: Any,
    resolution: int,
    lower_resolution: int | None = None,
    encoder_dtype: str | None = None,
    num_frames: int,
    fps: tuple[float, ...],
    crop: bool = False,
    flip: bool = False,
    **workers: Any,
) -> VideoClips:
    """Clips straight from the files; for a stage on latents, frames that its autoencoder encodes to `resolution`."""
    del lower_resolution, encoder_dtype  # the encoder's
    pixels = resolution * (model.autoencoder().network.downsampling if "latents" in inputs else 1)
    tokenizer = model.tokenizer if inputs.keys() & {"context", "tokens"} else None
    window = Window(num_frames, tuple(map(float, fps)), pixels, crop, flip)
    return VideoClips(
        build_corpus(dict(corpus)),
        window,
        tokenizer=tokenizer,
        images="images" in inputs,
        skipped_file=skipped_file,
        **workers,
    )
