"""The timestep schedule of a sampler: at which of the training timesteps the network is called."""

import numpy as np

SPACINGS = ("leading", "trailing", "linspace")


def timesteps_for(
    num_train_timesteps: int,
    num_steps: int,
    spacing: str,
    steps_offset: int = 0,
    *,
    omit_lowest: bool = False,
    fractional: bool = False,
) -> np.ndarray:
    """Choose the timesteps of `num_steps` sampling steps (Lin et al. 2023, arXiv 2305.08891, table 2).

    "leading": multiples of N // num_steps plus steps_offset, never the last timestep N - 1 for num_steps > 1.
    "trailing": from N - 1 down in equal steps; the choice for few steps and for zero terminal SNR.
    "linspace": from N - 1 to 0 in equal steps.

    Args:
      num_train_timesteps: N, the training timesteps of the noise schedule.
      num_steps: 1 to N.
      spacing: one of SPACINGS.
      steps_offset: used by "leading" alone (1 in Stable Diffusion 1 and 2).
      omit_lowest: of "leading" and "linspace" take num_steps + 1 timesteps without the lowest.
      fractional: leave the timesteps of "linspace" as they fall instead of rounding them.

    Returns:
      `(num_steps,)`, strictly falling; int32, or float32 where a timestep is fractional.

    Raises:
      ValueError: an unknown spacing, or N does not hold that many different timesteps.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}: a sampler needs at least 1")
    num_points = num_steps + 1 if omit_lowest else num_steps
    if spacing == "leading":
        timesteps = (np.arange(num_points) * (num_train_timesteps // num_points))[::-1][:num_steps] + steps_offset
    elif spacing == "trailing":
        timesteps = np.round(num_train_timesteps - np.arange(num_steps) * (num_train_timesteps / num_steps)) - 1
    elif spacing == "linspace":
        timesteps = np.linspace(0, num_train_timesteps - 1, num_points)[::-1][:num_steps]
        timesteps = timesteps if fractional else np.round(timesteps)
    else:
        raise ValueError(f"spacing '{spacing}' is not known: choose one of {', '.join(SPACINGS)}")
    if np.any(np.diff(timesteps) >= 0) or timesteps[0] >= num_train_timesteps or timesteps[-1] < 0:
        raise ValueError(
            f"num_steps {num_steps} with spacing '{spacing}' and steps_offset {steps_offset} does not fit"
            f" a schedule of {num_train_timesteps} timesteps: take fewer steps or a smaller offset"
        )
    whole = np.all(timesteps == np.round(timesteps))
    return timesteps.astype(np.int32 if whole else np.float32)
