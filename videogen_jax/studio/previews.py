"""Previews: the intermediate output of a stage, encoded as an image that a browser can display."""

import io
import threading
from collections.abc import Sequence

import numpy as np
from PIL import Image


class Preview:
    """An image or a clip, encoded on first use.

    Args:
      pixels: uint8, an image `(H, W, 3)`, encoded as PNG, or a clip `(T, H, W, 3)`, encoded as animated lossless WebP.
      fps: frames per second of a clip.
    """

    def __init__(self, pixels: np.ndarray, fps: float):
        self.media_type = "image/png" if pixels.ndim == 3 else "image/webp"
        self.nbytes = pixels.nbytes
        self._pixels: np.ndarray | None = pixels
        self._fps = fps
        self._encoded = b""
        self._lock = threading.Lock()

    def encoded(self) -> bytes:
        """Return the bytes of the file. Blocks, so it must not be called on the event loop."""
        with self._lock:
            if self._pixels is not None:
                is_image = self._pixels.ndim == 3
                self._encoded = png_bytes(self._pixels) if is_image else webp_bytes(self._pixels, self._fps)
                self._pixels = None
            return self._encoded


def png_bytes(image: np.ndarray) -> bytes:
    """Encode an image, uint8 `(H, W, 3)`, as a PNG file."""
    target = io.BytesIO()
    Image.fromarray(image).save(target, "PNG", compress_level=3)
    return target.getvalue()


def webp_bytes(frames: np.ndarray, fps: float) -> bytes:
    """Encode a clip, uint8 `(T, H, W, 3)`, as a lossless animated WebP file that loops.

    A frame equal to its predecessor is not stored; the predecessor's duration is extended instead.
    """
    first, *others = map(Image.fromarray, frames)
    target = io.BytesIO()
    # The fastest lossless mode, as a preview is only displayed for a moment.
    options = {"lossless": True, "quality": 0, "method": 0}
    first.save(
        target, "WEBP", save_all=True, append_images=others, duration=durations(len(frames), fps), loop=0, **options
    )
    return target.getvalue()


def durations(count: int, fps: float) -> Sequence[int]:
    """Return a duration in whole milliseconds, at least 1, for each frame; they add up to count / fps seconds."""
    times = np.round(np.arange(count + 1) * 1000 / fps).astype(int)
    return np.maximum(np.diff(times), 1).tolist()
