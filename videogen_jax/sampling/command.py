"""Making videos of prompts, or of recipes, and writing them: what `videogen_jax.sample` does."""

import dataclasses
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from videogen_jax.runtime import compilation_cache, host_memory
from videogen_jax.sampling.exported import ExportingPrograms, StoredPrograms, platform
from videogen_jax.sampling.pipeline import VideoGenOutput, VideoGenPipeline, fit_references, software
from videogen_jax.sampling.recipe import Recipe, pixel_digest
from videogen_jax.sampling.text_to_image import TextToImage
from videogen_jax.video_io import (
    IMAGE_SUFFIXES,
    SUFFIXES,
    VideoWriter,
    check_writable,
    contact_sheet,
    read_image,
    write_image,
    write_video,
)
from videogen_jax.weights.hub import EMBEDDED, resolve
from videogen_jax.weights.model_index import SETTINGS, ModelIndex

DEFAULT_FOLDER = Path("out")
EXPORTED_STEPS = 2  # a program is one step, so few show that all of them run


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


def slug(prompt: str) -> str:
    """A short file name: `A red circle!` -> `a-red-circle`."""
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower())[:60].strip("-") or "video"


def plan_targets(prompts: Sequence[str], output: str | None, seed: int, save_reference: bool) -> list[Target]:
    """Where the results of each prompt go; the folders are created.

    Raises:
      ValueError: a path cannot be written, or is one file for several prompts.
    """
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
    check_config(config)
    index = read_index(config, drawn=reference is None)
    settings = stage_settings(config, index.cascade)
    timeline = index.timeline(config.frames, config.temporal_factor, config.fps)
    index.settings(**settings)
    index.decoding(config.decode_chunk, config.decode_overlap)
    size = read_size(config.size)
    image = None if reference is None else read_image(reference)
    targets = plan_targets(prompts, output, config.seed, save_reference)
    check_rate(targets, timeline.fps)
    pipeline = load(config, index, drawn=reference is None)
    pipeline.check_prompts(prompts)
    warn_of_size(pipeline, size)
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
                size=size,
                decode_chunk=config.decode_chunk,
                decode_overlap=config.decode_overlap,
                batch_size=batch_size,
                callback=callback,
                **settings,
            )
        for slot, target in enumerate(batch):
            write(target, result, slot, config.sheet_columns)
    return targets


def remake(
    config: ConfigDict,
    recipe_file: str,
    output: str | None = None,
    reference: str | None = None,
    save_reference: bool = False,
) -> Target:
    """Makes a video again from the recipe that a file holds: the same frames, bit for bit, on the same machine.

    Of the config the model, where it is set, says where the recipe's model is now; `reference` is asked for where the
    recipe had one. Written to <name>-again.mp4 beside the file unless `output` says where.

    Raises:
      ValueError: the file holds no recipe, or something that it needs is missing or another one.
    """
    check_config(config)
    recipe = Recipe.read(recipe_file)
    if (recipe.reference is None) != (reference is None):
        wants = "drawn by the model: leave --reference out" if reference else "given: say with --reference where it is"
        raise ValueError(f"the reference image of {recipe_file} was {wants}")
    with config.unlocked():
        config.model = config.model or recipe.model
        config.reference_model = config.reference_model or recipe.reference_model or ""
        config.dtype = config.dtype or recipe.dtype
    index = read_index(config, drawn=reference is None)
    image = None
    if reference is not None:
        (image,) = fit_references(read_image(reference), 1, recipe.size)
        if pixel_digest(image) != recipe.reference:
            raise ValueError(f"--reference {reference} is not the image that {recipe_file} was made from")
    path = Path(recipe_file)
    (target,) = plan_targets(
        [recipe.prompt], output or str(path.with_name(f"{path.stem}-again.mp4")), recipe.seed, save_reference
    )
    check_rate([target], recipe.fps)
    pipeline = load(config, index, drawn=reference is None)
    if pipeline.fingerprint != recipe.fingerprint:
        warnings.warn(
            f"{config.model} is not the model that {recipe_file} was made with ({recipe.model}, fingerprint "
            f"{recipe.fingerprint[:12]}), so the video will be another one; --model names a model",
            stacklevel=2,
        )
    now = software()
    changed = [f"{name} {was}, not {now.get(name)}" for name, was in recipe.software.items() if now.get(name) != was]
    if changed:
        warnings.warn(
            f"{recipe_file} was made with {' and '.join(changed)}; the video may differ a little", stacklevel=2
        )
    settings = {
        field: {stage: getattr(at, field) for stage, at in recipe.settings.items() if stage in index.stages}
        for field in SETTINGS
    }
    with StageBars(0, 1, 1) as callback, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = pipeline(
            [recipe.prompt] * recipe.batch_size,
            seed=recipe.seed,
            reference=image,
            num_frames=recipe.num_frames,
            temporal_factor=recipe.temporal_factor,
            fps=recipe.fps,
            size=recipe.size,
            decode_chunk=recipe.decode_chunk,
            decode_overlap=recipe.decode_overlap,
            callback=callback,
            **settings,
        )
    write(target, result, recipe.slot, config.sheet_columns)
    return target


def export_programs(
    config: ConfigDict,
    output: str,
    batch_sizes: Sequence[int],
    platforms: Sequence[str] | None = None,
    previews: bool = True,
) -> Path:
    """Makes a video in each batch size with few steps, and writes the programs that it took into the folder `output`.

    Args:
      platforms: see `videogen_jax.sampling.exported.ExportingPrograms`; None: the one here.
      previews: with the programs that show a video before it is decoded.

    Raises:
      ValueError: for a config that cannot work, before any program is compiled.
    """
    if config.aot:
        raise ValueError("config.aot names programs that are exported already: leave it out")
    check_config(config)
    programs = ExportingPrograms([platform()] if platforms is None else platforms)
    Path(output).mkdir(parents=True, exist_ok=True)
    index = read_index(config, drawn=True)
    size = read_size(config.size)
    settings = stage_settings(config, index.cascade) | {"steps": EXPORTED_STEPS}
    pipeline = load(config, index, drawn=True)
    pipeline.programs = programs
    prompt = " ".join(pipeline.known_words[:1]) or "a video"
    for batch_size in batch_sizes:
        pipeline(
            prompt,
            num_frames=config.frames,
            temporal_factor=config.temporal_factor,
            size=size,
            decode_chunk=config.decode_chunk,
            decode_overlap=config.decode_overlap,
            batch_size=batch_size,
            previews=previews,
            **settings,
        )
    return programs.write(output, pipeline.fingerprint, pipeline.dtype)


def check_config(config: ConfigDict) -> None:
    """Raises ValueError for fields that cannot work whatever the model."""
    if config.batch_size < 1:
        raise ValueError(f"config.batch_size is {config.batch_size}, but must be at least 1")
    if config.sheet_columns < 1:
        raise ValueError(f"config.sheet_columns is {config.sheet_columns}, but must be at least 1")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"seed is {config.seed}, but must be from 0 to {2**32 - 1}")
    if config.dtype not in ("", "float32", "bfloat16", "float16"):
        raise ValueError(f"config.dtype is {config.dtype!r}, but must be float32, bfloat16 or float16")
    if config.aot:
        StoredPrograms.read(config.aot)


def read_size(size: str) -> tuple[int, int] | None:
    """ "128x192" -> (128, 192), height first; "" -> None. ValueError: it is neither."""
    match = re.fullmatch(r"(\d+)x(\d+)", size)
    if size and not match:
        raise ValueError(f"size is {size!r}, but must be height x width in pixels, as 128x192")
    return (int(match[1]), int(match[2])) if match else None


def warn_of_size(pipeline: VideoGenPipeline, size: tuple[int, int] | None) -> None:
    """ValueError for a size that the model cannot make, a warning for one that it was not trained on."""
    if size is None:
        return
    pipeline.check_size(size)
    side = pipeline.resolution
    if size != (side, side):
        warnings.warn(f"the model was trained on {side}x{side} pixels; other sizes come out worse", stacklevel=2)


def read_index(config: ConfigDict, drawn: bool) -> ModelIndex:
    """What the config's model says of itself; drawn: whether the reference image is to be drawn."""
    index = ModelIndex.read(resolve(config.model or EMBEDDED))
    if config.reference_model and drawn:
        index = index.with_reference(TextToImage.default_settings(resolve(config.reference_model)))
    return index


def load(config: ConfigDict, index: ModelIndex, drawn: bool) -> VideoGenPipeline:
    """The pipeline of the config's model, whose programs are kept for the next run."""
    compilation_cache.enable()
    host_memory.keep_freed_memory()
    reference_model = resolve(config.reference_model) if config.reference_model and drawn else None
    return VideoGenPipeline.from_pretrained(
        index.folder, config.dtype or None, reference_model, config.model or EMBEDDED, aot=config.aot or None
    )


def check_rate(targets: Sequence[Target], fps: float) -> None:
    """Raises ValueError for a rate that the format of a file does not have."""
    for target in targets:
        VideoWriter(target.video, fps, (1, 1))


def write(target: Target, result: VideoGenOutput, slot: int, sheet_columns: int) -> None:
    """Writes one video of a pipeline's output, and prints the files that there are now."""
    frames, metadata = result.frames[slot], result.recipes[slot].metadata()
    if target.sheet is not None:
        write_video(target.video, frames, result.fps, metadata)
    write_image(target.sheet or target.video, contact_sheet(frames, sheet_columns), metadata)
    if target.reference is not None:
        write_image(target.reference, result.reference[slot])
    for path in target.paths:
        print(path, flush=True)


class StageBars:
    """A progress bar for each stage, named after it, as the pipeline's callback; on standard error.

    Prompts `first` to `first + count` of `total` are being sampled.
    """

    def __init__(self, first: int, count: int, total: int):
        self.title = "" if total == 1 else f"{first + 1}-{first + count} of {total}: "

    def __enter__(self):
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
