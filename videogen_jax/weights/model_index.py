"""What `model_index.json` says of a model: its parts, its base frames, and how it is sampled unless asked otherwise.

Nothing here needs an accelerator or the weights, so that wrong input is found before anything slow begins.
"""

import dataclasses
import functools
import math
import numbers
import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

from videogen_jax.stages.settings import PUBLIC_ONLY, StageSettings
from videogen_jax.weights.folder import CONFIG_NAME, INDEX_NAME, load_config, read_model_index

CLASS_NAME = "VideoGenPipeline"
UNET, VAE = "unet", "vae"  # folders of the reference stage's network and of the autoencoder, as in Stable Diffusion
UPSAMPLER = "temporal_upsampler"  # the folder of the part that is needed for factors above 1
DECODER = "video_decoder"  # the folder of the video decoder
IMAGE_ENCODER = "image_encoder"  # the folder of the CLIP image encoder of public video models
REFERENCE = "reference"  # the name of the reference stage among the stages; its folder is UNET
CASCADE = "cascade"  # where settings are named by stage: all stages of the cascade
Size = tuple[int, int]
_SETTINGS = tuple(f.name for f in dataclasses.fields(StageSettings) if f.name not in PUBLIC_ONLY)
_DECODING = {"decode_chunk": 8, "decode_overlap": 2}


@dataclasses.dataclass(frozen=True)
class ModelIndex:
    """A model folder's `model_index.json`.

    Attributes:
      folder: the model folder.
      cascade: folders of the cascade's stages, from the lowest resolution up.
      num_frames: base frames F, those that the cascade makes.
      fps: base frames a second.
      temporal_factor: what the frame rate is multiplied by unless another factor is asked for.
      factors: those that the model's temporal upsampler takes; 1 alone where it has none.
      sampling: the settings unless others are asked for: for all stages (`{"steps": 20}`), or for one
        (`{"cascade_4": {"steps": 10}}`; the reference stage is called "reference"), and `decode_chunk` and
        `decode_overlap`, the frames that are decoded at once and those at each end that are context alone.
      reference_folder: the folder of another text-to-image model that draws the reference images, or None.
    """

    folder: Path
    cascade: tuple[str, ...]
    num_frames: int
    fps: float
    temporal_factor: int = 1
    factors: tuple[int, ...] = (1,)
    sampling: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    reference_folder: Path | None = None
    upper_folder: ClassVar[Path | None] = None

    reads_text: ClassVar[bool] = True  # whether the stages of the cascade read the prompt
    reads_reference: ClassVar[bool] = True  # whether the stages of the cascade read a reference image
    # Whether reference images are drawn at a size in proportion to the video's, or always at their model's own.
    scales_reference: ClassVar[bool] = True

    @classmethod
    def read(cls, folder: str | os.PathLike) -> "ModelIndex":
        """Read and check the index of a model folder.

        Raises:
          ValueError: the folder is missing, holds no model or one of another kind, or its index has a wrong field.
        """
        content = read_model_index(folder)
        where = Path(folder) / INDEX_NAME
        if content.get("_class_name") != CLASS_NAME:
            raise ValueError(f"{where} describes a {content.get('_class_name')}, but a {CLASS_NAME} is needed")
        missing = [name for name in ("cascade", "num_frames", "fps") if name not in content]
        if missing:
            raise ValueError(f"{where} needs the field {', '.join(missing)}")
        cascade, num_frames, fps = content["cascade"], content["num_frames"], content["fps"]
        if not isinstance(cascade, list) or not cascade or not all(_is_name(name) for name in cascade):
            raise ValueError(f"{where}: cascade must be a list of at least one folder name")
        if not _is_int(num_frames) or num_frames < 2:
            raise ValueError(f"{where}: num_frames is {num_frames!r}, but must be at least 2")
        if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not math.isfinite(fps) or fps <= 0:
            raise ValueError(f"{where}: fps is {fps!r}, but must be a positive number")
        factors = _factors(Path(folder) / UPSAMPLER)
        factor = content.get("temporal_factor", 1) if len(factors) > 1 else 1
        if factor not in factors:
            raise ValueError(f"{where}: temporal_factor is {factor!r}, but must be one of {_listed(factors)}")
        sampling = content.get("sampling", {})
        index = cls(Path(folder), tuple(cascade), num_frames, float(fps), factor, factors, sampling)
        try:
            index.stage_settings  # noqa: B018  (worked out here, where its errors can name the file)
            check_decoding(index.decode_chunk, index.decode_overlap)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{where}: sampling: {error}") from error
        return index

    def with_reference_model(self, folder: str | os.PathLike, settings: Mapping[str, Any]) -> "ModelIndex":
        """This index for another text-to-image model, which draws the reference images by default as `settings` say.

        Raises:
          ValueError: the model reads no reference image.
        """
        if not self.reads_reference:
            raise ValueError(f"{self.folder} makes videos of text alone: it has no use for a reference_model")
        sampling = {**self.sampling, REFERENCE: dict(settings)}
        return dataclasses.replace(self, sampling=sampling, reference_folder=Path(folder))

    def with_upper_model(self, folder: str | os.PathLike) -> "ModelIndex":
        """This index with another model as the upper stage of its cascade.

        Raises:
          ValueError: this model, or the other, is not of a kind that can do so.
        """
        raise ValueError(f"{self.folder} takes no upper_model: only a model that makes videos of text alone does")

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders of the model and of those that it is put together with."""
        return tuple(filter(None, (self.folder, self.reference_folder, self.upper_folder)))

    def has(self, part: str) -> bool:
        """Whether the model has a part of that name."""
        return (self.folder / part).is_dir()

    @property
    def draws_reference(self) -> bool:
        """Whether there is a text-to-image model that draws reference images."""
        return self.reference_folder is not None or self.has(UNET)

    @property
    def no_reference(self) -> str:
        """What to say where no reference image is given and none can be drawn."""
        return f"the model has no {UNET} that could draw the reference image: give one"

    @property
    def most_frames(self) -> int:
        """The most base frames that can be asked for."""
        return self.num_frames

    def base_frames(self, num_frames: int, factor: int) -> int:
        """How many frames the cascade makes, for a video of `num_frames` with `factor` times the base frame rate."""
        del num_frames, factor
        return self.num_frames  # what it was trained on; the rest is dropped

    # How it is sampled by default.

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages that are sampled, in order."""
        return (REFERENCE, *self.cascade) if self.reads_reference else self.cascade

    @functools.cached_property
    def stage_settings(self) -> dict[str, StageSettings]:
        """The settings of each of `stages`. ValueError: an unknown field or stage, or a value that cannot work."""
        unknown = sorted(set(self.sampling) - set(_SETTINGS) - set(self.stages) - set(_DECODING))
        if unknown:
            raise ValueError(f"{unknown[0]} is neither a setting ({_listed(_SETTINGS)}) nor a stage")
        for_all = {name: value for name, value in self.sampling.items() if name in _SETTINGS}
        resolved = {}
        for stage in self.stages:
            own = self.sampling.get(stage, {})
            known = self.settings_of(stage)
            if unknown := sorted(set(own) - set(known)):
                raise ValueError(f"{unknown[0]} is not a setting of a stage; the settings are {_listed(known)}")
            resolved[stage] = StageSettings(**{**for_all, **own})
        return resolved

    def settings_of(self, stage: str) -> tuple[str, ...]:
        """The names of the settings that a stage takes."""
        del stage
        return _SETTINGS

    @property
    def decode_chunk(self) -> int:
        """Frames decoded at once."""
        return self.sampling.get("decode_chunk", _DECODING["decode_chunk"])

    @property
    def decode_overlap(self) -> int:
        """Frames at each end of a chunk that are context alone."""
        return self.sampling.get("decode_overlap", _DECODING["decode_overlap"])

    # Sizes. The networks are convolutional, so a video may have another size than those that they were trained on, as
    # long as the latents of each stage can be halved as often as its UNet does.

    @functools.cached_property
    def resolution(self) -> int:
        """Side in pixels of the frames that the model was trained on. ValueError: a part is missing."""
        halvings = levels_of(self.folder / VAE, load_config(self.folder / VAE)) - 1
        return self._latents_and_levels(self.cascade[-1])[0] * 2**halvings

    @property
    def size(self) -> Size:
        """(height, width) of the videos that the model was trained on, in pixels. ValueError: a part is missing."""
        return self.resolution, self.resolution

    @functools.cached_property
    def size_multiple(self) -> int:
        """What height and width of a video must be multiples of, in pixels. ValueError: a part is missing."""
        networks = [self._latents_and_levels(name) for name in self.cascade]
        if self.draws_reference:
            folder = (self.reference_folder or self.folder) / UNET
            config = load_config(folder)
            networks.append((config.get("sample_size") or networks[-1][0], levels_of(folder, config)))
        pixels = (Fraction(self.resolution * 2 ** (levels - 1), side) for side, levels in networks)
        return math.lcm(*(multiple.numerator for multiple in pixels))

    def _latents_and_levels(self, name: str) -> tuple[int, int]:
        """Side of the latents of a stage of the cascade, and the levels of its UNet."""
        folder = self.folder / name
        config = load_config(folder)
        if not _is_int(config.get("resolution")) or not isinstance(config.get("unet"), Mapping):
            raise ValueError(f"{folder / CONFIG_NAME} needs the fields resolution and unet")
        return config["resolution"], levels_of(folder, config["unet"])


def check_decoding(chunk: Any, overlap: Any) -> None:
    """Raise ValueError unless a chunk of frames has some that are not context alone."""
    if not _is_int(chunk) or not _is_int(overlap) or overlap < 0 or chunk <= 2 * overlap:
        raise ValueError(f"decode_chunk is {chunk!r}, but must be more than twice decode_overlap, {overlap!r}")


def levels_of(folder: Path, config: Mapping[str, Any]) -> int:
    """The levels of a network, between which it halves height and width."""
    widths = config.get("block_out_channels")
    if not isinstance(widths, list) or not widths:
        raise ValueError(f"{folder / CONFIG_NAME} needs the field block_out_channels")
    return len(widths)


def _factors(folder: Path) -> tuple[int, ...]:
    """The divisors of the factor that the upsampler was trained with: these put frames at times that it has seen."""
    if not folder.is_dir():
        return (1,)
    trained = load_config(folder).get("factor")
    if not _is_int(trained) or trained < 2:
        raise ValueError(f"{folder / CONFIG_NAME}: factor is {trained!r}, but must be at least 2")
    return tuple(factor for factor in range(1, trained + 1) if trained % factor == 0)


def _is_int(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value not in ("", ".", "..") and Path(value).name == value


def _listed(values: tuple) -> str:
    return ", ".join(map(str, values))
