"""Every bad request gets a status from 400 to 499 and a sentence, and the server keeps running."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

JOBS, UPLOADS = "/api/v1/jobs", "/api/v1/uploads"
UNKNOWN = "0123456789abcdef"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def shared(fake, tmp_path_factory, request):
    """One studio and a client for all requests of this file."""
    module = request.config.pluginmanager.get_plugin(str(request.path.with_name("conftest.py")))
    studio = module.Studio(fake, tmp_path_factory.mktemp("gallery"))
    with studio.client() as client:
        yield studio, client


def image_bytes(kind: str = "PNG", side: int = 64) -> bytes:
    target = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(noise).save(target, kind)
    return target.getvalue()


def bomb() -> bytes:
    """Build a PNG file of a few hundred bytes whose header declares 900 million pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def assert_refused(response, status: int, *parts: str) -> None:
    assert response.status_code == status, response.text
    content = response.json()
    assert set(content) == {"error"}
    sentence = content["error"]
    assert 10 < len(sentence) < 400
    assert sentence[0] != " "
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    for part in parts:
        assert part in sentence


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": " \t\n\u3000"}, "prompt is empty"),
        ({"prompt": "\u0301\u0301"}, "prompt is empty"),
        ({"prompt": "\u200b\u200b"}, "U+200B"),
        ({"prompt": "a circle\x00"}, "U+0000"),
        ({"prompt": "a \ud800 circle"}, "prompt"),
        ({"prompt": "a \u202eelcric"}, "U+202E"),
        ({"prompt": "a \U000e0041"}, "U+E0041"),
        ({"prompt": "a" * 501}, "501 characters"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": ["a circle"]}, "prompt"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": "3"}, "seed"),
        ({"frames": 1}, "frames is 1, but the model makes 2 to 15 frames"),
        ({"frames": 16}, "frames is 16"),
        ({"frames": 10**400}, "frames"),
        ({"frames": False}, "frames"),
        ({"fps": 0}, "fps"),
        ({"fps": -15}, "fps"),
        ({"fps": 0.001}, "fps is 0.001, but must be from 1 to 120"),
        ({"fps": 1e308}, "fps"),
        ({"fps": float("nan")}, "fps"),
        ({"fps": float("inf")}, "fps"),
        ({"fps": "15"}, "fps"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"guidance_scale": float("-inf")}, "guidance_scale"),
        ({"guidance_scale": -1}, "guidance_scale"),
        ({"guidance_scale": 51}, "guidance_scale is 51, but must be from 0 to 50"),
        ({"guidance_scale": 10**400}, "guidance_scale"),
        ({"guidance_scale": {"reference": 2}}, "guidance_scale"),
        ({"reference_guidance_scale": -0.5}, "reference_guidance_scale"),
        ({"reference_guidance_scale": True}, "reference_guidance_scale"),
        ({"steps": 0}, "steps"),
        ({"steps": 201}, "steps is 201, but must be from 1 to 200"),
        ({"steps": 2.0}, "steps"),
        ({"sampler": "ddim"}, "sampler is not a field"),
        ({"batch_size": 64}, "batch_size is not a field"),
        ({"reference": "cat.png"}, "reference"),
        ({"reference": {}}, "reference must be either upload, or result and frame"),
        ({"reference": {"upload": UNKNOWN, "result": UNKNOWN, "frame": 0}}, "reference must be either"),
        ({"reference": {"result": UNKNOWN}}, "reference must be either"),
        ({"reference": {"upload": UNKNOWN}}, "reference.upload: there is no upload"),
        ({"reference": {"upload": "../../../etc/passwd"}}, "reference.upload is not an id"),
        ({"reference": {"upload": UNKNOWN + "\n"}}, "reference.upload is not an id"),
        ({"reference": {"result": UNKNOWN, "frame": 0}}, "reference: There is no result"),
        ({"reference": {"result": UNKNOWN, "frame": -1}}, "reference.frame"),
        ({"reference": {"path": "/etc/passwd"}}, "reference.path is not a field"),
    ],
    ids=repr,
)
def test_fields_of_a_job(shared, fields, part):
    _, client = shared
    # Encoded as ASCII, so that lone surrogates, NaN and Infinity reach the server.
    body = json.dumps({"prompt": "a small red circle", **fields})
    assert_refused(client.post(JOBS, content=body, headers=JSON), 422, part)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "application/json", 422),
        (b"{", "application/json", 422),
        (b"null", "application/json", 422),
        (b"[]", "application/json", 422),
        (b'"a circle"', "application/json", 422),
        (b"{}", "application/json", 422),
        (b'{"prompt": "a", "prompt2": 1e99999}', "application/json", 422),
        (b'{"prompt": "\xff\xfe"}', "application/json", 400),
        (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", "application/json", 400),
        (b"[" * 30_000, "application/json", 400),
        (b'{"prompt": "' + b"a" * 70_000 + b'"}', "application/json", 413),
        (b'{"prompt": "a circle"}', "text/plain", 415),
        (b'{"prompt": "a circle"}', "", 415),
        (b"prompt=a+circle", "application/x-www-form-urlencoded", 415),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bodies(shared, body, kind, status):
    _, client = shared
    assert_refused(client.post(JOBS, content=body, headers={"Content-Type": kind} if kind else {}), status)


def test_a_body_without_a_length_is_measured_as_it_arrives(shared):
    _, client = shared
    assert_refused(client.post(JOBS, content=iter([b" " * 40_000] * 2), headers=JSON), 413, "65,536 bytes")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/api/v1/jobs/{UNKNOWN}", 404),
        ("DELETE", f"/api/v1/jobs/{UNKNOWN}", 404),
        ("GET", f"/api/v1/jobs/{UNKNOWN}/events", 404),
        ("GET", f"/api/v1/jobs/{UNKNOWN}/previews/reference", 404),
        ("GET", "/api/v1/jobs/..%2f..%2f..%2fetc%2fpasswd", 404),
        ("GET", "/api/v1/jobs/%2e%2e", 422),
        ("GET", f"/api/v1/jobs/{UNKNOWN.upper()}", 422),
        ("GET", f"/api/v1/jobs/{UNKNOWN}%0a", 422),
        ("GET", f"/api/v1/jobs/{UNKNOWN}%00", 422),
        ("GET", f"/api/v1/jobs/{'9' * 5000}", 422),
        ("GET", f"/api/v1/results/{UNKNOWN}", 404),
        ("DELETE", f"/api/v1/results/{UNKNOWN}", 404),
        ("GET", f"/api/v1/results/{UNKNOWN}/video.mp4", 404),
        ("GET", f"/api/v1/results/{UNKNOWN}/video.gif", 404),
        ("GET", f"/api/v1/results/{UNKNOWN}/frames/0.png", 404),
        ("GET", f"/api/v1/results/{UNKNOWN}/frames/-1.png", 422),
        ("GET", f"/api/v1/results/{UNKNOWN}/frames/0x0.png", 422),
        ("GET", f"/api/v1/results/{UNKNOWN}/result.json", 404),
        ("GET", "/api/v1/results/%2e%2e/video.mp4", 422),
        ("GET", "/api/v1/results/..%2f..%2fetc/video.mp4", 404),
        ("GET", "/api/v1/results/%252e%252e%252fetc/video.mp4", 404),
        ("GET", "/api/v1/results/\u0665\u0665\u0665/video.mp4", 422),
        ("GET", "/api/v1/results?limit=0", 422),
        ("GET", "/api/v1/results?limit=101", 422),
        ("GET", "/api/v1/results?limit=many", 422),
        ("GET", "/api/v1/results?before=../..", 422),
        ("GET", f"/api/v1/results?before={UNKNOWN}", 404),
        ("GET", f"/api/v1/uploads/{UNKNOWN}", 404),
        ("GET", "/api/v1/uploads/%2e%2e%2f", 404),
        ("GET", "/static/../app.py", 404),
        ("GET", "/static/%2e%2e/app.py", 404),
        ("GET", "/static/..%2fapp.py", 404),
        ("GET", "/static//etc/passwd", 404),
        ("GET", "/docs", 404),
        ("GET", "/api/v1/nothing", 404),
        ("PUT", "/healthz", 405),
        ("DELETE", "/api/v1/jobs", 405),
        ("TRACE", "/", 405),
    ],
)
def test_paths(shared, method, path, status):
    _, client = shared
    assert_refused(client.request(method, path), status)


@pytest.mark.parametrize(
    ("content", "kind", "status", "part"),
    [
        (b"", "image/png", 422, "empty"),
        (b"no image at all", "image/png", 422, "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", 422, "not an image"),
        (image_bytes()[:200], "image/png", 422, "damaged"),
        (image_bytes("JPEG")[:1500], "image/jpeg", 422, "damaged"),
        (image_bytes()[:-200] + bytes(200), "image/png", 422, "damaged"),
        (image_bytes()[:20], "image/png", 422, ""),
        (bomb(), "image/png", 422, "too many pixels"),
        (bytes(10 * 2**20 + 1), "image/png", 413, "10,485,760 bytes"),
        (image_bytes(), "text/plain", 415, "Content-Type"),
        (image_bytes(), "", 415, "Content-Type"),
        (iter([image_bytes()]), "image/png", 411, "Content-Length"),
    ],
    ids=[
        "empty",
        "text",
        "svg",
        "cut png",
        "cut jpeg",
        "zeros",
        "header",
        "bomb",
        "large",
        "as text",
        "untyped",
        "chunked",
    ],
)
def test_uploads(shared, content, kind, status, part):
    _, client = shared
    response = client.post(UPLOADS, content=content, headers={"Content-Type": kind} if kind else {})
    assert_refused(response, status, part)


def test_an_upload_longer_than_its_content_length_is_rejected(shared):
    studio, client = shared
    headers = {"Content-Type": "image/png", "Content-Length": "10"}
    response = client.post(UPLOADS, content=iter([bytes(2**20)] * 11), headers=headers)
    assert_refused(response, 413)
    assert len(studio.shared.uploads) == 0


@pytest.mark.parametrize("length", ["-1", "1e3", "ten", "\u0661".encode()], ids=repr)
def test_invalid_content_lengths(shared, length):
    _, client = shared
    headers = {"Content-Type": "image/png", "Content-Length": length}
    assert_refused(client.post(UPLOADS, content=b"", headers=headers), 400, "Content-Length")


@pytest.mark.parametrize(
    ("headers", "status", "part"),
    [
        ({"Origin": "http://evil.example"}, 403, "Origin"),
        ({"Origin": "null"}, 403, "Origin"),
        ({"Origin": "http://127.0.0.1:9999"}, 403, "Origin"),
        ({"Origin": "http://127.0.0.1:7860.evil.example"}, 403, "Origin"),
        ({"Host": "evil.example"}, 403, "Host"),
        ({"Host": "localhost.evil.example:7860"}, 403, "Host"),
        ({"Host": "127.0.0.1@evil.example"}, 403, "Host"),
        ({"Host": "[::1"}, 403, "Host"),
        ({"Host": ""}, 403, "Host"),
    ],
)
def test_requests_of_other_sites(shared, headers, status, part):
    _, client = shared
    response = client.post(JOBS, json={"prompt": "a small red circle"}, headers=headers)
    assert_refused(response, status, part)


def test_prompts_to_check(shared):
    _, client = shared
    assert_refused(client.post("/api/v1/prompts/check", json={"prompt": ""}), 422, "prompt")
    assert_refused(client.post("/api/v1/prompts/check", json={"text": "a"}), 422, "prompt")


def test_the_server_still_works_after_all_of_them(shared):
    """Tests of a file run in order, so this one runs last."""
    studio, client = shared
    assert client.get("/healthz").json()["status"] == "ready"
    assert client.get(JOBS).json() == {"jobs": []}
    assert len(studio.gallery) == 0
    studio.make(client)
