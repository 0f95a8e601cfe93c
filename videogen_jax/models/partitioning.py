"""Where the axes of activations lie on the devices of a mesh, by names of the axes.

A network knows no mesh. Where XLA does not find the best layout of an activation by itself, the network names the
array's axes, and the code that compiles it for a mesh (`training.state`) sets that mesh by `over`. On a single device,
or outside of `over`, naming axes does nothing.

`flax.linen.with_logical_constraint` does not serve: it spreads axes that their devices do not divide too (XLA pads
them), closes axes of a single device, and takes the mesh as an argument, so that only the look-up of names is saved.
"""

import contextlib
import contextvars
import math
from collections.abc import Iterator, Sequence

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

# Name of an array's axis -> the axes of the mesh that it is spread over. "images" is one axis of all frames of all
# examples. "positions" are spread over "frames" where a layer joins the frames of a position: each device then has all
# frames of some positions.
AXIS_RULES = {
    "batch": ("data", "fsdp"),
    "frames": ("frames",),
    "images": ("data", "fsdp", "frames"),
    "positions": ("frames",),
}
WHOLE = "whole"  # an axis that is not spread
_mesh: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar("mesh", default=None)


@contextlib.contextmanager
def over(mesh: Mesh) -> Iterator[None]:
    """Compile what is traced inside for `mesh`; a mesh of one device changes nothing."""
    token = _mesh.set(mesh if mesh.size > 1 else None)
    try:
        yield
    finally:
        _mesh.reset(token)


def is_partitioned() -> bool:
    """Whether what is being traced is compiled for several devices."""
    return _mesh.get() is not None


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Lay out the axes of x by their names.

    Rows and columns of images have to be whole. Left to itself, XLA spreads them over "tensor" or "frames" where a
    layer joins them, or gathers all images, and then (as of jaxlib 0.10.2) computes some convolutions and their
    gradients wrongly.

    Args:
      x: any array.
      names: for each of the first axes a name of `AXIS_RULES`, `WHOLE`, or None to leave it to XLA, as are the axes
        after the last name and those whose devices do not divide them.

    Returns: x.
    """
    mesh = _mesh.get()
    if mesh is None:
        return x
    spec = [P.UNCONSTRAINED] * x.ndim
    for axis, name in enumerate(names):
        if name == WHOLE:
            spec[axis] = None
        elif name:
            count = devices_along(mesh, AXIS_RULES[name])
            if count > 1 and x.shape[axis] % count == 0:
                spec[axis] = AXIS_RULES[name]
    if all(place is P.UNCONSTRAINED for place in spec):
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P(*spec)))


def constrain_images(x: jax.Array) -> jax.Array:
    """Spread images `(N, H, W, C)` over the devices, each image whole on one of them."""
    return constrain(x, "images", WHOLE, WHOLE)


def devices_along(mesh: Mesh, axes: Sequence[str]) -> int:
    """Return the number of devices that an array's axis is spread over along these axes of the mesh."""
    return math.prod(mesh.shape[axis] for axis in axes)
