"""A world: a data set that is rendered by code, with sources, stages and measures of its own."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

# (videos, each uint8 (T, H, W, 3); their captions) -> for each video its feature arrays by name
Extractor = Callable[[Sequence[np.ndarray], Sequence[str]], list[dict[str, np.ndarray]]]


class RenderedClip(NamedTuple):
    """A clip of a world, uint8 `(T, R, R, 3)`, and the caption that describes it."""

    caption: str
    frames: np.ndarray


class OpticalFlow(NamedTuple):
    """The motion from each frame of a clip to the next.

    Attributes:
      flow: `(T - 1, H, W, 2)`, (dx, dy) in pixels.
      valid: bool `(T - 1, H, W)`, where the next frame shows the same point: neither hidden there nor outside.
      still: bool `(T - 1, H, W)`, the valid pixels of what does not move.
    """

    flow: np.ndarray
    valid: np.ndarray
    still: np.ndarray


class Reading(Protocol):
    """What a world's reader recognises in a clip or an image."""

    @property
    def values(self) -> Mapping[str, str | None]:
        """The value of each attribute; None where none is recognised."""


@dataclasses.dataclass(frozen=True)
class FeatureDistance:
    """A Fréchet distance on the features of a network that was trained on the clips of a world.

    Attributes:
      name: of the measure in `metrics.json`.
      title: of the measure in tables.
      network: of the field in `config.weights` that names the weights.
      weights: which weights to pass, for the message that says so.
      packaged: the name of the weights that come with this package.
      load: folder of weights -> extractor, whose arrays have `features` `(D,)`.
    """

    name: str
    title: str
    network: str
    weights: str
    packaged: str
    load: Callable[[str], Extractor]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What it takes to evaluate a model of a world: captions, rendered clips, and a reader of generated videos.

    A caption names the values of attributes (colour: red); the reader recognises them in pixels.

    Attributes:
      splits: of captions and clips, "train" and "held_out" among them.
      attributes: attribute -> its values, both in the order in which tables list them.
      image_attributes: the attributes that a still image shows.
      subject: what the captions are about ("shape"), for sentences of the report.
      least_frames: the fewest that `read_clip` takes.
      captions: (count, split, seed) -> captions that cover the split evenly; a longer list begins with the shorter.
      render: (seed, index, split, num_frames, resolution) -> `RenderedClip` number `index` of the split.
      parse: caption -> the value of each attribute, None where the caption has none.
      read_clip: frames uint8 `(T, R, R, 3)` -> `Reading`.
      read_image: image uint8 `(R, R, 3)` -> `Reading`.
      flow: (reading of a clip, side of its frames) -> `OpticalFlow`.
      distances: measured between generated videos and rendered clips.
    """

    splits: tuple[str, ...]
    attributes: Mapping[str, tuple[str, ...]]
    image_attributes: tuple[str, ...]
    subject: str
    least_frames: int
    captions: Callable[[int, str, int], list[str]]
    render: Callable[[int, int, str, int, int], RenderedClip]
    parse: Callable[[str], Mapping[str, str | None]]
    read_clip: Callable[[np.ndarray], Reading]
    read_image: Callable[[np.ndarray], Reading]
    flow: Callable[[Any, int], OpticalFlow]
    distances: tuple[FeatureDistance, ...] = ()


@dataclasses.dataclass(frozen=True)
class World:
    """A plug-in beside the corpora of video files. `training/worlds.py` lists all worlds.

    Attributes:
      name: of the world.
      sources: `config.data.source` -> builder of the training examples. It is called with the config, the
        `ModelFolder` of `config.model_folder`, and by keyword the other fields of `config.data`.
      stages: `config.stage` -> stages that are trained on this world alone, beside the paper's.
      evaluation: what `videogen_jax.evaluate` needs; None for a world whose models cannot be evaluated.
    """

    name: str
    sources: Mapping[str, Callable[..., Any]]
    stages: Mapping[str, type] = dataclasses.field(default_factory=dict)
    evaluation: Evaluation | None = None
