"""Reference images that clients upload: decoded, downscaled and held in memory for a limited time."""

import collections
import dataclasses
import io
import secrets
import threading
import time

import numpy as np
from PIL import Image

from videogen_jax.studio.clients import Client
from videogen_jax.studio.errors import Refused
from videogen_jax.studio.limits import Limits
from videogen_jax.studio.previews import png_bytes
from videogen_jax.video_io import read_image


@dataclasses.dataclass(frozen=True)
class Upload:
    """An uploaded image.

    Attributes:
      id: 16 hexadecimal digits.
      client: its owner.
      image: uint8 `(H, W, 3)`.
      created: seconds of the monotonic clock.
    """

    id: str
    client: Client
    image: np.ndarray
    created: float

    def png(self) -> bytes:
        """Encode the image as a PNG file."""
        return png_bytes(self.image)


class Uploads:
    """The uploads of all clients, bounded in number and age. Thread-safe.

    At the limit of a client its oldest upload is dropped, at the total limit the oldest of the address with the most.
    """

    def __init__(self, limits: Limits):
        self.limits = limits
        self._uploads: dict[str, Upload] = {}  # in order of arrival
        self._lock = threading.Lock()

    def add(self, client: Client, content: bytes) -> Upload:
        """Decode and store an image. Blocks, so it must not be called on the event loop.

        Args:
          client: the sender.
          content: bytes of an image file; the image is downscaled to `limits.upload_side` on its longer side.

        Raises:
          Refused: 422 if it is not a readable image, or has too many pixels.
        """
        image = decode(content, self.limits)
        upload = Upload(secrets.token_hex(8), client, image, time.monotonic())
        with self._lock:
            self._drop_expired()
            own = [upload.id for upload in self._uploads.values() if upload.client == client]
            for old in own[: max(0, len(own) + 1 - self.limits.uploads_per_client)]:
                del self._uploads[old]
            while len(self._uploads) >= self.limits.uploads:
                counts = collections.Counter(upload.client.address for upload in self._uploads.values())
                ((most, _),) = counts.most_common(1)
                del self._uploads[next(key for key, value in self._uploads.items() if value.client.address == most)]
            self._uploads[upload.id] = upload
        return upload

    def get(self, client: Client, upload_id: str) -> Upload | None:
        """Return an upload of a client; None if there is none, or it has expired."""
        with self._lock:
            self._drop_expired()
            upload = self._uploads.get(upload_id)
        return upload if upload is not None and upload.client == client else None

    def __len__(self) -> int:
        return len(self._uploads)

    def _drop_expired(self) -> None:
        oldest = time.monotonic() - self.limits.upload_seconds
        for upload in [upload for upload in self._uploads.values() if upload.created < oldest]:
            del self._uploads[upload.id]


def decode(content: bytes, limits: Limits) -> np.ndarray:
    """Decode an image file, applying its orientation.

    Args:
      content: bytes of the file.
      limits: `upload_pixels` bounds the image in the file, `upload_side` the result.

    Returns:
      uint8 `(H, W, 3)`.

    Raises:
      Refused: 422 if it is not a readable image, or has too many pixels.
    """
    try:
        # Pillow only reads the header here, so an image that claims to be huge costs nothing.
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
    except Image.DecompressionBombError:
        raise _too_large(limits) from None
    except (OSError, SyntaxError, ValueError):
        raise Refused(422, "The upload is not an image that can be read: send a PNG, JPEG or WebP file.") from None
    if width * height > limits.upload_pixels:
        raise _too_large(limits)
    try:
        pixels = read_image(io.BytesIO(content))
    except (OSError, SyntaxError, ValueError):
        raise Refused(422, "The upload is an image that is damaged or cut short: send it again, or another.") from None
    scale = limits.upload_side / max(pixels.shape[:2])
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in (pixels.shape[1], pixels.shape[0]))
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
    return pixels


def _too_large(limits: Limits) -> Refused:
    return Refused(422, f"The upload has too many pixels: at most {limits.upload_pixels:,} are taken.")
