"""From a config's `data` section to the source that a stage trains on, and what encodes it."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from videogen_jax.data.corpora import build_corpus
from videogen_jax.data.encoding import Encoder, load_encoder
from videogen_jax.data.loader import Source, take
from videogen_jax.data.prepared import PreparedClips
from videogen_jax.data.videos import VideoClips, Window
from videogen_jax.stages.stage import Params
from videogen_jax.training.worlds import WORLDS
from videogen_jax.weights.hub import resolve
from videogen_jax.weights.parts import load_autoencoder_config
from videogen_jax.weights.tokenizer import load_tokenizer

WORLD_SOURCES = {name: build for world in WORLDS.values() for name, build in world.sources.items()}
SOURCES = (*WORLD_SOURCES, "prepared", "videos")
STAGES_ON_PIXELS = ("autoencoder",)
STAGES_WITH_TEXT = ("reference", "cascade")


def build_source(config: Any, data: Any = None, skipped_file: str | Path | None = None) -> Source:
    """The training examples of a config.

    Args:
      config: a training config.
      data: its section that names the source and gives the source's fields; None: `config.data`.
      skipped_file: where a source of video files names those that cannot be used.

    Raises:
      ValueError: naming the field that is unknown or missing.
    """
    data = dict(config.data if data is None else data)
    kind = data.pop("source")
    try:
        if kind in WORLD_SOURCES:
            return WORLD_SOURCES[kind](config, **data)
        if kind == "prepared":
            return PreparedClips(**data, text=config.stage in STAGES_WITH_TEXT)
        if kind == "videos":
            return _videos(config, skipped_file, **data)
    except TypeError as error:
        raise ValueError(f"config.data of source {kind!r}: {error}") from error
    raise ValueError(f"config.data.source is {kind!r}; it may be {', '.join(SOURCES)}")


def example_batch(config: Any) -> dict[str, np.ndarray]:
    """A batch of one training example. A cache of latents that is not there yet is not filled for it.

    Raises:
      ValueError: as `build_source`.
    """
    data = dict(config.data)
    if data.pop("source") == "shapes_latents":
        from videogen_jax.shapes.latents import is_filled, shapes_latents

        if not is_filled(config.model_folder, **data):
            with tempfile.TemporaryDirectory() as folder:
                one = {**data, "num_clips": 1, "cache_folder": folder}
                return take(shapes_latents(config.model_folder, **one), [0])
    return take(build_source(config), [0])


def build_encoder(config: Any) -> tuple[Encoder, dict[str, Params]] | None:
    """The frozen networks that turn this config's examples into what its stage reads, and their parameters.

    None where the source gives latents, or the stage reads pictures.
    """
    if config.data.source != "videos" or config.stage in STAGES_ON_PIXELS:
        return None
    resolutions = {"latents": config.data.resolution}
    if config.data.get("lower_resolution") is not None:
        resolutions["lower"] = config.data.lower_resolution
    text = config.stage in STAGES_WITH_TEXT
    return load_encoder(resolve(config.model_folder), resolutions, text, config.data.get("encoder_dtype"))


def _videos(
    config: Any,
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
    """Clips straight from the files, of the size that the stage's autoencoder takes to latents of `resolution`."""
    del lower_resolution, encoder_dtype  # the encoder's
    on_pixels = config.stage in STAGES_ON_PIXELS
    pixels, tokenizer = resolution, None
    if not on_pixels:
        folder = resolve(config.model_folder)
        pixels = resolution * load_autoencoder_config(folder).network.downsampling
        if config.stage in STAGES_WITH_TEXT:
            tokenizer = load_tokenizer(folder / "tokenizer")
    window = Window(num_frames, tuple(map(float, fps)), pixels, crop, flip)
    return VideoClips(
        build_corpus(dict(corpus)), window, tokenizer=tokenizer, images=on_pixels, skipped_file=skipped_file, **workers
    )
