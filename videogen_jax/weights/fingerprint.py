"""Fingerprints of the content of a model folder."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_SETTINGS_SUFFIXES, _SAMPLED_BYTES = (".json", ".txt"), 2**20


def fingerprint(recipe: Mapping[str, Any], model_folder: Path, parts: list[str]) -> str:
    """Return a hexadecimal string that changes with the recipe or with any file of the parts.

    Args:
      recipe: settings, as JSON.
      model_folder: contains the parts.
      parts: names of the parts.

    Raises:
      ValueError: a part is missing.
    """
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
    for part in parts:
        files = sorted(p for p in (model_folder / part).glob("*") if p.is_file())
        if not files:
            raise ValueError(f"{model_folder / part} is missing: train and export that part first")
        for path in files:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def model_fingerprint(folders: Iterable[Path]) -> str:
    """SHA-256, in hex, by which a recipe recognises a model, whatever its folder is called.

    It covers all settings, and of each file of weights its name, its size and 1 MiB at its start, middle and end: a
    trained model differs from any other everywhere.

    Args:
      folders: of the model, and of what it is put together with, which may be single files.
    """
    digest = hashlib.sha256()
    for folder in folders:
        files = folder.rglob("*") if folder.is_dir() else [folder]
        for path in sorted(path for path in files if path.is_file()):
            weights = path.suffix in (".safetensors", ".msgpack")
            if weights or path.suffix in _SETTINGS_SUFFIXES:
                size = path.stat().st_size
                name = path.relative_to(folder).as_posix() if path != folder else path.name
                digest.update(f"{name} {size}\n".encode())
                with path.open("rb") as file:
                    for start in (0, size // 2, size - _SAMPLED_BYTES) if weights else (0,):
                        file.seek(max(0, start))
                        digest.update(file.read(_SAMPLED_BYTES))
    return digest.hexdigest()
