"""The evaluation of a model folder: its parts one after another, their results in `metrics.json` and in a table."""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from videogen_jax.metrics.captions import build_captions
from videogen_jax.metrics.fidelity import (
    Codec,
    measure_autoencoder,
    measure_decoder,
    measure_temporal,
    temporal_factors,
)
from videogen_jax.metrics.prompts import measure_prompts
from videogen_jax.metrics.published import LEAST_FRAMES, MEASURES, NETWORKS, PublishedMeasures, not_measured
from videogen_jax.metrics.real_clips import build_real_clips
from videogen_jax.metrics.report import read_metrics, write_report
from videogen_jax.metrics.results import ResultLog
from videogen_jax.metrics.table import PARTS, table_rows
from videogen_jax.metrics.worlds import WORLD_NAMES, world_of
from videogen_jax.runtime.files import write_atomically
from videogen_jax.runtime.version import __version__
from videogen_jax.sampling.pipeline import VideoGenPipeline
from videogen_jax.sampling.request import SamplingRequest
from videogen_jax.stages.stage import DTYPES
from videogen_jax.video_io import check_writable
from videogen_jax.weights.fingerprint import fingerprint
from videogen_jax.weights.folder import read_model_index
from videogen_jax.weights.model_index import DECODER, ModelIndex

_MEASURES = {"temporal": measure_temporal, "decoder": measure_decoder, "autoencoder": measure_autoencoder}
DEFAULT_SPLIT = "held_out"
_CLIPS = ("clips", "seed", "frame_batch")
_FIELDS = {  # of the config, which decide what a part measures
    "prompts": ("prompts", "seeds", "captions", "seed", "sampling", "real_clips", "real", "fvd_protocol"),
    "temporal": (*_CLIPS, "factors"),
    "decoder": (*_CLIPS, "rates"),
    "autoencoder": _CLIPS,
}


def evaluate(config: Any, model: str | os.PathLike, output: str | os.PathLike, split: str = DEFAULT_SPLIT) -> dict:
    """Measure a model, or continue a measurement that was stopped.

    Args:
      config: as `configs/shapes/evaluate.py`, `configs/webvid/evaluate_ucf101.py` or `evaluate_msrvtt.py` returns it.
      model: the model folder.
      output: folder for `metrics.json`, `report.html`, the videos and sheets of them, and a log of results for each
        part, from which a stopped measurement continues. Sections of other parts in the `metrics.json` of the same
        model stay.
      split: of the captions and clips of a world.

    Returns: the content of `metrics.json`.

    Raises:
      ValueError: for input that cannot work, before any program is compiled.
    """
    index = ModelIndex.read(model)
    output = Path(output)
    _check(config, index, split)
    captions = build_captions(config, split)
    real = build_real_clips(config, captions)
    split = captions.split
    path = output / "metrics.json"
    check_writable(path, (".json",))
    folders = sorted(p.name for p in index.folder.iterdir() if p.is_dir() and any(q.is_file() for q in p.iterdir()))
    identity = fingerprint(read_model_index(index.folder), index.folder, folders)
    weights = config.weights.to_dict()
    dtype = config.dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    same = {"model": identity, "split": split, "seed": config.seed, "dtype": dtype}
    videos = {**same, **_prompts_settings(config), **captions.identity}
    name = hashlib.sha256(json.dumps(videos, sort_keys=True).encode()).hexdigest()[:16]
    published = PublishedMeasures(weights, output / "features" / name, config.fvd_protocol)
    logs = {part: ResultLog(output / f"{part}.jsonl", videos if part == "prompts" else same) for part in config.parts}
    metrics = {
        "model": str(model),
        "fingerprint": identity,
        "split": split,
        "dtype": dtype,
        "versions": _versions(),
        **_sections(path, identity, split),
    }
    if "prompts" in config.parts:
        published.load()
    pipeline = VideoGenPipeline.from_pretrained(index.folder, dtype=dtype)
    codec = Codec(pipeline, config.frame_batch) if captions.world else None
    for part in config.parts:
        if part == "prompts":
            section = measure_prompts(pipeline, config, captions, real, logs[part], output, published)
            section["not_measured"] = not_measured(weights, has_real=real is not None)
            section["weights"] = published.identities
        else:
            section = _MEASURES[part](codec, captions.world, config, split, logs[part])
        metrics[part] = {
            "settings": {name: config.to_dict()[name] for name in _FIELDS[part] if name in config},
            **section,
        }
        _write(path, metrics)
    write_report(output, captions.world, config.report_videos, config.report_beside)
    return metrics


def print_table(metrics: Mapping[str, Any]) -> None:
    """Print the metrics that `evaluate` returned."""
    table = Table("part", "measured", "value", "95% interval", "count", title=f"{metrics['model']}, {metrics['split']}")
    last = None
    for part, name, value, interval, count in table_rows(metrics):
        if last not in (None, part):
            table.add_section()
        table.add_row("" if part == last else part, name, value, interval, count)
        last = part
    console = Console()
    console.print(table)
    for name, what_to_pass in metrics.get("prompts", {}).get("not_measured", {}).items():
        line = f"not measured: {MEASURES[name].title}: {what_to_pass}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _prompts_settings(config: Any) -> dict[str, Any]:
    """Return what a video's record depends on; `record` is raised when more is measured of each video."""
    return {"sampling": config.sampling.to_dict(), "record": 2}


def _check(config: Any, index: ModelIndex, split: str) -> None:
    world = world_of(config)
    if world is not None and split not in (splits := world.evaluation.splits):
        raise ValueError(f"split is {split!r}, but must be one of {', '.join(splits)}")
    if not config.parts:
        raise ValueError(f"config.parts is empty, but must have some of {', '.join(PARTS)}")
    for part in config.parts:
        if part not in PARTS:
            raise ValueError(f"config.parts has {part!r}, but may have {', '.join(PARTS)}")
    if world is None:
        if split != DEFAULT_SPLIT:
            raise ValueError(f"split is {split!r}, but only {WORLD_NAMES} is split: leave out --split")
        if refused := [part for part in config.parts if part != "prompts"]:
            raise ValueError(
                f"config.parts has {refused[0]!r}, which is measured on rendered clips of {WORLD_NAMES}: "
                "with captions of real videos it may have prompts alone"
            )
    for name in ("prompts", "seeds", "batch_size", "clips", "frame_batch", "real_clips"):
        if name in config and config[name] < 1:
            raise ValueError(f"config.{name} is {config[name]}, but must be at least 1")
    if config.report_videos < 0:
        raise ValueError(f"config.report_videos is {config.report_videos}, but must be at least 0")
    if config.report_beside:
        try:
            read_metrics(config.report_beside)
        except ValueError as error:
            raise ValueError(f"config.report_beside: {error}") from error
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"config.seed is {config.seed}, but must be from 0 to {2**32 - 1}")
    if config.dtype and config.dtype not in DTYPES:
        raise ValueError(f"config.dtype is {config.dtype!r}, but must be one of {', '.join(DTYPES)}")
    for rate in config.get("rates", ()):
        if not isinstance(rate, int) or rate < 1:
            raise ValueError(f"config.rates has {rate!r}, but takes whole numbers of at least 1")
    if "prompts" in config.parts:
        num_frames = SamplingRequest.from_config(config.sampling, ["a video"]).resolve(index).num_frames
        if world is not None and num_frames < (least := world.evaluation.least_frames):
            raise ValueError(f"the model makes {num_frames} frames, but to be read a video needs at least {least}")
        for network in NETWORKS:
            if config.weights.get(network) and num_frames < (least := LEAST_FRAMES.get(network, 1)):
                raise ValueError(
                    f"the model makes {num_frames} frames, but {network} takes {least}: "
                    f"leave out config.weights.{network}, or raise config.sampling.temporal_factor"
                )
    if "temporal" in config.parts:
        temporal_factors(config, index.factors)
    if "decoder" in config.parts:
        if not index.has(DECODER):
            raise ValueError('the model has no video_decoder: leave "decoder" out of config.parts')
        if not config.rates:
            raise ValueError('config.rates is empty: name a rate, or leave "decoder" out of config.parts')


def _versions() -> dict[str, str]:
    packages = ("jax", "flax", "numpy")
    return {
        "videogen_jax": __version__,
        "python": platform.python_version(),
        "backend": jax.default_backend(),
        **{name: version(name) for name in packages},
    }


def _sections(path: Path, identity: str, split: str) -> dict[str, Any]:
    """Return the sections of another evaluation of the same model in `metrics.json`."""
    if not path.exists():
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if (stored["fingerprint"], stored["split"]) != (identity, split):
            return {}
        return {part: stored[part] for part in PARTS if part in stored}
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} was not written by an evaluation: remove it or give another output") from error


def _write(path: Path, metrics: Mapping[str, Any]) -> None:
    ordered = {name: value for name, value in metrics.items() if name not in PARTS}
    ordered |= {part: metrics[part] for part in PARTS if part in metrics}
    content = json.dumps(ordered, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(content, encoding="utf-8"))
