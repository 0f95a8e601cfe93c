"""Compile the programs of a pipeline for a TPU pod without having one; scaling/training.py does so for training."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from videogen_jax.sampling.command import find_model
from videogen_jax.sampling.generate import ShapeExecutor, generate
from videogen_jax.sampling.pipeline import VideoGenPipeline
from videogen_jax.sampling.request import SamplingRequest
from videogen_jax.scaling.training import FAST, Report, compile_report, pod_devices
from videogen_jax.training.mesh import batch_sharding, make_mesh
from videogen_jax.training.state import count_parameters


def pipeline_reports(config: ConfigDict, topology: str, effort: dict[str, Any] = FAST) -> list[Report]:
    """Compile and report on each program of the config's model, with a batch of prompts sharded over all devices.

    Parameters are replicated; the networks compute in `config.dtype`, or bfloat16 if it is not set.

    Args:
      config: a sampling config; `batch_size` is the number of prompts over all devices.
      topology: the pod, such as `v5e:16x16`.
      effort: compiler options.

    Raises:
      ValueError: there is no such pod, its devices do not divide the batch, or the config is invalid.
    """
    devices = pod_devices(topology)[1]
    batch_size = config.batch_size
    if batch_size % len(devices):
        raise ValueError(
            f"config.batch_size is {batch_size}, "
            f"which does not divide by the {len(devices)} devices of --aot_topology {topology}"
        )
    mesh = make_mesh({"data": -1}, devices)
    source = find_model(config, drawn=True)
    request = SamplingRequest.from_config(config, ["a video"] * batch_size).resolve(source.index)
    pipeline = VideoGenPipeline.load(source, config.dtype or "bfloat16")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the prompt is a placeholder, so its unknown words do not matter
        inputs = pipeline.inputs(request)
    programs: dict[tuple, tuple[Callable, tuple, tuple[int, ...], Any]] = {}

    def prepare(key: tuple, function: Callable, *args: Any, donate: tuple[int, ...] = ()) -> Any:
        if key not in programs:
            programs[key] = function, args, donate, jax.eval_shape(function, *args)
        return programs[key][-1]

    generate(pipeline, request, inputs, ShapeExecutor(prepare))
    reports = []
    for key, (function, args, donate, _) in programs.items():
        arrays = [leaf for leaf in jax.tree.leaves(args) if isinstance(leaf, jax.Array)]
        reports.append(
            compile_report(
                f"sample {key[0]}",
                topology,
                jax.jit(function, donate_argnums=donate),
                jax.tree.map(lambda leaf: _with_sharding(leaf, batch_size, mesh), args),
                mesh,
                effort,
                batch_size=batch_size,
                parameters=count_parameters(arrays),
            )
        )
    return reports


def _with_sharding(leaf: Any, batch: int, mesh: Mesh) -> jax.ShapeDtypeStruct:
    """Return the shape of an argument with its sharding.

    Inputs whose first axis is the batch are sharded along it; under guidance that axis holds the batch once per pass.
    Parameters, which are arrays rather than shapes, are replicated.
    """
    leaf = leaf if hasattr(leaf, "shape") else jnp.asarray(leaf)
    is_batched = not isinstance(leaf, jax.Array) and len(leaf.shape) > 0 and leaf.shape[0] % batch == 0
    sharding = batch_sharding(mesh) if is_batched else NamedSharding(mesh, PartitionSpec())
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
