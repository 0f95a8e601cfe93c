"""How a diffusion stage is sampled: plain numbers and names, checked. Imports nothing but the standard library."""

import dataclasses
import math
import numbers
from typing import Any

# The keys of `diffusion.samplers.SAMPLERS`, which cannot be imported here without importing JAX.
SAMPLERS = ("dpmpp_2m", "ddim", "euler", "pndm")
NUM_TIMESTEPS = 1000
CASCADE_ONLY = ("reference_guidance_scale", "noise_level")  # settings that the reference stage has no use for


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

    Raises:
      ValueError: a value is of the wrong type or out of range.
    """

    guidance_scale: float = 3.0
    reference_guidance_scale: float = 1.0
    steps: int = 20
    sampler: str = "dpmpp_2m"
    noise_level: int | None = None

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if hasattr(value := getattr(self, field.name), "item"):  # NumPy's: a recipe is JSON, which knows none
                object.__setattr__(self, field.name, value.item())
        for name in ("guidance_scale", "reference_guidance_scale"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
                raise ValueError(f"{name} is {value!r}, but must be a finite number")
        if not _is_int(self.steps) or not 1 <= self.steps <= NUM_TIMESTEPS:
            raise ValueError(f"steps is {self.steps!r}, but must be a whole number from 1 to {NUM_TIMESTEPS}")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler is {self.sampler!r}, but must be one of {', '.join(SAMPLERS)}")
        if self.noise_level is not None and (
            not _is_int(self.noise_level) or not 0 <= self.noise_level < NUM_TIMESTEPS
        ):
            raise ValueError(f"noise_level is {self.noise_level!r}, but must be from 0 to {NUM_TIMESTEPS - 1}")


def _is_int(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
