"""Where the axes of activations lie on the devices of a mesh, told by name.

A network knows no mesh. Where XLA cannot find by itself how an activation is best laid out, the network names the
array's axes, and whoever compiles it over a mesh (`training.state`) has said what the names mean; on one device, or
outside of such a step, naming them does nothing.
"""

import contextlib
import contextvars
import math
from collections.abc import Iterator, Sequence

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

# What `constrain` may call an axis, and the axes of the mesh that it is spread over. "images" is one axis of all frames
# of all examples. Positions are over "frames" where a layer joins the frames of a position: each device then has all
# frames of some positions. "whole" is over none.
NAMES = {
    "batch": ("data", "fsdp"),
    "frames": ("frames",),
    "images": ("data", "fsdp", "frames"),
    "positions": ("frames",),
}
_mesh: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar("mesh", default=None)


@contextlib.contextmanager
def over(mesh: Mesh) -> Iterator[None]:
    """What is traced inside is compiled for `mesh`; one of a single device changes nothing."""
    token = _mesh.set(mesh if mesh.size > 1 else None)
    try:
        yield
    finally:
        _mesh.reset(token)


def is_partitioned() -> bool:
    """Whether what is being traced is compiled for several devices."""
    return _mesh.get() is not None


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """x, with its axes laid out by their `names`; XLA places those without one, or whose devices do not divide them.

    Rows and columns of images have to be "whole". Left to itself, XLA spreads them over "tensor" or "frames" where a
    layer joins them, or gathers all images, and then (as of jaxlib 0.10.2) computes some convolutions and their
    gradients wrongly.
    """
    mesh = _mesh.get()
    if mesh is None:
        return x
    spec = [P.UNCONSTRAINED] * x.ndim
    for axis, name in enumerate(names):
        if name == "whole":
            spec[axis] = None
        elif name:
            count = devices_along(mesh, NAMES[name])
            if count > 1 and x.shape[axis] % count == 0:
                spec[axis] = NAMES[name]
    if all(place is P.UNCONSTRAINED for place in spec):
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P(*spec)))


def constrain_images(x: jax.Array) -> jax.Array:
    """x `(N, H, W, C)`, some images on each device, and those whole."""
    return constrain(x, "images", "whole", "whole")


def devices_along(mesh: Mesh, axes: Sequence[str]) -> int:
    """The number of devices that something is spread over along these axes of the mesh."""
    return math.prod(mesh.shape[axis] for axis in axes)
