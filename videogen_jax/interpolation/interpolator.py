"""Frame interpolation of videos with the parts of a model folder; streaming, in bounded memory.

    frames --autoencoder--> latents --temporal upsampler--> latents at the new rate --video decoder--> frames

The residual of the autoencoder, the difference between the source frames and their decoded latents, is warped along the
upsampler's flow to the new frames and added there. The source frames can thus be passed on unchanged while the new ones
are just as sharp; otherwise the video would flicker at the old frame rate.
"""

import collections
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from videogen_jax.data.clips import THUMBNAIL, CutDetector
from videogen_jax.interpolation.windows import sliding_windows
from videogen_jax.models.flow import fuse, intermediate_times, upsample_flow, warp
from videogen_jax.runtime.arrays import to_uint8, to_unit
from videogen_jax.stages.decoder import DecoderStage
from videogen_jax.stages.frozen_autoencoder import FrozenAutoencoder
from videogen_jax.stages.stage import Params
from videogen_jax.stages.temporal import TemporalStage
from videogen_jax.weights.model_index import UPSAMPLER, ModelIndex
from videogen_jax.weights.parts import load_autoencoder, load_stage

VAE, DECODER = "vae", "video_decoder"
# Lower than for training clips: repeating a frame at a false cut is less visible than blending two scenes.
CUT_THRESHOLD = 10.0
_SHORT = 4  # frames per window in scenes that are shorter than a full window


class Motion(NamedTuple):
    """The flow and visibility of the K frames between each of P pairs of neighbours, at the resolution of the latents.

    Attributes:
      flow_0, flow_1: flow to the earlier and the later neighbour, `(P, K, h, w, 2)`.
      visibility: how far the content is visible in the earlier neighbour rather than the later, `(P, K, h, w, 1)` in
        (0, 1).
    """

    flow_0: np.ndarray
    flow_1: np.ndarray
    visibility: np.ndarray


class _LatentFrame(NamedTuple):
    """One frame at the new rate.

    Attributes:
      latents: `(h, w, C)`.
      pass_index: the upsampling pass that inserted the frame; -1 for a source frame.
      motion: of this frame alone, without the axes P and K; None for a source frame.
    """

    latents: np.ndarray
    pass_index: int
    motion: Motion | None


@dataclasses.dataclass
class Interpolator:
    """A model's autoencoder, temporal upsampler and video decoder; constructed by `from_pretrained`.

    Frames may have any size: the networks are convolutional, with attention over positions in the middle of the
    autoencoder. Sides are padded to a multiple of `multiple` by repeating the border, and cropped back.

    Attributes:
      autoencoder, temporal: the parts.
      decoder: the video decoder; None if the model has none, so that frames are decoded one by one.
      params: parameters of each part, by its folder.
      factors: the factors that the upsampler was trained for, increasing, including 1.
      resolution: side in pixels of the frames that the model was trained on.
      window: number of frames that are encoded, upsampled or decoded at once.
      overlap: number of frames at each end of a window that serve as context only when decoding.
      cut_threshold: see `CutDetector`; at a cut the last frame of the scene is repeated.
    """

    autoencoder: FrozenAutoencoder
    temporal: TemporalStage
    decoder: DecoderStage | None
    params: Mapping[str, Params]
    factors: tuple[int, ...]
    resolution: int
    window: int = 16
    overlap: int = 2
    cut_threshold: float = CUT_THRESHOLD

    def __post_init__(self):
        minimum = max(_SHORT, 2 * self.overlap + 1)
        if self.window < minimum:
            raise ValueError(f"window is {self.window}, but must be at least {minimum}")
        self._encode = jax.jit(self._encode_frames)
        self._upsample = jax.jit(self._upsample_latents, static_argnums=2)
        self._decode = jax.jit(self._decode_latents)
        self._add_residual = jax.jit(self._with_residual)

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike, dtype: str | None = None, window: int = 16, cut_threshold: float = CUT_THRESHOLD
    ) -> "Interpolator":
        """Load the parts of a model folder.

        Args:
          folder: has the parts `vae` and `temporal_upsampler`, and optionally `video_decoder`.
          dtype: "float32", "bfloat16" or "float16", in which the networks compute; None for float32 on a CPU and
            bfloat16 elsewhere.
          window, cut_threshold: see the attributes.

        Raises:
          ValueError: the folder is not a model folder, has no temporal upsampler, or a part does not fit its weights.
        """
        index = ModelIndex.read(folder)
        check_upsampler(index)
        dtype = dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
        autoencoder, vae = load_autoencoder(index.folder, dtype)
        params, decoder = {VAE: vae}, None

        def load(name: str, kind: type):
            channels = autoencoder.network.latent_channels
            stage, params[name] = load_stage(index.folder / name, kind, channels, 1, dtype)  # neither part reads text
            return stage

        temporal = load(UPSAMPLER, TemporalStage)
        if index.has(DECODER):
            decoder = load(DECODER, DecoderStage)
        resolution = index.resolution
        overlap = index.decode_overlap if decoder else 0
        params = jax.device_put(params)
        return cls(autoencoder, temporal, decoder, params, index.factors, resolution, window, overlap, cut_threshold)

    @property
    def multiple(self) -> int:
        """Number of pixels to a multiple of which the sides of frames are padded."""
        return self.autoencoder.network.downsampling * self.temporal.network.flow_downsample

    def interpolate(self, frames: Iterable[np.ndarray], factor: int, keep_frames: bool = True) -> Iterator[np.ndarray]:
        """Multiply the frame rate of a stream of frames.

        Args:
          frames: uint8 `(H, W, 3)`, all of one size; read as needed.
          factor: see `factor_passes`.
          keep_frames: pass the source frames on unchanged, and add the autoencoder's residual to the new frames;
            otherwise all frames are decoded from latents.

        Yields: for each source frame uint8 `(factor, H, W, 3)`, the frame itself and the new frames before the next;
        the last frame of a scene or of the video is repeated instead.

        Raises:
          ValueError: the model does not support this factor, or a frame has another size or dtype.
        """
        passes = factor_passes(factor, self.factors)
        for scene in self._scenes(frames):
            yield from self._interpolate_scene(scene, passes, keep_frames)

    def _scenes(self, frames: Iterable[np.ndarray]) -> Iterator[Iterator[np.ndarray]]:
        """Yield an iterator over the frames of each scene, which must be exhausted before the next is requested."""
        is_cut = CutDetector(self.cut_threshold)
        frames, shape = iter(frames), None
        next_scene: collections.deque[np.ndarray] = collections.deque()  # the first frame of the next scene

        def scene() -> Iterator[np.ndarray]:
            nonlocal shape
            if next_scene:
                yield next_scene.popleft()
            for frame in frames:
                shape = shape or frame.shape
                if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3 or frame.shape != shape:
                    raise ValueError(
                        f"a frame is {frame.shape} {frame.dtype}, but must be (H, W, 3) uint8 like the first"
                    )
                thumbnail = Image.fromarray(frame).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
                if is_cut(np.asarray(thumbnail)):
                    next_scene.append(frame)
                    return
                yield frame

        yield scene()
        while next_scene:
            yield scene()

    def _interpolate_scene(
        self, frames: Iterator[np.ndarray], passes: tuple[int, ...], keep_frames: bool
    ) -> Iterator[np.ndarray]:
        sources: collections.deque[np.ndarray] = collections.deque()  # source frames that have not been passed on
        latents = (_LatentFrame(latents, -1, None) for latents in self._encoded(frames, sources))
        for pass_index, factor in enumerate(passes):
            latents = self._upsampled(latents, pass_index, factor)
        interval: list[tuple[_LatentFrame, np.ndarray]] = []  # from one source frame to the next
        for latent_frame, image in self._decoded(latents):
            if latent_frame.pass_index < 0 and interval:
                yield self._finish_interval([*interval, (latent_frame, image)], sources, passes, keep_frames)
                interval = []
            interval.append((latent_frame, image))
        if interval:
            height, width = sources[0].shape[:2]
            last = sources.popleft() if keep_frames else interval[0][1][:height, :width]
            yield np.repeat(last[None], np.prod(passes), axis=0)

    def _finish_interval(
        self,
        interval: list[tuple[_LatentFrame, np.ndarray]],
        sources: collections.deque[np.ndarray],
        passes: tuple[int, ...],
        keep_frames: bool,
    ) -> np.ndarray:
        """Return the frames from one source frame to the next, excluding the latter, uint8 `(factor, H, W, 3)`.

        Args:
          interval: the decoded frames, including both source frames.
          sources: begins with the two source frames; the first is removed.
          passes: factor of each upsampling pass.
          keep_frames: see `interpolate`.
        """
        decoded = np.stack([image for _, image in interval])
        first, second = sources.popleft(), sources[0]
        height, width = first.shape[:2]
        if not keep_frames:
            return decoded[:-1, :height, :width]
        motions = []
        for pass_index, factor in enumerate(passes):
            of_pass = [frame.motion for frame, _ in interval if frame.pass_index == pass_index]
            pairs = len(of_pass) // (factor - 1)
            motions.append(Motion(*(np.stack(x).reshape(pairs, -1, *x[0].shape) for x in zip(*of_pass, strict=True))))
        ends = np.stack([self._padded(first), self._padded(second)])
        new_frames = np.asarray(self._add_residual(ends, decoded, tuple(motions)))
        return np.concatenate([first[None], new_frames[:, :height, :width]])

    def _padded(self, frame: np.ndarray) -> np.ndarray:
        rows, columns = (-side % self.multiple for side in frame.shape[:2])
        return np.pad(frame, ((0, rows), (0, columns), (0, 0)), mode="edge") if rows or columns else frame

    def _encoded(self, frames: Iterator[np.ndarray], sources: collections.deque[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the latents `(h, w, C)` of each frame, and append the frame to `sources`."""
        for window, first, end in sliding_windows(frames, self.window, 0, 0):
            sources.extend(window[first:end])
            images = _stack_padded([self._padded(frame) for frame in window], self.window)
            yield from np.asarray(self._encode(self.params[VAE], images))[first:end]

    def _upsampled(self, latents: Iterator[_LatentFrame], pass_index: int, factor: int) -> Iterator[_LatentFrame]:
        """Insert `factor - 1` frames between each two."""
        for window, first, end in sliding_windows(latents, self.window, 1, 2):
            # Each pair is upsampled with one neighbour on either side, so that windows give the same result as the
            # whole video. Scenes shorter than a window are processed in windows of four frames, so that not every
            # length needs a program of its own.
            full = len(window) == self.window
            for part, start, stop in [(window, first, end)] if full else sliding_windows(window, _SHORT, 1, 2):
                if len(part) < 2:
                    yield from part
                    return
                stacked = np.stack([item.latents for item in part])
                new_latents, motions = jax.device_get(self._upsample(self.params[UPSAMPLER], stacked, factor))
                for k in range(start, stop):
                    yield part[k]
                    for j in range(factor - 1 if k + 1 < len(part) else 0):
                        motion = Motion(*(x[k, j] for x in motions))
                        yield _LatentFrame(new_latents[k, j], pass_index, motion)

    def _decoded(self, latents: Iterator[_LatentFrame]) -> Iterator[tuple[_LatentFrame, np.ndarray]]:
        """Yield each frame with its decoded image, uint8 `(H, W, 3)`, not cropped back yet."""
        params = self.params[VAE if self.decoder is None else DECODER]
        overlap = 0 if self.decoder is None else self.overlap
        for window, first, end in sliding_windows(latents, self.window, overlap, overlap):
            stacked = _stack_padded([item.latents for item in window], self.window)
            images = np.asarray(self._decode(params, stacked))
            yield from zip(window[first:end], images[first:end], strict=True)

    # The programs, each compiled once per frame size and factor.

    def _encode_frames(self, params: Params, frames: jax.Array) -> jax.Array:
        """Encode frames uint8 `(T, H, W, 3)` as latents `(T, h, w, C)` of unit variance."""
        return self.autoencoder.encode(params, to_unit(frames))

    def _upsample_latents(self, params: Params, latents: jax.Array, factor: int) -> tuple[jax.Array, Motion]:
        """Interpolate latents `(N, h, w, C)`; return the new ones `(N - 1, factor - 1, h, w, C)` and their motion."""
        network = self.temporal.network
        video, aux = network.apply({"params": params}, latents[None], factor, return_aux=True)
        new_latents = video[0, :-1].reshape(-1, factor, *latents.shape[1:])[:, 1:]
        return new_latents.astype(jnp.float32), Motion(aux.flow_t0[0], aux.flow_t1[0], aux.visibility[0])

    def _decode_latents(self, params: Params, latents: jax.Array) -> jax.Array:
        """Decode latents `(T, h, w, C)` to frames uint8 `(T, H, W, 3)`."""
        if self.decoder is None:
            return to_uint8(self.autoencoder.decode(params, latents))
        return to_uint8(self.decoder.decode(params, self.autoencoder.unscale(latents)[None])[0])

    def _with_residual(self, sources: jax.Array, decoded: jax.Array, motions: tuple[Motion, ...]) -> jax.Array:
        """Add the autoencoder's residual at two source frames to the frames between them.

        Args:
          sources: the two source frames, uint8 `(2, H, W, 3)`.
          decoded: all frames from the first to the second, decoded from latents, uint8 `(F + 1, H, W, 3)`.
          motions: of each upsampling pass.

        Returns: uint8 `(F - 1, H, W, 3)`.
        """
        residual = to_unit(sources) - to_unit(decoded[:: len(decoded) - 1])
        for motion in motions:
            residual = interpolate_residual(residual, motion)
        return to_uint8(to_unit(decoded[1:-1]) + residual[1:-1])


def interpolate_residual(residual: jax.Array, motion: Motion) -> jax.Array:
    """Warp the residuals of P + 1 frames to the K frames between each two of them.

    Args:
      residual: `(P + 1, H, W, 3)`.
      motion: of the P * K frames.

    Returns: the residuals of all frames in temporal order, `((P + 1) + P * K, H, W, 3)`.
    """
    pairs, between, h = motion.flow_0.shape[:3]
    height, width, channels = residual.shape[1:]
    times = jnp.asarray(intermediate_times(between + 1), jnp.float32)
    times = jnp.tile(times, pairs)[:, None, None, None]

    def warped(ends: jax.Array, flow: jax.Array) -> jax.Array:
        flow = upsample_flow(flow.reshape(-1, *flow.shape[2:]).astype(jnp.float32), height // h)
        return warp(jnp.repeat(ends, between, axis=0), flow)

    visibility = motion.visibility.reshape(pairs * between, *motion.visibility.shape[2:]).astype(jnp.float32)
    visibility = jax.image.resize(visibility, (pairs * between, height, width, 1), "bilinear")
    fused = fuse(warped(residual[:-1], motion.flow_0), warped(residual[1:], motion.flow_1), visibility, times)
    fused = fused.reshape(pairs, between, height, width, channels)
    all_but_last = jnp.concatenate([residual[:-1, None], fused], axis=1).reshape(-1, height, width, channels)
    return jnp.concatenate([all_but_last, residual[-1:]])


def interpolate_frames(
    interpolator: Interpolator, frames: np.ndarray, factor: int, keep_frames: bool = True
) -> np.ndarray:
    """Insert factor - 1 frames between each two of a video in memory; `Interpolator.interpolate` streams.

    Args:
      interpolator: from `Interpolator.from_pretrained`.
      frames: uint8 `(T, H, W, 3)`, T >= 2.
      factor: see `factor_passes`.
      keep_frames: see `Interpolator.interpolate`.

    Returns: uint8 `((T - 1) * factor + 1, H, W, 3)`.

    Raises:
      ValueError: the model does not support this factor, or frames have another shape or dtype.
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or len(frames) < 2:
        raise ValueError(f"frames are {frames.shape}, but must be (T, H, W, 3) with T of at least 2")
    parts = list(interpolator.interpolate(frames, factor, keep_frames))
    return np.concatenate(parts)[: (len(frames) - 1) * factor + 1]


def factor_passes(factor: int, factors: tuple[int, ...]) -> tuple[int, ...]:
    """Split a factor into the factors of successive upsampling passes, e.g. 8 into 4, then 2.

    Args:
      factor: the total factor.
      factors: those that the upsampler was trained for, see `ModelIndex.factors`.

    Raises:
      ValueError: the total factor is not a product of them.
    """
    remaining, passes = factor, []
    usable = sorted((f for f in factors if f > 1), reverse=True)
    while isinstance(remaining, int) and remaining > 1:
        step = next((f for f in usable if remaining % f == 0), None)
        if step is None:
            break
        passes.append(step)
        remaining //= step
    if remaining != 1 or not passes:
        supported = ", ".join(map(str, usable[::-1]))
        raise ValueError(f"factor is {factor}, but must be one of the model's, {supported}, or a product of them")
    return tuple(passes)


def check_upsampler(index: ModelIndex) -> None:
    """Check that a model can raise the frame rate.

    Raises:
      ValueError: it has no temporal upsampler.
    """
    if len(index.factors) < 2:
        raise ValueError(f"{index.folder} has no {UPSAMPLER}, which is needed to raise the frame rate")


def _stack_padded(items: list[np.ndarray], count: int) -> np.ndarray:
    """Stack items, repeating the last one up to `count`, so that all windows run the same program."""
    return np.stack([*items, *items[-1:] * (count - len(items))])
