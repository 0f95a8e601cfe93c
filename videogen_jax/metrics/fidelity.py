"""The parts that need no prompt, measured on ground truth: temporal upsampler, video decoder and autoencoder.

All take clips of the shapes world rendered at the model's resolution; PSNR is in dB over 8-bit values, a clip at a
time, and then averaged over clips.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from rich.progress import track

from videogen_jax.metrics.image import flicker_error, psnr
from videogen_jax.metrics.prompts import tally_attributes
from videogen_jax.metrics.results import ResultLog
from videogen_jax.metrics.statistics import bootstrap, mean_difference, ratio_of_means
from videogen_jax.runtime.arrays import resize, to_uint8, to_unit
from videogen_jax.sampling.pipeline import VideoGenPipeline, decoding_windows
from videogen_jax.shapes import world
from videogen_jax.shapes.reader import ATTRIBUTES, score
from videogen_jax.stages.stage import Params
from videogen_jax.stages.temporal import blend

_MOST_PSNR = 100.0  # stands for no error at all, which a mean could not take


class Codec:
    """The model's autoencoder, video decoder and upsampler on videos of any length, one at a time.

    Args:
      pipeline: the model.
      batch: frames that the autoencoder takes at once.
    """

    def __init__(self, pipeline: VideoGenPipeline, batch: int):
        self.pipeline, self.batch = pipeline, batch
        autoencoder = pipeline.autoencoder
        self._encode = jax.jit(lambda params, frames: autoencoder.encode(params, to_unit(frames)))
        self._decode_images = jax.jit(lambda params, latents: to_uint8(autoencoder.decode(params, latents)))
        self._resize = jax.jit(lambda frames, side: to_uint8(resize(to_unit(frames), side)), static_argnums=1)
        self._decode_video = jax.jit(
            lambda params, latents: to_uint8(pipeline.decoder.decode(params, autoencoder.unscale(latents)))
        )
        if pipeline.temporal is not None:
            self._upsample = jax.jit(pipeline.temporal.upsample, static_argnums=2)
            self._warp = jax.jit(pipeline.temporal.warp, static_argnums=2)

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """uint8 `(T, H, W, 3)` -> latents `(T, h, w, C)`."""
        return self._in_batches(self._encode, "vae", frames)

    def decode_images(self, latents: np.ndarray) -> np.ndarray:
        """Latents `(T, h, w, C)` -> uint8 `(T, H, W, 3)`, each frame for itself."""
        return self._in_batches(self._decode_images, "vae", latents)

    def decode_video(self, latents: np.ndarray) -> np.ndarray:
        """As `decode_images`, by the video decoder, in the windows in which the model decodes."""
        total = len(latents)
        chunk, overlap = self.pipeline.index.decoding()
        chunk = min(chunk, total)
        params = self.pipeline.params["video_decoder"]
        pieces = []
        for start, first, end in decoding_windows(total, total, chunk, overlap):
            decoded = np.asarray(self._decode_video(params, latents[None, start : start + chunk])[0])
            pieces.append(decoded[first - start : end - start])
        return np.concatenate(pieces)

    def upsample(self, latents: np.ndarray, factor: int) -> np.ndarray:
        """Latents `(T, h, w, C)` -> `((T - 1) * factor + 1, h, w, C)`."""
        return np.asarray(self._upsample(self.pipeline.params["temporal_upsampler"], latents[None], factor)[0])

    def warp(self, latents: np.ndarray, factor: int) -> np.ndarray:
        """As `upsample`, by the upsampler's flow alone."""
        return np.asarray(self._warp(self.pipeline.params["temporal_upsampler"], latents[None], factor)[0])

    def resize(self, frames: np.ndarray, side: int) -> np.ndarray:
        """uint8 `(T, H, W, 3)` -> uint8 `(T, side, side, 3)`, as the cascade's low resolutions are made."""
        return np.asarray(self._resize(frames, side))

    def _in_batches(self, function: Callable[[Params, np.ndarray], jax.Array], part: str, x: np.ndarray) -> np.ndarray:
        pieces = []
        for start in range(0, len(x), self.batch):
            some = x[start : start + self.batch]
            filled = np.concatenate([some, np.repeat(some[-1:], self.batch - len(some), axis=0)])
            pieces.append(np.asarray(function(self.pipeline.params[part], filled))[: len(some)])
        return np.concatenate(pieces)


def measure_temporal(codec: Codec, config: Any, split: str, log: ResultLog) -> dict[str, Any]:
    """The temporal upsampler, and its flow alone, against linear blending of latents, on the frames in between alone.

    Each frame of a clip is encoded; the latents of the base frames are upsampled, warped (`TemporalStage.warp`) and
    blended. PSNR is taken against the rendered frames (`rendered`) and against what the decoder makes of the true
    latents (`decoded`).

    Args:
      config: `clips`, `seed`, `factors`.

    Returns: for each factor and decoder the means of `upsampled`, `warped` and `blended`; the paired differences of the
      first two to the last, `difference` and `warped_difference`, with their 95% intervals; and `true_latents`, the
      PSNR of the decoded true latents against the rendered frames.
    """
    pipeline = codec.pipeline
    decoders = {"image_decoder": codec.decode_images}
    if pipeline.decoder is not None:
        decoders["video_decoder"] = codec.decode_video

    def measure(clip: world.ShapesClip, factor: int) -> dict[str, Any]:
        rendered = _render(pipeline, clip, factor)
        true_latents = codec.encode(rendered)
        base = true_latents[::factor]
        made = {
            "upsampled": codec.upsample(base, factor),
            "warped": codec.warp(base, factor),
            "blended": np.asarray(blend(base[None], factor)[0]),
        }
        between = np.arange(len(rendered)) % factor != 0
        result = {}
        for name, decode in decoders.items():
            decoded = decode(true_latents)[between]
            frames = {kind: decode(latents)[between] for kind, latents in made.items()}
            result[name] = {"true_latents": _psnr(decoded, rendered[between])}
            for target, truth in (("rendered", rendered[between]), ("decoded", decoded)):
                result[name][target] = {kind: _psnr(video, truth) for kind, video in frames.items()}
        return result

    factors = temporal_factors(config, pipeline.index.factors)
    for key, record in list(log.records.items()):
        if not all("warped" in record[name]["decoded"] for name in decoders):
            del log.records[key]  # from before this was measured
    records = _clip_records("temporal", config, split, log, factors, measure)
    summary: dict[str, Any] = {}
    for factor, of_factor in records.items():
        summary[f"x{factor}"] = of_decoder = {}
        for name in decoders:
            values = [record[name] for record in of_factor]
            of_decoder[name] = {"true_latents": _mean([v["true_latents"] for v in values])}
            for target in ("rendered", "decoded"):
                kinds = ("upsampled", "warped", "blended")
                column = {kind: [v[target][kind] for v in values] for kind in kinds}
                of_decoder[name][target] = {
                    **{kind: _mean(column[kind]) for kind in kinds},
                    "difference": mean_difference(column["upsampled"], column["blended"]),
                    "warped_difference": mean_difference(column["warped"], column["blended"]),
                }
    return summary


def measure_decoder(codec: Codec, config: Any, split: str, log: ResultLog) -> dict[str, Any]:
    """The video decoder against the image decoder frame by frame, on the true latents of clips.

    Args:
      config: `clips`, `seed`, `rates`: multiples of the base frame rate.

    Returns: for each rate the means of `psnr` and `flicker` (see `flicker_error`) of both decoders, the paired
      `psnr_difference` (video - image) and the `flicker_ratio` of the means (video / image), with 95% intervals.
    """

    def measure(clip: world.ShapesClip, rate: int) -> dict[str, Any]:
        rendered = _render(codec.pipeline, clip, rate)
        latents = codec.encode(rendered)
        decoded = {"image_decoder": codec.decode_images(latents), "video_decoder": codec.decode_video(latents)}
        return {
            name: {"psnr": _psnr(video, rendered), "flicker": flicker_error(video, rendered)}
            for name, video in decoded.items()
        }

    summary = {}
    for rate, records in _clip_records("decoder", config, split, log, config.rates, measure).items():

        def column(name: str, value: str, records=records) -> list[float]:
            return [record[name][value] for record in records]

        summary[f"x{rate}"] = {
            **{
                name: {value: _mean(column(name, value)) for value in ("psnr", "flicker")}
                for name in ("image_decoder", "video_decoder")
            },
            "psnr_difference": mean_difference(column("video_decoder", "psnr"), column("image_decoder", "psnr")),
            "flicker_ratio": ratio_of_means(column("video_decoder", "flicker"), column("image_decoder", "flicker")),
        }
    return summary


def measure_autoencoder(codec: Codec, config: Any, split: str, log: ResultLog) -> dict[str, Any]:
    """What the autoencoder keeps of clips at the base frame rate.

    Args:
      config: `clips`, `seed`.

    Returns: `psnr` at each resolution of the cascade, in pixels, with the mean's 95% interval; `read`, `tally`s by
      attribute of what the reader sees in the rendered clips, in those that passed through the autoencoder, and in
      those encoded by it and decoded by the video decoder.
    """
    pipeline = codec.pipeline
    downsampling = pipeline.autoencoder.network.downsampling
    sides = [stage.resolution * downsampling for stage in pipeline.cascade]

    def measure(clip: world.ShapesClip, rate: int) -> dict[str, Any]:
        rendered = _render(pipeline, clip, rate)
        result: dict[str, Any] = {"psnr": {}, "read": {"rendered": score(rendered, clip.caption)}}
        for side in sides:
            frames = codec.resize(rendered, side)
            latents = codec.encode(frames)
            decoded = codec.decode_images(latents)
            result["psnr"][str(side)] = _psnr(decoded, frames)
        result["read"]["autoencoder"] = score(decoded, clip.caption)  # the last resolution is the full one
        if pipeline.decoder is not None:
            result["read"]["video_decoder"] = score(codec.decode_video(latents), clip.caption)
        return result

    (records,) = _clip_records("autoencoder", config, split, log, (1,), measure).values()
    return {
        "psnr": {
            str(side): bootstrap(lambda x: x.mean(axis=-1), [record["psnr"][str(side)] for record in records])
            for side in sides
        },
        "read": {
            way: tally_attributes([record["read"][way] for record in records], ATTRIBUTES) for way in records[0]["read"]
        },
    }


def temporal_factors(config: Any, factors: Sequence[int]) -> tuple[int, ...]:
    """The factors to measure: those of the config, or where it names none all that the model takes.

    Raises:
      ValueError: one is not among the model's, or the model has none above 1.
    """
    possible = tuple(factor for factor in factors if factor > 1)
    if not possible:
        raise ValueError('the model has no temporal_upsampler: leave "temporal" out of config.parts')
    for factor in config.factors:
        if factor not in possible:
            raise ValueError(f"config.factors has {factor!r}, but may have {', '.join(map(str, possible))}")
    return tuple(config.factors) or possible


def _clip_records(
    name: str,
    config: Any,
    split: str,
    log: ResultLog,
    rates: Sequence[int],
    measure: Callable[[world.ShapesClip, int], dict[str, Any]],
) -> dict[int, list[dict[str, Any]]]:
    """The record of each clip, for each rate; what is not in the log yet is measured."""

    def missing() -> Iterator[tuple[str, int, int]]:
        for rate in rates:
            for number in range(config.clips):
                if (key := f"x{rate}-{number:04d}") not in log.records:
                    yield key, rate, number

    for key, rate, number in track(list(missing()), description=name):
        clip = world.sample_clip(config.seed, number, split)
        log.append([{"key": key, "caption": clip.caption, **measure(clip, rate)}])
    return {rate: [log.records[f"x{rate}-{number:04d}"] for number in range(config.clips)] for rate in rates}


def _render(pipeline: VideoGenPipeline, clip: world.ShapesClip, rate: int) -> np.ndarray:
    """uint8 `((F - 1) * rate + 1, H, W, 3)`, F the model's base frames."""
    count = (pipeline.index.num_frames - 1) * rate + 1
    return world.render(clip, world.frame_times(count), pipeline.resolution)


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    return min(psnr(a, b), _MOST_PSNR)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
