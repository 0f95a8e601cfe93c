"""Raises the frame rate of a video file by the model's temporal upsampler.

    python -m videogen_jax.interpolate in.mp4 --factor 4

writes in-x4.mp4 beside the input: the same frames, three more between each two, and the same sound.
"""

import functools
from pathlib import Path
from typing import Any

from absl import app, flags

from videogen_jax.runtime.command_line import fail, parse, speak_plainly

_FACTOR = flags.DEFINE_integer("factor", 2, "What the frame rate is multiplied by: 2, 4, or a product of the model's")
_OUTPUT = flags.DEFINE_string(
    "output", None, "A file ending .mp4, .webm or .gif; beside the input, as <name>-x<factor>.mp4, if not given"
)
_MODEL = flags.DEFINE_string("model", None, "Model folder or hub id; the embedded model if not given")
_KEEP_FRAMES = flags.DEFINE_boolean(
    "keep_frames", True, "Leave the given frames as they are; with --nokeep_frames all come from the model's decoder"
)
_SLOW_MOTION = flags.DEFINE_boolean(
    "slow_motion", False, "Keep the frame rate and make the video longer, without sound"
)
_WINDOW = flags.DEFINE_integer("window", 16, "Frames that the networks take at once; fewer need less memory")
_CUT_THRESHOLD = flags.DEFINE_float(
    "cut_threshold",
    10.0,
    "Mean change of RGB (0 to 255) from one frame to the next that may be a scene change, across which nothing is made",
    lower_bound=0.0,
)
_DTYPE = flags.DEFINE_enum(
    "dtype",
    None,
    ["float32", "bfloat16", "float16"],
    "Type in which the networks compute; the device's best by default",
)


def interpolate(
    source: str,
    factor: int = 2,
    output: str | None = None,
    model: str | None = None,
    keep_frames: bool = True,
    slow_motion: bool = False,
    window: int = 16,
    cut_threshold: float = 10.0,
    dtype: str | None = None,
) -> Path:
    """Writes the video and returns where; see the flags.

    Raises:
      ValueError: for input that cannot work, as far as possible before anything is compiled.
    """
    from videogen_jax.interpolation.files import Plan, default_output, interpolate_file
    from videogen_jax.interpolation.interpolator import Interpolator, check_upsampler, factor_passes
    from videogen_jax.weights.hub import EMBEDDED, resolve
    from videogen_jax.weights.model_index import ModelIndex

    index = ModelIndex.read(resolve(model or EMBEDDED))
    check_upsampler(index)
    factor_passes(factor, index.factors)
    target = default_output(source, factor, slow_motion) if output is None else Path(output)
    plan = Plan.of(source, target, factor, slow_motion)

    from videogen_jax.runtime import compilation_cache, host_memory

    compilation_cache.enable()
    host_memory.keep_freed_memory()
    interpolator = Interpolator.from_pretrained(index.folder, dtype, window, cut_threshold)
    with FrameBar(source) as bar:
        interpolate_file(interpolator, plan, keep_frames, bar)
    print(target, flush=True)
    return target


class FrameBar:
    """A progress bar over the frames of the input, on standard error; called with frames done and all."""

    def __init__(self, title: str):
        self.title = title

    def __enter__(self):
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
        self.task = self.bar.add_task(self.title, total=None)
        self.bar.start()
        return self

    def __call__(self, done: int, of: int) -> None:
        self.bar.update(self.task, completed=done, total=of)

    def __exit__(self, *error: Any) -> None:
        self.bar.stop()


def main(argv: list[str]) -> None:
    speak_plainly()
    try:
        if len(argv) < 2:
            raise ValueError("name the video file: python -m videogen_jax.interpolate in.mp4 --factor 4")
        interpolate(
            argv[1],
            _FACTOR.value,
            _OUTPUT.value,
            _MODEL.value,
            _KEEP_FRAMES.value,
            _SLOW_MOTION.value,
            _WINDOW.value,
            _CUT_THRESHOLD.value,
            _DTYPE.value,
        )
    except (ValueError, OSError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail("stopped", 130)


if __name__ == "__main__":
    app.run(main, flags_parser=functools.partial(parse, positional=1))
