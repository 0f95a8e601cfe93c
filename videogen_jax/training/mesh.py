"""One mesh for every stage, and the placement of parameters by an ordered list of rules."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ("data", "fsdp", "tensor")
Rules = Sequence[tuple[str, Sequence[str | None]]]


def make_mesh(sizes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over ("data", "fsdp", "tensor"); one size may be -1: the devices that are left.

    Raises:
      ValueError: naming the axis or the product that does not fit the devices.
    """
    devices = jax.devices() if devices is None else devices
    unknown = sorted(set(sizes) - set(AXES))
    if unknown:
        raise ValueError(f"config.mesh has no axis {', '.join(unknown)}; the axes are {', '.join(AXES)}")
    shape = [int(sizes.get(axis, 1)) for axis in AXES]
    if shape.count(-1) > 1 or any(size < 1 and size != -1 for size in shape):
        raise ValueError(f"config.mesh {dict(sizes)}: sizes are positive, and at most one of them is -1")
    known = math.prod(size for size in shape if size != -1)
    if -1 in shape and len(devices) % known == 0:
        shape[shape.index(-1)] = len(devices) // known
    if math.prod(shape) != len(devices):
        raise ValueError(f"config.mesh {dict(sizes)} does not make {len(devices)} devices")
    return Mesh(np.asarray(devices).reshape(shape), AXES)


def path_name(path: tuple[Any, ...]) -> str:
    """`params/unet/conv_in/kernel` for a key path of a pytree."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def shardings_for(tree: Any, rules: Rules, mesh: Mesh) -> Any:
    """A NamedSharding for each leaf of `tree` (arrays or ShapeDtypeStructs).

    The first rule whose regular expression is found in the leaf's path gives the partition of its LAST axes; leading
    axes are whole. A leaf that no rule names, or whose axis does not divide, stays whole on every device, so a rule
    may be written for the large tensors without listing the small ones.
    """
    compiled = [(re.compile(pattern), tuple(spec)) for pattern, spec in rules]
    for pattern, spec in rules:
        unknown = sorted({axis for axis in spec if axis is not None and axis not in AXES})
        if unknown:
            raise ValueError(
                f"config.sharding_rules: {pattern!r} names the axis {', '.join(unknown)}, not one of {AXES}"
            )

    def place(path, leaf) -> NamedSharding:
        name = path_name(path)
        for pattern, spec in compiled:
            if pattern.search(name) and len(spec) <= leaf.ndim:
                whole = (None,) * (leaf.ndim - len(spec)) + spec
                fits = (axis is None or n % mesh.shape[axis] == 0 for axis, n in zip(whole, leaf.shape, strict=True))
                return NamedSharding(mesh, P(*(a if ok else None for a, ok in zip(whole, fits, strict=True))))
        return NamedSharding(mesh, P())

    return jax.tree_util.tree_map_with_path(place, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches are split over data and fsdp along their first axis."""
    return NamedSharding(mesh, P(("data", "fsdp")))
