"""Makes videos of sentences.

    python -m videogen_jax.sample --prompt "a small red circle moving right slowly on a gray background"

writes a video and a contact sheet under out/ and prints where. Any field of the config can be set from the command
line: `--config.cascade.steps=30`.
"""

import dataclasses
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from videogen_jax.command_line import fail, parse

ROOT = Path(__file__).resolve().parent
EMBEDDED_MODEL = ROOT / "embedded" / "shapes"
DEFAULT_CONFIG = ROOT.parent / "configs" / "shapes" / "sample.py"
DEFAULT_FOLDER = Path("out")

# Its default is put in by `_parse`: one given here would be read, with all fields set, before flags are parsed.
_CONFIG = config_flags.DEFINE_config_file("config", None, f"Sampling config; {DEFAULT_CONFIG} if not given")
_PROMPT = flags.DEFINE_string("prompt", None, "What the video shows")
_PROMPTS_FILE = flags.DEFINE_string("prompts_file", None, "A text file with one prompt on each line")
_OUTPUT = flags.DEFINE_string(
    "output", None, "A file ending .mp4, .gif, .webm or .png (a contact sheet), or a folder; out/ if not given"
)
_MODEL = flags.DEFINE_string("model", None, "Model folder or hub id; the embedded model if not given")
_REFERENCE_MODEL = flags.DEFINE_string(
    "reference_model", None, "A folder or hub id in diffusers' layout (Stable Diffusion) that draws the reference image"
)
_SEED = flags.DEFINE_integer("seed", None, "Seed of the random numbers, the same for every prompt")
_REFERENCE = flags.DEFINE_string("reference", None, "An image to take instead of drawing the reference image")
_FRAMES = flags.DEFINE_integer("frames", None, "Frames of the video")
_FPS = flags.DEFINE_float("fps", None, "Frames a second at which the file is played")
_GUIDANCE_SCALE = flags.DEFINE_float("guidance_scale", None, "Weight of the text, in all stages")
_REFERENCE_GUIDANCE_SCALE = flags.DEFINE_float("reference_guidance_scale", None, "Weight of the reference image")
_STEPS = flags.DEFINE_integer("steps", None, "Sampling steps of every stage")
_SAVE_REFERENCE = flags.DEFINE_boolean("save_reference", False, "Also write the reference image")


@dataclasses.dataclass(frozen=True)
class Target:
    """Where one prompt's results go. `sheet` and `reference` are None where none is written."""

    prompt: str
    video: Path
    sheet: Path | None
    reference: Path | None

    @property
    def paths(self) -> list[Path]:
        return [path for path in (self.video, self.sheet, self.reference) if path is not None]


def read_prompts(prompt: str | None, prompts_file: str | None) -> list[str]:
    """The prompts of --prompt or --prompts_file. ValueError: none or both are given, or one is empty."""
    if (prompt is None) == (prompts_file is None):
        raise ValueError("give either --prompt or --prompts_file")
    if prompts_file is None:
        if not prompt.strip():
            raise ValueError("--prompt is empty")
        return [prompt.strip()]
    path = Path(prompts_file)
    if not path.is_file():
        raise ValueError(f"--prompts_file {path} does not exist" if not path.exists() else f"{path} is not a file")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--prompts_file {path} cannot be read as UTF-8 text: {error}") from error
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise ValueError(f"--prompts_file {path} has no prompts")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise ValueError(f"--prompts_file {path}: line {number} is empty")
    return [line.strip() for line in lines]


def slug(prompt: str) -> str:
    """A short file name: `A red circle!` -> `a-red-circle`."""
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower())[:60].strip("-") or "video"


def plan_targets(prompts: Sequence[str], output: str | None, seed: int, save_reference: bool) -> list[Target]:
    """Where the results of each prompt go; the folders are created.

    Raises:
      ValueError: a path cannot be written, or is one file for several prompts.
    """
    from videogen_jax.video_io import IMAGE_SUFFIXES, SUFFIXES, check_writable

    target = DEFAULT_FOLDER if output is None else Path(output)
    is_folder = output is None or output.endswith(("/", "\\")) or target.is_dir() or not target.suffix
    if is_folder and target.exists() and not target.is_dir():
        raise ValueError(f"--output {target} is a file without an ending that names a format")
    if not is_folder and len(prompts) > 1:
        raise ValueError(f"--output {target} is one file, but there are {len(prompts)} prompts: give a folder")
    digits = max(3, len(str(len(prompts))))
    targets = []
    for number, prompt in enumerate(prompts, 1):
        video = target
        if is_folder:
            index = f"{number:0{digits}d}-" if len(prompts) > 1 else ""
            video = target / f"{index}{slug(prompt)}-{seed}.mp4"
        sheet = None if video.suffix.lower() == ".png" else video.with_suffix(".png")
        reference = video.with_name(f"{video.stem}-reference.png") if save_reference else None
        targets.append(Target(prompt, video, sheet, reference))
        check_writable(video, SUFFIXES)
        for path in (sheet, reference):
            if path is not None:
                check_writable(path, IMAGE_SUFFIXES)
    return targets


def stage_settings(config: ConfigDict, cascade: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The config's `reference` and `cascade` sections as `VideoGenPipeline` takes them: field -> stage -> value."""
    settings: dict[str, dict[str, Any]] = {}
    for section, stages in (("reference", ("reference",)), ("cascade", cascade)):
        for name, value in config[section].items():
            if value is not None:
                settings.setdefault(name, {}).update(dict.fromkeys(stages, value))
    return settings


def sample(
    config: ConfigDict,
    prompts: Sequence[str],
    output: str | None = None,
    reference: str | None = None,
    save_reference: bool = False,
) -> list[Target]:
    """Makes a video of each prompt, writes it and prints where; what is written stays if a later prompt fails.

    Raises:
      ValueError: for input that cannot work, before any program is compiled.
    """
    from videogen_jax.model_index import ModelIndex
    from videogen_jax.video_io import VideoWriter, read_image
    from videogen_jax.weights.hub import resolve

    if config.batch_size < 1:
        raise ValueError(f"config.batch_size is {config.batch_size}, but must be at least 1")
    if config.sheet_columns < 1:
        raise ValueError(f"config.sheet_columns is {config.sheet_columns}, but must be at least 1")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"seed is {config.seed}, but must be from 0 to {2**32 - 1}")
    if config.dtype not in ("", "float32", "bfloat16", "float16"):
        raise ValueError(f"config.dtype is {config.dtype!r}, but must be float32, bfloat16 or float16")
    if not config.model and not EMBEDDED_MODEL.is_dir():
        raise ValueError(f"the embedded model is not at {EMBEDDED_MODEL}: give a model folder with --model")
    index = ModelIndex.read(resolve(config.model or EMBEDDED_MODEL))
    reference_model = None
    if config.reference_model and reference is None:
        from videogen_jax.text_to_image import TextToImage

        reference_model = resolve(config.reference_model)
        index = index.with_reference(TextToImage.default_settings(reference_model))
    settings = stage_settings(config, index.cascade)
    timeline = index.timeline(config.frames, config.temporal_factor, config.fps)
    index.settings(**settings)
    index.decoding(config.decode_chunk, config.decode_overlap)
    image = None if reference is None else read_image(reference)
    targets = plan_targets(prompts, output, config.seed, save_reference)
    for target in targets:
        VideoWriter(target.video, timeline.fps, (1, 1))  # refuses a rate that the format does not have

    from videogen_jax import compilation_cache

    compilation_cache.enable()

    from videogen_jax.pipeline import VideoGenPipeline

    pipeline = VideoGenPipeline.from_pretrained(
        index.folder, config.dtype or None, config.report_steps, reference_model
    )
    pipeline.check_prompts(prompts)
    batch_size = min(config.batch_size, len(prompts))
    for first in range(0, len(targets), batch_size):
        batch = targets[first : first + batch_size]
        with StageBars(first, len(batch), len(targets)) as callback, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # check_prompts has told
            result = pipeline(
                [target.prompt for target in batch],
                seed=config.seed,
                reference=image,
                num_frames=config.frames,
                temporal_factor=config.temporal_factor,
                fps=config.fps,
                decode_chunk=config.decode_chunk,
                decode_overlap=config.decode_overlap,
                batch_size=batch_size,
                callback=callback,
                **settings,
            )
        for target, frames, drawn in zip(batch, result.frames, result.reference, strict=True):
            _write(target, frames, drawn, result.fps, config)
    return targets


def _write(target: Target, frames: Any, reference: Any, fps: float, config: ConfigDict) -> None:
    from videogen_jax.video_io import contact_sheet, write_image, write_video

    about = {"title": target.prompt, "comment": f"VideoGen in JAX, seed {config.seed}"}
    if target.sheet is None:
        write_image(target.video, contact_sheet(frames, config.sheet_columns))
    else:
        write_video(target.video, frames, fps, about)
        write_image(target.sheet, contact_sheet(frames, config.sheet_columns))
    if target.reference is not None:
        write_image(target.reference, reference)
    for path in target.paths:
        print(path, flush=True)


class StageBars:
    """A progress bar for each stage, named after it, as the pipeline's callback; on standard error.

    Prompts `first` to `first + count` of `total` are being sampled.
    """

    def __init__(self, first: int, count: int, total: int):
        self.title = "" if total == 1 else f"{first + 1}-{first + count} of {total}: "

    def __enter__(self):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self.bar = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True))
        self.bar.start()
        self.stage, self.task = None, None
        return self

    def __call__(self, stage: str, step: int, of: int, preview: Any) -> None:
        if stage != self.stage:
            self.stage, self.task = stage, self.bar.add_task(f"{self.title}{stage}", total=of)
        self.bar.update(self.task, completed=step)

    def __exit__(self, *error) -> None:
        self.bar.stop()


def _config() -> ConfigDict:
    """The config with the flags that were given written over it. ValueError: a field that they set is missing."""
    config = _CONFIG.value
    with config.unlocked():
        for flag in (_MODEL, _REFERENCE_MODEL, _SEED, _FRAMES, _FPS):
            if flag.value is not None:
                config[flag.name] = flag.value
        for flag, sections in (
            (_GUIDANCE_SCALE, ("reference", "cascade")),
            (_REFERENCE_GUIDANCE_SCALE, ("cascade",)),
            (_STEPS, ("reference", "cascade")),
        ):
            if flag.value is not None:
                for section in sections:
                    config[section][flag.name] = flag.value
    return config


def _parse(argv: Sequence[str]) -> list[str]:
    """Parses the flags, with the default config where none is named."""
    named = any(re.fullmatch(r"--?config(=.*)?", argument) for argument in argv[1:])
    return parse(argv if named else [argv[0], f"--config={DEFAULT_CONFIG}", *argv[1:]])


def _show_warning(message: Warning | str, *_: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


def main(argv: list[str]) -> None:
    del argv
    warnings.showwarning = _show_warning
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        prompts = read_prompts(_PROMPT.value, _PROMPTS_FILE.value)
        sample(_config(), prompts, _OUTPUT.value, _REFERENCE.value, _SAVE_REFERENCE.value)
    except (ValueError, OSError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail("stopped", 130)


if __name__ == "__main__":
    app.run(main, flags_parser=_parse)
