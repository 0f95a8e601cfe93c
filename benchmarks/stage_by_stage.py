"""Which stage of a model's cascade loses what: clips of the shapes world, sampled from each stage on.

    python benchmarks/stage_by_stage.py --model runs/shapes/model --output stages.json

In a column of the table the stage that it names, and those above it, are sampled as `model_index.json` says; they are
given the true reference image and the true latents of the stage below. In the last column nothing is sampled: the true
latents are decoded. The videos are at the base frame rate, and a reader of pixels compares them with their captions.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from videogen_jax.metrics.attributes import tally_attributes
from videogen_jax.metrics.fidelity import Codec
from videogen_jax.runtime.arrays import to_unit
from videogen_jax.runtime.files import write_atomically
from videogen_jax.sampling.pipeline import VideoGenPipeline
from videogen_jax.shapes.reader import ATTRIBUTES, score
from videogen_jax.shapes.world import frame_times, render, sample_clip
from videogen_jax.stages.cascade import CascadeInputs
from videogen_jax.weights.tokenizer import tokenize

NOTHING = "none"  # is sampled


class Sampler:
    """The stages of a model's cascade, each compiled once for a batch."""

    def __init__(self, pipeline: VideoGenPipeline):
        self.pipeline, self.settings = pipeline, pipeline.index.stage_settings
        encode = pipeline.autoencoder.encode
        self._encode = jax.jit(lambda params, frames, side: encode(params, to_unit(frames), side), static_argnums=2)
        self._text = jax.jit(pipeline.text.encode)
        self._null = self.text([""])[0]
        self._stages = {
            name: jax.jit(partial(self._sample, name, stage))
            for name, stage in zip(pipeline.index.cascade, pipeline.cascade, strict=True)
        }

    def text(self, captions: list[str]) -> jax.Array:
        return self._text(self.pipeline.params["text_encoder"], tokenize(self.pipeline.text.tokenizer, captions))

    def encode(self, frames: np.ndarray, side: int) -> jax.Array:
        return self._encode(self.pipeline.params["vae"], frames, side)

    def _sample(self, name, stage, params, keys, context, null, reference, lower):
        inputs = CascadeInputs(context, null, reference, lower)
        return stage.sample_latents(params, keys, inputs, self.pipeline.index.num_frames, self.settings[name])

    def from_stage(self, first: int, context: jax.Array, frames: np.ndarray, keys: jax.Array) -> jax.Array:
        """Latents of the highest resolution, of which the stages from number `first` on are sampled."""
        cascade = self.pipeline.cascade
        latents = self.encode(frames, cascade[first - 1].resolution) if first else None
        for number, name in list(enumerate(self.pipeline.index.cascade))[first:]:
            reference = self.encode(frames[:, :1], cascade[number].resolution)
            own = jax.vmap(lambda key, number=number: jax.random.fold_in(key, number))(keys)
            latents = self._stages[name](self.pipeline.params[name], own, context, self._null, reference, latents)
        return latents


def measure(model: Path, clips: int, split: str, seed: int, batch: int) -> dict[str, Any]:
    """First stage that is sampled -> attribute -> `tally`."""
    pipeline = VideoGenPipeline.from_pretrained(model)
    sampler, codec, names = Sampler(pipeline), Codec(pipeline, 16), [*pipeline.index.cascade, NOTHING]
    decode = codec.decode_images if pipeline.decoder is None else codec.decode_video
    times, scores = frame_times(pipeline.index.num_frames), {name: [] for name in names}
    for begin in track(range(0, clips, batch), description="clips"):
        count = min(batch, clips - begin)
        numbers = np.minimum(np.arange(begin, begin + batch), clips - 1)  # the last fills up what is compiled
        drawn = [sample_clip(seed, int(number), split) for number in numbers]
        frames = np.stack([render(clip, times, pipeline.resolution) for clip in drawn])
        context = sampler.text([clip.caption for clip in drawn])
        keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(numbers)
        for first, name in enumerate(names):
            latents = np.asarray(sampler.from_stage(first, context, frames, keys))[:count]
            scores[name] += [score(decode(one), clip.caption) for one, clip in zip(latents, drawn, strict=False)]
    return {name: tally_attributes(scores[name], ATTRIBUTES) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a model folder of the shapes world")
    parser.add_argument("--output", type=Path, required=True, help="a .json file")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--split", choices=("train", "held_out"), default="held_out")
    parser.add_argument("--seed", type=int, default=0, help="of the clips and of the noise")
    parser.add_argument("--batch", type=int, default=4)
    args = parser.parse_args()
    for name in ("clips", "batch"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} is {getattr(args, name)}, but must be at least 1")
    try:
        found = measure(args.model, args.clips, args.split, args.seed, min(args.batch, args.clips))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    settings = {"clips": args.clips, "split": args.split, "seed": args.seed}
    content = json.dumps({**settings, "sampled_from": found}) + "\n"
    write_atomically(args.output, lambda temporary: temporary.write_text(content))
    table = Table("right, sampled from", *found)
    for attribute in next(iter(found.values())):
        table.add_row(attribute, *(f"{of[attribute]['right']} of {of[attribute]['count']}" for of in found.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
