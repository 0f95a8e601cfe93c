"""A cache of latents and text states of the shapes world, encoded once by the frozen networks for training."""

import dataclasses
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from rich.progress import track

from videogen_jax.data.encoding import load_encoder, to_storage_dtype
from videogen_jax.shapes.world import DURATION, ShapesClip, frame_times, render, sample_clip
from videogen_jax.weights.fingerprint import fingerprint
from videogen_jax.weights.model_folder import ModelFolder

CHUNK = 64  # clips encoded between two updates of the progress on disk


@dataclasses.dataclass(frozen=True)
class LatentRecipe:
    """The content of a cache of the shapes world.

    Attributes:
      split, seed, num_clips: of the clips.
      num_frames: frames of an example: a whole clip, or a window of one.
      window_rates: () for whole clips; else each example is a window whose frames are 1 / rate of a base interval
        apart, with a random one of these rates and a random start.
      base_frames: frames of a clip at the base rate, which sets the base interval.
      resolution: side of the latents.
      lower_resolution: side of the latents of the stage below, stored beside, or None.
      text: store the captions' text states.
      emphasis: see `sample_clip`.
    """

    split: str
    seed: int
    num_clips: int
    num_frames: int
    resolution: int
    lower_resolution: int | None = None
    window_rates: tuple[int, ...] = ()
    base_frames: int = 16
    text: bool = True
    emphasis: tuple[str, ...] = ()

    def __post_init__(self):
        for rate in self.window_rates:
            if self.num_frames - 1 > rate * (self.base_frames - 1):
                raise ValueError(
                    f"config.data.num_frames is {self.num_frames}: at a window rate of {rate} a clip has only "
                    f"{rate * (self.base_frames - 1) + 1} frames"
                )

    def clip(self, index: int) -> ShapesClip:
        return sample_clip(self.seed, index, self.split, self.emphasis)

    def times(self, index: int) -> np.ndarray:
        """Return the times of the frames of example `index` in seconds, `(num_frames,)`."""
        if not self.window_rates:
            return frame_times(self.num_frames) if self.num_frames > 1 else np.zeros(1)
        rng = np.random.default_rng((self.seed, index))
        spacing = DURATION / (self.base_frames - 1) / rng.choice(self.window_rates)
        length = spacing * (self.num_frames - 1)
        return rng.uniform(0.0, max(0.0, DURATION - length)) + spacing * np.arange(self.num_frames)


@dataclasses.dataclass(frozen=True)
class LatentSource:
    """A complete cache as a grain source: `latents` `(T, h, w, C)` and what else the recipe stores, float16.

    An example of a whole clip has the latents of one frame as `reference` `(1, h, w, C)`, by default the first, as
    VideoGen is trained.

    Attributes:
      folder: of the cache.
      recipe: of the cache.
      video_resolution: side of the frames that are rendered as `video`, uint8 `(T, H, W, 3)`; None for none.
      reference_frame: "first", or "random", which is the same frame of the clip in every epoch.
    """

    folder: Path
    recipe: LatentRecipe
    video_resolution: int | None = None
    reference_frame: str = "first"

    def __post_init__(self):
        if self.reference_frame not in ("first", "random"):
            raise ValueError(f"config.data.reference_frame is {self.reference_frame!r}; it may be first or random")
        arrays = {path.stem: np.load(path, mmap_mode="r") for path in sorted(self.folder.glob("*.npy"))}
        object.__setattr__(self, "_arrays", arrays)

    def __len__(self) -> int:
        return self.recipe.num_clips

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        example = {name: np.array(array[index]) for name, array in self._arrays.items()}
        if not self.recipe.window_rates and self.recipe.num_frames > 1:
            frame = self._reference(index)
            example["reference"] = example["latents"][frame : frame + 1]
        if self.video_resolution is not None:
            clip = self.recipe.clip(index)
            example["video"] = render(clip, self.recipe.times(index), self.video_resolution)
        return example

    def _reference(self, index: int) -> int:
        if self.reference_frame == "first":
            return 0
        return int(np.random.default_rng((self.recipe.seed, index)).integers(self.recipe.num_frames))

    def caption(self, index: int) -> str:
        return self.recipe.clip(index).caption


def shapes_latents(
    model_folder: str | Path,
    *,
    cache_folder: str,
    video_resolution: int | None = None,
    reference_frame: str = "first",
    **recipe: Any,
) -> LatentSource:
    """Return the cache of a recipe, after filling it if it is not complete; interrupted filling is continued.

    Args:
      model_folder: holds `vae` and, if the recipe stores text, `tokenizer` and `text_encoder`.
      cache_folder: of all caches, each in a folder named by the recipe and the networks' weights.
      video_resolution, reference_frame: see `LatentSource`.
      recipe: fields of `LatentRecipe`.
    """
    recipe = _recipe(recipe)
    folder = _place(model_folder, cache_folder, recipe)
    if not _is_whole(folder):
        _fill(folder, Path(model_folder), recipe)
    return LatentSource(folder, recipe, video_resolution, reference_frame)


def _recipe(fields: Mapping[str, Any]) -> LatentRecipe:
    return LatentRecipe(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


def _place(model_folder: str | Path, cache_folder: str, recipe: LatentRecipe) -> Path:
    used = ["vae", "tokenizer", "text_encoder"] if recipe.text else ["vae"]
    return Path(cache_folder) / fingerprint(dataclasses.asdict(recipe), Path(model_folder), used)


def _is_whole(folder: Path) -> bool:
    return (folder / "recipe.json").exists()


def _fill(folder: Path, model_folder: Path, recipe: LatentRecipe) -> None:
    resolutions = {"latents": recipe.resolution}
    if recipe.lower_resolution is not None:
        resolutions["lower"] = recipe.lower_resolution
    encoder, params = load_encoder(ModelFolder(model_folder), resolutions, recipe.text)
    shapes = encoder.shapes(recipe.num_frames)
    encode = jax.jit(lambda params, batch: jax.tree.map(to_storage_dtype, encoder.encode(params, batch)))
    part, progress = folder.with_name(folder.name + ".part"), 0
    progress_path = part / "progress.json"
    if progress_path.exists():
        progress = json.loads(progress_path.read_text())["clips"]
    part.mkdir(parents=True, exist_ok=True)
    mode = "r+" if progress else "w+"
    open_array = partial(np.lib.format.open_memmap, mode=mode, dtype=np.float16)
    arrays = {name: open_array(part / f"{name}.npy", shape=(recipe.num_clips, *s)) for name, s in shapes.items()}
    logging.info("Encoding %d clips into %s", recipe.num_clips - progress, folder)
    per_call = max(1, 32 // recipe.num_frames)  # frames in one call, so that memory does not grow with the clips
    for begin in track(range(progress, recipe.num_clips, CHUNK), description="encoding"):
        end = min(begin + CHUNK, recipe.num_clips)
        for first in range(begin, end, per_call):
            clips = range(first, min(first + per_call, end))
            batch = {"video": np.stack([render(recipe.clip(i), recipe.times(i), encoder.pixels) for i in clips])}
            if recipe.text:
                batch["tokens"] = encoder.tokens([recipe.clip(i).caption for i in clips])
            padded = np.minimum(np.arange(per_call), len(clips) - 1)  # repeats the last, to compile one size
            batch = {name: values[padded] for name, values in batch.items()}
            for name, values in encode(params, batch).items():
                arrays[name][clips.start : clips.stop] = np.asarray(values)[: len(clips)]
        for array in arrays.values():
            array.flush()
        progress_path.write_text(json.dumps({"clips": end}))
    progress_path.unlink()
    (part / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe), indent=2) + "\n")
    part.rename(folder)
