"""What a stage has made so far, as an image that a browser shows."""

import io
import threading
from collections.abc import Sequence

import numpy as np
from PIL import Image


class Preview:
    """Pixels, encoded when they are first asked for.

    Args:
      pixels: uint8 `(H, W, 3)`, an image (PNG), or `(T, H, W, 3)`, a clip (animated lossless WebP, looping).
      fps: frames a second of a clip.
    """

    def __init__(self, pixels: np.ndarray, fps: float):
        self.media_type = "image/png" if pixels.ndim == 3 else "image/webp"
        self.nbytes = pixels.nbytes
        self._pixels: np.ndarray | None = pixels
        self._fps = fps
        self._encoded = b""
        self._lock = threading.Lock()

    def encoded(self) -> bytes:
        """The file's bytes. To be called off the event loop."""
        with self._lock:
            if self._pixels is not None:
                is_image = self._pixels.ndim == 3
                self._encoded = png_bytes(self._pixels) if is_image else webp_bytes(self._pixels, self._fps)
                self._pixels = None
            return self._encoded


def png_bytes(image: np.ndarray) -> bytes:
    """An image uint8 `(H, W, 3)` as a PNG file."""
    target = io.BytesIO()
    Image.fromarray(image).save(target, "PNG", compress_level=3)
    return target.getvalue()


def webp_bytes(frames: np.ndarray, fps: float) -> bytes:
    """A clip uint8 `(T, H, W, 3)` as a lossless animated WebP file, looping.

    Frames that are equal to the one before are not stored again: the one before is shown longer.
    """
    first, *others = map(Image.fromarray, frames)
    target = io.BytesIO()
    # The quickest of the lossless modes: a preview is looked at for a moment.
    options = {"lossless": True, "quality": 0, "method": 0}
    first.save(
        target, "WEBP", save_all=True, append_images=others, duration=durations(len(frames), fps), loop=0, **options
    )
    return target.getvalue()


def durations(count: int, fps: float) -> Sequence[int]:
    """Whole milliseconds for each of `count` frames, at least 1, that together last count / fps seconds."""
    times = np.round(np.arange(count + 1) * 1000 / fps).astype(int)
    return np.maximum(np.diff(times), 1).tolist()
