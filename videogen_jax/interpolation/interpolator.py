"""Frames between the frames of a video, by the parts of a model folder; streaming, in bounded memory.

frames --autoencoder--> latents --temporal upsampler--> latents at the new rate --video decoder--> frames

What the autoencoder loses of the given frames, the difference between them and their decoded latents, is carried along
the upsampler's flow to the frames in between and added there. So the given frames can stay as they are, and those
between do not differ from them in sharpness; without it the video would flicker at the old frame rate.
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
from videogen_jax.interpolation.windows import sliding
from videogen_jax.models.flow import fuse, intermediate_times, upsample_flow, warp
from videogen_jax.runtime.arrays import to_uint8, to_unit
from videogen_jax.stages.autoencoder import FrozenAutoencoder
from videogen_jax.stages.cascade import CascadeStage
from videogen_jax.stages.decoder import DecoderStage
from videogen_jax.stages.stage import Params
from videogen_jax.stages.temporal import TemporalStage
from videogen_jax.weights.folder import load_config
from videogen_jax.weights.model_index import UPSAMPLER, ModelIndex
from videogen_jax.weights.parts import load_autoencoder, load_stage

VAE, DECODER = "vae", "video_decoder"
# Lower than where training clips are cut: here a frame that is held costs less than two scenes laid over each other.
CUT_THRESHOLD = 10.0
_SHORT = 4  # frames of a window over a scene that is shorter than a whole window


class Motion(NamedTuple):
    """How the frames between P pairs of neighbours come from these, K between each; on the grid of the latents.

    flow_0, flow_1: `(P, K, h, w, 2)`, to the neighbours; visibility: `(P, K, h, w, 1)`.
    """

    flow_0: np.ndarray
    flow_1: np.ndarray
    visibility: np.ndarray


class _Between(NamedTuple):
    """Latents `(h, w, C)` at the new rate; motion of one frame, and the pass that made it, -1 for a given frame."""

    latents: np.ndarray
    made_in: int
    motion: Motion | None


@dataclasses.dataclass
class Interpolator:
    """A model's autoencoder, temporal upsampler and video decoder, loaded. Made by `from_pretrained`.

    Frames may have any size: all networks are convolutional, with attention over positions in the middle of the
    autoencoder. They are filled up to a multiple of `multiple` by repeating the border, and cut back.

    Attributes:
      autoencoder, temporal, decoder: the parts; `decoder` is None where the model has none, and frames are decoded one
        by one.
      params: of each part, by its folder.
      factors: the factors that the upsampler was trained for, rising, 1 included.
      resolution: side in pixels of the frames that the model was trained on.
      window: frames that are encoded, upsampled or decoded at once.
      overlap: of the frames decoded at once, those at each end that are context alone.
      cut_threshold: see `CutDetector`; across a cut the last frame of the scene is held.
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
        least = max(_SHORT, 2 * self.overlap + 1)
        if self.window < least:
            raise ValueError(f"window is {self.window}, but must be at least {least}")
        self._encode = jax.jit(self._encode_frames)
        self._upsample = jax.jit(self._upsample_latents, static_argnums=2)
        self._decode = jax.jit(self._decode_latents)
        self._add_details = jax.jit(self._with_details)

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike, dtype: str | None = None, window: int = 16, cut_threshold: float = CUT_THRESHOLD
    ) -> "Interpolator":
        """Loads what is needed of a model folder.

        Args:
          folder: with `vae` and `temporal_upsampler`, and `video_decoder` if it has one.
          dtype: "float32", "bfloat16" or "float16", in which the networks compute; None: float32 on a CPU, bfloat16
            elsewhere.
          window, cut_threshold: see the attributes.

        Raises:
          ValueError: the folder is no model folder, has no temporal upsampler, or a part does not fit its weights.
        """
        index = ModelIndex.read(folder)
        check_upsampler(index)
        dtype = dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
        autoencoder, vae = load_autoencoder(index.folder, dtype)
        params, decoder = {VAE: vae}, None

        def load(name: str, kind: type):
            channels = autoencoder.network.latent_channels
            stage, params[name] = load_stage(index.folder / name, kind, channels, 1, dtype)  # neither reads any text
            return stage

        temporal = load(UPSAMPLER, TemporalStage)
        if index.has(DECODER):
            decoder = load(DECODER, DecoderStage)
        largest = load_config(index.folder / index.cascade[-1]).get("resolution", CascadeStage.resolution)
        side = largest * autoencoder.network.downsampling
        overlap = index.decode_overlap if decoder else 0
        params = jax.device_put(params)
        return cls(autoencoder, temporal, decoder, params, index.factors, side, window, overlap, cut_threshold)

    @property
    def multiple(self) -> int:
        """Of how many pixels the sides of frames have to be multiples before they are encoded."""
        return self.autoencoder.network.downsampling * self.temporal.network.flow_downsample

    def interpolate(self, frames: Iterable[np.ndarray], factor: int, keep_frames: bool = True) -> Iterator[np.ndarray]:
        """Multiplies the frame rate of a stream of frames.

        Args:
          frames: uint8 `(H, W, 3)`, all of one size. They are read as they are needed.
          factor: see `factor_passes`.
          keep_frames: pass the given frames on as they are and add to those between what the autoencoder loses;
            otherwise all frames are decoded from latents.

        Yields: for each given frame uint8 `(factor, H, W, 3)`: itself and those between it and the next; after the last
        frame of a scene or of the video it is repeated.

        Raises:
          ValueError: the model does not give this factor, or a frame has another size or type.
        """
        passes = factor_passes(factor, self.factors)
        for scene in self._scenes(frames):
            yield from self._interpolate_scene(scene, passes, keep_frames)

    def _scenes(self, frames: Iterable[np.ndarray]) -> Iterator[Iterator[np.ndarray]]:
        """Iterators over the frames of each scene; each has to be used up before the next one begins."""
        is_cut = CutDetector(self.cut_threshold)
        frames, size = iter(frames), None
        ahead: collections.deque[np.ndarray] = collections.deque()  # the first frame of the next scene

        def scene() -> Iterator[np.ndarray]:
            nonlocal size
            if ahead:
                yield ahead.popleft()
            for frame in frames:
                size = size or frame.shape
                if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3 or frame.shape != size:
                    raise ValueError(
                        f"a frame is {frame.shape} {frame.dtype}, but must be (H, W, 3) uint8 as the first"
                    )
                thumbnail = Image.fromarray(frame).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
                if is_cut(np.asarray(thumbnail)):
                    ahead.append(frame)
                    return
                yield frame

        yield scene()
        while ahead:
            yield scene()

    def _interpolate_scene(
        self, frames: Iterator[np.ndarray], passes: tuple[int, ...], keep_frames: bool
    ) -> Iterator[np.ndarray]:
        given: collections.deque[np.ndarray] = collections.deque()  # read, and not yet passed on
        latents = (_Between(latents, -1, None) for latents in self._encoded(frames, given))
        for number, factor in enumerate(passes):
            latents = self._upsampled(latents, number, factor)
        group: list[tuple[_Between, np.ndarray]] = []
        for between, picture in self._decoded(latents):
            if between.made_in < 0 and group:
                yield self._finished([*group, (between, picture)], given, passes, keep_frames)
                group = []
            group.append((between, picture))
        if group:
            height, width = given[0].shape[:2]
            last = given.popleft() if keep_frames else group[0][1][:height, :width]
            yield np.repeat(last[None], np.prod(passes), axis=0)

    def _finished(self, group: list, given: collections.deque, passes: tuple[int, ...], keep: bool) -> np.ndarray:
        """The frames from one given frame, the first of `group`, to the next, its last, which itself is left out."""
        pictures = np.stack([picture for _, picture in group])
        first, second = given.popleft(), given[0]
        height, width = first.shape[:2]
        if not keep:
            return pictures[:-1, :height, :width]
        motions = []
        for number in range(len(passes)):
            made = [between.motion for between, _ in group if between.made_in == number]
            pairs = len(made) // (passes[number] - 1)
            motions.append(Motion(*(np.stack(x).reshape(pairs, -1, *x[0].shape) for x in zip(*made, strict=True))))
        ends = np.stack([self._filled_up(first), self._filled_up(second)])
        made = np.asarray(self._add_details(ends, pictures, tuple(motions)))
        return np.concatenate([first[None], made[:, :height, :width]])

    def _filled_up(self, frame: np.ndarray) -> np.ndarray:
        rows, columns = (-side % self.multiple for side in frame.shape[:2])
        return np.pad(frame, ((0, rows), (0, columns), (0, 0)), mode="edge") if rows or columns else frame

    def _encoded(self, frames: Iterator[np.ndarray], given: collections.deque) -> Iterator[np.ndarray]:
        """Latents `(h, w, C)` of each frame; the frames are put into `given` on the way."""
        for window, first, end in sliding(frames, self.window, 0, 0):
            given.extend(window[first:end])
            pictures = _stacked([self._filled_up(frame) for frame in window], self.window)
            yield from np.asarray(self._encode(self.params[VAE], pictures))[first:end]

    def _upsampled(self, latents: Iterator[_Between], number: int, factor: int) -> Iterator[_Between]:
        """Pass `number`: puts factor - 1 more between each two."""
        for window, first, end in sliding(latents, self.window, 1, 2):
            # Of each pair a neighbour at either side is seen, so that parts give what the whole would. A scene that is
            # shorter than a window is taken four by four, so that not every length needs a program of its own.
            whole = len(window) == self.window
            for part, start, stop in [(window, first, end)] if whole else sliding(window, _SHORT, 1, 2):
                if len(part) < 2:
                    yield from part
                    return
                stacked = np.stack([item.latents for item in part])
                made, motions = jax.device_get(self._upsample(self.params[UPSAMPLER], stacked, factor))
                for k in range(start, stop):
                    yield part[k]
                    for j in range(factor - 1 if k + 1 < len(part) else 0):
                        motion = Motion(*(x[k, j] for x in motions))
                        yield _Between(made[k, j], number, motion)

    def _decoded(self, latents: Iterator[_Between]) -> Iterator[tuple[_Between, np.ndarray]]:
        """Each with its frame, uint8 `(H, W, 3)`, not cut back yet."""
        params = self.params[VAE if self.decoder is None else DECODER]
        overlap = 0 if self.decoder is None else self.overlap
        for window, first, end in sliding(latents, self.window, overlap, overlap):
            stacked = _stacked([item.latents for item in window], self.window)
            pictures = np.asarray(self._decode(params, stacked))
            yield from zip(window[first:end], pictures[first:end], strict=True)

    # The programs, each compiled once for a size of frames and a factor.

    def _encode_frames(self, params: Params, frames: jax.Array) -> jax.Array:
        """Frames uint8 `(T, H, W, 3)` -> latents `(T, h, w, C)` of unit variance."""
        return self.autoencoder.encode(params, to_unit(frames))

    def _upsample_latents(self, params: Params, latents: jax.Array, factor: int) -> tuple[jax.Array, Motion]:
        """Latents `(N, h, w, C)` -> those between, `(N - 1, factor - 1, h, w, C)`, and their motion."""
        network = self.temporal.network
        video, aux = network.apply({"params": params}, latents[None], factor, return_aux=True)
        made = video[0, :-1].reshape(-1, factor, *latents.shape[1:])[:, 1:]
        return made.astype(jnp.float32), Motion(aux.flow_t0[0], aux.flow_t1[0], aux.visibility[0])

    def _decode_latents(self, params: Params, latents: jax.Array) -> jax.Array:
        """Latents `(T, h, w, C)` -> frames uint8 `(T, H, W, 3)`."""
        if self.decoder is None:
            return to_uint8(self.autoencoder.decode(params, latents))
        return to_uint8(self.decoder.decode(params, self.autoencoder.unscale(latents)[None])[0])

    def _with_details(self, given: jax.Array, decoded: jax.Array, motions: tuple[Motion, ...]) -> jax.Array:
        """The frames between two, with what the autoencoder has lost of these.

        given: uint8 `(2, H, W, 3)`. decoded: uint8 `(F + 1, H, W, 3)`, all from the one to the other. motions: of each
        pass. Returns: uint8 `(F - 1, H, W, 3)`.
        """
        details = to_unit(given) - to_unit(decoded[:: len(decoded) - 1])
        for motion in motions:
            details = carry(details, motion)
        return to_uint8(to_unit(decoded[1:-1]) + details[1:-1])


def carry(details: jax.Array, motion: Motion) -> jax.Array:
    """Carries what belongs to P + 1 frames, `(P + 1, H, W, 3)`, along to the K between each two of them.

    Returns: `((P + 1) + P * K, H, W, 3)`, all in the order of their times.
    """
    pairs, between, h = motion.flow_0.shape[:3]
    height, width, channels = details.shape[1:]
    times = jnp.asarray(intermediate_times(between + 1), jnp.float32)
    times = jnp.tile(times, pairs)[:, None, None, None]

    def warped(ends: jax.Array, flow: jax.Array) -> jax.Array:
        flow = upsample_flow(flow.reshape(-1, *flow.shape[2:]).astype(jnp.float32), height // h)
        return warp(jnp.repeat(ends, between, axis=0), flow)

    visibility = motion.visibility.reshape(pairs * between, *motion.visibility.shape[2:]).astype(jnp.float32)
    visibility = jax.image.resize(visibility, (pairs * between, height, width, 1), "bilinear")
    carried = fuse(warped(details[:-1], motion.flow_0), warped(details[1:], motion.flow_1), visibility, times)
    carried = carried.reshape(pairs, between, height, width, channels)
    rows = jnp.concatenate([details[:-1, None], carried], axis=1).reshape(-1, height, width, channels)
    return jnp.concatenate([rows, details[-1:]])


def interpolate_frames(
    interpolator: Interpolator, frames: np.ndarray, factor: int, keep_frames: bool = True
) -> np.ndarray:
    """Puts factor - 1 frames between each two of a video in memory; `Interpolator.interpolate` streams.

    Args:
      interpolator: made by `Interpolator.from_pretrained`.
      frames: uint8 `(T, H, W, 3)`, T >= 2.
      factor: see `factor_passes`.
      keep_frames: see `Interpolator.interpolate`.

    Returns: uint8 `((T - 1) * factor + 1, H, W, 3)`.

    Raises:
      ValueError: the model does not give this factor, or frames have another shape or type.
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or len(frames) < 2:
        raise ValueError(f"frames are {frames.shape}, but must be (T, H, W, 3) with T of at least 2")
    made = list(interpolator.interpolate(frames, factor, keep_frames))
    return np.concatenate(made)[: (len(frames) - 1) * factor + 1]


def factor_passes(factor: int, factors: tuple[int, ...]) -> tuple[int, ...]:
    """The factors that the upsampler is applied with, one after the other, to give `factor`: 8 is 4, then 2.

    Args:
      factors: those that it was trained for, see `ModelIndex.factors`.

    Raises:
      ValueError: it is no product of them.
    """
    rest, passes = factor, []
    usable = sorted((f for f in factors if f > 1), reverse=True)
    while isinstance(rest, int) and rest > 1:
        step = next((f for f in usable if rest % f == 0), None)
        if step is None:
            break
        passes.append(step)
        rest //= step
    if rest != 1 or not passes:
        known = ", ".join(map(str, usable[::-1]))
        raise ValueError(f"factor is {factor}, but must be one of the model's, {known}, or a product of them")
    return tuple(passes)


def check_upsampler(index: ModelIndex) -> None:
    """ValueError if a model cannot raise a frame rate."""
    if len(index.factors) < 2:
        raise ValueError(f"{index.folder} has no {UPSAMPLER}, without which no frame rate can be raised")


def _stacked(items: list[np.ndarray], count: int) -> np.ndarray:
    """Of one shape for one program: the last is repeated where there are fewer than `count`."""
    return np.stack([*items, *items[-1:] * (count - len(items))])
