"""Manifests: the files of a finished checkpoint and their hashes, by which a damaged one is recognised."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from videogen_jax.runtime.durable_files import sync_folder, write_json_durably

NAME = "manifest.json"
_FORMAT = 1
_THREADS = 4  # hashing a large buffer releases the interpreter's lock


class Damaged(ValueError):
    """A checkpoint does not match its manifest; the message names the file and what is wrong with it."""


def write_manifest(folder: Path, step: int) -> None:
    """Write `folder/manifest.json`: the names, sizes and SHA-256 of all other files below `folder`.

    The manifest appears whole or not at all, and after the files that it names are on the disk, so it is true even if
    the machine loses power right afterwards.
    """
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor(_THREADS) as threads:
        entries = list(threads.map(lambda name: _describe(folder / name, sync=True), names))
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            sync_folder(path)
    content = {"format": _FORMAT, "step": step, "files": dict(zip(names, entries, strict=True))}
    write_json_durably(folder / NAME, content)


def check_manifest(folder: Path, step: int) -> None:
    """Compare the files below `folder` with its manifest.

    Raises:
      Damaged: there is no manifest, or one for another step, or a file is missing, cut short or changed.
    """
    files = _read(folder / NAME, step)
    for name, expected in files.items():  # cheap, and finds what a killed process or a full disk leaves behind
        path = folder / name
        if not path.is_file():
            raise Damaged(f"{path} is missing")
        if path.stat().st_size != expected["bytes"]:
            raise Damaged(f"{path} has {path.stat().st_size} bytes, not {expected['bytes']}")
    with ThreadPoolExecutor(_THREADS) as threads:
        for name, actual in zip(files, threads.map(lambda name: _read_back(folder / name), files), strict=True):
            if actual != files[name]:
                raise Damaged(f"{folder / name} was changed: its SHA-256 is not the one in {NAME}")


def _describe(path: Path, sync: bool = False) -> dict[str, Any]:
    """Return size and hash of a file; with `sync`, after its content is on the disk."""
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
    """Return the `files` of a manifest. Raises Damaged if it is not one of `step`."""
    if not path.is_file():
        raise Damaged(f"{path} is missing, so the checkpoint was not finished")
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
