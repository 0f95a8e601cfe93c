"""Names and shapes of a network's parameters: its initialization is traced once and the result cached on disk."""

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
_CODE = ("models", "stages", "shapes")  # the packages that define the parameters


def parameter_shapes(owner: Any, init: Callable, *args: Any) -> Any:
    """Return the shapes of `init(rng, *args)` without computing it.

    Tracing a network takes up to a second. If the compilation cache is enabled (`compilation_cache.enable`), the shapes
    are stored beside the programs under a hash of everything they depend on: the owner's fields, the shapes of the
    arguments, the source files of the networks, and the versions of JAX and Flax.

    Args:
      owner: the network or stage to which `init` belongs; its `repr` contains all its fields.
      init: maps a random key and `args` to nested dicts of arrays.
      args: pytrees of arrays or `jax.ShapeDtypeStruct`.

    Returns:
      nested dicts of `jax.ShapeDtypeStruct`.

    Raises:
      Exception: whatever `init` raises, for example if the owner's fields are inconsistent.
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
        except OSError as error:  # the cache may be full or read-only, which only costs time
            logger.warning("%s is not stored: %s", path, error)
    return shapes


def _path(owner: Any, args: tuple) -> Path | None:
    """Return the file in the cache that holds the shapes, or None if they cannot be cached."""
    folder, fields = jax.config.jax_compilation_cache_dir, repr(owner)
    if not folder or " at 0x" in fields:  # a memory address, which differs between processes
        return None
    shapes = jax.tree.map(lambda x: (x.shape, str(x.dtype)), args)
    key = "\n".join((type(owner).__qualname__, fields, repr(shapes), jax.__version__, flax.__version__, _code()))
    return Path(folder) / f"shapes-{hashlib.sha256(key.encode()).hexdigest()}.json"


@functools.cache
def _code() -> str:
    """Hash the source of all networks and stages."""
    digest = hashlib.sha256()
    for package in _CODE:
        for path in sorted((Path(__file__).parents[1] / package).rglob("*.py")):
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
