"""Compile training steps for a TPU pod without having one: whether they fit, what they cost, and what bounds them.

`libtpu` (the extra `aot`) compiles for any pod on a CPU host. All arrays are abstract (shapes with shardings), so
neither data nor weights are read.
"""

import dataclasses
import functools
import importlib.util
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from videogen_jax.data.encoding import Encoder
from videogen_jax.models.autoencoder import AutoencoderKL
from videogen_jax.models.partitioning import over
from videogen_jax.scaling.chips import GIB, Chip, LeastTime, chip_hours, least_time, parse_topology
from videogen_jax.scaling.flops import count_jaxpr
from videogen_jax.scaling.hlo import Collectives, collectives, memory_traffic
from videogen_jax.stages.frozen_autoencoder import FrozenAutoencoder
from videogen_jax.stages.stage import DTYPES, InputSizes, Params, Spec, Stage, batch_spec, build_network
from videogen_jax.training.build import build_stage, encoder_resolutions, is_encoded
from videogen_jax.training.encoded import EncodedStage
from videogen_jax.training.mesh import (
    batch_sharding,
    batch_shardings,
    check_batch,
    make_mesh,
    shardings_for,
    step_shardings,
)
from videogen_jax.training.model_config import explicit_fields
from videogen_jax.training.optimizer import make_optimizer
from videogen_jax.training.state import TrainState, count_parameters, init_state, make_train_step

# With these options a step of Stable Diffusion's width compiles in minutes rather than hours, to a slightly slower and
# larger program. Fusing collectives with other work is off because it splits them into pieces that are hard to count.
FAST = {
    "exec_time_optimization_effort": -1.0,
    "memory_fitting_effort": -1.0,
    "xla_tpu_enable_async_collective_fusion": False,
}
FULL: dict[str, Any] = {}


@dataclasses.dataclass(frozen=True)
class Report:
    """The resources that a program needs on one device of a pod, according to the compiler.

    Attributes:
      name: of the program.
      topology: such as `v5e:16x16`.
      devices: number of devices of the pod.
      mesh: sizes of its axes.
      batch_size: examples a step, over all devices.
      parameters: number of trained scalars.
      argument_bytes: size of the arguments; of a training step these are the state, the frozen parts and the batch.
      temporary_bytes: peak size of everything else, including results that do not reuse the memory of arguments.
      code_bytes: size of the program itself, which occupies the same memory.
      memory_bytes: HBM of the chip.
      flops: operations of matrix products and convolutions in one run on one device, including recomputation.
      traffic_bytes: bytes moved between HBM and cores; see `hlo.memory_traffic`.
      collectives: by kind.
      least: lower bounds on the time of one run.
      compile_seconds: compilation time on this host.
      steps: number of steps of a training run; 0 for other programs.
    """

    name: str
    topology: str
    devices: int
    mesh: dict[str, int]
    batch_size: int
    parameters: int
    argument_bytes: int
    temporary_bytes: int
    code_bytes: int
    memory_bytes: int
    flops: float
    traffic_bytes: int
    collectives: dict[str, Collectives]
    least: LeastTime
    compile_seconds: float
    steps: int = 0

    @property
    def used(self) -> float:
        """Fraction of the chip's memory in use."""
        return (self.argument_bytes + self.temporary_bytes + self.code_bytes) / self.memory_bytes

    @property
    def chip_hours(self) -> float:
        """Lower bound on the chip hours of all steps."""
        return chip_hours(self.least.seconds, self.steps, (self.devices,))

    def to_dict(self) -> dict[str, Any]:
        """Return all fields and the derived properties."""
        derived = {
            "used": self.used,
            "seconds": self.least.seconds,
            "bound_by": self.least.bound_by,
            "chip_hours": self.chip_hours,
        }
        return {**dataclasses.asdict(self), **derived}

    def __str__(self) -> str:
        mesh = ", ".join(f"{axis} {size}" for axis, size in self.mesh.items() if size > 1)
        gib = [self.argument_bytes / GIB, self.temporary_bytes / GIB, self.code_bytes / GIB, self.memory_bytes / GIB]
        lines = [
            f"{self.name} on {self.topology} ({self.devices} devices: {mesh}), batch {self.batch_size}, "
            f"{self.parameters / 1e6:.1f} M parameters",
            "memory a device   arguments {:.2f} GiB, temporaries {:.2f} GiB, program {:.2f} GiB of {:.0f} GiB: ".format(
                *gib
            )
            + f"{self.used:.0%}",
            f"work a device     {self.flops / 1e12:.2f} TFLOP, {self.traffic_bytes / 1e9:.1f} GB to and from memory",
        ]
        for kind, of_kind in self.collectives.items():
            lines.append(f"{kind:<18}{of_kind.count} of {of_kind.bytes / 1e6:.1f} MB, {of_kind.sent / 1e6:.1f} MB sent")
        least = self.least
        lines.append(
            f"at least          {least.seconds * 1e3:.1f} ms a step, bound by {least.bound_by} (compute "
            f"{least.compute * 1e3:.1f}, memory {least.memory * 1e3:.1f}, network {least.network * 1e3:.1f} ms)"
        )
        if self.steps:
            lines.append(f"{self.steps:,} steps at that: {self.chip_hours:,.0f} chip hours")
        return "\n".join(lines)


def pod_devices(topology: str) -> tuple[Chip, list[jax.Device]]:
    """Return the chip and the devices of a pod for which to compile.

    Raises:
      ValueError: libtpu is not installed, or there is no such pod.
    """
    chip, shape = parse_topology(topology)
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError("--aot_topology needs libtpu, which compiles for TPUs: pip install 'videogen_jax[aot]'")
    jax.config.update("jax_platforms", "cpu")  # keeps JAX from looking for a TPU and from allocating a GPU's memory
    # Otherwise libtpu queries the metadata server for a TPU, and locks out other processes.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        description = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except (jax.errors.JaxRuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--aot_topology {topology} is no pod that libtpu knows: {reason}") from error
    devices = list(description.devices)
    if len(devices) != math.prod(shape):
        raise ValueError(f"--aot_topology {topology} has {len(devices)} devices for libtpu, not {math.prod(shape)}")
    return chip, devices


def compile_report(
    name: str,
    topology: str,
    program: Callable,
    args: tuple,
    mesh: Mesh,
    effort: dict[str, Any] = FAST,
    **fields: Any,
) -> Report:
    """Compile a jitted program for the devices of `mesh` and report what it needs.

    Args:
      name: name of the program in the report.
      topology: the pod, such as `v5e:16x16`.
      program: a jitted function with shardings over the mesh.
      args: its arguments, as `jax.ShapeDtypeStruct`.
      mesh: mesh over the devices of the pod.
      effort: compiler options.
      fields: the remaining fields of the report: batch_size, parameters, steps.

    Raises:
      ValueError: the program does not fit into the memory of the chip.
    """
    chip, _ = parse_topology(topology)
    traced = program.trace(*args)
    started = time.perf_counter()
    logging.info("compiling %s for %s", name, topology)
    try:
        compiled = traced.lower(lowering_platforms=("tpu",)).compile(compiler_options=effort)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: ")
        raise ValueError(f"{name} with a batch of {fields.get('batch_size')} on {topology}: {reason}") from error
    elapsed = time.perf_counter() - started
    devices = math.prod(mesh.shape.values())
    memory, text = compiled.memory_analysis(), compiled.as_text()
    flops = count_jaxpr(traced.jaxpr.jaxpr) / devices
    traffic, exchanged = memory_traffic(text), collectives(text, devices)
    return Report(
        name=name,
        topology=topology,
        devices=devices,
        mesh=dict(mesh.shape),
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
        code_bytes=memory.generated_code_size_in_bytes,
        memory_bytes=chip.memory,
        flops=flops,
        traffic_bytes=traffic,
        collectives=exchanged,
        least=least_time(chip, flops, traffic, sum(of_kind.sent for of_kind in exchanged.values())),
        compile_seconds=elapsed,
        **fields,
    )


@dataclasses.dataclass(frozen=True)
class AbstractInputs:
    """The stage of a training config and the abstract inputs of its training step.

    Attributes:
      stage: an `EncodedStage` if the config trains directly from video files.
      frozen: the frozen parameters that the loss reads.
      batch: a batch of `config.batch_size` examples.
    """

    stage: Stage
    frozen: Params
    batch: Spec


def abstract_inputs(config: Any) -> AbstractInputs:
    """Build the stage of a training config and the shapes of its inputs without reading any file.

    Sizes that otherwise follow from the data are taken from `config.data.resolution` and `config.example`; the
    autoencoder is that of Stable Diffusion.

    Raises:
      ValueError: `config.example` is empty, or the config trains directly from video files with text.
    """
    if not config.get("example"):
        raise ValueError(
            "config.example is empty: --aot_topology reads no data, so the config has to say how many frames an "
            "example has, as num_frames (configs/webvid does)"
        )
    stage = build_stage(config.stage, explicit_fields(config.model))
    fields = {"resolution": config.data.resolution, **config.example}
    sizes = build_network(InputSizes, fields, "config.example")
    inputs = stage.input_spec(sizes)
    frozen = stage.frozen_spec(inputs)
    if is_encoded(config, stage):
        if "context" in inputs:
            raise ValueError(
                "--aot_topology compiles this stage for a prepared data set: leave the kind of corpus out of the "
                "config's argument"
            )
        network = AutoencoderKL(dtype=DTYPES[config.data.encoder_dtype])
        images = jax.ShapeDtypeStruct((1, 2 * network.downsampling, 2 * network.downsampling, 3), jnp.float32)
        vae = jax.eval_shape(network.init, jax.random.key(0), images, jax.random.key(0))["params"]
        frozen = {**frozen, "encoder": {"vae": vae}}
        # The scaling factor of the latents does not affect the cost, so it is 1.
        stage = EncodedStage(stage, Encoder(FrozenAutoencoder(network, 1.0), encoder_resolutions(config)))
        inputs = stage.input_spec(sizes)
    return AbstractInputs(stage, frozen, batch_spec(inputs, config.batch_size))


@dataclasses.dataclass(frozen=True)
class _AbstractProgram:
    """The parts from which the programs of a config are built, and their arguments as shapes."""

    mesh: Mesh
    inputs: AbstractInputs
    optimizer: Any
    state: TrainState

    @classmethod
    def build(cls, config: Any, topology: str) -> "_AbstractProgram":
        mesh = make_mesh(config.mesh, pod_devices(topology)[1])
        inputs = abstract_inputs(config)
        check_batch(config, mesh, inputs.batch)
        optimizer = make_optimizer(config.optimizer, config.steps)
        create = functools.partial(init_state, inputs.stage, optimizer)
        return cls(mesh, inputs, optimizer, jax.eval_shape(create, jax.random.key(0), inputs.batch))

    @property
    def sharded_batch(self) -> Spec:
        """The shapes of the batch with their shardings over the mesh."""
        shardings = batch_shardings(self.inputs.batch, self.mesh)
        return {
            name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=shardings[name])
            for name, x in self.inputs.batch.items()
        }


def train_report(config: Any, topology: str, effort: dict[str, Any] = FAST) -> Report:
    """Compile and report on the training step of a config on a pod.

    Args:
      config: a training config.
      topology: the pod, such as `v5e:16x16`.
      effort: compiler options.

    Raises:
      ValueError: the config or the pod is invalid (before anything is compiled), or the program does not fit.
    """
    abstract = _AbstractProgram.build(config, topology)
    stage, frozen, state = abstract.inputs.stage, abstract.inputs.frozen, abstract.state
    shardings = step_shardings(config, abstract.mesh, state, frozen)
    step = make_train_step(stage, abstract.optimizer, config, *shardings)
    return compile_report(
        f"train {stage.name}",
        topology,
        step,
        (state, frozen, abstract.sharded_batch),
        abstract.mesh,
        effort,
        batch_size=config.batch_size,
        parameters=count_parameters(state.params),
        steps=config.steps,
    )


def sample_report(config: Any, topology: str, effort: dict[str, Any] = FAST) -> Report:
    """Compile and report on `Stage.sample` for a batch of a training config, all sampling steps in one program.

    Args and errors are those of `train_report`.
    """
    abstract = _AbstractProgram.build(config, topology)
    mesh, stage, frozen, params = abstract.mesh, abstract.inputs.stage, abstract.inputs.frozen, abstract.state.params
    rules, min_size = config.sharding_rules, config.fsdp_min_size
    shardings = [shardings_for(tree, rules, mesh, min_size) for tree in (params, frozen)]
    replicated = NamedSharding(mesh, PartitionSpec())

    def sample(params, frozen, batch, rng):
        with over(mesh):
            return stage.sample(params, frozen, batch, rng)

    program = jax.jit(sample, in_shardings=(*shardings, None, replicated), out_shardings=batch_sharding(mesh))
    rng = jax.eval_shape(lambda: jax.random.key(0))
    return compile_report(
        f"sample {stage.name}",
        topology,
        program,
        (params, frozen, abstract.sharded_batch, rng),
        mesh,
        effort,
        batch_size=config.batch_size,
        parameters=count_parameters(params),
    )


def write(reports: Sequence[Report], output: str | Path | None) -> None:
    """Print reports, and write them to the file `output` as a JSON list unless it is None or empty."""
    for report in reports:
        print(report)
    if output:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        Path(output).write_text(json.dumps([report.to_dict() for report in reports], indent=2) + "\n", encoding="utf-8")
        print(output)
