"""Fingerprints of the content of a model folder."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


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
