"""Public video models in diffusers' layout, described as a `ModelIndex`. Nothing here reads weights or needs JAX."""

import dataclasses
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from videogen_jax.stages.settings import CASCADE_ONLY, IMAGE_TO_VIDEO_ONLY, UPPER_ONLY
from videogen_jax.weights.folder import CONFIG_NAME, INDEX_NAME, load_config, read_model_index
from videogen_jax.weights.model_index import CLASS_NAME, UNET, VAE, ModelIndex, Size, levels_of
from videogen_jax.weights.scheduler_config import load_scheduler

VIDEO = "video"  # the name of a public model's stage among the stages; its folder is UNET
UPPER = "upper"  # that of the stage of an upper_model
_VIDEO_TO_VIDEO = "VideoToVideoSDPipeline"  # what diffusers saves such a model as, besides the class of the lower one


@dataclasses.dataclass(frozen=True)
class PublicVideoIndex(ModelIndex):
    """A public video model: one stage, which makes as many frames as are asked for, and no temporal upsampler.

    Subclasses say which folders there must be and which settings there are.
    """

    class_name: ClassVar[str]  # in model_index.json, as diffusers writes it
    parts: ClassVar[tuple[str, ...]]  # folders that are needed
    own_settings: ClassVar[tuple[str, ...]] = ()  # of PUBLIC_ONLY, those that it has
    trained_size: ClassVar[Size]  # (height, width) of the videos that it was trained on, in pixels
    scales_reference: ClassVar[bool] = False

    @classmethod
    def check_parts(cls, folder: Path) -> None:
        """Raise ValueError for a part that is missing."""
        for part in cls.parts:
            if not (folder / part).is_dir():
                raise ValueError(f"{folder} is a {cls.class_name} without its part {part}")

    @property
    def draws_reference(self) -> bool:
        return self.reference_folder is not None  # its own UNet draws none

    @property
    def no_reference(self) -> str:
        return "the model animates an image: give one as the reference, or a reference_model that draws it"

    def base_frames(self, num_frames: int, factor: int) -> int:
        """As many as are asked for."""
        return -(-(num_frames - 1) // factor) + 1

    @property
    def size(self) -> Size:
        """(height, width) of the videos that it was trained on, in pixels."""
        return self.trained_size

    @functools.cached_property
    def resolution(self) -> int:
        return min(self.size)

    @functools.cached_property
    def size_multiple(self) -> int:
        halvings = levels_of(self.folder / VAE, load_config(self.folder / VAE)) - 1
        return 2 ** (halvings + levels_of(self.folder / UNET, load_config(self.folder / UNET)) - 1)

    def settings_of(self, stage: str) -> tuple[str, ...]:
        own = tuple(name for name in super().settings_of(stage) if name not in CASCADE_ONLY)
        return (*own, *self.own_settings) if stage == VIDEO else own


@dataclasses.dataclass(frozen=True)
class StableVideoDiffusionIndex(PublicVideoIndex):
    """A folder of Stable Video Diffusion (img2vid, img2vid-xt) as diffusers writes it.

    It reads no text.
    """

    class_name: ClassVar[str] = "StableVideoDiffusionPipeline"
    parts: ClassVar[tuple[str, ...]] = (UNET, VAE, "image_encoder", "scheduler")
    own_settings: ClassVar[tuple[str, ...]] = IMAGE_TO_VIDEO_ONLY
    trained_size: ClassVar[Size] = (576, 1024)
    reads_text: ClassVar[bool] = False
    # As diffusers and the authors sample it: 25 steps, guidance from 1 in the first frame to 3 in the last.
    _DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "steps": 25,
        "sampler": "euler",
        "guidance_scale": 3.0,
        "min_guidance_scale": 1.0,
        "motion_bucket_id": 127,
        "noise_aug_strength": 0.02,
        "conditioning_fps": 7.0,
    }

    @classmethod
    def read(cls, folder: str | os.PathLike) -> "StableVideoDiffusionIndex":
        """Read the index of a folder.

        Raises:
          ValueError: a part is missing, or its config lacks a field.
        """
        folder = Path(folder)
        cls.check_parts(folder)
        num_frames = load_config(folder / UNET).get("num_frames", 25)
        if isinstance(num_frames, bool) or not isinstance(num_frames, int) or num_frames < 2:
            raise ValueError(f"{folder / UNET / CONFIG_NAME}: num_frames is {num_frames!r}, but must be at least 2")
        sampling = {VIDEO: dict(cls._DEFAULTS), "decode_chunk": 14, "decode_overlap": 0}
        return cls(folder, (VIDEO,), num_frames, fps=cls._DEFAULTS["conditioning_fps"], sampling=sampling)


@dataclasses.dataclass(frozen=True)
class TextToVideoIndex(PublicVideoIndex):
    """A folder of ModelScope's text-to-video model or of ZeroScope as diffusers writes it.

    It reads no reference image. Nothing in it depends on the number of frames.

    Attributes:
      upper_folder: of ZeroScope XL, which makes the video larger, or None.
    """

    upper_folder: Path | None = None

    class_name: ClassVar[str] = "TextToVideoSDPipeline"
    parts: ClassVar[tuple[str, ...]] = (UNET, VAE, "text_encoder", "tokenizer", "scheduler")
    reads_reference: ClassVar[bool] = False
    most_frames: ClassVar[int] = 1000  # a mistyped number of frames is refused before it fills the memory

    @classmethod
    def read(cls, folder: str | os.PathLike) -> "TextToVideoIndex":
        """Read the index of a folder; errors as of `StableVideoDiffusionIndex.read`."""
        folder = Path(folder)
        cls.check_parts(folder)
        # As diffusers samples it; the authors show their videos at 8 frames a second.
        settings = {"steps": 50, "sampler": load_scheduler(folder).sampler, "guidance_scale": 9.0}
        return cls(folder, (VIDEO,), 16, fps=8.0, sampling={VIDEO: settings, "decode_chunk": 8, "decode_overlap": 0})

    def with_upper_model(self, folder: str | os.PathLike) -> "TextToVideoIndex":
        folder = Path(folder)
        name = read_model_index(folder).get("_class_name")
        if name not in (self.class_name, _VIDEO_TO_VIDEO):
            raise ValueError(
                f"{folder / INDEX_NAME} describes a {name}, but an upper_model is a {self.class_name} (ZeroScope XL)"
            )
        for part in (UNET, "scheduler"):  # the rest is this model's
            if not (folder / part).is_dir():
                raise ValueError(f"upper_model {folder} has no {part}")
        settings = {"steps": 50, "sampler": load_scheduler(folder).sampler, "guidance_scale": 15.0, "strength": 0.6}
        sampling = {**self.sampling, UPPER: settings, "decode_chunk": 1}
        return dataclasses.replace(self, cascade=(VIDEO, UPPER), sampling=sampling, upper_folder=folder)

    def settings_of(self, stage: str) -> tuple[str, ...]:
        own = super().settings_of(stage)
        return (*own, *UPPER_ONLY) if stage == UPPER else own

    @functools.cached_property
    def lower_size(self) -> Size:
        """(height, width) that the lowest stage was trained on, in pixels."""
        return self._size if self.upper_folder is None else (320, 576)  # ZeroScope's, whose config does not say so

    @functools.cached_property
    def size(self) -> Size:
        return self._size if self.upper_folder is None else (576, 1024)

    @functools.cached_property
    def _size(self) -> Size:
        """(height, width): the UNet's `sample_size`, in latents; ModelScope's 256x256 where it says none."""
        side = load_config(self.folder / UNET).get("sample_size") or 32
        height, width = side if isinstance(side, list) else (side, side)
        pixels = 2 ** (levels_of(self.folder / VAE, load_config(self.folder / VAE)) - 1)
        return height * pixels, width * pixels


@dataclasses.dataclass(frozen=True)
class I2VGenXLIndex(PublicVideoIndex):
    """A folder of I2VGen-XL as diffusers writes it."""

    class_name: ClassVar[str] = "I2VGenXLPipeline"
    parts: ClassVar[tuple[str, ...]] = (UNET, VAE, "text_encoder", "tokenizer", "image_encoder", "scheduler")
    own_settings: ClassVar[tuple[str, ...]] = ("conditioning_fps",)
    trained_size: ClassVar[Size] = (704, 1280)
    most_frames: ClassVar[int] = 1000

    @classmethod
    def read(cls, folder: str | os.PathLike) -> "I2VGenXLIndex":
        """Read the index of a folder; errors as of `StableVideoDiffusionIndex.read`."""
        folder = Path(folder)
        cls.check_parts(folder)
        settings = {"steps": 50, "sampler": load_scheduler(folder).sampler, "guidance_scale": 9.0}
        settings["conditioning_fps"] = fps = 16.0
        return cls(folder, (VIDEO,), 16, fps=fps, sampling={VIDEO: settings, "decode_chunk": 1, "decode_overlap": 0})


_KINDS = {kind.class_name: kind for kind in (StableVideoDiffusionIndex, TextToVideoIndex, I2VGenXLIndex)}


def read_index(folder: str | os.PathLike) -> ModelIndex:
    """Read the index of a model folder: one trained here, or a public video model.

    Raises:
      ValueError: the folder is missing, holds no model or one of a kind that is not known, or its index has a wrong
        field.
    """
    name = read_model_index(folder).get("_class_name")
    if name == CLASS_NAME:
        return ModelIndex.read(folder)
    if name not in _KINDS:
        known = ", ".join([CLASS_NAME, *_KINDS])
        hint = ""
        if str(name).startswith("StableDiffusion"):
            hint = ": it draws images; name it with --reference_model, or give it a --motion_adapter"
        raise ValueError(f"{Path(folder) / INDEX_NAME} describes a {name}{hint}; models of videos are {known}")
    return _KINDS[name].read(folder)
