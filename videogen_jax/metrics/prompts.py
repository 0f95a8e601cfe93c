"""Videos generated from captions, and their scores: what a reader recognises, and features for published measures."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from videogen_jax.metrics.attributes import read_attributes, summarize_readings
from videogen_jax.metrics.captions import Captions, Example
from videogen_jax.metrics.generated_videos import GeneratedVideos
from videogen_jax.metrics.published import PublishedMeasures
from videogen_jax.metrics.real_clips import RealClips
from videogen_jax.metrics.results import ResultLog
from videogen_jax.runtime.sheets import captioned_sheet, strip
from videogen_jax.sampling.pipeline import VideoGenPipeline
from videogen_jax.sampling.request import SamplingRequest
from videogen_jax.video_io import read_image, write_image

SHEET_ROWS = 16


def measure_prompts(
    pipeline: VideoGenPipeline,
    config: Any,
    captions: Captions,
    real: RealClips | None,
    log: ResultLog,
    folder: Path,
    published: PublishedMeasures,
) -> dict[str, Any]:
    """Generate a video of each prompt and seed that is not in the log yet, and score all of them.

    Args:
      pipeline: the model.
      config: `seed`, `batch_size`, `sampling`.
      captions: what to generate. Those of a world are compared with what its reader recognises.
      real: the clips that distances are taken to; None for none.
      log: of each video's scores. The videos themselves are in `folder/videos` before their scores are in the log;
        `folder/strips` has a few frames, before compression, of the first SHEET_ROWS and of those that are not right in
        all attributes.
      folder: for `contact_sheet.png`, and `failures.png` where there are any.
      published: the feature networks that have weights. A video that was generated before a network was added is
        generated again.

    Returns: of a world's captions what `summarize_readings` returns; of all captions `published`, see
      `PublishedMeasures.summary`; `real`, what `RealClips.summary` says, if anything; `results`, the record of each
      video.
    """
    examples = captions.examples(config.seed)
    batch_size = min(config.batch_size, len(examples))

    def request(prompts: Sequence[str], seeds: Sequence[int]) -> SamplingRequest:
        request = SamplingRequest.from_config(config.sampling, prompts, seed=tuple(seeds), batch_size=batch_size)
        return request.resolve(pipeline.index)

    video = request(["a video"], [config.seed])
    real_keys = real.extract_features(published, video.num_frames, video.fps, pipeline.resolution) if real else []
    sheet_keys = {f"0-{number:04d}" for number in range(SHEET_ROWS)}  # a later evaluation may have more prompts
    sheet_keys |= set(itertools.islice(examples, SHEET_ROWS))
    strips, videos = folder / "strips", GeneratedVideos(folder / "videos")
    remaining = [key for key in examples if key not in log.records or not published.has(key)]
    with Progress() as progress:
        task = progress.add_task("prompts", total=len(examples), completed=len(examples) - len(remaining))
        for first in range(0, len(remaining), config.batch_size):
            keys = remaining[first : first + config.batch_size]
            _, prompts, seeds = zip(*(examples[key] for key in keys), strict=True)
            batch = pipeline.sample(request(prompts, seeds))
            records = [
                _record(captions, key, examples[key], frames, reference)
                for key, frames, reference in zip(keys, batch.frames, batch.reference, strict=True)
            ]
            published.add(keys, prompts, batch.frames)
            for record, frames, reference in zip(records, batch.frames, batch.reference, strict=True):
                if record["key"] not in log.records or not videos.has(record["key"]):
                    videos.write(record["key"], frames, reference, batch.fps, record["prompt"])
                if record["key"] in sheet_keys or _failed(record):
                    write_image(strips / f"{record['key']}.png", strip(frames, reference))
            log.append([record for record in records if record["key"] not in log.records])
            progress.advance(task, len(keys))

    results = [log.records[key] for key in examples]

    def sheet(keys: Sequence[str]) -> np.ndarray:
        return captioned_sheet(
            [read_image(strips / f"{key}.png") for key in keys], [_title(log.records[key]) for key in keys]
        )

    # Of captions that are not the first of their source an earlier evaluation has written no strips.
    with_strip = list(itertools.islice((key for key in examples if (strips / f"{key}.png").is_file()), SHEET_ROWS))
    if with_strip:
        write_image(folder / "contact_sheet.png", sheet(with_strip))
    failures = [record["key"] for record in results if _failed(record)][:SHEET_ROWS]
    if failures:
        write_image(folder / "failures.png", sheet(failures))
    else:
        (folder / "failures.png").unlink(missing_ok=True)
    section = summarize_readings(captions.world, results) if captions.world else {}
    section["published"] = published.summary(list(examples), real_keys)
    if real and (summary := real.summary()):
        section["real"] = summary
    return {**section, "results": results}


def _record(
    captions: Captions, key: str, example: Example, frames: np.ndarray, reference: np.ndarray
) -> dict[str, Any]:
    """Return the record of a video in the log; of captions without a reader it identifies the video alone."""
    if captions.world is None:
        return {"key": key, "id": example.id, "prompt": example.prompt, "seed": example.seed}
    readings = read_attributes(captions.world, frames, reference, example.prompt)
    return {"key": key, "prompt": example.prompt, "seed": example.seed, **readings}


def _failed(record: Mapping[str, Any]) -> bool:
    return not all(record.get("right", {}).values())


def _title(record: Mapping[str, Any]) -> str:
    """Return the prompt, and a second line with what is read instead where an attribute is wrong."""
    pieces = []
    for where, right, read in (("read", "right", "read"), ("in the reference", "reference_right", "reference_read")):
        scores = record.get(right, {})
        wrong = [f"{name} {record[read][name] or 'none'}" for name, is_right in scores.items() if not is_right]
        if wrong:
            pieces.append(f"{where}: {', '.join(wrong)}")
    title = f"{record['prompt']}  (seed {record['seed']})"
    return f"{title}\n{'; '.join(pieces)}" if pieces else title
