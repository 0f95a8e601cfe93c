"""The gallery: finished videos on disk, one folder for each, which survive a restart.

gallery/5f0c3e9a1b2d4c68/
  video.mp4       the video, with the recipe in its metadata
  frames.zip      every frame as a PNG file, from which the video was encoded
  reference.png   the reference image
  poster.png      the first frame
  recipe.json     everything that determines the video
  result.json     creation time, frame size, and the sizes of the other files, which reveal incomplete ones
  video.gif, sheet.png   encoded on the first request for them
  pinned          present if the result must not be deleted to make room
"""

import contextlib
import dataclasses
import io
import json
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from videogen_jax.studio.errors import Refused
from videogen_jax.studio.previews import png_bytes
from videogen_jax.video_io import MAX_GIF_FPS, read_image, write_video

_ID = re.compile(r"[0-9a-f]{16}")
_WRITING, _DELETED = ".writing-", ".deleted-"  # prefixes of folders that are not results yet, or no longer
_WRITING_SECONDS = 3600  # age at which an unfinished folder counts as abandoned
FILES = ("video.mp4", "frames.zip", "reference.png", "poster.png", "recipe.json")
DERIVED_FILES = ("video.gif", "sheet.png")
_RESULT_FILE = "result.json"


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished video.

    Attributes:
      id: 16 hexadecimal digits, the name of its folder.
      created: seconds since 1970.
      frames: number of frames.
      fps: frames per second.
      width, height: frame size in pixels.
      metadata: the texts stored in the metadata of its files.
      recipe: everything that determines the video, as JSON.
      pinned: whether it is exempt from deletion when the gallery is full.
    """

    id: str
    created: float
    frames: int
    fps: float
    width: int
    height: int
    metadata: dict[str, str]
    recipe: dict[str, Any]
    pinned: bool = False


class Gallery:
    """The results in a folder. Thread-safe; its methods block, so they must not be called on an event loop.

    Args:
      folder: where results are stored; created if it does not exist.
      max_results: number of results beyond which the oldest that is not pinned is deleted.

    Raises:
      ValueError: the folder is not writable.
    """

    def __init__(self, folder: str | os.PathLike, max_results: int):
        self.folder = Path(folder)
        self.max_results = max_results
        self._results: dict[str, Result] = {}  # oldest first
        self._lock = threading.Lock()
        self._derived_locks: dict[tuple[str, str], threading.Lock] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise ValueError(f"--gallery {folder} cannot be written: {error.strerror or error}") from error
        self._read_all()

    def add(self, output: Any) -> Result:
        """Store the output of the pipeline for one prompt.

        Args:
          output: a `VideoGenOutput` of one video.

        Raises:
          OSError: the files cannot be written.
        """
        (frames,), (reference,), (recipe,) = output.frames, output.reference, output.recipes
        metadata = dict(recipe.metadata())
        result_id = secrets.token_hex(8)
        temporary = Path(tempfile.mkdtemp(prefix=_WRITING, dir=self.folder))
        try:
            write_video(temporary / "video.mp4", frames, output.fps, metadata)
            write_frames(temporary / "frames.zip", frames)
            (temporary / "reference.png").write_bytes(png_bytes(reference))
            (temporary / "poster.png").write_bytes(png_bytes(frames[0]))
            (temporary / "recipe.json").write_text(recipe.to_json(), encoding="utf-8")
            properties = {
                "created": time.time(),
                "frames": len(frames),
                "fps": float(output.fps),
                "width": frames.shape[2],
                "height": frames.shape[1],
                "metadata": metadata,
                "sizes": {name: (temporary / name).stat().st_size for name in FILES},
            }
            (temporary / _RESULT_FILE).write_text(json.dumps(properties, indent=2), encoding="utf-8")
            temporary.chmod(0o755)
            os.replace(temporary, self.folder / result_id)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        result = read_result(self.folder / result_id)
        with self._lock:
            self._results[result_id] = result
        self._make_room()
        return result

    def get(self, result_id: str) -> Result:
        """Return a result.

        Raises:
          Refused: 404 if there is no such result.
        """
        result = self._results.get(result_id)
        if result is None:
            raise Refused(404, f"There is no result {result_id}.")
        return result

    def page(self, limit: int, before: str | None = None) -> tuple[list[Result], str | None]:
        """Return one page of results, newest first.

        Args:
          limit: the largest number of results.
          before: id of a result; only older ones are returned.

        Returns:
          the results, and the value of `before` for the next page, None at the end.

        Raises:
          Refused: 404 if `before` is not the id of a result.
        """
        with self._lock:
            results = list(reversed(self._results.values()))
        if before is not None:
            results = results[results.index(self.get(before)) + 1 :]
        return results[:limit], results[limit - 1].id if len(results) > limit else None

    def delete(self, result_id: str) -> None:
        """Delete a result and its files.

        Raises:
          Refused: 404 if there is no such result.
        """
        with self._lock:
            self.get(result_id)
            del self._results[result_id]
            for name in DERIVED_FILES:
                self._derived_locks.pop((result_id, name), None)
        # Renamed first, so that a folder that is only partly removed is not read as a result after a restart.
        deleted = self.folder / f"{_DELETED}{result_id}"
        with contextlib.suppress(FileNotFoundError):  # removed by hand
            os.replace(self.folder / result_id, deleted)
        shutil.rmtree(deleted, ignore_errors=True)

    def pin(self, result_id: str, pinned: bool) -> Result:
        """Set whether a result is exempt from deletion when the gallery is full.

        Raises:
          Refused: 404 if there is no such result, 409 if half of the gallery is pinned already.
        """
        with self._lock:
            result = self.get(result_id)
            pinned_count = sum(other.pinned for other in self._results.values())
            if pinned and not result.pinned and 2 * pinned_count >= self.max_results:
                message = f"Half of the {self.max_results} results that are kept are pinned already: unpin one."
                raise Refused(409, message)
            marker = self.folder / result_id / "pinned"
            marker.touch() if pinned else marker.unlink(missing_ok=True)
            self._results[result_id] = dataclasses.replace(result, pinned=pinned)
            return self._results[result_id]

    def file(self, result_id: str, name: str) -> Path:
        """Return the path of one of FILES or DERIVED_FILES; the latter are encoded on the first request.

        Raises:
          Refused: 404 if there is no such result or file.
        """
        result = self.get(result_id)
        path = self.folder / result.id / name
        if name in DERIVED_FILES:
            with self._lock:
                lock = self._derived_locks.setdefault((result.id, name), threading.Lock())
            with lock:  # concurrent requests encode the file once
                if not path.exists():
                    frames, fps = self.frames(result.id), min(result.fps, MAX_GIF_FPS)
                    write_video(path, frames, fps, result.metadata)
        if not path.exists():
            raise Refused(404, f"There is no {name} of result {result_id}.")
        return path

    def frame_png(self, result_id: str, number: int) -> bytes:
        """Return an exact frame of the pipeline's output as the bytes of a PNG file.

        Raises:
          Refused: 404 if there is no such result or frame.
        """
        result = self.get(result_id)
        if not 0 <= number < result.frames:
            raise Refused(404, f"frame is {number}, but the video has frames 0 to {result.frames - 1}.")
        with zipfile.ZipFile(self.file(result_id, "frames.zip")) as archive:
            return archive.read(frame_name(number))

    def frame(self, result_id: str, number: int) -> np.ndarray:
        """Return an exact frame of the pipeline's output, uint8 `(H, W, 3)`; raises as `frame_png`."""
        return read_image(io.BytesIO(self.frame_png(result_id, number)))

    def frames(self, result_id: str) -> np.ndarray:
        """Return all frames of the pipeline's output, uint8 `(T, H, W, 3)`; raises as `frame_png`."""
        return np.stack([self.frame(result_id, number) for number in range(self.get(result_id).frames)])

    def __len__(self) -> int:
        return len(self._results)

    def _read_all(self) -> None:
        results = []
        for path in self.folder.iterdir():
            if path.name.startswith(_DELETED) or (path.name.startswith(_WRITING) and _is_old(path)):
                shutil.rmtree(path, ignore_errors=True)
            elif path.is_dir() and _ID.fullmatch(path.name):
                try:
                    results.append(read_result(path))
                except (OSError, ValueError, KeyError, TypeError) as error:
                    logging.warning("%s is passed over: it is not a whole result (%s)", path, error)
        self._results = {result.id: result for result in sorted(results, key=lambda result: result.created)}
        self._make_room()

    def _make_room(self) -> None:
        while True:
            with self._lock:
                excess = len(self._results) - self.max_results
                oldest = next((result.id for result in self._results.values() if not result.pinned), None)
            if excess <= 0 or oldest is None:
                return
            self.delete(oldest)


def read_result(folder: Path) -> Result:
    """Read a result from its folder.

    Raises:
      OSError, ValueError, KeyError, TypeError: a file is missing, incomplete or malformed.
    """
    properties = json.loads((folder / _RESULT_FILE).read_text(encoding="utf-8"))
    recipe = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    sizes = properties.pop("sizes")
    for name in FILES:
        if (folder / name).stat().st_size != sizes[name]:
            raise ValueError(f"{name} has not the size that it was written with")
    if not isinstance(recipe["prompt"], str) or not isinstance(recipe["seed"], int):
        raise ValueError("recipe.json has no prompt or seed")
    result = Result(folder.name, recipe=recipe, pinned=(folder / "pinned").exists(), **properties)
    numbers = (result.created, result.frames, result.fps, result.width, result.height)
    if not all(isinstance(number, (int, float)) and number > 0 for number in numbers):
        raise ValueError(f"{_RESULT_FILE} has something else where a number should be")
    return result


def write_frames(path: Path, frames: np.ndarray) -> None:
    """Write frames, uint8 `(T, H, W, 3)`, as PNG files into a zip archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number, frame in enumerate(frames):
            archive.writestr(frame_name(number), png_bytes(frame))


def frame_name(number: int) -> str:
    """Return the name of a frame's file in the zip archive."""
    return f"{number:04d}.png"


def _is_old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > _WRITING_SECONDS
