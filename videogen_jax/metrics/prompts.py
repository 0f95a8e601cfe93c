"""Generated videos: those of the shapes world are read, and all are seen by the published measures' networks."""

import functools
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from videogen_jax.metrics.captions import SHAPES, Captions, Example
from videogen_jax.metrics.consistency import shapes_consistency
from videogen_jax.metrics.kept_videos import KeptVideos
from videogen_jax.metrics.published import PublishedMeasures
from videogen_jax.metrics.real_clips import RealClips
from videogen_jax.metrics.results import ResultLog
from videogen_jax.metrics.statistics import bootstrap, tally
from videogen_jax.runtime.sheets import captioned_sheet, strip
from videogen_jax.sampling.pipeline import VideoGenPipeline
from videogen_jax.shapes.reader import (
    ATTRIBUTES,
    IMAGE_ATTRIBUTES,
    Reading,
    compare,
    read_clip,
    read_image,
)
from videogen_jax.video_io import read_image as load_image
from videogen_jax.video_io import write_image

SHEET_ROWS = 16


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
    captions: Captions,
    real: RealClips | None,
    log: ResultLog,
    folder: Path,
    published: PublishedMeasures,
) -> dict[str, Any]:
    """Generates a video of each prompt and seed that is not in the log yet, and scores all of them.

    Args:
      pipeline: the model.
      config: `seed`, `batch_size`, `sampling`.
      captions: what is generated. Those of the shapes world are compared with what a reader sees.
      real: what distances are taken to; None for none.
      log: where each video's scores are kept. The videos themselves are in `folder/videos` before their scores are in
        the log; `folder/strips` has a few frames, as they were made, of the first SHEET_ROWS and of those that are not
        all right.
      folder: for `contact_sheet.png`, and `failures.png` where there are any.
      published: the feature networks that have weights; they see each video as it is made. A video that was made
        before a network came is made again.

    Returns: in the shapes world `video` and `reference`, `tally`s by attribute, which take the seeds of one prompt for
      independent; `video_of_right_reference`, the videos' where everything in the reference image is right; and
      `consistency`, means with intervals of what `shapes_consistency` measures, over the videos that have it. Of all
      captions `published`, see `PublishedMeasures.summary`; `real`, what is to be said of the real clips, if anything;
      `results`, all scores and readings.
    """
    examples = captions.examples(config.seed)
    sampling = config.sampling.to_dict()
    generate = functools.partial(
        pipeline,
        batch_size=min(config.batch_size, len(examples)),
        temporal_factor=sampling["temporal_factor"],
        **sampling_settings(sampling, pipeline.index.cascade),
    )
    timeline = pipeline.index.timeline(temporal_factor=sampling["temporal_factor"])
    real_keys = real.see(published, timeline.num_frames, timeline.fps, pipeline.resolution) if real else []
    shown_at_most = {f"0-{number:04d}" for number in range(SHEET_ROWS)}  # more prompts may be asked for later
    shown_at_most |= set(itertools.islice(examples, SHEET_ROWS))
    strips, kept = folder / "strips", KeptVideos(folder / "videos")
    left = [key for key in examples if key not in log.records or not published.has(key)]
    with Progress() as progress:
        task = progress.add_task("prompts", total=len(examples), completed=len(examples) - len(left))
        for first in range(0, len(left), config.batch_size):
            keys = left[first : first + config.batch_size]
            _, prompts, seeds = zip(*(examples[key] for key in keys), strict=True)
            made = generate(prompts, seed=seeds)
            judge = _judge if captions.source == SHAPES else _record
            records = [
                judge(key, examples[key], frames, reference)
                for key, frames, reference in zip(keys, made.frames, made.reference, strict=True)
            ]
            published.add(keys, prompts, made.frames)
            for record, frames, reference in zip(records, made.frames, made.reference, strict=True):
                if record["key"] not in log.records or not kept.has(record["key"]):
                    kept.keep(record["key"], frames, reference, made.fps, record["prompt"])
                if record["key"] in shown_at_most or _failed(record):
                    write_image(strips / f"{record['key']}.png", strip(frames, reference))
            log.append([record for record in records if record["key"] not in log.records])
            progress.advance(task, len(keys))

    results = [log.records[key] for key in examples]

    def sheet(keys: Sequence[str]) -> np.ndarray:
        return captioned_sheet(
            [load_image(strips / f"{key}.png") for key in keys], [_title(log.records[key]) for key in keys]
        )

    # Of captions that are not the first of their source an earlier evaluation has kept no frames.
    shown = list(itertools.islice((key for key in examples if (strips / f"{key}.png").is_file()), SHEET_ROWS))
    if shown:
        write_image(folder / "contact_sheet.png", sheet(shown))
    failures = [record["key"] for record in results if _failed(record)][:SHEET_ROWS]
    if failures:
        write_image(folder / "failures.png", sheet(failures))
    else:
        (folder / "failures.png").unlink(missing_ok=True)
    section = _of_shapes(results) if captions.source == SHAPES else {}
    section["published"] = published.summary(list(examples), real_keys)
    if real and (said := real.summary()):
        section["real"] = said
    return {**section, "results": results}


def _of_shapes(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the reader says of all videos of the shapes world."""
    right_reference = [record for record in results if all(record["reference_right"].values())]
    return {
        "video": tally_attributes([record["right"] for record in results], ATTRIBUTES),
        "reference": tally_attributes([record["reference_right"] for record in results], IMAGE_ATTRIBUTES),
        "video_of_right_reference": tally_attributes([record["right"] for record in right_reference], ATTRIBUTES),
        "consistency": _means([record["consistency"] for record in results]),
    }


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


def _record(key: str, example: Example, frames: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    return {"key": key, "id": example.id, "prompt": example.prompt, "seed": example.seed}


def _judge(key: str, example: Example, frames: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    seen, seen_in_reference = read_clip(frames), read_image(reference)
    return {
        "key": key,
        "prompt": example.prompt,
        "seed": example.seed,
        "right": compare(seen, example.prompt),
        "read": _words(seen, ATTRIBUTES),
        "reference_right": compare(seen_in_reference, example.prompt, IMAGE_ATTRIBUTES),
        "reference_read": _words(seen_in_reference, IMAGE_ATTRIBUTES),
        "consistency": shapes_consistency(frames, reference, seen),
    }


def _words(reading: Reading, attributes: Sequence[str]) -> dict[str, str | None]:
    return {name: getattr(reading, name) for name in attributes}


def _failed(record: Mapping[str, Any]) -> bool:
    return not all(record.get("right", {}).values())


def _title(record: Mapping[str, Any]) -> str:
    """The prompt, and where something is not as it says a second line with what is seen instead."""
    pieces = []
    for what, right, read in (("read", "right", "read"), ("in the reference", "reference_right", "reference_read")):
        judged = record.get(right, {})
        wrong = [f"{name} {record[read][name] or 'none'}" for name, is_right in judged.items() if not is_right]
        if wrong:
            pieces.append(f"{what}: {', '.join(wrong)}")
    title = f"{record['prompt']}  (seed {record['seed']})"
    return f"{title}\n{'; '.join(pieces)}" if pieces else title
