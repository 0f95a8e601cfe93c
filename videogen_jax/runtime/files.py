"""JSON files, and files that are written atomically."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def load_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
      ValueError: the file is not valid JSON, or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must contain a JSON object")
    return content


def save_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object atomically; the folder is created if it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dict(content), indent=2, sort_keys=True) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file that appears complete or not at all.

    Args:
      path: the file.
      write: called with a temporary path in the same folder, from where the file is moved to `path`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)  # safetensors creates files that only their owner can read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """Convert tuples to lists and keys to strings, recursively, for JSON."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    return value
