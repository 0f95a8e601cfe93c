"""Training steps compiled for a TPU pod that is not there: does it fit, what does it cost, what is it waiting for?

`libtpu` (the extra `aot`) compiles for any pod on a CPU host. All arrays are shapes with shardings: there are no data
and no weights.
"""

import dataclasses
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
from videogen_jax.models.vgg import VGG16Features
from videogen_jax.scaling.chips import GIB, Chip, LeastTime, chip_hours, least_time, parse_topology
from videogen_jax.scaling.flops import count_jaxpr
from videogen_jax.scaling.hlo import Collectives, collectives, memory_traffic
from videogen_jax.stages import build_stage
from videogen_jax.stages.autoencoder import FrozenAutoencoder
from videogen_jax.stages.stage import DTYPES, Params
from videogen_jax.training.build import STAGES_ON_PIXELS, STAGES_WITH_TEXT
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

# At this effort a step of Stable Diffusion's width compiles in minutes rather than hours, with a program that is a
# little slower and larger; collectives fused with other work would be cut into pieces that are hard to count.
FAST = {
    "exec_time_optimization_effort": -1.0,
    "memory_fitting_effort": -1.0,
    "xla_tpu_enable_async_collective_fusion": False,
}
FULL: dict[str, Any] = {}


@dataclasses.dataclass(frozen=True)
class Report:
    """What the compiler says of a program on one device of a pod.

    Attributes:
      name: of the program.
      topology: as `v5e:16x16`.
      devices: of the pod.
      mesh: sizes of its axes.
      batch_size: examples a step, over all devices.
      parameters: scalars of the trained parts.
      argument_bytes: of what the program is given; of a training step that is the state, the frozen parts, the batch.
      temporary_bytes: beside them, at the worst moment; results that are no arguments written over are counted here.
      code_bytes: of the program itself, which lies in the same memory.
      memory_bytes: of the chip.
      flops: of products and convolutions in one run, on one device, recomputation included.
      traffic_bytes: between memory and cores, see `hlo.memory_traffic`.
      collectives: by kind.
      least: the time that it takes at least.
      compile_seconds: on this host.
      steps: of a training, 0 of other programs.
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
        """Share of the chip's memory that is needed."""
        return (self.argument_bytes + self.temporary_bytes + self.code_bytes) / self.memory_bytes

    @property
    def chip_hours(self) -> float:
        """For all steps, at the least time."""
        return chip_hours(self.least.seconds, self.steps, (self.devices,))

    def to_dict(self) -> dict[str, Any]:
        """All fields and what follows from them."""
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
    """The chip and the devices of a pod, to compile for.

    Raises:
      ValueError: libtpu is not installed, or there is no such pod.
    """
    chip, shape = parse_topology(topology)
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError("--aot_topology needs libtpu, which compiles for TPUs: pip install 'videogen_jax[aot]'")
    jax.config.update("jax_platforms", "cpu")  # JAX is not to look for a TPU or to take a GPU's memory
    # libtpu would ask the machine's metadata server for a TPU, and let one process at a time use it.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except (jax.errors.JaxRuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--aot_topology {topology} is no pod that libtpu knows: {reason}") from error
    devices = list(described.devices)
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
    """Compiles a jitted program for the devices of `mesh` and reads off what it needs.

    Args:
      program: what `jax.jit` returned, with shardings over the mesh.
      args: its arguments, as `jax.ShapeDtypeStruct`.
      effort: compiler options.
      fields: those of the report that the program does not tell: batch_size, parameters, steps.

    Raises:
      ValueError: it does not fit the memory of the chip.
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
    traffic, moved = memory_traffic(text), collectives(text, devices)
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
        collectives=moved,
        least=least_time(chip, flops, traffic, sum(of_kind.sent for of_kind in moved.values())),
        compile_seconds=elapsed,
        **fields,
    )


def abstract_batch(config: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch of `config.example`. ValueError: the config does not tell what an example holds."""
    example = config.get("example")
    if not example:
        raise ValueError(
            "config.example is empty: --aot_topology reads no data, so the config has to say which arrays an example "
            "holds (configs/webvid does)"
        )
    return {
        name: jax.ShapeDtypeStruct((config.batch_size, *shape), jnp.dtype(dtype))
        for name, (shape, dtype) in example.items()
    }


def abstract_frozen(config: Any) -> tuple[Params, Encoder | None]:
    """Shapes of what `training.run.frozen_parts` and `build_encoder` read; the autoencoder is Stable Diffusion's."""
    frozen: dict[str, Any] = {}
    if config.stage in STAGES_WITH_TEXT:
        frozen["null_context"] = jax.ShapeDtypeStruct(tuple(config.example.context[0]), jnp.float32)
    if config.stage == "decoder":
        frozen |= {name: jax.ShapeDtypeStruct((), jnp.float32) for name in ("scaling_factor", "shift_factor")}
        if config.model.perceptual_weight:
            images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
            frozen["vgg"] = jax.eval_shape(VGG16Features().init, jax.random.key(0), images)["params"]
    if config.data.source != "videos" or config.stage in STAGES_ON_PIXELS:
        return frozen, None
    if config.stage in STAGES_WITH_TEXT:
        raise ValueError(
            "--aot_topology compiles this stage for a prepared data set: leave the kind of corpus out of the config's "
            "argument"
        )
    network = AutoencoderKL(dtype=DTYPES[config.data.encoder_dtype])
    images = jax.ShapeDtypeStruct((1, 2 * network.downsampling, 2 * network.downsampling, 3), jnp.float32)
    vae = jax.eval_shape(network.init, jax.random.key(0), images, jax.random.key(0))["params"]
    frozen["encoder"] = {"vae": vae}
    return frozen, Encoder(FrozenAutoencoder(network, 0.18215), {"latents": config.data.resolution})


@dataclasses.dataclass(frozen=True)
class _Abstract:
    """What a config's programs are made of and given, as shapes."""

    name: str
    stage: Any
    optimizer: Any
    state: TrainState
    frozen: Params
    batch: dict[str, jax.ShapeDtypeStruct]

    @classmethod
    def of(cls, config: Any) -> "_Abstract":
        stage, batch = build_stage(config.stage, explicit_fields(config.model)), abstract_batch(config)
        name = getattr(stage, "name", config.stage)
        frozen, encoder = abstract_frozen(config)
        if encoder is not None:
            stage = EncodedStage(stage, encoder)
        optimizer = make_optimizer(config.optimizer, config.steps)
        state = jax.eval_shape(lambda rng, batch: init_state(stage, optimizer, rng, batch), jax.random.key(0), batch)
        return cls(name, stage, optimizer, state, frozen, batch)


def _mesh_for(config: Any, topology: str) -> Mesh:
    mesh = make_mesh(config.mesh, pod_devices(topology)[1])
    check_batch(config, mesh, abstract_batch(config))
    return mesh


def _placed(batch: dict[str, jax.ShapeDtypeStruct], mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    where = batch_shardings(batch, mesh)
    return {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where[name]) for name, x in batch.items()}


def train_report(config: Any, topology: str, effort: dict[str, Any] = FAST) -> Report:
    """The training step of a config on a pod.

    Raises:
      ValueError: for a config or a pod that cannot work, before anything is compiled.
    """
    mesh = _mesh_for(config, topology)
    made = _Abstract.of(config)
    step = make_train_step(made.stage, made.optimizer, config, *step_shardings(config, mesh, made.state, made.frozen))
    return compile_report(
        f"train {made.name}",
        topology,
        step,
        (made.state, made.frozen, _placed(made.batch, mesh)),
        mesh,
        effort,
        batch_size=config.batch_size,
        parameters=count_parameters(made.state.params),
        steps=config.steps,
    )


def sample_report(config: Any, topology: str, effort: dict[str, Any] = FAST) -> Report:
    """What the stage of a training config makes of a batch (`Stage.sample`), all sampling steps as one program.

    Raises:
      ValueError: as `train_report`.
    """
    mesh = _mesh_for(config, topology)
    made = _Abstract.of(config)
    rules, spread = config.sharding_rules, config.fsdp_min_size
    params, frozen = (shardings_for(tree, rules, mesh, spread) for tree in (made.state.params, made.frozen))
    whole, rows = NamedSharding(mesh, PartitionSpec()), batch_sharding(mesh)

    def sample(params, frozen, batch, rng):
        with over(mesh):
            return made.stage.sample(params, frozen, batch, rng)

    program = jax.jit(sample, in_shardings=(params, frozen, None, whole), out_shardings=rows)
    rng = jax.eval_shape(lambda: jax.random.key(0))
    return compile_report(
        f"sample {made.name}",
        topology,
        program,
        (made.state.params, made.frozen, _placed(made.batch, mesh), rng),
        mesh,
        effort,
        batch_size=config.batch_size,
        parameters=count_parameters(made.state.params),
    )


def write(reports: Sequence[Report], output: str | Path | None) -> None:
    """Prints reports, and writes them as a JSON list."""
    for report in reports:
        print(report)
    if output:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        Path(output).write_text(json.dumps([report.to_dict() for report in reports], indent=2) + "\n", encoding="utf-8")
        print(output)
