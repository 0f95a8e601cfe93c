"""Reference images that clients send: decoded, reduced and kept in memory for a while."""

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
    """An image uint8 `(H, W, 3)` that a client has sent; created is in seconds of the monotonic clock."""

    id: str
    client: Client
    image: np.ndarray
    created: float

    def png(self) -> bytes:
        return png_bytes(self.image)


class Uploads:
    """The uploads of all clients, bounded in number and age. The oldest goes: of the client, or of the address that has
    the most."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self._uploads: dict[str, Upload] = {}  # in the order of arrival
        self._lock = threading.Lock()

    def add(self, client: Client, content: bytes) -> Upload:
        """Decodes an image and keeps it, its longer side at most `limits.upload_side`. To be called off the event loop.

        Raises:
          Refused: 422 if it is not an image that can be read, or has too many pixels.
        """
        image = decode(content, self.limits)
        upload = Upload(secrets.token_hex(8), client, image, time.monotonic())
        with self._lock:
            self._forget_old()
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
        """The client's upload of that id, if it is still kept."""
        with self._lock:
            self._forget_old()
            upload = self._uploads.get(upload_id)
        return upload if upload is not None and upload.client == client else None

    def __len__(self) -> int:
        return len(self._uploads)

    def _forget_old(self) -> None:
        oldest = time.monotonic() - self.limits.upload_seconds
        for upload in [upload for upload in self._uploads.values() if upload.created < oldest]:
            del self._uploads[upload.id]


def decode(content: bytes, limits: Limits) -> np.ndarray:
    """An image file's pixels as they are seen, uint8 `(H, W, 3)`. Raises Refused (422): it is none, or too large."""
    try:
        # Pillow reads the size alone here, whatever the file says of it.
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
