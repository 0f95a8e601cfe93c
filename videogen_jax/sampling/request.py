"""What is asked of a pipeline: every setting of sampling, written down once.

The command line, Python, recipes, the studio and evaluation all make a `SamplingRequest`; `resolve` completes it from
the model's index and checks it, before anything slow begins. Importing this module imports no JAX.
"""

import dataclasses
import math
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from videogen_jax.stages.settings import StageSettings
from videogen_jax.weights.model_index import CASCADE, REFERENCE, UPSAMPLER, ModelIndex, Size, check_decoding

if TYPE_CHECKING:
    import numpy as np

STAGE_SETTINGS = tuple(field.name for field in dataclasses.fields(StageSettings))
MAX_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class SamplingRequest:
    """One call of a pipeline. None stands for the model's default, which `resolve` fills in.

    Attributes:
      prompts: B sentences; none for a model that reads no text, where reference images are given.
      seed: 0 to 2**32 - 1, one for all prompts or B of them. An example depends on its own seed alone, so that a batch
        gives what single prompts give.
      reference: uint8 `(H, W, 3)` of any size, one for all prompts or B of them, instead of the images that the
        reference stage would draw. The largest central part in the video's shape is taken. None: they are drawn.
      latents: the standard normal noise that sampling starts from, float `(B, T, h, w, C)`, of the only stage of the
        cascade, or a mapping from the names of stages to such arrays. None: it is drawn from the seeds.
      size: (height, width) in pixels, multiples of `ModelIndex.size_multiple`; by default the size that the model was
        trained on, which it does best.
      num_frames: 2 to (F - 1) * factor + 1 with F base frames. The smallest factor that yields enough frames is used,
        and the rest is dropped.
      temporal_factor: what the base frame rate is multiplied by.
      fps: frames a second at which the file plays, and nothing else; by default the model's rate times the factor.
      decode_chunk: frames decoded at once.
      decode_overlap: frames at each end of a chunk that are context alone, fewer than half of it.
      batch_size: the batch that is compiled, at least B, filled up by repeating the prompts; by default B.
      overrides: of `StageSettings`: field -> one value for all stages, or a mapping from the names of stages
        ("reference", "cascade_4"; "cascade" stands for all stages of the cascade). Empty once resolved.
      stages: the settings of each stage; of all of them once resolved.
    """

    prompts: tuple[str, ...] = ()
    seed: int | tuple[int, ...] = 0
    reference: "np.ndarray | Sequence[np.ndarray] | None" = dataclasses.field(default=None, compare=False)
    latents: "np.ndarray | Mapping[str, np.ndarray] | None" = dataclasses.field(default=None, compare=False)
    size: Size | None = None
    num_frames: int | None = None
    temporal_factor: int | None = None
    fps: float | None = None
    decode_chunk: int | None = None
    decode_overlap: int | None = None
    batch_size: int | None = None
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    stages: Mapping[str, StageSettings] = dataclasses.field(default_factory=dict)

    # Ways to make one.

    @classmethod
    def from_keywords(cls, prompts: str | Iterable[str] | None = None, **keywords: Any) -> Self:
        """Make a request from the keyword arguments of a pipeline: fields of this class and of `StageSettings`.

        Raises:
          TypeError: an unknown keyword.
        """
        own = {field.name for field in dataclasses.fields(cls)} - {"prompts", "overrides", "stages"}
        unknown = sorted(set(keywords) - own - set(STAGE_SETTINGS))
        if unknown:
            known = ", ".join([*sorted(own), *STAGE_SETTINGS])
            raise TypeError(f"unknown setting {unknown[0]!r}; the settings are {known}")
        overrides = {name: keywords[name] for name in STAGE_SETTINGS if keywords.get(name) is not None}
        fields = {name: value for name, value in keywords.items() if name in own and value is not None}
        prompts = (prompts,) if isinstance(prompts, str) else tuple(prompts or ())
        return cls(prompts, overrides=overrides, **fields)

    @classmethod
    def from_config(cls, config: Any, prompts: Sequence[str], **fields: Any) -> Self:
        """Make a request from a sampling config, or from the `sampling` section of an evaluation's.

        Args:
          config: has some of the fields `seed`, `size` ("128x192"), `frames`, `temporal_factor`, `fps`, `decode_chunk`,
            `decode_overlap`; and sections with fields of `StageSettings`: `reference`, `cascade` for all stages, and
            any stage of the cascade by its name, which then overrides `cascade`.
          prompts: B sentences.
          **fields: of this class, beside those of the config.

        Raises:
          ValueError: a size that cannot be read.
        """
        names = ("seed", "temporal_factor", "fps", "decode_chunk", "decode_overlap")
        keywords = {name: config.get(name) for name in names} | {"num_frames": config.get("frames")}
        if config.get("size"):
            keywords["size"] = parse_size(config["size"])
        for stage, section in config.items():
            for name, value in section.items() if hasattr(section, "items") else ():
                if value is not None:
                    keywords.setdefault(name, {})[stage] = value
        return cls.from_keywords(prompts, **keywords | fields)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Make a request of one prompt from JSON values: what `to_json` gave, or a job of the studio.

        Args:
          content: `prompt`, and any of the fields of this class and of `StageSettings`; `frames` is `num_frames`, and
            `settings` holds the settings of each stage.

        Raises:
          TypeError: a field is unknown, or of another type.
          ValueError: the settings of a stage cannot work.
        """
        content = dict(content)
        if "prompt" not in content:
            raise TypeError("prompt is missing")
        prompt, stages = content.pop("prompt"), content.pop("settings", {})
        if "frames" in content:
            content["num_frames"] = content.pop("frames")
        if content.get("size") is not None:
            content["size"] = tuple(content["size"])
        request = cls.from_keywords(prompt, **content)
        return dataclasses.replace(request, stages={name: StageSettings(**values) for name, values in stages.items()})

    def to_json(self) -> dict[str, Any]:
        """A resolved request of one prompt as plain JSON values, without the pixels of a reference."""
        (prompt,), (seed,) = self.prompts, self.seed
        own = ("num_frames", "fps", "temporal_factor", "size", "decode_chunk", "decode_overlap", "batch_size")
        values = {name: getattr(self, name) for name in own} | {"size": list(self.size)}
        stages = {name: settings.to_json() for name, settings in self.stages.items()}
        return {"prompt": prompt, "seed": seed, **values, "settings": stages}

    # Completing it.

    def resolve(self, index: ModelIndex) -> Self:
        """Complete the request from a model's index and check it. A resolved request stays as it is.

        Raises:
          ValueError: naming the field that cannot work with this model.
        """
        if self.reference is None and index.reads_reference and not index.draws_reference:
            raise ValueError(index.no_reference)
        if self.reference is not None and not index.reads_reference:
            raise ValueError("the model makes videos of text alone: it has no use for a reference image")
        prompts = self._prompts(index)
        count = len(prompts)
        batch_size = count if self.batch_size is None else self.batch_size
        if not _is_int(batch_size) or batch_size < count:
            raise ValueError(f"batch_size is {batch_size!r}, but must be at least {count}, the number of prompts")
        timeline = self._timeline(index)
        return dataclasses.replace(
            self,
            prompts=prompts,
            seed=self._seeds(count),
            size=self._size(index),
            batch_size=int(batch_size),
            overrides={},
            stages=self._stages(index, timeline["num_frames"]),
            **timeline,
            **self._decoding(index),
        )

    def _prompts(self, index: ModelIndex) -> tuple[str, ...]:
        """B sentences; empty ones where nothing reads them and none are given."""
        if not self.prompts and self.reference is not None and not index.reads_text:
            return ("",) * (1 if getattr(self.reference, "ndim", None) == 3 else len(self.reference))
        if not self.prompts:
            raise ValueError("there are no prompts: give at least one")
        unread = self.reference is not None and not index.reads_text
        for prompt in self.prompts:
            if not isinstance(prompt, str) or not (prompt.strip() or unread):
                raise ValueError(f"a prompt must be a string that is not empty, but one is {prompt!r}")
        return self.prompts

    def _seeds(self, count: int) -> tuple[int, ...]:
        """B seeds."""
        seeds = tuple(self.seed) if isinstance(self.seed, Iterable) else (self.seed,) * count
        if len(seeds) != count:
            raise ValueError(f"{len(seeds)} seeds were given for {count} prompts")
        for seed in seeds:
            if not _is_int(seed) or not 0 <= seed <= MAX_SEED:
                raise ValueError(f"seed is {seed!r}, but must be a whole number from 0 to {MAX_SEED}")
        return tuple(map(int, seeds))  # a recipe is JSON, which knows no numbers of NumPy

    def _size(self, index: ModelIndex) -> Size:
        size = index.size if self.size is None else tuple(self.size)
        multiple = index.size_multiple
        if len(size) != 2 or any(not _is_int(side) or side < 1 or side % multiple for side in size):
            raise ValueError(
                f"size is {'x'.join(map(str, size))}, but height and width must be multiples of {multiple} pixels"
            )
        return int(size[0]), int(size[1])

    def _timeline(self, index: ModelIndex) -> dict[str, Any]:
        """Temporal factor, number of frames and rate. Between F base frames a factor f puts (F - 1) * (f - 1) more."""
        factor, num_frames, fps = self.temporal_factor, self.num_frames, self.fps
        if factor is not None and (not _is_int(factor) or factor not in index.factors):
            why = "" if index.has(UPSAMPLER) else f": the model has no {UPSAMPLER}"
            raise ValueError(f"temporal_factor is {factor!r}, but may be {', '.join(map(str, index.factors))}{why}")
        if fps is not None and not (_is_number(fps) and fps > 0):
            raise ValueError(f"fps is {fps!r}, but must be a positive number of frames a second")
        factors = index.factors if factor is None else (factor,)
        most = {factor: (index.most_frames - 1) * factor + 1 for factor in factors}
        if num_frames is None:
            factor = index.temporal_factor if factor is None else factor
            num_frames = (index.num_frames - 1) * factor + 1
        elif not _is_int(num_frames) or not 2 <= num_frames <= max(most.values()):
            raise ValueError(
                f"num_frames is {num_frames!r}, but the model makes 2 to {max(most.values())} frames"
                + (f" with temporal_factor {factor}" if factor is not None else "")
            )
        else:
            factor = next(factor for factor, frames in most.items() if frames >= num_frames)
        fps = index.fps * factor if fps is None else float(fps)
        return {"temporal_factor": int(factor), "num_frames": int(num_frames), "fps": fps}

    def _stages(self, index: ModelIndex, num_frames: int) -> dict[str, StageSettings]:
        """The settings of each stage: the index's, or those of this request, with its overrides."""
        overrides: dict[str, dict[str, Any]] = {stage: {} for stage in index.stages}
        for name, value in self.overrides.items():
            takers = [stage for stage in index.stages if name in index.settings_of(stage)]
            if not takers:
                raise ValueError(f"{name} is not a setting of this model")
            by_stage = dict(value) if isinstance(value, Mapping) else dict.fromkeys(takers, value)
            in_cascade = by_stage.pop(CASCADE, None)
            by_stage = {**dict.fromkeys(index.cascade, in_cascade), **by_stage}
            for stage, one in by_stage.items():
                if stage == REFERENCE and not index.reads_reference:
                    continue  # as where an image is given: nothing is drawn
                if stage not in overrides:
                    raise ValueError(f"{name} names the stage {stage}, but the stages are {', '.join(index.stages)}")
                if one is not None:
                    overrides[stage][name] = one
        before = {**index.stage_settings, **self.stages}
        stages = {stage: dataclasses.replace(before[stage], **overrides[stage]) for stage in index.stages}
        for settings in stages.values():
            last = max(settings.reference_frames or (0,))
            if last >= num_frames:
                raise ValueError(f"reference_frames names frame {last}, but the video has {num_frames}, from 0")
        return stages

    def _decoding(self, index: ModelIndex) -> dict[str, int]:
        """Frames decoded at once, and how many at each end are context alone."""
        chunk = index.decode_chunk if self.decode_chunk is None else self.decode_chunk
        overlap = index.decode_overlap if self.decode_overlap is None else self.decode_overlap
        check_decoding(chunk, overlap)
        return {"decode_chunk": int(chunk), "decode_overlap": int(overlap)}


def parse_size(text: str) -> Size:
    """Parse "128x192" into (128, 192), height first. ValueError: it is of another form."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise ValueError(f"size is {text!r}, but must be height x width in pixels, as 128x192")
    return int(match[1]), int(match[2])


def _is_int(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
