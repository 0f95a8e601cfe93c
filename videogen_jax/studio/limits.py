"""What the server takes on, in one place."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds that keep the server up whatever it is asked.

    A client is one browser, or all that come from an address without the server's cookie; see `clients.py`.

    Attributes:
      prompt: characters of a prompt.
      json_bytes: of a request's JSON body.
      body_seconds: in which the body of a request has to arrive.
      steps, guidance: the largest numbers of sampling steps and weights that are taken.
      fps: least and most frames a second.
      queued: jobs that wait, all together; queued_per_client, queued_per_address: of one.
      jobs_kept: jobs that are over and can still be asked for.
      preview_bytes: pixels of previews kept of jobs that are over, all together.
      streams_per_client, streams_per_address, streams: event streams open at once.
      upload_bytes, upload_pixels: of a reference image as it is sent.
      upload_side: longer side, in pixels, to which it is reduced.
      uploads, uploads_per_client: reference images kept, upload_seconds: for how long.
      uploading_per_client, uploading_per_address, uploading: uploads on their way at once.
      results: videos kept in the gallery; the oldest that is not pinned goes.
      makers: images that are decoded, or gifs, sheets and previews that are encoded, at the same time.
    """

    prompt: int = 500
    json_bytes: int = 64 * 1024
    body_seconds: float = 30.0
    steps: int = 200
    guidance: float = 50.0
    fps: tuple[float, float] = (1.0, 120.0)
    queued: int = 32
    queued_per_client: int = 4
    queued_per_address: int = 16
    jobs_kept: int = 64
    preview_bytes: int = 32 * 2**20
    streams_per_client: int = 8
    streams_per_address: int = 32
    streams: int = 256
    upload_bytes: int = 10 * 2**20
    upload_pixels: int = 25_000_000
    upload_side: int = 2048
    uploads: int = 32
    uploads_per_client: int = 8
    upload_seconds: float = 3600.0
    uploading_per_client: int = 2
    uploading_per_address: int = 4
    uploading: int = 16
    results: int = 500
    makers: int = 2

    @property
    def settings(self) -> dict[str, tuple[float, float]]:
        """The least and the most of a job's settings."""
        guidance = (0.0, self.guidance)
        return {
            "fps": self.fps,
            "guidance_scale": guidance,
            "reference_guidance_scale": guidance,
            "steps": (1, self.steps),
        }
