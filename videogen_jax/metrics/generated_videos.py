"""The videos that an evaluation has generated, in a folder beside its results."""

from pathlib import Path

import numpy as np

from videogen_jax.video_io import write_image, write_video


class GeneratedVideos:
    """A folder with `KEY.mp4` for each video, H.264, and its reference image `KEY.png`.

    Args:
      folder: created with the first video.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def video(self, key: str) -> Path:
        return self.folder / f"{key}.mp4"

    def reference(self, key: str) -> Path:
        return self.folder / f"{key}.png"

    def has(self, key: str) -> bool:
        return self.video(key).is_file() and self.reference(key).is_file()

    def write(self, key: str, frames: np.ndarray, reference: np.ndarray, fps: float, prompt: str) -> None:
        """Write both files, each whole or not at all.

        Args:
          frames: uint8 `(T, H, W, 3)`.
          reference: uint8 `(H, W, 3)`.
          prompt: the title in the metadata of both files.
        """
        write_image(self.reference(key), reference, {"title": prompt})
        write_video(self.video(key), frames, fps, {"title": prompt})
