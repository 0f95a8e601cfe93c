"""How a diffusion stage is sampled: plain numbers and names, checked. Imports nothing but the standard library."""

import dataclasses
import math
import numbers
from typing import Any

# The keys of `diffusion.samplers.SAMPLERS`, which cannot be imported here without importing JAX.
SAMPLERS = ("dpmpp_2m", "ddim", "euler", "pndm")
NUM_TIMESTEPS = 1000
CASCADE_ONLY = ("reference_guidance_scale", "noise_level")  # settings that the reference stage has no use for
# Settings of Stable Video Diffusion alone.
IMAGE_TO_VIDEO_ONLY = ("min_guidance_scale", "motion_bucket_id", "noise_aug_strength", "conditioning_fps")
PIA_ONLY = ("motion_scale",)
NUM_MOTION_SCALES = 9  # rows of `stages.pia.SIMILARITY`, which cannot be imported here without importing JAX
SPARSE_ONLY = ("reference_frames",)
UPPER_ONLY = ("strength",)  # of a stage that makes a larger video of the video of the stage below
# Settings of public video models; None for a stage that has no such setting.
PUBLIC_ONLY = (*IMAGE_TO_VIDEO_ONLY, *PIA_ONLY, *SPARSE_ONLY, *UPPER_ONLY)


@dataclasses.dataclass(frozen=True)
class StageSettings:
    """How one diffusion stage is sampled.

    Attributes:
      guidance_scale: weight of the text, any finite number; 1 is no guidance.
      reference_guidance_scale: weight of the reference image, any finite number; 1 is no guidance (cascade only).
      steps: number of sampling steps, 1 to NUM_TIMESTEPS.
      sampler: one of SAMPLERS.
      noise_level: timestep to which the latents of the stage below are noised, 0 (least noise) to NUM_TIMESTEPS - 1
        (cascade only); None: the stage's own.
      min_guidance_scale: Stable Video Diffusion alone, as are the fields below: the weight of guidance in the first
        frame, which rises to `guidance_scale` in the last.
      motion_bucket_id: how much motion there is to be, 0 to 255.
      noise_aug_strength: standard deviation of the noise that is added to the reference image, at least 0; pixels are
        in [-1, 1].
      conditioning_fps: frames a second that the network is given, at least 1; apart from the rate at which a file
        plays.
      motion_scale: PIA alone: 0 to 2 for little to much motion, 3 to 5 the same as loops, 6 to 8 for images of another
        style than the model's.
      reference_frames: SparseCtrl alone: numbers of the frames that are to look like the reference image, from 0.
      strength: ZeroScope XL alone: share of the steps that is taken, the last ones, above 0 and at most 1; the more,
        the further from the video of the stage below.

    Raises:
      ValueError: a value is of the wrong type or out of range.
    """

    guidance_scale: float = 3.0
    reference_guidance_scale: float = 1.0
    steps: int = 20
    sampler: str = "dpmpp_2m"
    noise_level: int | None = None
    min_guidance_scale: float | None = None
    motion_bucket_id: int | None = None
    noise_aug_strength: float | None = None
    conditioning_fps: float | None = None
    motion_scale: int | None = None
    reference_frames: tuple[int, ...] | None = None
    strength: float | None = None

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if hasattr(value := getattr(self, field.name), "item"):  # NumPy's: a recipe is JSON, which knows none
                object.__setattr__(self, field.name, value.item())
        for name in ("guidance_scale", "reference_guidance_scale"):
            value = getattr(self, name)
            if not _is_number(value):
                raise ValueError(f"{name} is {value!r}, but must be a finite number")
        if not _is_int(self.steps) or not 1 <= self.steps <= NUM_TIMESTEPS:
            raise ValueError(f"steps is {self.steps!r}, but must be a whole number from 1 to {NUM_TIMESTEPS}")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler is {self.sampler!r}, but must be one of {', '.join(SAMPLERS)}")
        for name, least, most in (
            ("min_guidance_scale", -math.inf, math.inf),
            ("motion_bucket_id", 0, 255),
            ("noise_aug_strength", 0, math.inf),
            ("conditioning_fps", 1, math.inf),
        ):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and least <= value <= most):
                bounds = "a finite number" if least == -math.inf else f"at least {least}"
                bounds = f"a number from {least} to {most}" if most < math.inf else bounds
                raise ValueError(f"{name} is {value!r}, but must be {bounds}")
        if self.reference_frames is not None:
            frames = self.reference_frames
            frames = (frames,) if _is_int(frames) else frames
            if isinstance(frames, str) or not all(_is_int(frame) and frame >= 0 for frame in frames) or not frames:
                raise ValueError(f"reference_frames is {frames!r}, but must be numbers of frames, from 0")
            object.__setattr__(self, "reference_frames", tuple(sorted({int(frame) for frame in frames})))
        scale = self.motion_scale
        if scale is not None and not (_is_int(scale) and 0 <= scale < NUM_MOTION_SCALES):
            raise ValueError(f"motion_scale is {scale!r}, but must be a whole number from 0 to {NUM_MOTION_SCALES - 1}")
        if self.strength is not None and not (_is_number(self.strength) and 0 < self.strength <= 1):
            raise ValueError(f"strength is {self.strength!r}, but must be above 0 and at most 1")
        if self.noise_level is not None and (
            not _is_int(self.noise_level) or not 0 <= self.noise_level < NUM_TIMESTEPS
        ):
            raise ValueError(f"noise_level is {self.noise_level!r}, but must be from 0 to {NUM_TIMESTEPS - 1}")

    def to_json(self) -> dict[str, Any]:
        """The settings as plain values; those of other models alone are left out where they are None."""
        values = dataclasses.asdict(self)
        return {name: x for name, x in values.items() if x is not None or name not in PUBLIC_ONLY}


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_int(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
