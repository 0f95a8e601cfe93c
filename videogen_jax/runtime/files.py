"""Files that appear whole or not at all, and JSON."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def load_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object. ValueError: the file holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object")
    return content


def save_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object; the folder is created where it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dict(content), indent=2, sort_keys=True) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Calls `write` with a path beside `path`, then moves that file into its place: it appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)  # safetensors makes files that their owner alone can read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """Tuples as lists and nested mappings as dicts, for JSON."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    return value
