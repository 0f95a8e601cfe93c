"""Manifests: what a finished checkpoint is made of, by which a damaged one is told from a good one."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from videogen_jax.runtime.files import write_atomically

NAME = "manifest.json"
_FORMAT = 1
_THREADS = 4  # SHA-256 of a large buffer leaves the interpreter to others


class Damaged(ValueError):
    """A checkpoint that is not what its manifest says; the message names the file and what is wrong with it."""


def write_manifest(folder: Path, step: int) -> None:
    """Writes `folder/manifest.json`: the names, sizes and SHA-256 of all other files below `folder`.

    It is there whole or not at all, and when it is there the files that it names are on the disk too, even if the
    machine loses its power right afterwards.
    """
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor(_THREADS) as threads:
        described = list(threads.map(lambda name: _describe(folder / name, sync=True), names))
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            sync_folder(path)
    content = {"format": _FORMAT, "step": step, "files": dict(zip(names, described, strict=True))}
    write_json(folder / NAME, content)


def check_manifest(folder: Path, step: int) -> None:
    """Compares the files below `folder` with its manifest.

    Raises:
      Damaged: there is no manifest, or one for another step, or a file is missing, cut short or changed.
    """
    files = _read(folder / NAME, step)
    for name, expected in files.items():  # cheap, and what being killed or a full disk leaves behind
        path = folder / name
        if not path.is_file():
            raise Damaged(f"{path} is missing")
        if path.stat().st_size != expected["bytes"]:
            raise Damaged(f"{path} has {path.stat().st_size} bytes, not {expected['bytes']}")
    with ThreadPoolExecutor(_THREADS) as threads:
        for name, found in zip(files, threads.map(lambda name: _read_back(folder / name), files), strict=True):
            if found != files[name]:
                raise Damaged(f"{folder / name} was changed: its SHA-256 is not that of {NAME}")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that a reader never sees half of it, whenever this process or the machine stops."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """As `write_json`, for any text."""

    def write(temporary: Path) -> None:
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    write_atomically(path, write)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Returns when the names in `folder` are on the disk: a file's own fsync does not do that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _describe(path: Path, sync: bool = False) -> dict[str, Any]:
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256")
        return {"bytes": file.tell(), "sha256": digest.hexdigest()}


def _read_back(path: Path) -> dict[str, Any]:
    try:
        return _describe(path)
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror}") from error


def _read(path: Path, step: int) -> dict[str, Any]:
    """The `files` of a manifest."""
    if not path.is_file():
        raise Damaged(f"{path} is missing, so it was not written to its end")
    try:
        text = path.read_text()
        if not text.endswith("}\n"):
            raise Damaged(f"{path} was cut short")
        content = json.loads(text)
        if content["format"] != _FORMAT:
            raise Damaged(f"{path} is of format {content['format']}; this version reads format {_FORMAT}")
        if content["step"] != step:
            raise Damaged(f"{path} is of step {content['step']}, not {step}")
        files = {str(name): {"bytes": int(f["bytes"]), "sha256": f["sha256"]} for name, f in content["files"].items()}
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, Damaged):
            raise
        raise Damaged(f"{path} is not a manifest ({type(error).__name__}: {error})") from error
    return files
