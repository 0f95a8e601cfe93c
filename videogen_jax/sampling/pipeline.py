"""Text to video: the stages of a model composed (VideoGen, Li et al. 2023, figure 2).

prompt -> text states -> reference latents -> reference image -> its latents at each resolution of the cascade
       -> cascade, from the lowest resolution up -> temporal upsampler -> video decoder -> frames
"""

import dataclasses
import functools
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from videogen_jax import __version__
from videogen_jax.sampling.exported import StoredPrograms
from videogen_jax.sampling.model import DECODER, Size, VideoGenModel
from videogen_jax.sampling.programs import Programs
from videogen_jax.sampling.recipe import Recipe, pixel_digest
from videogen_jax.sampling.text_to_image import TEXT, UNET, VAE
from videogen_jax.stages.cascade import CascadeStage
from videogen_jax.stages.latent_diffusion import LatentDiffusion
from videogen_jax.stages.reference import Prompts
from videogen_jax.weights.model_index import REFERENCE, UPSAMPLER, StageSettings, Timeline
from videogen_jax.weights.tokenizer import tokenize

Callback = Callable[[str, int, int, np.ndarray | None], None]


@dataclasses.dataclass(frozen=True)
class VideoGenOutput:
    """What the pipeline makes of B prompts.

    Attributes:
      frames: uint8 `(B, T, H, W, 3)`, sRGB.
      reference: the reference images, drawn or given, uint8 `(B, H, W, 3)`.
      fps: frames a second at which the video is to be played.
      recipes: what each video was made from.
    """

    frames: np.ndarray
    reference: np.ndarray
    fps: float
    recipes: tuple[Recipe, ...]


@dataclasses.dataclass(frozen=True)
class _Request:
    """One call, checked, and filled up to the batch B that is compiled.

    Attributes:
      tokens: `(B + 1, L)`, the last row the empty prompt; first the cascade's, then those of a reference model that has
        text encoders of its own.
      seeds: uint32 `(B,)`.
      images: the reference images, uint8 `(B, *size, 3)`, or None where they are to be drawn.
      chunk, overlap: frames decoded at once, and those at each end that are context alone.
    """

    tokens: tuple[np.ndarray, ...]
    seeds: np.ndarray
    images: np.ndarray | None
    settings: Mapping[str, StageSettings]
    timeline: Timeline
    size: Size
    chunk: int
    overlap: int
    previews: bool

    @property
    def batch(self) -> int:
        return len(self.seeds)

    def key(self, program: str, stage: str | None = None, more: Any = None) -> tuple:
        """All that a program depends on but its arguments; stage: whose sampling it belongs to."""
        at = () if stage is None else (self.settings[stage].sampler, self.settings[stage].branches)
        return (program, self.batch, self.size, *at, more)


@dataclasses.dataclass
class VideoGenPipeline(VideoGenModel):
    """A model that is called with prompts. Made by `from_pretrained`. Not to be called from two threads at once.

    Its programs are each compiled once for the batch, the size, the sampler and the temporal factor; one sampling step
    is a program, so that the host is told of each and may stop in between. Prompts, seeds, guidance scales, noise
    level, reference images and the number of steps are arguments of the programs.
    """

    programs: Programs = dataclasses.field(default_factory=Programs, repr=False)

    @classmethod
    def from_pretrained(cls, *args: Any, aot: str | os.PathLike | None = None, **named: Any) -> Self:
        """Loads a model folder: see `VideoGenModel.from_pretrained`.

        Args:
          aot: a folder that `videogen_jax.export_sampler` wrote, whose programs need no tracing.

        Raises:
          ValueError: also where the folder is of another model, dtype, platform or version.
        """
        stored = None if aot is None else StoredPrograms.read(aot)
        pipeline = super().from_pretrained(*args, **named)
        if stored is not None:
            stored.check(pipeline.fingerprint, pipeline.dtype)
            pipeline.programs = Programs(store=stored)
        return pipeline

    def __call__(
        self,
        prompts: str | Sequence[str],
        *,
        seed: int | Sequence[int] = 0,
        reference: np.ndarray | Sequence[np.ndarray] | None = None,
        num_frames: int | None = None,
        fps: float | None = None,
        size: Size | None = None,
        guidance_scale: float | Mapping[str, float] | None = None,
        reference_guidance_scale: float | Mapping[str, float] | None = None,
        steps: int | Mapping[str, int] | None = None,
        sampler: str | Mapping[str, str] | None = None,
        temporal_factor: int | None = None,
        noise_level: int | Mapping[str, int] | None = None,
        decode_chunk: int | None = None,
        decode_overlap: int | None = None,
        batch_size: int | None = None,
        callback: Callback | None = None,
        previews: bool = False,
    ) -> VideoGenOutput:
        """Makes one video of each prompt. What is None is as the model's index says.

        Args:
          prompts: one, or B of them.
          seed: 0 to 2**32 - 1, for all prompts or one each. An example depends on its own seed alone, so a batch gives
            what single prompts give.
          reference: uint8 `(H, W, 3)` of any size, for all prompts or one each, instead of the images that the
            reference stage would draw; the largest central part in the video's shape is taken.
          num_frames: 2 to (F - 1) * factor + 1, F the base frames; the smallest factor that gives as many is taken,
            and what comes after is left out.
          fps: the rate of playing alone; None: that of the model.
          size: (height, width) in pixels, multiples of `size_multiple`. None: the size that the model was trained on,
            which it does best.
          guidance_scale, reference_guidance_scale, steps, sampler, noise_level: fields of `StageSettings`, a value for
            all stages or a mapping from stages ("reference", "cascade_4").
          temporal_factor: what the frame rate is multiplied by.
          decode_chunk, decode_overlap: frames decoded at once, and those at each end that are context alone.
          batch_size: the batch that is compiled; fewer prompts are filled up to it. None: B.
          callback: called, between any two steps, with (stage, step, of, preview): steps done of all of the stage, and
            images worth showing, uint8 `(B, H, W, 3)` or `(B, n, H, W, 3)`, or None. The stages are "text",
            "reference", those of the cascade, "temporal" and "decode", which hands over each piece of the video that is
            done. While a program is still being compiled it hears the same again a few times a second. What it raises
            ends the call.
          previews: also hand over, at the end of each stage of the cascade and of "temporal", the video so far, decoded
            frame by frame with the image decoder.

        Raises:
          ValueError: for anything that cannot work, before any program is compiled.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        count = len(prompts)
        batch = count if batch_size is None else batch_size
        if not 1 <= count <= batch:
            raise ValueError(f"{count} prompts were given, but a batch holds 1 to {batch}")
        timeline = self.index.timeline(num_frames, temporal_factor, fps)
        settings = self.index.settings(
            guidance_scale=guidance_scale,
            reference_guidance_scale=reference_guidance_scale,
            steps=steps,
            sampler=sampler,
            noise_level=noise_level,
        )
        chunk, overlap = self.index.decoding(decode_chunk, decode_overlap)
        seeds = _seeds(seed, count)
        size = (self.resolution,) * 2 if size is None else tuple(size)
        self.check_size(size)
        images = None if reference is None else fit_references(reference, count, size)
        if images is None and self.reference is None:
            raise ValueError(f"the model has no {UNET} that could draw the reference image: give one")
        self.check_prompts(prompts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # check_prompts has told
            tokens = tokenize(self.text.tokenizer, [*prompts, ""])
            drawn = () if images is not None or self.shares_text else self.reference.tokenize(prompts)
        fill = np.arange(batch) % count
        tokens = tuple(ids[[*fill, count]] for ids in (tokens, *drawn))
        filled = None if images is None else images[fill]
        request = _Request(tokens, seeds[fill], filled, settings, timeline, size, chunk, overlap, previews)
        try:
            self._prepare(request)
            made, frames = self._run(request, callback)
        finally:
            self.programs.cancel()
        sampled = {stage: at for stage, at in settings.items() if images is None or stage != REFERENCE}
        recipes = tuple(
            Recipe(
                prompt=prompt,
                seed=int(seeds[slot]),
                num_frames=timeline.num_frames,
                fps=timeline.fps,
                temporal_factor=timeline.factor,
                size=size,
                settings=sampled,
                decode_chunk=chunk,
                decode_overlap=overlap,
                reference=None if images is None else pixel_digest(images[slot]),
                model=self.name,
                fingerprint=self.fingerprint,
                reference_model=None if self.reference_model is None else str(self.reference_model),
                batch_size=batch,
                slot=slot,
                dtype=self.dtype,
                software=software(),
            )
            for slot, prompt in enumerate(prompts)
        )
        return VideoGenOutput(frames[:count], made[:count], timeline.fps, recipes)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Warns of words that the model's vocabulary was not trained on, and of prompts that are too long.

        Raises:
          ValueError: a prompt is empty or no text.
        """
        for prompt in prompts:
            if not isinstance(prompt, str) or not prompt.strip():
                raise ValueError(f"a prompt must be a text that is not empty, but one is {prompt!r}")
        tokenize(self.text.tokenizer, prompts)
        unknown = dict.fromkeys(word for prompt in prompts for word in self.unknown_words(prompt))
        if unknown:
            warnings.warn(
                f"the model does not know {', '.join(map(repr, unknown))}; the words it knows are "
                f"{', '.join(self.known_words)}",
                stacklevel=2,
            )

    def _prepare(self, request: _Request) -> None:
        """Asks for everything that will run, in its order, so that it is compiled while the first parts run."""
        params, batch, base = self.params, request.batch, self.index.num_frames
        prepare, key = self.programs.prepare, request.key
        channels = self.autoencoder.network.latent_channels

        def floats(*shape: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(shape, jnp.float32)

        def prepare_stage(name: str, stage: LatentDiffusion, start: Callable, step: Callable, given: tuple) -> Any:
            """Returns the shape of the latents."""
            prepare(key(f"{name}_start", name), start, *given)
            state, told = jax.eval_shape(start, *given)
            at = request.settings[name]
            row, scales = _rows(stage, at)[0], _scales(at)
            prepare(key(name, name), step, params[name], state, told, row, *scales, donate=(1,))
            return state.x

        context = floats(batch, request.tokens[0].shape[1], self.text.network.hidden_size)
        null = floats(*context.shape[1:])
        prepare(key("text"), self.encode_text, params[TEXT[0]], request.tokens[0])
        if request.images is None:
            at, given = request.settings[REFERENCE], params[REFERENCE]
            told = Prompts(context), Prompts(floats(1, *context.shape[1:]))
            if len(request.tokens) > 1:
                told = jax.eval_shape(self.encode_reference_text, given, request.tokens[1:])
                prepare(key("reference_text"), self.encode_reference_text, given, request.tokens[1:])
            start = functools.partial(self.start_reference, at, request.size)
            step = functools.partial(self.step_reference, at.sampler)
            drawn = prepare_stage(REFERENCE, self.reference.stage, start, step, (request.seeds, *told))
            prepare(key("image"), self.decode_reference, given, drawn)
        pixels = jax.ShapeDtypeStruct((batch, *request.size, 3), jnp.uint8)
        prepare(key("encode"), self.encode_reference, params[VAE], pixels)
        lower = None
        for position, (name, stage) in enumerate(zip(self.index.cascade, self.cascade, strict=True)):
            at, size = request.settings[name], self.latent_size(stage.resolution, request.size)
            start = functools.partial(self.start_cascade, position, at)
            step = functools.partial(self.step_cascade, position, at.sampler)
            shown = floats(batch, 1, *size, channels)
            given = (request.seeds, context, null, shown, lower, _noise_level(stage, at))
            lower = prepare_stage(name, stage, start, step, given)
            prepare(key(f"{name}_finish"), stage.finish, lower, shown)
            if request.previews:
                window = floats(batch, min(request.chunk, base), *size, channels)
                prepare(key("preview", more=window.shape), self.decode_images, params[VAE], window)
        total = (base - 1) * request.timeline.factor + 1
        chunk = floats(batch, min(request.chunk, total), *lower.shape[2:])
        if request.timeline.factor > 1:
            upsample = functools.partial(self.upsample, request.timeline.factor)
            prepare(key(UPSAMPLER, more=request.timeline.factor), upsample, params[UPSAMPLER], lower)
        decoder = VAE if self.decoder is None else DECODER
        prepare(key("decode", more=chunk.shape[1]), self.decode, params[decoder], chunk)

    def _run(self, request: _Request, callback: Callback | None) -> tuple[np.ndarray, np.ndarray]:
        """Returns reference images `(B, H, W, 3)` and frames `(B, T, H, W, 3)`, uint8."""
        params, key, last = self.params, request.key, ("text", 0, 1)

        def report(stage: str, step: int, of: int, preview: np.ndarray | None = None) -> None:
            nonlocal last
            last = stage, step, of
            if callback is not None:
                callback(stage, step, of, preview)

        waiting = None if callback is None else lambda: report(*last)
        run = functools.partial(self.programs.run, waiting=waiting)

        def sample(name: str, stage: LatentDiffusion, given: tuple) -> tuple[jax.Array, int]:
            """Latents after all steps of a stage, and their number; the caller tells the end, with what is seen."""
            rows, scales = _rows(stage, request.settings[name]), _scales(request.settings[name])
            report(name, 0, len(rows))
            state, told = run(key(f"{name}_start", name), *given)
            for done, row in enumerate(rows, 1):
                state = run(key(name, name), params[name], state, told, row, *scales)
                if callback is not None and done < len(rows):
                    state.x.block_until_ready()
                    report(name, done, len(rows))
            return state.x, len(rows)

        def preview(latents: jax.Array) -> np.ndarray | None:
            if not request.previews:
                return None
            chunk = min(request.chunk, self.index.num_frames)
            program = key("preview", more=(request.batch, chunk, *latents.shape[2:]))
            decoded = self._decode(run, program, params[VAE], latents, latents.shape[1], chunk, 0)
            return np.concatenate([frames for _, frames in decoded], axis=1)

        report("text", 0, 1)
        context, null = run(key("text"), params[TEXT[0]], request.tokens[0])
        told, images = (Prompts(context), Prompts(null[None])), request.images
        if images is None and len(request.tokens) > 1:
            told = run(key("reference_text"), params[REFERENCE], request.tokens[1:])
        report("text", 1, 1)
        if images is None:
            latents, steps = sample(REFERENCE, self.reference.stage, (request.seeds, *told))
            images = np.asarray(run(key("image"), params[REFERENCE], latents))
            images = fit_references(images, request.batch, request.size)
            report(REFERENCE, steps, steps, images)
        references = run(key("encode"), params[VAE], images)
        latents = None
        for name, stage, shown in zip(self.index.cascade, self.cascade, references, strict=True):
            level = _noise_level(stage, request.settings[name])
            latents, steps = sample(name, stage, (request.seeds, context, null, shown, latents, level))
            latents = run(key(f"{name}_finish"), latents, shown)
            report(name, steps, steps, preview(latents))
        timeline = request.timeline
        if timeline.factor > 1:
            report("temporal", 0, 1)
            latents = run(key(UPSAMPLER, more=timeline.factor), params[UPSAMPLER], latents)
            shown = preview(latents)
            report("temporal", 1, 1, None if shown is None else shown[:, : timeline.num_frames])
        decoder, overlap = (VAE, 0) if self.decoder is None else (DECODER, request.overlap)
        chunk = min(request.chunk, latents.shape[1])
        decoded = self._decode(
            run, key("decode", more=chunk), params[decoder], latents, timeline.num_frames, chunk, overlap
        )
        frames = np.empty((request.batch, timeline.num_frames, *images.shape[1:]), np.uint8)
        of = len(decoding_windows(timeline.num_frames, latents.shape[1], chunk, overlap))
        report("decode", 0, of)
        for done, (first, some) in enumerate(decoded, 1):
            frames[:, first : first + some.shape[1]] = some
            report("decode", done, of, some)
        return images, frames

    @staticmethod
    def _decode(
        run: Callable, program: tuple, params: Any, latents: jax.Array, count: int, chunk: int, overlap: int
    ) -> Iterator[tuple[int, np.ndarray]]:
        """The first `count` frames of latents, piece by piece: the number of its first frame, and the piece."""
        latents = np.asarray(latents)
        for start, first, end in decoding_windows(count, latents.shape[1], chunk, overlap):
            decoded = run(program, params, latents[:, start : start + chunk])
            yield first, np.asarray(decoded)[:, first - start : end - start]


def software() -> dict[str, str]:
    """What a recipe says of the versions and the device that it was made with."""
    return {"videogen_jax": __version__, "jax": jax.__version__, "device": jax.devices()[0].device_kind}


def _rows(stage: LatentDiffusion, at: StageSettings) -> list[dict[str, np.ndarray]]:
    """The rows of a sampler's table, one for each call of its step."""
    table = stage.sampler(at.sampler).table(stage.noise_schedule, at.steps)
    return [{name: column[index] for name, column in table.items()} for index in range(len(table["t"]))]


def _scales(at: StageSettings) -> tuple[np.float32, np.float32]:
    return np.float32(at.guidance_scale), np.float32(at.reference_guidance_scale)


def _noise_level(stage: CascadeStage, at: StageSettings) -> np.int32:
    return np.int32(stage.noise_level if at.noise_level is None else at.noise_level)


def decoding_windows(count: int, total: int, chunk: int, overlap: int) -> list[tuple[int, int, int]]:
    """Windows of `chunk` frames that together give the first `count` of `total` frames.

    Returns: (start of the window, first frame kept, end of those kept) of each window. Between two windows `overlap`
    frames at each side serve as context alone; at the ends of the video there is nothing to see beyond.
    """
    windows, kept = [], 0
    while kept < count:
        start = max(0, min(kept - overlap, total - chunk))
        end = total if start + chunk >= total else start + chunk - overlap
        windows.append((start, kept, min(end, count)))
        kept = end
    return windows


def _seeds(seed: int | Sequence[int], count: int) -> np.ndarray:
    """uint32 `(count,)`."""
    seeds = [seed] * count if isinstance(seed, (int, np.integer)) else list(seed)
    if len(seeds) != count:
        raise ValueError(f"{len(seeds)} seeds were given for {count} prompts")
    for value in seeds:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < 2**32:
            raise ValueError(f"seed is {value!r}, but must be a whole number from 0 to {2**32 - 1}")
    return np.asarray(seeds, np.uint32)


def fit_references(reference: np.ndarray | Sequence[np.ndarray], count: int, size: Size) -> np.ndarray:
    """uint8 `(count, *size, 3)`: the largest central parts of that shape, resized where they have another size."""
    one = isinstance(reference, np.ndarray) and reference.ndim == 3
    images = [reference] * count if one else list(reference)
    if len(images) != count:
        raise ValueError(f"{len(images)} reference images were given for {count} prompts")
    height, width = size
    cut = []
    for image in images:
        image = np.asarray(image)
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(f"a reference image is uint8 (H, W, 3), but one is {image.dtype} {image.shape}")
        scale = min(image.shape[0] / height, image.shape[1] / width)
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
        part = Image.fromarray(image[top : top + rows, left : left + columns])
        cut.append(np.asarray(part.resize((width, height), Image.Resampling.LANCZOS)))
    return np.stack(cut)
