"""JAX's persistent compilation cache, so that a program compiled once is only read by later processes."""

import logging
import os
import tempfile
from pathlib import Path

VARIABLE = "VIDEOGEN_JAX_CACHE"

logger = logging.getLogger(__name__)


def default_folder() -> Path:
    """`videogen_jax/xla` in the user's cache directory (XDG_CACHE_HOME, or ~/.cache)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "videogen_jax" / "xla"


def enable(folder: str | os.PathLike | None = None) -> Path | None:
    """Turns the cache on for every program compiled from now on.

    Args:
      folder: where compiled programs are kept; None: the environment variable VIDEOGEN_JAX_CACHE ("" or "off" turns
        the cache off), else `default_folder()`.

    Returns:
      The folder in use, or None if the cache is off: by wish, or, with a warning in the log, since the folder cannot
      be written.
    """
    if folder is None:
        wish = os.environ.get(VARIABLE)
        if wish is not None and wish.strip().lower() in ("", "off"):
            return None
        folder = wish or default_folder()
    folder = Path(folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        logger.warning("compiled programs are not kept: %s cannot be written (%s)", folder, error.strerror or error)
        return None

    import jax

    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder
