"""The programs of a pipeline compiled for a TPU pod that is not there (training/aot.py does the same for training)."""

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from videogen_jax.sampling.command import read_index, read_size, stage_settings
from videogen_jax.sampling.pipeline import VideoGenPipeline
from videogen_jax.scaling.training import FAST, Report, compile_report, pod_devices
from videogen_jax.training.mesh import batch_sharding, make_mesh
from videogen_jax.training.state import count_parameters
from videogen_jax.weights.hub import EMBEDDED, resolve


class _Stopped(Exception):
    """Everything has been asked for: nothing is to be run."""


class _Recorder:
    """Stands in for `Programs`: remembers what a pipeline asks for."""

    def __init__(self) -> None:
        self.asked: dict[tuple, tuple[Callable, tuple, tuple[int, ...]]] = {}

    def prepare(self, key: tuple, function: Callable, *args: Any, donate: tuple[int, ...] = ()) -> None:
        self.asked.setdefault(key, (function, args, donate))

    def run(self, *args: Any, **kwargs: Any) -> Any:
        raise _Stopped

    def cancel(self) -> None:
        """There is nothing to drop."""


def pipeline_reports(config: ConfigDict, topology: str, effort: dict[str, Any] = FAST) -> list[Report]:
    """A report on each program of the config's model, with a batch of `config.batch_size` prompts over all devices.

    Parameters lie whole on every device; the networks compute in `config.dtype`, bfloat16 if it is not set.

    Raises:
      ValueError: there is no such pod, its devices do not divide the batch, or the config cannot work.
    """
    devices = pod_devices(topology)[1]
    if config.batch_size % len(devices):
        raise ValueError(
            f"config.batch_size is {config.batch_size}, "
            f"which does not divide by the {len(devices)} devices of --aot_topology {topology}"
        )
    mesh = make_mesh({"data": -1}, devices)
    index = read_index(config, drawn=True)
    reference_model = resolve(config.reference_model) if config.reference_model else None
    pipeline = VideoGenPipeline.from_pretrained(
        index.folder, config.dtype or "bfloat16", reference_model, config.model or EMBEDDED
    )
    pipeline.programs = recorder = _Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the prompts say is of no matter
        with contextlib.suppress(_Stopped):
            pipeline(
                ["a video"] * config.batch_size,
                num_frames=config.frames,
                temporal_factor=config.temporal_factor,
                size=read_size(config.size),
                decode_chunk=config.decode_chunk,
                decode_overlap=config.decode_overlap,
                **stage_settings(config, index.cascade),
            )
    reports = []
    for key, (function, args, donate) in recorder.asked.items():
        placed = jax.tree.map(lambda leaf: _placed(leaf, config.batch_size, mesh), args)
        given = [leaf for leaf in jax.tree.leaves(args) if isinstance(leaf, jax.Array)]
        reports.append(
            compile_report(
                f"sample {key[0]}",
                topology,
                jax.jit(function, donate_argnums=donate),
                placed,
                mesh,
                effort,
                batch_size=config.batch_size,
                parameters=count_parameters(given),
            )
        )
    return reports


def _placed(leaf: Any, batch: int, mesh: Mesh) -> jax.ShapeDtypeStruct:
    """The shape of an argument, and where it lies: what has the batch as its first axis is spread over the devices.

    Parameters, which are arrays already, lie whole on each. Under guidance the first axis holds the batch
    several times.
    """
    leaf = leaf if hasattr(leaf, "shape") else jnp.asarray(leaf)
    spread = not isinstance(leaf, jax.Array) and len(leaf.shape) > 0 and leaf.shape[0] % batch == 0
    sharding = batch_sharding(mesh) if spread else NamedSharding(mesh, PartitionSpec())
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
