"""Files that are on the disk when the call returns, whole, even if the machine loses power right afterwards."""

import json
import os
from pathlib import Path
from typing import Any

from videogen_jax.runtime.files import write_atomically


def write_json_durably(path: Path, value: Any) -> None:
    """Write a JSON value as an indented text with sorted keys."""
    write_text_durably(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def write_text_durably(path: Path, text: str) -> None:
    """Write a text; a reader finds the old content or the new one, never a part."""

    def write(temporary: Path) -> None:
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    write_atomically(path, write)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in `folder` to the disk, which the fsync of a file in it does not do."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
