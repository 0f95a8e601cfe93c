"""Sources of training examples in the shapes world, as the stages take them."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from videogen_jax.shapes.world import (
    COLOURS,
    DURATION,
    MOTIONS,
    PATTERNS,
    SHAPES,
    SIZES,
    TONES,
    frame_times,
    parse_caption,
    render,
    sample_clip,
    similar_clips,
)
from videogen_jax.weights.tokenizer import tokenize

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

LABELS = {  # attribute of a caption -> its values, in the order of their indices
    "size": tuple(SIZES),
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "motion": MOTIONS,
    "tone": tuple(TONES),
    "pattern": PATTERNS,
}


@dataclasses.dataclass(frozen=True)
class ShapesFrames:
    """Single frames, each of its own clip at a random time: `images` uint8 `(R, R, 3)`.

    Attributes:
      emphasis: see `sample_clip`.
    """

    split: str
    seed: int
    num_clips: int
    resolution: int
    emphasis: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.num_clips

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        clip = sample_clip(self.seed, index, self.split, self.emphasis)
        time = np.random.default_rng((self.seed, index)).uniform(0.0, DURATION)
        return {"images": render(clip, [time], self.resolution)[0]}


@dataclasses.dataclass(frozen=True)
class ShapesCaptionedClips:
    """Groups of captioned clips that differ in one attribute: `video` uint8 `(K, T, R, R, 3)`, `tokens` `(K, L)`.

    Every second group has each of the K shapes, the others each of the K motions that stay in place. For a contrastive
    objective these are the hard negatives: clips that differ in everything can be distinguished by colour and
    background, which would leave the words for shapes and for the two senses of circling with one embedding.
    """

    split: str
    seed: int
    num_clips: int
    num_frames: int
    resolution: int
    tokenizer: "CLIPTokenizer" = dataclasses.field(repr=False)

    def __len__(self) -> int:
        return self.num_clips

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        clips = similar_clips(self.seed, index, self.split, "motion" if index % 2 else "shape")
        times = frame_times(self.num_frames)
        return {
            "video": np.stack([render(clip, times, self.resolution) for clip in clips]),
            "tokens": tokenize(self.tokenizer, [clip.caption for clip in clips]),
        }


@dataclasses.dataclass(frozen=True)
class ShapesLabelledClips:
    """Clips and their attributes: `video` uint8 `(T, R, R, 3)`, `labels` int32, an index into each of `LABELS`."""

    split: str
    seed: int
    num_clips: int
    num_frames: int
    resolution: int

    def __len__(self) -> int:
        return self.num_clips

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        clip = sample_clip(self.seed, index, self.split)
        attributes = parse_caption(clip.caption)
        labels = [values.index(getattr(attributes, name)) for name, values in LABELS.items()]
        video = render(clip, frame_times(self.num_frames), self.resolution)
        return {"video": video, "labels": np.asarray(labels, np.int32)}
