"""The mesh of devices, the same for every stage, and where parameters and batches lie on it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from videogen_jax.models.partitioning import AXIS_RULES, devices_along
from videogen_jax.training.parameter_paths import compile_pattern, example_path, path_name

AXES = ("data", "fsdp", "frames", "tensor")  # in the order of what is sent along them, the last the most
BATCH_AXES = AXIS_RULES["batch"]  # the axes of the mesh that the examples of a batch are spread over
Partition = Sequence[str | Sequence[str] | None]
Rules = Sequence[tuple[str, Partition]]


def make_mesh(sizes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return a mesh over `AXES`.

    On TPUs an axis follows the links of the torus where its size allows; elsewhere devices are taken in JAX's order, in
    which those of a host are neighbours along the last axes.

    Args:
      sizes: `config.mesh`: axis -> number of devices, 1 by default; one may be -1, for the devices that are left.
      devices: all of JAX's if None.

    Raises:
      ValueError: naming the field that does not fit the devices.
    """
    devices = jax.devices() if devices is None else devices
    unknown = sorted(set(sizes) - set(AXES))
    if unknown:
        raise ValueError(f"config.mesh has no axis {', '.join(unknown)}; the axes are {', '.join(AXES)}")
    shape = {axis: int(sizes.get(axis, 1)) for axis in AXES}
    for axis, size in shape.items():
        if size < 1 and size != -1:
            raise ValueError(f"config.mesh.{axis} is {size}; it must be positive, or -1 for the devices that are left")
    open_axes = [axis for axis, size in shape.items() if size == -1]
    if len(open_axes) > 1:
        raise ValueError(f"config.mesh.{' and config.mesh.'.join(open_axes)} are -1; only one of them may be")
    left, taken = len(devices), []
    for axis, size in shape.items():
        if size == -1:
            continue
        if left % size:
            rest = f" that {' and '.join(taken)} leave" if taken else ""
            raise ValueError(f"config.mesh.{axis} is {size}, which does not divide the {left} devices{rest}")
        left //= size
        taken += [axis] if size > 1 else []
    if open_axes:
        shape[open_axes[0]] = left
    elif left > 1:
        named = ", ".join(f"config.mesh.{axis} {size}" for axis, size in shape.items())
        raise ValueError(
            f"{named} take {len(devices) // left} of {len(devices)} devices; -1 for one of them takes what is left"
        )
    return Mesh(_ordered(tuple(shape.values()), devices), AXES)


def _ordered(shape: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
    try:
        return mesh_utils.create_device_mesh(shape, devices)
    except NotImplementedError:  # no whole axes of the torus make an axis of the mesh
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)


def shardings_for(tree: Any, rules: Rules, mesh: Mesh, min_size: int = 2**14, trained: bool = False) -> Any:
    """Return a NamedSharding for each leaf of `tree`.

    The first rule whose regular expression is found in the leaf's path gives the partition of its LAST axes: for each
    an axis of the mesh, several of them, or None. A rule with more axes than the leaf is skipped. A leaf of at least
    `min_size` elements that no rule spreads over "fsdp" is spread over it along its largest axis that is not spread yet
    and divides; everything else is replicated. The paths of moments and moving averages end with those of their
    parameters, so they have the same shardings.

    Args:
      tree: arrays or ShapeDtypeStructs.
      rules: `config.sharding_rules`.
      mesh: of `make_mesh`.
      min_size: `config.fsdp_min_size`.
      trained: the tree is what is trained, so every rule has to match something in it.

    Raises:
      ValueError: a rule is not a regular expression, names an unknown axis or one axis twice, or nothing in the tree
        though an axis that it names has several devices.
    """
    compiled = [_rule(pattern, partition) for pattern, partition in rules]
    used, misfits = set(), {}

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name, spec = path_name(path), [()] * leaf.ndim  # for each axis of the leaf, the axes of the mesh
        for number, (pattern, partition) in enumerate(compiled):
            if len(partition) > leaf.ndim or not pattern.search(name):
                continue
            used.add(number)
            for axis, mesh_axes in enumerate(partition, leaf.ndim - len(partition)):
                if leaf.shape[axis] % devices_along(mesh, mesh_axes) == 0:
                    spec[axis] = mesh_axes
                else:
                    misfits.setdefault(pattern.pattern, []).append((name, leaf.shape[axis], mesh_axes))
            break
        if leaf.size >= min_size:
            _spread_over_fsdp(spec, leaf.shape, mesh)
        return NamedSharding(mesh, _partition_spec(spec))

    shardings = jax.tree_util.tree_map_with_path(sharding, tree)
    for pattern, leaves in misfits.items():
        name, size, mesh_axes = leaves[0]
        more = f" (and of {len(leaves) - 1} more)" if len(leaves) > 1 else ""
        logging.warning(
            "config.sharding_rules: %r: the %d of %s%s do not divide by the %d devices of %s and are not split",
            *(pattern, size, name, more, devices_along(mesh, mesh_axes), " and ".join(mesh_axes)),
        )
    for number, (pattern, partition) in enumerate(compiled):
        if trained and number not in used and any(devices_along(mesh, mesh_axes) > 1 for mesh_axes in partition):
            raise ValueError(
                f"config.sharding_rules: {pattern.pattern!r} names no parameter of this stage that has "
                f"{len(partition)} axes or more; paths read like {example_path(tree)}"
            )
    return shardings


def _spread_over_fsdp(spec: list[tuple[str, ...]], shape: tuple[int, ...], mesh: Mesh) -> None:
    """Spread the largest axis that is not spread yet over "fsdp", if it divides and no other axis is."""
    if any("fsdp" in mesh_axes for mesh_axes in spec):
        return
    free = [i for i, size in enumerate(shape) if not spec[i] and size % mesh.shape["fsdp"] == 0]
    if free:
        spec[max(free, key=lambda i: shape[i])] = ("fsdp",)


def _partition_spec(spec: Sequence[tuple[str, ...]]) -> P:
    """Write a spec in its shortest form: an axis without its tuple, None for none, and no None at the end."""
    shortest = [mesh_axes[0] if len(mesh_axes) == 1 else mesh_axes or None for mesh_axes in spec]
    while shortest and shortest[-1] is None:
        shortest.pop()
    return P(*shortest)


def step_shardings(config: Any, mesh: Mesh, state: Any, frozen: Any) -> tuple[Any, Any]:
    """Return the shardings of the train state, and of what is read and not trained, by the config's rules."""
    rules, spread = config.sharding_rules, config.fsdp_min_size
    return shardings_for(state, rules, mesh, spread, trained=True), shardings_for(frozen, rules, mesh, spread)


def _rule(pattern: str, partition: Partition) -> tuple[re.Pattern, tuple[tuple[str, ...], ...]]:
    """Return a rule with its regular expression compiled and, for each axis, a tuple of the mesh's axes."""
    where = f"config.sharding_rules: {pattern!r}"
    expanded = tuple((axes,) if isinstance(axes, str) else tuple(axes or ()) for axes in partition)
    named = [axis for axes in expanded for axis in axes]
    unknown = sorted(set(named) - set(AXES))
    if unknown:
        raise ValueError(f"{where} names the axis {', '.join(unknown)}, not one of {', '.join(AXES)}")
    if len(set(named)) < len(named):
        raise ValueError(f"{where} names an axis twice: {partition}")
    return compile_pattern(pattern, where), expanded


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch: its first axis over data and fsdp."""
    return NamedSharding(mesh, P(BATCH_AXES))


def batch_shardings(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, NamedSharding]:
    """Return the sharding of each array of a batch.

    All are split as by `batch_sharding`; videos `(B, T, H, W, C)` also over "frames" along T, where it divides: single
    frames, such as references, are not.
    """
    frames = mesh.shape["frames"]

    def spec(x: Any) -> P:
        return P(BATCH_AXES, "frames") if x.ndim == 5 and x.shape[1] % frames == 0 else P(BATCH_AXES)

    return {name: NamedSharding(mesh, spec(x)) for name, x in batch.items()}


def check_batch(config: Any, mesh: Mesh, batch: Mapping[str, Any]) -> None:
    """Check `config.batch_size`, and the frames of `batch`, against the mesh.

    Raises:
      ValueError: the batch size does not divide, or no array of `batch` has frames that "frames" divides.
    """
    size, parts, split = config.batch_size, config.accumulation, devices_along(mesh, BATCH_AXES)
    if size % parts:
        raise ValueError(f"config.batch_size is {size}, which does not divide by config.accumulation, {parts}")
    cut = f" in {parts} parts (config.accumulation)" if parts > 1 else ""
    if size % (split * parts):
        raise ValueError(
            f"config.batch_size is {size}, which does not divide by the {split} devices of config.mesh's data and "
            f"fsdp axes{cut}"
        )
    if mesh.shape["frames"] == 1:
        return
    if size != split * parts:
        # The spatial layers take the frames of all examples as one axis, of which a device holds a contiguous part.
        raise ValueError(
            f"config.mesh.frames is {mesh.shape['frames']}, which is for clips that are too large for a device: "
            f"config.batch_size must then be {split * parts}, an example for each of the {split} devices of data and "
            f"fsdp{cut}, not {size}"
        )
    if not any("frames" in placed.spec for placed in batch_shardings(batch, mesh).values()):
        frames = sorted({x.shape[1] for x in batch.values() if x.ndim == 5})
        raise ValueError(
            f"config.mesh.frames is {mesh.shape['frames']}, which divides the frames of no array of a batch: "
            f"{', '.join(map(str, frames)) or 'there are no videos'}"
        )


def local_examples(mesh: Mesh, batch_size: int, process: int | None = None) -> tuple[int, ...]:
    """Return which examples of a batch the devices of a process (this one by default) hold, in rising order."""
    process = jax.process_index() if process is None else process
    slices = batch_sharding(mesh).devices_indices_map((batch_size,))
    examples = {
        example
        for device, (part,) in slices.items()
        if device.process_index == process
        for example in range(batch_size)[part]
    }
    return tuple(sorted(examples))


def place_batch(batch: Mapping[str, np.ndarray], mesh: Mesh, local: Sequence[int], batch_size: int) -> dict[str, Any]:
    """Make arrays over all processes from the part of a batch that this process has read.

    Args:
      batch: arrays `(len(local), ...)`, with all frames.
      mesh: of `make_mesh`.
      local: which examples of the batch they are (`local_examples`).
      batch_size: of the batch over all processes.

    Returns: arrays `(batch_size, ...)` that lie as `batch_shardings` says.
    """
    offsets = {example: i for i, example in enumerate(local)}
    shardings = batch_shardings(batch, mesh)

    def place(x: np.ndarray, sharding: NamedSharding) -> jax.Array:
        def part(index: tuple[slice, ...]) -> np.ndarray:
            examples = range(batch_size)[index[0]]
            return x[offsets[examples[0]] : offsets[examples[-1]] + 1][(slice(None), *index[1:])]

        return jax.make_array_from_callback((batch_size, *x.shape[1:]), sharding, part)

    return {name: place(np.asarray(x), shardings[name]) for name, x in batch.items()}


def place(tree: Any, shardings: Any) -> Any:
    """Lay out a tree of arrays as `shardings` says.

    Args:
      tree: arrays that every process has whole, or that lie on the mesh already.
      shardings: a tree of the same structure.
    """

    def put(x: Any, sharding: NamedSharding) -> jax.Array:
        if jax.process_count() == 1 or (isinstance(x, jax.Array) and not x.is_fully_addressable):
            return jax.device_put(x, sharding)
        whole = np.asarray(x)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(put, tree, shardings)
