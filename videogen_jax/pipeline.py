"""Text to video: the stages of a model folder composed (VideoGen, Li et al. 2023, figure 2).

prompt -> text states -> reference latents -> reference image -> its latents at each resolution of the cascade
       -> cascade, from the lowest resolution up -> temporal upsampler -> video decoder -> frames
"""

import dataclasses
import functools
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from PIL import Image

from videogen_jax.data.vocabulary import known_words, tokenize, unknown_words
from videogen_jax.model_index import REFERENCE, UPSAMPLER, ModelIndex, StageSettings, Timeline
from videogen_jax.programs import Programs
from videogen_jax.stages.autoencoder import FrozenAutoencoder
from videogen_jax.stages.cascade import CascadeStage
from videogen_jax.stages.decoder import DecoderStage
from videogen_jax.stages.reference import Prompts
from videogen_jax.stages.stage import Params, to_uint8, to_unit
from videogen_jax.stages.temporal import TemporalStage
from videogen_jax.text_to_image import TEXT, UNET, VAE, TextToImage
from videogen_jax.weights.parts import TextPart, load_autoencoder, load_stage, load_text_encoder

Callback = Callable[[str, int, int, np.ndarray | None], None]
DECODER = "video_decoder"  # its folder


@dataclasses.dataclass(frozen=True)
class VideoGenOutput:
    """What the pipeline makes of B prompts.

    Attributes:
      frames: uint8 `(B, T, H, W, 3)`, sRGB.
      reference: the reference images, drawn or given, uint8 `(B, H, W, 3)`.
      fps: frames a second at which the video is to be played.
    """

    frames: np.ndarray
    reference: np.ndarray
    fps: float


@dataclasses.dataclass
class VideoGenPipeline:
    """A model, loaded. Made by `from_pretrained`; called with prompts. Not to be called from two threads at once.

    Each of its programs is compiled once for a shape: the batch, the number of steps, the sampler and the temporal
    factor. Prompts, seeds, guidance scales, noise level and reference images are arguments of the programs.

    Attributes:
      index: what the model folder says of itself.
      text, autoencoder, reference, cascade, temporal, decoder: the parts; `reference`, `temporal` and `decoder` are
        None where the model lacks them.
      params: the parameters of each part, on the device, by the part's folder; under "reference" those of all parts of
        the text-to-image model.
      report_steps: whether the callback hears of every sampling step, or of the beginning and the end of a stage alone.
        A program that reports its steps is one that JAX's persistent compilation cache cannot keep.
    """

    index: ModelIndex
    text: TextPart
    autoencoder: FrozenAutoencoder
    reference: TextToImage | None
    cascade: tuple[CascadeStage, ...]
    temporal: TemporalStage | None
    decoder: DecoderStage | None
    params: Mapping[str, Params]
    report_steps: bool = False
    programs: Programs = dataclasses.field(default_factory=Programs, repr=False)
    _callback: Callback | None = dataclasses.field(default=None, init=False, repr=False)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike,
        dtype: str | None = None,
        report_steps: bool = False,
        reference_model: str | os.PathLike | None = None,
    ) -> "VideoGenPipeline":
        """Loads a model folder.

        Args:
          folder: with `model_index.json` and a folder for each part. Without `temporal_upsampler` videos stay at the
            base frame rate; without `video_decoder` the image decoder is used; without `unet` a reference image has to
            be given.
          dtype: "float32", "bfloat16" or "float16", in which the networks compute; None: float32 on a CPU, where it is
            the fastest, bfloat16 elsewhere. Sampling itself is always in float32.
          report_steps: see the attribute.
          reference_model: a folder in diffusers' layout (Stable Diffusion 1.x, 2.x or XL) that draws the reference
            images instead of the model's own `unet`, with its own text encoder, autoencoder and size of picture.

        Raises:
          ValueError: the folder is no model folder, or a part is missing, of another kind, or does not fit its weights.
        """
        index = ModelIndex.read(folder)
        dtype = dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
        text = load_text_encoder(index.folder, dtype)
        autoencoder, vae_params = load_autoencoder(index.folder, dtype)
        channels, width = autoencoder.network.latent_channels, text.network.hidden_size
        params = {TEXT[0]: text.params, VAE: vae_params}

        def load(name: str, kind: type, without: str) -> Any:
            if without and not index.has(name):
                logging.warning("The model has no %s: %s", name, without)
                return None
            stage, params[name] = load_stage(index.folder / name, kind, channels, width, dtype)
            return stage

        reference = None
        if reference_model is not None:
            index = index.with_reference(TextToImage.default_settings(reference_model))
            reference, params[REFERENCE] = TextToImage.from_pretrained(reference_model, dtype)
        elif index.has(UNET):
            shared = {"text": text, "autoencoder": (autoencoder, vae_params)}
            reference, parts = TextToImage.from_pretrained(index.folder, dtype, **shared)
            params[REFERENCE] = {UNET: parts[UNET]}
        else:
            logging.warning("The model has no %s: a reference image has to be given", UNET)
        cascade = tuple(load(name, CascadeStage, "") for name in index.cascade)
        temporal = load(UPSAMPLER, TemporalStage, "videos stay at the base frame rate")
        decoder = load(DECODER, DecoderStage, "frames are decoded one by one, by the image decoder")
        below = None
        for name, stage in zip(index.cascade, cascade, strict=True):
            if stage.lower_resolution != below:
                raise ValueError(
                    f"{index.folder / name} takes latents of side {stage.lower_resolution}, "
                    f"but the stage below it in the cascade makes {below}"
                )
            below = stage.resolution
        for stage in cascade:
            stage.noise_schedule  # noqa: B018  (worked out here, since it must be no part of a program that is traced)
        text = text._replace(params=None)
        params = jax.device_put(params)
        if reference is not None and reference_model is None:
            params[REFERENCE] |= {name: params[name] for name in (TEXT[0], VAE)}
        return cls(index, text, autoencoder, reference, cascade, temporal, decoder, params, report_steps)

    @property
    def _shares_text(self) -> bool:
        """Whether the reference images are drawn from the same text states as the cascade's latents."""
        return self.reference is None or self.reference.texts[0].network is self.text.network

    @property
    def _reference_size(self) -> int:
        """Side of the reference latents when they are drawn."""
        return self.reference.sample_size or self.cascade[-1].resolution

    @property
    def resolution(self) -> int:
        """Side of the frames in pixels."""
        return self.cascade[-1].resolution * self.autoencoder.network.downsampling

    def __call__(
        self,
        prompts: str | Sequence[str],
        *,
        seed: int | Sequence[int] = 0,
        reference: np.ndarray | Sequence[np.ndarray] | None = None,
        num_frames: int | None = None,
        fps: float | None = None,
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
    ) -> VideoGenOutput:
        """Makes one video of each prompt. What is None is as the model's index says.

        Args:
          prompts: one, or B of them.
          seed: 0 to 2**32 - 1, for all prompts or one each. An example depends on its own seed alone, so a batch gives
            what single prompts give.
          reference: uint8 `(H, W, 3)` of any size, for all prompts or one each, instead of the images that the
            reference stage would draw; the central square is taken.
          num_frames: 2 to (F - 1) * factor + 1, F the base frames; the smallest factor that gives as many is taken,
            and what comes after is left out.
          fps: the rate of playing alone; None: that of the model.
          guidance_scale, reference_guidance_scale, steps, sampler, noise_level: fields of `StageSettings`, a value for
            all stages or a mapping from stages ("reference", "cascade_4").
          temporal_factor: what the frame rate is multiplied by.
          decode_chunk, decode_overlap: frames decoded at once, and those at each end that are context alone.
          batch_size: the batch that is compiled; fewer prompts are filled up to it. None: B.
          callback: called with (stage, step, of, preview): steps done of all of the stage, and images worth showing,
            uint8 `(B, H, W, 3)` or `(B, n, H, W, 3)`, or None.

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
        images = None if reference is None else _references(reference, count, self.resolution)
        if images is None and self.reference is None:
            raise ValueError(f"the model has no {UNET} that could draw the reference image: give one")
        self.check_prompts(prompts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # check_prompts has told
            tokens = tokenize(self.text.tokenizer, [*prompts, ""])
            drawn = () if images is not None or self._shares_text else self.reference.tokenize(prompts)
        fill = np.arange(batch) % count
        drawn = tuple(ids[[*fill, count]] for ids in drawn)
        tokens, seeds = (tokens[[*fill, count]], *drawn), seeds[fill]
        images = None if images is None else images[fill]
        self._callback = callback
        try:
            reference, frames = self._run(tokens, seeds, images, settings, timeline, chunk, overlap)
        finally:
            self._callback = None
            self.programs.cancel()
        return VideoGenOutput(frames[:count], reference[:count], timeline.fps)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Warns of words that the model's vocabulary was not trained on, and of prompts that are too long.

        Raises:
          ValueError: a prompt is empty or no text.
        """
        for prompt in prompts:
            if not isinstance(prompt, str) or not prompt.strip():
                raise ValueError(f"a prompt must be a text that is not empty, but one is {prompt!r}")
        tokenize(self.text.tokenizer, prompts)
        unknown = dict.fromkeys(word for prompt in prompts for word in unknown_words(self.text.tokenizer, prompt))
        if unknown:
            warnings.warn(
                f"the model does not know {', '.join(map(repr, unknown))}; the words it knows are "
                f"{', '.join(known_words(self.text.tokenizer))}",
                stacklevel=2,
            )

    def _run(
        self,
        tokens: tuple[np.ndarray, ...],
        seeds: np.ndarray,
        images: np.ndarray | None,
        settings: Mapping[str, StageSettings],
        timeline: Timeline,
        chunk: int,
        overlap: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns reference images and frames.

        tokens: `(B + 1, L)`, the last row the empty prompt; first the cascade's, then those of a reference model that
        has text encoders of its own.
        """
        tokens, reference_tokens = tokens[0], tokens[1:]
        batch, params = len(seeds), self.params
        base, total = self.index.num_frames, (self.index.num_frames - 1) * timeline.factor + 1
        chunk = min(chunk, total)
        side, channels = self.cascade[-1].resolution, self.autoencoder.network.latent_channels
        scales = {
            stage: (np.float32(at.guidance_scale), np.float32(at.reference_guidance_scale))
            for stage, at in settings.items()
        }

        def floats(*shape: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(shape, jnp.float32)

        context = floats(batch, tokens.shape[1], self.text.network.hidden_size)
        null = floats(*context.shape[1:])
        pixels = jax.ShapeDtypeStruct((batch, self.resolution, self.resolution, 3), jnp.uint8)

        # Everything that will run is asked for first, in its order, so that it is compiled while the first parts run.
        prepare = self.programs.prepare
        text_key = ("text", batch)
        prepare(text_key, self._encode_text, params[TEXT[0]], tokens)
        reference_key, image_key = self._key(REFERENCE, batch, settings[REFERENCE]), ("image", batch)
        if images is None:
            given, at = params[REFERENCE], settings[REFERENCE]
            told = Prompts(context), Prompts(floats(1, *context.shape[1:]))
            if reference_tokens:
                told = jax.eval_shape(self._encode_reference_text, given, reference_tokens)
                prepare(("reference_text", batch), self._encode_reference_text, given, reference_tokens)
            draw = functools.partial(self._draw_reference, at)
            prepare(reference_key, draw, given, seeds, *told, scales[REFERENCE][0])
            drawn = jax.eval_shape(draw, given, seeds, *told, scales[REFERENCE][0])
            prepare(image_key, self._decode_images, given, drawn)
        prepare(("encode", batch), self._encode_images, params[VAE], pixels)
        cascade_keys, levels, lower = {}, {}, None
        for position, (name, stage) in enumerate(zip(self.index.cascade, self.cascade, strict=True)):
            at = settings[name]
            level = stage.noise_level if at.noise_level is None else at.noise_level
            levels[name], cascade_keys[name] = np.int32(level), self._key(name, batch, at)
            shown = floats(batch, 1, stage.resolution, stage.resolution, channels)
            given = (context, null, shown, lower, *scales[name], levels[name])
            draw = functools.partial(self._sample_cascade, position, at)
            prepare(cascade_keys[name], draw, params[name], seeds, *given)
            lower = floats(batch, base, stage.resolution, stage.resolution, channels)
        temporal_key, decode_key = (UPSAMPLER, batch, timeline.factor), ("decode", batch, chunk)
        if timeline.factor > 1:
            prepare(temporal_key, functools.partial(self._upsample, timeline.factor), params[UPSAMPLER], lower)
        decoder_params = params[VAE if self.decoder is None else DECODER]
        prepare(decode_key, self._decode_frames, decoder_params, floats(batch, chunk, side, side, channels))

        run = self.programs.run
        self._report("text", 0, 1)
        context, null = run(text_key, params[TEXT[0]], tokens)
        told = Prompts(context), Prompts(null[None])
        if images is None and reference_tokens:
            told = run(("reference_text", batch), params[REFERENCE], reference_tokens)
        self._report("text", 1, 1)
        if images is None:
            steps = settings[REFERENCE].steps
            self._report(REFERENCE, 0, steps)
            latents = run(reference_key, params[REFERENCE], seeds, *told, scales[REFERENCE][0])
            images = np.asarray(run(image_key, params[REFERENCE], latents))
            images = _references(images, batch, self.resolution)
            self._report(REFERENCE, steps, steps, images)
        references = run(("encode", batch), params[VAE], images)
        latents = None
        for name, shown in zip(self.index.cascade, references, strict=True):
            steps = settings[name].steps
            self._report(name, 0, steps)
            given = (context, null, shown, latents, *scales[name], levels[name])
            latents = run(cascade_keys[name], params[name], seeds, *given).block_until_ready()
            self._report(name, steps, steps)
        if timeline.factor > 1:
            self._report("temporal", 0, 1)
            latents = run(temporal_key, params[UPSAMPLER], latents)
            self._report("temporal", 1, 1)
        latents = np.asarray(latents)
        windows = decoding_windows(timeline.num_frames, total, chunk, overlap if self.decoder else 0)
        frames = np.empty((batch, timeline.num_frames, *images.shape[1:]), np.uint8)
        self._report("decode", 0, len(windows))
        for done, (start, first, end) in enumerate(windows, 1):
            decoded = run(decode_key, decoder_params, latents[:, start : start + chunk])
            frames[:, first:end] = np.asarray(decoded)[:, first - start : end - start]
            self._report("decode", done, len(windows), frames[:, first:end])
        return images, frames

    # The programs. The stages are constants of theirs; all arrays are arguments.

    def _encode_text(self, params: Params, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        states = self.text.encode(params, tokens)
        return states[:-1], states[-1]

    def _encode_reference_text(self, params, tokens) -> tuple[Prompts, Prompts]:
        return self.reference.encode(params, tokens, self._reference_size)

    def _draw_reference(self, at, params, seeds, prompts, empty, guidance_scale) -> jax.Array:
        size, on_step = self._reference_size, self._on_step(REFERENCE, at.steps)
        return self.reference.draw(
            params, _keys(seeds, 0), prompts, empty, guidance_scale, size, at.steps, at.sampler, at.guided, on_step
        )

    def _decode_images(self, params: Params, latents: jax.Array) -> jax.Array:
        return to_uint8(self.reference.decode(params, latents))

    def _encode_images(self, params: Params, images: jax.Array) -> tuple[jax.Array, ...]:
        frames = to_unit(images)[:, None]
        return tuple(self.autoencoder.encode(params, frames, stage.resolution) for stage in self.cascade)

    def _sample_cascade(
        self, position, at, params, seeds, context, null_context, reference, lower, scale, reference_scale, level
    ) -> jax.Array:
        return self.cascade[position].sample_latents(
            params,
            _keys(seeds, position + 1),
            context,
            null_context,
            reference,
            lower,
            scale,
            reference_scale,
            self.index.num_frames,
            at.steps,
            at.sampler,
            noise_level=level,
            fps=self.index.fps,
            guided=at.guided,
            on_step=self._on_step(self.index.cascade[position], at.steps),
        )

    def _upsample(self, factor: int, params: Params, latents: jax.Array) -> jax.Array:
        return self.temporal.upsample(params, latents, factor).astype(jnp.float32)

    def _decode_frames(self, params: Params, latents: jax.Array) -> jax.Array:
        if self.decoder is None:
            return to_uint8(self.autoencoder.decode(params, latents))
        return to_uint8(self.decoder.decode(params, self.autoencoder.unscale(latents)))

    def _key(self, name: str, batch: int, at: StageSettings) -> tuple:
        """All that a sampling stage's program depends on but its arguments."""
        return (name, batch, at.steps, at.sampler, at.guided, self.report_steps)

    def _on_step(self, stage: str, of: int) -> Callable[[int], None] | None:
        """What a program calls after each step: whatever callback there is then, so none is compiled into it."""
        # The end of a stage is told when its result is there, with the preview.
        return (lambda step: step + 1 < of and self._report(stage, step + 1, of)) if self.report_steps else None

    def _report(self, stage: str, step: int, of: int, preview: np.ndarray | None = None) -> None:
        if self._callback is not None:
            if step == of and self.report_steps:
                jax.effects_barrier()  # no step is told of after the end
            self._callback(stage, step, of, preview)


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


def _keys(seeds: jax.Array, stage: int) -> jax.Array:
    """One key an example and stage, `(B,)`, from uint32 seeds `(B,)`."""
    return jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), stage))(seeds)


def _seeds(seed: int | Sequence[int], count: int) -> np.ndarray:
    """uint32 `(count,)`."""
    seeds = [seed] * count if isinstance(seed, (int, np.integer)) else list(seed)
    if len(seeds) != count:
        raise ValueError(f"{len(seeds)} seeds were given for {count} prompts")
    for value in seeds:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < 2**32:
            raise ValueError(f"seed is {value!r}, but must be a whole number from 0 to {2**32 - 1}")
    return np.asarray(seeds, np.uint32)


def _references(reference: np.ndarray | Sequence[np.ndarray], count: int, side: int) -> np.ndarray:
    """uint8 `(count, side, side, 3)`: the central squares of the images, resized where they have another size."""
    one = isinstance(reference, np.ndarray) and reference.ndim == 3
    images = [reference] * count if one else list(reference)
    if len(images) != count:
        raise ValueError(f"{len(images)} reference images were given for {count} prompts")
    squares = []
    for image in images:
        image = np.asarray(image)
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(f"a reference image is uint8 (H, W, 3), but one is {image.dtype} {image.shape}")
        short = min(image.shape[:2])
        top, left = (image.shape[0] - short) // 2, (image.shape[1] - short) // 2
        square = Image.fromarray(image[top : top + short, left : left + short])
        squares.append(np.asarray(square.resize((side, side), Image.Resampling.LANCZOS)))
    return np.stack(squares)
