"""Results that survive a restart: a folder for each, and in it all that was made.

gallery/5f0c3e9a1b2d4c68/
  video.mp4       with the recipe in its metadata
  frames.zip      every frame as a PNG file: what the video was encoded from
  reference.png   poster.png (the first frame)
  recipe.json     all that the video follows from
  result.json     when it was made, its size, and the sizes of the files, by which half-written ones are known
  video.gif  sheet.png   made when they are first asked for
  pinned          if it is to stay
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
_WRITING, _DELETED = ".writing-", ".deleted-"  # folders that are no results, or no more
_WRITING_SECONDS = 3600  # after which a folder that is being written is taken for abandoned
FILES = ("video.mp4", "frames.zip", "reference.png", "poster.png", "recipe.json")
MADE = ("video.gif", "sheet.png")
_FACTS = "result.json"


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished video. `metadata` are the texts that its files hold; created is in seconds since 1970."""

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
    """The results in a folder, which is created. All methods may be called from any thread, but not on an event loop.

    Args:
      folder: where results are kept.
      most: results that are kept; when there are more, the oldest that is not pinned is deleted.

    Raises:
      ValueError: the folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike, most: int):
        self.folder = Path(folder)
        self.most = most
        self._results: dict[str, Result] = {}  # the oldest first
        self._lock = threading.Lock()
        self._making: dict[tuple[str, str], threading.Lock] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise ValueError(f"--gallery {folder} cannot be written: {error.strerror or error}") from error
        self._read_all()

    def add(self, output: Any) -> Result:
        """Keeps what the pipeline has made of one prompt; see `VideoGenOutput`. OSError: it cannot be written."""
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
            facts = {
                "created": time.time(),
                "frames": len(frames),
                "fps": float(output.fps),
                "width": frames.shape[2],
                "height": frames.shape[1],
                "metadata": metadata,
                "sizes": {name: (temporary / name).stat().st_size for name in FILES},
            }
            (temporary / _FACTS).write_text(json.dumps(facts, indent=2), encoding="utf-8")
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
        """Raises Refused (404) if there is no such result."""
        result = self._results.get(result_id)
        if result is None:
            raise Refused(404, f"There is no result {result_id}.")
        return result

    def page(self, limit: int, before: str | None = None) -> tuple[list[Result], str | None]:
        """The newest results, or those that are older than another, and what to give as `before` for the next page.

        Raises Refused (404) if `before` is no result.
        """
        with self._lock:
            results = list(reversed(self._results.values()))
        if before is not None:
            results = results[results.index(self.get(before)) + 1 :]
        return results[:limit], results[limit - 1].id if len(results) > limit else None

    def delete(self, result_id: str) -> None:
        """Raises Refused (404) if there is no such result."""
        with self._lock:
            self.get(result_id)
            del self._results[result_id]
            for name in MADE:
                self._making.pop((result_id, name), None)
        # Moved away first, so that what cannot be removed at once is no half result after a restart.
        gone = self.folder / f"{_DELETED}{result_id}"
        with contextlib.suppress(FileNotFoundError):  # somebody has removed it by hand
            os.replace(self.folder / result_id, gone)
        shutil.rmtree(gone, ignore_errors=True)

    def pin(self, result_id: str, pinned: bool) -> Result:
        """Keeps a result from being deleted to make room. Raises Refused: 404, or 409 if most are pinned already."""
        with self._lock:
            result = self.get(result_id)
            if pinned and not result.pinned and 2 * sum(one.pinned for one in self._results.values()) >= self.most:
                raise Refused(409, f"Half of the {self.most} results that are kept are pinned already: unpin one.")
            mark = self.folder / result_id / "pinned"
            mark.touch() if pinned else mark.unlink(missing_ok=True)
            self._results[result_id] = dataclasses.replace(result, pinned=pinned)
            return self._results[result_id]

    def file(self, result_id: str, name: str) -> Path:
        """One of FILES, or one of MADE, which is made if need be. Raises Refused (404) if there is no such result."""
        result = self.get(result_id)
        path = self.folder / result.id / name
        if name in MADE:
            with self._lock:
                lock = self._making.setdefault((result.id, name), threading.Lock())
            with lock:  # of many that ask at once one makes it
                if not path.exists():
                    frames, fps = self.frames(result.id), min(result.fps, MAX_GIF_FPS)
                    write_video(path, frames, fps, result.metadata)
        if not path.exists():
            raise Refused(404, f"There is no {name} of result {result_id}.")
        return path

    def frame_png(self, result_id: str, number: int) -> bytes:
        """A frame as it left the pipeline, a PNG file. Raises Refused (404) if there is no such result or frame."""
        result = self.get(result_id)
        if not 0 <= number < result.frames:
            raise Refused(404, f"frame is {number}, but the video has frames 0 to {result.frames - 1}.")
        with zipfile.ZipFile(self.file(result_id, "frames.zip")) as archive:
            return archive.read(frame_name(number))

    def frame(self, result_id: str, number: int) -> np.ndarray:
        """A frame as it left the pipeline, uint8 `(H, W, 3)`; see `frame_png`."""
        return read_image(io.BytesIO(self.frame_png(result_id, number)))

    def frames(self, result_id: str) -> np.ndarray:
        """All frames as they left the pipeline, uint8 `(T, H, W, 3)`. Raises Refused (404): no such result."""
        return np.stack([self.frame(result_id, number) for number in range(self.get(result_id).frames)])

    def __len__(self) -> int:
        return len(self._results)

    def _read_all(self) -> None:
        found = []
        for path in self.folder.iterdir():
            if path.name.startswith(_DELETED) or (path.name.startswith(_WRITING) and _is_old(path)):
                shutil.rmtree(path, ignore_errors=True)
            elif path.is_dir() and _ID.fullmatch(path.name):
                try:
                    found.append(read_result(path))
                except (OSError, ValueError, KeyError, TypeError) as error:
                    logging.warning("%s is passed over: it is not a whole result (%s)", path, error)
        self._results = {result.id: result for result in sorted(found, key=lambda result: result.created)}
        self._make_room()

    def _make_room(self) -> None:
        while True:
            with self._lock:
                spare = len(self._results) - self.most
                oldest = next((result.id for result in self._results.values() if not result.pinned), None)
            if spare <= 0 or oldest is None:
                return
            self.delete(oldest)


def read_result(folder: Path) -> Result:
    """Reads a result's folder. OSError, ValueError, KeyError or TypeError: something is missing or not whole."""
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    recipe = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    sizes = facts.pop("sizes")
    for name in FILES:
        if (folder / name).stat().st_size != sizes[name]:
            raise ValueError(f"{name} has not the size that it was written with")
    if not isinstance(recipe["prompt"], str) or not isinstance(recipe["seed"], int):
        raise ValueError("recipe.json has no prompt or seed")
    result = Result(folder.name, recipe=recipe, pinned=(folder / "pinned").exists(), **facts)
    numbers = (result.created, result.frames, result.fps, result.width, result.height)
    if not all(isinstance(number, (int, float)) and number > 0 for number in numbers):
        raise ValueError(f"{_FACTS} has something else where a number should be")
    return result


def write_frames(path: Path, frames: np.ndarray) -> None:
    """Writes frames uint8 `(T, H, W, 3)`, each as a PNG file, into a zip archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number, frame in enumerate(frames):
            archive.writestr(frame_name(number), png_bytes(frame))


def frame_name(number: int) -> str:
    return f"{number:04d}.png"


def _is_old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > _WRITING_SECONDS
