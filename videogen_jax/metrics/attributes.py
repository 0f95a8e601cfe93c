"""Whether generated videos show the attributes that their captions name, as the reader of a world recognises them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from videogen_jax.data.world import Evaluation, Reading
from videogen_jax.metrics.consistency import measure_consistency
from videogen_jax.metrics.statistics import bootstrap, tally


def compare(world: Evaluation, reading: Reading, caption: str, attributes: Sequence[str]) -> dict[str, bool]:
    """Return for each of `attributes` that the caption names whether the reading agrees with it."""
    expected = world.parse(caption)
    return {name: reading.values[name] == expected[name] for name in attributes if expected[name] is not None}


def read_attributes(world: Evaluation, frames: np.ndarray, reference: np.ndarray, caption: str) -> dict[str, Any]:
    """Read a generated video and its reference image.

    Args:
      frames: uint8 `(T, R, R, 3)`.
      reference: uint8 `(R, R, 3)`.

    Returns: `read` and `reference_read`, the value that is recognised of each attribute; `right` and
      `reference_right`, whether it is the caption's; `consistency`, see `measure_consistency`.
    """
    reading, reference_reading = world.read_clip(frames), world.read_image(reference)
    return {
        "right": compare(world, reading, caption, tuple(world.attributes)),
        "read": dict(reading.values),
        "reference_right": compare(world, reference_reading, caption, world.image_attributes),
        "reference_read": {name: reference_reading.values[name] for name in world.image_attributes},
        "consistency": measure_consistency(frames, reference, world.flow(reading, frames.shape[1])),
    }


def summarize_readings(world: Evaluation, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarize what `read_attributes` returned for all videos.

    Returns: `video` and `reference`, `tally_attributes` of each, which takes the seeds of one prompt for independent;
      `video_of_right_reference`, of the videos whose reference image is right in everything; `consistency`, means with
      intervals of each measure, over the videos that have it.
    """
    of_right_reference = [record for record in records if all(record["reference_right"].values())]
    attributes = tuple(world.attributes)
    return {
        "video": tally_attributes([record["right"] for record in records], attributes),
        "reference": tally_attributes([record["reference_right"] for record in records], world.image_attributes),
        "video_of_right_reference": tally_attributes([record["right"] for record in of_right_reference], attributes),
        "consistency": _means([record["consistency"] for record in records]),
    }


def tally_attributes(scores: Sequence[Mapping[str, bool]], attributes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return a `tally` of each attribute, over the scores that have it, and one of `all` attributes of a score."""
    columns = {name: [score[name] for score in scores if name in score] for name in attributes}
    columns["all"] = [all(score.values()) for score in scores]
    return {name: tally(values) for name, values in columns.items() if values}


def _means(records: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, Any]]:
    """Return the mean of each measure over the records that have it, with its interval and `count`."""
    means = {}
    for name in records[0]:
        values = [record[name] for record in records if record[name] is not None]
        if values:
            means[name] = {**bootstrap(lambda x: x.mean(axis=-1), values), "count": len(values)}
    return means
