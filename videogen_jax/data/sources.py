"""Sources of training examples in the shapes world, as the stages take them."""

import dataclasses

import numpy as np
from transformers import CLIPTokenizer

from videogen_jax.data.shapes import DURATION, frame_times, render, sample_clip
from videogen_jax.data.vocabulary import tokenize


@dataclasses.dataclass(frozen=True)
class ShapesFrames:
    """Single frames, each of its own clip at a random time: `images` uint8 `(R, R, 3)`."""

    split: str
    seed: int
    num_clips: int
    resolution: int

    def __len__(self) -> int:
        return self.num_clips

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        clip = sample_clip(self.seed, index, self.split)
        time = np.random.default_rng((self.seed, index)).uniform(0.0, DURATION)
        return {"images": render(clip, [time], self.resolution)[0]}


@dataclasses.dataclass(frozen=True)
class ShapesCaptionedClips:
    """Clips with tokenized captions: `video` uint8 `(T, R, R, 3)`, `tokens` int32 `(L,)`."""

    split: str
    seed: int
    num_clips: int
    num_frames: int
    resolution: int
    tokenizer: CLIPTokenizer = dataclasses.field(repr=False)

    def __len__(self) -> int:
        return self.num_clips

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        clip = sample_clip(self.seed, index, self.split)
        video = render(clip, frame_times(self.num_frames), self.resolution)
        return {"video": video, "tokens": tokenize(self.tokenizer, [clip.caption])[0]}
