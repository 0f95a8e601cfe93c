"""Compiled executables kept on disk, so that a later process neither traces nor lowers nor compiles.

JAX's compilation cache (`compilation_cache`) saves compiling alone: a program has to be traced and lowered to find it
there, which takes several times as long as reading it. Here a program is found by what it follows from: the code of the
package, JAX, the device, all settings that change programs, the model, and the key and arguments that a caller gives.

Where executables are kept, JAX's cache is off: on CPUs an executable that it has read cannot be written again (what is
written then lacks functions).

What is loaded is machine code, so the folder is the user's own: one that others may write is neither read nor written.
"""

import functools
import hashlib
import logging
import os
import pickle
import platform
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

from videogen_jax.runtime.files import write_atomically

logger = logging.getLogger(__name__)
MOST_BYTES = 2 * 2**30  # of the folder; beyond it what has not been used for the longest time goes
_PACKAGE = Path(__file__).resolve().parents[1]
_SUFFIX = ".executable"
# Settings of JAX that change no program.
_WITHOUT_EFFECT = ("cache", "log", "traceback", "profiler", "dump")


class Stored(NamedTuple):
    """A stored executable.

    Attributes:
      shapes: of its results, a tree of `jax.ShapeDtypeStruct`.
      load: loads it; raises ValueError where the file is damaged, or is of something else.
    """

    shapes: Any
    load: Callable[[], jax.stages.Compiled]


def keep_executables(cache: Path | None) -> Path | None:
    """Keep executables in a folder of this cache from now on, instead of what JAX's own cache keeps.

    Args:
      cache: from `compilation_cache.enable`.

    Returns: the folder, made for the user alone if it is not there. None without a cache, or with a warning in the log
    where the folder is not the user's own, or the backend cannot write executables; then JAX's cache stays as it is.
    """
    if cache is None:
        return None
    folder = cache / "executables"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        logger.warning("executables are not kept: %s cannot be made (%s)", folder, error.strerror or error)
        return None
    own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    if not own or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        logger.warning("executables are not kept: %s is another user's, or others may write to it", folder)
        return None
    before = jax.config.jax_enable_compilation_cache
    _use_jaxs_cache(False)
    if not any(folder.glob(f"*{_SUFFIX}")) and not _can_serialize():
        logger.warning("executables are not kept: this backend cannot write them")
        _use_jaxs_cache(before)
        return None
    return folder


def _use_jaxs_cache(value: bool) -> None:
    jax.config.update("jax_enable_compilation_cache", value)
    compilation_cache.reset_cache()  # it asks once, and remembers


def _can_serialize() -> bool:
    """Whether a program can be written, read and run again on the default backend."""
    try:
        compiled = jax.jit(lambda x: x + 1).lower(jnp.zeros(())).compile()
        loaded = serialize_executable.deserialize_and_load(*serialize_executable.serialize(compiled))
        return float(loaded(jnp.zeros(()))) == 1.0
    except Exception as error:  # whatever a backend says where it does not know how
        logger.info("executables cannot be written: %s", error)
        return False


class Executables:
    """A folder of executables, as from `keep_executables`, for one model.

    Args:
      folder: of the executables.
      model: what of the model its programs depend on.
    """

    def __init__(self, folder: Path, model: str):
        self._folder = folder
        self._identity = hashlib.sha256(f"{environment()}\n{model}".encode()).hexdigest()

    def find(self, key: tuple, args: Any) -> Stored | None:
        """The executable of a program, or None: there is none.

        Args:
          key: of the program.
          args: its arguments, or their shapes.
        """
        path = self._path(key, args)
        try:
            with path.open("rb") as file:
                out_tree, shapes = pickle.load(file)
                start = file.tell()
            os.utime(path)
        except FileNotFoundError:
            return None
        except Exception as error:  # pickle raises all sorts for what is damaged
            logger.warning("%s is passed over: %s", path, error)
            return None

        def load() -> jax.stages.Compiled:
            try:
                with path.open("rb") as file:
                    file.seek(start)
                    digest, content = pickle.load(file)
                if hashlib.sha256(content).hexdigest() != digest:
                    raise ValueError("its content is damaged")
                return serialize_executable.deserialize_and_load(*pickle.loads(content))
            except Exception as error:
                raise ValueError(f"{path} cannot be loaded: {error}") from error

        return Stored(jax.tree.unflatten(out_tree, [jax.ShapeDtypeStruct(*shape) for shape in shapes]), load)

    def keep(self, key: tuple, args: Any, compiled: jax.stages.Compiled, shapes: Any) -> None:
        """Store a program. What cannot be stored, as on a full disk, is named in the log.

        Args:
          key, args: as of `find`.
          compiled: the executable.
          shapes: of its results.
        """
        path = self._path(key, args)
        try:
            leaves, out_tree = jax.tree.flatten(shapes)
            content = pickle.dumps(serialize_executable.serialize(compiled))

            def write(temporary: Path) -> None:
                with temporary.open("wb") as file:
                    pickle.dump((out_tree, [(leaf.shape, leaf.dtype) for leaf in leaves]), file)
                    pickle.dump((hashlib.sha256(content).hexdigest(), content), file)

            write_atomically(path, write)
            self._trim()
        except Exception as error:  # a backend may not know how, and pickle raises all sorts
            logger.warning("the program %s is not kept: %s", key[0], error)

    def _path(self, key: tuple, args: Any) -> Path:
        leaves, tree = jax.tree.flatten(shapes_of(args))
        shapes = [(leaf.shape, str(leaf.dtype), leaf.weak_type) for leaf in leaves]
        text = f"{self._identity}\n{key!r}\n{tree}\n{shapes}"
        return self._folder / f"{key[0]}-{hashlib.sha256(text.encode()).hexdigest()[:32]}{_SUFFIX}"

    def _trim(self) -> None:
        """Remove what has not been used for the longest time, until the folder is within its bound."""
        files = []
        for path in self._folder.glob(f"*{_SUFFIX}"):
            try:
                files.append((path.stat().st_mtime, path.stat().st_size, path))
            except FileNotFoundError:  # another process has removed it
                continue
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files)[:-1]:
            if total <= MOST_BYTES:
                break
            path.unlink(missing_ok=True)
            total -= size


def shapes_of(args: Any) -> Any:
    """A tree of arrays, or of their shapes, as a tree of `jax.ShapeDtypeStruct`."""

    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        aval = jax.typeof(leaf)
        return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type)

    return jax.tree.map(shape, args)


def environment() -> str:
    """What every executable follows from besides its model and its arguments, as text."""
    import jaxlib

    devices = jax.devices()
    settings = {name: value for name, value in jax.config.values.items() if not any(x in name for x in _WITHOUT_EFFECT)}
    return "\n".join(
        (
            _code(),
            jax.__version__,
            jaxlib.__version__,
            f"{devices[0].platform} {devices[0].device_kind} {len(devices)} {devices[0].client.platform_version}",
            _processor(),
            os.environ.get("XLA_FLAGS", ""),
            os.environ.get("LIBTPU_INIT_ARGS", ""),
            repr(sorted((name, repr(value)) for name, value in settings.items())),
        )
    )


def _processor() -> str:
    """The processor's model and its instructions, which code for a CPU depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    names = ("model name", "flags", "Features", "CPU part")
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(names)))


@functools.cache
def _code() -> str:
    """A digest of all source files of this package."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()
