"""The parts that take no prompt, measured on ground truth: temporal upsampler, video decoder and autoencoder.

All are measured on clips of a world, rendered at the model's resolution. PSNR is in dB over 8-bit values, per clip, and
then averaged over clips.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from rich.progress import track

from videogen_jax.data.world import Evaluation, RenderedClip
from videogen_jax.metrics.attributes import compare, tally_attributes
from videogen_jax.metrics.image import flicker_error, psnr
from videogen_jax.metrics.results import ResultLog
from videogen_jax.metrics.statistics import bootstrap, mean_difference, ratio_of_means
from videogen_jax.runtime.arrays import resize, to_uint8, to_unit
from videogen_jax.sampling.generate import decoding_windows
from videogen_jax.sampling.pipeline import VideoGenPipeline
from videogen_jax.stages.stage import Params
from videogen_jax.stages.temporal import blend

_MOST_PSNR = 100.0  # in place of infinity, which a mean could not take


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
        """Encode frames, uint8 `(T, H, W, 3)`, to latents `(T, h, w, C)`."""
        return self._in_batches(self._encode, "vae", frames)

    def decode_images(self, latents: np.ndarray) -> np.ndarray:
        """Decode latents `(T, h, w, C)` to uint8 `(T, H, W, 3)`, each frame independently."""
        return self._in_batches(self._decode_images, "vae", latents)

    def decode_video(self, latents: np.ndarray) -> np.ndarray:
        """Decode as `decode_images` by the video decoder, in the windows in which the model decodes."""
        total = len(latents)
        chunk, overlap = self.pipeline.index.decode_chunk, self.pipeline.index.decode_overlap
        chunk = min(chunk, total)
        params = self.pipeline.params["video_decoder"]
        pieces = []
        for start, first, end in decoding_windows(total, total, chunk, overlap):
            decoded = np.asarray(self._decode_video(params, latents[None, start : start + chunk])[0])
            pieces.append(decoded[first - start : end - start])
        return np.concatenate(pieces)

    def upsample(self, latents: np.ndarray, factor: int) -> np.ndarray:
        """Upsample latents `(T, h, w, C)` in time to `((T - 1) * factor + 1, h, w, C)`."""
        return np.asarray(self._upsample(self.pipeline.params["temporal_upsampler"], latents[None], factor)[0])

    def warp(self, latents: np.ndarray, factor: int) -> np.ndarray:
        """Upsample as `upsample` by the upsampler's flow alone, without its refinement."""
        return np.asarray(self._warp(self.pipeline.params["temporal_upsampler"], latents[None], factor)[0])

    def resize(self, frames: np.ndarray, side: int) -> np.ndarray:
        """Resize frames, uint8 `(T, H, W, 3)`, to `(T, side, side, 3)`, as for the cascade's low resolutions."""
        return np.asarray(self._resize(frames, side))

    def _in_batches(self, function: Callable[[Params, np.ndarray], jax.Array], part: str, x: np.ndarray) -> np.ndarray:
        pieces = []
        for start in range(0, len(x), self.batch):
            batch = x[start : start + self.batch]
            padded = np.concatenate([batch, np.repeat(batch[-1:], self.batch - len(batch), axis=0)])
            pieces.append(np.asarray(function(self.pipeline.params[part], padded))[: len(batch)])
        return np.concatenate(pieces)


def measure_temporal(codec: Codec, world: Evaluation, config: Any, split: str, log: ResultLog) -> dict[str, Any]:
    """Compare the temporal upsampler, and its flow alone, with linear blending of latents, on the frames in between.

    Each frame of a clip is encoded; the latents of the base frames are upsampled, warped (`TemporalStage.warp`) and
    blended. PSNR is taken to the rendered frames (`rendered`) and to the decoded true latents (`decoded`).

    Args:
      world: of the clips.
      config: `clips`, `seed`, `factors`.

    Returns: for each factor and decoder the means of `upsampled`, `warped` and `blended`; the paired differences of the
      first two to the last, `difference` and `warped_difference`, with their 95% intervals; and `true_latents`, the
      PSNR of the decoded true latents against the rendered frames.
    """
    pipeline = codec.pipeline
    decoders = {"image_decoder": codec.decode_images}
    if pipeline.decoder is not None:
        decoders["video_decoder"] = codec.decode_video

    def measure(clip: RenderedClip, factor: int) -> dict[str, Any]:
        rendered = clip.frames
        true_latents = codec.encode(rendered)
        base = true_latents[::factor]
        upsampled = {
            "upsampled": codec.upsample(base, factor),
            "warped": codec.warp(base, factor),
            "blended": np.asarray(blend(base[None], factor)[0]),
        }
        between = np.arange(len(rendered)) % factor != 0
        result = {}
        for name, decode in decoders.items():
            decoded = decode(true_latents)[between]
            frames = {kind: decode(latents)[between] for kind, latents in upsampled.items()}
            result[name] = {"true_latents": _psnr(decoded, rendered[between])}
            for target, truth in (("rendered", rendered[between]), ("decoded", decoded)):
                result[name][target] = {kind: _psnr(video, truth) for kind, video in frames.items()}
        return result

    factors = temporal_factors(config, pipeline.index.factors)
    for key, record in list(log.records.items()):
        if not all("warped" in record[name]["decoded"] for name in decoders):
            del log.records[key]  # of a version that did not measure this
    summary: dict[str, Any] = {}
    for factor, records in _clip_records("temporal", codec, world, config, split, log, factors, measure).items():
        summary[f"x{factor}"] = of_decoder = {}
        for name in decoders:
            values = [record[name] for record in records]
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


def measure_decoder(codec: Codec, world: Evaluation, config: Any, split: str, log: ResultLog) -> dict[str, Any]:
    """Compare the video decoder with the image decoder frame by frame, on the true latents of clips.

    Args:
      world: of the clips.
      config: `clips`, `seed`, `rates`: multiples of the base frame rate.

    Returns: for each rate the means of `psnr` and `flicker` (see `flicker_error`) of both decoders, the paired
      `psnr_difference` (video - image) and the `flicker_ratio` of the means (video / image), with 95% intervals.
    """

    def measure(clip: RenderedClip, rate: int) -> dict[str, Any]:
        rendered = clip.frames
        latents = codec.encode(rendered)
        decoded = {"image_decoder": codec.decode_images(latents), "video_decoder": codec.decode_video(latents)}
        return {
            name: {"psnr": _psnr(video, rendered), "flicker": flicker_error(video, rendered)}
            for name, video in decoded.items()
        }

    summary = {}
    for rate, records in _clip_records("decoder", codec, world, config, split, log, config.rates, measure).items():

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


def measure_autoencoder(codec: Codec, world: Evaluation, config: Any, split: str, log: ResultLog) -> dict[str, Any]:
    """Measure how well the autoencoder reconstructs clips at the base frame rate.

    Args:
      world: of the clips, with the reader.
      config: `clips`, `seed`.

    Returns: `psnr` at each resolution of the cascade, in pixels, with the mean's 95% interval; `read`,
      `tally_attributes` of the rendered clips, of those that the autoencoder reconstructed, and of those that it
      encoded and the video decoder decoded.
    """
    pipeline, attributes = codec.pipeline, tuple(world.attributes)
    downsampling = pipeline.autoencoder.network.downsampling
    sides = [stage.resolution * downsampling for stage in pipeline.cascade]

    def score(frames: np.ndarray, caption: str) -> dict[str, bool]:
        return compare(world, world.read_clip(frames), caption, attributes)

    def measure(clip: RenderedClip, rate: int) -> dict[str, Any]:
        result: dict[str, Any] = {"psnr": {}, "read": {"rendered": score(clip.frames, clip.caption)}}
        for side in sides:
            frames = codec.resize(clip.frames, side)
            latents = codec.encode(frames)
            decoded = codec.decode_images(latents)
            result["psnr"][str(side)] = _psnr(decoded, frames)
        result["read"]["autoencoder"] = score(decoded, clip.caption)  # the last resolution is the full one
        if pipeline.decoder is not None:
            result["read"]["video_decoder"] = score(codec.decode_video(latents), clip.caption)
        return result

    (records,) = _clip_records("autoencoder", codec, world, config, split, log, (1,), measure).values()
    return {
        "psnr": {
            str(side): bootstrap(lambda x: x.mean(axis=-1), [record["psnr"][str(side)] for record in records])
            for side in sides
        },
        "read": {
            way: tally_attributes([record["read"][way] for record in records], attributes) for way in records[0]["read"]
        },
    }


def temporal_factors(config: Any, factors: Sequence[int]) -> tuple[int, ...]:
    """Return the factors to measure: those of the config, or where it names none all that the model takes.

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
    codec: Codec,
    world: Evaluation,
    config: Any,
    split: str,
    log: ResultLog,
    rates: Sequence[int],
    measure: Callable[[RenderedClip, int], dict[str, Any]],
) -> dict[int, list[dict[str, Any]]]:
    """Measure the clips that are not in the log yet, each at `rate` times the model's base frame rate.

    Returns: rate -> the record of each clip.
    """
    pipeline = codec.pipeline

    def missing() -> Iterator[tuple[str, int, int]]:
        for rate in rates:
            for number in range(config.clips):
                if (key := f"x{rate}-{number:04d}") not in log.records:
                    yield key, rate, number

    for key, rate, number in track(list(missing()), description=name):
        num_frames = (pipeline.index.num_frames - 1) * rate + 1
        clip = world.render(config.seed, number, split, num_frames, pipeline.resolution)
        log.append([{"key": key, "caption": clip.caption, **measure(clip, rate)}])
    return {rate: [log.records[f"x{rate}-{number:04d}"] for number in range(config.clips)] for rate in rates}


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    return min(psnr(a, b), _MOST_PSNR)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
