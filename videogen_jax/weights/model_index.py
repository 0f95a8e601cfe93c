"""What `model_index.json` says of a model: its parts, its base frames, and how it is sampled unless asked otherwise.

Nothing here needs an accelerator or the weights, so wrong input is found before anything slow begins.
"""

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from videogen_jax.stages.settings import StageSettings
from videogen_jax.weights.folder import CONFIG_NAME, INDEX_NAME, load_config, read_model_index

CLASS_NAME = "VideoGenPipeline"
UPSAMPLER = "temporal_upsampler"  # the folder of the part that is needed for factors above 1
REFERENCE = "reference"  # the name of the reference stage among the stages; its folder is Stable Diffusion's `unet`
SETTINGS = tuple(field.name for field in dataclasses.fields(StageSettings))
_DECODING = ("decode_chunk", "decode_overlap")


class Timeline(NamedTuple):
    """The frames of a video: the temporal upsampler's factor, how many frames are kept, and frames a second."""

    factor: int
    num_frames: int
    fps: float


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
        `decode_overlap`, the frames that are decoded at once and those of them that are shared with a neighbour.
    """

    folder: Path
    cascade: tuple[str, ...]
    num_frames: int
    fps: float
    temporal_factor: int = 1
    factors: tuple[int, ...] = (1,)
    sampling: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, folder: str | os.PathLike) -> "ModelIndex":
        """Reads and checks the index of a model folder.

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
        if not _is_rate(fps):
            raise ValueError(f"{where}: fps is {fps!r}, but must be a positive number")
        factors = _factors(Path(folder) / UPSAMPLER)
        factor = content.get("temporal_factor", 1) if len(factors) > 1 else 1
        if factor not in factors:
            raise ValueError(f"{where}: temporal_factor is {factor!r}, but must be one of {_listed(factors)}")
        sampling = content.get("sampling", {})
        index = cls(Path(folder), tuple(cascade), num_frames, float(fps), factor, factors, sampling)
        try:
            index.settings()
            index.decoding()
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{where}: sampling: {error}") from error
        return index

    def with_reference(self, settings: Mapping[str, Any]) -> "ModelIndex":
        """This index for another model that draws the reference images, by default as `settings` say."""
        return dataclasses.replace(self, sampling={**self.sampling, REFERENCE: dict(settings)})

    def has(self, part: str) -> bool:
        """Whether the model has a part of that name."""
        return (self.folder / part).is_dir()

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages that are sampled, in order."""
        return (REFERENCE, *self.cascade)

    def timeline(
        self, num_frames: int | None = None, temporal_factor: int | None = None, fps: float | None = None
    ) -> Timeline:
        """Chooses the temporal factor and the number of frames.

        Between F base frames a factor f puts (F - 1) (f - 1) more. `num_frames` takes the smallest factor that gives
        as many, unless the factor is given, and leaves out what comes after. fps is the rate of playing alone.

        Raises:
          ValueError: the model cannot make that many frames or has no such factor, or fps is no rate.
        """
        if temporal_factor is not None and temporal_factor not in self.factors:
            why = "" if self.has(UPSAMPLER) else f": the model has no {UPSAMPLER}"
            raise ValueError(f"temporal_factor is {temporal_factor!r}, but may be {_listed(self.factors)}{why}")
        if fps is not None and not _is_rate(fps):
            raise ValueError(f"fps is {fps!r}, but must be a positive number of frames a second")
        most = {factor: (self.num_frames - 1) * factor + 1 for factor in self.factors}
        if temporal_factor is not None:
            most = {temporal_factor: most[temporal_factor]}
        if num_frames is None:
            factor = self.temporal_factor if temporal_factor is None else temporal_factor
            num_frames = most[factor]
        elif not _is_int(num_frames) or not 2 <= num_frames <= max(most.values()):
            raise ValueError(
                f"num_frames is {num_frames!r}, but the model makes 2 to {max(most.values())} frames"
                + (f" with temporal_factor {temporal_factor}" if temporal_factor is not None else "")
            )
        else:
            factor = next(factor for factor, count in most.items() if count >= num_frames)
        return Timeline(factor, num_frames, self.fps * factor if fps is None else float(fps))

    def settings(self, **asked: Any) -> dict[str, StageSettings]:
        """The settings of each stage of `stages`.

        asked: for each field of `StageSettings` None, a value for all stages, or a mapping from names of stages.

        Raises:
          ValueError: an unknown field or stage, or a value that cannot work.
        """
        unknown = sorted(set(self.sampling) - set(SETTINGS) - set(self.stages) - set(_DECODING))
        if unknown:
            raise ValueError(f"{unknown[0]} is neither a setting ({_listed(SETTINGS)}) nor a stage")
        for name, value in asked.items():
            strange = sorted(set(value) - set(self.stages)) if isinstance(value, Mapping) else []
            if strange:
                raise ValueError(f"{name} names the stage {strange[0]}, but the stages are {_listed(self.stages)}")
        resolved = {}
        for stage in self.stages:
            own = self.sampling.get(stage, {})
            unknown = sorted((set(own) | set(asked)) - set(SETTINGS))
            if unknown:
                raise ValueError(f"{unknown[0]} is not a setting of a stage; the settings are {_listed(SETTINGS)}")
            values = {name: self.sampling[name] for name in SETTINGS if name in self.sampling} | dict(own)
            for name, value in asked.items():
                value = value.get(stage) if isinstance(value, Mapping) else value
                if value is not None:
                    values[name] = value
            resolved[stage] = StageSettings(**values)
        return resolved

    def decoding(self, chunk: int | None = None, overlap: int | None = None) -> tuple[int, int]:
        """Frames decoded at once, and how many at each end are context alone. ValueError: none would be left."""
        chunk = self.sampling.get("decode_chunk", 8) if chunk is None else chunk
        overlap = self.sampling.get("decode_overlap", 2) if overlap is None else overlap
        if not _is_int(chunk) or not _is_int(overlap) or overlap < 0 or chunk <= 2 * overlap:
            raise ValueError(f"decode_chunk is {chunk!r}, but must be more than twice decode_overlap, {overlap!r}")
        return chunk, overlap


def _factors(folder: Path) -> tuple[int, ...]:
    """The divisors of the factor that the upsampler was trained with: these put frames at times that it has seen."""
    if not folder.is_dir():
        return (1,)
    trained = load_config(folder).get("factor")
    if not _is_int(trained) or trained < 2:
        raise ValueError(f"{folder / CONFIG_NAME}: factor is {trained!r}, but must be at least 2")
    return tuple(factor for factor in range(1, trained + 1) if trained % factor == 0)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_rate(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value) and value > 0


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value not in ("", ".", "..") and Path(value).name == value


def _listed(values: tuple) -> str:
    return ", ".join(map(str, values))
