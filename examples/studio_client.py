"""Has the studio make a video and saves it; needs the standard library alone.

    python examples/studio_client.py "a small red circle moving right slowly on a gray background" --output circle.mp4

Start the studio first: `python -m videogen_jax.serve`. A token, if it has one, is taken from VIDEOGEN_JAX_TOKEN.
"""

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

IMAGE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}


class Studio:
    """The studio at `url`; `token` is what it was started with, or None."""

    def __init__(self, url: str, token: str | None = None):
        self.url = url.rstrip("/")
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def request(self, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        """GET, or POST where there is a body. RuntimeError, with the server's sentence, if it is refused."""
        headers = self.headers | ({} if body is None else {"Content-Type": kind})
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, body, headers)) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["error"]) from error

    def upload(self, image: Path) -> str:
        """Sends a reference image and gives its id."""
        kind = IMAGE_TYPES.get(image.suffix.lower(), "image/unknown")
        return json.loads(self.request("/api/v1/uploads", image.read_bytes(), kind))["id"]

    def make(self, **asked) -> dict:
        """Asks for a video (see /api), tells how it gets on, and gives the result."""
        job = json.loads(self.request("/api/v1/jobs", json.dumps(asked).encode()))
        while job["state"] in ("queued", "running"):
            where = f"{job['stage']} {job['step']}/{job['of']}" if job["stage"] else f"{job['position']} jobs before it"
            print(f"{job['state']}: {where}", file=sys.stderr)
            time.sleep(0.5)
            job = json.loads(self.request(f"/api/v1/jobs/{job['id']}"))
        if job["state"] != "done":
            raise RuntimeError(job["reason"] or f"the job was {job['state']}")
        return json.loads(self.request(f"/api/v1/results/{job['result']}"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompt", help="what the video shows")
    parser.add_argument("--url", default="http://127.0.0.1:7860", help="where the studio is")
    parser.add_argument("--seed", type=int, help="a random one if not given")
    parser.add_argument("--reference", type=Path, help="an image to animate")
    parser.add_argument("--output", type=Path, default=Path("video.mp4"), help="the file that is written")
    asked = parser.parse_args()
    studio = Studio(asked.url, os.environ.get("VIDEOGEN_JAX_TOKEN"))
    try:
        reference = None if asked.reference is None else {"upload": studio.upload(asked.reference)}
        result = studio.make(prompt=asked.prompt, seed=asked.seed, reference=reference)
        asked.output.write_bytes(studio.request(result["video"]))
    except (RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{asked.output}: {result['frames']} frames, seed {result['seed']}")


if __name__ == "__main__":
    main()
