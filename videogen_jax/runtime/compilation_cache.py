"""JAX's persistent compilation cache, from which later processes read programs that were compiled before."""

import logging
import os
import tempfile
from pathlib import Path

VARIABLE = "VIDEOGEN_JAX_CACHE"
JAX_VARIABLE = "JAX_COMPILATION_CACHE_DIR"

logger = logging.getLogger(__name__)


def default_folder() -> Path:
    """Return `videogen_jax/xla` in the user's cache directory (XDG_CACHE_HOME, or ~/.cache)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "videogen_jax" / "xla"


def enable(folder: str | os.PathLike | None = None) -> Path | None:
    """Turn the cache on for all programs compiled from now on.

    Args:
      folder: folder of the compiled programs; None for the environment variable VIDEOGEN_JAX_CACHE ("" or "off" turns
        the cache off) or, if that is not set, JAX's own, JAX_COMPILATION_CACHE_DIR, or else `default_folder()`.

    Returns: the folder in use; None if the cache is turned off or, with a warning in the log, the folder cannot be
    written.
    """
    if folder is None:
        setting = os.environ.get(VARIABLE)
        if setting is not None and setting.strip().lower() in ("", "off"):
            return None
        folder = setting or os.environ.get(JAX_VARIABLE) or default_folder()
    folder = Path(folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        logger.warning("compiled programs are not cached: %s cannot be written (%s)", folder, error.strerror or error)
        return None

    import jax

    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder
