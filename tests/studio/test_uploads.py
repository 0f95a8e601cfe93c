import io

import numpy as np
import pytest
from PIL import Image

from videogen_jax.studio.clients import Client
from videogen_jax.studio.limits import Limits
from videogen_jax.studio.uploads import Uploads, decode
from videogen_jax.video_io import read_image

URL = "/api/v1/uploads"


def image(side: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side + 4, 3), np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, kind, **options)
    return target.getvalue()


def send(client, content: bytes, kind: str = "image/png"):
    return client.post(URL, content=content, headers={"Content-Type": kind})


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_an_upload_is_stored_exactly_and_becomes_the_reference(studio, client, kind):
    pixels = image() if kind != "GIF" else np.repeat(image()[:, :, :1] // 64 * 64, 3, axis=2)
    options = {"lossless": True} if kind == "WEBP" else {}
    response = send(client, encoded(pixels, kind, **options), f"image/{kind.lower()}")
    assert response.status_code == 201
    upload = response.json()
    assert (upload["width"], upload["height"]) == (16, 12)
    stored = client.get(upload["url"])
    assert stored.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(read_image(io.BytesIO(stored.content)), pixels)
    studio.make(client, reference={"upload": upload["id"]})
    np.testing.assert_array_equal(studio.pipeline.calls[-1]["reference"], pixels)


def test_an_image_is_rotated_by_its_exif_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
    pixels = image()
    rotated = decode(encoded(pixels, exif=exif), Limits())
    np.testing.assert_array_equal(rotated, np.rot90(pixels, -1))


def test_a_large_image_is_downscaled():
    downscaled = decode(encoded(np.full((30, 300, 3), (10, 200, 30), np.uint8)), Limits(upload_side=100))
    np.testing.assert_array_equal(downscaled, np.full((10, 100, 3), (10, 200, 30), np.uint8))
    assert decode(encoded(np.zeros((1, 3000, 3), np.uint8)), Limits(upload_side=100)).shape == (1, 100, 3)


def test_uploads_are_their_clients_own(studio):
    a, b = studio.client("10.0.0.1"), studio.client("10.0.0.2")
    upload = send(a, encoded(image())).json()
    assert b.get(upload["url"]).status_code == 404
    response = b.post("/api/v1/jobs", json={"prompt": "a circle", "reference": {"upload": upload["id"]}})
    assert response.status_code == 422
    assert a.get(upload["url"]).status_code == 200


def test_uploads_are_bounded_in_number_and_age(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("videogen_jax.studio.uploads.time.monotonic", lambda: now[0])
    uploads = Uploads(Limits(uploads=4, uploads_per_client=2, upload_seconds=60))
    greedy = [Client("10.0.0.1", f"{number:032x}") for number in range(3)]
    modest = Client("10.0.0.2", "")
    content = encoded(image())
    stored = uploads.add(modest, content)
    own = [uploads.add(greedy[0], content) for _ in range(3)]
    assert [uploads.get(greedy[0], upload.id) is None for upload in own] == [True, False, False]
    for client in greedy[1:] * 2:
        uploads.add(client, content)
    assert len(uploads) == 4
    assert uploads.get(modest, stored.id) is stored  # the address with the most uploads loses its oldest
    now[0] += 61
    assert uploads.get(modest, stored.id) is None
    assert len(uploads) == 0
