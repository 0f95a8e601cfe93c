"""From a prompt to frames: the stages of a model composed (VideoGen, Li et al. 2023, figure 2).

prompt -> text states -> reference latents -> reference image -> its latents at each resolution of the cascade
       -> cascade, from the lowest resolution up -> temporal upsampler -> video decoder -> frames

`generate` is run by an executor: over arrays, which makes the video (`ArrayExecutor`); or over shapes, which passes
each program, in order, to a function that compiles it, for this machine or for another topology (`ShapeExecutor`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from videogen_jax.sampling.model import VideoGenModel
from videogen_jax.sampling.programs import Programs
from videogen_jax.sampling.request import SamplingRequest, Size
from videogen_jax.sampling.text_to_image import TEXT
from videogen_jax.stages.latent_diffusion import LatentSampling
from videogen_jax.stages.reference import Prompts
from videogen_jax.stages.stage import Params
from videogen_jax.weights.model_index import DECODER, IMAGE_ENCODER, REFERENCE, UNET, UPSAMPLER, VAE

Callback = Callable[[str, int, int, np.ndarray | None], None]


class Inputs(NamedTuple):
    """The arrays of a request, padded to its batch size B by repeating prompts.

    Attributes:
      tokens: int32 `(B + 1, L)`, the last row the empty prompt, for the cascade's text encoder; then as many for each
        text encoder of a reference model that has its own.
      seeds: uint32 `(B,)`.
      images: the reference images, uint8 `(B, H, W, 3)`, or None where they are drawn, or nothing reads them.
      noise: for some stages the standard normal noise that sampling starts from, float32 `(B, T, h, w, C)`, by the
        stage's name; that of the others is drawn from the seeds.
    """

    tokens: tuple[np.ndarray, ...]
    seeds: np.ndarray
    images: np.ndarray | None
    noise: Mapping[str, np.ndarray] = MappingProxyType({})


class Executor(Protocol):
    """Runs the programs of `generate`, or only traces them."""

    def __call__(self, key: tuple, function: Callable, *args: Any, donate: tuple[int, ...] = ()) -> Any:
        """Run `function(*args)` as the program of that key, and give its results."""

    def on_host(self, function: Callable, *args: Any, like: jax.ShapeDtypeStruct) -> Any:
        """Compute `function(*args)` with NumPy; its result has the shape and the type of `like`."""

    def report(self, stage: str, step: int, of: int, preview: Any = None, after: Any = None) -> None:
        """Report that `step` of `of` steps of a stage are done, once the array `after` is computed."""


class ArrayExecutor:
    """Makes the video, and calls the callback after each step; see `VideoGenPipeline.sample` for its arguments."""

    def __init__(self, programs: Programs, callback: Callback | None):
        self._programs, self._callback = programs, callback
        self._last = ("text", 0, 1)

    def __call__(self, key: tuple, function: Callable, *args: Any, donate: tuple[int, ...] = ()) -> Any:
        waiting = None if self._callback is None else lambda: self.report(*self._last)
        return self._programs.run(key, function, *args, donate=donate, waiting=waiting)

    def on_host(self, function: Callable, *args: Any, like: jax.ShapeDtypeStruct) -> np.ndarray:
        return function(*map(np.asarray, args))

    def report(self, stage: str, step: int, of: int, preview: Any = None, after: Any = None) -> None:
        self._last = stage, step, of
        if self._callback is not None:
            jax.block_until_ready(after)
            self._callback(stage, step, of, preview)


class ShapeExecutor:
    """Passes every program to `prepare`, which takes and returns what `Programs.prepare` does."""

    def __init__(self, prepare: Callable):
        self._prepare = prepare

    def __call__(self, key: tuple, function: Callable, *args: Any, donate: tuple[int, ...] = ()) -> Any:
        return self._prepare(key, function, *args, donate=donate)

    def on_host(self, function: Callable, *args: Any, like: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return like

    def report(self, stage: str, step: int, of: int, preview: Any = None, after: Any = None) -> None:
        """Do nothing: no step is run."""


def generate(
    model: VideoGenModel, request: SamplingRequest, inputs: Inputs, run: Executor, previews: bool = False
) -> tuple[Any, Any]:
    """Generate the videos of a request.

    Args:
      model: the parts that are composed.
      request: resolved for the model's index.
      inputs: the request's arrays.
      run: the executor.
      previews: also decode the video so far, frame by frame, after each stage of the cascade and after upsampling.

    Returns: reference images uint8 `(B, H, W, 3)`, or None, and frames uint8 `(B, T, H, W, 3)`.
    """
    index, params = model.index, model.params
    batch, size, num_frames = request.batch_size, request.size, request.num_frames
    base_frames = index.base_frames(num_frames, request.temporal_factor)
    length = () if base_frames == index.num_frames else (base_frames,)

    def key(program: str, *variant: Any) -> tuple:
        """What a program depends on besides the model; most shapes follow from batch, size and base frames."""
        return (program, batch, size, *length, *variant)

    def sample_stage(name: str, stage: LatentSampling, params: Params, start: Callable, *args: Any) -> tuple[Any, int]:
        """All sampling steps of one stage: its latents, and how many steps there were."""
        settings = request.stages[name]
        passes, step_coeffs = stage.passes(settings), stage.step_coeffs(settings)
        static = {"sampler": settings.sampler, "passes": passes}
        scales, noise = stage.scales(settings, base_frames), inputs.noise.get(name)
        steps = len(step_coeffs)
        run.report(name, 0, steps)
        given = () if noise is None else ("noise",)
        state, conditioning = run(
            key(f"{name}_start", *static.values(), *given), partial(start, **static), *args, noise
        )
        for done, coeffs in enumerate(step_coeffs, 1):
            step = partial(stage.step, **static)
            state = run(key(name, *static.values()), step, params, state, conditioning, coeffs, scales, donate=(1,))
            if done < steps:  # the caller reports the last one, with what there is to see
                run.report(name, done, steps, after=state.x)
        return state.x, steps

    def preview(latents: Any, count: int) -> Any:
        """The first `count` frames so far, decoded by the image decoder; None without `previews`."""
        if not previews:
            return None
        chunk = min(request.decode_chunk, base_frames)
        decode = partial(run, key("preview", (batch, chunk, *latents.shape[2:])), model.decode_images, params[VAE])
        pieces = decode_in_windows(run, decode, latents, count, chunk, overlap=0)
        return join_pieces(run, list(pieces))

    # The text: states of the prompts and, for guidance, of the empty prompt; none where nothing reads them.
    prompts, empty, others = None, None, inputs.tokens
    if inputs.tokens:
        run.report("text", 0, 1)
        if model.text is not None:
            own, *others = inputs.tokens
            prompts, empty = map(Prompts, run(key("text"), model.encode_text, params[TEXT[0]], own))
        drawn_from = prompts, empty
        if others:  # the reference model has text encoders of its own
            encode = partial(model.encode_reference_text, size)
            drawn_from = run(key("reference_text"), encode, params[REFERENCE], tuple(others))
            if index.reads_text and model.text is None:  # and the video's network reads what they encode
                prompts, empty = drawn_from
        run.report("text", 1, 1, after=drawn_from[0].context)

    # The reference image: drawn by the text-to-image model, unless there is one, or nothing reads it.
    images = inputs.images
    if images is None and index.reads_reference:
        start = partial(model.start_reference, size)
        unet = params[REFERENCE][UNET]
        latents, steps = sample_stage(REFERENCE, model.reference.stage, unet, start, inputs.seeds, *drawn_from)
        images = run(key("image"), model.decode_reference, params[REFERENCE], latents)
        shape = jax.ShapeDtypeStruct((batch, *size, 3), jnp.uint8)
        images = run.on_host(lambda images: fit_references(images, batch, size), images, like=shape)
        run.report(REFERENCE, steps, steps, images)

    # What the stages of the cascade take of the reference image: its latents at their resolutions.
    scalars = tuple(
        stage.scalars(request.stages[name]) for name, stage in zip(index.cascade, model.cascade, strict=True)
    )
    references = (None,) * len(scalars)
    if images is not None:
        encoders = {part: params[part] for part in (VAE, IMAGE_ENCODER) if part in params}
        references = run(key("encode"), model.encode_reference, encoders, images, inputs.seeds, scalars)

    # The cascade, from the lowest resolution up: each stage sees the text, the reference and the stage below.
    latents = None
    for number, (name, stage) in enumerate(zip(index.cascade, model.cascade, strict=True)):
        if stage.encodes_lower:
            enlarge = partial(model.enlarge, number, size)
            latents = run(key(f"{name}_lower"), enlarge, params[VAE], latents)
        start = partial(model.start_cascade, number, num_frames=base_frames, size=size)
        args = (inputs.seeds, prompts, empty, references[number], latents, scalars[number])
        latents, steps = sample_stage(name, stage, params[name], start, *args)
        latents = run(key(f"{name}_finish"), stage.finish, latents, references[number])
        run.report(name, steps, steps, preview(latents, base_frames), after=latents)

    # Frames between the base frames.
    factor = request.temporal_factor
    if factor > 1:
        run.report("temporal", 0, 1)
        latents = run(key(UPSAMPLER, factor), partial(model.upsample, factor), params[UPSAMPLER], latents)
        run.report("temporal", 1, 1, preview(latents, num_frames), after=latents)

    # From latents to frames, some at a time.
    chunk = min(request.decode_chunk, latents.shape[1])
    decoder, overlap = (VAE, 0) if model.decoder is None else (DECODER, request.decode_overlap)
    decode = partial(run, key("decode", chunk), model.decode, params[decoder])
    num_windows, pieces = len(decoding_windows(num_frames, latents.shape[1], chunk, overlap)), []
    run.report("decode", 0, num_windows)
    for piece in decode_in_windows(run, decode, latents, num_frames, chunk, overlap):
        pieces.append(piece)
        run.report("decode", len(pieces), num_windows, piece)
    return images, join_pieces(run, pieces)


def decode_in_windows(
    run: Executor, decode: Callable, latents: Any, count: int, chunk: int, overlap: int
) -> Iterator[Any]:
    """The first `count` frames of latents `(B, T, h, w, C)`, uint8 `(B, n, H, W, 3)` piece by piece.

    Args:
      run: the executor.
      decode: latents `(B, chunk, h, w, C)` -> frames `(B, chunk, H, W, 3)`.
      latents, count, chunk, overlap: see `decoding_windows`.
    """
    total = latents.shape[1]
    latents = run.on_host(lambda latents: latents, latents, like=latents)
    for start, first, end in decoding_windows(count, total, chunk, overlap):
        window = run.on_host(lambda x, a=start: x[:, a : a + chunk], latents, like=_with_frames(latents, chunk))
        frames = decode(window)
        kept = slice(first - start, end - start)
        yield run.on_host(lambda x, kept=kept: x[:, kept], frames, like=_with_frames(frames, end - first))


def decoding_windows(count: int, total: int, chunk: int, overlap: int) -> list[tuple[int, int, int]]:
    """Windows of `chunk` frames that together give the first `count` of `total` frames.

    Between two windows `overlap` frames at each side serve as context alone; at the ends of the video there is nothing
    to see beyond.

    Returns: (start of the window, first frame kept, end of those kept) of each window.
    """
    windows, kept = [], 0
    while kept < count:
        start = max(0, min(kept - overlap, total - chunk))
        end = total if start + chunk >= total else start + chunk - overlap
        windows.append((start, kept, min(end, count)))
        kept = end
    return windows


def join_pieces(run: Executor, pieces: Sequence[Any]) -> Any:
    """Pieces `(B, n, H, W, 3)` of a video, one after another."""
    shape = _with_frames(pieces[0], sum(piece.shape[1] for piece in pieces))
    return run.on_host(lambda *pieces: np.concatenate(pieces, axis=1), *pieces, like=shape)


def fit_references(reference: np.ndarray | Sequence[np.ndarray], count: int, size: Size) -> np.ndarray:
    """Center-crop reference images to the video's aspect ratio and resize them to its size.

    Args:
      reference: uint8 `(H, W, 3)`, one for all, or `count` of them.
      count: of the videos.
      size: (height, width) in pixels.

    Returns: uint8 `(count, *size, 3)`.

    Raises:
      ValueError: another type or shape, or not as many as there are videos.
    """
    one = getattr(reference, "ndim", None) == 3
    images = [reference] * count if one else list(reference)
    if len(images) != count:
        raise ValueError(f"{len(images)} reference images were given for {count} prompts")
    height, width = size
    fitted = []
    for image in images:
        image = np.asarray(image)
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(f"a reference image is uint8 (H, W, 3), but one is {image.dtype} {image.shape}")
        scale = min(image.shape[0] / height, image.shape[1] / width)
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
        part = Image.fromarray(image[top : top + rows, left : left + columns])
        fitted.append(np.asarray(part.resize((width, height), Image.Resampling.LANCZOS)))
    return np.stack(fitted)


def _with_frames(x: Any, count: int) -> jax.ShapeDtypeStruct:
    """The shape of x `(B, T, ...)` with T = count."""
    return jax.ShapeDtypeStruct((x.shape[0], count, *x.shape[2:]), x.dtype)
