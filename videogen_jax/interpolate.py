"""Raise the frame rate of a video file with the model's temporal upsampler.

    python -m videogen_jax.interpolate in.mp4 --factor 4

writes in-x4.mp4 next to the input: its frames, three new ones between each two, and its sound.
"""

import functools
from pathlib import Path
from typing import Any

from absl import app, flags

from videogen_jax.runtime.command_line import configure_output, fail, parse

_FACTOR = flags.DEFINE_integer("factor", 2, "What the frame rate is multiplied by: 2, 4, or a product of the model's")
_OUTPUT = flags.DEFINE_string(
    "output", None, "A .mp4, .webm or .gif file; by default <name>-x<factor>.mp4 next to the input"
)
_MODEL = flags.DEFINE_string("model", None, "Model folder or hub id; by default the embedded model")
_KEEP_FRAMES = flags.DEFINE_boolean(
    "keep_frames", True, "Keep the frames of the input; with --nokeep_frames all frames come from the model's decoder"
)
_SLOW_MOTION = flags.DEFINE_boolean(
    "slow_motion", False, "Keep the frame rate and make the video longer, without sound"
)
_WINDOW = flags.DEFINE_integer("window", 16, "Frames that the networks process at once; fewer need less memory")
_CUT_THRESHOLD = flags.DEFINE_float(
    "cut_threshold",
    10.0,
    "Mean change of RGB (0 to 255) between frames above which there may be a scene change, which is not interpolated",
    lower_bound=0.0,
)
_DTYPE = flags.DEFINE_enum(
    "dtype",
    None,
    ["float32", "bfloat16", "float16"],
    "Type in which the networks compute; by default float32 on a CPU, bfloat16 elsewhere",
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
    """Raise the frame rate of a video file; see the flags for the arguments.

    Returns: path of the new file.

    Raises:
      ValueError: an argument or the input is wrong; as far as possible, before anything is compiled.
    """
    from videogen_jax.interpolation.files import Plan, default_output, interpolate_file
    from videogen_jax.interpolation.interpolator import Interpolator, check_upsampler, factor_passes
    from videogen_jax.weights.hub import EMBEDDED, resolve
    from videogen_jax.weights.model_index import ModelIndex

    index = ModelIndex.read(resolve(model or EMBEDDED))
    check_upsampler(index)
    factor_passes(factor, index.factors)
    target = default_output(source, factor, slow_motion) if output is None else Path(output)
    plan = Plan.from_file(source, target, factor, slow_motion)

    from videogen_jax.runtime import compilation_cache, host_memory
    from videogen_jax.runtime.backend import check_backend

    check_backend()
    compilation_cache.enable()
    host_memory.keep_freed_memory()
    interpolator = Interpolator.from_pretrained(index.folder, dtype, window, cut_threshold)
    with FrameBar(source) as bar:
        interpolate_file(interpolator, plan, keep_frames, bar)
    print(target, flush=True)
    return target


class FrameBar:
    """A progress bar on standard error, called with the number of finished frames of the input and the total."""

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
    configure_output()
    try:
        if len(argv) < 2:
            raise ValueError("no video file: run python -m videogen_jax.interpolate in.mp4 --factor 4")
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
