"""Names and shapes of a network's parameters, found by tracing its initialization once and cached on disk."""

import functools
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp

from videogen_jax.runtime.files import write_atomically

logger = logging.getLogger(__name__)
_CODE = ("models", "stages", "shapes")  # whose files decide what parameters there are


def parameter_shapes(owner: Any, init: Callable, *args: Any) -> Any:
    """The shapes of `init(rng, *args)`, without computing it.

    Tracing a network is Python and takes up to a second. Where the compilation cache is on (`compilation_cache.enable`)
    the shapes are stored beside the programs, under a hash of all that they depend on: the owner's fields, the shapes
    of the arguments, the source files of the networks, and the releases of JAX and Flax.

    Args:
      owner: the network or stage that `init` belongs to; its `repr` shows all its fields.
      init: maps a random key and `args` to nested dicts of arrays.
      args: arrays or `jax.ShapeDtypeStruct`, in any tree.

    Returns: nested dicts of `jax.ShapeDtypeStruct`.

    Raises: as `init`, for example when the owner's fields do not fit each other.
    """
    path = _path(owner, args)
    if path is not None and path.exists():
        try:
            return _from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            logger.warning("%s is ignored: %s", path, error)
    shapes = jax.eval_shape(init, jax.random.key(0), *args)
    if path is not None and _is_plain(shapes):
        try:
            write_atomically(path, lambda temporary: temporary.write_text(json.dumps(_to_json(shapes))))
        except OSError as error:  # the cache may be full or read-only; nothing is lost
            logger.warning("%s is not stored: %s", path, error)
    return shapes


def _path(owner: Any, args: tuple) -> Path | None:
    """The file of the shapes in the cache, or None if they cannot be cached."""
    folder, fields = jax.config.jax_compilation_cache_dir, repr(owner)
    if not folder or " at 0x" in fields:  # an address in memory differs from process to process
        return None
    shapes = jax.tree.map(lambda x: (x.shape, str(x.dtype)), args)
    key = "\n".join((type(owner).__qualname__, fields, repr(shapes), jax.__version__, flax.__version__, _code()))
    return Path(folder) / f"shapes-{hashlib.sha256(key.encode()).hexdigest()}.json"


@functools.cache
def _code() -> str:
    """A hash of the source of all networks and stages."""
    digest = hashlib.sha256()
    for part in _CODE:
        for path in sorted((Path(__file__).parents[1] / part).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _is_plain(tree: Any) -> bool:
    if isinstance(tree, Mapping):
        return all(isinstance(name, str) and _is_plain(value) for name, value in tree.items())
    return isinstance(tree, jax.ShapeDtypeStruct)


def _to_json(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _to_json(value) for name, value in tree.items()}
    return [list(tree.shape), str(tree.dtype)]


def _from_json(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _from_json(value) for name, value in tree.items()}
    shape, dtype = tree
    return jax.ShapeDtypeStruct(tuple(map(int, shape)), jnp.dtype(dtype))
