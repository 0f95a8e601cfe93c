"""Making videos of prompts, or of recipes, and writing them: what `videogen_jax.sample` does."""

import dataclasses
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from videogen_jax.runtime import compilation_cache, host_memory
from videogen_jax.runtime.backend import check_backend
from videogen_jax.runtime.executables import keep_executables
from videogen_jax.sampling.exported import ExportingPrograms, platform
from videogen_jax.sampling.generate import ShapeExecutor, fit_references, generate
from videogen_jax.sampling.pipeline import VideoGenOutput, VideoGenPipeline
from videogen_jax.sampling.recipe import Recipe, array_digest, software
from videogen_jax.sampling.request import MAX_SEED, SamplingRequest
from videogen_jax.sampling.source import COMPONENTS, ModelSource
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
from videogen_jax.weights.model_index import Size

DEFAULT_FOLDER = Path("out")


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


def sample(
    config: ConfigDict,
    prompts: Sequence[str],
    output: str | None = None,
    reference: str | None = None,
    save_reference: bool = False,
) -> list[Target]:
    """Make a video of each prompt, write it and print where; what is written stays if a later prompt fails.

    There may be no prompt where there is a reference image and the model reads no text.

    Raises:
      ValueError: for input that cannot work, before any program is compiled.
    """
    source = find_model(config, drawn=reference is None)
    image = None if reference is None else read_image(reference)
    request = SamplingRequest.from_config(config, prompts, reference=image, batch_size=len(prompts) or None)
    request = request.resolve(source.index)
    warn_of_size(request, source.index.size)
    names = request.prompts if prompts else (Path(reference).stem,)
    targets = plan_targets(names, output, config.seed, save_reference)
    check_rate(targets, request.fps)
    pipeline = load(config, source)
    first = 0
    for batch, inputs in pipeline.batches(dataclasses.replace(request, batch_size=config.batch_size)):
        with StageBars(first, len(batch.prompts), len(targets)) as callback:
            result = pipeline.sample(batch, callback, inputs=inputs)
        for slot in range(len(batch.prompts)):
            write(targets[first + slot], result, slot, config.sheet_columns)
        first += len(batch.prompts)
    return targets


def remake(
    config: ConfigDict,
    recipe_file: str,
    output: str | None = None,
    reference: str | None = None,
    save_reference: bool = False,
) -> Target:
    """Make a video again from the recipe that a file holds: the same frames, bit for bit, on the same machine.

    Of the config the model, where it is set, says where the recipe's model is now; `reference` is needed where the
    recipe had one. Written to <name>-again.mp4 beside the file unless `output` says where.

    Raises:
      ValueError: the file holds no recipe, or something that it needs is missing or another one.
    """
    recipe = Recipe.read(recipe_file)
    if recipe.noise:
        raise ValueError(
            f"{recipe_file} was made from noise that was given for {', '.join(recipe.noise)}, which a recipe does not "
            "hold: make it again in Python, with latents=..."
        )
    if (recipe.reference is None) != (reference is None):
        wants = "drawn by the model: leave --reference out" if reference else "given: say with --reference where it is"
        raise ValueError(f"the reference image of {recipe_file} was {wants}")
    with config.unlocked():
        config.model = config.model or recipe.model
        config.reference_model = config.reference_model or recipe.reference_model or ""
        for name, value in (recipe.components or {}).items():
            config[name] = config.get(name) or value
        config.dtype = config.dtype or recipe.dtype
    source = find_model(config, drawn=reference is None)
    request, image = recipe.whole_batch(), None
    if reference is not None:
        (image,) = fit_references(read_image(reference), 1, request.size)
        if array_digest(image) != recipe.reference:
            raise ValueError(f"--reference {reference} is not the image that {recipe_file} was made from")
    request = dataclasses.replace(request, reference=image).resolve(source.index)
    path = Path(recipe_file)
    output = output or str(path.with_name(f"{path.stem}-again.mp4"))
    (target,) = plan_targets([recipe.prompt], output, recipe.seed, save_reference)
    check_rate([target], request.fps)
    pipeline = load(config, source)
    _warn_of_differences(recipe, recipe_file, pipeline)
    with StageBars(0, 1, 1) as callback, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of unknown words there was a warning when it was first made
        result = pipeline.sample(request, callback)
    write(target, result, recipe.slot, config.sheet_columns)
    return target


def export_programs(
    config: ConfigDict,
    output: str,
    batch_sizes: Sequence[int],
    platforms: Sequence[str] | None = None,
    previews: bool = True,
) -> Path:
    """Export the programs of a video in each batch size, and write them into the folder `output`.

    They are compiled too, so that their executables are there for a process that starts here.

    Args:
      platforms: see `videogen_jax.sampling.exported.ExportingPrograms`; None: the one here.
      previews: with the programs that show a video before it is decoded.

    Raises:
      ValueError: for a config that cannot work, before any program is compiled.
    """
    if config.aot:
        raise ValueError("config.aot names programs that are exported already: leave it out")
    source = find_model(config, drawn=True)
    platforms = ExportingPrograms.check([platform()] if platforms is None else platforms)
    Path(output).mkdir(parents=True, exist_ok=True)
    given = {}
    if source.index.reads_reference and not source.index.draws_reference:
        given["reference"] = np.zeros((*source.index.size, 3), np.uint8)  # any image will do
    requests = [SamplingRequest.from_config(config, ["a video"], batch_size=size, **given) for size in batch_sizes]
    requests = [request.resolve(source.index) for request in requests]
    pipeline = load(config, source)
    programs = ExportingPrograms(platforms, pipeline.programs.executables)
    for request in requests:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the prompt says does not matter
            inputs = pipeline.inputs(request)
        generate(pipeline, request, inputs, ShapeExecutor(programs.prepare), previews)
    programs.wait()
    return programs.write(output, pipeline.fingerprint, pipeline.dtype)


def find_model(config: ConfigDict, drawn: bool) -> ModelSource:
    """Check the fields that cannot work whatever the model, and find it.

    Args:
      config: a sampling config.
      drawn: the reference image is drawn, by `config.reference_model` if it is set.

    Raises:
      ValueError: naming the field, or what is wrong with the folder of the model or of the exported programs.
    """
    for name in ("batch_size", "sheet_columns"):
        if config[name] < 1:
            raise ValueError(f"config.{name} is {config[name]}, but must be at least 1")
    if not 0 <= config.seed <= MAX_SEED:
        raise ValueError(f"seed is {config.seed}, but must be from 0 to {MAX_SEED}")
    if config.dtype not in ("", "float32", "bfloat16", "float16"):
        raise ValueError(f"config.dtype is {config.dtype!r}, but must be float32, bfloat16 or float16")
    components = {name: config.get(name) for name in COMPONENTS}
    return ModelSource.find(config.model, config.reference_model if drawn else None, config.aot, **components)


def load(config: ConfigDict, source: ModelSource) -> VideoGenPipeline:
    """The pipeline of a model, whose compiled programs are kept for the next run."""
    check_backend()
    cache = keep_executables(compilation_cache.enable())
    host_memory.keep_freed_memory()
    return VideoGenPipeline.load(source, config.dtype or None, cache)


def warn_of_size(request: SamplingRequest, trained: Size) -> None:
    """Warn of a size that the model was not trained on."""
    if request.size != trained:
        height, width = trained
        warnings.warn(f"the model was trained on {height}x{width} pixels; other sizes come out worse", stacklevel=2)


def _warn_of_differences(recipe: Recipe, recipe_file: str, pipeline: VideoGenPipeline) -> None:
    """Warn where the model or the software is not the recipe's."""
    if pipeline.fingerprint != recipe.fingerprint:
        warnings.warn(
            f"{pipeline.name} is not the model that {recipe_file} was made with ({recipe.model}, fingerprint "
            f"{recipe.fingerprint[:12]}), so the video will be another one; --model names a model",
            stacklevel=3,
        )
    now = software()
    changed = [f"{name} {was}, not {now.get(name)}" for name, was in recipe.software.items() if now.get(name) != was]
    if changed:
        warnings.warn(
            f"{recipe_file} was made with {' and '.join(changed)}; the video may differ a little", stacklevel=3
        )


def check_rate(targets: Sequence[Target], fps: float) -> None:
    """Raise ValueError for a rate that the format of a file does not have."""
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
