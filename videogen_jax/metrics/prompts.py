"""Whether generated videos of the shapes world show what their prompts say."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from videogen_jax.data import shapes
from videogen_jax.metrics.consistency import shapes_consistency
from videogen_jax.metrics.published import PublishedMeasures
from videogen_jax.metrics.results import ResultLog
from videogen_jax.metrics.shapes_reader import (
    ATTRIBUTES,
    IMAGE_ATTRIBUTES,
    Reading,
    compare,
    read_clip,
    read_image,
)
from videogen_jax.metrics.sheets import captioned_sheet, strip
from videogen_jax.metrics.statistics import bootstrap, tally
from videogen_jax.pipeline import VideoGenPipeline
from videogen_jax.video_io import read_image as load_image
from videogen_jax.video_io import write_image

SHEET_ROWS = 16
_CARDINALITIES = (len(shapes.COLOURS), len(shapes.SHAPES), len(shapes.MOTIONS))


def sample_captions(count: int, split: str = "held_out", seed: int = 0) -> list[str]:
    """Captions that cover the split's colours, shapes and motions as evenly as it allows.

    No triple comes twice before each has come once; sizes and backgrounds take turns. The first n captions are the
    same for every count of at least n.

    Raises:
      ValueError: count is below 1, or there is no such split.
    """
    if count < 1:
        raise ValueError(f"the number of prompts is {count}, but must be at least 1")
    rng = np.random.default_rng(seed)
    triples = list(shapes.all_triples(split))
    rng.shuffle(triples)
    settings = [(size, background) for size in shapes.SIZES for background in shapes.BACKGROUNDS]
    used = dict.fromkeys(triples, 0)
    seen: list[dict[str, int]] = [{}, {}, {}]  # how often each colour, shape and motion has come

    def turn(triple: tuple[str, str, str]) -> tuple[int, int]:
        shares = zip(triple, seen, _CARDINALITIES, strict=True)
        return used[triple], sum(counts.get(value, 0) * values for value, counts, values in shares)

    captions = []
    for number in range(count):
        if number % len(settings) == 0:
            rng.shuffle(settings)
        triple = min(triples, key=turn)  # of those that are equally due, the first as shuffled
        used[triple] += 1
        for value, counts in zip(triple, seen, strict=True):
            counts[value] = counts.get(value, 0) + 1
        size, background = settings[number % len(settings)]
        captions.append(shapes.ShapesClip(size, *triple, background, 0.5, 0.5).caption)
    return captions


def example_seed(seed: int, repeat: int, number: int) -> int:
    """The seed of a prompt's video in a repeat: prompts and repeats are independent of one another."""
    return int(np.random.SeedSequence((seed, repeat, number)).generate_state(1)[0])


def sampling_settings(sampling: Mapping[str, Any], cascade: Sequence[str]) -> dict[str, Any]:
    """The config's `sampling` section as the pipeline takes it: field -> stage -> value, what is None left out.

    Beside `reference` and `cascade` it may have sections for stages of the cascade, which go before what all have.
    """
    settings: dict[str, Any] = {}
    sections = {"reference": ("reference",), "cascade": cascade} | {
        name: (name,) for name in cascade if name in sampling
    }
    for section, stages in sections.items():
        for name, value in sampling[section].items():
            if value is not None:
                settings.setdefault(name, {}).update(dict.fromkeys(stages, value))
    return settings


def measure_prompts(
    pipeline: VideoGenPipeline,
    config: Any,
    split: str,
    log: ResultLog,
    folder: Path,
    published: PublishedMeasures,
) -> dict[str, Any]:
    """Generates a video of each prompt and seed that is not in the log yet, and scores all of them.

    Args:
      pipeline: of a model of the shapes world.
      config: `prompts`, `seeds`, `seed`, `batch_size`, `sampling`, `real_clips`.
      split: of the captions.
      log: where each video's scores are kept. Of the videos themselves `folder/strips` keeps a few frames of the first
        SHEET_ROWS and of those that are not all right.
      folder: for `contact_sheet.png`, and `failures.png` where there are any.
      published: the feature networks that have weights; they see each video as it is made. A video that was made
        before a network came is made again.

    Returns: `video` and `reference`, `tally`s by attribute, which take the seeds of one prompt for independent;
      `video_of_right_reference`, the videos' where everything in the reference image is right; `consistency`, means
      with intervals of what `shapes_consistency` measures, over the videos that have it; `published`, see
      `PublishedMeasures.summary`, distances being to `real_clips` rendered clips of the split; `results`, all scores
      and readings.
    """
    captions = sample_captions(config.prompts, split, config.seed)
    examples = {
        f"{repeat}-{number:04d}": (caption, example_seed(config.seed, repeat, number))
        for repeat in range(config.seeds)
        for number, caption in enumerate(captions)
    }
    sampling = config.sampling.to_dict()
    generate = functools.partial(
        pipeline,
        batch_size=min(config.batch_size, len(examples)),
        temporal_factor=sampling["temporal_factor"],
        **sampling_settings(sampling, pipeline.index.cascade),
    )
    shown = [f"0-{number:04d}" for number in range(min(SHEET_ROWS, len(captions)))]
    shown_at_most = {f"0-{number:04d}" for number in range(SHEET_ROWS)}  # more prompts may be asked for later
    strips = folder / "strips"
    left = [key for key in examples if key not in log.records or not published.has(key)]
    with Progress() as progress:
        task = progress.add_task("prompts", total=len(examples), completed=len(examples) - len(left))
        for first in range(0, len(left), config.batch_size):
            keys = left[first : first + config.batch_size]
            prompts, seeds = zip(*(examples[key] for key in keys), strict=True)
            made = generate(prompts, seed=seeds)
            records = [
                _judge(key, prompt, seed, frames, reference)
                for key, prompt, seed, frames, reference in zip(
                    keys, prompts, seeds, made.frames, made.reference, strict=True
                )
            ]
            published.add(keys, prompts, made.frames)
            for record, frames, reference in zip(records, made.frames, made.reference, strict=True):
                if record["key"] in shown_at_most or _failed(record):
                    write_image(strips / f"{record['key']}.png", strip(frames, reference))
            log.append([record for record in records if record["key"] not in log.records])
            progress.advance(task, len(keys))

    results = [log.records[key] for key in examples]
    real = _see_real_clips(pipeline, config, split, published, made_frames=_num_frames(pipeline, sampling))

    def sheet(keys: Sequence[str]) -> np.ndarray:
        return captioned_sheet(
            [load_image(strips / f"{key}.png") for key in keys], [_title(log.records[key]) for key in keys]
        )

    write_image(folder / "contact_sheet.png", sheet(shown))
    failures = [record["key"] for record in results if _failed(record)][:SHEET_ROWS]
    if failures:
        write_image(folder / "failures.png", sheet(failures))
    else:
        (folder / "failures.png").unlink(missing_ok=True)
    right_reference = [record for record in results if all(record["reference_right"].values())]
    return {
        "video": tally_attributes([record["right"] for record in results], ATTRIBUTES),
        "reference": tally_attributes([record["reference_right"] for record in results], IMAGE_ATTRIBUTES),
        "video_of_right_reference": tally_attributes([record["right"] for record in right_reference], ATTRIBUTES),
        "consistency": _means([record["consistency"] for record in results]),
        "published": published.summary(list(examples), real),
        "results": results,
    }


def _num_frames(pipeline: VideoGenPipeline, sampling: Mapping[str, Any]) -> int:
    return pipeline.index.timeline(temporal_factor=sampling["temporal_factor"]).num_frames


def _see_real_clips(
    pipeline: VideoGenPipeline, config: Any, split: str, published: PublishedMeasures, made_frames: int
) -> list[str]:
    """Shows the networks rendered clips, of the frames and resolution that the model makes; returns their keys."""
    if not published.networks:
        return []
    size = f"{made_frames}x{pipeline.resolution}"
    keys = [f"real-{split}-{config.seed}-{size}-{number:05d}" for number in range(config.real_clips)]
    times = shapes.frame_times(made_frames)
    for number, key in enumerate(keys):
        if not published.has(key):
            clip = shapes.sample_clip(config.seed, number, split)
            published.add([key], [clip.caption], [shapes.render(clip, times, pipeline.resolution)])
    return keys


def _means(records: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, Any]]:
    """The mean of each number over the records that have it, with its interval and `count`."""
    result = {}
    for name in records[0]:
        values = [record[name] for record in records if record[name] is not None]
        if values:
            result[name] = {**bootstrap(lambda x: x.mean(axis=-1), values), "count": len(values)}
    return result


def tally_attributes(scores: Sequence[Mapping[str, bool]], attributes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A `tally` for each attribute, of the scores that have it, and one for `all` of a score's at once."""
    columns = {name: [values[name] for values in scores if name in values] for name in attributes}
    columns["all"] = [all(values.values()) for values in scores]
    return {name: tally(values) for name, values in columns.items() if values}


def _judge(key: str, prompt: str, seed: int, frames: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    seen, seen_in_reference = read_clip(frames), read_image(reference)
    return {
        "key": key,
        "prompt": prompt,
        "seed": seed,
        "right": compare(seen, prompt),
        "read": _words(seen, ATTRIBUTES),
        "reference_right": compare(seen_in_reference, prompt, IMAGE_ATTRIBUTES),
        "reference_read": _words(seen_in_reference, IMAGE_ATTRIBUTES),
        "consistency": shapes_consistency(frames, reference, seen),
    }


def _words(reading: Reading, attributes: Sequence[str]) -> dict[str, str | None]:
    return {name: getattr(reading, name) for name in attributes}


def _failed(record: Mapping[str, Any]) -> bool:
    return not all(record["right"].values())


def _title(record: Mapping[str, Any]) -> str:
    """The prompt, and where something is not as it says a second line with what is seen instead."""
    pieces = []
    for what, right, read in (("read", "right", "read"), ("in the reference", "reference_right", "reference_read")):
        wrong = [f"{name} {record[read][name] or 'none'}" for name, is_right in record[right].items() if not is_right]
        if wrong:
            pieces.append(f"{what}: {', '.join(wrong)}")
    title = f"{record['prompt']}  (seed {record['seed']})"
    return f"{title}\n{'; '.join(pieces)}" if pieces else title
